//! Which agents there are.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keys::KeyAgent;
use crate::exit::CliError;

/// What answers for an agent.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An agent that runs on this machine.
    Socket(PathBuf),
    /// Keys from files.
    Keys(Arc<KeyAgent>),
}

/// The names of `--ssh`: `NAME`, `NAME=SOCKET` or `NAME=KEYFILE[,KEYFILE]`.
pub(crate) fn names(list: &[String]) -> Result<BTreeSet<String>, CliError> {
    let mut names = BTreeSet::new();
    for text in list {
        let (name, _) = split(text)?;
        if !names.insert(name.to_owned()) {
            return Err(CliError::usage(format!("--ssh {text}: {name} is given twice")));
        }
    }
    Ok(names)
}

/// The agents of `--ssh`, by name. Without a path it is the agent of `SSH_AUTH_SOCK`.
pub(crate) fn sources(list: &[String]) -> Result<BTreeMap<String, Source>, CliError> {
    names(list)?;
    let variable = std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty());
    let of = |text: &String| {
        let (name, paths) = split(text)?;
        Ok((name.to_owned(), source(text, &paths, variable.as_ref().map(Path::new))?))
    };
    list.iter().map(of).collect()
}

fn split(text: &str) -> Result<(&str, Vec<&str>), CliError> {
    let (name, paths) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() || name.len() > 200 {
        let message = format!("--ssh {text}: NAME, NAME=SOCKET or NAME=KEYFILE is expected");
        return Err(CliError::usage(message));
    }
    Ok((name, paths.split(',').filter(|path| !path.is_empty()).collect()))
}

fn source(text: &str, paths: &[&str], variable: Option<&Path>) -> Result<Source, CliError> {
    let is_socket = |path: &Path| -> Result<bool, CliError> {
        let found = std::fs::metadata(path).map_err(|error| CliError::file(path, &error))?;
        Ok(found.file_type().is_socket())
    };
    if paths.is_empty() {
        let hint = "start one (eval \"$(ssh-agent)\"; ssh-add), or name a socket or key files";
        let missing = |message: String| CliError::Usage { message, hint: Some(hint.into()) };
        let path = variable.ok_or_else(|| {
            missing(format!("--ssh {text}: no agent runs: SSH_AUTH_SOCK is not set"))
        })?;
        if !is_socket(path)? {
            let message =
                format!("--ssh {text}: SSH_AUTH_SOCK names {}, which is no socket", path.display());
            return Err(missing(message));
        }
        return Ok(Source::Socket(path.to_owned()));
    }
    let mut files = Vec::new();
    for path in paths.iter().map(Path::new) {
        if !is_socket(path)? {
            files.push(path);
        } else if paths.len() == 1 {
            return Ok(Source::Socket(path.to_owned()));
        } else {
            let message = format!("--ssh {text}: a socket stands alone");
            return Err(CliError::usage(message));
        }
    }
    Ok(Source::Keys(Arc::new(KeyAgent::read(&files)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn agents_have_names_each_once() {
        let found = names(&list(&["default", "b=/x", "c=/k,/l"])).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["b", "c", "default"]);
        assert!(names(&list(&["a", "a=/x"])).is_err());
        assert!(names(&list(&["=/x"])).is_err());
    }

    #[test]
    fn an_agent_is_a_socket_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = socket.to_str().unwrap();
        let is_it = |source: Source| matches!(source, Source::Socket(path) if path == socket);
        assert!(is_it(source("a", &[], Some(&socket)).unwrap()));
        assert!(is_it(source("a", &[text], None).unwrap()));
        assert!(source("a", &[], None).unwrap_err().to_string().contains("SSH_AUTH_SOCK"));
        assert!(source("a", &[text, text], None).is_err());
        assert!(source("a", &["/no/such/socket"], None).is_err());
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(source("a", &[], Some(&file)).unwrap_err().to_string().contains("no socket"));
        let error = source("a", &[file.to_str().unwrap()], None).unwrap_err();
        assert!(error.to_string().contains("no private key"), "{error}");
    }
}
