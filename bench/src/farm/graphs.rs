//! Builds whose graphs show what a farm does with them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::{Farm, FarmOptions};

use super::rows::Finding;
use crate::table::median;
use crate::workloads::{nonce, run};

/// Stages of `wide-8`.
const WIDE: usize = 8;
/// How long each stage of `wide-8` sleeps, in seconds.
const SLEEP_SECS: u64 = 4;
/// Turns of a loop that keeps a processor busy for about a second.
const BUSY_TURNS: u64 = 1_500_000;
/// What `sparse` makes and what it copies.
const SPARSE_MADE: u64 = 2_000_000_000;
const SPARSE_COPIED: u32 = 5_000_000;

fn farm(workers: usize, slots: u32) -> anyhow::Result<Farm> {
    Farm::start(FarmOptions {
        workers,
        slots,
        lost_after_secs: 15,
        is_durable: true,
        ..FarmOptions::default()
    })
}

/// Builds a Dockerfile, and says how long that took.
fn build(farm: &Farm, dockerfile: &str) -> anyhow::Result<Duration> {
    let context = tempfile::tempdir_in(farm.directory())?;
    std::fs::write(context.path().join("Dockerfile"), dockerfile)?;
    let start = Instant::now();
    run(farm.command()?.args(["build", "--progress", "plain"]).arg(context.path()))?;
    Ok(start.elapsed())
}

/// The median of some builds, each of a Dockerfile of its own. One before them brings the images.
fn builds(farm: &Farm, runs: usize, dockerfile: impl Fn(usize) -> String) -> anyhow::Result<f64> {
    build(farm, &format!("FROM alpine\nRUN echo {}\n", nonce(0)))?;
    let times = (0..runs).map(|run| {
        let took = build(farm, &dockerfile(run));
        settle(farm).and(took)
    });
    median(&times.collect::<anyhow::Result<Vec<Duration>>>()?).context("no run")
}

/// Waits until all that was made is stored.
fn settle(farm: &Farm) -> anyhow::Result<()> {
    let open =
        "select count(*) from stage where state in ('ready', 'running', 'parked', 'waiting')";
    while farm.query(open)?.trim() != "0" {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Stages beside each other that all end in one image.
fn wide_dockerfile(run: usize, work: &str) -> String {
    let mut text = String::new();
    let mut copies = String::new();
    let nonce = nonce(run);
    for stage in 0..WIDE {
        let _ =
            writeln!(text, "FROM alpine AS part-{stage}\nRUN {work}; echo {nonce} {stage} > /part");
        let _ = writeln!(copies, "COPY --from=part-{stage} /part /part-{stage}");
    }
    format!("{text}FROM alpine\n{copies}")
}

/// `wide-8`: sleeping stages on up to eight workers, busy ones on as many as there are processors.
pub(super) fn wide(runs: usize) -> anyhow::Result<Vec<Finding>> {
    // Sleeping takes equally long every time.
    let runs = runs.min(3);
    let mut found = Vec::new();
    let sleeping = format!("sleep {SLEEP_SECS}");
    let mut alone = None;
    for workers in [1, 2, 4, 8] {
        let farm = farm(workers, 1)?;
        let took = builds(&farm, runs, |run| wide_dockerfile(run, &sleeping))?;
        found.push(speed_up("wide-8` with stages that sleep", workers, took, &mut alone));
    }
    let busy = format!("i=0; while [ $i -lt {BUSY_TURNS} ]; do i=$((i+1)); done");
    let mut alone = None;
    for workers in [1, 2] {
        let farm = farm(workers, 1)?;
        for worker in 0..workers {
            pin(farm.worker_process(&format!("worker-{}", worker + 1))?, worker)?;
        }
        let took = builds(&farm, runs, |run| wide_dockerfile(run, &busy))?;
        found.push(speed_up(
            "wide-8` with busy stages, a processor each",
            workers,
            took,
            &mut alone,
        ));
    }
    Ok(found)
}

/// The first one measured is the measure of the others.
fn speed_up(what: &str, workers: usize, took: f64, alone: &mut Option<f64>) -> Finding {
    let (goal, figure) = match *alone {
        None => ("", format!("{took:.2} s")),
        Some(alone) => {
            ("≥ 0.85 × workers", format!("{took:.2} s: {:.2} times as fast", alone / took))
        }
    };
    alone.get_or_insert(took);
    let plural = if workers == 1 { "" } else { "s" };
    Finding::new(format!("`{what}: {workers} worker{plural}"), figure, goal)
}

/// Binds a worker, and all that it starts, to one processor.
fn pin(process: u32, processor: usize) -> anyhow::Result<()> {
    let mut command = Command::new("taskset");
    run(command.args(["-a", "-c", "-p", &processor.to_string(), &process.to_string()]))
}

/// `deep-6`: a chain gains nothing from several workers, and must lose nothing.
pub(super) fn deep(runs: usize) -> anyhow::Result<Vec<Finding>> {
    let dockerfile = |run: usize| {
        let mut text = format!("FROM alpine AS link-0\nRUN echo {}\n", nonce(run));
        for link in 1..=6 {
            let _ = writeln!(
                text,
                "FROM link-{} AS link-{link}\nRUN head -c 20000000 /dev/urandom > /data-{link}\n\
                 RUN sha256sum /data-{link} > /sum-{link}\nRUN sleep 0.2",
                link - 1
            );
        }
        text
    };
    let one = builds(&farm(1, 1)?, runs, dockerfile)?;
    let four = builds(&farm(4, 1)?, runs, dockerfile)?;
    let figure = format!("{four:.2} s: {:.2} of one worker's {one:.2} s", four / one);
    Ok(vec![Finding::new("`deep-6` on 4 workers", figure, "≤ 1.05")])
}

/// `sparse`: a copy out of a big stage moves what is copied.
pub(super) fn sparse(_: usize) -> anyhow::Result<Vec<Finding>> {
    let farm = farm(2, 1)?;
    let nonce = nonce(0);
    // The second stage begins beside the first one, hence elsewhere.
    build(
        &farm,
        &format!(
            "FROM alpine AS big\nRUN echo {nonce}; head -c {SPARSE_MADE} /dev/urandom > /big\n\
             RUN head -c {SPARSE_COPIED} /dev/urandom > /wanted\n\
             FROM alpine\nRUN echo {nonce} > /here\nCOPY --from=big /wanted /\n"
        ),
    )?;
    let stages = farm.last_build()?.stages;
    let places: Vec<_> = stages.iter().filter_map(|stage| stage.worker.as_deref()).collect();
    ensure!(places.len() == 2 && places[0] != places[1], "both ran on one worker: {places:?}");
    let moved: u64 =
        stages.iter().flat_map(|stage| &stage.transfers).map(|use_| use_.transferred_bytes).sum();
    ensure!(moved > 0, "nothing moved");
    let parts = f64::from(u32::try_from(moved)?) / f64::from(SPARSE_COPIED);
    let figure = format!("{parts:.2} times the copied bytes");
    Ok(vec![Finding::new("`sparse`: 5 MB copied out of 2 GB, bytes moved", figure, "≤ 1.2")])
}

/// `burst-20`: builds at once, half of them alike.
pub(super) fn burst(_: usize) -> anyhow::Result<Vec<Finding>> {
    let farm = farm(4, 2)?;
    build(&farm, "FROM alpine\nRUN true\n")?;
    settle(&farm)?;
    let runs = "select coalesce(sum(epoch), 0) from stage where kind = 'stage'";
    let before: u64 = farm.query(runs)?.trim().parse()?;
    let alike = nonce(0);
    let mut children = Vec::new();
    let contexts = tempfile::tempdir_in(farm.directory())?;
    for number in 0..20 {
        let own = if number % 2 == 0 { alike.clone() } else { nonce(number) };
        let context = contexts.path().join(number.to_string());
        std::fs::create_dir(&context)?;
        let text = format!(
            "FROM alpine AS one\nRUN sleep 0.3; echo {own} > /one\n\
             FROM alpine AS two\nRUN sleep 0.3; echo {own} > /two\n\
             FROM alpine\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
        );
        std::fs::write(context.join("Dockerfile"), text)?;
        children.push(start(&farm, &context)?);
    }
    for child in children {
        let ended = child.wait_with_output()?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    settle(&farm)?;
    let after: u64 = farm.query(runs)?.trim().parse()?;
    let distinct = 11 * 3;
    let figure = format!("{} stages run of {distinct} keys", after - before);
    Ok(vec![Finding::new("`burst-20`: 20 builds at once, 10 alike", figure, "as many as keys")])
}

fn start(farm: &Farm, context: &Path) -> anyhow::Result<std::process::Child> {
    let context = context.to_str().context("the path is no text")?;
    farm.spawn(["build", "--progress", "plain", context])
}

/// `late`: a stage begins before what it copies is there.
pub(super) fn late(runs: usize) -> anyhow::Result<Vec<Finding>> {
    let took = builds(&farm(2, 1)?, runs, |run| {
        let nonce = nonce(run);
        format!(
            "FROM alpine AS producer\nRUN sleep 4; echo {nonce} > /made\n\
             FROM alpine\nRUN sleep 4; echo {nonce} > /own\nCOPY --from=producer /made /\n"
        )
    })?;
    let what = "`late`: 4 s of work before a 4 s producer is needed";
    Ok(vec![Finding::new(what, format!("{took:.2} s"), "< 5 s")])
}
