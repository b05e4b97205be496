//! The table of results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;

use crate::builders::Builder;

/// Ends a place for a table in the page.
const END: &str = "<!-- to here -->\n";

/// One line: a workload, or one phase of it.
#[derive(Debug)]
pub(crate) struct Row {
    workload: &'static str,
    pub(crate) phase: &'static str,
    spent: BTreeMap<Builder, Vec<Duration>>,
    /// Until Slipway has stored the last layer, too.
    stored: Vec<Duration>,
}

impl Row {
    pub(crate) fn new(workload: &'static str, phase: &'static str) -> Self {
        Self { workload, phase, spent: BTreeMap::new(), stored: Vec::new() }
    }

    pub(crate) fn add(&mut self, builder: Builder, spent: Duration) {
        self.spent.entry(builder).or_default().push(spent);
    }

    pub(crate) fn add_stored(&mut self, spent: Duration) {
        self.stored.push(spent);
    }
}

pub(crate) fn median(times: &[Duration]) -> Option<f64> {
    let mut all: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    let low = all.get(all.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*low, *all.get(middle)?))
}

/// The table as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| workload | Slipway | all layers stored | BuildKit | buildah | ÷ BuildKit | ÷ buildah |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let [slipway, buildkit, buildah] =
            Builder::ALL.map(|builder| row.spent.get(&builder).and_then(|times| median(times)));
        let seconds =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2} s"));
        let ratio = |other: Option<f64>| match (slipway, other) {
            (Some(own), Some(other)) => format!("{:.2}", own / other),
            _ => "–".to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{}` {} | {} | {} | {} | {} | **{}** | {} |",
            row.workload,
            row.phase,
            seconds(slipway),
            seconds(median(&row.stored)),
            seconds(buildkit),
            seconds(buildah),
            ratio(buildkit),
            ratio(buildah),
        );
    }
    text
}

/// Puts what a command has measured into its place in the page.
pub(crate) fn store(command: &str, text: &str) -> anyhow::Result<()> {
    let path = e2e::source_root().join("bench/README.md");
    let page = std::fs::read_to_string(&path)?;
    let begin = format!("<!-- {command} writes from here -->\n");
    let (before, rest) = page.split_once(&begin).context("the page has no place for the table")?;
    let (_, after) = rest.split_once(END).context("the page has no place for the table")?;
    Ok(std::fs::write(path, format!("{before}{begin}{text}{END}{after}"))?)
}
