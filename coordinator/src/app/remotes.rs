//! Asking after what is elsewhere: what ADD names, and how old a source is.

use api::public::v1::BuildRequest;
use common::BuildId;
use common::tree::Manifest;
use dockerfile::{Dockerfile, ImageFacts, Options, Planned, RemoteKind, RemoteNeed};
use fetch::{Credentials, FetchError, Fetcher};
use uuid::Uuid;

use super::plan_build::{PlanError, join};
use super::{App, AppError};

impl App {
    /// What asks for a build: with those of its secrets that are meant for servers.
    pub(super) async fn fetcher_of(
        &self,
        build: BuildId,
        request: &BuildRequest,
    ) -> Result<Fetcher, AppError> {
        let names: Vec<String> = request.secrets.keys().cloned().collect();
        let secrets = self.secrets(build, &names).await?;
        Ok(self.fetcher_with(secrets.iter()))
    }

    /// The same for a request that brings the values itself.
    pub(super) fn fetcher_with<'a>(
        &self,
        secrets: impl Iterator<Item = (&'a String, &'a api::Secret)>,
    ) -> Fetcher {
        let known = secrets.filter_map(|(name, secret)| Some((name.clone(), secret.value()?)));
        self.fetcher.with_credentials(Credentials::from_secrets(known))
    }
}

/// Plans for one platform, and asks servers meanwhile what they say of the files that ADD names.
pub(super) async fn plan_file(
    fetcher: &Fetcher,
    file: &Dockerfile,
    mut options: Options,
    images: &ImageFacts,
    context: Option<&Manifest>,
) -> Result<Planned, PlanError> {
    loop {
        let planned = file.plan(&options, images, context).map_err(join)?;
        if planned.remotes.is_empty() {
            return Ok(planned);
        }
        for need in planned.remotes {
            let answer = ask(fetcher, &need).await.map_err(|error| {
                PlanError::from(file.place(error.failure(), need.lines, Some(&need.url)))
            })?;
            options.remotes.insert((need.kind, need.url), answer);
        }
    }
}

async fn ask(fetcher: &Fetcher, need: &RemoteNeed) -> Result<String, FetchError> {
    match &need.kind {
        RemoteKind::Repository(reference) => {
            fetcher.commit_of(&need.url, reference.as_deref()).await
        }
        RemoteKind::File => {
            let validator = fetcher.validator(&need.url).await?;
            // Of what nothing is said nothing is known: it counts as new in every build.
            Ok(validator.unwrap_or_else(|| format!("fetch {}", Uuid::new_v4())))
        }
        RemoteKind::FileTime => {
            let time = fetcher.file_time(&need.url).await?;
            Ok(time.map(|seconds| seconds.to_string()).unwrap_or_default())
        }
        RemoteKind::CommitTime(reference) => {
            let commit = match reference.as_deref().filter(|it| is_commit(it)) {
                Some(commit) => commit.to_owned(),
                None => fetcher.commit_of(&need.url, reference.as_deref()).await?,
            };
            let time = fetcher.commit_time(&need.url, reference.as_deref(), &commit).await?;
            Ok(time.to_string())
        }
    }
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}
