//! ADD of what is elsewhere.

use common::Digest;
use common::cache_key::KeyBuilder;
use common::outcome::LineRange;
use common::plan::Remote;

use super::paths;
use super::stage::Planner;
use crate::diagnostic::Problem;
use crate::repository::Repository;
use crate::{RemoteKind, RemoteNeed};

/// Name of a file whose URL has none, as in BuildKit.
const UNNAMED: &str = "__unnamed__";

impl Planner<'_> {
    /// A file behind a URL. Without `--checksum` its key is what the server says of it; what is not
    /// known yet is asked for.
    pub(super) fn http(
        &mut self,
        url: &str,
        checksum: Option<&str>,
        lines: LineRange,
        key: &mut KeyBuilder,
    ) -> Result<Remote, Problem> {
        let parsed = url::Url::parse(url).map_err(|error| {
            Problem::new("bad-url", format!("invalid URL {url}: {error}")).blaming(url)
        })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let message =
                "credentials in URLs are not supported: they would end up in the image's history";
            return Err(Problem::new("bad-url", message).blaming(url));
        }
        let checksum = checksum.map(|text| {
            text.parse::<Digest>().map_err(|_| {
                let message = format!("invalid checksum digest format: {text:?}");
                Problem::new("bad-checksum", message)
                    .with_hint("write it as sha256: and 64 hexadecimal digits")
                    .blaming(text)
            })
        });
        let checksum = checksum.transpose()?;
        let identity = match (checksum, self.known_remote(&RemoteKind::File, url)) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(validator)) => validator,
            (None, None) => self.ask(RemoteKind::File, url, lines),
        };
        let name = file_name(parsed.path());
        // With a checksum the place does not matter.
        let place = if checksum.is_some() { "" } else { url };
        key.part(format!("remote file {name}"), format!("{place} {identity}"));
        Ok(Remote::Http { url: url.to_owned(), name, checksum })
    }
}

impl Planner<'_> {
    /// The files of a repository. `keep_git_dir` is that of the flag, `checksum` too.
    pub(super) fn repository(
        &mut self,
        text: &str,
        (checksum, keep_git_dir): (Option<&str>, Option<bool>),
        lines: LineRange,
        key: &mut KeyBuilder,
    ) -> Result<Remote, Problem> {
        let found = Repository::parse(text)?;
        let bad = |message: String| Problem::new("bad-repository", message).blaming(text);
        if let (Some(flag), Some(own)) = (keep_git_dir, found.keep_git_dir)
            && flag != own
        {
            return Err(bad("inconsistent keep-git-dir configuration".to_owned()));
        }
        if let (Some(flag), Some(own)) = (checksum, found.checksum.as_deref())
            && flag != own
        {
            return Err(bad(format!("checksum mismatch {flag:?} != {own:?}")));
        }
        let kind = RemoteKind::Repository(found.reference.clone());
        let commit = match (found.commit(), self.known_remote(&kind, &found.url)) {
            (Some(commit), _) => commit.to_owned(),
            (None, Some(commit)) => commit,
            (None, None) => self.ask(kind, &found.url, lines),
        };
        if let Some(expected) = checksum.or(found.checksum.as_deref())
            && !commit.is_empty()
            && !commit.starts_with(&expected.to_ascii_lowercase())
        {
            let message = format!("expected checksum to match {expected}, got {commit}");
            return Err(Problem::new("checksum-mismatch", message).blaming(expected));
        }
        let keep_git_dir = keep_git_dir.or(found.keep_git_dir).unwrap_or(false);
        let submodules = found.submodules.unwrap_or(true);
        let subdirectory = found.subdirectory.as_deref().map(|path| paths::join("/", path));
        let subdirectory = subdirectory.map(|path| path.trim_matches('/').to_owned());
        // With `.git` the address and the branch are in it.
        let place = if keep_git_dir {
            format!(" {} {}", found.url, found.reference.as_deref().unwrap_or("HEAD"))
        } else {
            String::new()
        };
        let below = subdirectory.as_deref().unwrap_or("");
        key.part("repository", format!("{commit} {below:?} submodules {submodules}{place}"));
        let Repository { url, reference, .. } = found;
        Ok(Remote::Git { url, reference, commit, subdirectory, keep_git_dir, submodules })
    }

    fn known_remote(&self, kind: &RemoteKind, url: &str) -> Option<String> {
        self.options.remotes.get(&(kind.clone(), url.to_owned())).cloned()
    }

    /// Notes what has to be asked; until then the answer is nothing.
    fn ask(&mut self, kind: RemoteKind, url: &str, lines: LineRange) -> String {
        let need = RemoteNeed { kind, url: url.to_owned(), lines };
        if !self.remotes.contains(&need) {
            self.remotes.push(need);
        }
        String::new()
    }
}

/// The last component of a URL's path, decoded; one that cannot be a file's name is none.
fn file_name(path: &str) -> String {
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("");
    let bytes = last.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = last.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    match String::from_utf8(decoded) {
        Ok(name)
            if !name.is_empty()
                && !matches!(name.as_str(), "." | "..")
                && !name.contains(['/', '\0'])
                && name.len() <= 255 =>
        {
            name
        }
        _ => UNNAMED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_urls() {
        for (path, name) in [
            ("/a/b.tar.gz", "b.tar.gz"),
            ("/a/b/", "b"),
            ("/a%20b", "a b"),
            ("/", UNNAMED),
            ("", UNNAMED),
            ("/x/%2e%2e", UNNAMED),
            ("/a%2fb", UNNAMED),
            ("/50%", "50%"),
        ] {
            assert_eq!(file_name(path), name, "{path}");
        }
    }
}
