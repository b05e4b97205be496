//! How old a source is, for `SOURCE_DATE_EPOCH`.

use std::path::Path;

use crate::archive::youngest;
use crate::error::FetchError;
use crate::fetcher::{Fetcher, modified};
use crate::git::{git, is_commit};
use crate::ssh::Ssh;

/// Longest archive that is read only to learn its age.
const MAX_BYTES: u64 = 1 << 30;

impl Fetcher {
    /// When the file behind a URL was changed, in seconds since 1970: what the server says, else the
    /// youngest file in it where it is an archive. Nothing otherwise.
    pub async fn file_time(&self, url: &str) -> Result<Option<i64>, FetchError> {
        if let Some(time) = modified(&self.head(url).await?) {
            return Ok(Some(time));
        }
        let scratch = tempfile::tempdir()?;
        let path = scratch.path().join("file");
        match self.limited_to(MAX_BYTES).download(url, &path).await {
            Ok(_) => {}
            Err(FetchError::TooLong { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let read = tokio::task::spawn_blocking(move || youngest(&path)).await;
        drop(scratch);
        Ok(read.unwrap_or(None))
    }

    /// When the commit was made that a branch, a tag or, without a name, the default branch is at, in
    /// seconds since 1970; a commit's own number serves too.
    pub async fn reference_time(
        &self,
        url: &str,
        reference: Option<&str>,
        ssh: Option<Ssh<'_>>,
    ) -> Result<i64, FetchError> {
        let commit = match reference.filter(|text| is_commit(text)) {
            Some(commit) => commit.to_owned(),
            None => self.commit_of(url, reference, ssh).await?,
        };
        self.commit_time(url, reference, &commit, ssh).await
    }

    /// When a commit was made, in seconds since 1970.
    pub async fn commit_time(
        &self,
        url: &str,
        reference: Option<&str>,
        commit: &str,
        ssh: Option<Ssh<'_>>,
    ) -> Result<i64, FetchError> {
        let scratch = tempfile::tempdir()?;
        let place = scratch.path();
        let guard = self.guard(url, url, ssh).await?;
        git(&guard, place, &["init", "--quiet", "--bare"], url).await?;
        // Not every server gives a commit by its number, or one alone. None is asked to leave files
        // out: git would fetch what is missing later by itself, from some servers without end.
        let few = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", url];
        let all = ["fetch", "--quiet", "--", url];
        let heads = "+refs/heads/*:refs/remotes/origin/*";
        for (fetch, what) in [
            (few.as_slice(), commit),
            (few.as_slice(), reference.unwrap_or("HEAD")),
            (all.as_slice(), reference.unwrap_or("HEAD")),
            (all.as_slice(), heads),
        ] {
            let arguments: Vec<&str> = fetch.iter().copied().chain([what]).collect();
            let fetched = git(&guard, place, &arguments, url).await;
            let is_last = what == heads;
            match committed(place, commit, url).await {
                Ok(time) => return Ok(time),
                Err(error) if is_last => return fetched.and(Err(error)),
                Err(_) => {}
            }
        }
        let problem = format!("the commit {commit} is not there");
        Err(FetchError::Address { url: url.to_owned(), problem })
    }
}

/// When a commit of the repository in a directory was made.
pub(crate) async fn committed(place: &Path, commit: &str, url: &str) -> Result<i64, FetchError> {
    let commit = format!("{commit}^{{commit}}");
    let show = ["log", "-1", "--format=%ct", &commit];
    let text = git(&crate::git::Guard::default(), place, &show, url).await?;
    text.trim().parse().map_err(|_| FetchError::Address {
        url: url.to_owned(),
        problem: format!("the commit {commit} has no time"),
    })
}
