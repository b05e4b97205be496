//! Which rows there are.

use std::io::Write as _;

use anyhow::Context as _;

use super::{graphs, swarm};
use crate::table;

/// One finding.
#[derive(Debug)]
pub(super) struct Finding {
    /// What was measured.
    pub(super) what: String,
    /// The figure.
    pub(super) figure: String,
    /// What it should be.
    pub(super) goal: &'static str,
}

impl Finding {
    pub(super) fn new(what: impl Into<String>, figure: String, goal: &'static str) -> Self {
        Self { what: what.into(), figure, goal }
    }
}

/// A row, or several that are measured together.
type Measure = fn(usize) -> anyhow::Result<Vec<Finding>>;

const ROWS: &[(&str, Measure)] = &[
    ("wide", graphs::wide),
    ("deep", graphs::deep),
    ("sparse", graphs::sparse),
    ("burst", graphs::burst),
    ("late", graphs::late),
    ("dispatch", swarm::dispatch),
];

/// Measures the chosen rows; without a choice all of them, and then the page gets the table.
pub(crate) fn run(names: &[String], runs: usize) -> anyhow::Result<()> {
    let mut chosen = Vec::new();
    for name in names {
        let known = ROWS.iter().find(|(known, _)| known == name);
        chosen.push(known.with_context(|| format!("no row is called {name}"))?);
    }
    if names.is_empty() {
        chosen.extend(ROWS);
    }
    let mut out = std::io::stdout();
    let mut findings = Vec::new();
    for (name, measure) in chosen {
        let found = measure(runs).with_context(|| (*name).to_owned())?;
        for Finding { what, figure, goal } in &found {
            let goal = if goal.is_empty() { String::new() } else { format!(" (goal: {goal})") };
            writeln!(out, "{what}: {figure}{goal}")?;
        }
        findings.extend(found);
    }
    let mut text = String::from("| what | figure | goal |\n|---|---|---|\n");
    for Finding { what, figure, goal } in findings {
        text.push_str(&format!("| {what} | **{figure}** | {goal} |\n"));
    }
    if names.is_empty() {
        table::store("make bench-farm", &text)?;
    }
    Ok(())
}
