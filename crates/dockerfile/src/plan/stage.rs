//! One stage: its instructions in order, everything expanded.

use std::collections::{BTreeMap, BTreeSet};

use common::cache_key::KeyBuilder;
use common::image::{ContainerConfig, Empty, Healthcheck, HistoryEntry, ResolvedImage};
use common::outcome::LineRange;
use common::plan::{
    Base, Chmod, CopyFrom, CopyOp, Demand, ImageIndex, InlineFile, Network, Op, PlannedStage,
    RunOp, SliceSelector, StageIndex, Step, Unpack, WorkdirOp,
};
use common::tree::Manifest;
use common::{Digest, Failure, Platform};

use super::context::Context;
use super::graph::{self, From, Graph, NodeBase};
use super::scope::{MAX_VARIABLES, Variables, bad_word};
use super::{history, paths};
use crate::diagnostic::Problem;
use crate::expand;
use crate::instruction::{self, CommandForm, Copy, Health, Instruction, Run, Spanned};
use crate::source::is_lone_heredoc;
use crate::{Dockerfile, ImageFacts, Options};

/// `PATH` of an image that starts from nothing, as BuildKit sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Plans the stages of a graph one after the other.
pub(crate) struct Planner<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    known: &'a ImageFacts,
    context: Context<'a>,
    graph: &'a Graph<'a>,
    images: Vec<ResolvedImage>,
    stages: Vec<PlannedStage>,
    /// Variables at the end of each planned stage.
    variables: Vec<Variables>,
}

/// One of the two expansions.
type How<'a> = dyn Fn(&str, expand::Lookup<'_>, &expand::Budget) -> Result<String, String> + 'a;

/// A stage that is being planned.
struct Work {
    config: ContainerConfig,
    variables: Variables,
    author: Option<String>,
    history: Vec<HistoryEntry>,
    steps: Vec<Step>,
    key: Digest,
    has_cmd: bool,
    source: usize,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        file: &'a Dockerfile,
        options: &'a Options,
        known: &'a ImageFacts,
        context: Option<&'a Manifest>,
        graph: &'a Graph<'a>,
    ) -> Self {
        let (images, stages, variables) = (Vec::new(), Vec::new(), Vec::new());
        let context = Context::new(context);
        Self { file, options, known, context, graph, images, stages, variables }
    }

    pub(crate) fn finish(mut self) -> (Vec<PlannedStage>, Vec<ResolvedImage>, BTreeSet<String>) {
        if let Some(target) = self.stages.last_mut()
            && !self.options.labels.is_empty()
        {
            let labels = target.config.labels.get_or_insert_default();
            labels.extend(self.options.labels.clone());
        }
        (self.stages, self.images, self.graph.global.consumed())
    }

    /// Plans the stage at a position of the graph. With failures the stage is incomplete, but later
    /// ones can be looked at too.
    pub(crate) fn stage(&mut self, position: usize) -> Vec<Failure> {
        let node = &self.graph.stages[position];
        let (base, mut work) = self.start(node);
        let mut failures = Vec::new();
        for spanned in &node.instructions {
            let Err(problem) = self.instruction(&mut work, spanned) else { continue };
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
        self.demand(index, &work);
        let label = stage.name.clone().unwrap_or_else(|| format!("stage-{}", node.source));
        self.variables.push(work.variables);
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

    /// Tells the producers what the stage copies out of them.
    fn demand(&mut self, consumer: StageIndex, work: &Work) {
        for step in &work.steps {
            let Op::Copy(CopyOp { from: CopyFrom::Stage { stage, selector }, .. }) = &step.op
            else {
                continue;
            };
            let demands = &mut self.stages[stage.0 as usize].demands;
            match demands.iter_mut().find(|demand| demand.selector == *selector) {
                Some(demand) if demand.consumers.contains(&consumer) => {}
                Some(demand) => demand.consumers.push(consumer),
                None => {
                    let consumers = vec![consumer];
                    demands.push(Demand { selector: selector.clone(), consumers });
                }
            }
        }
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
        };
        let mut key = KeyBuilder::new();
        let base = match &node.base {
            NodeBase::Scratch => {
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

    fn index(&self, source: usize) -> StageIndex {
        let position = self.graph.positions.get(&source).copied().unwrap_or(0);
        StageIndex(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// The position of an image in the plan.
    fn image(&mut self, reference: &str, platform: &Platform) -> ImageIndex {
        // The graph has checked that it is known.
        let fact = &self.known[&(reference.to_owned(), platform.clone())];
        let found = self.images.iter().position(|image| image == fact);
        let position = found.unwrap_or_else(|| {
            self.images.push(fact.clone());
            self.images.len() - 1
        });
        ImageIndex(u32::try_from(position).unwrap_or(u32::MAX))
    }

    fn expand(&self, work: &Work, word: &str) -> Result<String, Problem> {
        self.expand_with(work, word, &|word, lookup, budget| {
            expand::expand(word, self.file.source.escape, lookup, budget)
        })
    }

    fn expand_with(&self, work: &Work, text: &str, how: &How<'_>) -> Result<String, Problem> {
        let budget = &self.graph.global.budget;
        let lookup = |name: &str| {
            // If this is too much the next charge fails as well.
            let _ = budget.charge(work.variables.visible.len() / 8);
            work.variables.get(name)
        };
        how(text, &lookup, budget).map_err(|message| bad_word(text, message))
    }

    /// Charges for what a plan carries, and bounds the variables of a stage.
    fn charge(&self, work: &Work, cost: usize) -> Result<(), Problem> {
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

    fn config_only(&self, work: &mut Work, instruction: &Instruction) -> Result<(), Problem> {
        let text = match instruction {
            Instruction::Label(pairs) => {
                let mut shown = Vec::new();
                for (name, value) in pairs {
                    let (name, value) = (self.expand(work, name)?, self.expand(work, value)?);
                    shown.push(format!("{name}={value}"));
                    work.config.labels.get_or_insert_default().insert(name, value);
                }
                format!("LABEL {}", shown.join(" "))
            }
            Instruction::Cmd(command) => {
                let argv = with_shell(work, command);
                work.has_cmd = true;
                // Of either form, as BuildKit writes it.
                work.config.args_escaped = true;
                let text = format!("CMD {}", history::quoted(&argv));
                work.config.cmd = Some(argv).filter(|argv| !argv.is_empty());
                text
            }
            Instruction::Entrypoint(command) => {
                let argv = with_shell(work, command);
                if !work.has_cmd {
                    work.config.cmd = None;
                }
                let text = format!("ENTRYPOINT {}", history::quoted(&argv));
                work.config.entrypoint = Some(argv).filter(|argv| !argv.is_empty());
                text
            }
            Instruction::User(user) => {
                work.config.user = self.expand(work, user)?;
                format!("USER {}", work.config.user)
            }
            Instruction::Expose(words) => self.expose(work, words)?,
            Instruction::Volume(words) => {
                let mut volumes = Vec::new();
                for word in words {
                    let volume = self.expand(work, word)?;
                    if volume.is_empty() {
                        let message = "VOLUME specified can not be an empty string";
                        return Err(Problem::new("missing-argument", message));
                    }
                    volumes.push(volume);
                }
                let set = work.config.volumes.get_or_insert_default();
                set.extend(volumes.iter().map(|volume| (volume.clone(), Empty {})));
                format!("VOLUME {}", history::plain(&volumes))
            }
            Instruction::StopSignal(signal) => {
                let signal = self.expand(work, signal)?;
                check_signal(&signal)?;
                work.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Shell(shell) => {
                work.config.shell = Some(shell.clone());
                format!("SHELL {}", history::plain(shell))
            }
            Instruction::Healthcheck(health) => {
                let health = healthcheck(health.as_ref());
                let text = history::healthcheck(&health);
                work.config.healthcheck = Some(health);
                text
            }
            Instruction::Maintainer(author) => {
                work.author = Some(author.clone());
                format!("MAINTAINER {author}")
            }
            Instruction::OnBuild(text) => {
                work.config.on_build.get_or_insert_default().push(text.clone());
                return Ok(());
            }
            // These change files or variables and are handled elsewhere; FROM begins a stage.
            Instruction::From { .. }
            | Instruction::Arg(_)
            | Instruction::Env(_)
            | Instruction::Run(_)
            | Instruction::Copy(_)
            | Instruction::Workdir(_) => return Ok(()),
        };
        work.history.push(history::entry(text, true));
        Ok(())
    }

    fn expose(&self, work: &mut Work, words: &[String]) -> Result<String, Problem> {
        let mut ports = Vec::new();
        for word in words {
            for word in self.expand(work, word)?.split_whitespace() {
                ports.append(&mut parse_port(word)?);
                self.charge(work, 32 * ports.len())?;
            }
        }
        if ports.is_empty() {
            let message = "EXPOSE requires at least one argument";
            return Err(Problem::new("missing-argument", message));
        }
        ports.sort();
        let set = work.config.exposed_ports.get_or_insert_default();
        set.extend(ports.iter().map(|port| (port.clone(), Empty {})));
        Ok(format!("EXPOSE {}", history::plain(&ports)))
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
        key.part("parent", work.key.to_string()).part("workdir", path.clone());
        key.part("user", work.config.user.clone());
        let owner = work.config.user.clone();
        work.history.push(history::entry(text.clone(), false));
        push_step(work, spanned.lines, text, Op::Workdir(WorkdirOp { path, owner }), key);
        Ok(())
    }

    fn run(&self, work: &mut Work, run: &Run, spanned: &Spanned) -> Result<(), Problem> {
        if let Some(flag) = &run.unsupported {
            return Err(Problem::unsupported(flag));
        }
        let (argv, script) = run_command(work, run)?;
        let network = match run.network.as_deref() {
            Some("none") => Network::None,
            Some("host") => Network::Host,
            _ => Network::Default,
        };
        let size = |(name, value): &(String, String)| name.len() + value.len();
        let env: usize = work.variables.visible.iter().map(size).sum();
        // The environment, its parts of the key, and history.
        self.charge(work, 3 * env + argv.iter().map(String::len).sum::<usize>())?;
        let declared = |name: &str| work.variables.get(name).is_some();
        let op = RunOp {
            unkeyed_env: self.graph.global.proxies(&declared),
            env: work.variables.visible.clone(),
            working_dir: paths::join("/", &work.config.working_dir),
            user: work.config.user.clone(),
            network,
            script,
            ..RunOp::new(argv)
        };
        let mut key = KeyBuilder::new();
        key.part("parent", work.key.to_string()).part("command", history::quoted(&op.argv));
        for (name, value) in &op.env {
            key.part(format!("variable {name}"), value.clone());
        }
        key.part("working directory", op.working_dir.clone()).part("user", op.user.clone());
        key.part("network", format!("{network:?}"));
        if let Some(script) = &op.script {
            key.part("script", Digest::of(script.content.as_bytes()).to_string());
        }
        let text = history::run(&work.variables, &op.argv);
        work.history.push(history::entry(text, false));
        push_step(work, spanned.lines, spanned.text.clone(), Op::Run(Box::new(op)), key);
        Ok(())
    }

    fn copy(&mut self, work: &mut Work, copy: &Copy, spanned: &Spanned) -> Result<(), Problem> {
        if let Some(flag) = &copy.unsupported {
            return Err(Problem::unsupported(flag));
        }
        // A flag whose value expands to nothing is as good as absent.
        let flag = |value: &Option<String>| -> Result<Option<String>, Problem> {
            let value = value.as_ref().map(|value| self.expand(work, value)).transpose()?;
            Ok(value.filter(|value| !value.is_empty()))
        };
        let (mode, chown) = (flag(&copy.chmod)?, flag(&copy.chown)?);
        let chmod = mode.as_deref().map(parse_mode).transpose()?;
        let mut written = Vec::new();
        for source in &copy.sources {
            let source = self.expand(work, source)?;
            instruction::check_source(copy.is_add, &source)?;
            written.push(source);
        }
        let written_destination = self.expand(work, &copy.destination)?;
        let destination = paths::destination(&work.config.working_dir, &written_destination);
        let sources: Vec<String> = written.iter().map(|source| paths::join("/", source)).collect();
        let mut inline = Vec::new();
        for heredoc in &copy.heredocs {
            check_file_name(&heredoc.name)?;
            let content = if heredoc.expand {
                self.expand_with(work, &heredoc.content, &expand::expand_body)?
            } else {
                heredoc.content.clone()
            };
            inline.push(InlineFile { name: heredoc.name.clone(), content });
        }
        let mut key = KeyBuilder::new();
        key.part("parent", work.key.to_string());
        let from = self.copy_source(work, copy, &sources, &mut key)?;
        key.part("sources", sources.join("\n")).part("destination", destination.clone());
        key.part("chown", chown.clone().unwrap_or_default());
        key.part("chmod", chmod.map_or(String::new(), |mode| format!("{mode:o}")));
        key.part("unpack", copy.unpack.to_string());
        for file in &inline {
            key.part(
                format!("inline file {}", file.name),
                Digest::of(file.content.as_bytes()).to_string(),
            );
        }
        let keyword = if copy.is_add { "ADD" } else { "COPY" };
        let mut text = keyword.to_owned();
        if let Some(owner) = &chown {
            text.extend([" --chown=", owner]);
        }
        if let Some(mode) = &mode {
            text.extend([" --chmod=", mode]);
        }
        let heredocs = inline.iter().map(|file| format!("<<{}", file.name));
        for source in written.into_iter().chain(heredocs) {
            text.extend([" ", &source]);
        }
        text.extend([" ", written_destination.as_str(), " # buildkit"]);
        work.history.push(history::entry(text, false));
        let op = CopyOp {
            inline,
            chown,
            chmod: chmod.map(Chmod::Octal),
            unpack: if copy.unpack { Unpack::Local } else { Unpack::Never },
            ..CopyOp::new(from, sources, destination)
        };
        push_step(work, spanned.lines, spanned.text.clone(), Op::Copy(op), key);
        Ok(())
    }

    /// Where the files come from, and what of it makes the key.
    fn copy_source(
        &mut self,
        work: &Work,
        copy: &Copy,
        sources: &[String],
        key: &mut KeyBuilder,
    ) -> Result<CopyFrom, Problem> {
        let Some(from) = &copy.from else {
            for source in sources {
                let digest = self.context.select(source, &self.graph.global.budget)?;
                key.part(format!("files {source}"), digest.to_string());
            }
            return Ok(CopyFrom::Context);
        };
        match graph::resolve_from(self.file, work.source, from)? {
            From::Stage(source) => {
                let stage = self.index(source);
                let producer = &self.stages[stage.0 as usize];
                let selector = SliceSelector::new(sources.to_vec());
                // Not its name: giving a stage another one changes nothing.
                key.part("from stage", producer.key.to_string());
                Ok(CopyFrom::Stage { stage, selector })
            }
            From::Image(reference) => {
                let platform = self.options.platform.clone();
                let image = self.image(&reference, &platform);
                let digest = self.images[image.0 as usize].digest;
                key.part("from image", digest.to_string());
                Ok(CopyFrom::Image { image })
            }
        }
    }
}

fn push_step(work: &mut Work, lines: LineRange, display: String, op: Op, key: KeyBuilder) {
    let (key, key_parts) = key.finish();
    // FROM is number 1.
    let number = u32::try_from(work.steps.len() + 2).unwrap_or(u32::MAX);
    let display = display.chars().take(500).collect();
    work.key = key;
    work.steps.push(Step { number, lines, display, op, key, key_parts });
}

fn shell(work: &Work) -> Vec<String> {
    work.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
}

fn with_shell(work: &Work, command: &CommandForm) -> Vec<String> {
    match command {
        CommandForm::Exec(argv) => argv.clone(),
        CommandForm::Shell(text) => {
            let mut argv = shell(work);
            argv.push(text.clone());
            argv
        }
    }
}

/// The command of a RUN and the script file it needs, if any.
fn run_command(work: &Work, run: &Run) -> Result<(Vec<String>, Option<InlineFile>), Problem> {
    let text = match &run.command {
        CommandForm::Exec(argv) if argv.is_empty() => {
            return Err(Problem::new("missing-argument", "RUN [] has no command"));
        }
        CommandForm::Exec(argv) => return Ok((argv.clone(), None)),
        CommandForm::Shell(text) => text,
    };
    let mut argv = shell(work);
    let [only] = &run.heredocs[..] else {
        let mut script = text.clone();
        for heredoc in &run.heredocs {
            script.push('\n');
            script.push_str(heredoc.raw.trim_end_matches('\n'));
        }
        argv.push(script);
        return Ok((argv, None));
    };
    // One heredoc and nothing else: its body is the script.
    if !is_lone_heredoc(text) {
        argv.push(format!("{text}\n{}", only.raw.trim_end_matches('\n')));
        return Ok((argv, None));
    }
    if !only.content.starts_with("#!") {
        argv.push(only.content.clone());
        return Ok((argv, None));
    }
    check_file_name(&only.name)?;
    let name = format!("/dev/pipes/{}", only.name);
    argv.push(name.clone());
    Ok((argv, Some(InlineFile { name, content: only.content.clone() })))
}

/// A heredoc that becomes a file is named by its delimiter, which has to be a plain name: a path
/// would lead out of the directory that the file is meant for.
fn check_file_name(name: &str) -> Result<(), Problem> {
    if !name.contains('/') && !matches!(name, "." | "..") && name.len() <= 255 {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    let message = format!("the heredoc {shown:?} cannot be the name of a file");
    Err(Problem::new("bad-heredoc", message).with_hint("use a plain word such as EOF"))
}

fn parse_mode(text: &str) -> Result<u32, Problem> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let octal = digits.and_then(|text| u32::from_str_radix(text, 8).ok());
    let octal = octal.filter(|mode| *mode <= 0o7777);
    if let Some(mode) = octal {
        return Ok(mode);
    }
    if text.contains(['+', '-', '=']) {
        return Err(Problem::unsupported("symbolic --chmod").with_hint("write the mode in octal"));
    }
    let message = format!(
        "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
    );
    Err(Problem::new("bad-flag-value", message))
}

/// `port[-port][/protocol]`, in lower case; an address and a host port before it are dropped.
fn parse_port(word: &str) -> Result<Vec<String>, Problem> {
    let bad = |what: &str| Problem::new("bad-port", format!("invalid port: {word:?}: {what}"));
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = match protocol.to_ascii_lowercase() {
        empty if empty.is_empty() => "tcp".to_owned(),
        protocol => protocol,
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad(&format!("invalid proto: {protocol}")));
    }
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let digits = Some(text).filter(|text| !text.starts_with('+'));
        let port = digits.and_then(|text| text.parse::<u16>().ok());
        port.ok_or_else(|| bad("invalid containerPort"))
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(bad("the range goes backwards"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn check_signal(signal: &str) -> Result<(), Problem> {
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV",
        "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN",
        "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS",
    ];
    let real_time = name.starts_with("RTMIN") || name.starts_with("RTMAX");
    let number = name.parse::<u32>().is_ok_and(|number| (1..=64).contains(&number));
    if known.contains(&name) || real_time || number {
        return Ok(());
    }
    Err(Problem::new("bad-signal", format!("invalid signal: {signal}")))
}

fn healthcheck(health: Option<&Health>) -> Healthcheck {
    let Some(health) = health else {
        return Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() };
    };
    let test = match &health.command {
        CommandForm::Exec(argv) => [vec!["CMD".to_owned()], argv.clone()].concat(),
        CommandForm::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    let options: BTreeMap<&str, i64> =
        health.options.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let get = |name: &str| options.get(name).copied().unwrap_or(0);
    Healthcheck {
        test,
        interval: get("interval"),
        timeout: get("timeout"),
        start_period: get("start-period"),
        start_interval: get("start-interval"),
        retries: get("retries"),
    }
}
