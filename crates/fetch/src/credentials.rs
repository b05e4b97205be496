//! What is shown to servers: secrets with the names that BuildKit knows (its reference, "Private
//! remote sources").

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use url::Url;

/// Longest value.
const MAX_BYTES: usize = 16 << 10;
/// Beginnings of the names.
const NAMES: [&str; 4] =
    ["HTTP_AUTH_HEADER_", "HTTP_AUTH_TOKEN_", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"];

/// Values of the header `Authorization`, by host.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.secrets.keys()).finish()
    }
}

impl Credentials {
    /// Takes from secrets those that are meant for servers. A value that no header can have counts
    /// as absent.
    pub fn from_secrets(secrets: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let usable = |(name, value): (String, Vec<u8>)| {
            let text = String::from_utf8(value).ok()?.trim().to_owned();
            let fits = text.len() <= MAX_BYTES
                && !text.is_empty()
                && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            let is_meant = NAMES.iter().any(|start| name.starts_with(start));
            (fits && is_meant).then_some((name, text))
        };
        Self { secrets: secrets.into_iter().filter_map(usable).collect() }
    }

    /// Names of the secrets that a download of `url` uses, the first that is there.
    pub fn names_for_file(url: &str) -> Vec<String> {
        let Ok(url) = Url::parse(url) else { return Vec::new() };
        let of =
            |host: &String| [format!("HTTP_AUTH_HEADER_{host}"), format!("HTTP_AUTH_TOKEN_{host}")];
        hosts(&url).iter().flat_map(of).collect()
    }

    /// The same for a repository.
    pub fn names_for_repository(url: &str) -> Vec<String> {
        let Ok(url) = Url::parse(url) else { return Vec::new() };
        let of =
            |host: &String| [format!("GIT_AUTH_HEADER.{host}"), format!("GIT_AUTH_TOKEN.{host}")];
        let mut names: Vec<String> = hosts(&url).iter().flat_map(of).collect();
        names.extend(["GIT_AUTH_HEADER".to_owned(), "GIT_AUTH_TOKEN".to_owned()]);
        names
    }

    /// The header for a download.
    pub(crate) fn for_file(&self, url: &str) -> Option<String> {
        let (name, value) = self.first(Self::names_for_file(url))?;
        let is_token = name.starts_with("HTTP_AUTH_TOKEN_");
        Some(if is_token { format!("Bearer {value}") } else { value.to_owned() })
    }

    /// The header for a repository. What is for no host in particular is for that of `main`, which
    /// a submodule may not share.
    pub(crate) fn for_repository(&self, url: &str, main: &str) -> Option<String> {
        let mut names = Self::names_for_repository(url);
        if !is_same_server(url, main) {
            names.retain(|name| name.contains('.'));
        }
        let (name, value) = self.first(names)?;
        let is_token = name.starts_with("GIT_AUTH_TOKEN");
        // The user name is the one that takes a token at GitHub; others take any.
        let basic = || BASE64_STANDARD.encode(format!("x-access-token:{value}"));
        Some(if is_token { format!("basic {}", basic()) } else { value.to_owned() })
    }

    fn first(&self, names: Vec<String>) -> Option<(String, &str)> {
        names.into_iter().find_map(|name| {
            let value = self.secrets.get(&name)?;
            Some((name, value.as_str()))
        })
    }
}

/// A host with its port, where it is not the usual one, and without.
fn hosts(url: &Url) -> Vec<String> {
    let Some(host) = url.host_str() else { return Vec::new() };
    let with_port = url.port().map(|port| format!("{host}:{port}"));
    with_port.into_iter().chain([host.to_owned()]).collect()
}

fn is_same_server(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.origin().is_tuple() && one.origin() == other.origin(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(&str, &str)]) -> Credentials {
        let pairs = list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().into()));
        Credentials::from_secrets(pairs)
    }

    #[test]
    fn headers_are_found_by_host() {
        let known = of(&[
            ("HTTP_AUTH_TOKEN_h.test", "tok\n"),
            ("HTTP_AUTH_HEADER_other.test:81", "basic abc"),
            ("GIT_AUTH_TOKEN", "any"),
            ("GIT_AUTH_HEADER.own.test", "bearer own"),
            ("password", "never"),
            ("HTTP_AUTH_TOKEN_bad.test", "two\nlines"),
        ]);
        for (url, expected) in [
            ("https://h.test/x", Some("Bearer tok")),
            ("https://h.test:8443/x", Some("Bearer tok")),
            ("http://other.test:81/x", Some("basic abc")),
            ("http://other.test/x", None),
            ("https://sub.h.test/x", None),
            ("https://bad.test/x", None),
        ] {
            assert_eq!(known.for_file(url).as_deref(), expected, "{url}");
        }
        let app = "https://a.test/app.git";
        let token = format!("basic {}", BASE64_STANDARD.encode("x-access-token:any"));
        assert_eq!(known.for_repository(app, app), Some(token.clone()));
        assert_eq!(known.for_repository("https://a.test/lib.git", app), Some(token));
        // A submodule elsewhere gets nothing but what is meant for its host.
        for url in ["https://b.test/lib.git", "http://a.test/lib.git", "https://a.test:1/lib.git"] {
            assert_eq!(known.for_repository(url, app), None, "{url}");
        }
        let own = known.for_repository("https://own.test/lib.git", app);
        assert_eq!(own.as_deref(), Some("bearer own"));
        assert!(!format!("{known:?}").contains("tok\"") && !format!("{known:?}").contains("never"));
    }
}
