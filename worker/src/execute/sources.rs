//! Where a copy reads from: always a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::public::v1::TimingView;
use api::worker::v1::{SliceInput, SliceUse};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::plan::{CopyFrom, SliceSelector, StageIndex, Step};
use common::tree::{Entry, EntryKind, Manifest, TreePath};
use common::{Digest, Failure, FailureClass, StageId};

use super::copy::has_wildcard;
use super::failure::JobError;
use super::stage::{StageRun, millis};
use crate::content::{Chain, OpenChain};
use crate::rootfs::{Mount, mount_readonly};
use crate::transfer::{self, LaidOut, Wanted, ensure_layers};

/// A source tree; gone when dropped.
#[derive(Debug, Default)]
pub(super) struct Source {
    mount: Option<Mount>,
    directory: Option<PathBuf>,
    /// What is mounted: it goes after the mount.
    _chain: Chain,
    _open: Option<OpenChain>,
    /// Whether its entries keep their owners.
    pub(super) keep_owner: bool,
    /// What `directory` was made from.
    pub(super) manifest: Option<Arc<Manifest>>,
}

/// Where a source tree is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// A directory that does not exist yet, to mount at.
    pub(super) mount: &'a Path,
    /// Another one, for files that are fetched.
    pub(super) files: &'a Path,
    /// Whether those files only go into layers, where nobody writes to them: then they may be other
    /// names of files of the store.
    pub(super) may_link: bool,
}

impl Source {
    /// The directory; none is an empty tree.
    pub(super) fn path(&self) -> Option<&Path> {
        self.mount.as_ref().map(Mount::path).or(self.directory.as_deref())
    }

    /// The directory, where it is not the mounted root file system of somebody else.
    pub(super) fn own_directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

/// Makes the tree that a copy or a mount reads, at least `wanted` of it, paths or patterns. For the files of another stage this may mean to wait: then the slot is free
/// meanwhile.
pub(super) async fn prepare(
    run: &mut StageRun<'_>,
    from: &CopyFrom,
    wanted: &[String],
    place: Place<'_>,
    timing: &mut TimingView,
) -> Result<Source, JobError> {
    if wanted.is_empty() {
        return Ok(Source::default());
    }
    match from {
        CopyFrom::Context => context(run, run.job.context, wanted, place, timing).await,
        CopyFrom::Scratch => {
            std::fs::create_dir(place.files)?;
            Ok(Source { directory: Some(place.files.to_owned()), ..Source::default() })
        }
        CopyFrom::NamedContext { name } => {
            let digest = run.job.contexts.get(name).copied();
            context(run, Some(digest.ok_or_else(|| missing("context"))?), wanted, place, timing)
                .await
        }
        CopyFrom::Image { image } => {
            let found = run.job.images.iter().find(|(index, _)| *index == image.0);
            let layers =
                found.map(|(_, image)| image.layers.clone()).ok_or_else(|| missing("image"))?;
            let start = Instant::now();
            let chain = ensure_layers(run.worker, &run.held.asker(), &layers).await?;
            timing.fetch_millis += millis(start);
            std::fs::create_dir(place.mount)?;
            let mount = Some(mount_readonly(&chain.lowers, place.mount)?);
            Ok(Source { mount, _chain: chain, keep_owner: true, ..Source::default() })
        }
        CopyFrom::Stage { stage, selector } => slice(run, *stage, selector, place, timing).await,
    }
}

/// Whether all that a step reads of other stages has arrived.
pub(super) fn are_there(run: &StageRun<'_>, step: &Step) -> Result<bool, JobError> {
    for (stage, selector) in step.input_slices() {
        if run.held.input(id_of(run, stage)?, selector).is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits for all that a step reads of other stages; the slot is free meanwhile.
pub(super) async fn wait_for(
    run: &mut StageRun<'_>,
    step: &Step,
    timing: &mut TimingView,
) -> Result<(), JobError> {
    for (stage, selector) in step.input_slices() {
        let id = id_of(run, stage)?;
        if run.held.input(id, selector).is_none() {
            park(run, id, selector, timing).await?;
        }
    }
    Ok(())
}

fn id_of(run: &StageRun<'_>, stage: StageIndex) -> Result<StageId, JobError> {
    let found = run.job.stage_ids.iter().find(|(index, _)| *index == stage);
    found.map(|(_, id)| *id).ok_or_else(|| missing("stage"))
}

fn missing(what: &str) -> JobError {
    let message = format!("the job message lacks the {what} that a step names");
    Failure::new(FailureClass::Infrastructure, "job-incomplete", message).into()
}

async fn context(
    run: &StageRun<'_>,
    digest: Option<Digest>,
    wanted: &[String],
    place: Place<'_>,
    timing: &mut TimingView,
) -> Result<Source, JobError> {
    let Some(digest) = digest else { return Ok(Source::default()) };
    let start = Instant::now();
    let prefixes: Vec<TreePath> = wanted.iter().map(|source| fixed_part(source)).collect();
    // Looked for once: a context has many entries.
    let links = std::sync::OnceLock::new();
    let want = move |manifest: &Manifest, entry: &Entry| {
        prefixes.iter().any(|prefix| entry.path.is_within(prefix))
            || *links.get_or_init(|| has_link(manifest, &prefixes))
    };
    let laid_out = lay_out(run, digest, None, want, place).await?;
    timing.fetch_millis += millis(start);
    let directory = Some(place.files.to_owned());
    Ok(Source { directory, manifest: Some(laid_out.manifest), ..Source::default() })
}

/// What stands before the first component with a wildcard.
fn fixed_part(pattern: &str) -> TreePath {
    let fixed: Vec<&str> = pattern
        .split('/')
        // A lone dot is the pivot of --parents.
        .filter(|part| !part.is_empty() && *part != ".")
        .take_while(|part| !has_wildcard(part))
        .collect();
    TreePath::new(fixed.join("/")).unwrap_or_default()
}

/// Whether links are about, which may lead anywhere: then everything may be read.
fn has_link(manifest: &Manifest, prefixes: &[TreePath]) -> bool {
    manifest.entries.iter().any(|entry| {
        matches!(entry.kind, EntryKind::Symlink { .. })
            && prefixes
                .iter()
                .any(|prefix| entry.path.is_within(prefix) || prefix.is_within(&entry.path))
    })
}

async fn slice(
    run: &mut StageRun<'_>,
    stage: StageIndex,
    selector: &SliceSelector,
    place: Place<'_>,
    timing: &mut TimingView,
) -> Result<Source, JobError> {
    let id = id_of(run, stage)?;
    let input = match run.held.input(id, selector) {
        Some(input) => input,
        None => park(run, id, selector, timing).await?,
    };
    let start = Instant::now();
    // The producer ran here: its root file system is read in place, no bytes move.
    if let Some(open) = run.worker.content.open_chain(id) {
        std::fs::create_dir(place.mount)?;
        if let Ok(mount) = mount_readonly(&open.chain.lowers, place.mount) {
            note_use(run, id, selector, &input, 0);
            timing.fetch_millis += millis(start);
            let mount = Some(mount);
            let open = Some(open);
            return Ok(Source { mount, _open: open, keep_owner: true, ..Source::default() });
        }
        std::fs::remove_dir(place.mount)?;
    }
    let inline = input.inline_manifest.as_ref().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let everything = |_: &Manifest, _: &Entry| true;
    let laid_out = lay_out(run, input.manifest, inline, everything, place).await?;
    note_use(run, id, selector, &input, laid_out.transferred_bytes);
    timing.fetch_millis += millis(start);
    let (directory, manifest) = (Some(place.files.to_owned()), Some(laid_out.manifest));
    Ok(Source { directory, manifest, keep_owner: true, ..Source::default() })
}

/// Lays out what of a tree is wanted at the place for files.
async fn lay_out(
    run: &StageRun<'_>,
    digest: Digest,
    inline: Option<Vec<u8>>,
    want: impl Fn(&Manifest, &Entry) -> bool + Send + 'static,
    place: Place<'_>,
) -> Result<LaidOut, JobError> {
    std::fs::create_dir(place.files)?;
    let trees = if place.may_link { run.worker.content.trees(run.project) } else { Vec::new() };
    let known = move |entry: &Entry| trees.iter().find_map(|tree| tree.find(entry));
    let tree = Wanted { digest, inline, want, known };
    Ok(transfer::lay_out(run.worker, run.held.lease, tree, place.files).await?)
}

async fn park(
    run: &mut StageRun<'_>,
    stage: StageId,
    selector: &SliceSelector,
    timing: &mut TimingView,
) -> Result<SliceInput, JobError> {
    let start = Instant::now();
    let held = Arc::clone(run.held);
    let waiting = held.wait_for_input(stage, selector);
    tokio::pin!(waiting);
    // Polled once, so that the phase is set before the coordinator is told of the free slot.
    let at_once = futures_util::poll!(waiting.as_mut());
    let input = match at_once {
        std::task::Poll::Ready(input) => input,
        std::task::Poll::Pending => {
            run.free_slot();
            tokio::select! {
                input = waiting => input,
                () = held.cancel.cancelled() => return Err(JobError::Stopped),
            }
        }
    };
    if run.permit.is_none() {
        run.take_slot().await?;
    }
    timing.parked_millis += millis(start);
    Ok(input)
}

fn note_use(
    run: &mut StageRun<'_>,
    stage: StageId,
    selector: &SliceSelector,
    input: &SliceInput,
    transferred_bytes: u64,
) {
    let (files, content_bytes) = (input.files, input.content_bytes);
    let selector = selector.clone();
    run.account.slices_read.push(SliceUse {
        stage,
        selector,
        files,
        content_bytes,
        transferred_bytes,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_before_a_wildcard_is_certain() {
        for (pattern, expected) in [
            ("/src/a", "src/a"),
            ("/src/*/x", "src"),
            ("/*", ""),
            ("/", ""),
            ("/a/b/", "a/b"),
            ("/a/./b", "a/b"),
        ] {
            assert_eq!(fixed_part(pattern).display(), expected, "{pattern}");
        }
    }
}
