//! Messages to and from the SSH agents of clients, while they are on their way.
//!
//! Who asks adds a row and looks for its answer; who answers takes the rows of a build. An answer is
//! read once, and its row is gone.

use common::{BuildId, Lease};
use uuid::Uuid;

use crate::{Result, Store, StoreError};

/// Most messages of a build at once: sixteen connections for each of eight mounts.
const MAX_PENDING: i64 = 128;
/// Most messages that are given to a client at once.
const MAX_TAKEN: i64 = 16;
/// Nobody waits for an answer any more after this time.
const FORGET_SECS: f64 = 600.0;

/// A message to an agent.
#[derive(Debug, Clone)]
pub struct AgentQuestion {
    /// Its id: the same id is the same message.
    pub id: Uuid,
    /// The agent's name.
    pub agent: String,
    /// By which connection.
    pub connection: Uuid,
    /// What; nothing tells that the connection has ended.
    pub request: Option<Vec<u8>>,
}

/// Who asks, and has to be the one who may.
#[derive(Debug, Clone, Copy)]
pub enum Asker {
    /// The holder of a stage's lease.
    Lease(Lease),
    /// The planner of a build.
    Planner(BuildId, Uuid),
}

/// What became of a message that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It waits for a client of this build.
    Waiting(BuildId),
    /// Too many do.
    Full,
}

/// Where a message stands.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentState {
    /// The answer; the message is gone.
    Answered(Vec<u8>),
    /// There is none yet.
    Waiting {
        /// Whether a client has it.
        taken: bool,
        /// For how long.
        waited_secs: f64,
    },
    /// The message is not there: it was dropped, or lost.
    Gone,
}

/// A message that waits for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its id.
    pub id: Uuid,
    /// The agent's name.
    pub agent: String,
    /// By which connection.
    pub connection: Uuid,
    /// What.
    pub request: Vec<u8>,
}

impl Store {
    /// Puts a message to an agent that the stage, or the build while it is planned, may use. Putting
    /// it again changes nothing.
    pub async fn ask_agent(&self, asker: Asker, question: &AgentQuestion) -> Result<Asked> {
        let build = match asker {
            Asker::Lease(lease) => self.agent_of_stage(lease, &question.agent).await?,
            Asker::Planner(build, planner) => {
                self.agent_of_plan(build, planner, &question.agent).await?
            }
        };
        let done = sqlx::query!(
            r#"insert into agent_message (id, build_id, agent, connection, request)
               select $1, b.id, $3, $4, $5 from build b
               where b.id = $2 and b.state in ('planning', 'running')
                 and (select count(*) from agent_message m where m.build_id = b.id) < $6
               on conflict (id) do nothing"#,
            question.id,
            build.0,
            question.agent,
            question.connection,
            question.request.as_deref(),
            MAX_PENDING,
        )
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(Asked::Waiting(build));
        }
        let known = sqlx::query_scalar!(
            "select id from agent_message where id = $1 and build_id = $2",
            question.id,
            build.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(known.map_or(Asked::Full, |_| Asked::Waiting(build)))
    }

    /// The build of a live lease whose stage may use an agent.
    async fn agent_of_stage(&self, lease: Lease, agent: &str) -> Result<BuildId> {
        let row = sqlx::query!(
            r#"select s.build_id, coalesce(d.plan->'agents' ? $3, false) as "may!"
               from stage s join stage_detail d on d.stage_id = s.id
               where s.id = $1 and s.epoch = $2 and s.state in ('running', 'parked')
                 and s.drop_reason is null"#,
            lease.stage.0,
            lease.epoch.0,
            agent,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::StaleLease)?;
        if row.may { Ok(BuildId(row.build_id)) } else { Err(StoreError::NotFound("agent")) }
    }

    async fn agent_of_plan(&self, build: BuildId, planner: Uuid, agent: &str) -> Result<BuildId> {
        let may = sqlx::query_scalar!(
            r#"select coalesce(request->'agents' ? $3, false) as "may!" from build
               where id = $1 and planner = $2 and state = 'planning'"#,
            build.0,
            planner,
            agent,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::WrongState("build"))?;
        if may { Ok(build) } else { Err(StoreError::NotFound("agent")) }
    }

    /// Takes the answer to a message, or says that there is none yet.
    pub async fn agent_answer(&self, id: Uuid) -> Result<AgentState> {
        let answered = sqlx::query_scalar!(
            r#"delete from agent_message where id = $1 and answer is not null
               returning answer as "answer!""#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        if let Some(answer) = answered {
            return Ok(AgentState::Answered(answer));
        }
        let row = sqlx::query!(
            r#"select taken_at is not null as "taken!",
                      extract(epoch from now() - coalesce(taken_at, created_at))::float8 as "waited!"
               from agent_message where id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map_or(AgentState::Gone, |row| AgentState::Waiting {
            taken: row.taken,
            waited_secs: row.waited,
        }))
    }

    /// Nobody waits for the answer any more.
    pub async fn drop_agent_message(&self, id: Uuid) -> Result<()> {
        sqlx::query!("delete from agent_message where id = $1", id).execute(&self.pool).await?;
        Ok(())
    }

    /// Messages of a build that wait for an answer, oldest first, without those that the client works
    /// on; and the connections that have ended. The first are given again until they are answered.
    pub async fn take_agent_messages(
        &self,
        build: BuildId,
        working_on: &[Uuid],
    ) -> Result<(Vec<AgentRow>, Vec<Uuid>)> {
        let ended = sqlx::query_scalar!(
            "delete from agent_message where build_id = $1 and request is null returning connection",
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut rows = sqlx::query!(
            r#"with waiting as (
                   select id from agent_message
                   where build_id = $1 and request is not null and answer is null
                     and id <> all($2)
                   order by created_at, id limit $3 for update)
               update agent_message m set taken_at = coalesce(m.taken_at, now())
               from waiting w where m.id = w.id
               returning m.id, m.agent, m.connection, m.request as "request!", m.created_at"#,
            build.0,
            working_on,
            MAX_TAKEN,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.sort_by_key(|row| row.created_at);
        let rows = rows.into_iter().map(|row| AgentRow {
            id: row.id,
            agent: row.agent,
            connection: row.connection,
            request: row.request,
        });
        Ok((rows.collect(), ended))
    }

    /// Stores the answer to a message of a build; the first one counts. False when nobody waits for
    /// it.
    pub async fn answer_agent(&self, build: BuildId, id: Uuid, answer: &[u8]) -> Result<bool> {
        let done = sqlx::query!(
            r#"update agent_message set answer = $3
               where id = $1 and build_id = $2 and request is not null and answer is null"#,
            id,
            build.0,
            answer,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes messages of builds that have ended, and those that nobody can wait for any more.
    pub async fn forget_agent_messages(&self) -> Result<u64> {
        let done = sqlx::query!(
            r#"delete from agent_message m using build b
               where b.id = m.build_id
                 and (b.state in ('succeeded', 'failed', 'cancelled', 'superseded')
                      or m.created_at < now() - make_interval(secs => $1))"#,
            FORGET_SECS,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
