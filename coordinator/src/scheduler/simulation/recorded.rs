//! Builds that were run.

use api::public::v1::{BuildView, StageView};
use common::stage::{StageKind, StageState};
use time::OffsetDateTime;

use super::workload::{Copy, Job, Workload};

/// A recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is no build.
    #[error("not a build as `slipway show --json` prints it: {0}")]
    Document(#[from] serde_json::Error),
    /// Nothing ran.
    #[error("no stage of the build ran")]
    Empty,
}

/// A build as the API shows it, so many times over: `slipway show --json BUILD` records it. Stages
/// that did not run are left out; whether one started from another or copied out of it is told by
/// whether it began before that had ended.
pub fn recorded(text: &[u8], times: usize) -> Result<Workload, RecordingError> {
    let view: BuildView = serde_json::from_slice(text)?;
    let ran =
        |stage: &&StageView| stage.state == StageState::Succeeded && stage.kind == StageKind::Stage;
    let stages: Vec<&StageView> = view.stages.iter().filter(ran).collect();
    if stages.is_empty() {
        return Err(RecordingError::Empty);
    }
    let mut workload = Workload::default();
    for _ in 0..times {
        let first = workload.jobs.len();
        for (position, stage) in stages.iter().enumerate() {
            workload.jobs.push(job(&view, stage, &stages[..position], first));
        }
    }
    Ok(workload)
}

fn job(view: &BuildView, stage: &StageView, before: &[&StageView], first: usize) -> Job {
    let timing = &stage.timing;
    let run_millis = timing.run_millis + timing.snapshot_millis + timing.upload_millis;
    let (mut base, mut copies) = (None, Vec::new());
    for (position, producer) in before.iter().enumerate() {
        if !stage.needs.contains(&producer.id) {
            continue;
        }
        let (from, late) = (first + position, millis_between(stage.started_at, producer.ended_at));
        if late == 0 && base.is_none() {
            base = Some(from);
        } else {
            let at_millis = late.saturating_sub(timing.parked_millis).min(run_millis);
            copies.push(Copy { from, at_millis });
        }
    }
    copies.sort_by_key(|copy| copy.at_millis);
    let project = view.project.to_string();
    let bytes = stage.uploaded_bytes;
    Job { project, priority: 0, arrives_millis: 0, run_millis, base, image: 0, bytes, copies }
}

/// How much later the second time is.
fn millis_between(start: Option<OffsetDateTime>, end: Option<OffsetDateTime>) -> u64 {
    let (Some(start), Some(end)) = (start, end) else { return 0 };
    u64::try_from((end - start).whole_milliseconds()).unwrap_or(0)
}
