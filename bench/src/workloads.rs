//! What is built.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

use crate::builders::{Builder, Lab};
use crate::content::Content;

/// Files of `ctx-20k`, and their bytes.
const CONTEXT_FILES: usize = 20_000;
const CONTEXT_BYTES: usize = 230_000_000;
/// New bytes of `big-layer`.
const LAYER_BYTES: usize = 500_000_000;
/// Layers of the image of `pull`, and their bytes together.
const PULL_LAYERS: usize = 5;
const PULL_BYTES: usize = 380_000_000;

/// One thing to build, in one or more phases.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) phases: &'static [&'static str],
    /// Once, before all runs.
    pub(crate) prepare: fn(&mut Lab) -> anyhow::Result<()>,
    /// Makes the context of a run.
    pub(crate) context: fn(&Path, usize) -> anyhow::Result<()>,
    /// Before a run, for each builder.
    pub(crate) reset: fn(&mut Lab, Builder) -> anyhow::Result<()>,
    /// Before a phase.
    pub(crate) change: fn(&Path, usize, usize) -> anyhow::Result<()>,
    /// What is timed.
    pub(crate) build: fn(&Lab, Builder, &Path, usize) -> anyhow::Result<()>,
}

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "noop",
        phases: &["everything cached"],
        prepare: prepare_noop,
        context: noop_context,
        reset: |_, _| Ok(()),
        change: |_, _, _| Ok(()),
        build: |lab, builder, context, _| lab.build(builder, "noop", context, false),
    },
    Workload {
        name: "runs-50",
        phases: &["cold"],
        prepare: |_| Ok(()),
        context: runs_context,
        reset: |_, _| Ok(()),
        change: |_, _, _| Ok(()),
        build: |lab, builder, context, _| lab.build(builder, "runs", context, false),
    },
    Workload {
        name: "ctx-20k",
        phases: &["cold", "one file changed"],
        prepare: |_| Ok(()),
        context: files_context,
        reset: |_, _| Ok(()),
        change: change_file,
        build: |lab, builder, context, _| lab.build(builder, "files", context, false),
    },
    Workload {
        name: "big-layer",
        phases: &["cold, pushed as gzip"],
        prepare: prepare_big,
        context: big_context,
        reset: |_, _| Ok(()),
        change: |_, _, _| Ok(()),
        build: |lab, builder, context, _| lab.build(builder, "big", context, true),
    },
    Workload {
        name: "pull",
        phases: &["cold base image"],
        prepare: prepare_pull,
        context: pull_context,
        reset: Lab::forget_images,
        change: |_, _, _| Ok(()),
        build: |lab, builder, context, _| lab.build(builder, "pull", context, false),
    },
];

/// Something that no other run has.
pub(crate) fn nonce(run: usize) -> String {
    format!("{run}-{:016x}", rand::random::<u64>())
}

/// Built once before it is timed.
fn noop_context(context: &Path, _: usize) -> anyhow::Result<()> {
    std::fs::create_dir(context.join("src"))?;
    for number in 0..50 {
        std::fs::write(context.join(format!("src/{number}.txt")), format!("file {number}\n"))?;
    }
    let mut text = "FROM alpine:latest AS build\nCOPY src /src\n".to_owned();
    for number in 0..8 {
        text.push_str(&format!("RUN cat /src/* > /all-{number}\n"));
    }
    text.push_str("FROM alpine:latest\nCOPY --from=build /all-7 /all\nRUN wc -l /all > /lines\n");
    Ok(std::fs::write(context.join("Dockerfile"), text)?)
}

fn prepare_noop(lab: &mut Lab) -> anyhow::Result<()> {
    let context = tempfile::tempdir_in(lab.directory())?;
    noop_context(context.path(), 0)?;
    for builder in Builder::ALL {
        lab.build(builder, "noop", context.path(), false)?;
    }
    Ok(())
}

fn runs_context(context: &Path, run: usize) -> anyhow::Result<()> {
    let mut text = format!("FROM alpine:latest\nENV RUN={}\n", nonce(run));
    for number in 0..50 {
        text.push_str(&format!("RUN echo {number} > /step-{number}\n"));
    }
    Ok(std::fs::write(context.join("Dockerfile"), text)?)
}

fn files_context(context: &Path, _: usize) -> anyhow::Result<()> {
    Content::new(rand::random()).files(&context.join("src"), CONTEXT_FILES, CONTEXT_BYTES)?;
    Ok(std::fs::write(context.join("Dockerfile"), "FROM alpine:latest\nCOPY src /src\n")?)
}

fn change_file(context: &Path, run: usize, phase: usize) -> anyhow::Result<()> {
    if phase > 0 {
        std::fs::write(context.join("src/d100/f50.txt"), nonce(run))?;
    }
    Ok(())
}

fn big_context(context: &Path, run: usize) -> anyhow::Result<()> {
    let text = format!(
        "FROM bench/data:latest\nRUN cp -r /data /copy && echo {} > /copy/run\n",
        nonce(run)
    );
    Ok(std::fs::write(context.join("Dockerfile"), text)?)
}

/// The base image is warm: only the new bytes are measured.
fn prepare_big(lab: &mut Lab) -> anyhow::Result<()> {
    let root = lab.directory().join("data-root");
    let mut content = Content::new(1);
    content.files(&root.join("data/small"), 5_000, LAYER_BYTES / 5)?;
    for number in 0..8 {
        content.file(&root.join(format!("data/large-{number}")), LAYER_BYTES / 10)?;
    }
    lab.push_image("data", &[&root])?;
    let context = tempfile::tempdir_in(lab.directory())?;
    std::fs::write(context.path().join("Dockerfile"), "FROM bench/data:latest\nRUN true\n")?;
    for builder in Builder::ALL {
        lab.build(builder, "warm", context.path(), false)?;
    }
    Ok(())
}

fn pull_context(context: &Path, run: usize) -> anyhow::Result<()> {
    let text = format!("FROM bench/layers:latest\nRUN echo {} > /run-number\n", nonce(run));
    Ok(std::fs::write(context.join("Dockerfile"), text)?)
}

fn prepare_pull(lab: &mut Lab) -> anyhow::Result<()> {
    let mut content = Content::new(2);
    let mut roots = Vec::new();
    for number in 0..PULL_LAYERS {
        let root = lab.directory().join(format!("layer-{number}"));
        let place = root.join(format!("usr/layer-{number}"));
        content.files(&place.join("small"), 2_000, PULL_BYTES / PULL_LAYERS / 2)?;
        content.file(&place.join("large"), PULL_BYTES / PULL_LAYERS / 2)?;
        roots.push(root);
    }
    let roots: Vec<&Path> = roots.iter().map(AsRef::as_ref).collect();
    lab.push_image("layers", &roots)
}

/// Runs a program to its end, quietly.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
