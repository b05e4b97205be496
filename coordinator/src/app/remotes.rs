//! Asking after what is elsewhere: what ADD names, and how old a source is.

use std::sync::{Arc, Mutex, PoisonError};

use agent::AgentSocket;
use api::public::v1::{BuildRequest, RepositoryAnswer, RepositoryQuestion};
use common::plan::{DEFAULT_AGENT, is_over_ssh};
use common::tree::Manifest;
use common::{BuildId, Failure, Trust};
use dockerfile::{Dockerfile, ImageFacts, Options, Planned, RemoteKind, RemoteNeed};
use fetch::{Credentials, FetchError, Fetcher, Ssh};
use uuid::Uuid;

use super::options::no_agent;
use super::plan_build::{PlanError, join};
use super::relay_agent::PlannerAgent;
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
        self.fetcher_with(request.trust, secrets.iter())
    }

    /// The same for a request that brings the values itself.
    pub(super) fn fetcher_with<'a>(
        &self,
        trust: Trust,
        secrets: impl Iterator<Item = (&'a String, &'a api::Secret)>,
    ) -> Result<Fetcher, AppError> {
        let known = secrets.filter_map(|(name, secret)| Some((name.clone(), secret.value()?)));
        let fetcher = match trust {
            Trust::Trusted => self.fetcher.clone(),
            Trust::Untrusted => self.fetcher.public_only()?,
        };
        Ok(fetcher.with_credentials(Credentials::from_secrets(known)))
    }
}

/// Who answers for what is elsewhere, for one build.
pub(super) struct Servers {
    pub(super) fetcher: Fetcher,
    pub(super) asker: Asker,
}

/// Who is asked about repositories over ssh.
pub(super) enum Asker {
    /// Their servers, with the agent of the client.
    Agent(Arc<PlannerAgent>),
    /// Their servers would be, but no agent came with the build.
    Nobody,
    /// The client itself, which comes again with the answers.
    Client { answers: Vec<RepositoryAnswer>, questions: Mutex<Vec<RepositoryQuestion>> },
}

impl Servers {
    /// What the client is asked.
    pub(super) fn questions(&self) -> Vec<RepositoryQuestion> {
        match &self.asker {
            Asker::Client { questions, .. } => {
                questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
            Asker::Agent(_) | Asker::Nobody => Vec::new(),
        }
    }

    /// Plans for one platform, and asks meanwhile what is said of the files that ADD names.
    pub(super) async fn plan_file(
        &self,
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
            // Whoever has to be asked elsewhere is asked all at once.
            let (own, theirs): (Vec<_>, Vec<_>) =
                planned.remotes.into_iter().partition(|need| self.waits_for_client(need).is_none());
            if let (Asker::Client { questions, .. }, false) = (&self.asker, theirs.is_empty()) {
                let asked = theirs.iter().filter_map(|need| self.waits_for_client(need)).collect();
                *questions.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
            for need in theirs.into_iter().chain(own) {
                let answer = self.ask(&need).await.map_err(|failure| {
                    PlanError::from(file.place(failure, need.lines, Some(&need.url)))
                })?;
                options.remotes.insert((need.kind, need.url), answer);
            }
        }
    }

    /// The question about a repository over ssh that the client has not answered yet.
    fn waits_for_client(&self, need: &RemoteNeed) -> Option<RepositoryQuestion> {
        let Asker::Client { answers, .. } = &self.asker else { return None };
        let question = question(need).filter(|_| is_over_ssh(&need.url))?;
        let is_answered = answers.iter().any(|answer| answer.question == question);
        (!is_answered).then_some(question)
    }

    async fn ask(&self, need: &RemoteNeed) -> Result<String, Failure> {
        let Self { fetcher, .. } = self;
        let failed = |error: FetchError| error.failure();
        match &need.kind {
            RemoteKind::Repository(_) | RemoteKind::CommitTime(_) if is_over_ssh(&need.url) => {
                self.ask_over_ssh(need).await
            }
            RemoteKind::Repository(reference) => {
                fetcher.commit_of(&need.url, reference.as_deref(), None).await.map_err(failed)
            }
            RemoteKind::CommitTime(reference) => {
                let time = fetcher.reference_time(&need.url, reference.as_deref(), None).await;
                time.map(|time| time.to_string()).map_err(failed)
            }
            RemoteKind::File => {
                let validator = fetcher.validator(&need.url).await.map_err(failed)?;
                // Of what nothing is said nothing is known: it counts as new in every build.
                Ok(validator.unwrap_or_else(|| format!("fetch {}", Uuid::new_v4())))
            }
            RemoteKind::FileTime => {
                let time = fetcher.file_time(&need.url).await.map_err(failed)?;
                Ok(time.map(|seconds| seconds.to_string()).unwrap_or_default())
            }
        }
    }

    /// Asks with the client's agent, through a socket that only this process reaches.
    async fn ask_over_ssh(&self, need: &RemoteNeed) -> Result<String, Failure> {
        let agent = match &self.asker {
            Asker::Agent(agent) => agent,
            Asker::Client { answers, .. } => {
                let question = question(need);
                let answer =
                    answers.iter().find(|answer| Some(&answer.question) == question.as_ref());
                return match answer {
                    Some(answer) => Ok(answer.answer.clone()),
                    None => Err(no_agent(DEFAULT_AGENT)),
                };
            }
            Asker::Nobody => return Err(no_agent(DEFAULT_AGENT)),
        };
        let failed = |error: std::io::Error| FetchError::from(error).failure();
        let scratch = tempfile::Builder::new().prefix("slipway-").tempdir().map_err(failed)?;
        let (path, known_hosts) = (scratch.path().join("agent"), scratch.path().join("hosts"));
        let socket = AgentSocket::listen(&path, Arc::clone(agent)).map_err(failed)?;
        let ssh = Some(Ssh { agent: socket.path(), known_hosts: &known_hosts });
        let answer = match &need.kind {
            RemoteKind::CommitTime(reference) => {
                let time = self.fetcher.reference_time(&need.url, reference.as_deref(), ssh).await;
                time.map(|time| time.to_string())
            }
            RemoteKind::Repository(reference) => {
                self.fetcher.commit_of(&need.url, reference.as_deref(), ssh).await
            }
            RemoteKind::File | RemoteKind::FileTime => Ok(String::new()),
        };
        answer.map_err(|error| match agent.unanswered() {
            Some(reason) => error.failure().with_hint(reason),
            None => error.failure(),
        })
    }
}

fn question(need: &RemoteNeed) -> Option<RepositoryQuestion> {
    let (reference, time) = match &need.kind {
        RemoteKind::Repository(reference) => (reference, false),
        RemoteKind::CommitTime(reference) => (reference, true),
        RemoteKind::File | RemoteKind::FileTime => return None,
    };
    Some(RepositoryQuestion { url: need.url.clone(), reference: reference.clone(), time })
}
