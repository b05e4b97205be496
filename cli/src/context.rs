//! The build context: which files, packed and sent by difference.

use std::path::{Path, PathBuf};

use api::public::v1::{ContextUpload, PackOffer, UploadTarget};
use blobstore::memory::Memory;
use blobstore::scan::{Owner, Scan, ScanError, Verdict, kept_back, scan};
use client::public::Client;
use common::ignore::IgnoreFile;
use common::tree::{EntryKind, Manifest, TreePath};
use common::{Digest, ProjectName};
use dockerfile::Paths;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::exit::CliError;

/// Contexts that are remembered.
const MAX_MEMORIES: usize = 64;
/// Objects that are sent at once.
const PARALLEL: usize = 6;

/// A context that the farm has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentContext {
    /// Its manifest.
    pub(crate) manifest: Digest,
    /// Number of its entries, but those that are kept back.
    pub(crate) entries: usize,
    /// Bytes of its files.
    pub(crate) content_bytes: u64,
    /// Bytes that had to be sent.
    pub(crate) sent_bytes: u64,
}

/// The Dockerfile of a build: the one that was named, or the usual ones of the context.
pub(crate) fn find_dockerfile(context: &Path, file: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(file) = file {
        return Ok(file.to_owned());
    }
    let usual = ["Dockerfile", "dockerfile"].map(|name| context.join(name));
    usual.into_iter().find(|path| path.is_file()).ok_or_else(|| CliError::Usage {
        message: format!("there is no Dockerfile in {}", context.display()),
        hint: Some("name it with -f FILE".to_owned()),
    })
}

/// The ignore file of a context: the one beside the Dockerfile, else its own.
pub(crate) fn ignore_file(
    context: &Path,
    dockerfile: Option<&Path>,
) -> Result<Option<Vec<u8>>, CliError> {
    let beside = dockerfile.map(|dockerfile| {
        let mut path = dockerfile.as_os_str().to_owned();
        path.push(".dockerignore");
        PathBuf::from(path)
    });
    for path in beside.into_iter().chain([context.join(".dockerignore")]) {
        match std::fs::read(&path) {
            Ok(bytes) => {
                IgnoreFile::parse(&bytes)
                    .map_err(|failure| CliError::file(&path, &failure.message))?;
                return Ok(Some(bytes));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::file(&path, &error)),
        }
    }
    Ok(None)
}

/// What of a context is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All that the farm lacks.
    Everything,
    /// The list of its files: enough for a plan.
    Manifest,
}

/// Scans a context and sends what the farm lacks of what is reached. `ignore` is the text of its
/// ignore file.
pub(crate) async fn send(
    client: &Client,
    project: &ProjectName,
    (context, ignore): (&Path, Option<&[u8]>),
    reached: &Paths,
    what: Sent,
) -> Result<SentContext, CliError> {
    let scratch = tempfile::tempdir().map_err(|error| CliError::file(context, &error))?;
    let scanned = if reached.is_empty() {
        kept_back().map_err(|error| CliError::file(context, &error))?
    } else {
        scanned(context, ignore, reached, scratch.path()).await?
    };
    let manifest = scratch.path().join("manifest");
    std::fs::write(&manifest, &scanned.encoded)
        .map_err(|error| CliError::file(&manifest, &error))?;
    let sent_bytes = upload(client, project, &scanned, &manifest, what).await?;
    let entries = scanned.manifest.entries.iter();
    Ok(SentContext {
        manifest: scanned.digest,
        entries: entries.filter(|entry| entry.kind != EntryKind::Unsent).count(),
        content_bytes: scanned.manifest.content_bytes(),
        sent_bytes,
    })
}

/// Scans a context with what is remembered of it, and remembers what is new.
async fn scanned(
    context: &Path,
    ignore: Option<&[u8]>,
    reached: &Paths,
    packs: &Path,
) -> Result<Scan, CliError> {
    let ignore = ignore.map(IgnoreFile::parse).transpose();
    let ignore = ignore.map_err(|failure| CliError::file(context, &failure.message))?;
    let ignore = ignore.unwrap_or_default();
    let (root, packs, reached) = (context.to_owned(), packs.to_owned(), reached.clone());
    tokio::task::spawn_blocking(move || {
        let memory_path = memory_path(&root);
        let memory = memory_path.as_deref().map(Memory::load).unwrap_or_default();
        let mut judge = |path: &TreePath, is_directory| judge(&ignore, path, is_directory);
        let choice = |manifest: &Manifest| reached.select(manifest);
        let scanned = scan(&root, Owner::Root, &mut judge, &choice, (&packs, &memory))?;
        // Without it the next build reads everything again, which is no reason to fail.
        if let Some(path) = memory_path
            && scanned.memory() != &memory
            && scanned.memory().store(&path).is_ok()
        {
            forget_old(&path);
        }
        Ok::<_, ScanError>(scanned)
    })
    .await
    .map_err(|error| CliError::file(context, &error))?
    .map_err(|error| CliError::file(context, &error))
}

/// Where it is kept what is known of a context from the last time.
fn memory_path(context: &Path) -> Option<PathBuf> {
    let context = context.canonicalize().ok()?;
    let name = Digest::of(context.as_os_str().as_encoded_bytes()).hex();
    Some(memory_directory()?.join(name))
}

fn memory_directory() -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(cache.join("slipway/contexts"))
}

/// Where it is kept that a Dockerfile needs more of its contexts than can be seen here.
fn whole_path(dockerfile: &[u8]) -> Option<PathBuf> {
    let name = Digest::of(dockerfile).hex();
    Some(memory_directory()?.join(format!("{name}.whole")))
}

/// Whether the contexts of this Dockerfile had to be sent whole.
pub(crate) fn is_sent_whole(dockerfile: &[u8]) -> bool {
    whole_path(dockerfile).is_some_and(|path| path.exists())
}

/// From now on they are, at once. Where that cannot be kept the next build finds it out again.
pub(crate) fn send_whole(dockerfile: &[u8]) {
    let Some(path) = whole_path(dockerfile) else { return };
    let directory = path.parent().unwrap_or(Path::new("."));
    if std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, b"")).is_ok() {
        forget_old(&path);
    }
}

/// Removes the memories that were not used for longest, when there are many.
fn forget_old(path: &Path) {
    let Some(entries) = path.parent().and_then(|parent| std::fs::read_dir(parent).ok()) else {
        return;
    };
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    for (_, path) in all.into_iter().skip(MAX_MEMORIES) {
        let _ = std::fs::remove_file(path);
    }
}

fn judge(ignore: &IgnoreFile, path: &TreePath, is_directory: bool) -> Verdict {
    let text = path.display();
    if !ignore.is_ignored(&text) {
        Verdict::Keep
    } else if is_directory && ignore.may_include_below(&text) {
        Verdict::Skip
    } else {
        Verdict::SkipTree
    }
}

async fn upload(
    client: &Client,
    project: &ProjectName,
    scanned: &Scan,
    manifest: &Path,
    what: Sent,
) -> Result<u64, CliError> {
    let offer = |digest, size_bytes| PackOffer { digest, size_bytes };
    let request = ContextUpload {
        project: project.clone(),
        manifest: Some(offer(scanned.digest, scanned.encoded.len() as u64)),
        packs: scanned.packs().map(|pack| offer(pack.digest, pack.size_bytes)).collect(),
        blobs: Vec::new(),
    };
    let answer = client.negotiate(&request).await?;
    let is_wanted =
        |target: &UploadTarget| what == Sent::Everything || target.digest == scanned.digest;
    let missing = answer.missing.into_iter().filter(is_wanted);
    let sent: Vec<u64> = futures_util::stream::iter(missing)
        .map(|target| async move {
            let pack = scanned.packs().find(|pack| pack.digest == target.digest);
            let (path, size) = match pack {
                Some(pack) => {
                    let path = scanned.pack_file(&pack.digest);
                    (path.map_err(|error| CliError::file(manifest, &error))?, pack.size_bytes)
                }
                None => (manifest.to_owned(), scanned.encoded.len() as u64),
            };
            client.upload(&target, &path, size).await?;
            Ok::<_, CliError>(size)
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    Ok(sent.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignore_file_beside_the_dockerfile_wins() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(".dockerignore"), "a").unwrap();
        let dockerfile = root.path().join("x.Dockerfile");
        let ignores = |name: &str| {
            let bytes = ignore_file(root.path(), Some(&dockerfile)).unwrap().unwrap();
            IgnoreFile::parse(&bytes).unwrap().is_ignored(name)
        };
        assert!(ignores("a") && !ignores("b"));
        std::fs::write(root.path().join("x.Dockerfile.dockerignore"), "b").unwrap();
        assert!(!ignores("a") && ignores("b"));
    }

    #[test]
    fn a_lower_case_dockerfile_is_found_and_none_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(find_dockerfile(root.path(), None).is_err());
        std::fs::write(root.path().join("dockerfile"), "").unwrap();
        assert!(find_dockerfile(root.path(), None).unwrap().ends_with("dockerfile"));
    }
}
