//! What a plan asks about repositories over ssh: a plan has no build that an agent could be lent to,
//! so the client asks their servers itself.

use std::sync::Arc;

use agent::AgentSocket;
use api::public::v1::{RepositoryAnswer, RepositoryQuestion};
use common::plan::is_over_ssh;
use fetch::{FetchConfig, FetchError, Fetcher, Ssh};

use crate::agent::Source;
use crate::exit::CliError;

/// Asks with an agent, and with nothing else of this machine's.
pub(super) async fn answers(
    questions: Vec<RepositoryQuestion>,
    source: &Source,
) -> Result<Vec<RepositoryAnswer>, CliError> {
    let failed = |error: FetchError| CliError::Failed(Box::new(error.failure()));
    let config = FetchConfig { allow_private_networks: true, ..FetchConfig::default() };
    let fetcher = Fetcher::new(config).map_err(failed)?;
    let place = std::env::temp_dir();
    let scratch = tempfile::tempdir().map_err(|error| CliError::file(&place, &error))?;
    let known_hosts = scratch.path().join("hosts");
    let (path, _listening) = match source {
        Source::Socket(path) => (path.clone(), None),
        Source::Keys(keys) => {
            let path = scratch.path().join("agent");
            let socket = AgentSocket::listen(&path, Arc::clone(keys));
            let socket = socket.map_err(|error| CliError::file(&path, &error))?;
            (path, Some(socket))
        }
    };
    let ssh = Ssh { agent: &path, known_hosts: &known_hosts };
    let mut answers = Vec::new();
    for question in questions {
        let answer = ask(&fetcher, &question, ssh).await.map_err(failed)?;
        answers.push(RepositoryAnswer { question, answer });
    }
    Ok(answers)
}

async fn ask(
    fetcher: &Fetcher,
    question: &RepositoryQuestion,
    ssh: Ssh<'_>,
) -> Result<String, FetchError> {
    let RepositoryQuestion { url, reference, time } = question;
    if !is_over_ssh(url) {
        // The farm asks the others itself: none of them is asked from here because it says so.
        let problem = "the farm asked about it, and it is not over ssh".to_owned();
        return Err(FetchError::Address { url: url.clone(), problem });
    }
    let reference = reference.as_deref();
    if *time {
        let time = fetcher.reference_time(url, reference, Some(ssh)).await?;
        return Ok(time.to_string());
    }
    fetcher.commit_of(url, reference, Some(ssh)).await
}
