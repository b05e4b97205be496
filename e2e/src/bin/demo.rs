//! `make demo`: a farm, the examples, and where the time went.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use common::stage::StageState;
use e2e::{Farm, FarmOptions, Image, run_image, source_root};

/// What is built: the title, the flags, and what the image prints where it is run.
const EXAMPLES: [(&str, &[&str], Option<&str>); 4] = [
    ("COPY --from=0", &["examples/index"], Some("hello from a farm, linux")),
    ("COPY --from=builder", &["examples/named"], Some("hello from a farm, linux")),
    ("--target builder", &["--target", "builder", "examples/named"], None),
    ("COPY --from=nginx:latest", &["examples/image"], Some("http {")),
];

fn main() -> anyhow::Result<ExitCode> {
    // Ctrl-C lets the farm be taken down in order. A running build gets the signal too, and fails.
    let stopped = Arc::new(AtomicBool::new(false));
    catch_interrupts(&stopped)?;
    let result = demonstrate(&stopped);
    if stopped.load(Ordering::SeqCst) {
        writeln!(std::io::stdout(), "stopped")?;
        return Ok(ExitCode::from(130));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn demonstrate(stopped: &AtomicBool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let start = Instant::now();
    writeln!(out, "starting Postgres, Redis, S3, a registry, a coordinator and two workers ...")?;
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..FarmOptions::default() })?;
    writeln!(out, "the farm is up after {:.1} s", start.elapsed().as_secs_f64())?;
    for (number, (title, arguments, prints)) in EXAMPLES.iter().enumerate() {
        if stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        build(&farm, &mut out, number, title, arguments, *prints)?;
    }
    writeln!(out, "\nonce more: everything is cached, nothing runs")?;
    build(&farm, &mut out, 1, EXAMPLES[1].0, EXAMPLES[1].1, EXAMPLES[1].2)?;
    writeln!(out, "\ndashboard: {}/#token={}", farm.address(), farm.token())?;
    writeln!(out, "all of it took {:.1} s", start.elapsed().as_secs_f64())?;
    if std::env::var("KEEP").as_deref() == Ok("1") {
        writeln!(out, "\nthe farm stays up until Ctrl-C; to use it:")?;
        writeln!(out, "  export SLIPWAY_SERVER={} SLIPWAY_TOKEN={}", farm.address(), farm.token())?;
        writeln!(
            out,
            "  target/debug/slipway build -t {}/mine:1 --push DIRECTORY",
            farm.registry()
        )?;
        while !stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let left = farm.stop_and_list_leftovers()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn build(
    farm: &Farm,
    out: &mut impl std::io::Write,
    number: usize,
    title: &str,
    arguments: &[&str],
    prints: Option<&str>,
) -> anyhow::Result<()> {
    writeln!(out, "\n== {title}: slipway build {}", arguments.join(" "))?;
    let name = format!("{}/example-{number}:1", farm.registry());
    let mut command = farm.command()?;
    command.current_dir(source_root()).args([
        "build",
        "--progress",
        "plain",
        "--push",
        "-t",
        &name,
    ]);
    let output = command.args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the build failed:\n{text}");
    // Layers of a stage that is not the target may be on their way still.
    let view = farm.wait_for_build("the end of all uploads", |view| {
        view.stages.iter().all(|stage| stage.state.is_terminal())
    })?;
    ensure!(view.stages.iter().all(|stage| stage.state != StageState::Failed), "a stage failed");
    let shown = farm.slipway(["show", "last"])?;
    let rows = shown.stdout.lines().filter(|line| !line.starts_with("build "));
    for row in rows.filter(|line| !line.is_empty()) {
        writeln!(out, "{row}")?;
    }
    let image = Image::inspect(&name)?;
    let export = view.exports.first().context("no image was made")?;
    ensure!(export.digest.to_string() == image.digest, "the registry has another digest");
    if let Some(expected) = prints {
        let scratch = tempfile::tempdir_in(farm.directory())?;
        let printed = run_image(&name, scratch.path())?;
        ensure!(printed.contains(expected), "the image printed {printed:?}");
        let line = printed.lines().find(|line| line.contains(expected)).unwrap_or(expected);
        writeln!(out, "pulled back and run, it prints: {line}")?;
    }
    Ok(())
}

/// Turns SIGINT and SIGTERM into a flag: a thread waits for them, so no code runs in a handler.
fn catch_interrupts(stopped: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let stopped = Arc::clone(stopped);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                stopped.store(true, Ordering::SeqCst);
            }
        });
    })?;
    Ok(())
}
