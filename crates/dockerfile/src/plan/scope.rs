//! Variables.

use std::cell::RefCell;
use std::collections::BTreeSet;

use common::outcome::LineRange;

use super::epoch::{self, Epoch};
use crate::diagnostic::Problem;
use crate::expand::{self, Budget};
use crate::instruction::{Instruction, Spanned};
use crate::{Dockerfile, Options};

/// Proxy settings: build arguments that reach commands without being declared, and no key.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Most variables of a stage, and most global arguments.
pub(crate) const MAX_VARIABLES: usize = 4_000;

/// The arguments before the first FROM and the predefined ones.
pub(crate) struct Global<'a> {
    options: &'a Options,
    escape: char,
    values: Vec<(String, String)>,
    target: String,
    consumed: RefCell<BTreeSet<String>>,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Epoch,
    /// For everything that is expanded in this plan.
    pub(crate) budget: Budget,
}

impl<'a> Global<'a> {
    /// Evaluates the global arguments in order.
    pub(crate) fn new(
        file: &Dockerfile,
        options: &'a Options,
    ) -> Result<Self, (Problem, LineRange)> {
        let last = file.stages.last().and_then(|stage| stage.name.clone());
        let target = options.target.clone().or(last).unwrap_or_else(|| "default".to_owned());
        let mut global = Self {
            options,
            escape: file.source.escape,
            values: Vec::new(),
            target,
            consumed: RefCell::default(),
            epoch: Epoch::default(),
            budget: Budget::default(),
        };
        for Spanned { instruction, lines, .. } in &file.global_args {
            let Instruction::Arg(args) = instruction else { continue };
            for (name, default) in args {
                let value = match (global.build_arg(name), default) {
                    (Some(value), _) => Some(value),
                    (None, Some(default)) => {
                        Some(global.expand(default).map_err(|problem| (problem, *lines))?)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    global.values.retain(|(known, _)| known != name);
                    global.values.push((name.clone(), value));
                    let cost = global.budget.charge(global.values.len() / 8);
                    if cost.is_err() || global.values.len() > MAX_VARIABLES {
                        let message = format!("more than {MAX_VARIABLES} global arguments");
                        return Err((Problem::too_much(message), *lines));
                    }
                }
            }
        }
        global.epoch = epoch::resolve(file, options, &global)?;
        Ok(global)
    }

    /// The value of `--build-arg`; counts as used.
    pub(crate) fn build_arg(&self, name: &str) -> Option<String> {
        let value = self.options.build_args.get(name).cloned();
        if value.is_some() {
            self.consumed.borrow_mut().insert(name.to_owned());
        }
        value.map(|value| self.resolved(name, value))
    }

    /// A global or predefined argument.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let declared = self.values.iter().find(|(known, _)| known == name);
        let declared = declared.map(|(_, value)| self.resolved(name, value.clone()));
        declared.or_else(|| self.predefined(name))
    }

    /// A value as it is seen: where it names a source, the time of that.
    fn resolved(&self, name: &str, value: String) -> String {
        match &self.epoch.text {
            Some(text) if name == epoch::NAME => text.clone(),
            _ => value,
        }
    }

    fn predefined(&self, name: &str) -> Option<String> {
        let (platform, part) = match name.strip_prefix("TARGET") {
            Some("STAGE") => return Some(self.target.clone()),
            Some(part) => (&self.options.platform, part),
            None => (&self.options.build_platform, name.strip_prefix("BUILD")?),
        };
        let value = match part {
            "PLATFORM" => platform.to_string(),
            "OS" => platform.os.clone(),
            "ARCH" => platform.architecture.clone(),
            "VARIANT" => platform.variant.clone(),
            "OSVERSION" => String::new(),
            _ => return None,
        };
        self.build_arg(name).or(Some(value))
    }

    /// Expands a word of a FROM line or a global default.
    pub(crate) fn expand(&self, word: &str) -> Result<String, Problem> {
        self.expand_with(word, &|name| self.get(name))
    }

    /// The same with values from elsewhere.
    pub(crate) fn expand_with(
        &self,
        word: &str,
        lookup: expand::Lookup<'_>,
    ) -> Result<String, Problem> {
        expand::expand(word, self.escape, lookup, &self.budget)
            .map_err(|message| bad_word(word, message))
    }

    /// Proxy settings that were given and are not declared, in both cases.
    pub(crate) fn proxies(&self, declared: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for name in PROXIES {
            let upper = name.to_ascii_uppercase();
            let value = self.build_arg(name).or_else(|| self.build_arg(&upper));
            let Some(value) = value else { continue };
            for name in [name.to_owned(), upper] {
                if !declared(&name) {
                    found.push((name, value.clone()));
                }
            }
        }
        found
    }

    /// The build arguments that something asked for.
    pub(crate) fn consumed(&self) -> BTreeSet<String> {
        let own = self
            .options
            .build_args
            .keys()
            .filter(|name| name.starts_with("BUILDKIT_") || *name == "SOURCE_DATE_EPOCH");
        self.consumed.borrow().iter().chain(own).cloned().collect()
    }
}

/// A word that cannot be expanded.
pub(crate) fn bad_word(word: &str, message: String) -> Problem {
    if message == Budget::SPENT {
        return Problem::too_much(message);
    }
    let shown: String = word.chars().take(200).collect();
    Problem::new("bad-substitution", format!("failed to process {shown:?}: {message}"))
        .blaming(word)
}

/// The variables at one point of a stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    /// ENV and ARG together, as commands see them, in order of first definition.
    pub(crate) visible: Vec<(String, String)>,
    /// ARGs, those of the stages below it included, for history and for the stages above it. Those
    /// without a value too.
    pub(crate) args: Vec<(String, Option<String>)>,
}

impl Variables {
    /// Sets a variable where it stands, else behind the others.
    pub(crate) fn set<V>(list: &mut Vec<(String, V)>, name: &str, value: V) {
        match list.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => list.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.visible.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}
