//! `slipway projects`.

use std::process::ExitCode;

use api::public::v1::{ProjectSettings, ProjectView};
use client::public::Client;

use crate::args::ProjectsCommand;
use crate::exit::CliError;
use crate::output::{bytes, print};

/// Weight of a project that nobody gave one.
const USUAL_WEIGHT: u32 = 100;

pub(crate) async fn run(
    client: &Client,
    command: Option<&ProjectsCommand>,
) -> Result<ExitCode, CliError> {
    match command {
        None => {
            let projects = client.projects().await?;
            if projects.is_empty() {
                print("no projects: they are counted a moment after their first build");
            }
            projects.iter().for_each(show);
        }
        Some(ProjectsCommand::Set(set)) => {
            let settings = ProjectSettings {
                weight: set.weight,
                cache_bytes: set.cache_bytes,
                cache_seconds: set.cache_days.map(seconds),
                log_seconds: set.log_days.map(seconds),
                build_seconds: set.build_days.map(seconds),
            };
            show(&client.set_project(&set.name, &settings).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn seconds(days: u32) -> u64 {
    u64::from(days) * 24 * 3600
}

fn show(project: &ProjectView) {
    let limit = match project.settings.cache_bytes {
        Some(limit) if limit > 0 => format!(" of {}", bytes(limit)),
        _ => String::new(),
    };
    print(&format!(
        "{:20}  weight {:5}  {}{limit} in {} objects",
        project.name,
        project.settings.weight.unwrap_or(USUAL_WEIGHT),
        bytes(project.used_bytes),
        project.used_objects,
    ));
}
