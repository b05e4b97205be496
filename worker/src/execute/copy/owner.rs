//! `--chown`, by BuildKit's rules, which differ from those of `USER`: a number alone is user and
//! group; a name alone brings its primary group; a name that the root file system does not know is
//! root, with a warning here.

use std::path::Path;

use crate::runtime::resolve_user;

/// The owner that `--chown` asks for, and what to warn of.
pub(super) fn resolve(rootfs: &Path, text: &str) -> ((u32, u32), Option<String>) {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let mut warning = None;
    let mut lookup = |query: String, name: &str, pick: fn(&crate::runtime::Identity) -> u32| {
        resolve_user(rootfs, &query).map_or_else(
            |_| {
                warning =
                    Some(format!("--chown: {name:?} is not known in the stage, root is used"));
                0
            },
            |identity| pick(&identity),
        )
    };
    let uid = match user.parse::<u32>() {
        Ok(uid) => uid,
        Err(_) => lookup(user.to_owned(), user, |identity| identity.uid),
    };
    let gid = match (group, user.parse::<u32>()) {
        (Some(group), _) => lookup(format!("0:{group}"), group, |identity| identity.gid),
        (None, Ok(number)) => number,
        (None, Err(_)) => lookup(user.to_owned(), user, |identity| identity.gid),
    };
    ((uid, gid), warning)
}

/// Whether an owner needs no look-up.
pub(super) fn is_numeric(text: &str) -> bool {
    text.split(':').all(|part| part.is_empty() || part.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_looked_up_as_buildkit_does() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "app:x:1000:1001::/:\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "wheel:x:10:\n").unwrap();
        for (text, expected, warns) in [
            ("app", (1000, 1001), false),
            ("1000", (1000, 1000), false),
            ("5:6", (5, 6), false),
            ("app:wheel", (1000, 10), false),
            ("app:7", (1000, 7), false),
            ("nobody", (0, 0), true),
            ("app:none", (1000, 0), true),
        ] {
            let (owner, warning) = resolve(root.path(), text);
            assert_eq!((owner, warning.is_some()), (expected, warns), "{text}");
        }
    }
}
