//! From the command line to a request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::public::v1::{BuildRequest, BuildSource, ContextSource, DockerfileSource, OutputRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Platform, ProjectName};

use super::options::{commands, secrets};
use crate::args::Build;
use crate::exit::CliError;

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    /// The file; none is standard output.
    pub(crate) path: Option<PathBuf>,
}

/// The outputs that are asked for, and where the archives among them go.
pub(crate) fn outputs(arguments: &Build) -> Result<(Vec<OutputRequest>, Vec<Download>), CliError> {
    let mut outputs = Vec::new();
    let mut downloads = Vec::new();
    for text in &arguments.output {
        let mut values: BTreeMap<&str, &str> =
            text.split(',').map(|part| part.split_once('=').unwrap_or((part, "true"))).collect();
        let bad = |message: String| CliError::usage(format!("--output {text}: {message}"));
        match values.remove("type") {
            Some("image" | "registry") => {
                let mut names = arguments.tag.clone();
                names.extend(values.remove("name").map(str::to_owned));
                let push = text.contains("type=registry") || values.remove("push") == Some("true");
                outputs.push(OutputRequest::Image { names, push });
            }
            Some("oci") => {
                let dest =
                    values.remove("dest").ok_or_else(|| bad("dest=FILE is missing".into()))?;
                let mut names = arguments.tag.clone();
                names.extend(values.remove("name").map(str::to_owned));
                outputs.push(OutputRequest::Oci { names });
                let path = (dest != "-").then(|| PathBuf::from(dest));
                downloads.push(Download { path });
            }
            Some(other) => return Err(bad(format!("the type {other} is not supported yet"))),
            None => return Err(bad("type= is missing".to_owned())),
        }
        if let Some(name) = values.keys().next() {
            return Err(bad(format!("{name}= is not supported yet")));
        }
    }
    if outputs.is_empty() {
        outputs.push(OutputRequest::Image { names: arguments.tag.clone(), push: arguments.push });
    } else if arguments.push {
        return Err(CliError::usage("--push and --output exclude each other: use push=true"));
    }
    let nameless = |output: &OutputRequest| matches!(output, OutputRequest::Image { names, push: true } if names.is_empty());
    if outputs.iter().any(nameless) {
        return Err(CliError::usage("an image without a name cannot be pushed: add -t NAME"));
    }
    Ok((outputs, downloads))
}

/// The Dockerfile as the farm gets it.
pub(crate) fn dockerfile_source(path: &Path) -> Result<DockerfileSource, CliError> {
    let bytes = std::fs::read(path).map_err(|error| CliError::file(path, &error))?;
    let content_base64 = BASE64_STANDARD.encode(bytes);
    Ok(DockerfileSource { name: path.display().to_string(), content_base64 })
}

/// The request for a build.
pub(crate) fn request(
    arguments: &Build,
    project: ProjectName,
    source: ContextSource,
    outputs: Vec<OutputRequest>,
) -> Result<BuildRequest, CliError> {
    let platforms = arguments.platform.iter().map(|text| text.parse::<Platform>());
    let platforms = platforms.collect::<Result<_, _>>();
    let platforms = platforms.map_err(|error| CliError::usage(error.to_string()))?;
    Ok(BuildRequest {
        project,
        source: BuildSource::Context(source),
        target: arguments.target.clone(),
        build_args: build_args(&arguments.build_arg),
        labels: pairs(&arguments.label),
        platforms,
        contexts: BTreeMap::new(),
        secrets: secrets(&arguments.secret)?,
        commands: commands(arguments)?,
        no_cache: arguments.no_cache,
        no_cache_stages: arguments.no_cache_filter.clone(),
        pull: arguments.pull,
        outputs,
    })
}

/// A name alone takes its value from the environment, and is left out where that has none.
fn build_args(list: &[String]) -> BTreeMap<String, String> {
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
    use crate::args::{Arguments, Command};
    use clap::Parser as _;

    fn arguments(list: &[&str]) -> Build {
        let all = ["slipway", "build"].iter().chain(list).chain(&["."]);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Build(build) => *build,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn outputs_are_read_as_buildx_does() {
        let image = |push| OutputRequest::Image { names: vec!["a".into()], push };
        let get = |list: &[&str]| outputs(&arguments(list)).unwrap().0;
        assert_eq!(get(&["-t", "a"]), [image(false)]);
        assert_eq!(get(&["-t", "a", "--push"]), [image(true)]);
        assert_eq!(get(&["-o", "type=image,name=a,push=true"]), [image(true)]);
        let (oci, downloads) = outputs(&arguments(&["-o", "type=oci,dest=x.tar"])).unwrap();
        assert_eq!(oci, [OutputRequest::Oci { names: Vec::new() }]);
        assert_eq!(downloads, [Download { path: Some("x.tar".into()) }]);
        for bad in [
            &["--push"][..],
            &["-o", "type=local,dest=x"],
            &["-o", "type=oci"],
            &["-o", "type=image,compression=zstd"],
        ] {
            assert!(outputs(&arguments(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn build_args_without_value_come_from_the_environment() {
        let list = ["A=1=2".to_owned(), "PATH".to_owned(), "SLIPWAY_SURELY_UNSET".to_owned()];
        let args = build_args(&list);
        assert_eq!(args["A"], "1=2");
        assert!(args.contains_key("PATH") && args.len() == 2);
    }
}
