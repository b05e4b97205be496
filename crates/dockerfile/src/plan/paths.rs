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

#[cfg(test)]
mod tests {
    use super::*;

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
