//! ADD of what is elsewhere.

use common::Digest;
use common::cache_key::KeyBuilder;
use common::outcome::LineRange;
use common::plan::Remote;

use super::stage::Planner;
use crate::RemoteNeed;
use crate::diagnostic::Problem;

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
        let identity = match (checksum, self.options.remotes.get(url)) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(validator)) => validator.clone(),
            (None, None) => {
                let need = RemoteNeed { url: url.to_owned(), lines };
                if !self.remotes.contains(&need) {
                    self.remotes.push(need);
                }
                String::new()
            }
        };
        let name = file_name(parsed.path());
        // With a checksum the place does not matter.
        let place = if checksum.is_some() { "" } else { url };
        key.part(format!("remote file {name}"), format!("{place} {identity}"));
        Ok(Remote::Http { url: url.to_owned(), name, checksum })
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
