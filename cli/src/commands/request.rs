//! From the command line to a request.

use std::collections::BTreeMap;

use api::public::v1::{BuildRequest, BuildSource, ContextSource, OutputRequest};
use common::{Platform, ProjectName, Trust};

use super::options::{commands, requirements, seconds, secrets};
use crate::agent;
use crate::args::{Build, Progress};
use crate::exit::CliError;

/// The request for a build.
pub(crate) fn request(
    arguments: &Build,
    project: ProjectName,
    source: ContextSource,
    outputs: Vec<OutputRequest>,
) -> Result<BuildRequest, CliError> {
    let platforms = platforms(arguments)?;
    Ok(BuildRequest {
        project,
        trust: if arguments.placing.untrusted { Trust::Untrusted } else { Trust::Trusted },
        source: BuildSource::Context(source),
        target: arguments.target.clone(),
        build_args: build_args(&arguments.build_arg),
        labels: pairs(&arguments.label),
        platforms,
        contexts: BTreeMap::new(),
        secrets: secrets(&arguments.secret)?,
        agents: agent::names(&arguments.ssh)?,
        commands: commands(arguments)?,
        no_cache: arguments.no_cache,
        no_cache_stages: arguments.no_cache_filter.clone(),
        pull: arguments.pull,
        outputs,
        await_digests: wants_digest(arguments),
        targets: Vec::new(),
        priority: arguments.placing.priority,
        timeout_seconds: seconds("--timeout", arguments.placing.timeout.as_deref())?,
        stage_timeout_seconds: seconds(
            "--stage-timeout",
            arguments.placing.stage_timeout.as_deref(),
        )?,
        supersede: arguments.placing.supersede.clone(),
        requires: requirements(&arguments.placing.require)?,
    })
}

/// Whether somebody is waiting for the digest of an image, wherever it goes.
fn wants_digest(arguments: &Build) -> bool {
    let tells = arguments.quiet || arguments.progress == Progress::Quiet;
    tells || arguments.iidfile.is_some() || arguments.metadata_file.is_some()
}

/// `--platform`.
pub(super) fn platforms(arguments: &Build) -> Result<Vec<Platform>, CliError> {
    let platforms = arguments.platform.iter().map(|text| text.parse::<Platform>());
    let platforms = platforms.collect::<Result<_, _>>();
    platforms.map_err(|error| CliError::usage(error.to_string()))
}

/// A name alone takes its value from the environment, and is left out where that has none.
pub(super) fn build_args(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .filter_map(|text| match text.split_once('=') {
            Some((name, value)) => Some((name.to_owned(), value.to_owned())),
            None => std::env::var(text).ok().map(|value| (text.clone(), value)),
        })
        .collect()
}

fn pairs(list: &[String]) -> BTreeMap<String, String> {
    let split = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    list.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_args_without_value_come_from_the_environment() {
        let list = ["A=1=2".to_owned(), "PATH".to_owned(), "SLIPWAY_SURELY_UNSET".to_owned()];
        let args = build_args(&list);
        assert_eq!(args["A"], "1=2");
        assert!(args.contains_key("PATH") && args.len() == 2);
    }
}
