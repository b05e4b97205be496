//! Answering for agents while a build runs.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Message, read, write};
use api::Secret;
use api::public::v1::{AgentMessage, AgentPoll, AgentReply};
use client::ClientError;
use client::public::Client;
use common::BuildId;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::source::Source;

/// How long the farm may hold a call back.
const WAIT: Duration = Duration::from_secs(15);
/// Pause after a call that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest time for an answer of an agent: a person may have to confirm it.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
/// Connections to agents that are kept; of more, those that were used least recently are closed.
const MAX_CONNECTIONS: usize = 128;

/// A connection to an agent, opened with its first message, used by one message at a time.
type Connection = Arc<tokio::sync::Mutex<Option<UnixStream>>>;

/// What all messages of a build share.
#[derive(Debug, Default)]
struct Shared {
    working_on: Mutex<HashSet<Uuid>>,
    /// The most recently used last.
    connections: Mutex<Vec<(Uuid, Connection)>>,
}

/// Answers what a build asks of agents until it has ended. What the user should know goes to `notes`.
pub(crate) async fn answer(
    client: Client,
    build: BuildId,
    sources: Arc<BTreeMap<String, Source>>,
    notes: mpsc::Sender<String>,
) {
    let shared = Arc::new(Shared::default());
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let working_on = lock(&shared.working_on).iter().copied().collect();
        let wait_millis = u64::try_from(WAIT.as_millis()).unwrap_or(0);
        let given = match client.poll_agent(build, &AgentPoll { working_on, wait_millis }).await {
            Ok(given) => given,
            Err(error) if error.is_transient() => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => {
                say(&notes, &format!("SSH agents are not lent any more: {error}"));
                return;
            }
        };
        if given.is_over {
            return;
        }
        for ended in given.ended {
            lock(&shared.connections).retain(|(id, _)| *id != ended);
        }
        for message in given.messages {
            if !lock(&shared.working_on).insert(message.id) {
                continue;
            }
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            let (sources, notes) = (Arc::clone(&sources), notes.clone());
            tasks.spawn(async move {
                let id = message.id;
                let text = shared.ask(&sources, message, &notes).await;
                let reply = AgentReply { id, message: Secret::new(text.bytes()) };
                if let Err(error) = client.answer_agent(build, &reply).await {
                    note_refusal(&notes, &error);
                }
                lock(&shared.working_on).remove(&id);
            });
        }
    }
}

fn note_refusal(notes: &mpsc::Sender<String>, error: &ClientError) {
    say(notes, &format!("an answer of an SSH agent was not taken: {error}"));
}

/// Notes are few; where nobody reads them they are of no use.
fn say(notes: &mpsc::Sender<String>, text: &str) {
    let _ = notes.try_send(text.to_owned());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    async fn ask(
        &self,
        sources: &BTreeMap<String, Source>,
        message: AgentMessage,
        notes: &mpsc::Sender<String>,
    ) -> Message {
        // Whatever the farm passes on, nothing changes the agents here.
        let request = message.message.value().and_then(Message::new);
        let Some(request) = request.filter(Message::is_passed_on) else {
            return Message::failure();
        };
        match sources.get(&message.agent) {
            None => Message::failure(),
            Some(Source::Keys(keys)) => {
                let keys = Arc::clone(keys);
                let signing = tokio::task::spawn_blocking(move || keys.answer(&request));
                signing.await.unwrap_or_else(|_| Message::failure())
            }
            Some(Source::Socket(path)) => {
                let connection = self.connection(message.connection);
                match forward(path, &connection, &request).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        let text =
                            format!("the SSH agent {} did not answer: {error}", message.agent);
                        say(notes, &text);
                        Message::failure()
                    }
                }
            }
        }
    }

    fn connection(&self, id: Uuid) -> Connection {
        let mut all = lock(&self.connections);
        let connection = match all.iter().position(|(known, _)| *known == id) {
            Some(at) => all.remove(at).1,
            None => Connection::default(),
        };
        if all.len() >= MAX_CONNECTIONS {
            all.remove(0);
        }
        all.push((id, Arc::clone(&connection)));
        connection
    }
}

/// Passes a request on. A connection that fails is not used again.
async fn forward(
    path: &Path,
    connection: &Connection,
    request: &Message,
) -> std::io::Result<Message> {
    let mut place = connection.lock().await;
    let mut stream = match place.take() {
        Some(stream) => stream,
        None => UnixStream::connect(path).await?,
    };
    let asking = async {
        write(&mut stream, request).await?;
        read(&mut stream)
            .await?
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, asking).await??;
    *place = Some(stream);
    Ok(answer)
}
