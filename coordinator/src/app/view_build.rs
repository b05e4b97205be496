//! Builds as people see them.

use api::public::v1::{
    AttachedView, BuildPage, BuildView, ExportView, SliceTransferView, StageView, StepView,
    TimingView, WorkerView,
};
use api::worker::v1::SliceUse;
use blobstore::names;
use common::build::BuildState;
use common::stage::{StageKind, StageState};
use common::{BuildId, Digest, ProjectName};
use serde::de::DeserializeOwned;
use std::time::Duration;
use store::{BuildRow, ExportRow, StageRow, StepRow, StoreError, WorkerRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{App, AppError};

/// How long the address of an archive is good.
const DOWNLOAD_TIME: Duration = Duration::from_hours(1);

impl App {
    /// A build with its stages.
    pub(crate) async fn view_build(&self, id: BuildId) -> Result<BuildView, AppError> {
        let row = self.store.build(id).await?;
        let stages = self.store.build_stages(id).await?;
        let mut view = build_view(row)?;
        for stage in &stages {
            view.stages.push(stage_view(stage, &stages)?);
        }
        for export in self.store.build_exports(id).await? {
            view.exports.push(self.export_view(&view.project, export).await?);
        }
        Ok(view)
    }

    /// The project of a build: what a token has to be good for.
    pub(crate) async fn build_project(&self, id: BuildId) -> Result<ProjectName, AppError> {
        let row = self.store.build(id).await?;
        row.project.parse().map_err(|_| StoreError::WrongState("project name").into())
    }

    /// A page of builds without their stages.
    pub(crate) async fn list_builds(
        &self,
        projects: Option<Vec<String>>,
        before: Option<(OffsetDateTime, Uuid)>,
        limit: u32,
    ) -> Result<BuildPage, AppError> {
        let rows = self.store.builds(projects.as_deref(), before, limit).await?;
        let next_cursor = (rows.len() == limit as usize)
            .then(|| {
                rows.last()
                    .map(|row| format!("{}_{}", row.created_at.unix_timestamp_nanos(), row.id))
            })
            .flatten();
        let builds = rows.into_iter().map(build_view).collect::<Result<_, _>>()?;
        Ok(BuildPage { builds, next_cursor })
    }

    /// The workers.
    pub(crate) async fn list_workers(&self) -> Result<Vec<WorkerView>, AppError> {
        let lost_after = u64::try_from(self.lost_after.as_millis()).unwrap_or(u64::MAX);
        Ok(self
            .store
            .workers()
            .await?
            .into_iter()
            .map(|row| worker_view(row, lost_after))
            .collect())
    }

    async fn export_view(
        &self,
        project: &ProjectName,
        row: ExportRow,
    ) -> Result<ExportView, AppError> {
        let archive: Option<Digest> = row.archive.and_then(|digest| digest.parse().ok());
        let download_url = match archive {
            Some(digest) => {
                let name = names::export(project, &digest);
                Some(self.objects.presign_get(&name, DOWNLOAD_TIME).await?.url)
            }
            None => None,
        };
        let digest = |text: &str| text.parse().map_err(|_| StoreError::WrongState("export"));
        Ok(ExportView {
            kind: row.kind,
            names: document(row.names)?,
            left: document(row.left_names)?,
            digest: digest(&row.digest)?,
            config_digest: digest(&row.config_digest)?,
            download_url,
            download_bytes: row.archive_bytes,
        })
    }
}

fn document<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, AppError> {
    Ok(serde_json::from_value(value)?)
}

fn build_view(row: BuildRow) -> Result<BuildView, AppError> {
    Ok(BuildView {
        id: row.id,
        project: row.project.parse().map_err(|_| StoreError::WrongState("project name"))?,
        state: BuildState::from_name(&row.state).ok_or(StoreError::WrongState("build"))?,
        dockerfile: row.dockerfile,
        target: row.target,
        stages: Vec::new(),
        exports: Vec::new(),
        failure: row.failure.map(document).transpose()?,
        warnings: document(row.warnings)?,
        created_at: row.created_at,
        ended_at: row.ended_at,
    })
}

fn stage_view(row: &StageRow, all: &[StageRow]) -> Result<StageView, AppError> {
    let state = StageState::from_name(&row.state).ok_or(StoreError::WrongState("stage"))?;
    let mut timing = timing(&row.timing)?;
    timing.queue_millis = row.queue_millis;
    let used: Vec<SliceUse> = document(row.transfers.clone())?;
    let transfers = used
        .into_iter()
        .map(|used| SliceTransferView {
            from: used.stage,
            paths: used.selector.patterns().to_vec(),
            files: used.files,
            content_bytes: used.content_bytes,
            transferred_bytes: used.transferred_bytes,
        })
        .collect();
    Ok(StageView {
        id: row.id,
        label: row.label.clone(),
        kind: StageKind::from_name(&row.kind).ok_or(StoreError::WrongState("stage"))?,
        state,
        worker: row.worker.clone(),
        attempts: row.attempts,
        needs: row.needs.clone(),
        steps: row.steps.iter().map(step_view).collect::<Result<_, _>>()?,
        timing,
        transfers,
        uploaded_bytes: row.uploaded_bytes,
        started_at: row.started_at,
        ended_at: row.ended_at,
        failure: row.failure.clone().map(document).transpose()?,
        waiting_for: waiting_for(state, row, all),
        is_done: row.is_done,
        attached_to: row.attached_to.map(|(stage, build)| AttachedView { build, stage }),
    })
}

/// Why a stage waits, in words.
fn waiting_for(state: StageState, row: &StageRow, all: &[StageRow]) -> Option<String> {
    let open: Vec<&str> = all
        .iter()
        .filter(|other| {
            let ended = StageState::from_name(&other.state).is_some_and(StageState::is_terminal);
            row.needs.contains(&other.id) && !ended
        })
        .map(|other| other.label.as_str())
        .collect();
    match state {
        StageState::Waiting => Some(format!("waits for {}", open.join(", "))),
        StageState::Parked => Some(format!("waits for files of {}", open.join(", "))),
        StageState::Attached => {
            row.attached_to.map(|(_, build)| format!("runs as part of the build {build}"))
        }
        StageState::Ready => Some(
            row.unplaceable
                .clone()
                .unwrap_or_else(|| "waits for a worker with a free slot".to_owned()),
        ),
        _ => None,
    }
}

fn step_view(row: &StepRow) -> Result<StepView, AppError> {
    Ok(StepView {
        number: row.number,
        display: row.display.clone(),
        lines: row.lines,
        state: row.state.clone(),
        timing: timing(&row.timing)?,
    })
}

fn timing(value: &serde_json::Value) -> Result<TimingView, AppError> {
    match value.as_object() {
        Some(object) if object.is_empty() => Ok(TimingView::default()),
        _ => document(value.clone()),
    }
}

fn worker_view(row: WorkerRow, lost_after_millis: u64) -> WorkerView {
    let state = if row.lost {
        "lost"
    } else if row.last_seen_millis > lost_after_millis / 2 {
        "suspect"
    } else if row.draining {
        "draining"
    } else if row.quarantine.is_some() {
        "quarantined"
    } else {
        "live"
    };
    let seen = format!("it has not called for {} s", row.last_seen_millis / 1000);
    let idle_because = match (state, &row.quarantine) {
        ("lost" | "suspect", _) => Some(seen),
        ("draining", _) => Some("it is stopping".to_owned()),
        (_, Some((reason, secs))) => Some(format!("left alone for {secs} s: {reason}")),
        _ if row.free_slots == 0 => Some("its slots are taken".to_owned()),
        _ => None,
    };
    WorkerView {
        idle_because,
        labels: row.labels,
        cpu_millis: row.cpu_millis,
        memory_bytes: row.memory_bytes,
        id: row.id,
        name: row.name,
        state: state.to_owned(),
        platforms: row.platforms,
        slots: row.slots,
        used_slots: row.slots.saturating_sub(row.free_slots),
        version: row.version,
        last_seen_millis: row.last_seen_millis,
    }
}
