//! How old a source is, for `SOURCE_DATE_EPOCH`.

use std::path::Path;

use crate::archive::youngest;
use crate::error::FetchError;
use crate::fetcher::{Fetcher, modified};
use crate::git::git;

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

    /// When a commit was made, in seconds since 1970.
    pub async fn commit_time(
        &self,
        url: &str,
        reference: Option<&str>,
        commit: &str,
    ) -> Result<i64, FetchError> {
        let scratch = tempfile::tempdir()?;
        let place = scratch.path();
        let guard = self.guard(url, url).await?;
        git(&guard, place, &["init", "--quiet", "--bare"], url).await?;
        // Files are not asked for; a server that cannot leave them out sends them.
        let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--filter=tree:0", "--", url];
        let by_commit: Vec<&str> = fetch.iter().copied().chain([commit]).collect();
        if git(&guard, place, &by_commit, url).await.is_err() {
            let name = reference.unwrap_or("HEAD");
            let by_name: Vec<&str> = fetch.iter().copied().chain([name]).collect();
            git(&guard, place, &by_name, url).await?;
        }
        committed(place, commit, url).await
    }
}

/// When a commit of the repository in a directory was made.
pub(crate) async fn committed(place: &Path, commit: &str, url: &str) -> Result<i64, FetchError> {
    let show = ["show", "--no-patch", "--format=%ct", commit];
    let text = git(&crate::git::Guard::default(), place, &show, url).await?;
    text.trim().parse().map_err(|_| FetchError::Address {
        url: url.to_owned(),
        problem: format!("the commit {commit} has no time"),
    })
}
