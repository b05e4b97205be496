//! From the command line to a request.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::public::v1::{BuildRequest, BuildSource, ContextSource, OutputRequest};
use common::{Platform, ProjectName};

use super::options::{commands, secrets};
use crate::agent;
use crate::args::Build;
use crate::exit::CliError;

/// Where something made goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Download {
    /// The archive into this file.
    File(PathBuf),
    /// The archive to standard output.
    Standard,
    /// The files in the archive into this directory.
    Directory(PathBuf),
    /// The archive into the Docker engine of this machine.
    Engine,
}

impl Download {
    /// `dest=FILE`, or `-`.
    fn to(dest: &str) -> Self {
        if dest == "-" { Self::Standard } else { Self::File(PathBuf::from(dest)) }
    }
}

/// The outputs that are asked for, and where those go that are downloaded.
pub(crate) fn outputs(arguments: &Build) -> Result<(Vec<OutputRequest>, Vec<Download>), CliError> {
    let mut outputs = Vec::new();
    let mut downloads = Vec::new();
    for text in &arguments.output {
        let (output, download) = output(arguments, text)?;
        outputs.push(output);
        downloads.extend(download);
    }
    if arguments.load {
        if !arguments.output.is_empty() {
            let message = "--load and --output exclude each other: use type=docker";
            return Err(CliError::usage(message));
        }
        outputs.push(OutputRequest::Docker { names: arguments.tag.clone() });
        downloads.push(Download::Engine);
        if arguments.push {
            let (names, push) = (arguments.tag.clone(), true);
            outputs.push(OutputRequest::Image { names, push });
        }
    } else if outputs.is_empty() {
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

/// One `--output`: `type=…,dest=…`, or a directory, or `-` for a tar file on standard output.
fn output(arguments: &Build, text: &str) -> Result<(OutputRequest, Option<Download>), CliError> {
    if text == "-" {
        return Ok((OutputRequest::Tar, Some(Download::Standard)));
    }
    if !text.contains('=') {
        return Ok((OutputRequest::Tar, Some(Download::Directory(PathBuf::from(text)))));
    }
    let mut values: BTreeMap<&str, &str> =
        text.split(',').map(|part| part.split_once('=').unwrap_or((part, "true"))).collect();
    let bad = |message: String| CliError::usage(format!("--output {text}: {message}"));
    let kind = values.remove("type").ok_or_else(|| bad("type= is missing".to_owned()))?;
    let dest = values.remove("dest");
    let to_file = || dest.map(Download::to).ok_or_else(|| bad("dest=FILE is missing".to_owned()));
    let mut names = arguments.tag.clone();
    if matches!(kind, "image" | "registry" | "oci" | "docker") {
        names.extend(values.remove("name").map(str::to_owned));
    }
    let made = match kind {
        "image" | "registry" => {
            let push = kind == "registry" || values.remove("push") == Some("true");
            (OutputRequest::Image { names, push }, None)
        }
        "oci" => (OutputRequest::Oci { names }, Some(to_file()?)),
        "docker" if dest.is_none() => (OutputRequest::Docker { names }, Some(Download::Engine)),
        "docker" => (OutputRequest::Docker { names }, Some(to_file()?)),
        "tar" => (OutputRequest::Tar, Some(to_file()?)),
        "local" => {
            let dest = dest.ok_or_else(|| bad("dest=DIRECTORY is missing".to_owned()))?;
            (OutputRequest::Tar, Some(Download::Directory(PathBuf::from(dest))))
        }
        other => return Err(bad(format!("the type {other} is not supported"))),
    };
    if dest.is_some() && made.1.is_none() {
        return Err(bad(format!("dest= makes no sense with type={kind}")));
    }
    match values.keys().next() {
        Some(name) => Err(bad(format!("{name}= is not supported yet"))),
        None => Ok(made),
    }
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
        agents: agent::names(&arguments.ssh)?,
        commands: commands(arguments)?,
        no_cache: arguments.no_cache,
        no_cache_stages: arguments.no_cache_filter.clone(),
        pull: arguments.pull,
        outputs,
    })
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
        assert_eq!(downloads, [Download::File("x.tar".into())]);
        let (tar, downloads) =
            outputs(&arguments(&["-o", "out", "-o", "type=tar,dest=-"])).unwrap();
        assert_eq!(tar, [OutputRequest::Tar, OutputRequest::Tar]);
        assert_eq!(downloads, [Download::Directory("out".into()), Download::Standard]);
        let (docker, _) =
            outputs(&arguments(&["-t", "a", "-o", "type=docker,dest=x.tar"])).unwrap();
        assert_eq!(docker, [OutputRequest::Docker { names: vec!["a".into()] }]);
        for list in [&["-t", "a", "--load"][..], &["-t", "a", "-o", "type=docker"]] {
            let (docker, downloads) = outputs(&arguments(list)).unwrap();
            assert_eq!(docker, [OutputRequest::Docker { names: vec!["a".into()] }], "{list:?}");
            assert_eq!(downloads, [Download::Engine], "{list:?}");
        }
        assert_eq!(outputs(&arguments(&["-t", "a", "--load", "--push"])).unwrap().0.len(), 2);
        for bad in [
            &["--push"][..],
            &["-o", "type=local"],
            &["--load", "-o", "x"],
            &["-o", "type=image,dest=x"],
            &["-o", "type=cacheonly,dest=x"],
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
