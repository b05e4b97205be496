//! All SQL of Slipway: a file per aggregate, checked against the schema when compiled.
//!
//! Postgres is the only truth. One use case is one transaction; every write that depends on a state
//! names the state and the lease and checks that it hit. All times are the database's `now()`.

mod agent;
mod build;
mod cache;
mod claim;
mod content;
mod damage;
mod exchange;
mod export;
mod finish;
mod flight;
mod history;
mod image;
mod job;
mod log;
mod object;
mod plan;
mod purge;
mod quarantine;
mod ready;
mod result;
mod retention;
mod retry;
mod secret;
mod tag;
mod upkeep;
mod view;
mod why;
mod worker;

pub use agent::{AgentQuestion, AgentRow, AgentState, Asked, Asker};
pub use build::{BuildOrder, ClaimedBuild, NewBuild, PLANNER_RENEW, Submitted};
pub use cache::{CachedSlice, SliceKey};
pub use claim::{Claim, Given, Watch};
pub use content::{ContentFacts, ContentFound};
pub use exchange::{Exchange, Exchanged};
pub use finish::Finishes;
pub use history::chain_of;
pub use job::StageJobRow;
pub use log::ChunkRow;
pub use object::{ObjectKey, ObjectRow};
pub use plan::{NewEdge, NewPlan, NewStage, NewStep, Placing};
pub use purge::{Purged, PurgedBytes};
pub use quarantine::QuarantineRule;
pub use ready::{AskingRow, NeedsRow, OfferRow, ReadyRow};
pub use result::{Finished, NewExport, Outcome, Resulted, Spent, StepNews};
pub use retention::{Doomed, ProjectRow, ProjectSettings, Retention};
pub use retry::Retried;
pub use tag::TagGrant;
pub use upkeep::UnplaceableRow;
pub use view::{BuildRow, ExportRow, QueueCounts, StageRow, StepRow, WorkerRow};
pub use why::{KeyedStage, KeyedStep};
pub use worker::{Held, HeldRow, SyncState, WorkerFacts};

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// The migrations, embedded.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// A call to the database failed, or found what it must not find.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such row.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The lease is not live: the stage was given to somebody else, has ended, or never was.
    #[error("the lease is not live")]
    StaleLease,
    /// The row is not in a state in which this can be done.
    #[error("the {0} is in another state")]
    WrongState(&'static str),
    /// An object is being deleted.
    #[error("an object is being deleted")]
    Deleting,
    /// The cache has changed since the plan was made.
    #[error("the plan is old")]
    PlanIsOld,
    /// A stored document is not what it should be.
    #[error("a stored {what} cannot be read: {source}")]
    Damaged {
        /// What it is.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The database.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema.
    #[error("the schema cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// A connection that was in use this long ago is not tested before its next use.
const TRUSTED: Duration = Duration::from_millis(500);

/// What a call gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Connections of [`Store::hot`].
const HOT_CONNECTIONS: u32 = 4;

/// A pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: sqlx::PgPool,
    /// For the statements that stand between a stage that is ready and its worker. Postgres plans them
    /// once a connection: with the values at hand it takes three times as long to plan them as to run
    /// them. What a plan is made from may be old by then, so it goes by indexes whatever the tables
    /// are like: these statements read few rows of tables that may be large.
    hot: sqlx::PgPool,
}

/// How the schema compares to what this program expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// All migrations have run.
    Current,
    /// Migrations are missing.
    Behind,
    /// The schema has migrations that this program does not know.
    Ahead,
}

impl Store {
    /// Connects. The database may be starting: tries for ten seconds.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("slipway-coordinator").options([
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "15s"),
            // Statements take milliseconds: compiling one never pays.
            ("jit", "off"),
        ]);
        let planned_once = options
            .clone()
            .options([("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")]);
        let pool = Self::pool_of(max_connections).connect_with(options).await?;
        let hot = Self::pool_of(HOT_CONNECTIONS).connect_with(planned_once).await?;
        Ok(Self { pool, hot })
    }

    fn pool_of(max_connections: u32) -> PgPoolOptions {
        PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            // A connection that was in use a moment ago is there: asking it costs every call a
            // round trip. One that has lain idle may have lost its server.
            .test_before_acquire(false)
            .before_acquire(|connection, found| {
                Box::pin(async move {
                    if found.idle_for > TRUSTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
    }

    /// Begins a transaction.
    ///
    /// In a task of its own: the caller may be gone at any moment (a client that hangs up ends the
    /// handler of its request), and a `begin` of sqlx 0.9.0 that is given up half way leaves its
    /// connection in the pool with a transaction that nobody knows of; all that others then write
    /// through it is lost (sqlx issues 4385 and 4393). The task goes on to its end, and the drop of
    /// what it made rolls back.
    pub(crate) async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        let pool = self.pool.clone();
        match tokio::spawn(async move { pool.begin().await }).await {
            Ok(transaction) => Ok(transaction?),
            // Only when the program ends.
            Err(_) => Err(StoreError::Database(sqlx::Error::PoolClosed)),
        }
    }

    /// Runs the migrations that are missing.
    pub async fn migrate(&self) -> Result<()> {
        Ok(MIGRATOR.run(&self.pool).await?)
    }

    /// Compares the schema with the program.
    pub async fn schema_state(&self) -> Result<SchemaState> {
        let exists = sqlx::query_scalar!(
            r#"select to_regclass('_sqlx_migrations') is not null as "exists!""#
        )
        .fetch_one(&self.pool)
        .await?;
        if !exists {
            return Ok(SchemaState::Behind);
        }
        // The table belongs to the migration tool, so the query is not checked at compile time.
        let done: Vec<i64> =
            sqlx::query_scalar("select version from _sqlx_migrations where success")
                .fetch_all(&self.pool)
                .await?;
        let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        Ok(if known.iter().any(|version| !done.contains(version)) {
            SchemaState::Behind
        } else if done.iter().any(|version| !known.contains(version)) {
            SchemaState::Ahead
        } else {
            SchemaState::Current
        })
    }

    /// Whether the database answers.
    pub async fn check(&self) -> Result<()> {
        sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(&self.pool).await?;
        Ok(())
    }
}

/// A stored document back as what it was.
fn read<T: serde::de::DeserializeOwned>(what: &'static str, value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value).map_err(|source| StoreError::Damaged { what, source })
}

/// A document to store.
fn write<T: serde::Serialize>(what: &'static str, value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|source| StoreError::Damaged { what, source })
}

/// A number as Postgres has it; what does not fit cannot be right and is cut.
fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// A number as Postgres has it.
fn bigint(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
