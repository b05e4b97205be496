use super::*;
use crate::memory::Memory;
use crate::scan::{self, Owner, Scan, ScanError, Verdict, scan_paths};
use std::os::unix::fs::MetadataExt;

/// A tree with a bit of everything.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(at("src/deep")).unwrap();
    fs::write(at("src/small"), "small").unwrap();
    fs::write(at("src/empty"), "").unwrap();
    let big: Vec<u8> =
        (0..6_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(at("src/deep/big"), &big).unwrap();
    fs::hard_link(at("src/small"), at("src/twin")).unwrap();
    std::os::unix::fs::symlink("../src/small", at("src/link")).unwrap();
    fs::set_permissions(at("src/small"), fs::Permissions::from_mode(0o4711)).unwrap();
    root
}

fn everything(manifest: &Manifest) -> Vec<bool> {
    vec![true; manifest.entries.len()]
}

fn scan(
    root: &Path,
    owner: Owner,
    filter: &mut dyn FnMut(&TreePath, bool) -> Verdict,
    packs: &Path,
) -> Result<Scan, ScanError> {
    scan::scan(root, owner, filter, &everything, (packs, &Memory::default()))
}

fn fill(layout: &Layout, scanned: &Scan) -> Result<(), LayoutError> {
    for range in layout.ranges() {
        let path = scanned.pack_file(&range.pack).unwrap();
        let mut bytes = vec![0; usize::try_from(range.length).unwrap()];
        File::open(&path).unwrap().read_exact_at(&mut bytes, range.offset).unwrap();
        layout.write(range, &bytes)?;
    }
    Ok(())
}

fn lay_out(
    scanned: &Scan,
    want: impl Fn(&Entry) -> bool,
) -> Result<tempfile::TempDir, LayoutError> {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::prepare(&scanned.manifest, want, |_| None, root.path())?;
    fill(&layout, scanned)?;
    layout.finish()?;
    Ok(root)
}

#[test]
fn a_tree_survives_a_round_trip() {
    let (tree, packs) = (tree(), tempfile::tempdir().unwrap());
    let scanned = scan(tree.path(), Owner::Keep, &mut |_, _| Verdict::Keep, packs.path()).unwrap();
    let copy = lay_out(&scanned, |_| true).unwrap();
    let again_packs = tempfile::tempdir().unwrap();
    let again =
        scan(copy.path(), Owner::Keep, &mut |_, _| Verdict::Keep, again_packs.path()).unwrap();
    assert_eq!(scanned.manifest, again.manifest);
    assert_eq!(scanned.digest, again.digest);
    let inode = |name: &str| fs::metadata(copy.path().join(name)).unwrap().ino();
    assert_eq!(inode("src/small"), inode("src/twin"));
}

#[test]
fn only_what_is_wanted_is_laid_out_and_read() {
    let (tree, packs) = (tree(), tempfile::tempdir().unwrap());
    let scanned = scan(tree.path(), Owner::Root, &mut |_, _| Verdict::Keep, packs.path()).unwrap();
    let copy = lay_out(&scanned, |entry| entry.path.display() == "src/small").unwrap();
    assert_eq!(fs::read_to_string(copy.path().join("src/small")).unwrap(), "small");
    assert_eq!(fs::read_dir(copy.path().join("src")).unwrap().count(), 1);
    let layout = Layout::prepare(
        &scanned.manifest,
        |entry| entry.path.display() == "src/small",
        |_| None,
        tempfile::tempdir().unwrap().path(),
    )
    .unwrap();
    assert!(layout.ranges().iter().map(|range| range.length).sum::<u64>() < 1000);
}

#[test]
fn what_is_there_already_is_linked_and_not_read() {
    let (tree, packs) = (tree(), tempfile::tempdir().unwrap());
    let scanned = scan(tree.path(), Owner::Keep, &mut |_, _| Verdict::Keep, packs.path()).unwrap();
    let first = lay_out(&scanned, |_| true).unwrap();
    // One of them has changed since in what can be seen.
    fs::set_permissions(first.path().join("src/small"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = tempfile::tempdir().unwrap();
    let known =
        |entry: &Entry| Some(first.path().join(std::ffi::OsStr::from_bytes(entry.path.as_bytes())));
    let layout = Layout::prepare(&scanned.manifest, |_| true, known, second.path()).unwrap();
    assert!(layout.ranges().iter().map(|range| range.length).sum::<u64>() < 1000);
    fill(&layout, &scanned).unwrap();
    layout.finish().unwrap();
    let inode = |root: &Path, name: &str| fs::metadata(root.join(name)).unwrap().ino();
    let big = "src/deep/big";
    assert_eq!(inode(first.path(), big), inode(second.path(), big));
    assert_ne!(inode(first.path(), "src/small"), inode(second.path(), "src/small"));
}

#[test]
fn chosen_paths_come_with_their_parents_only() {
    let (tree, packs) = (tree(), tempfile::tempdir().unwrap());
    let paths = ["src/deep", "src/link", "none"].map(|path| TreePath::new(path).unwrap());
    let scanned = scan_paths(tree.path(), &paths, packs.path()).unwrap();
    let names: Vec<_> = scanned.manifest.entries.iter().map(|entry| entry.path.display()).collect();
    assert_eq!(names, ["", "src", "src/deep", "src/deep/big", "src/link"]);
}

#[test]
fn a_skipped_directory_is_listed_when_something_below_is_kept() {
    let (tree, packs) = (tree(), tempfile::tempdir().unwrap());
    let mut filter = |path: &TreePath, _| {
        if path.display() == "src/deep/big" { Verdict::Keep } else { Verdict::Skip }
    };
    let scanned = scan(tree.path(), Owner::Root, &mut filter, packs.path()).unwrap();
    let names: Vec<_> = scanned.manifest.entries.iter().map(|entry| entry.path.display()).collect();
    assert_eq!(names, ["", "src", "src/deep", "src/deep/big"]);
}

#[test]
fn a_tree_that_is_known_is_not_read_again_and_looks_the_same() {
    let tree = tree();
    let scan_with = |memory: &Memory| {
        let packs = tempfile::tempdir().unwrap();
        let all = &mut |_: &TreePath, _| Verdict::Keep;
        let places = (packs.path(), memory);
        (scan::scan(tree.path(), Owner::Root, all, &everything, places).unwrap(), packs)
    };
    let (first, packs) = scan_with(&Memory::default());
    assert!(fs::read_dir(packs.path()).unwrap().count() > 1);
    let (second, packs) = scan_with(first.memory());
    assert_eq!((second.digest, &second.manifest), (first.digest, &first.manifest));
    assert_eq!(fs::read_dir(packs.path()).unwrap().count(), 0, "no pack was made");
    // One that is asked for is made after all.
    for pack in second.packs() {
        let path = second.pack_file(&pack.digest).unwrap();
        assert_eq!(Digest::of(&fs::read(path).unwrap()), pack.digest);
    }
    fs::write(tree.path().join("src/small"), "large").unwrap();
    let (third, packs) = scan_with(first.memory());
    assert_ne!(third.digest, first.digest);
    assert_eq!(fs::read_dir(packs.path()).unwrap().count(), 1);
    let stale = second.packs().any(|pack| {
        fs::remove_dir_all(&packs).ok();
        second.pack_file(&pack.digest).is_err()
    });
    assert!(stale, "a pack of a file that changed meanwhile is not made");
}

#[test]
fn damaged_packs_are_noticed() {
    let (tree, packs) = (tree(), tempfile::tempdir().unwrap());
    let mut scanned =
        scan(tree.path(), Owner::Keep, &mut |_, _| Verdict::Keep, packs.path()).unwrap();
    for entry in &mut scanned.manifest.entries {
        if let EntryKind::File { digest, .. } = &mut entry.kind {
            *digest = Digest::of(b"something else");
        }
    }
    let result = lay_out(&scanned, |_| true);
    assert!(matches!(result, Err(LayoutError::Damaged { .. })));
}

#[test]
fn one_changed_file_changes_few_packs() {
    let root = tempfile::tempdir().unwrap();
    let mut seed = 1_u64;
    for number in 0..300 {
        let bytes: Vec<u8> = (0..100_000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_le_bytes()[7]
            })
            .collect();
        fs::write(root.path().join(format!("{number:03}")), bytes).unwrap();
    }
    let digests = |packs: &Path| -> Vec<Digest> {
        let scanned = scan(root.path(), Owner::Root, &mut |_, _| Verdict::Keep, packs).unwrap();
        scanned.packs().map(|pack| pack.digest).collect()
    };
    let before = digests(tempfile::tempdir().unwrap().path());
    fs::write(root.path().join("150"), "changed").unwrap();
    let after = digests(tempfile::tempdir().unwrap().path());
    assert!(before.len() >= 3, "{}", before.len());
    let new = after.iter().filter(|digest| !before.contains(digest)).count();
    assert!(new <= 2, "{new} of {} packs changed", after.len());
}

#[test]
fn holes_and_odd_names_survive_a_round_trip() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    const LENGTH: u64 = 200 << 20;
    let (root, packs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sparse = File::create(root.path().join("sparse")).unwrap();
    sparse.set_len(LENGTH).unwrap();
    sparse.write_all_at(b"middle", LENGTH / 2).unwrap();
    let long = "n".repeat(255);
    let names: [&[u8]; 4] = [b"line\nbreak", b"not \xff utf-8", long.as_bytes(), b"-rf"];
    for name in names {
        fs::write(root.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let scanned = scan(root.path(), Owner::Keep, &mut |_, _| Verdict::Keep, packs.path()).unwrap();
    let copy = lay_out(&scanned, |_| true).unwrap();
    for name in names {
        assert_eq!(fs::read(copy.path().join(OsStr::from_bytes(name))).unwrap(), name);
    }
    let sparse = File::open(copy.path().join("sparse")).unwrap();
    let found = sparse.metadata().unwrap();
    assert_eq!(found.len(), LENGTH);
    assert!(found.blocks() <= 256, "{} blocks", found.blocks());
    let mut bytes = [0; 6];
    sparse.read_exact_at(&mut bytes, LENGTH / 2).unwrap();
    assert_eq!(&bytes, b"middle");
}

#[test]
fn what_is_not_wanted_is_a_name_without_content() {
    let tree = tree();
    let packs = tempfile::tempdir().unwrap();
    let all = &mut |_: &TreePath, _| Verdict::Keep;
    let small = |manifest: &Manifest| {
        let is_small = |entry: &Entry| entry.path.as_bytes() == b"src/small";
        manifest.entries.iter().map(is_small).collect()
    };
    let memory = Memory::default();
    let scanned = scan::scan(tree.path(), Owner::Root, all, &small, (packs.path(), &memory));
    let scanned = scanned.unwrap();
    assert_eq!(scanned.manifest.content_bytes(), 5);
    let unsent: Vec<String> = scanned
        .manifest
        .entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Unsent)
        .map(|entry| entry.path.display())
        .collect();
    assert_eq!(unsent, ["src/deep/big", "src/empty", "src/twin"]);
    let decoded = crate::manifest::decode(&scanned.encoded).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let layout = Layout::prepare(&decoded, |_| true, |_| None, copy.path()).unwrap();
    fill(&layout, &scanned).unwrap();
    layout.finish().unwrap();
    assert_eq!(fs::read(copy.path().join("src/small")).unwrap(), b"small");
    assert!(fs::symlink_metadata(copy.path().join("src/empty")).is_err());
}
