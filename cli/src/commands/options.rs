//! Flags of a build that say what its commands see: contexts, secrets, hosts, limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::Secret;
use api::public::v1::{CommandOptions, HostOption, Requirements, UlimitOption};
use common::plan::Network;
use dockerfile::Address;

use crate::args::Build;
use crate::exit::CliError;
use crate::layout::LayoutSource;

/// `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamedContext {
    /// A directory to send.
    Directory(PathBuf),
    /// An image.
    Image(String),
    /// A repository or a file to fetch and to send.
    Elsewhere(Address),
    /// An image of a layout on this machine.
    Layout(LayoutSource),
}

/// The named contexts: `NAME=PATH`, `NAME=docker-image://REFERENCE`,
/// `NAME=oci-layout://DIR[:TAG][@DIGEST]`, or the address of a repository or of a file.
pub(super) fn contexts(list: &[String]) -> Result<BTreeMap<String, NamedContext>, CliError> {
    let mut contexts = BTreeMap::new();
    for text in list {
        let bad = |message: String| CliError::usage(format!("--build-context {text}: {message}"));
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(bad("NAME=VALUE is expected".to_owned()));
        };
        let context = if let Some(reference) = value.strip_prefix("docker-image://") {
            NamedContext::Image(reference.to_owned())
        } else if let Some(text) = value.strip_prefix("oci-layout://") {
            NamedContext::Layout(LayoutSource::parse(text).map_err(bad)?)
        } else if Path::new(value).is_dir() {
            NamedContext::Directory(PathBuf::from(value))
        } else if let Some(address) = Address::parse(value).filter(|_| !is_short(value)) {
            NamedContext::Elsewhere(address.map_err(bad)?)
        } else if let Some((kind, _)) = value.split_once("://") {
            return Err(bad(format!("contexts of the kind {kind} are not supported yet")));
        } else {
            return Err(bad(format!("{value} is no directory")));
        };
        contexts.insert(name.to_owned(), context);
    }
    Ok(contexts)
}

/// `github.com/…` is for the main context only.
fn is_short(text: &str) -> bool {
    text.starts_with("github.com/")
}

/// The secrets: `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`. Without a source it is the
/// variable of that name, else the file.
pub(super) fn secrets(list: &[String]) -> Result<BTreeMap<String, Secret>, CliError> {
    let mut secrets = BTreeMap::new();
    for text in list {
        let (id, value) = secret(text)?;
        secrets.insert(id, Secret::new(&value));
    }
    Ok(secrets)
}

fn secret(text: &str) -> Result<(String, Vec<u8>), CliError> {
    let bad = |message: String| CliError::usage(format!("--secret {text}: {message}"));
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(bad(format!("{field:?} is not KEY=VALUE")));
        };
        let place = match key.to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut variable,
            "type" => &mut kind,
            other => return Err(bad(format!("unexpected key {other:?}"))),
        };
        *place = Some(value.to_owned());
    }
    match kind.as_deref() {
        None | Some("file") => {}
        Some("env") => variable = variable.or(file.take()),
        Some(other) => return Err(bad(format!("unsupported secret type {other:?}"))),
    }
    let file_name = |path: &String| Path::new(path).file_name()?.to_str().map(str::to_owned);
    let id = id.or_else(|| file.as_ref().and_then(file_name)).or_else(|| variable.clone());
    let Some(id) = id else { return Err(bad("id= is missing".to_owned())) };
    if file.is_none() && variable.is_none() {
        if std::env::var_os(&id).is_some() {
            variable = Some(id.clone());
        } else {
            file = Some(id.clone());
        }
    }
    let value = match (variable, file) {
        (Some(name), _) => std::env::var(&name)
            .map(String::into_bytes)
            .map_err(|_| bad(format!("the variable {name} is not set")))?,
        (None, file) => {
            let path = PathBuf::from(file.unwrap_or_default());
            std::fs::read(&path).map_err(|error| CliError::file(&path, &error))?
        }
    };
    Ok((id, value))
}

/// `--network`, `--add-host`, `--shm-size`, `--ulimit`.
pub(super) fn commands(arguments: &Build) -> Result<CommandOptions, CliError> {
    let network = match arguments.network.as_deref() {
        None | Some("default" | "bridge") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            return Err(CliError::usage(format!("--network {other}: default, none or host")));
        }
    };
    let shm_bytes = arguments.shm_size.as_ref().map(|text| {
        size(text).ok_or_else(|| CliError::usage(format!("--shm-size {text}: not a size")))
    });
    Ok(CommandOptions {
        network,
        hosts: arguments.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        shm_bytes: shm_bytes.transpose()?,
        ulimits: arguments.ulimit.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
    })
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`.
fn host(text: &str) -> Result<HostOption, CliError> {
    let bad = || CliError::usage(format!("--add-host {text}: NAME:ADDRESS is expected"));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse().map_err(|_| bad())?;
    Ok(HostOption { name: name.to_owned(), address })
}

/// `NAME=SOFT[:HARD]`.
fn ulimit(text: &str) -> Result<UlimitOption, CliError> {
    let bad = || CliError::usage(format!("--ulimit {text}: NAME=SOFT[:HARD] is expected"));
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= -1);
    let (soft, hard) = (number(soft).ok_or_else(bad)?, number(hard).ok_or_else(bad)?);
    Ok(UlimitOption { name: name.to_ascii_lowercase(), soft, hard })
}

/// `--timeout` and `--stage-timeout`: seconds, or with a unit.
pub(super) fn seconds(flag: &str, text: Option<&str>) -> Result<Option<u32>, CliError> {
    let Some(text) = text else { return Ok(None) };
    let number = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let factor = match &text[number.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let secs = factor.zip(number.parse::<u32>().ok());
    let secs = secs.and_then(|(factor, number)| number.checked_mul(factor));
    let bad =
        || CliError::usage(format!("{flag} {text}: a time is expected, such as 90s, 30m, 2h"));
    secs.filter(|secs| *secs > 0).ok_or_else(bad).map(Some)
}

/// `--require`: `cpus=NUMBER`, `memory=SIZE`, or a label.
pub(super) fn requirements(list: &[String]) -> Result<Requirements, CliError> {
    let mut requires = Requirements::default();
    for text in list {
        let bad = || {
            let expected = "cpus=NUMBER, memory=SIZE or a label of workers is expected";
            CliError::usage(format!("--require {text}: {expected}"))
        };
        match text.split_once('=') {
            Some(("cpus", number)) => {
                let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
                let thousandths = format!("{rest:0<3}");
                let digits = |text: &str| text.chars().all(|digit| digit.is_ascii_digit());
                if rest.len() > 3 || !digits(rest) {
                    return Err(bad());
                }
                let whole: u32 = whole.parse().map_err(|_| bad())?;
                let rest: u32 = thousandths.parse().map_err(|_| bad())?;
                let millis = whole.checked_mul(1000).and_then(|millis| millis.checked_add(rest));
                requires.cpu_millis = millis.filter(|millis| *millis > 0).ok_or_else(bad)?;
            }
            Some(("memory", amount)) => {
                requires.memory_bytes = size(amount).ok_or_else(bad)?;
            }
            _ => requires.labels.push(text.clone()),
        }
    }
    Ok(requires)
}

/// A number of bytes with a unit of 1024: `64m`, `1g`, `512k`.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let factor = match lower.get(number.len()..)? {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_sizes_and_labels() {
        let list = ["cpus=1.5", "memory=2g", "gpu", "disk=fast"].map(str::to_owned);
        let expected = Requirements {
            labels: vec!["gpu".to_owned(), "disk=fast".to_owned()],
            cpu_millis: 1500,
            memory_bytes: 2 << 30,
        };
        assert_eq!(requirements(&list).unwrap(), expected);
        for bad in ["cpus=x", "cpus=0", "cpus=1.0001", "cpus=-1", "memory=much"] {
            assert!(requirements(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, secs) in [("90", 90), ("90s", 90), ("2m", 120), ("2h", 7200)] {
            assert_eq!(seconds("--timeout", Some(text)).unwrap(), Some(secs));
        }
        for bad in ["", "0", "1d", "x", "9999999h"] {
            assert!(seconds("--timeout", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token.txt");
        std::fs::write(&file, "hunter2\n").unwrap();
        let file = file.display();
        let variable = "CARGO_PKG_NAME";
        for (text, id, value) in [
            (format!("id=a,src={file}"), "a", "hunter2\n"),
            (format!("type=file,id=a,source={file}"), "a", "hunter2\n"),
            (format!("src={file}"), "token.txt", "hunter2\n"),
            (format!("id=b,env={variable}"), "b", "cli"),
            (format!("id=b,type=env,src={variable}"), "b", "cli"),
            (format!("id={variable}"), variable, "cli"),
        ] {
            let expected = (id.to_owned(), value.as_bytes().to_vec());
            assert_eq!(secret(&text).unwrap(), expected, "{text}");
        }
        for bad in
            ["a", "id=x,foo=y", "id=x,env=SURELY_NOT_SET_9", "id=x,src=/no/such", "type=x,id=a"]
        {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contexts_are_directories_or_images() {
        let list = |text: &str| contexts(&[text.to_owned()]);
        let image = NamedContext::Image("alpine:3".to_owned());
        assert_eq!(list("base=docker-image://alpine:3").unwrap()["base"], image);
        let here = NamedContext::Directory(PathBuf::from("."));
        assert_eq!(list("src=.").unwrap()["src"], here);
        for good in ["src=https://x.test/a.git#v1", "src=git@x:y", "src=http://x.test/a.tar"] {
            assert!(matches!(list(good).unwrap()["src"], NamedContext::Elsewhere(_)), "{good}");
        }
        let layout = list("base=oci-layout:///x:v1").unwrap();
        assert!(matches!(layout["base"], NamedContext::Layout(_)));
        for bad in [
            "src",
            "=.",
            "src=/no/such/place",
            "src=oci-layout:///x@sha256:1",
            "src=oci-layout://",
            "src=docker://x",
            "src=github.com/u/r",
            "src=https://x.test/a.git?x=y",
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_limits_and_sizes_are_read_as_docker_does() {
        assert_eq!(host("db:10.0.0.1").unwrap(), host("db=10.0.0.1").unwrap());
        assert!(host("db:[::1]").is_ok() && host("db=::1").is_ok());
        assert!(host("db").is_err() && host("db:host-gateway").is_err());
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("nofile", 1024, 2048));
        assert_eq!(ulimit("core=-1").unwrap().hard, -1);
        assert!(ulimit("nofile").is_err() && ulimit("nofile=-2").is_err());
        assert_eq!((size("64m"), size("1G"), size("5")), (Some(64 << 20), Some(1 << 30), Some(5)));
        assert!(size("x").is_none() && size("1t").is_none());
    }
}
