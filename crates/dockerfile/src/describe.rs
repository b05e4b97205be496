//! What a file offers: its targets, and what the build of one can be given.

use std::collections::BTreeMap;

use common::outcome::LineRange;
use common::plan::{Mount, Op, PlannedStage};

use crate::instruction::Instruction;
use crate::plan::{Graph, Variables};
use crate::{Dockerfile, Options};

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: Option<String>,
    /// The comment above it that begins with its name, without the name.
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Whether it is built when nothing is asked for.
    pub is_default: bool,
    /// Its FROM.
    pub lines: LineRange,
}

/// What a build of a target takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Build arguments, by name.
    pub args: Vec<OutlineArg>,
    /// Secrets of commands, by name.
    pub secrets: Vec<OutlineMount>,
    /// SSH agents of commands, by name.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts, by name.
    pub caches: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The value that it has now.
    pub value: Option<String>,
    /// The comment above it that begins with its name, without the name.
    pub description: Option<String>,
    /// Where it is declared.
    pub lines: LineRange,
}

/// Something that commands mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its name.
    pub name: String,
    /// Whether a command cannot do without.
    pub required: bool,
    /// Where it is first mounted.
    pub lines: LineRange,
}

impl Dockerfile {
    /// Every stage, in the order of the file.
    pub fn targets(&self) -> Vec<Target> {
        let last = self.stages.len() - 1;
        let target = |(position, stage): (usize, &crate::stages::Stage)| Target {
            name: stage.name.clone(),
            description: stage.name.as_ref().and_then(|name| self.description(stage.lines, name)),
            base: stage.image.clone(),
            platform: stage.platform.clone(),
            is_default: position == last,
            lines: stage.lines,
        };
        self.stages.iter().enumerate().map(target).collect()
    }

    fn description(&self, lines: LineRange, name: &str) -> Option<String> {
        let comments = self.comments.get(&lines.start)?;
        let start = format!("{name} ");
        comments.iter().find_map(|comment| Some(comment.strip_prefix(&start)?.to_owned()))
    }

    pub(crate) fn outline(
        &self,
        options: &Options,
        graph: &Graph<'_>,
        stages: &[PlannedStage],
        variables: &[Variables],
    ) -> Outline {
        let mut args: BTreeMap<String, OutlineArg> = BTreeMap::new();
        let mut declare = |name: &str, value: Option<String>, lines: LineRange| {
            let description = self.description(lines, name);
            let name = name.to_owned();
            let entry = OutlineArg { name: name.clone(), value, description, lines };
            args.entry(name).or_insert(entry);
        };
        for spanned in &self.global_args {
            let Instruction::Arg(list) = &spanned.instruction else { continue };
            for (name, _) in list {
                declare(name, graph.global.get(name), spanned.lines);
            }
        }
        for (node, variables) in graph.stages.iter().zip(variables) {
            for spanned in &node.instructions {
                let Instruction::Arg(list) = &spanned.instruction else { continue };
                for (name, default) in list {
                    // What only hands a predefined or global one on is not the stage's own.
                    let is_own = default.is_some() || options.build_args.contains_key(name);
                    if is_own || graph.global.get(name).is_none() {
                        declare(name, variables.get(name), spanned.lines);
                    }
                }
            }
        }
        let mut outline = Outline { args: args.into_values().collect(), ..Outline::default() };
        for step in stages.iter().flat_map(|stage| &stage.steps) {
            let Op::Run(run) = &step.op else { continue };
            for mount in &run.mounts {
                let (list, name, required) = match mount {
                    Mount::Secret { id, required, .. } => (&mut outline.secrets, id, *required),
                    Mount::Ssh { id, required, .. } => (&mut outline.ssh, id, *required),
                    Mount::Cache { id, .. } => (&mut outline.caches, id, false),
                    Mount::Bind { .. } | Mount::Tmpfs { .. } => continue,
                };
                match list.iter_mut().find(|entry| entry.name == *name) {
                    Some(entry) => entry.required |= required,
                    None => {
                        let (name, lines) = (name.clone(), step.lines);
                        list.push(OutlineMount { name, required, lines });
                    }
                }
            }
        }
        if let Some(target) = stages.last() {
            outline.name.clone_from(&target.name);
            let name = target.name.as_ref();
            outline.description = name.and_then(|name| self.description(target.lines, name));
        }
        outline
    }
}
