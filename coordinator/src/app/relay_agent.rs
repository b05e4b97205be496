//! Messages to the SSH agents of clients: from who asks to who answers, by the database.
//!
//! Both ends may be at different replicas and both hold a call open. A message waits in the store, the
//! bus wakes who waits for it, and everybody looks again by themselves now and then. What is lost on
//! the way costs the one who asked an answer, never more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::{Message as AgentText, Relay};
use api::public::v1::{AgentMessage, AgentMessages, AgentPoll, AgentReply};
use api::worker::v1::{AgentAnswer, AgentCall};
use api::{Problem, Secret};
use common::BuildId;
use common::build::BuildState;
use common::plan::DEFAULT_AGENT;
use logbus::{Bus, Message};
use store::{AgentQuestion, AgentState, Asked, Asker, Store, StoreError};
use uuid::Uuid;

use super::{App, AppError};

/// Longest time that a call is held open.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Time between looks without a wake-up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A message that no client has taken for this long will not be taken: clients call all the time, and
/// come back after a lost connection within seconds.
const UNTAKEN_SECS: f64 = 15.0;
/// Longest time for an answer: a person may have to confirm it.
const UNANSWERED_SECS: f64 = 120.0;

impl App {
    /// Takes a message of a worker; its answer, if it comes soon.
    pub(crate) async fn ask_agent(&self, call: &AgentCall) -> Result<AgentAnswer, AppError> {
        let request = call.message.as_ref().map(message).transpose()?;
        if request.as_ref().is_some_and(|request| !request.is_passed_on()) {
            return Err(Problem::new(422, "bad-request", "such a message is not passed on").into());
        }
        let question = AgentQuestion {
            id: call.id,
            agent: call.agent.clone(),
            connection: call.connection,
            request: request.map(AgentText::into_bytes),
        };
        self.desk().ask(Asker::Lease(call.lease), &question, MAX_WAIT).await
    }

    /// The messages for a client; waits for the first one.
    pub(crate) async fn poll_agent(
        &self,
        build: BuildId,
        poll: &AgentPoll,
    ) -> Result<AgentMessages, AppError> {
        let until = Instant::now() + Duration::from_millis(poll.wait_millis).min(MAX_WAIT);
        let mut wakes = self.bus.subscribe();
        loop {
            let state = self.store.build(build).await?.state;
            let is_over = BuildState::from_name(&state).is_some_and(BuildState::is_terminal);
            if is_over {
                return Ok(AgentMessages { is_over, ..AgentMessages::default() });
            }
            let (rows, ended) = self.store.take_agent_messages(build, &poll.working_on).await?;
            if !rows.is_empty() || !ended.is_empty() || Instant::now() >= until {
                let messages = rows.into_iter().map(|row| AgentMessage {
                    id: row.id,
                    agent: row.agent,
                    connection: row.connection,
                    message: Secret::new(&row.request),
                });
                return Ok(AgentMessages { messages: messages.collect(), ended, is_over });
            }
            wait(&mut wakes, build, until).await;
        }
    }

    /// Takes a client's answer. One that nobody waits for any more is no mistake.
    pub(crate) async fn answer_agent(
        &self,
        build: BuildId,
        reply: &AgentReply,
    ) -> Result<(), AppError> {
        let answer = message(&reply.message)?;
        if self.store.answer_agent(build, reply.id, answer.bytes()).await? {
            self.bus.send(Message::Agent(build));
        }
        Ok(())
    }

    fn desk(&self) -> Desk {
        Desk { store: self.store.clone(), bus: self.bus.clone() }
    }

    /// What git of this process uses while a build is planned.
    pub(super) fn planner_agent(&self, build: BuildId, planner: Uuid) -> Arc<PlannerAgent> {
        let (desk, unanswered) = (self.desk(), Mutex::default());
        Arc::new(PlannerAgent { desk, build, planner, unanswered })
    }
}

fn message(text: &Secret) -> Result<AgentText, Problem> {
    let bytes = text.value().and_then(AgentText::new);
    bytes.ok_or_else(|| {
        let detail = format!("a message has 1 to {} bytes, in base64", agent::MAX_MESSAGE_BYTES);
        Problem::new(422, "bad-request", detail)
    })
}

/// Waits for news of a build's messages, for a while.
async fn wait(
    wakes: &mut tokio::sync::broadcast::Receiver<Message>,
    build: BuildId,
    until: Instant,
) {
    let is_news = |message: &Message| match message {
        Message::Agent(of) | Message::Build(of) => *of == build,
        Message::Workers | Message::Planner | Message::Log(..) => false,
    };
    let wake = async {
        while let Ok(message) = wakes.recv().await {
            if is_news(&message) {
                return;
            }
        }
    };
    let rest = until.saturating_duration_since(Instant::now()).min(LOOK_AGAIN);
    tokio::select! {
        () = wake => {}
        () = tokio::time::sleep(rest) => {}
    }
}

/// Where messages are put and answers looked for.
#[derive(Debug, Clone)]
struct Desk {
    store: Store,
    bus: Bus,
}

impl Desk {
    async fn ask(
        &self,
        asker: Asker,
        question: &AgentQuestion,
        patience: Duration,
    ) -> Result<AgentAnswer, AppError> {
        let until = Instant::now() + patience;
        let mut wakes = self.bus.subscribe();
        let build = match self.store.ask_agent(asker, question).await {
            Ok(Asked::Waiting(build)) => build,
            Ok(Asked::Full) => {
                let detail = "too many messages to the agents of this build are on their way";
                return Err(Problem::new(429, "too-many-messages", detail).into());
            }
            Err(StoreError::NotFound(_)) => {
                let detail = format!("the stage has no agent {:?}", question.agent);
                return Err(Problem::new(403, "forbidden", detail).into());
            }
            Err(error) => return Err(error.into()),
        };
        self.bus.send(Message::Agent(build));
        if question.request.is_none() {
            return Ok(AgentAnswer::Unanswered { reason: "the connection has ended".to_owned() });
        }
        loop {
            let (taken, waited_secs) = match self.store.agent_answer(question.id).await? {
                AgentState::Answered(bytes) => {
                    return Ok(AgentAnswer::Answered { message: Secret::new(&bytes) });
                }
                AgentState::Gone => {
                    let reason = "the message was lost".to_owned();
                    return Ok(AgentAnswer::Unanswered { reason });
                }
                AgentState::Waiting { taken, waited_secs } => (taken, waited_secs),
            };
            let name = &question.agent;
            let reason = match taken {
                false if waited_secs > UNTAKEN_SECS => {
                    Some(format!("no client answers for agent {name}"))
                }
                true if waited_secs > UNANSWERED_SECS => {
                    Some(format!("agent {name} has not answered within {UNANSWERED_SECS} s"))
                }
                _ => None,
            };
            if let Some(reason) = reason {
                self.store.drop_agent_message(question.id).await?;
                return Ok(AgentAnswer::Unanswered { reason });
            }
            if Instant::now() >= until {
                return Ok(AgentAnswer::Pending);
            }
            wait(&mut wakes, build, until).await;
        }
    }
}

/// The client's default agent, for git while a build is planned.
#[derive(Debug)]
pub(super) struct PlannerAgent {
    desk: Desk,
    build: BuildId,
    planner: Uuid,
    unanswered: Mutex<Option<String>>,
}

impl PlannerAgent {
    /// Why a message got no answer, if one did not.
    pub(super) fn unanswered(&self) -> Option<String> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, reason: String) -> AgentText {
        *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        AgentText::failure()
    }

    fn question(&self, connection: Uuid, request: Option<AgentText>) -> (Asker, AgentQuestion) {
        let question = AgentQuestion {
            id: Uuid::now_v7(),
            agent: DEFAULT_AGENT.to_owned(),
            connection,
            request: request.map(AgentText::into_bytes),
        };
        (Asker::Planner(self.build, self.planner), question)
    }
}

impl Relay for PlannerAgent {
    async fn ask(&self, connection: Uuid, request: AgentText) -> AgentText {
        let (asker, question) = self.question(connection, Some(request));
        // Both limits, and a little more.
        let patience = Duration::from_secs_f64(UNTAKEN_SECS + UNANSWERED_SECS + 5.0);
        match self.desk.ask(asker, &question, patience).await {
            Ok(AgentAnswer::Answered { message }) => {
                let answer = message.value().and_then(AgentText::new);
                answer.unwrap_or_else(AgentText::failure)
            }
            Ok(AgentAnswer::Pending) => self.failed("the agent has not answered".to_owned()),
            Ok(AgentAnswer::Unanswered { reason }) => self.failed(reason),
            Err(error) => {
                tracing::warn!(build.id = %self.build, %error, "a message to an agent was not put");
                self.failed("the farm could not pass a message on".to_owned())
            }
        }
    }

    async fn closed(&self, connection: Uuid) {
        let (asker, question) = self.question(connection, None);
        // Its client forgets the connection at the end of the build at the latest.
        if let Err(error) = self.desk.ask(asker, &question, Duration::ZERO).await {
            tracing::debug!(build.id = %self.build, %error, "the end of a connection was not told");
        }
    }
}
