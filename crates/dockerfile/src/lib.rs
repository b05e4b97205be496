//! Dockerfiles: text to plan, and everything that can be wrong with it.
//!
//! Pure: bytes in, plan and failures out. The path is `source` (bytes to logical lines) →
//! `instruction` (lines to typed instructions) → `stages` (instructions to stages) → `plan`
//! (everything expanded, keys computed). BuildKit's Dockerfile frontend is the specification; what
//! is not supported is refused by name, never ignored.

mod checks;
mod describe;
mod diagnostic;
mod expand;
mod instruction;
mod merge;
mod plan;
mod repository;
mod source;
mod stages;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::ignore::IgnoreFile;
use common::image::ResolvedImage;
use common::outcome::LineRange;
use common::plan::{Network, Plan, RunOptions};
use common::tree::Manifest;
use common::{Failure, Platform};

pub use crate::checks::{Finding, Rule};
pub use crate::describe::{Outline, OutlineArg, OutlineMount, Target};
pub use crate::diagnostic::nearest;
use crate::instruction::Instruction;
pub use crate::merge::{Links, merge, merge_linked, rename_contexts};
pub use crate::plan::{Paths, Reach, context_name};
pub use crate::repository::{Address, Repository};
use crate::stages::Stage;

/// Code of the failure of an instruction that needs files of a context which the client kept back:
/// a whole context would do.
pub const NOT_SENT: &str = "context-partial";

/// What a build asks of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the stage to build; absent is the last one.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// Platform of the result.
    pub platform: Platform,
    /// Platform of the workers.
    pub build_platform: Platform,
    /// `--build-context`, by [`context_name`].
    pub contexts: BTreeMap<String, NamedContext>,
    /// When the named contexts were made, by their names, and as `context` the main one, in seconds
    /// since 1970: what `SOURCE_DATE_EPOCH` can name.
    pub context_times: BTreeMap<String, i64>,
    /// What a RUN reaches that does not say.
    pub network: Network,
    /// The surroundings of every RUN.
    pub run: RunOptions,
    /// What the servers say of what ADD names.
    pub remotes: RemoteFacts,
    /// What was left out of the context, for messages.
    pub ignore: Option<Arc<IgnoreFile>>,
}

/// What takes the place of a stage or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Local files; they have arrived under this manifest.
    Local(Arc<Manifest>),
    /// `docker-image://`: another image.
    Image(String),
}

impl Options {
    /// The last stage for one platform, with nothing set.
    pub fn new(platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            build_platform: platform.clone(),
            platform,
            contexts: BTreeMap::new(),
            context_times: BTreeMap::new(),
            network: Network::Default,
            run: RunOptions::default(),
            remotes: BTreeMap::new(),
            ignore: None,
        }
    }
}

/// An image that planning needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageNeed {
    /// The reference, expanded, as it stands in the Dockerfile.
    pub reference: String,
    /// For which platform.
    pub platform: Platform,
    /// Who needs it.
    pub lines: LineRange,
    /// What to say if there is no such image: a stage may have been meant.
    pub hint: Option<String>,
}

/// Something that ADD names and of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteNeed {
    /// What it is.
    pub kind: RemoteKind,
    /// The URL, expanded.
    pub url: String,
    /// Who needs it.
    pub lines: LineRange,
}

/// What is behind a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RemoteKind {
    /// A file: asked for is what changes when the file does.
    File,
    /// A repository: asked for is the commit that this branch or tag is at, or the default branch.
    Repository(Option<String>),
    /// A file: asked for is when it was changed, in seconds since 1970; an empty answer where nobody
    /// knows.
    FileTime,
    /// A repository: asked for is when the commit was made that this branch or tag is at.
    CommitTime(Option<String>),
}

/// Answers to [`RemoteNeed`]s, by kind and URL.
pub type RemoteFacts = BTreeMap<(RemoteKind, String), String>;

/// Images that are known, by [`ImageNeed::reference`] and [`ImageNeed::platform`].
pub type ImageFacts = BTreeMap<(String, Platform), ResolvedImage>;

/// A plan, and what to tell the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// `SOURCE_DATE_EPOCH`: the age of the images, in seconds since 1970.
    pub epoch: Option<i64>,
    /// URLs that have to be asked after, and the answers to be put into [`Options::remotes`], before
    /// the keys of the plan are good.
    pub remotes: Vec<RemoteNeed>,
    /// Notices, one line each.
    pub warnings: Vec<String>,
    /// What the build takes.
    pub outline: Outline,
    /// What the build checks found, in the order of the file.
    pub findings: Vec<Finding>,
    /// Set where the file asks that a finding fails the build: `# check=error=true`.
    pub violation: Option<Failure>,
    /// What the instructions ask of the contexts.
    pub reach: Reach,
}

/// A Dockerfile that could be parsed.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    source: source::Source,
    stages: Vec<Stage>,
    /// `ARG` before the first `FROM`.
    global_args: Vec<instruction::Spanned>,
    /// Found in the text alone.
    findings: Vec<Finding>,
    /// The comments above the instructions, by the line where each begins.
    comments: BTreeMap<u32, Vec<String>>,
}

/// Parses a Dockerfile. `name` is for messages.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Dockerfile, Vec<Failure>> {
    let (source, lines) = source::read(name, bytes).map_err(|failure| vec![failure])?;
    let mut failures = Vec::new();
    let mut instructions = Vec::new();
    for line in &lines {
        match instruction::parse(line, source.escape) {
            Ok(instruction) => instructions.push(instruction),
            Err(problem) => failures.push(source.failure(problem, line.lines)),
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let (global_args, stages) = stages::split(instructions)
        .map_err(|(problem, lines)| vec![source.failure(problem, lines)])?;
    let findings = checks::of_text(&lines);
    let comments = lines.into_iter().map(|line| (line.lines.start, line.comments)).collect();
    Ok(Dockerfile { source, stages, global_args, findings, comments })
}

/// What the build checks find in the text of a file, which may be one that cannot be parsed.
pub fn text_findings(name: &str, bytes: &[u8]) -> Vec<Finding> {
    let Ok((source, lines)) = source::read(name, bytes) else { return Vec::new() };
    let found = checks::of_text(&lines);
    let comments = lines.into_iter().map(|line| (line.lines.start, line.comments)).collect();
    let config = source.check.map(|(text, _)| checks::Config::parse(&text).unwrap_or_default());
    config.unwrap_or_default().filter(found, &comments)
}

impl Dockerfile {
    /// The images that have to be looked up before [`Dockerfile::plan`] can succeed. Call it again
    /// with the answers until there is none: an image's ONBUILD may ask for others.
    pub fn missing_images(
        &self,
        options: &Options,
        known: &ImageFacts,
    ) -> Result<Vec<ImageNeed>, Vec<Failure>> {
        plan::missing_images(self, options, known)
    }

    /// What each instruction was understood as, nothing expanded, one line each with its place in the
    /// file: to look at, not to be read by programs.
    pub fn instructions(&self) -> impl Iterator<Item = String> {
        let of_stages = self.stages.iter().flat_map(|stage| {
            let Stage { image, platform, name, lines, .. } = stage;
            let (image, platform, name) = (image.clone(), platform.clone(), name.clone());
            let from = Instruction::From { image, platform, name };
            let rest =
                stage.instructions.iter().map(|spanned| (spanned.lines, &spanned.instruction));
            std::iter::once(format!("{lines} {from:?}"))
                .chain(rest.map(|(lines, instruction)| format!("{lines} {instruction:?}")))
        });
        let global = self.global_args.iter();
        global
            .map(|spanned| format!("{} {:?}", spanned.lines, spanned.instruction))
            .chain(of_stages)
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// A failure found elsewhere, with its place in this file; `word` is what is wrong there.
    pub fn place(&self, failure: Failure, lines: LineRange, word: Option<&str>) -> Failure {
        Failure {
            lines: Some(lines),
            span: word.and_then(|word| self.source.span(word, lines)),
            file: Some(self.source.name.clone()),
            excerpt: self.source.excerpt(lines),
            ..failure
        }
    }

    /// What the build checks find, and nothing else: no file of the context has to be there.
    pub fn check(&self, options: &Options, images: &ImageFacts) -> Result<Planned, Vec<Failure>> {
        match plan::plan(self, options, images, plan::Files::Unknown)? {
            plan::Outcome::Planned(planned) => Ok(*planned),
            plan::Outcome::Missing(needs) => Err(self.not_looked_up(needs)),
        }
    }

    fn not_looked_up(&self, needs: Vec<ImageNeed>) -> Vec<Failure> {
        let failure = |need: ImageNeed| {
            let message = format!("the image {} was not looked up", need.reference);
            let problem = diagnostic::Problem::new("image-not-resolved", message);
            self.source.failure(problem, need.lines)
        };
        needs.into_iter().map(failure).collect()
    }

    /// The plan. `context` is the manifest of the build context; none means that there are no
    /// files. Fails where an image is missing in `images`.
    pub fn plan(
        &self,
        options: &Options,
        images: &ImageFacts,
        context: Option<&Manifest>,
    ) -> Result<Planned, Vec<Failure>> {
        match plan::plan(self, options, images, plan::Files::Known(context))? {
            plan::Outcome::Planned(planned) => Ok(*planned),
            plan::Outcome::Missing(needs) => Err(self.not_looked_up(needs)),
        }
    }
}
