//! Builds: from submission to the plan, and their early end.

use common::outcome::Failure;
use common::{BuildId, Domain};
use serde_json::Value;
use uuid::Uuid;

use crate::cache::domain_of;
use crate::flight::wanted_by_others;
use crate::{Result, Store, StoreError, write};

/// How long a planner may be silent before another one takes its build.
const PLANNER_LEASE_SECS: f64 = 20.0;
/// How often a planner says that it is still at it: three chances within its lease.
pub const PLANNER_RENEW: std::time::Duration = std::time::Duration::from_secs(6);

/// A build to store.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// Its id.
    pub id: BuildId,
    /// Its trust domain.
    pub domain: Domain,
    /// The request as it came.
    pub request: Value,
    /// Idempotency-Key.
    pub request_key: Option<String>,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// Target.
    pub target: Option<String>,
    /// Its secrets, sealed, by name.
    pub secrets: Vec<(String, Vec<u8>)>,
    /// Its place among others.
    pub order: BuildOrder,
}

/// The place of a build among others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildOrder {
    /// Higher goes first within the project.
    pub priority: i16,
    /// Longest time in seconds.
    pub timeout_secs: Option<u32>,
    /// It ends older builds of its trust domain with the same key.
    pub supersede_key: Option<String>,
}

/// What a submission came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// The build is new.
    New(BuildId),
    /// A build with this key exists.
    Existing(BuildId),
}

/// A build that this process may plan for a while.
#[derive(Debug, Clone)]
pub struct ClaimedBuild {
    /// Its id.
    pub id: BuildId,
    /// Its trust domain.
    pub domain: Domain,
    /// The request as it came.
    pub request: Value,
}

impl Store {
    /// Stores a build as `queued`, once for each key.
    pub async fn submit_build(&self, build: &NewBuild) -> Result<Submitted> {
        let mut transaction = self.begin().await?;
        if let Some(key) = &build.order.supersede_key {
            // Of two that come at once one is the newer.
            let lock = format!("{}/{key}", build.domain.project);
            sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", lock)
                .execute(&mut *transaction)
                .await?;
        }
        let inserted = sqlx::query_scalar!(
            r#"insert into build (id, project, request, request_key, dockerfile, target, priority,
                                  supersede_key, timeout_secs, deadline, untrusted)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9,
                       now() + make_interval(secs => $9::int), $10)
               on conflict (project, request_key) do nothing
               returning id"#,
            build.id.0,
            build.domain.project.as_str(),
            build.request,
            build.request_key,
            build.dockerfile,
            build.target,
            build.order.priority,
            build.order.supersede_key,
            build.order.timeout_secs.map(crate::int),
            build.domain.trust.is_untrusted(),
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if inserted.is_some() {
            for (name, sealed) in &build.secrets {
                sqlx::query!(
                    "insert into build_secret (build_id, name, sealed) values ($1, $2, $3)",
                    build.id.0,
                    name,
                    sealed,
                )
                .execute(&mut *transaction)
                .await?;
            }
            if let Some(key) = &build.order.supersede_key {
                supersede(&mut transaction, build, key).await?;
            }
            transaction.commit().await?;
            return Ok(Submitted::New(build.id));
        }
        transaction.rollback().await?;
        let existing = sqlx::query_scalar!(
            "select id from build where project = $1 and request_key = $2",
            build.domain.project.as_str(),
            build.request_key,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Submitted::Existing(BuildId(existing)))
    }

    /// Takes the oldest build that nobody plans.
    pub async fn claim_build(&self, planner: Uuid) -> Result<Option<ClaimedBuild>> {
        let row = sqlx::query!(
            r#"update build set state = 'planning', planner = $1,
                      planner_until = now() + make_interval(secs => $2)
               where id = (select id from build
                           where state = 'queued' or (state = 'planning' and planner_until < now())
                           order by created_at limit 1 for update skip locked)
               returning id, project, untrusted, request"#,
            planner,
            PLANNER_LEASE_SECS,
        )
        // All rows, not the first one: only then has the statement been committed, and what is
        // claimed is acted on.
        .fetch_all(&self.pool)
        .await?;
        row.into_iter()
            .next()
            .map(|row| {
                let domain = domain_of(&row.project, row.untrusted)?;
                Ok(ClaimedBuild { id: BuildId(row.id), domain, request: row.request })
            })
            .transpose()
    }

    /// Ends a build that could not be planned.
    pub async fn fail_planning(
        &self,
        build: BuildId,
        planner: Uuid,
        failure: &Failure,
    ) -> Result<()> {
        let failure = write("failure", failure)?;
        let done = sqlx::query!(
            r#"update build set state = 'failed', failure = $3, ended_at = now()
               where id = $1 and state = 'planning' and planner = $2"#,
            build.0,
            planner,
            failure,
        )
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::WrongState("build")) }
    }

    /// The planner is still at it. Returns false when the build is not its to plan any more.
    pub async fn renew_planning(&self, build: BuildId, planner: Uuid) -> Result<bool> {
        let done = sqlx::query!(
            r#"update build set planner_until = now() + make_interval(secs => $3)
               where id = $1 and state = 'planning' and planner = $2"#,
            build.0,
            planner,
            PLANNER_LEASE_SECS,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a build back that could not be planned for a passing reason.
    pub async fn release_build(&self, build: BuildId, planner: Uuid) -> Result<()> {
        sqlx::query!(
            r#"update build set planner_until = now() + make_interval(secs => 1)
               where id = $1 and state = 'planning' and planner = $2"#,
            build.0,
            planner,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends a build on request. Stages that nobody holds end at once, holders are told. Returns
    /// false when the build had ended before.
    pub async fn cancel_build(&self, build: BuildId, failure: &Failure) -> Result<bool> {
        self.end_build(build, "cancelled", failure).await
    }

    /// Fails a build whatever its stages do. Returns false when it had ended before.
    pub async fn fail_build(&self, build: BuildId, failure: &Failure) -> Result<bool> {
        self.end_build(build, "failed", failure).await
    }

    async fn end_build(&self, build: BuildId, state: &str, failure: &Failure) -> Result<bool> {
        let failure = write("failure", failure)?;
        let mut transaction = self.begin().await?;
        let done = sqlx::query!(
            r#"update build set state = $3, failure = $2, ended_at = now()
               where id = $1 and state in ('queued', 'planning', 'running')"#,
            build.0,
            failure,
            state,
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            let exists = sqlx::query_scalar!("select id from build where id = $1", build.0)
                .fetch_optional(&mut *transaction)
                .await?;
            return exists.map(|_| false).ok_or(StoreError::NotFound("build"));
        }
        let reason = if state == "cancelled" { "cancelled" } else { "build_failed" };
        drop_stages(&mut transaction, build.0, reason).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Ends the older builds of a trust domain with this key.
async fn supersede(connection: &mut sqlx::PgConnection, build: &NewBuild, key: &str) -> Result<()> {
    let message = format!("a newer build of {key} has come: {}", build.id);
    let failure =
        write("failure", &Failure::new(common::FailureClass::Cancelled, "superseded", message))?;
    let ended = sqlx::query_scalar!(
        r#"with older as (
               select id from build
               where project = $1 and supersede_key = $2 and id <> $3 and untrusted = $5
                 and state in ('queued', 'planning', 'running')
               order by id for update)
           update build b set state = 'superseded', failure = $4, ended_at = now()
           from older where b.id = older.id returning b.id"#,
        build.domain.project.as_str(),
        key,
        build.id.0,
        failure,
        build.domain.trust.is_untrusted(),
    )
    .fetch_all(&mut *connection)
    .await?;
    for older in ended {
        drop_stages(connection, older, "cancelled").await?;
    }
    Ok(())
}

/// Ends the stages of a build that has ended: those that wait at once, held ones through their
/// holder. What other builds wait for goes on.
pub(crate) async fn drop_stages(
    connection: &mut sqlx::PgConnection,
    build: Uuid,
    reason: &str,
) -> Result<()> {
    let kept = wanted_by_others(connection, build).await?;
    sqlx::query!(
        r#"update stage set state = 'cancelled', ended_at = now()
           where build_id = $1 and state in ('waiting', 'ready', 'attached')
             and id <> all($2)"#,
        build,
        &kept,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        r#"update stage set drop_reason = $2
           where build_id = $1 and state in ('running', 'parked') and drop_reason is null
             and id <> all($3)"#,
        build,
        reason,
        &kept,
    )
    .execute(connection)
    .await?;
    Ok(())
}
