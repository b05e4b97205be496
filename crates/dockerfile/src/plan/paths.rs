//! Absolute paths as text.

/// Joins and cleans: no `.`, no empty component, `..` stops at the root. Without trailing slash.
pub(crate) fn join(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A destination: a trailing slash, `.` and nothing at all mean a directory.
pub(crate) fn destination(working_dir: &str, path: &str) -> String {
    let mut joined = join(working_dir, path);
    let names_directory =
        path.is_empty() || path.ends_with('/') || path == "." || path.ends_with("/.");
    if names_directory && !joined.ends_with('/') {
        joined.push('/');
    }
    joined
}

/// A source of `COPY --parents`: absolute and clean, but for the first `/./`, from which on the
/// parents are kept.
pub(crate) fn pivoted(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    match path.split_once("/./") {
        Some((before, after)) => {
            let (before, after) = (join("/", before), join("/", after));
            format!("{}/.{after}", before.trim_end_matches('/'))
        }
        None => join("/", path),
    }
}

/// What has to be looked through for a source: without the pivot, and where `**` stands, everything
/// in the directory above it.
pub(crate) fn searched(source: &str) -> String {
    let mut parts = Vec::new();
    for part in source.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part.contains("**") {
            parts.push("*");
            break;
        }
        parts.push(part);
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots_are_kept_and_searched_through() {
        for (path, pivot, search) in [
            ("a/./b/c", "/a/./b/c", "/a/b/c"),
            ("./a/../b", "/b", "/b"),
            ("a/../../x/./../y", "/x/./y", "/x/y"),
            ("/./a", "/./a", "/a"),
            ("a/**/c", "/a/**/c", "/a/*"),
            ("a/b", "/a/b", "/a/b"),
        ] {
            assert_eq!(pivoted(path), pivot, "{path}");
            assert_eq!(searched(&pivoted(path)), search, "{path}");
        }
    }

    #[test]
    fn destinations_are_joined_to_the_working_directory() {
        for (path, expected) in [
            ("x", "/w/x"),
            ("x/", "/w/x/"),
            (".", "/w/"),
            ("", "/w/"),
            ("./", "/w/"),
            ("/", "/"),
            ("../../..", "/"),
            ("/a//b/./c", "/a/b/c"),
        ] {
            assert_eq!(destination("/w", path), expected, "{path:?}");
        }
    }
}
