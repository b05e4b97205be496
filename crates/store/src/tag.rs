//! Tags of images: who may move them. A tag moves only forward, in the order in which the builds of
//! a project were submitted.
//!
//! A worker asks for the right to move one tag, writes the tag at the registry, and says that it has.
//! It holds one right at a time, so rights cannot be waited for in a circle, and it gives up writing
//! when the right has run out, measured from before it asked. Only then is the right given to
//! somebody else: whether or not the worker is still there, nothing that it sends arrives later than
//! that, as far as this side of the registry can tell.

use common::{BuildId, Epoch, Lease, ProjectName, StageId};
use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

use crate::{Result, Store, StoreError};

/// How long a right lasts. Writing one manifest takes far less; whoever comes after a dead worker
/// waits no longer than this.
const GRANT_SECS: f64 = 30.0;

/// What became of a wish to move a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagGrant {
    /// It may be moved, for so many milliseconds.
    Granted {
        /// Counted from when it was asked for.
        good_millis: u64,
    },
    /// Somebody else moves it just now.
    Busy,
    /// A build that was submitted later has moved it, or may have.
    Left {
        /// That build.
        newer: BuildId,
    },
}

/// A build's place in the order.
type Place = (OffsetDateTime, Uuid);

struct Tag {
    mover: Option<Place>,
    holder: Option<(Place, Lease)>,
    is_held: bool,
}

impl Tag {
    /// What a build that asks is told. A newer holder whose time ran out without a word may have
    /// written the tag: it is not overwritten. Nobody waits for it either: it may itself be waiting
    /// for the slot of the one who asks.
    fn grant(&self, asks: Place, with: Lease) -> TagGrant {
        let newer = |place: Option<Place>| place.filter(|place| *place > asks);
        if let Some((_, newer)) = newer(self.mover) {
            return TagGrant::Left { newer: BuildId(newer) };
        }
        match self.holder {
            // Another attempt of the same build too: what it sends late would still arrive.
            Some((_, lease)) if lease != with && self.is_held => TagGrant::Busy,
            Some((holder, _)) if holder > asks => TagGrant::Left { newer: BuildId(holder.1) },
            _ => TagGrant::Granted { good_millis: millis(GRANT_SECS) },
        }
    }
}

fn millis(secs: f64) -> u64 {
    std::time::Duration::from_secs_f64(secs).as_millis().try_into().unwrap_or(u64::MAX)
}

impl Store {
    /// Asks for the right to move a tag. Asking again with the same lease renews it.
    pub async fn ask_for_tag(&self, lease: Lease, name: &str) -> Result<TagGrant> {
        let mut transaction = self.begin().await?;
        let (project, asks) = asking(&mut transaction, lease).await?;
        sqlx::query!(
            "insert into image_tag (project, name) values ($1, $2) on conflict do nothing",
            project.as_str(),
            name,
        )
        .execute(&mut *transaction)
        .await?;
        let grant = lock(&mut transaction, &project, name).await?.grant(asks, lease);
        if matches!(grant, TagGrant::Granted { .. }) {
            sqlx::query!(
                r#"update image_tag set holder = $3, holder_at = $4, holder_stage = $5,
                          holder_epoch = $6,
                          held_until = clock_timestamp() + make_interval(secs => $7)
                   where project = $1 and name = $2"#,
                project.as_str(),
                name,
                asks.1,
                asks.0,
                lease.stage.0,
                lease.epoch.0,
                GRANT_SECS,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(grant)
    }

    /// The holder of a right has moved the tag. Saying it twice changes nothing. Gives the newer
    /// build, if one has moved the tag since.
    pub async fn tag_moved(&self, lease: Lease, name: &str) -> Result<Option<BuildId>> {
        let mut transaction = self.begin().await?;
        let (project, asks) = asking(&mut transaction, lease).await?;
        let tag = lock(&mut transaction, &project, name).await?;
        let newer = tag.mover.filter(|place| *place > asks);
        if newer.is_none() {
            sqlx::query!(
                "update image_tag set mover = $3, mover_at = $4 where project = $1 and name = $2",
                project.as_str(),
                name,
                asks.1,
                asks.0,
            )
            .execute(&mut *transaction)
            .await?;
        }
        give_back(&mut transaction, &project, name, lease).await?;
        transaction.commit().await?;
        Ok(newer.map(|(_, newer)| BuildId(newer)))
    }

    /// The holder of a right knows that it has not moved the tag, and will not.
    pub async fn release_tag(&self, lease: Lease, name: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        let (project, _) = asking(&mut transaction, lease).await?;
        give_back(&mut transaction, &project, name, lease).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The project and the place of the build that a live lease belongs to. The stage cannot end, and
/// nobody can be given it, before the transaction has.
async fn asking(connection: &mut sqlx::PgConnection, lease: Lease) -> Result<(ProjectName, Place)> {
    let row = sqlx::query!(
        r#"select s.project, b.id, b.created_at from stage s join build b on b.id = s.build_id
           where s.id = $1 and s.epoch = $2 and s.state in ('running', 'parked')
             and s.kind = 'export' and s.drop_reason is null for share of s"#,
        lease.stage.0,
        lease.epoch.0,
    )
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(StoreError::StaleLease)?;
    let project = row.project.parse().map_err(|_| StoreError::WrongState("project name"))?;
    Ok((project, (row.created_at, row.id)))
}

/// Ends the right that a lease holds, if it holds it.
async fn give_back(
    connection: &mut sqlx::PgConnection,
    project: &ProjectName,
    name: &str,
    lease: Lease,
) -> Result<()> {
    sqlx::query!(
        r#"update image_tag set holder = null, holder_at = null, holder_stage = null,
                  holder_epoch = null, held_until = null
           where project = $1 and name = $2 and holder_stage = $3 and holder_epoch = $4"#,
        project.as_str(),
        name,
        lease.stage.0,
        lease.epoch.0,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn lock(
    connection: &mut sqlx::PgConnection,
    project: &ProjectName,
    name: &str,
) -> Result<Tag> {
    // The clock, not the transaction's beginning: it may have waited for the lock.
    let row = sqlx::query!(
        r#"select mover, mover_at, holder, holder_at, holder_stage, holder_epoch,
                  coalesce(held_until > clock_timestamp(), false) as "is_held!"
           from image_tag where project = $1 and name = $2 for update"#,
        project.as_str(),
        name,
    )
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(StoreError::NotFound("tag"))?;
    let held_by = row.holder_stage.zip(row.holder_epoch);
    let held_by =
        held_by.map(|(stage, epoch)| Lease { stage: StageId(stage), epoch: Epoch(epoch) });
    Ok(Tag {
        mover: row.mover_at.zip(row.mover),
        holder: row.holder_at.zip(row.holder).zip(held_by),
        is_held: row.is_held,
    })
}
