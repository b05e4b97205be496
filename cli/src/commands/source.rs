//! Contexts that are elsewhere: fetched here, by whoever builds.

use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use common::{Failure, FailureClass};
use dockerfile::{Address, Repository};
use fetch::{Checkout, Credentials, Fetcher, Opened, open_archive, youngest};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tempfile::TempDir;

use super::download::{Owners, lay_out};
use super::options::secrets;
use crate::exit::CliError;

/// Name of a file whose URL has none, as in BuildKit.
const UNNAMED: &str = "download";

/// What has arrived.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The files, or the one file.
    pub(super) path: PathBuf,
    /// When they were made, in seconds since 1970.
    pub(super) made_at: Option<i64>,
    pub(super) scratch: TempDir,
}

/// Fetches what a user names: with his agent, and with those of his secrets that are meant for
/// servers.
#[derive(Debug)]
pub(super) struct Source {
    fetcher: Fetcher,
}

fn failed(failure: Failure) -> CliError {
    CliError::Failed(Box::new(failure))
}

fn scratch() -> Result<TempDir, CliError> {
    tempfile::tempdir().map_err(|error| CliError::file(&std::env::temp_dir(), &error))
}

impl Source {
    /// `list` is that of `--secret`.
    pub(super) fn new(list: &[String]) -> Result<Self, CliError> {
        let known = secrets(list)?;
        let known = known.into_iter().filter_map(|(name, secret)| Some((name, secret.value()?)));
        let fetcher = Fetcher::of_user().map_err(|error| failed(error.failure()))?;
        Ok(Self { fetcher: fetcher.with_credentials(Credentials::from_secrets(known)) })
    }

    /// Downloads a file under the name that its URL gives it, or `name`.
    pub(super) async fn file(&self, url: &str, name: Option<&str>) -> Result<Fetched, CliError> {
        let scratch = scratch()?;
        let place = scratch.path().join("files");
        std::fs::create_dir(&place).map_err(|error| CliError::file(&place, &error))?;
        let path = place.join(name.map_or_else(|| file_name(url), str::to_owned));
        let done = self.fetcher.download(url, &path).await;
        let done = done.map_err(|error| failed(error.failure()))?;
        let age = done.modified.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        let file = std::fs::File::options().write(true).open(&path);
        file.and_then(|file| {
            set_mode(&path, 0o600)?;
            file.set_modified(UNIX_EPOCH + Duration::from_secs(age))
        })
        .map_err(|error| CliError::file(&path, &error))?;
        let made_at = done.modified.or_else(|| youngest(&path));
        Ok(Fetched { path, made_at, scratch })
    }

    /// Checks a repository out, or a directory of it.
    pub(super) async fn repository(
        &self,
        repository: &Repository,
        keep_git_dir: bool,
    ) -> Result<Fetched, CliError> {
        let Repository { url, reference, .. } = repository;
        let commit = match repository.commit() {
            Some(commit) => commit.to_owned(),
            None => {
                let found = self.fetcher.commit_of(url, reference.as_deref(), None).await;
                found.map_err(|error| failed(error.failure()))?
            }
        };
        if let Some(expected) = &repository.checksum
            && !commit.starts_with(&expected.to_ascii_lowercase())
        {
            let message = format!("expected checksum to match {expected}, got {commit}");
            return Err(failed(Failure::new(FailureClass::User, "checksum-mismatch", message)));
        }
        let scratch = scratch()?;
        let root = scratch.path().join("context");
        let what = Checkout {
            url,
            reference: reference.as_deref(),
            commit: &commit,
            keep_git_dir: repository.keep_git_dir.unwrap_or(false) || keep_git_dir,
            submodules: repository.submodules.unwrap_or(true),
            // The user's own settings of ssh serve.
            ssh: None,
        };
        let made_at = self.fetcher.check_out(what, &root).await;
        let made_at = made_at.map_err(|error| failed(error.failure()))?;
        let times = repository.commit_times.then_some(made_at);
        settle(&root, times).map_err(|error| CliError::file(&root, &error))?;
        let path = match &repository.subdirectory {
            Some(below) => subdirectory(&root, below)?,
            None => root,
        };
        Ok(Fetched { path, made_at: Some(made_at), scratch })
    }

    /// What a named context is made of: the files of a repository, or one file.
    pub(super) async fn named(&self, address: &Address) -> Result<Fetched, CliError> {
        match address {
            Address::Repository(repository) => self.repository(repository, false).await,
            Address::File(url) => {
                let fetched = self.file(url, None).await?;
                let path = fetched.path.parent().map(Path::to_owned).unwrap_or_default();
                Ok(Fetched { path, ..fetched })
            }
        }
    }
}

/// The context of an archive, or the file itself where it is none.
pub(super) fn unpacked(fetched: Fetched) -> Result<(Fetched, bool), CliError> {
    let fail = |error: std::io::Error| CliError::file(&fetched.path, &error);
    let opened = std::fs::File::open(&fetched.path).and_then(open_archive).map_err(fail)?;
    let Opened::Archive(mut archive) = opened else { return Ok((fetched, false)) };
    let root = fetched.scratch.path().join("context");
    lay_out(&mut archive, &root, Owners::Own).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        CliError::usage(format!("the archive is unusable: {error}{}", cause.unwrap_or_default()))
    })?;
    drop(archive);
    Ok((Fetched { path: root, ..fetched }, true))
}

/// Files of a repository are their owner's to write and everybody's to read (0644, 0755), whatever
/// the user's umask is, and where that is asked for as old as the commit.
fn settle(root: &Path, time: Option<i64>) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut directories = vec![root.to_owned()];
    let mut at = 0;
    while let Some(directory) = directories.get(at).cloned() {
        at += 1;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            if metadata.is_dir() {
                directories.push(path);
                continue;
            }
            if metadata.is_file() {
                let is_program = metadata.permissions().mode() & 0o100 != 0;
                set_mode(&path, if is_program { 0o755 } else { 0o644 })?;
            }
            set_time(&path, time)?;
        }
    }
    for directory in directories.iter().rev() {
        set_mode(directory, 0o755)?;
        set_time(directory, time)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn set_time(path: &Path, time: Option<i64>) -> std::io::Result<()> {
    let Some(seconds) = time else { return Ok(()) };
    let moment = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: moment, last_modification: moment };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A directory of a checkout; the repository is a stranger's, and its links lead nowhere else.
fn subdirectory(root: &Path, below: &str) -> Result<PathBuf, CliError> {
    let bad = |what: &str| CliError::usage(format!("the repository's directory {below:?} {what}"));
    let relative = below.trim_matches('/');
    if Path::new(relative).components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(bad("leads out of it"));
    }
    let path = root.join(relative);
    let real = path.canonicalize().map_err(|_| bad("is not there"))?;
    let whole = root.canonicalize().map_err(|error| CliError::file(root, &error))?;
    if !real.starts_with(&whole) {
        return Err(bad("leads out of it"));
    }
    if real.is_dir() { Ok(real) } else { Err(bad("is no directory")) }
}

/// The last component of a URL's path; one that cannot be a file's name is none.
fn file_name(url: &str) -> String {
    let path = url.split(['#', '?']).next().unwrap_or_default();
    let path = path.split_once("://").map_or("", |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+~".contains(&byte);
    let is_name = !last.is_empty() && !matches!(last, "." | "..") && last.len() <= 255;
    if is_name && last.bytes().all(fits) { last.to_owned() } else { UNNAMED.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn files_are_named_by_their_urls() {
        for (url, name) in [
            ("https://h.test/a/b.tar.gz?x=/y", "b.tar.gz"),
            ("https://h.test/a/b/#x", "b"),
            ("https://h.test", UNNAMED),
            ("https://h.test/a/..", UNNAMED),
            ("https://h.test/a%2fb", UNNAMED),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn checkouts_have_the_modes_of_umask_022_and_the_age_of_their_commit() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/plain"), "x").unwrap();
        std::fs::write(at("run"), "x").unwrap();
        symlink("run", at("link")).unwrap();
        for (name, mode) in [("d/plain", 0o600), ("run", 0o700), ("d", 0o700)] {
            set_mode(&at(name), mode).unwrap();
        }
        settle(root.path(), Some(1_000_000_000)).unwrap();
        for (name, mode) in [("d/plain", 0o644), ("run", 0o755), ("d", 0o755)] {
            let metadata = std::fs::symlink_metadata(at(name)).unwrap();
            assert_eq!(metadata.mode() & 0o777, mode, "{name}");
            assert_eq!(metadata.mtime(), 1_000_000_000, "{name}");
        }
        assert_eq!(std::fs::symlink_metadata(at("link")).unwrap().mtime(), 1_000_000_000);
    }

    #[test]
    fn a_directory_of_a_repository_stays_inside() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("sub")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        symlink("/", root.path().join("out")).unwrap();
        symlink("sub", root.path().join("in")).unwrap();
        for good in ["sub", "/sub/", "in"] {
            assert!(subdirectory(root.path(), good).unwrap().ends_with("sub"), "{good}");
        }
        for bad in ["..", "sub/../..", "out", "out/etc", "file", "none"] {
            assert!(subdirectory(root.path(), bad).is_err(), "{bad}");
        }
    }
}
