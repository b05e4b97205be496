//! `slipway bake`: several targets as one build.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use api::public::v1::{BuildRequest, CommandOptions, OutputRequest, TargetRequest};
use clap::Parser as _;
use client::public::Client;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::bakefile::{self, Target};
use super::build::{metadata, progress, receive, submit};
use super::engine;
use super::outputs::{Download, outputs};
use super::prepare::Prepared;
use crate::agent;
use crate::args::{Arguments, Bake, Build, Command};
use crate::context::{Sent, SentContext};
use crate::exit::CliError;
use crate::output::{self, Display};

/// Longest file in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The files that are read where none is named; the second one need not be there.
const USUAL: [&str; 2] = ["docker-bake.json", "docker-bake.override.json"];
/// Files that other programs can turn into one of those.
const OTHERS: [&str; 6] = [
    "docker-bake.hcl",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.override.hcl",
];

/// Reads the files and picks the targets.
pub(super) fn read(arguments: &Bake) -> Result<Vec<Target>, CliError> {
    let mut texts = Vec::new();
    for path in files(&arguments.file)? {
        let read: Box<dyn std::io::Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(&path).map_err(|error| CliError::file(&path, &error))?)
        };
        let mut text = String::new();
        read.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| CliError::file(&path, &error))?;
        texts.push(text);
    }
    bakefile::read(&texts, &arguments.targets, &arguments.set).map_err(CliError::usage)
}

fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let found: Vec<PathBuf> =
        USUAL.iter().map(PathBuf::from).filter(|path| path.is_file()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let other = OTHERS.iter().find(|name| Path::new(name).is_file());
    let message = match other {
        Some(name) => format!("{name} is not read here"),
        None => format!("there is no {}", USUAL[0]),
    };
    let hint = "docker buildx bake --print > docker-bake.json writes the file that is".to_owned();
    Err(CliError::Usage { message, hint: Some(hint) })
}

/// Shows the targets as they would be built.
pub(super) fn print(targets: &[Target]) -> ExitCode {
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let values: Map<String, Value> = targets
        .iter()
        .map(|target| (target.name.clone(), Value::Object(target.values.clone())))
        .collect();
    let all = json!({"group": {"default": {"targets": names}}, "target": values});
    output::print(&format!("{all:#}"));
    ExitCode::SUCCESS
}

/// Builds all of them, and waits for the end.
pub(super) async fn run(
    client: &Client,
    arguments: &Bake,
    targets: &[Target],
) -> Result<ExitCode, CliError> {
    let scratch = tempfile::tempdir().map_err(|error| CliError::usage(error.to_string()))?;
    let mut builds = Vec::new();
    for target in targets {
        builds.push(build_of(arguments, target, &scratch)?);
    }
    let (mut wanted, mut downloads) = (Vec::new(), Vec::new());
    for build in &builds {
        let (outputs, places) = outputs(build)?;
        wanted.push(outputs);
        downloads.extend(places);
    }
    if downloads.contains(&Download::Engine) {
        engine::check().await?;
    }
    let ssh: BTreeSet<String> = builds.iter().flat_map(|build| build.ssh.clone()).collect();
    let agents = Arc::new(agent::sources(&ssh.into_iter().collect::<Vec<_>>())?);
    let progress = progress(arguments.progress);
    let mut all = Vec::new();
    for (target, build) in targets.iter().zip(&builds) {
        all.push(Prepared::load(client, build, target.links()).await?);
    }
    let view = loop {
        let mut display = Display::new(progress);
        Prepared::align(&mut all);
        let request = request(targets, &all, &wanted, &mut display).await?;
        let view = submit(client, &request, &agents, &mut display).await?;
        let failure = view.failure.as_ref();
        let learned = all.iter_mut().filter_map(|one| one.learns_from(failure).then_some(()));
        if learned.count() == 0 {
            break view;
        }
        display.note("a base image asks for more of the contexts: they are sent whole");
    };
    receive(client, &view, &downloads, progress).await?;
    if let Some(path) = &arguments.metadata_file {
        let mut made = view.exports.iter();
        let mut all = Map::new();
        for (target, outputs) in targets.iter().zip(&wanted) {
            let first = made.by_ref().take(outputs.len().max(1)).collect::<Vec<_>>();
            let first = first.first().map(|export| metadata(&view, export));
            all.insert(target.name.clone(), first.unwrap_or_default());
        }
        std::fs::write(path, format!("{:#}\n", Value::Object(all)))
            .map_err(|error| CliError::file(path, &error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line of `build` that a target stands for.
fn build_of(arguments: &Bake, target: &Target, scratch: &TempDir) -> Result<Build, CliError> {
    let mut all = vec!["slipway".to_owned(), "build".to_owned()];
    let given = [
        (arguments.push, "--push"),
        (arguments.load, "--load"),
        (arguments.no_cache, "--no-cache"),
        (arguments.pull, "--pull"),
    ];
    all.extend(given.iter().filter(|(is_given, _)| *is_given).map(|(_, flag)| (*flag).to_owned()));
    all.push(format!("--project={}", arguments.project));
    if let Some(file) = dockerfile(target, scratch)? {
        all.push(format!("--file={file}"));
    }
    all.extend(bakefile::flags(target).map_err(CliError::usage)?);
    let parsed = Arguments::try_parse_from(&all)
        .map_err(|error| CliError::usage(format!("target {}: {error}", target.name)))?;
    match parsed.command {
        Command::Build(build) => Ok(*build),
        _ => Err(CliError::usage(format!("target {} is no build", target.name))),
    }
}

/// The Dockerfile's path: it is named in relation to the context, or stands in the file itself.
fn dockerfile(target: &Target, scratch: &TempDir) -> Result<Option<String>, CliError> {
    let text = |key: &str| target.values.get(key).and_then(Value::as_str);
    if let Some(inline) = text("dockerfile-inline") {
        let path = scratch.path().join(format!("{}.Dockerfile", target.name));
        std::fs::write(&path, inline).map_err(|error| CliError::file(&path, &error))?;
        return Ok(Some(path.display().to_string()));
    }
    let Some(file) = text("dockerfile") else { return Ok(None) };
    let context = Path::new(text("context").unwrap_or("."));
    let is_local = context.is_dir() && !file.contains("://");
    Ok(Some(if is_local { context.join(file).display().to_string() } else { file.to_owned() }))
}

/// The request for all, once their contexts are sent.
async fn request(
    targets: &[Target],
    all: &[Prepared<'_>],
    wanted: &[Vec<OutputRequest>],
    display: &mut Display,
) -> Result<BuildRequest, CliError> {
    let mut made: Option<BuildRequest> = None;
    let mut known: Vec<Option<SentContext>> = Vec::new();
    let mut list = Vec::new();
    for (position, (target, prepared)) in targets.iter().zip(all).enumerate() {
        let same = all[..position].iter().position(|other| other.shares_context(prepared));
        let before = same.and_then(|position| known[position]);
        let outputs = wanted[position].clone();
        let (one, sent) = prepared.request(outputs, Some(Sent::Everything), before).await?;
        if let Some(sent) = sent.filter(|_| before.is_none()) {
            display.context(&sent);
        }
        known.push(sent);
        list.push(TargetRequest {
            name: target.name.clone(),
            source: Some(one.source.clone()),
            target: one.target.clone(),
            build_args: one.build_args.clone(),
            labels: one.labels.clone(),
            platforms: one.platforms.clone(),
            contexts: one.contexts.clone(),
            commands: Some(one.commands.clone()),
            no_cache: one.no_cache,
            no_cache_stages: one.no_cache_stages.clone(),
            outputs: one.outputs.clone(),
        });
        made = Some(match made {
            None => bare(one),
            Some(before) => joined(before, one, &target.name)?,
        });
    }
    let made = made.ok_or_else(|| CliError::usage("there is nothing to build"))?;
    Ok(BuildRequest { targets: list, ..made })
}

/// A request without what its targets say.
fn bare(request: BuildRequest) -> BuildRequest {
    BuildRequest {
        target: None,
        build_args: BTreeMap::new(),
        labels: BTreeMap::new(),
        platforms: Vec::new(),
        contexts: BTreeMap::new(),
        commands: CommandOptions::default(),
        no_cache: false,
        no_cache_stages: Vec::new(),
        outputs: Vec::new(),
        ..request
    }
}

/// What all targets have in common: a build has one set of secrets and agents.
fn joined(all: BuildRequest, one: BuildRequest, name: &str) -> Result<BuildRequest, CliError> {
    let mut secrets = all.secrets.clone();
    for (id, secret) in one.secrets {
        if secrets.get(&id).is_some_and(|known| *known != secret) {
            return Err(CliError::usage(format!(
                "target {name}: other targets have another secret {id}: build it by itself"
            )));
        }
        secrets.insert(id, secret);
    }
    let agents = all.agents.union(&one.agents).cloned().collect();
    let pull = all.pull || one.pull;
    Ok(BuildRequest { secrets, agents, pull, ..all })
}
