//! Projects: what was set for them, and what they take.

use api::Problem;
use api::public::v1::{ProjectSettings, ProjectView};
use common::ProjectName;
use store::ProjectRow;

use super::{App, AppError};

/// Greatest weight.
const MAX_WEIGHT: u32 = 100_000;
/// Longest time in seconds: a hundred years.
const MAX_SECS: u64 = 100 * 365 * 24 * 3600;

impl App {
    /// All projects that the caller may see.
    pub(crate) async fn list_projects(
        &self,
        may_see: impl Fn(&ProjectName) -> bool,
    ) -> Result<Vec<ProjectView>, AppError> {
        let rows = self.store.projects().await?;
        let seen = rows.into_iter().filter(|row| row.name.parse().is_ok_and(|name| may_see(&name)));
        Ok(seen.map(view).collect())
    }

    /// Changes what is given.
    pub(crate) async fn set_project(
        &self,
        name: &ProjectName,
        settings: &ProjectSettings,
        by: &str,
    ) -> Result<ProjectView, AppError> {
        let bad = |detail: String| Err(Problem::new(400, "bad-setting", detail).into());
        if settings.weight.is_some_and(|weight| weight == 0 || weight > MAX_WEIGHT) {
            return bad(format!("a weight is 1 to {MAX_WEIGHT}"));
        }
        if settings.cache_bytes.is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            return bad("cache_bytes is too big".to_owned());
        }
        let times = [settings.cache_seconds, settings.log_seconds, settings.build_seconds];
        if times.into_iter().flatten().any(|secs| secs == 0 || secs > MAX_SECS) {
            return bad(format!("a time is 1 to {MAX_SECS} seconds"));
        }
        let changed = store::ProjectSettings {
            weight: settings.weight,
            cache_bytes: settings.cache_bytes,
            cache_secs: settings.cache_seconds,
            logs_secs: settings.log_seconds,
            builds_secs: settings.build_seconds,
        };
        self.store.set_project(name.as_str(), &changed).await?;
        self.load_weights().await?;
        tracing::info!(project = %name, by, ?settings, "project settings changed");
        let rows = self.store.projects().await?;
        let row = rows.into_iter().find(|row| row.name == name.as_str());
        row.map(view).ok_or_else(|| store::StoreError::NotFound("project").into())
    }

    /// Takes over the weights of projects: other coordinators may have set them.
    pub(crate) async fn load_weights(&self) -> store::Result<()> {
        let weights = self.store.weights().await?.into_iter().collect();
        self.weights.send_replace(weights);
        Ok(())
    }
}

fn view(row: ProjectRow) -> ProjectView {
    ProjectView {
        name: row.name,
        settings: ProjectSettings {
            weight: row.settings.weight,
            cache_bytes: row.settings.cache_bytes,
            cache_seconds: row.settings.cache_secs,
            log_seconds: row.settings.logs_secs,
            build_seconds: row.settings.builds_secs,
        },
        used_bytes: row.used_bytes,
        used_objects: row.used_objects,
        over_bytes: row.over_bytes,
        counted_seconds: row.measured_secs,
    }
}
