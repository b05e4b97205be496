//! The targets of one submission: each is planned like a build of its own, and all become one graph.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use api::Problem;
use api::public::v1::{BuildRequest, BuildSource, NamedContextSource, TargetRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::image::{ImageDocument, ResolvedImage};
use common::outcome::LineRange;
use common::plan::{CopyFrom, Plan, StageIndex};
use common::{Digest, Failure, FailureClass, Platform};
use dockerfile::{Dockerfile, Links, Planned, context_name, merge_linked};

use super::plan_build::{PlanError, join};

/// Most targets of one build.
const MAX_TARGETS: usize = 100;
/// Most platforms of all targets.
const MAX_PLANS: usize = 200;
/// Longest name of a target.
const MAX_NAME_BYTES: usize = 200;

/// One of the targets, as a request of its own.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its name; absent where the build has no list of targets.
    pub(super) name: Option<String>,
    pub(super) request: BuildRequest,
    /// Which targets of the whole plan it has, once it is planned.
    pub(super) targets: Range<usize>,
    /// `SOURCE_DATE_EPOCH`, once it is planned.
    pub(super) epoch: Option<i64>,
}

impl Part {
    /// A failure with the name of the target that it is of.
    pub(super) fn blame(&self, error: PlanError) -> PlanError {
        match (error, &self.name) {
            (PlanError::Failed(mut failure), Some(name)) => {
                failure.message = format!("target {name}: {}", failure.message);
                PlanError::Failed(failure)
            }
            (error, _) => error,
        }
    }
}

/// Which parts have a stage of the whole plan, by the stage's position.
#[derive(Debug, Clone, Default)]
pub(super) struct Uses(Vec<BTreeSet<usize>>);

impl Uses {
    /// The parts that have a stage.
    pub(super) fn of(&self, stage: StageIndex) -> impl Iterator<Item = usize> {
        self.0.get(stage.0 as usize).into_iter().flatten().copied()
    }
}

/// The targets of a request, in its order.
pub(super) fn parts(request: &BuildRequest) -> Vec<Part> {
    let part = |name, request| Part { name, request, targets: 0..0, epoch: None };
    if request.targets.is_empty() {
        return vec![part(None, request.clone())];
    }
    let common = BuildRequest { targets: Vec::new(), ..request.clone() };
    let of = |target: &TargetRequest| {
        let target = target.clone();
        let request = BuildRequest {
            source: target.source.unwrap_or_else(|| common.source.clone()),
            target: target.target,
            build_args: target.build_args,
            labels: target.labels,
            platforms: target.platforms,
            contexts: target.contexts,
            outputs: target.outputs,
            commands: target.commands.unwrap_or_else(|| common.commands.clone()),
            no_cache: common.no_cache || target.no_cache,
            no_cache_stages: [common.no_cache_stages.clone(), target.no_cache_stages].concat(),
            ..common.clone()
        };
        part(Some(target.name), request)
    };
    request.targets.iter().map(of).collect()
}

/// The name of a part's Dockerfile.
pub(super) fn dockerfile(part: &Part) -> &str {
    let BuildSource::Context(source) = &part.request.source;
    &source.dockerfile.name
}

/// Refuses lists of targets that make no sense.
pub(super) fn check(request: &BuildRequest) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(422, "bad-request", detail));
    if request.targets.is_empty() {
        return Ok(());
    }
    let is_bare = request.target.is_none()
        && request.build_args.is_empty()
        && request.labels.is_empty()
        && request.platforms.is_empty()
        && request.contexts.is_empty()
        && request.outputs.is_empty();
    if !is_bare {
        return bad("a build with targets says what it makes in each of them".to_owned());
    }
    let plans: usize = request.targets.iter().map(|target| target.platforms.len().max(1)).sum();
    if request.targets.len() > MAX_TARGETS || plans > MAX_PLANS {
        return bad(format!(
            "a build has at most {MAX_TARGETS} targets, for {MAX_PLANS} platforms together"
        ));
    }
    let mut names = BTreeSet::new();
    for target in &request.targets {
        let name = &target.name;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(['#', '/']) {
            return bad(format!("a target's name has 1 to {MAX_NAME_BYTES} bytes, no # and no /"));
        }
        if !names.insert(name) {
            return bad(format!("two targets are called {name}"));
        }
    }
    Ok(())
}

/// What lists of builds show as the target.
pub(super) fn title(request: &BuildRequest) -> Option<String> {
    if request.targets.is_empty() {
        return request.target.clone();
    }
    let names: Vec<&str> = request.targets.iter().map(|target| target.name.as_str()).collect();
    Some(names.join(", ").chars().take(500).collect())
}

/// The manifest of the main context.
pub(super) fn manifest_of(request: &BuildRequest) -> Option<Digest> {
    let BuildSource::Context(source) = &request.source;
    source.manifest
}

/// The context that jobs have without a name: the first target's.
pub(super) fn main_context(parts: &[Part]) -> Option<Digest> {
    parts.iter().find_map(|part| manifest_of(&part.request))
}

/// The manifests of all contexts.
pub(super) fn manifests(parts: &[Part]) -> Vec<Digest> {
    let own = parts.iter().filter_map(|part| manifest_of(&part.request));
    let all: BTreeSet<Digest> = own.chain(contexts(parts).into_values()).collect();
    all.into_iter().collect()
}

/// Parses the Dockerfiles.
pub(super) fn parse(parts: &[Part]) -> Result<Vec<Dockerfile>, PlanError> {
    let parse = |part: &Part| {
        let BuildSource::Context(source) = &part.request.source;
        let bytes = BASE64_STANDARD.decode(&source.dockerfile.content_base64).unwrap_or_default();
        let parsed = dockerfile::parse(&source.dockerfile.name, &bytes);
        parsed.map_err(|failures| part.blame(join(failures)))
    };
    parts.iter().map(parse).collect()
}

/// The contexts of files that jobs may read by name.
pub(super) fn contexts(parts: &[Part]) -> BTreeMap<String, Digest> {
    let mut contexts = BTreeMap::new();
    for part in parts {
        for (name, source) in &part.request.contexts {
            let NamedContextSource::Files { manifest, .. } = source else { continue };
            let is_alone = part.name.is_none();
            let name = if is_alone { context_name(name) } else { name_of(manifest) };
            contexts.insert(name, *manifest);
        }
        if part.name.is_some() {
            contexts.extend(manifest_of(&part.request).map(|digest| (name_of(&digest), digest)));
        }
    }
    contexts
}

/// Under which name the jobs of several targets read a context.
fn name_of(manifest: &Digest) -> String {
    format!("files {manifest}")
}

/// Contexts of different targets may have the same name, and the same ones different names: in the
/// whole plan they are called by what they hold.
pub(super) fn rename_contexts(plan: &mut Plan, request: &BuildRequest, main: Option<Digest>) {
    let digest = |name: &str| {
        request.contexts.iter().find_map(|(known, source)| match source {
            NamedContextSource::Files { manifest, .. } if context_name(known) == name => {
                Some(*manifest)
            }
            _ => None,
        })
    };
    let own = manifest_of(request);
    dockerfile::rename_contexts(plan, &|name| {
        let found = match name {
            None if own.is_some() && own == main => return CopyFrom::Context,
            None => own,
            Some(name) => digest(name),
        };
        match found {
            Some(digest) => CopyFrom::NamedContext { name: name_of(&digest) },
            // No files.
            None => CopyFrom::Scratch,
        }
    });
}

/// The reference of the image that stands for what a target makes.
pub(super) fn reference(name: &str) -> String {
    format!("target://{name}")
}

/// What was planned before, as one plan.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    planned: Option<Planned>,
    uses: Uses,
    names: BTreeMap<String, Range<usize>>,
}

impl Earlier {
    /// How many targets it has.
    pub(super) fn count(&self) -> usize {
        self.planned.as_ref().map_or(0, |planned| planned.plan.targets.len())
    }

    /// Adds a plan of a part, which may start from what is there.
    pub(super) fn add(&mut self, planned: Planned, links: Links, part: usize) {
        let before = self.planned.take().map(|planned| (planned, Links::new()));
        let merged = merge_linked(before.into_iter().chain([(planned, links)]).collect());
        let Some((planned, places)) = merged else { return };
        self.uses.0.resize_with(planned.plan.stages.len(), BTreeSet::new);
        for place in places {
            self.uses.0[place.0 as usize].insert(part);
        }
        self.planned = Some(planned);
    }

    /// From now on others can start from it.
    pub(super) fn end(&mut self, part: &Part) {
        if let Some(name) = &part.name {
            self.names.insert(name.clone(), part.targets.clone());
        }
    }

    /// All of it, and whose its stages are.
    pub(super) fn planned(self) -> Option<(Planned, Uses)> {
        Some((self.planned?, self.uses))
    }

    /// The image that stands for what a target makes, if that is what `reference` means, and its
    /// stage.
    pub(super) fn find(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Option<Result<(ResolvedImage, StageIndex), Failure>> {
        let name = reference.strip_prefix("target://")?;
        let plan = &self.planned.as_ref()?.plan;
        let targets = plan.targets.get(self.names.get(name)?.clone()).unwrap_or_default();
        let Some(target) = targets.iter().find(|target| target.platform == *platform) else {
            let message = format!("the target {name} is not built for {platform}");
            let failure = Failure::new(FailureClass::User, "platform-missing", message);
            return Some(Err(failure.with_hint("give it the same platforms")));
        };
        let stage = plan.stage(target.stage);
        let document = ImageDocument {
            author: stage.author.clone(),
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            config: stage.config.clone(),
            ..ImageDocument::default()
        };
        let image = ResolvedImage {
            reference: format!("{reference}#{platform}"),
            digest: stage.key,
            document,
            layers: Vec::new(),
        };
        Some(Ok((image, target.stage)))
    }
}

/// Where failures of the whole plan lie.
pub(super) struct Places<'a> {
    pub(super) parts: &'a [Part],
    /// One for each part.
    pub(super) files: &'a [Dockerfile],
    pub(super) uses: &'a Uses,
}

impl Places<'_> {
    /// The failure of a stage, with its place in the file of the first target that has it.
    pub(super) fn place(
        &self,
        failure: Failure,
        stage: StageIndex,
        lines: LineRange,
        word: Option<&str>,
    ) -> Failure {
        let Some(part) = self.uses.of(stage).next() else { return failure };
        let failure = self.files[part].place(failure, lines, word);
        match &self.parts[part].name {
            Some(name) => {
                let message = format!("target {name}: {}", failure.message);
                Failure { message, ..failure }
            }
            None => failure,
        }
    }
}
