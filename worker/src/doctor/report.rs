//! What was found.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The worker runs, with less.
    Warn,
    /// The worker does not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, in one word.
    pub check: &'static str,
    /// What was found.
    pub text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// All that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of the findings.
    pub level: Level,
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Default for Report {
    fn default() -> Self {
        Self { level: Level::Ok, findings: Vec::new() }
    }
}

impl Report {
    /// Adds a finding.
    pub(super) fn add(
        &mut self,
        level: Level,
        check: &'static str,
        text: impl Into<String>,
        fix: Option<&str>,
    ) {
        self.level = self.level.max(level);
        let fix = fix.map(str::to_owned);
        self.findings.push(Finding { level, check, text: text.into(), fix });
    }

    /// Whether a worker runs here.
    pub fn is_usable(&self) -> bool {
        self.level != Level::Fail
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok  ",
                Level::Warn => "warn",
                Level::Fail => "FAIL",
            };
            writeln!(f, "{level} {:<11} {}", finding.check, finding.text)?;
            if let Some(fix) = &finding.fix {
                writeln!(f, "{:17}→ {fix}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_and_fixes_stand_below() {
        let mut report = Report::default();
        report.add(Level::Ok, "kernel", "Linux 6.18", None);
        assert!(report.is_usable() && report.level == Level::Ok);
        report.add(Level::Warn, "network", "no network", Some("apt-get install slirp4netns"));
        assert!(report.is_usable() && report.level == Level::Warn);
        report.add(Level::Fail, "runtime", "none", None);
        report.add(Level::Ok, "time", "exact", None);
        assert!(!report.is_usable());
        let text = report.to_string();
        assert!(text.contains("ok   kernel      Linux 6.18\n"), "{text}");
        assert!(text.contains("\n                 → apt-get install slirp4netns\n"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["level"], "fail");
        assert_eq!(json["findings"][1]["fix"], "apt-get install slirp4netns");
        assert!(json["findings"][0].get("fix").is_none());
    }
}
