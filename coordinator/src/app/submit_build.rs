//! Accepting a build.

use std::collections::{BTreeMap, BTreeSet};

use api::public::v1::{BuildRequest, BuildSource, NamedContextSource};
use api::{Problem, Secret};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{BuildId, Trust};
use logbus::Message;
use store::{BuildOrder, NewBuild, Submitted};

use super::{App, AppError, layouts, targets};

/// Longest Dockerfile in bytes.
const MAX_DOCKERFILE_BYTES: usize = 4 << 20;
/// Longest Idempotency-Key.
const MAX_KEY_CHARS: usize = 200;
/// Most platforms of one build.
const MAX_PLATFORMS: usize = 32;
/// Most secrets of one build.
const MAX_SECRETS: usize = 100;
/// Most agents of one build.
const MAX_AGENTS: usize = 100;
/// Longest secret, as in BuildKit.
const MAX_SECRET_BYTES: usize = 500 << 10;
/// Most labels of a worker or build, and the longest.
const MAX_LABELS: usize = 50;
const MAX_LABEL_BYTES: usize = 100;
/// Most named contexts of one build.
const MAX_CONTEXTS: usize = 200;
/// Longest time that a build or a stage may ask for: a week.
const MAX_TIMEOUT_SECS: u32 = 7 * 24 * 3600;

impl App {
    /// Stores a request; the planner does the rest.
    pub(crate) async fn submit_build(
        &self,
        request: &BuildRequest,
        key: Option<String>,
    ) -> Result<Submitted, AppError> {
        check(request)?;
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_CHARS) {
            let detail = format!("Idempotency-Key has to have 1 to {MAX_KEY_CHARS} characters");
            return Err(Problem::new(400, "bad-idempotency-key", detail).into());
        }
        let BuildSource::Context(source) = &request.source;
        let id = BuildId(uuid::Uuid::now_v7());
        let secrets = self.seal(id, &request.secrets)?;
        // Of the secrets only the names are kept with the request.
        let names = request.secrets.keys().map(|name| (name.clone(), Secret::new(b"")));
        let stored = BuildRequest { secrets: names.collect(), ..request.clone() };
        let build = NewBuild {
            id,
            domain: request.domain(),
            request: serde_json::to_value(&stored)?,
            secrets,
            request_key: key,
            dockerfile: source.dockerfile.name.clone(),
            target: targets::title(request),
            order: BuildOrder {
                priority: request.priority,
                timeout_secs: request.timeout_seconds,
                supersede_key: request.supersede.clone(),
            },
        };
        let submitted = self.store.submit_build(&build).await?;
        if let Submitted::New(build) = submitted {
            tracing::info!(build.id = %build, project = %request.project, "build accepted");
            self.bus.send(Message::Planner);
            if request.supersede.is_some() {
                self.bus.send(Message::Workers);
            }
        }
        Ok(submitted)
    }

    fn seal(
        &self,
        build: BuildId,
        secrets: &BTreeMap<String, Secret>,
    ) -> Result<Vec<(String, Vec<u8>)>, AppError> {
        if secrets.is_empty() {
            return Ok(Vec::new());
        }
        let Some(vault) = &self.vault else {
            let detail = "this farm has no key to keep secrets with";
            return Err(Problem::new(422, "no-secrets", detail)
                .with_hint("the operator sets [secrets] key in the coordinator's configuration")
                .into());
        };
        let seal = |(name, secret): (&String, &Secret)| {
            let value = secret.value()?;
            Some((name.clone(), vault.seal(build, name, &value)?))
        };
        let sealed: Option<Vec<_>> = secrets.iter().map(seal).collect();
        sealed.ok_or_else(|| Problem::new(500, "internal", "a secret cannot be sealed").into())
    }
}

/// Whether labels are as they may be: few, short, and of characters that need no quotes.
pub(crate) fn are_labels(labels: &[String]) -> bool {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || "._-/=:".contains(letter);
    labels.len() <= MAX_LABELS
        && labels.iter().all(|label| {
            !label.is_empty() && label.len() <= MAX_LABEL_BYTES && label.chars().all(is_good)
        })
}

/// Whether a label is for the farm itself to give.
fn is_reserved(label: &str) -> bool {
    label.starts_with(Trust::RESERVED)
}

/// Refuses what could never be planned.
pub(super) fn check(request: &BuildRequest) -> Result<(), Problem> {
    targets::check(request)?;
    let mut earlier = BTreeSet::new();
    for part in targets::parts(request) {
        check_part(&part.request, &earlier)?;
        earlier.extend(part.name);
    }
    Ok(())
}

fn check_part(request: &BuildRequest, earlier: &BTreeSet<String>) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(422, "bad-request", detail));
    let BuildSource::Context(source) = &request.source;
    if source.dockerfile.name.is_empty() || source.dockerfile.name.len() > 1000 {
        return bad("dockerfile.name has to have 1 to 1000 bytes".to_owned());
    }
    match BASE64_STANDARD.decode(&source.dockerfile.content_base64) {
        Ok(bytes) if bytes.len() <= MAX_DOCKERFILE_BYTES => {}
        Ok(_) => return bad(format!("the Dockerfile is longer than {MAX_DOCKERFILE_BYTES} bytes")),
        Err(error) => return bad(format!("dockerfile.content_base64 is not base64: {error}")),
    }
    if source.ignore_base64.as_ref().is_some_and(|text| text.len() > MAX_DOCKERFILE_BYTES) {
        return bad("the ignore file is too long".to_owned());
    }
    if request.platforms.len() > MAX_PLATFORMS {
        return bad(format!("a build is for at most {MAX_PLATFORMS} platforms"));
    }
    if !(-100..=100).contains(&request.priority) {
        return bad("priority has to be from -100 to 100".to_owned());
    }
    let times = [request.timeout_seconds, request.stage_timeout_seconds];
    if times.into_iter().flatten().any(|secs| secs == 0 || secs > MAX_TIMEOUT_SECS) {
        return bad(format!("a timeout has 1 to {MAX_TIMEOUT_SECS} seconds"));
    }
    if request.supersede.as_ref().is_some_and(|key| key.is_empty() || key.len() > 300) {
        return bad("supersede has 1 to 300 bytes".to_owned());
    }
    if let Some(label) = request.requires.labels.iter().find(|label| is_reserved(label)) {
        return bad(format!("requires.labels: {label} is the farm's own"));
    }
    if !are_labels(&request.requires.labels) {
        return bad(format!(
            "requires.labels has at most {MAX_LABELS} labels of {MAX_LABEL_BYTES} letters, digits \
             and ._-/=:"
        ));
    }
    if i64::try_from(request.requires.memory_bytes).is_err()
        || i32::try_from(request.requires.cpu_millis).is_err()
    {
        return bad("requires asks for more than any worker has".to_owned());
    }
    check_secrets(&request.secrets)?;
    if request.agents.len() > MAX_AGENTS {
        return bad(format!("a build has at most {MAX_AGENTS} agents"));
    }
    if request.agents.iter().any(|name| name.is_empty() || name.len() > 200) {
        return bad("the name of an agent has 1 to 200 bytes".to_owned());
    }
    check_contexts(request, earlier)?;
    super::outputs::check(request)?;
    Ok(())
}

fn check_secrets(secrets: &BTreeMap<String, Secret>) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(422, "bad-request", detail));
    if secrets.len() > MAX_SECRETS {
        return bad(format!("a build has at most {MAX_SECRETS} secrets"));
    }
    for (name, secret) in secrets {
        if name.is_empty() || name.len() > 200 {
            return bad("the name of a secret has 1 to 200 bytes".to_owned());
        }
        match secret.value() {
            Some(value) if value.len() <= MAX_SECRET_BYTES => {}
            Some(_) => {
                return bad(format!("secret {name} is longer than {MAX_SECRET_BYTES} bytes"));
            }
            None => return bad(format!("secret {name} is not base64")),
        }
    }
    Ok(())
}

fn check_contexts(request: &BuildRequest, earlier: &BTreeSet<String>) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(422, "bad-request", detail));
    if request.contexts.len() > MAX_CONTEXTS {
        return bad(format!("a build has at most {MAX_CONTEXTS} named contexts"));
    }
    for (name, source) in &request.contexts {
        if name.is_empty() || name.len() > 300 {
            return bad("the name of a context has 1 to 300 bytes".to_owned());
        }
        match source {
            NamedContextSource::Image { reference } => {
                if let Err(error) = reference.parse::<oci::Reference>() {
                    return bad(format!("context {name}: {error}"));
                }
            }
            NamedContextSource::Layout { images } => {
                if let Err(problem) = layouts::check(images) {
                    return bad(format!("context {name}: {problem}"));
                }
            }
            NamedContextSource::Files { .. } => {}
            NamedContextSource::Target { name: target } if !earlier.contains(target) => {
                return bad(format!("context {name}: there is no target {target} before this one"));
            }
            NamedContextSource::Target { .. } => {}
        }
    }
    let options = &request.commands;
    if options.hosts.len() > 1000 || options.ulimits.len() > 100 {
        return bad("a build has at most 1000 hosts and 100 limits".to_owned());
    }
    let is_name = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        (1..=253).contains(&name.len()) && name.bytes().all(fits)
    };
    if let Some(host) = options.hosts.iter().find(|host| !is_name(&host.name)) {
        return bad(format!("{:?} is no host name", host.name));
    }
    Ok(())
}
