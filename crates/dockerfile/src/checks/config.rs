//! `# check=`: which rules count, and whether a finding fails the build.

use std::collections::BTreeMap;

use super::rule::{Finding, Rule};

/// Options of `# check=`, of `BUILDKIT_DOCKERFILE_CHECK`, or of a comment above an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    skip: Names,
    experimental: Names,
    /// Whether any finding fails the build.
    pub(crate) error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    all: bool,
    names: Vec<String>,
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, names: Vec::new() },
            list => Self {
                all: false,
                names: list.split(',').map(|name| name.trim().to_owned()).collect(),
            },
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name())
    }
}

impl Config {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        for part in text.split(';').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let bad = |what: &str| format!("invalid check option {what:?}");
            let (key, value) = part.split_once('=').ok_or_else(|| bad(part))?;
            match key.trim() {
                "skip" => config.skip = Names::parse(value),
                "experimental" => config.experimental = Names::parse(value),
                "error" => {
                    config.error = match value.trim().to_ascii_lowercase().as_str() {
                        "1" | "t" | "true" => true,
                        "0" | "f" | "false" => false,
                        _ => return Err(format!("failed to parse check option {part:?}")),
                    };
                }
                other => return Err(bad(other)),
            }
        }
        Ok(config)
    }

    fn counts(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.has(rule) } else { !self.skip.has(rule) }
    }

    /// The findings that count, in order. `comments` are those above the instructions, by the line
    /// where the instruction begins: `# check=` there is for that instruction.
    pub(crate) fn filter(
        &self,
        findings: Vec<Finding>,
        comments: &BTreeMap<u32, Vec<String>>,
    ) -> Vec<Finding> {
        let mut kept: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| {
                let own = comments.get(&finding.lines.start).and_then(|lines| of_comments(lines));
                let skipped_here = own.as_ref().is_some_and(|own| own.skip.has(finding.rule));
                let asked_here = own.is_some_and(|own| own.experimental.has(finding.rule));
                (self.counts(finding.rule) && !skipped_here)
                    || (asked_here && finding.rule.is_experimental())
            })
            .collect();
        kept.sort();
        kept.dedup();
        kept
    }
}

/// The first `# check=` among the comments above an instruction; one that is wrong is none.
fn of_comments(comments: &[String]) -> Option<Config> {
    let values = comments.iter().filter_map(|comment| {
        let (key, value) = comment.split_once('=')?;
        key.trim().eq_ignore_ascii_case("check").then(|| value.trim())
    });
    let first = values.map(|value| value.split(' ').next().unwrap_or("")).next()?;
    Config::parse(first).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::outcome::LineRange;

    #[test]
    fn options_are_read_as_buildkit_reads_them() {
        let config = Config::parse("skip=UndefinedVar, StageNameCasing;error=true").unwrap();
        assert!(config.error && !config.counts(Rule::UndefinedVar));
        assert!(!config.counts(Rule::StageNameCasing) && config.counts(Rule::FromAsCasing));
        assert!(!Config::parse("skip=all").unwrap().counts(Rule::FromAsCasing));
        assert!(
            Config::parse("experimental=all").unwrap().counts(Rule::InvalidDefinitionDescription)
        );
        assert_eq!(Config::parse("").unwrap(), Config::default());
        for bad in ["foo", "foo=bar", "error=maybe"] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_comment_speaks_for_the_instruction_below_it() {
        let finding = |line| {
            let lines = LineRange { start: line, end: line };
            Finding::new(Rule::UndefinedVar, lines, String::new())
        };
        let comments = BTreeMap::from([
            (3, vec!["check=skip=UndefinedVar because of this".to_owned()]),
            (4, vec!["check=nonsense".to_owned()]),
        ]);
        let kept = Config::default().filter(vec![finding(4), finding(3), finding(2)], &comments);
        assert_eq!(kept, [finding(2), finding(4)]);
    }
}
