//! Addresses of git repositories, as ADD takes them (BuildKit's reference, "Adding files from a Git
//! repository").

use std::collections::BTreeSet;

use common::plan::is_over_ssh;

use crate::diagnostic::Problem;

/// What a user names as a context that is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A repository.
    Repository(Repository),
    /// A file behind `http://` or `https://`.
    File(String),
}

impl Address {
    /// Reads an address as BuildKit does for contexts: a URL of http counts as a repository only
    /// when its path ends in `.git`; `github.com/…` is short for one. Nothing where the text is none.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let repository =
            |text: &str| Repository::read(text).map(Self::Repository).map_err(|it| it.message);
        if text.starts_with("github.com/") {
            return Some(repository(&format!("https://{text}")));
        }
        match text.split_once("://") {
            Some(("http" | "https", rest)) => {
                let path = rest.split(['#', '?']).next().unwrap_or_default();
                let is_repository =
                    path.strip_suffix(".git").is_some_and(|rest| rest.contains('/'));
                Some(if is_repository { repository(text) } else { Ok(Self::File(text.to_owned())) })
            }
            Some(("git" | "ssh", _)) => Some(repository(text)),
            Some(_) => None,
            None => is_scp(text).then(|| repository(text)),
        }
    }
}

/// Whether a text is `user@host:path`.
fn is_scp(text: &str) -> bool {
    let fits = |text: &str, more: &str| {
        let is_fine = |char: char| char.is_ascii_alphanumeric() || more.contains(char);
        !text.is_empty() && !text.starts_with('-') && text.chars().all(is_fine)
    };
    text.split_once('@').is_some_and(|(user, rest)| {
        rest.split_once(':')
            .is_some_and(|(host, path)| fits(user, "-_") && fits(host, "-.") && !path.is_empty())
    })
}

/// A repository and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repository {
    /// Where, without what follows.
    pub url: String,
    /// Branch, tag or commit.
    pub reference: Option<String>,
    /// Only this directory, relative.
    pub subdirectory: Option<String>,
    /// The commit that it has to be at, or the beginning of it.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are checked out too.
    pub submodules: Option<bool>,
    /// Whether files are as old as the commit: `mtime=commit`.
    pub commit_times: bool,
}

impl Repository {
    /// Reads what ADD names: without credentials.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let url = text.split(['#', '?']).next().unwrap_or_default();
        let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
        // A name alone is a part of the address where keys are the credentials.
        if user.is_some_and(|user| !is_over_ssh(url) || user.contains(':')) {
            let message =
                "credentials in URLs are not supported: they would end up in the image's history";
            return Err(Problem::new("bad-repository", message.to_owned()).blaming(text));
        }
        Self::read(text)
    }

    /// Reads `url#reference:directory` or `url?ref=…&subdir=…`.
    fn read(text: &str) -> Result<Self, Problem> {
        let bad = |message: String| Problem::new("bad-repository", message).blaming(text);
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (url, query) = match rest.split_once('?') {
            Some((url, query)) => (url, query),
            None => (rest, ""),
        };
        let mut found = Self { url: url.to_owned(), ..Self::default() };
        if let Some(fragment) = fragment {
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            found.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
            found.subdirectory = Some(directory.to_owned()).filter(|text| !text.is_empty());
        }
        found.read_query(query).map_err(bad)?;
        // A commit in full that has to be there is the one that is meant.
        if found.reference.is_none() && found.checksum.as_deref().is_some_and(is_commit) {
            found.reference.clone_from(&found.checksum);
        }
        if let Some(reference) = found.reference.as_ref().filter(|text| !is_reference(text)) {
            return Err(bad(format!("invalid ref {reference:?}")));
        }
        Ok(found)
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut branch, mut tag) = (None, None);
        let mut seen = BTreeSet::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let (key, value) = (key.as_ref(), value.into_owned());
            if !seen.insert(key.to_owned()) {
                return Err(format!("query {key:?} has multiple values"));
            }
            if value.is_empty() && !matches!(key, "keep-git-dir" | "submodules") {
                return Err(format!("query {key:?} has no value"));
            }
            let flag = || match value.as_str() {
                "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(format!("invalid {key} value: {value:?}")),
            };
            match key {
                "ref" => agree("ref", &mut self.reference, value)?,
                "branch" => branch = Some(prefixed("refs/heads/", value)),
                "tag" => tag = Some(prefixed("refs/tags/", value)),
                "subdir" => agree("subdir", &mut self.subdirectory, value)?,
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "mtime" if value == "commit" => self.commit_times = true,
                "mtime" if value == "checkout" => {}
                "mtime" => return Err(format!("invalid mtime value: {value:?}")),
                // A checkout takes the shortest way by itself.
                "fetch-by-commit" => {
                    flag()?;
                }
                other => return Err(format!("unexpected query {other:?}")),
            }
        }
        if branch.is_some() && tag.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        match branch.or(tag) {
            Some(name) => agree("ref", &mut self.reference, name),
            None => Ok(()),
        }
    }

    /// The commit, where the reference is one in full.
    pub fn commit(&self) -> Option<&str> {
        self.reference.as_deref().filter(|text| is_commit(text))
    }
}

/// Sets what may have been said before, in the same words.
fn agree(what: &str, place: &mut Option<String>, value: String) -> Result<(), String> {
    match place {
        Some(known) if *known != value => Err(format!("{what} conflicts: {known:?} vs {value:?}")),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be a branch, a tag or a commit (git-check-ref-format), and nothing else.
fn is_reference(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-+@#".contains(&byte);
    !text.starts_with(['-', '/', '.', '+'])
        && !text.contains("..")
        && !text.contains("@{")
        && text.len() <= 255
        && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    #[test]
    fn fragments_and_queries_say_what_is_meant() {
        let url = "https://h.test/a/b.git";
        assert_eq!(parse(url), Repository { url: url.into(), ..Repository::default() });
        let found = parse(&format!("{url}#v1:sub/dir"));
        assert_eq!(found.reference.as_deref(), Some("v1"));
        assert_eq!(found.subdirectory.as_deref(), Some("sub/dir"));
        assert_eq!(parse(&format!("{url}#:sub")).reference, None);
        let text =
            format!("{url}?branch=main&subdir=x&checksum=abc&keep-git-dir=1&submodules=false");
        let found = parse(&text);
        assert_eq!(found.reference.as_deref(), Some("refs/heads/main"));
        assert_eq!(found.checksum.as_deref(), Some("abc"));
        assert_eq!((found.keep_git_dir, found.submodules), (Some(true), Some(false)));
        assert_eq!(parse(&format!("{url}?tag=v1")).reference.as_deref(), Some("refs/tags/v1"));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(parse(&format!("{url}#{commit}")).commit(), Some(commit));
        assert_eq!(parse(&format!("{url}#main")).commit(), None);
        for url in ["git@h.test:a/b.git", "ssh://git@h.test:2222/a/b.git"] {
            let found = parse(&format!("{url}#v1:sub"));
            assert_eq!((found.url.as_str(), found.reference.as_deref()), (url, Some("v1")));
            assert!(is_over_ssh(&found.url));
        }
        assert!(!is_over_ssh("https://h.test/a@b.git"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (rest, part) in [
            ("?foo=1", "unexpected query \"foo\""),
            ("?branch=a&tag=b", "branch conflicts with tag"),
            ("?ref=a&branch=b", "ref conflicts"),
            ("?ref=a#b", "ref conflicts"),
            ("?tag=a#refs/heads/main", "ref conflicts"),
            ("?subdir=a#:b", "subdir conflicts"),
            ("?ref=", "query \"ref\" has no value"),
            ("?ref=a&ref=a", "query \"ref\" has multiple values"),
            ("?mtime=never", "invalid mtime value"),
            ("?submodules=maybe", "invalid submodules value"),
            ("#--upload-pack=x", "invalid ref"),
            ("#a..b", "invalid ref"),
        ] {
            let error = Repository::parse(&format!("https://h.test/b.git{rest}")).unwrap_err();
            assert!(error.message.contains(part), "{rest}: {error:?}");
        }
        for text in
            ["https://me:pw@h.test/b.git", "https://me@h.test/b.git", "ssh://me:pw@h.test/b"]
        {
            let error = Repository::parse(text).unwrap_err();
            assert!(error.message.contains("credentials in URLs"), "{text}: {error:?}");
        }
    }

    /// What `text` is: the URL with reference and directory, `file`, or nothing.
    fn shown(text: &str) -> String {
        match Address::parse(text) {
            None => "-".to_owned(),
            Some(Err(message)) => format!("error: {message}"),
            Some(Ok(Address::File(_))) => "file".to_owned(),
            Some(Ok(Address::Repository(it))) => {
                let or_empty = |text: Option<String>| text.unwrap_or_default();
                let (reference, directory) = (or_empty(it.reference), or_empty(it.subdirectory));
                format!("{} {reference}:{directory}", it.url)
            }
        }
    }

    #[test]
    fn addresses_are_told_from_paths_as_buildkit_does() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let by_commit = format!("https://h.test/b.git?commit={commit}");
        let by_commit_and_tag = format!("https://h.test/b.git?tag=v1&commit={commit}");
        for (text, expected) in [
            ("https://h.test/", "file"),
            ("https://h.test/foo", "file"),
            ("https://h.test/foo.tar.gz?x=1", "file"),
            ("https://h.test/foo.git/", "file"),
            ("https://h.test/foo.git.bar", "file"),
            ("http://h.test/foo.git:#branch", "file"),
            ("https://h.test/foo.git", "https://h.test/foo.git :"),
            ("http://h.test/foo.git", "http://h.test/foo.git :"),
            ("https://h.test/foo.git#deadbeef", "https://h.test/foo.git deadbeef:"),
            ("https://h.test/foo.git#release/1.2", "https://h.test/foo.git release/1.2:"),
            ("https://h.test/foo.git#b/x:q/u", "https://h.test/foo.git b/x:q/u"),
            ("https://h.test/foo.git#:dir", "https://h.test/foo.git :dir"),
            ("https://me:pw@h.test/foo.git", "https://me:pw@h.test/foo.git :"),
            ("git://h.test/foo", "git://h.test/foo :"),
            ("ssh://git@h.test:2222/foo.git#v1", "ssh://git@h.test:2222/foo.git v1:"),
            ("git@h.test:a/b", "git@h.test:a/b :"),
            ("git@h.test:a/b.git#v1:dir", "git@h.test:a/b.git v1:dir"),
            ("github.com/u/r", "https://github.com/u/r :"),
            ("github.com/u/r#main:dir", "https://github.com/u/r main:dir"),
            ("custom.test/u/r.git", "-"),
            (".git", "-"),
            ("./.git", "-"),
            ("../x", "-"),
            ("a b@c:d", "-"),
            ("ftp://h.test/x.git", "-"),
            ("https://h.test/b.git?ref=v1.0.0&subdir=/sub", "https://h.test/b.git v1.0.0:/sub"),
            ("https://h.test/b.git?branch=base", "https://h.test/b.git refs/heads/base:"),
            ("https://h.test/b.git?tag=v1", "https://h.test/b.git refs/tags/v1:"),
            ("https://h.test/b.git?tag=v1#refs/tags/v1", "https://h.test/b.git refs/tags/v1:"),
            ("https://h.test/b.git?keep-git-dir&submodules", "https://h.test/b.git :"),
            ("https://h.test/b.git?commit=0123", "https://h.test/b.git :"),
            (&by_commit, &format!("https://h.test/b.git {commit}:")),
            (&by_commit_and_tag, "https://h.test/b.git refs/tags/v1:"),
            ("https://h.test/b.git?ref=a%20b", "error: invalid ref \"a b\""),
            ("https://h.test/b.git?x=y", "error: unexpected query \"x\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
