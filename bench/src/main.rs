//! `make bench`: the same builds with Slipway, BuildKit and buildah, in turn, in one run.
//!
//! Arguments: names of workloads (default: all) and `--runs N` (default 5). With all workloads the
//! table goes into `bench/README.md`; with some it is only printed.

mod builders;
mod content;
mod table;
mod workloads;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use builders::{Builder, Lab};
use table::Row;
use workloads::{WORKLOADS, Workload};

/// Runs of each workload whose median counts.
const RUNS: usize = 5;

fn main() -> anyhow::Result<()> {
    let mut runs = RUNS;
    let mut chosen = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--runs" {
            runs = arguments.next().context("--runs takes a number")?.parse()?;
        } else {
            let known = WORKLOADS.iter().find(|workload| workload.name == argument);
            chosen.push(known.with_context(|| format!("no workload is called {argument}"))?);
        }
    }
    let is_whole = chosen.is_empty();
    if is_whole {
        chosen.extend(WORKLOADS);
    }
    let mut lab = Lab::start()?;
    let mut rows = Vec::new();
    for workload in chosen {
        rows.extend(measure(&mut lab, workload, runs)?);
    }
    let table = table::markdown(&rows);
    write!(std::io::stdout(), "\n{table}")?;
    if is_whole {
        table::store(&table, runs)?;
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
