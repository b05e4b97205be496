//! One stage: its instructions in order, everything expanded.

use std::collections::{BTreeMap, BTreeSet};

use common::cache_key::{KeyBuilder, PARENT};
use common::image::{ContainerConfig, HistoryEntry, ResolvedImage};
use common::outcome::LineRange;
use common::plan::{
    Base, CopyFrom, CopyOp, ImageIndex, Op, PlannedStage, StageIndex, Step, WorkdirOp,
};
use common::{Digest, Failure, Platform};

use super::Files;
use super::checks::{Checks, Seen};
use super::context::Context;
use super::graph::{self, Graph, NodeBase};
use super::reach::Reach;
use super::scope::{MAX_VARIABLES, Variables, bad_word};
use super::{history, paths};
use crate::checks::Finding;
use crate::diagnostic::Problem;
use crate::expand;
use crate::instruction::{Instruction, Spanned};
use crate::merge::demands;
use crate::{Dockerfile, ImageFacts, NamedContext, Options, RemoteNeed};

/// `PATH` of an image that starts from nothing, as BuildKit sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Plans the stages of a graph one after the other.
pub(crate) struct Planner<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    pub(super) known: &'a ImageFacts,
    files: Files<'a>,
    pub(super) context: Context<'a>,
    pub(super) named: BTreeMap<String, Context<'a>>,
    pub(super) graph: &'a Graph<'a>,
    pub(super) images: Vec<ResolvedImage>,
    pub(super) stages: Vec<PlannedStage>,
    /// Variables at the end of each planned stage.
    pub(super) variables: Vec<Variables>,
    /// What the build checks find on the way.
    pub(super) checks: Checks,
    /// URLs of which nothing is known.
    pub(super) remotes: Vec<RemoteNeed>,
}

/// One of the two expansions.
type How<'a> = dyn Fn(&str, expand::Lookup<'_>, &expand::Budget) -> Result<String, String> + 'a;

/// A stage that is being planned.
pub(super) struct Work {
    pub(super) config: ContainerConfig,
    pub(super) variables: Variables,
    pub(super) author: Option<String>,
    pub(super) history: Vec<HistoryEntry>,
    pub(super) steps: Vec<Step>,
    pub(super) key: Digest,
    pub(super) has_cmd: bool,
    pub(super) source: usize,
    pub(super) seen: Seen,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        file: &'a Dockerfile,
        options: &'a Options,
        known: &'a ImageFacts,
        files: Files<'a>,
        graph: &'a Graph<'a>,
    ) -> Self {
        let (images, stages, variables) = (Vec::new(), Vec::new(), Vec::new());
        let context = Context::new(files);
        let named = BTreeMap::new();
        let (checks, remotes) = (Checks::default(), Vec::new());
        Self {
            file,
            options,
            known,
            files,
            context,
            named,
            graph,
            images,
            stages,
            variables,
            checks,
            remotes,
        }
    }

    pub(crate) fn finish(
        mut self,
    ) -> (Vec<PlannedStage>, Vec<ResolvedImage>, BTreeSet<String>, Vec<Finding>) {
        if let Some(target) = self.stages.last_mut()
            && !self.options.labels.is_empty()
        {
            let labels = target.config.labels.get_or_insert_default();
            labels.extend(self.options.labels.clone());
        }
        demands(&mut self.stages);
        (self.stages, self.images, self.graph.global.consumed(), self.checks.findings())
    }

    /// What the instructions asked of the contexts.
    pub(crate) fn reach(&mut self) -> Reach {
        let named = std::mem::take(&mut self.named).into_iter();
        let context = std::mem::replace(&mut self.context, Context::new(self.files));
        Reach::new(context.patterns(), named.map(|(name, context)| (name, context.patterns())))
    }

    /// Plans the stage at a position of the graph. With failures the stage is incomplete, but later
    /// ones can be looked at too.
    pub(crate) fn stage(&mut self, position: usize) -> Vec<Failure> {
        let node = &self.graph.stages[position];
        let (base, mut work) = self.start(node);
        let mut failures = Vec::new();
        if let NodeBase::Context(name) = &node.base {
            let lines = self.file.stages[node.source].lines;
            if let Err(problem) = self.copy_all(&mut work, name, lines) {
                failures.push(self.file.source.failure(problem, lines));
            }
        }
        self.check_base(node);
        for spanned in &node.instructions {
            let planned = self.instruction(&mut work, spanned);
            self.check_instruction(&mut work, spanned);
            let Err(problem) = planned else { continue };
            // What comes behind a broken variable fails with it.
            let ends = problem.code == Problem::TOO_MUCH
                || matches!(spanned.instruction, Instruction::Arg(_) | Instruction::Env(_));
            failures.push(self.file.source.failure(problem, spanned.lines));
            if ends {
                break;
            }
        }
        let stage = &self.file.stages[node.source];
        let index = StageIndex(u32::try_from(position).unwrap_or(u32::MAX));
        let label = stage.name.clone().unwrap_or_else(|| format!("stage-{}", node.source));
        self.variables.push(work.variables);
        self.checks.end_stage(work.seen);
        self.stages.push(PlannedStage {
            index,
            source_index: u32::try_from(node.source).unwrap_or(u32::MAX),
            name: stage.name.clone(),
            label,
            lines: stage.lines,
            base,
            platform: node.platform.clone(),
            steps: work.steps,
            key: work.key,
            config: work.config,
            author: work.author,
            history: work.history,
            demands: Vec::new(),
        });
        failures
    }

    /// Digest of what `pattern` selects in a named context.
    pub(super) fn select_named(&mut self, name: &str, pattern: &str) -> Result<Digest, Problem> {
        let (options, files) = (self.options, self.files);
        let context = self.named.entry(name.to_owned()).or_insert_with(|| {
            let manifest = match options.contexts.get(name) {
                Some(NamedContext::Local(manifest)) => Some(&**manifest),
                Some(NamedContext::Image(_)) | None => None,
            };
            Context::new(match files {
                Files::Unknown => Files::Unknown,
                Files::Known(_) => Files::Known(manifest),
            })
        });
        context.select(pattern, &self.graph.global.budget)
    }

    /// A base of files: a stage that a named context has taken the place of.
    fn copy_all(&mut self, work: &mut Work, name: &str, lines: LineRange) -> Result<(), Problem> {
        let digest = self.select_named(name, "/")?;
        let mut key = KeyBuilder::new();
        key.part(PARENT, work.key.to_string()).part("named context", digest.to_string());
        let from = CopyFrom::NamedContext { name: name.to_owned() };
        let op = Op::Copy(CopyOp::new(from, vec!["/".to_owned()], "/"));
        let text = format!("FROM {name}");
        work.history.push(history::entry(text.clone(), false));
        push_step(work, lines, text, op, key);
        Ok(())
    }

    fn start(&mut self, node: &graph::Node) -> (Base, Work) {
        let mut work = Work {
            config: ContainerConfig::default(),
            variables: Variables::default(),
            author: None,
            history: Vec::new(),
            steps: Vec::new(),
            key: Digest::of(b""),
            has_cmd: false,
            source: node.source,
            seen: Seen::default(),
        };
        let mut key = KeyBuilder::new();
        let base = match &node.base {
            NodeBase::Scratch | NodeBase::Context(_) => {
                work.config.working_dir = "/".to_owned();
                key.part("base", "scratch").part("platform", node.platform.to_string());
                work.key = key.finish().0;
                Base::Scratch
            }
            NodeBase::Image(reference) => {
                let image = self.image(reference, &node.platform);
                let resolved = &self.images[image.0 as usize];
                work.config = resolved.document.config.clone();
                work.config.on_build = None;
                work.author.clone_from(&resolved.document.author);
                key.part("base image", resolved.digest.to_string());
                key.part("platform", node.platform.to_string());
                work.key = key.finish().0;
                Base::Image(image)
            }
            NodeBase::Stage(source) => {
                let index = self.index(*source);
                let parent = &self.stages[index.0 as usize];
                work.config = parent.config.clone();
                work.config.on_build = None;
                work.author.clone_from(&parent.author);
                work.key = parent.key;
                work.seen = self.checks.of_stage(index).inherited();
                let args = &self.variables[index.0 as usize].args;
                work.variables.args.clone_from(args);
                let valued = |(name, value): &(String, Option<String>)| {
                    value.clone().map(|value| (name.clone(), value))
                };
                work.variables.visible = args.iter().filter_map(valued).collect();
                Base::Stage(index)
            }
        };
        if !work.config.env.iter().any(|variable| variable.starts_with("PATH=")) {
            work.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for variable in &work.config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            Variables::set(&mut work.variables.visible, name, value.to_owned());
        }
        (base, work)
    }

    pub(super) fn index(&self, source: usize) -> StageIndex {
        let position = self.graph.positions.get(&source).copied().unwrap_or(0);
        StageIndex(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// The position of an image in the plan.
    pub(super) fn image(&mut self, reference: &str, platform: &Platform) -> ImageIndex {
        // The graph has checked that it is known.
        let fact = &self.known[&(reference.to_owned(), platform.clone())];
        let found = self.images.iter().position(|image| image == fact);
        let position = found.unwrap_or_else(|| {
            self.images.push(fact.clone());
            self.images.len() - 1
        });
        ImageIndex(u32::try_from(position).unwrap_or(u32::MAX))
    }

    pub(super) fn expand(&self, work: &Work, word: &str) -> Result<String, Problem> {
        self.expand_with(work, word, &|word, lookup, budget| {
            expand::expand(word, self.file.source.escape, lookup, budget)
        })
    }

    pub(super) fn expand_with(
        &self,
        work: &Work,
        text: &str,
        how: &How<'_>,
    ) -> Result<String, Problem> {
        let budget = &self.graph.global.budget;
        let lookup = |name: &str| {
            // If this is too much the next charge fails as well.
            let _ = budget.charge(work.variables.visible.len() / 8);
            let value = work.variables.get(name);
            if value.is_none() {
                self.checks.unset(name);
            }
            value
        };
        how(text, &lookup, budget).map_err(|message| bad_word(text, message))
    }

    /// Charges for what a plan carries, and bounds the variables of a stage.
    pub(super) fn charge(&self, work: &Work, cost: usize) -> Result<(), Problem> {
        let variables = work.variables.visible.len().max(work.variables.args.len());
        if variables > MAX_VARIABLES {
            return Err(Problem::too_much(format!("more than {MAX_VARIABLES} variables")));
        }
        self.graph.global.budget.charge(cost + variables / 8).map_err(Problem::too_much)
    }

    fn instruction(&mut self, work: &mut Work, spanned: &Spanned) -> Result<(), Problem> {
        match &spanned.instruction {
            Instruction::Run(run) => self.run(work, run, spanned),
            Instruction::Copy(copy) => self.copy(work, copy, spanned),
            Instruction::Workdir(path) => self.workdir(work, path, spanned),
            Instruction::Arg(args) => self.arg(work, args),
            Instruction::Env(pairs) => self.env(work, pairs),
            other => self.config_only(work, other),
        }
    }

    fn arg(&self, work: &mut Work, args: &[(String, Option<String>)]) -> Result<(), Problem> {
        let mut shown = Vec::new();
        for (name, default) in args {
            let global = &self.graph.global;
            let default = default.as_ref().map(|word| self.expand(work, word)).transpose()?;
            let value = global.build_arg(name).or(default).or_else(|| global.get(name));
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            // Without a value it leaves what has its name alone.
            if let Some(value) = &value {
                Variables::set(&mut work.variables.visible, name, value.clone());
            }
            let is_known = work.variables.args.iter().any(|(known, _)| known == name);
            if value.is_some() || !is_known {
                Variables::set(&mut work.variables.args, name, value);
            }
            self.charge(work, 0)?;
        }
        work.history.push(history::entry(format!("ARG {}", shown.join(" ")), true));
        Ok(())
    }

    fn env(&self, work: &mut Work, pairs: &[(String, String)]) -> Result<(), Problem> {
        // Every value sees the environment from before the line.
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            expanded.push((self.expand(work, name)?, self.expand(work, value)?));
        }
        let shown: Vec<String> =
            expanded.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for (name, value) in expanded {
            let text = format!("{name}={value}");
            let prefix = format!("{name}=");
            match work.config.env.iter_mut().find(|variable| variable.starts_with(&prefix)) {
                Some(variable) => *variable = text,
                None => work.config.env.push(text),
            }
            Variables::set(&mut work.variables.visible, &name, value);
            self.charge(work, 0)?;
        }
        work.history.push(history::entry(format!("ENV {}", shown.join(" ")), true));
        Ok(())
    }

    fn workdir(&self, work: &mut Work, path: &str, spanned: &Spanned) -> Result<(), Problem> {
        let path = self.expand(work, path)?;
        let path = paths::join(&work.config.working_dir, &path);
        work.config.working_dir.clone_from(&path);
        let text = format!("WORKDIR {path}");
        if path == "/" {
            work.history.push(history::entry(text, true));
            return Ok(());
        }
        let mut key = KeyBuilder::new();
        key.part(PARENT, work.key.to_string()).part("workdir", path.clone());
        key.part("user", work.config.user.clone());
        let owner = work.config.user.clone();
        work.history.push(history::entry(text.clone(), false));
        push_step(work, spanned.lines, text, Op::Workdir(WorkdirOp { path, owner }), key);
        Ok(())
    }
}

pub(super) fn push_step(
    work: &mut Work,
    lines: LineRange,
    display: String,
    op: Op,
    key: KeyBuilder,
) {
    let (key, key_parts) = key.finish();
    // FROM is number 1.
    let number = u32::try_from(work.steps.len() + 2).unwrap_or(u32::MAX);
    let display = display.chars().take(500).collect();
    work.key = key;
    work.steps.push(Step { number, lines, display, op, key, key_parts });
}
