//! The client's SSH agents, as sockets on this worker.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent::{AgentSocket, Message, Relay};
use api::Secret;
use api::public::v1::LogStream;
use api::worker::v1::{AgentAnswer, AgentCall};
use uuid::Uuid;

use super::failure::JobError;
use super::stage::StageRun;
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;

/// Pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest time for one message, whatever the coordinator says: longer than its own limits.
const MESSAGE_LIMIT: Duration = Duration::from_mins(3);

/// Passes messages on to the coordinator, under the lease of a stage.
#[derive(Debug)]
struct StageAgent {
    worker: Arc<Worker>,
    held: Arc<Held>,
    name: String,
    log: LogWriter,
    step: u32,
    /// What the log was told, so that it is told once.
    said: Mutex<BTreeSet<String>>,
}

/// Listens at `path` for what step number `step` has to say to an agent of the client.
pub(super) fn listen(
    run: &StageRun<'_>,
    name: &str,
    step: u32,
    path: &Path,
) -> Result<AgentSocket, JobError> {
    let agent = StageAgent {
        worker: Arc::clone(run.worker),
        held: Arc::clone(run.held),
        name: name.to_owned(),
        log: run.log.clone(),
        step,
        said: Mutex::default(),
    };
    Ok(AgentSocket::listen(path, Arc::new(agent))?)
}

impl StageAgent {
    fn call(&self, connection: Uuid, message: Option<&Message>) -> AgentCall {
        AgentCall {
            lease: self.held.lease,
            id: Uuid::now_v7(),
            agent: self.name.clone(),
            connection,
            message: message.map(|message| Secret::new(message.bytes())),
        }
    }

    /// Makes a call until there is an answer; the error says why there is none.
    async fn persist(&self, call: &AgentCall) -> Result<Message, String> {
        loop {
            match self.worker.client.agent(call).await {
                Ok(AgentAnswer::Answered { message }) => {
                    let answer = message.value().and_then(Message::new);
                    return answer.ok_or_else(|| "the answer is no message".to_owned());
                }
                Ok(AgentAnswer::Unanswered { reason }) => return Err(reason),
                Ok(AgentAnswer::Pending) => {}
                Err(error) if error.is_transient() || error.status() == Some(401) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn say(&self, text: String) {
        let is_new = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.insert(text.clone())
        };
        if is_new {
            self.log.line(self.step, LogStream::System, format!("warning: {text}")).await;
        }
    }
}

impl Relay for StageAgent {
    async fn ask(&self, connection: Uuid, request: Message) -> Message {
        let call = self.call(connection, Some(&request));
        let answer = tokio::select! {
            answer = tokio::time::timeout(MESSAGE_LIMIT, self.persist(&call)) => answer,
            // The step is being ended.
            () = self.held.cancel.cancelled() => return Message::failure(),
        };
        let reason = match answer {
            Ok(Ok(message)) => return message,
            Ok(Err(reason)) => reason,
            Err(_) => format!("agent {} has not answered in time", self.name),
        };
        self.say(reason).await;
        Message::failure()
    }

    async fn closed(&self, connection: Uuid) {
        let call = self.call(connection, None);
        // The client forgets the connection at the end of the build at the latest.
        if let Err(error) = self.worker.client.agent(&call).await {
            tracing::debug!(stage.lease = %self.held.lease, %error, "the end of a connection was not told");
        }
    }
}
