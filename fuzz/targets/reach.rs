//! What a copy reaches: a Dockerfile's source and the names of a tree, one a line, `name -> target` is a link.
//! The client may not tell a smaller part than the planner asks for.
#![no_main]

use std::collections::BTreeMap;

use common::tree::{Entry, EntryKind, Manifest, TreePath};
use dockerfile::{ImageFacts, NOT_SENT, Options, parse};
use libfuzzer_sys::fuzz_target;

fn entry(path: TreePath, kind: EntryKind) -> Entry {
    Entry { path, mode: 0, uid: 0, gid: 0, mtime_secs: 0, xattrs: Vec::new(), kind }
}

fn tree(lines: &[u8]) -> Manifest {
    let mut entries = BTreeMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let link = line.windows(4).position(|window| window == b" -> ");
        let (name, kind) = match link {
            Some(at) if at + 4 < line.len() => {
                (&line[..at], EntryKind::Symlink { target: line[at + 4..].to_vec() })
            }
            _ => (line, EntryKind::Fifo),
        };
        let Ok(path) = TreePath::new(name) else { continue };
        let mut parent = path.parent();
        entries.insert(path.clone(), entry(path, kind));
        while let Some(path) = parent {
            parent = path.parent();
            entries.insert(path.clone(), entry(path, EntryKind::Directory));
        }
    }
    let root = TreePath::root();
    entries.insert(root.clone(), entry(root, EntryKind::Directory));
    Manifest { packs: Vec::new(), entries: entries.into_values().collect() }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let mut text = b"FROM scratch\nCOPY ".to_vec();
    text.extend(&bytes[..at]);
    text.extend(b" /to/\n");
    let Ok(file) = parse("Dockerfile", &text) else { return };
    let Ok(platform) = "linux/amd64".parse() else { return };
    let options = Options::new(platform);
    let Some(reach) = file.reach(&options) else { return };
    let mut tree = tree(&bytes[at + 1..]);
    let whole = file.plan(&options, &ImageFacts::new(), Some(&tree));
    let wanted = reach.main().select(&tree);
    for (entry, is_wanted) in tree.entries.iter_mut().zip(wanted) {
        if !is_wanted && entry.kind == EntryKind::Fifo {
            entry.kind = EntryKind::Unsent;
        }
    }
    let part = file.plan(&options, &ImageFacts::new(), Some(&tree));
    match (whole, part) {
        (Ok(whole), Ok(part)) => assert_eq!(whole.plan, part.plan),
        (Err(whole), Err(part)) => {
            assert!(whole.iter().zip(&part).all(|(a, b)| a.code == b.code && b.code != NOT_SENT));
        }
        (whole, part) => panic!("{} but {}", whole.is_ok(), part.is_ok()),
    }
});
