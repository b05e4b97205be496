//! The rows of one machine: the same builds with Slipway, BuildKit and buildah, in turn.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::builders::{Builder, Lab};
use crate::table::{self, Row};
use crate::workloads::{WORKLOADS, Workload};

/// Runs the chosen workloads; without a choice all of them, and then the page gets the table.
pub(crate) fn run(names: &[String], runs: usize) -> anyhow::Result<()> {
    let mut chosen: Vec<&Workload> = Vec::new();
    for name in names {
        let known = WORKLOADS.iter().find(|workload| workload.name == name);
        chosen.push(known.with_context(|| format!("no workload is called {name}"))?);
    }
    if names.is_empty() {
        chosen.extend(WORKLOADS);
    }
    let mut lab = Lab::start()?;
    let mut rows = Vec::new();
    for workload in chosen {
        rows.extend(measure(&mut lab, workload, runs)?);
    }
    let table = table::markdown(&rows);
    write!(std::io::stdout(), "\n{table}")?;
    if names.is_empty() {
        table::store("make bench", &format!("Medians of {runs} runs:\n\n{table}"))?;
    }
    Ok(())
}

/// Runs one workload with every builder, in turn.
fn measure(lab: &mut Lab, workload: &Workload, runs: usize) -> anyhow::Result<Vec<Row>> {
    let mut out = std::io::stdout();
    let mut rows: Vec<Row> =
        workload.phases.iter().map(|phase| Row::new(workload.name, phase)).collect();
    (workload.prepare)(lab)?;
    for run in 0..runs {
        let context = tempfile::tempdir_in(lab.directory())?;
        (workload.context)(context.path(), run)?;
        for builder in Builder::ALL {
            (workload.reset)(lab, builder)?;
        }
        for (phase, row) in rows.iter_mut().enumerate() {
            (workload.change)(context.path(), run, phase)?;
            for builder in Builder::in_turn(run) {
                let built = time(|| (workload.build)(lab, builder, context.path(), run))
                    .with_context(|| format!("{} with {}", workload.name, builder.name()));
                let spent = match built {
                    Ok(spent) => spent,
                    // Another builder that fails once loses this run; it has the others.
                    Err(error) if builder != Builder::Slipway && run > 0 => {
                        writeln!(out, "left out: {error:#}")?;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                writeln!(
                    out,
                    "{} {} run {run}: {} {:.2} s",
                    workload.name,
                    row.phase,
                    builder.name(),
                    spent.as_secs_f64()
                )?;
                row.add(builder, spent);
                if builder == Builder::Slipway {
                    // What it does afterwards is no burden for the others, and no secret.
                    let after = time(|| lab.settle())?;
                    row.add_stored(spent + after);
                }
            }
        }
    }
    Ok(rows)
}

fn time(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}
