//! Build checks that need the state of a stage.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use common::outcome::LineRange;
use common::plan::StageIndex;

use super::graph::{Node, NodeBase};
use super::paths;
use super::stage::{Planner, Work};
use crate::checks::{Finding, Rule, is_secret_name};
use crate::diagnostic::nearest;
use crate::instruction::{CommandForm, Copy, Instruction, Spanned, first_word};

/// What was found, and what it takes to find more.
#[derive(Debug, Default)]
pub(super) struct Checks {
    findings: Vec<Finding>,
    /// Variables that were asked for since the last instruction and have no value.
    unset: RefCell<BTreeSet<String>>,
    /// By position in the plan.
    stages: Vec<Seen>,
}

/// What a stage has had so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    has_workdir: bool,
    /// Of the instructions that count once, the place of the last one.
    last: BTreeMap<&'static str, LineRange>,
}

impl Seen {
    /// What a stage that starts from this one has had.
    pub(super) fn inherited(&self) -> Self {
        Self { has_workdir: self.has_workdir, last: BTreeMap::new() }
    }
}

impl Checks {
    pub(super) fn unset(&self, name: &str) {
        self.unset.borrow_mut().insert(name.to_owned());
    }

    pub(super) fn of_stage(&self, stage: StageIndex) -> Seen {
        self.stages.get(stage.0 as usize).cloned().unwrap_or_default()
    }

    pub(super) fn end_stage(&mut self, seen: Seen) {
        self.stages.push(seen);
    }

    pub(super) fn findings(self) -> Vec<Finding> {
        self.findings
    }

    fn find(&mut self, rule: Rule, lines: LineRange, message: String) {
        self.findings.push(Finding::new(rule, lines, message));
    }
}

impl Planner<'_> {
    /// Whether a base image is for the platform that it is used for.
    pub(super) fn check_base(&mut self, node: &Node) {
        let NodeBase::Image(reference) = &node.base else { return };
        let Some(image) = self.known.get(&(reference.clone(), node.platform.clone())) else {
            return;
        };
        let (document, expected) = (&image.document, &node.platform);
        if document.os != expected.os || document.architecture != expected.architecture {
            let message = format!(
                "Base image {reference} was pulled with platform \"{}/{}\", expected \"{expected}\" for current build",
                document.os, document.architecture
            );
            let lines = self.file.stages[node.source].lines;
            self.checks.find(Rule::InvalidBaseImagePlatform, lines, message);
        }
    }

    /// Looks at an instruction that has just been planned.
    pub(super) fn check_instruction(&mut self, work: &mut Work, spanned: &Spanned) {
        let unset = self.checks.unset.take();
        let keyword = spanned.text.split(' ').next().unwrap_or_default();
        let lines = spanned.lines;
        if !matches!(spanned.instruction, Instruction::Expose(_)) {
            self.undefined(work, &unset, lines);
        }
        match &spanned.instruction {
            Instruction::Cmd(command) => self.command(work, "CMD", keyword, command, lines),
            Instruction::Entrypoint(command) => {
                self.command(work, "ENTRYPOINT", keyword, command, lines);
            }
            Instruction::Healthcheck(_) => self.once(work, "HEALTHCHECK", keyword, lines),
            Instruction::Workdir(path) => self.workdir_check(work, path, lines),
            Instruction::Arg(args) => {
                for (name, _) in args {
                    self.secret_name("ARG", name, lines);
                }
            }
            Instruction::Env(pairs) => {
                for (name, _) in pairs {
                    self.secret_name("ENV", name, lines);
                }
                self.legacy(spanned, keyword);
            }
            Instruction::Label(_) => self.legacy(spanned, keyword),
            Instruction::Expose(words) => self.ports(work, words, lines),
            Instruction::Copy(copy) if copy.from.is_none() => self.ignored(work, copy, lines),
            _ => {}
        }
        // What the checks themselves have expanded.
        self.checks.unset.take();
    }

    fn undefined(&mut self, work: &Work, unset: &BTreeSet<String>, lines: LineRange) {
        for name in unset {
            if work.variables.args.iter().any(|(known, _)| known == name) {
                continue;
            }
            // The line itself may have defined it.
            let known = work.variables.visible.iter().map(|(known, _)| known.as_str());
            let known = known.filter(|known| known != name);
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(near) = nearest(name, known) {
                message.push_str(&format!(" (did you mean ${near}?)"));
            }
            self.checks.find(Rule::UndefinedVar, lines, message);
        }
    }

    fn once(&mut self, work: &mut Work, name: &'static str, keyword: &str, lines: LineRange) {
        if let Some(before) = work.seen.last.insert(name, lines) {
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            // The one that counts for nothing is the earlier one.
            self.checks.find(Rule::MultipleInstructionsDisallowed, before, message);
        }
    }

    fn command(
        &mut self,
        work: &mut Work,
        name: &'static str,
        keyword: &str,
        command: &CommandForm,
        lines: LineRange,
    ) {
        self.once(work, name, keyword, lines);
        if matches!(command, CommandForm::Shell(_)) && work.config.shell.is_none() {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.checks.find(Rule::JSONArgsRecommended, lines, message);
        }
    }

    fn workdir_check(&mut self, work: &mut Work, path: &str, lines: LineRange) {
        let path = self.expand(work, path).unwrap_or_default();
        if !work.seen.has_workdir && !path.starts_with('/') {
            let message = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            self.checks.find(Rule::WorkdirRelativePath, lines, message);
        }
        work.seen.has_workdir = true;
    }

    fn secret_name(&mut self, instruction: &str, name: &str, lines: LineRange) {
        if is_secret_name(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            );
            self.checks.find(Rule::SecretsUsedInArgOrEnv, lines, message);
        }
    }

    fn legacy(&mut self, spanned: &Spanned, keyword: &str) {
        let rest = spanned.text.split_once(' ').map_or("", |(_, rest)| rest);
        if !first_word(rest, self.file.source.escape).contains('=') {
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.checks.find(Rule::LegacyKeyValueFormat, spanned.lines, message);
        }
    }

    fn ports(&mut self, work: &Work, words: &[String], lines: LineRange) {
        for word in words {
            for port in self.expand(work, word).unwrap_or_default().split_whitespace() {
                let (range, protocol) = port.split_once('/').unwrap_or((port, ""));
                if protocol != protocol.to_ascii_lowercase() {
                    let message = format!(
                        "Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                    );
                    self.checks.find(Rule::ExposeProtoCasing, lines, message);
                }
                if range.contains(':') {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    self.checks.find(Rule::ExposeInvalidFormat, lines, message);
                }
            }
        }
    }

    fn ignored(&mut self, work: &Work, copy: &Copy, lines: LineRange) {
        let Some(ignore) = self.options.ignore.clone() else { return };
        // What is taken back below a directory cannot be told from the patterns.
        if ignore.has_negations() {
            return;
        }
        let verb = if copy.is_add { "Add" } else { "Copy" };
        for source in &copy.sources {
            let Ok(source) = self.expand(work, source) else { continue };
            let path = paths::join("/", &source);
            let path = path.trim_start_matches('/');
            let is_ignored = match path {
                "" => ignore.leaves_out_everything(),
                path => ignore.is_ignored(path),
            };
            if is_ignored {
                let shown = if path.is_empty() { "." } else { path };
                let message = format!(
                    "Attempting to {verb} file {shown:?} that is excluded by .dockerignore"
                );
                self.checks.find(Rule::CopyIgnoredFile, lines, message);
            }
        }
    }
}
