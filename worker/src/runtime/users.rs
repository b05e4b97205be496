//! Who a command runs as: `USER` and `--chown` looked up in the root file system.
//!
//! The rules are BuildKit's: a number needs no entry and has group 0 unless one is given; a name
//! brings its primary and its supplementary groups; `user:group` has that group only.

use std::fs::File;
use std::io::{Read, Take};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Bytes of `/etc/passwd` and `/etc/group` that are read: hostile ones have no end.
const MAX_DATABASE_BYTES: u64 = 4 << 20;

/// A user in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub additional_gids: Vec<u32>,
    /// Home directory, as `passwd` has it; `/` without an entry.
    pub home: String,
}

/// A name that the root file system does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} named {name:?} in {file} of the stage")]
pub struct UnknownUser {
    /// `user` or `group`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
    /// Where it was looked up.
    pub file: &'static str,
}

/// Looks up `user[:group]` in the root file system at `rootfs`; empty is root.
pub fn resolve(rootfs: &Path, user: &str) -> Result<Identity, UnknownUser> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let passwd = lines(rootfs, "etc/passwd");
    let entry = passwd
        .iter()
        .filter_map(|line| PasswdEntry::parse(line))
        .find(|entry| entry.name == name || name.parse() == Ok(entry.uid));
    let uid = match (&entry, name.parse::<u32>()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(UnknownUser { kind: "user", name: name.to_owned(), file: "/etc/passwd" });
        }
    };
    let groups = lines(rootfs, "etc/group");
    let groups: Vec<GroupEntry> =
        groups.iter().filter_map(|line| GroupEntry::parse(line)).collect();
    let (gid, additional_gids) = match group {
        Some(group) => (group_id(&groups, group)?, Vec::new()),
        None => {
            let gid = entry.as_ref().map_or(0, |entry| entry.gid);
            let member = entry.as_ref().map_or("", |entry| entry.name);
            let mut more: Vec<u32> = groups
                .iter()
                .filter(|group| !member.is_empty() && group.members.contains(&member))
                .map(|group| group.gid)
                .collect();
            more.sort_unstable();
            more.dedup();
            (gid, more)
        }
    };
    let home = entry.map_or("/", |entry| entry.home).to_owned();
    Ok(Identity {
        uid,
        gid,
        additional_gids,
        home: if home.is_empty() { "/".into() } else { home },
    })
}

fn group_id(groups: &[GroupEntry<'_>], name: &str) -> Result<u32, UnknownUser> {
    groups
        .iter()
        .find(|entry| entry.name == name)
        .map(|entry| entry.gid)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| UnknownUser { kind: "group", name: name.to_owned(), file: "/etc/group" })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Self { name, uid, gid, home })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or("").split(',').map(str::trim).collect();
        Some(Self { name, gid, members })
    }
}

/// The lines of a file of the root file system; a file that is missing or cannot be read has none.
fn lines(rootfs: &Path, path: &str) -> Vec<String> {
    let Some(mut file) = open_inside(rootfs, path) else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    if file.read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}

/// Opens a regular file without leaving the root file system, whatever links it holds.
fn open_inside(rootfs: &Path, path: &str) -> Option<Take<File>> {
    let root = File::open(rootfs).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve).ok()?);
    file.metadata().ok()?.is_file().then(|| file.take(MAX_DATABASE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbroken\n";
        let group = "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\naudio:x:29:app\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    #[test]
    fn users_are_looked_up_as_buildkit_does() {
        let root = rootfs();
        let check = |user: &str, uid: u32, gid: u32, more: &[u32], home: &str| {
            let identity = resolve(root.path(), user).unwrap();
            let expected =
                Identity { uid, gid, additional_gids: more.to_vec(), home: home.to_owned() };
            assert_eq!(identity, expected, "{user:?}");
        };
        check("", 0, 0, &[10], "/root");
        check("root", 0, 0, &[10], "/root");
        check("app", 1000, 1001, &[10, 29], "/home/app");
        check("1000", 1000, 1001, &[10, 29], "/home/app");
        check("4242", 4242, 0, &[], "/");
        check("app:wheel", 1000, 10, &[], "/home/app");
        check("app:77", 1000, 77, &[], "/home/app");
        check("5:6", 5, 6, &[], "/");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let root = rootfs();
        assert_eq!(resolve(root.path(), "nobody").unwrap_err().kind, "user");
        assert_eq!(resolve(root.path(), "app:nogroup").unwrap_err().kind, "group");
    }

    #[test]
    fn a_link_out_of_the_root_reads_nothing_outside() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/passwd")).unwrap();
        assert!(resolve(root.path(), "daemon").is_err());
    }
}
