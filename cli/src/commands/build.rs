//! `slipway build`.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use api::public::v1::{BuildRequest, BuildView, ExportView, LogLine};
use client::public::Client;
use common::build::BuildState;
use common::{BuildId, Failure, FailureClass};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::check;
use super::download::save;
use super::engine;
use super::outputs::{Download, outputs};
use super::prepare::Prepared;
use crate::agent;
use crate::args::{Build, Progress};
use crate::context::Sent;
use crate::exit::CliError;
use crate::output::{Display, print, table};

/// Builds, and waits for the end.
pub(crate) async fn run(client: &Client, arguments: &Build) -> Result<ExitCode, CliError> {
    if let Some(call) = check::call(arguments)? {
        return check::run(client, arguments, call).await;
    }
    let (outputs, downloads) = outputs(arguments)?;
    if downloads.contains(&Download::Engine) {
        engine::check().await?;
    }
    let progress = progress(if arguments.quiet { Progress::Quiet } else { arguments.progress });
    let agents = Arc::new(agent::sources(&arguments.ssh)?);
    let mut prepared = Prepared::load(client, arguments, BTreeMap::new()).await?;
    let view = loop {
        let mut display = Display::new(progress);
        let (request, sent) =
            prepared.request(outputs.clone(), Some(Sent::Everything), None).await?;
        if let Some(sent) = sent {
            display.context(&sent);
        }
        let view = submit(client, &request, &agents, &mut display).await?;
        if !prepared.learns_from(view.failure.as_ref()) {
            break view;
        }
        display.note("the build needs more of the contexts: they are sent whole");
    };
    finish(client, arguments, &view, &downloads, progress).await
}

/// Submits, answers for agents, and waits for the end.
pub(super) async fn submit(
    client: &Client,
    request: &BuildRequest,
    agents: &Arc<BTreeMap<String, agent::Source>>,
    display: &mut Display,
) -> Result<BuildView, CliError> {
    let key = uuid::Uuid::new_v4().to_string();
    let view = client.submit(request, &key).await?;
    display.submitted(&view);
    let (notes, mut noted) = mpsc::channel(16);
    // Ends with this function at the latest.
    let mut answering = JoinSet::new();
    if !agents.is_empty() {
        answering.spawn(agent::answer(client.clone(), view.id, Arc::clone(agents), notes));
    }
    follow(client, view.id, display, &mut noted).await
}

/// How progress is shown here.
pub(super) fn progress(wanted: Progress) -> Progress {
    match wanted {
        Progress::Auto if std::io::stderr().is_terminal() => Progress::Tty,
        Progress::Auto => Progress::Plain,
        other => other,
    }
}

/// Shows progress until the build has ended. The first Ctrl-C cancels it, the second one leaves.
pub(super) async fn follow(
    client: &Client,
    id: BuildId,
    display: &mut Display,
    notes: &mut mpsc::Receiver<String>,
) -> Result<BuildView, CliError> {
    let (views, mut changes) = mpsc::channel::<BuildView>(16);
    let (lines, mut log) = mpsc::channel::<LogLine>(1024);
    let follower = {
        let client = client.clone();
        tokio::spawn(async move { client.follow(id, views).await })
    };
    let reader = {
        let client = client.clone();
        tokio::spawn(async move { client.log(id, None, true, lines).await })
    };
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    let mut interrupted = false;
    let mut last: Option<BuildView> = None;
    loop {
        tokio::select! {
            biased;
            Some(line) = log.recv() => display.line(&line),
            view = changes.recv() => match view {
                Some(view) => {
                    display.view(&view);
                    last = Some(view);
                }
                None => break,
            },
            Some(note) = notes.recv() => display.note(&note),
            _ = tick.tick() => display.tick(),
            _ = tokio::signal::ctrl_c() => {
                if interrupted {
                    let message = "left; the build is being cancelled";
                    return Err(CliError::Failed(Box::new(Failure::new(FailureClass::Cancelled, "left", message))));
                }
                interrupted = true;
                display.note("cancelling; once more to leave at once");
                client.cancel(id).await?;
            }
        }
    }
    // The log ends a moment after the build.
    let rest = async {
        while let Some(line) = log.recv().await {
            display.line(&line);
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), rest).await;
    reader.abort();
    follower.await.map_err(|error| CliError::usage(error.to_string()))??;
    let view = match last {
        Some(view) if view.state.is_terminal() => view,
        _ => client.build(id).await?,
    };
    display.end(&view);
    Ok(view)
}

/// Fetches and tells what was made; a build that did not succeed is an error.
pub(super) async fn receive(
    client: &Client,
    view: &BuildView,
    downloads: &[Download],
    progress: Progress,
) -> Result<(), CliError> {
    if view.state != BuildState::Succeeded {
        let failure = view.failure.clone().unwrap_or_else(|| {
            let message = format!("the build {} is {}", view.id, view.state);
            Failure::new(FailureClass::Infrastructure, "no-result", message)
        });
        return Err(CliError::Failed(Box::new(failure)));
    }
    if matches!(progress, Progress::Tty | Progress::Plain) {
        let _ = writeln!(std::io::stderr(), "\n{}", table(view));
    }
    let mut archives = downloads.iter();
    for export in &view.exports {
        if let Some(url) = &export.download_url
            && let Some(download) = archives.next()
        {
            save(client, url, download).await?;
        }
        for left in &export.left {
            let text = format!("{} was left at the newer build {}", left.name, left.newer);
            let _ = writeln!(std::io::stderr(), "{text}; this one is {}", export.digest);
        }
        for name in &export.names {
            if export.kind == "image" && progress != Progress::Quiet {
                let _ = writeln!(std::io::stderr(), "pushed {name}@{}", export.digest);
            }
        }
    }
    Ok(())
}

async fn finish(
    client: &Client,
    arguments: &Build,
    view: &BuildView,
    downloads: &[Download],
    progress: Progress,
) -> Result<ExitCode, CliError> {
    receive(client, view, downloads, progress).await?;
    let Some(first) = view.exports.first() else {
        if matches!(progress, Progress::Tty | Progress::Plain) {
            let text =
                "built; its layers are being stored (it goes nowhere without --push, --load or -o)";
            let _ = writeln!(std::io::stderr(), "{text}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(path) = &arguments.iidfile {
        std::fs::write(path, first.config_digest.to_string())
            .map_err(|error| CliError::file(path, &error))?;
    }
    if let Some(path) = &arguments.metadata_file {
        let metadata = metadata(view, first);
        std::fs::write(path, format!("{metadata:#}\n"))
            .map_err(|error| CliError::file(path, &error))?;
    }
    match progress {
        Progress::Quiet => print(&first.config_digest.to_string()),
        Progress::Rawjson => {}
        _ => {
            let _ = writeln!(std::io::stderr(), "image {}", first.digest);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What programs want to know of something made.
pub(super) fn metadata(view: &BuildView, made: &ExportView) -> Value {
    let left: BTreeMap<&str, _> = view
        .exports
        .iter()
        .flat_map(|export| &export.left)
        .map(|left| (left.name.as_str(), left.newer))
        .collect();
    json!({
        "containerimage.config.digest": made.config_digest,
        "containerimage.digest": made.digest,
        "image.name": made.names.join(","),
        "slipway.left": left,
        "slipway.build": view.id,
    })
}
