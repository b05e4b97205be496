//! From a request to what the planner and the stages are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::public::v1::{BuildRequest, BuildSource, LayerCompression, NamedContextSource};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::ignore::IgnoreFile;
use common::plan::{CopyFrom, DEFAULT_AGENT, Mount, Op, Plan, PlannedStage, Remote, Step};
use common::{Digest, Failure, FailureClass, Platform, Trust};
use dockerfile::{NamedContext, Options, context_name};
use fetch::Credentials;

use super::decide::{Decided, Decision};
use super::targets::{self, Part, Places, Uses};

/// The platforms that a build is for, each once.
pub(super) fn platforms(request: &BuildRequest) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in &request.platforms {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    platforms
}

/// What the planner is told for one platform. The named contexts have been read.
pub(super) fn options(
    request: &BuildRequest,
    contexts: BTreeMap<String, NamedContext>,
    platform: Platform,
) -> Options {
    let host = Platform::host();
    Options {
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        platform,
        context_times: context_times(request),
        contexts,
        network: request.commands.network,
        run: request.commands.run_options(),
        ignore: ignore(request),
        ..Options::new(host)
    }
}

/// When the contexts were made, as far as the client says.
fn context_times(request: &BuildRequest) -> BTreeMap<String, i64> {
    let BuildSource::Context(source) = &request.source;
    let time = |(name, context): (&String, &NamedContextSource)| match context {
        NamedContextSource::Files { made_at, .. } => Some((context_name(name), (*made_at)?)),
        NamedContextSource::Image { .. }
        | NamedContextSource::Layout { .. }
        | NamedContextSource::Target { .. } => None,
    };
    let main = source.made_at.map(|time| ("context".to_owned(), time));
    request.contexts.iter().filter_map(time).chain(main).collect()
}

/// The ignore file; one that cannot be read was refused by the client.
fn ignore(request: &BuildRequest) -> Option<Arc<IgnoreFile>> {
    let BuildSource::Context(source) = &request.source;
    let bytes = BASE64_STANDARD.decode(source.ignore_base64.as_ref()?).ok()?;
    IgnoreFile::parse(&bytes).ok().map(Arc::new)
}

/// What the jobs of a build get beside the plan.
pub(super) struct Settings {
    /// Manifests of the named contexts.
    contexts: BTreeMap<String, Digest>,
    /// Names of the secrets that came with the build.
    secrets: BTreeSet<String>,
    /// Names of the agents that the client answers for.
    agents: BTreeSet<String>,
    /// For each stage of the plan whether it is to run whatever the cache holds.
    fresh: Vec<bool>,
    /// How layers are compressed.
    pub(super) compression: LayerCompression,
    /// Whose code it is.
    pub(super) trust: Trust,
}

impl Settings {
    pub(super) fn of(request: &BuildRequest, parts: &[Part], plan: &Plan, uses: &Uses) -> Self {
        let is_fresh = |stage: &PlannedStage| {
            uses.of(stage.index).any(|part| {
                let request = &parts[part].request;
                let is_named = |name: &String| {
                    request.no_cache_stages.iter().any(|other| other.eq_ignore_ascii_case(name))
                };
                request.no_cache || stage.name.as_ref().is_some_and(is_named)
            })
        };
        Self {
            contexts: targets::contexts(parts),
            secrets: request.secrets.keys().cloned().collect(),
            agents: request.agents.clone(),
            fresh: plan.stages.iter().map(is_fresh).collect(),
            trust: request.trust,
            compression: super::outputs::layer_compression(
                parts.iter().flat_map(|part| &part.request.outputs),
            ),
        }
    }

    /// Whether the stage is to run whatever the cache holds.
    pub(super) fn is_fresh(&self, stage: &PlannedStage) -> bool {
        self.fresh.get(stage.index.0 as usize).copied().unwrap_or(false)
    }

    /// Whether any stage is.
    pub(super) fn has_fresh_stages(&self) -> bool {
        self.fresh.contains(&true)
    }

    /// The named contexts that the stage reads.
    pub(super) fn contexts_of(&self, stage: &PlannedStage) -> BTreeMap<String, Digest> {
        let sources = stage.steps.iter().flat_map(Step::sources);
        let read = sources.filter_map(|from| match from {
            CopyFrom::NamedContext { name } => Some((name.clone(), *self.contexts.get(name)?)),
            CopyFrom::Context
            | CopyFrom::Scratch
            | CopyFrom::Image { .. }
            | CopyFrom::Stage { .. } => None,
        });
        read.collect()
    }

    /// The secrets that the stage's commands may see, or that its sources elsewhere want, and that
    /// are there.
    pub(super) fn secrets_of(&self, stage: &PlannedStage) -> Vec<String> {
        let mounted = stage.steps.iter().flat_map(secrets).map(|(id, _)| id.clone());
        let shown = stage.steps.iter().flat_map(remotes).flat_map(credentials);
        let named: BTreeSet<String> = mounted.chain(shown).collect();
        named.into_iter().filter(|id| self.secrets.contains(id)).collect()
    }

    /// The agents that the stage's steps may use and that are there.
    pub(super) fn agents_of(&self, stage: &PlannedStage) -> Vec<String> {
        let named: BTreeSet<&str> =
            stage.steps.iter().flat_map(agents).map(|agent| agent.id).collect();
        let there = named.into_iter().filter(|id| self.agents.contains(*id));
        there.map(str::to_owned).collect()
    }

    /// Steps that will run and cannot, for want of a secret or an agent.
    pub(super) fn missing(
        &self,
        file: &Places<'_>,
        plan: &Plan,
        decided: &[Decided],
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (stage, decided) in plan.stages.iter().zip(decided) {
            let Decision::Run { first_step, .. } = decided.decision else { continue };
            for step in stage.steps.iter().filter(|step| step.number >= first_step) {
                let lacks =
                    |(id, required): &(&String, bool)| *required && !self.secrets.contains(*id);
                for (id, _) in secrets(step).into_iter().filter(lacks) {
                    let hint = format!(
                        "give it with --secret id={id},src=FILE or --secret id={id},env=NAME"
                    );
                    let message = format!("secret {id}: not found");
                    let failure = Failure::new(FailureClass::User, "secret-missing", message);
                    failures.push(file.place(
                        failure.with_hint(hint),
                        stage.index,
                        step.lines,
                        Some(id),
                    ));
                }
                let is_missing =
                    |agent: &Agent<'_>| agent.required && !self.agents.contains(agent.id);
                for agent in agents(step).into_iter().filter(is_missing) {
                    failures.push(file.place(
                        no_agent(agent.id),
                        stage.index,
                        step.lines,
                        agent.because,
                    ));
                }
            }
        }
        failures
    }
}

fn mounts(step: &Step) -> &[Mount] {
    match &step.op {
        Op::Run(run) => &run.mounts,
        Op::Copy(_) | Op::Workdir(_) => &[],
    }
}

fn remotes(step: &Step) -> &[Remote] {
    match &step.op {
        Op::Copy(copy) => &copy.remotes,
        Op::Run(_) | Op::Workdir(_) => &[],
    }
}

/// The secrets that may be shown to the server of a source.
fn credentials(remote: &Remote) -> Vec<String> {
    match remote {
        Remote::Http { url, .. } => Credentials::names_for_file(url),
        Remote::Git { url, .. } => Credentials::names_for_repository(url),
    }
}

/// The secrets that a step names, and whether it cannot do without.
fn secrets(step: &Step) -> Vec<(&String, bool)> {
    let named = mounts(step).iter().filter_map(|mount| match mount {
        Mount::Secret { id, required, .. } => Some((id, *required)),
        _ => None,
    });
    named.collect()
}

/// An agent that a step names.
struct Agent<'a> {
    id: &'a str,
    /// Whether it cannot do without.
    required: bool,
    /// The word of the line that asks for it.
    because: Option<&'a str>,
}

fn agents(step: &Step) -> Vec<Agent<'_>> {
    let mounted = mounts(step).iter().filter_map(|mount| match mount {
        Mount::Ssh { id, required, .. } => {
            Some(Agent { id, required: *required, because: Some("type=ssh") })
        }
        _ => None,
    });
    let remotes: &[Remote] = match &step.op {
        Op::Copy(copy) => &copy.remotes,
        Op::Run(_) | Op::Workdir(_) => &[],
    };
    let fetched = remotes.iter().filter(|remote| remote.wants_agent()).map(|remote| Agent {
        id: DEFAULT_AGENT,
        required: true,
        because: match remote {
            Remote::Git { url, .. } => Some(url),
            Remote::Http { .. } => None,
        },
    });
    mounted.chain(fetched).collect()
}

/// The failure of whatever needs an agent that did not come with the build.
pub(super) fn no_agent(id: &str) -> Failure {
    let (message, hint) = if id == DEFAULT_AGENT {
        let message = "no SSH agent was given: it is used here".to_owned();
        (message, "give yours with --ssh default".to_owned())
    } else {
        let message = format!("no SSH agent {id:?} was given: it is used here");
        (message, format!("give it with --ssh {id}=SOCKET or --ssh {id}=KEYFILE"))
    };
    Failure::new(FailureClass::User, "agent-missing", message).with_hint(hint)
}
