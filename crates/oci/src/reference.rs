//! References to images, in Docker's normal form (distribution/reference, "Grammar").

use std::fmt;
use std::str::FromStr;

use common::Digest;

/// A reference: `registry/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Registry with port, such as `docker.io` or `127.0.0.1:5000`.
    pub registry: String,
    /// Repository within the registry, such as `library/alpine`.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// Digest.
    pub digest: Option<Digest>,
}

/// Text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {problem}")]
pub struct InvalidReference {
    text: String,
    problem: &'static str,
}

impl Reference {
    /// Registry and repository, such as `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a manifest is asked for by: the digest, else the tag.
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |problem| InvalidReference { text: text.chars().take(300).collect(), problem };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| fail("the digest is not sha256"))?))
            }
            None => (text, None),
        };
        // A colon after the last slash separates the tag; one before it belongs to a port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("the tag has characters that are not allowed"));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, repository))
                if first.contains(['.', ':']) || first == "localhost" || has_upper(first) =>
            {
                (first, repository.to_owned())
            }
            _ => ("docker.io", path.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if has_upper(&repository) {
            return Err(fail("the repository name must be lowercase"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(fail("the repository name has characters that are not allowed"));
        }
        if !is_registry(registry) {
            return Err(fail("the registry is no host name"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// `[a-z0-9]+` parts joined by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edge = |byte: Option<u8>| byte.is_some_and(inner);
    edge(component.bytes().next())
        && edge(component.bytes().last())
        && component.bytes().all(|byte| inner(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && !component.contains("..")
        && !component.contains("___")
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        label.bytes().all(inner) && edge(label.bytes().next()) && edge(label.bytes().last())
    };
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    let is_host = is_v6 || host.split('.').all(is_label);
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_take_dockers_normal_form() {
        let digest = Digest::of(b"").to_string();
        for (text, expected) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("golang:1.13", "docker.io/library/golang:1.13".to_owned()),
            ("team/app", "docker.io/team/app:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x".to_owned()),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest".to_owned()),
            ("index.docker.io/library/x", "docker.io/library/x:latest".to_owned()),
            (&format!("alpine@{digest}"), format!("docker.io/library/alpine@{digest}")),
            (&format!("a/b:t@{digest}"), format!("docker.io/a/b:t@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "Foo",
            "a//b",
            "a:",
            "a:b c",
            "../x",
            "x@md5:00",
            "-a",
            "a/b:ä",
            "reg.io:99999/x",
            "a..b",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
