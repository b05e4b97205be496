//! Addresses of git repositories, as ADD takes them (BuildKit's reference, "Adding files from a Git
//! repository").

use common::plan::is_over_ssh;

use crate::diagnostic::Problem;

/// A repository and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Repository {
    /// Where, without what follows.
    pub(crate) url: String,
    /// Branch, tag or commit.
    pub(crate) reference: Option<String>,
    /// Only this directory, relative.
    pub(crate) subdirectory: Option<String>,
    /// The commit that it has to be at, or the beginning of it.
    pub(crate) checksum: Option<String>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: Option<bool>,
}

impl Repository {
    /// Reads `url#reference:directory` or `url?ref=…&subdir=…`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |message: String| Problem::new("bad-repository", message).blaming(text);
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (url, query) = match rest.split_once('?') {
            Some((url, query)) => (url, query),
            None => (rest, ""),
        };
        let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
        // A name alone is a part of the address where keys are the credentials.
        if user.is_some_and(|user| !is_over_ssh(url) || user.contains(':')) {
            let message =
                "credentials in URLs are not supported: they would end up in the image's history";
            return Err(bad(message.to_owned()));
        }
        let mut found = Self { url: url.to_owned(), ..Self::default() };
        if let Some(fragment) = fragment {
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            found.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
            found.subdirectory = Some(directory.to_owned()).filter(|text| !text.is_empty());
        }
        let (mut branch, mut tag) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let flag = || match value {
                "" | "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(bad(format!("invalid {key} value: {value:?}"))),
            };
            match key {
                "ref" if found.reference.as_deref().is_some_and(|known| known != value) => {
                    return Err(bad("ref conflicts".to_owned()));
                }
                "ref" => found.reference = Some(value.to_owned()),
                "branch" => branch = Some(value.to_owned()),
                "tag" => tag = Some(value.to_owned()),
                "subdir" if found.subdirectory.as_deref().is_some_and(|known| known != value) => {
                    return Err(bad("subdir conflicts".to_owned()));
                }
                "subdir" => found.subdirectory = Some(value.to_owned()),
                "checksum" | "commit" => found.checksum = Some(value.to_owned()),
                "keep-git-dir" => found.keep_git_dir = Some(flag()?),
                "submodules" => found.submodules = Some(flag()?),
                // A checkout takes the shortest way by itself; files are as old as the checkout.
                "fetch-by-commit" | "mtime" => {}
                other => return Err(bad(format!("unexpected query {other:?}"))),
            }
        }
        match (&found.reference, branch, tag) {
            (_, Some(_), Some(_)) => return Err(bad("branch conflicts with tag".to_owned())),
            (Some(_), Some(_), _) => return Err(bad("branch conflicts with ref".to_owned())),
            (Some(_), _, Some(_)) => return Err(bad("tag conflicts with ref".to_owned())),
            (None, Some(branch), None) => found.reference = Some(format!("refs/heads/{branch}")),
            (None, None, Some(tag)) => found.reference = Some(format!("refs/tags/{tag}")),
            _ => {}
        }
        if let Some(reference) = found.reference.as_ref().filter(|text| !is_reference(text)) {
            return Err(bad(format!("invalid ref {reference:?}")));
        }
        Ok(found)
    }

    /// The commit, where the reference is one in full.
    pub(crate) fn commit(&self) -> Option<&str> {
        let is_hex = |text: &&str| {
            matches!(text.len(), 40 | 64)
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        self.reference.as_deref().filter(is_hex)
    }
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
            ("?ref=a&branch=b", "branch conflicts with ref"),
            ("?ref=a#b", "ref conflicts"),
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
}
