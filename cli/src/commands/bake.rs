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

use super::build::{metadata, progress, receive, submit};
use super::engine;
use super::outputs::{Download, outputs};
use super::prepare::Prepared;
use crate::agent;
use crate::args::{Arguments, Bake, Build, Command};
use crate::bake::{self, Source, Target};
use crate::context::{Sent, SentContext};
use crate::exit::CliError;
use crate::output::{self, Display};

/// Longest file in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The files that are read where none is named; those that are there, the later ones over the
/// earlier ones.
const USUAL: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];
/// Names files where none is named, with `:` between.
const FILES: &str = "BUILDX_BAKE_FILE";

/// Reads the files and picks the targets.
pub(super) fn read(arguments: &Bake) -> Result<Vec<Target>, CliError> {
    if let Some(address) = arguments.targets.first().filter(|name| is_address(name)) {
        return Err(CliError::usage(format!("{address}: bake files of repositories are not read")));
    }
    let mut given = BTreeMap::new();
    for variable in &arguments.var {
        let Some((name, value)) = variable.split_once('=') else {
            return Err(CliError::usage(format!("--var {variable}: NAME=VALUE is expected")));
        };
        given.insert(name, value.to_owned());
    }
    let lookup = |name: &str| given.get(name).cloned().or_else(|| std::env::var(name).ok());
    let mut sources = Vec::new();
    for path in files(&arguments.file)? {
        let read: Box<dyn std::io::Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(&path).map_err(|error| CliError::file(&path, &error))?)
        };
        let mut text = String::new();
        read.take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| CliError::file(&path, &error))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(CliError::file(&path, &format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        sources.push(Source { name: path.display().to_string(), text });
    }
    bake::read(&sources, &arguments.targets, &arguments.set, &lookup).map_err(CliError::usage)
}

fn is_address(name: &str) -> bool {
    name.contains("://") || name.starts_with("git@")
}

fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    if let Some(names) = std::env::var_os(FILES).filter(|names| !names.is_empty()) {
        return Ok(std::env::split_paths(&names).collect());
    }
    let found: Vec<PathBuf> =
        USUAL.iter().map(PathBuf::from).filter(|path| path.is_file()).collect();
    if found.is_empty() {
        return Err(CliError::Usage {
            message: "there is no bake file and no compose file".to_owned(),
            hint: Some(format!("name one with -f, or call it {}", USUAL[5])),
        });
    }
    Ok(found)
}

/// Shows the targets as they would be built, as a file that means the same.
pub(super) fn print(targets: &[Target]) -> ExitCode {
    let wanted = targets.iter().filter(|target| !target.is_linked);
    let names: Vec<&str> = wanted.map(|target| target.name.as_str()).collect();
    let value = |target: &Target| {
        let mut values = target.values.clone();
        if target.is_linked {
            values.insert("output".to_owned(), json!(["type=cacheonly"]));
        }
        (target.name.clone(), escaped(Value::Object(values)))
    };
    let values: Map<String, Value> = targets.iter().map(value).collect();
    let all = json!({"group": {"default": {"targets": names}}, "target": values});
    output::print(&format!("{all:#}"));
    ExitCode::SUCCESS
}

/// Texts as templates that mean them.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${").replace("%{", "%%{")),
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, item)| (key, escaped(item))).collect())
        }
        value => value,
    }
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
        display.note("the build needs more of the contexts: they are sent whole");
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
        (arguments.push && !target.is_linked, "--push"),
        (arguments.load && !target.is_linked, "--load"),
        (arguments.no_cache, "--no-cache"),
        (arguments.pull, "--pull"),
    ];
    all.extend(given.iter().filter(|(is_given, _)| *is_given).map(|(_, flag)| (*flag).to_owned()));
    let attested = [("provenance", &arguments.provenance), ("sbom", &arguments.sbom)];
    let attested = attested.into_iter().filter_map(|(flag, word)| Some((flag, word.as_ref()?)));
    all.extend(attested.map(|(flag, word)| format!("--{flag}={word}")));
    all.push(format!("--project={}", arguments.project));
    if let Some(file) = dockerfile(target, scratch)? {
        all.push(format!("--file={file}"));
    }
    all.extend(bake::flags(target).map_err(CliError::usage)?);
    let parsed = Arguments::try_parse_from(&all)
        .map_err(|error| CliError::usage(format!("target {}: {error}", target.name)))?;
    match parsed.command {
        Command::Build(build) => Ok(Build { placing: arguments.placing.clone(), ..*build }),
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
