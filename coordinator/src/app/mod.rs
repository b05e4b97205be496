//! Use cases, one verb a file.

mod answer_export;
mod assign;
mod cancel_build;
mod check_file;
mod decide;
pub(crate) mod documents;
mod explain_build;
mod layouts;
mod look_up;
mod move_tag;
mod negotiate_context;
mod new_plan;
mod options;
mod outputs;
mod place;
pub(crate) mod plan_build;
mod presign_objects;
mod projects;
mod purge_build;
mod read_log;
mod reasons;
mod refresh;
mod relay_agent;
mod remotes;
mod report;
mod retry_build;
mod show_plan;
mod state;
mod submit_build;
mod sync_worker;
mod targets;
mod view_build;

pub(crate) use read_log::{Cursor, LogEvent};
pub(crate) use state::{App, AppError, Keeping};
pub(crate) use submit_build::are_labels;
pub(crate) use sync_worker::{needs, offer};
