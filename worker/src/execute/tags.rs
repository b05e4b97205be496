//! Moving a tag, once the image is at the registry under its digest.
//!
//! The coordinator gives the right to move a tag for a while, to one build at a time, and to none
//! that was submitted before the build that has the tag. Whoever has the right writes the manifest
//! under the tag and breaks off when the time is over, measured from before it asked: the next one is
//! let in only after that. A registry has no write on condition, so one thing cannot be kept out: a
//! request that left here in time and lies in a queue between here and the registry's storage for
//! longer than the right lasts.

use api::worker::v1::{TagAnswer, TagRequest, TagStep};
use common::{BuildId, Failure, FailureClass};
use oci::Reference;
use registry::RegistryError;
use std::time::Duration;
use tokio::time::Instant;

use super::export::push_failure;
use super::failure::JobError;
use super::job::persist;
use crate::dispatch::{Held, Worker};

/// How often somebody who holds the tag is asked after.
const BUSY_PAUSE: Duration = Duration::from_millis(300);
/// How often writing is begun anew when the time for it was over.
const ROUNDS: u32 = 3;

/// Puts the tag of a reference on a manifest that the registry has. Gives the newer build that the
/// tag was left at instead, if there is one.
pub(super) async fn move_tag(
    worker: &Worker,
    held: &Held,
    name: &str,
    reference: &Reference,
    manifest: &[u8],
    media_type: &'static str,
) -> Result<Option<BuildId>, JobError> {
    for _ in 0..ROUNDS {
        let until = match right(worker, held, name).await? {
            Right::Until(until) => until,
            Right::Left(newer) => return Ok(Some(newer)),
        };
        let put = worker.registry.push_manifest(reference, manifest, media_type);
        match tokio::time::timeout_at(until, put).await {
            Ok(Ok(())) => {
                let (answer, _) = say(worker, held, name, TagStep::Moved).await?;
                let TagAnswer::Left { newer } = answer else { return Ok(None) };
                return Ok(Some(newer));
            }
            Ok(Err(error)) => {
                if matches!(error, RegistryError::Denied { .. } | RegistryError::NotFound(_)) {
                    say(worker, held, name, TagStep::Release).await?;
                }
                return Err(push_failure(&error).into());
            }
            Err(_) => {}
        }
    }
    let message = format!("the registry takes no manifest under {name} in time");
    Err(Failure::new(FailureClass::Registry, "registry-unreachable", message).into())
}

enum Right {
    Until(Instant),
    Left(BuildId),
}

/// Waits for the right to move a tag.
async fn right(worker: &Worker, held: &Held, name: &str) -> Result<Right, JobError> {
    loop {
        let (answer, asked) = say(worker, held, name, TagStep::Ask).await?;
        match answer {
            TagAnswer::Granted { good_millis } => {
                return Ok(Right::Until(asked + Duration::from_millis(good_millis)));
            }
            TagAnswer::Left { newer } => return Ok(Right::Left(newer)),
            TagAnswer::Busy | TagAnswer::Noted => {}
        }
        tokio::select! {
            () = tokio::time::sleep(BUSY_PAUSE) => {}
            () = held.cancel.cancelled() => return Err(JobError::Stopped),
        }
    }
}

/// Tells the coordinator. Gives its answer and when the call that it answers began.
async fn say(
    worker: &Worker,
    held: &Held,
    name: &str,
    step: TagStep,
) -> Result<(TagAnswer, Instant), JobError> {
    let request = TagRequest { lease: held.lease, name: name.to_owned(), step };
    persist(held, || async {
        let asked = Instant::now();
        Ok((worker.client.tag(&request).await?, asked))
    })
    .await
}
