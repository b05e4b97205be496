use super::*;
use common::plan::{Chmod, SliceSelector};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

struct Trees {
    root: tempfile::TempDir,
}

impl Trees {
    /// A source tree and a root file system: files by path, directories end with a slash, links as
    /// `path -> target`.
    fn new(source: &[&str], rootfs: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, entries) in [("source", source), ("rootfs", rootfs)] {
            let base = root.path().join(name);
            fs::create_dir(&base).unwrap();
            for entry in entries {
                if let Some((path, target)) = entry.split_once(" -> ") {
                    fs::create_dir_all(base.join(path).parent().unwrap()).unwrap();
                    symlink(target, base.join(path)).unwrap();
                } else if entry.ends_with('/') {
                    fs::create_dir_all(base.join(entry)).unwrap();
                } else {
                    fs::create_dir_all(base.join(entry).parent().unwrap()).unwrap();
                    fs::write(base.join(entry), format!("{name}:{entry}")).unwrap();
                }
            }
        }
        Self { root }
    }

    fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    fn rootfs(&self) -> PathBuf {
        self.root.path().join("rootfs")
    }

    fn copy(&self, op: &CopyOp) -> Result<CopyStats, CopyError> {
        self.copy_with(op, false)
    }

    fn copy_with(&self, op: &CopyOp, keep_owner: bool) -> Result<CopyStats, CopyError> {
        let source = self.source();
        let inputs = CopyInputs { source: Some(&source), keep_owner, ..CopyInputs::default() };
        copy(op, inputs, &self.rootfs())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.rootfs().join(path)).unwrap()
    }
}

fn op(sources: &[&str], destination: &str) -> CopyOp {
    let sources = sources.iter().map(|source| (*source).to_owned()).collect();
    CopyOp::new(CopyFrom::Context, sources, destination)
}

/// Copies and compares one file of the result with the source it must have come from.
fn check(source: &[&str], rootfs: &[&str], op: &CopyOp, expected: &[(&str, &str)]) {
    for may_move in [false, true] {
        let trees = Trees::new(source, rootfs);
        let mut from = trees.source();
        if may_move {
            let staging = trees.rootfs().join("staging");
            fs::rename(from, &staging).unwrap();
            from = staging;
        }
        let inputs = CopyInputs { source: Some(&from), may_move, ..CopyInputs::default() };
        copy(op, inputs, &trees.rootfs()).unwrap();
        for (path, from) in expected {
            assert_eq!(trees.read(path), format!("source:{from}"), "{op:?} {may_move}");
        }
    }
}

#[test]
fn what_two_sources_name_is_there_for_both() {
    let cases = [
        (&["a"][..], op(&["/a", "/a"], "/x/"), &[("x/a", "a")][..]),
        (&["d/a"], op(&["/d", "/d/a"], "/x/"), &[("x/a", "d/a")]),
        (&["d/a"], op(&["/d/a", "/d"], "/x/"), &[("x/a", "d/a")]),
        (&["a", "l -> a"], op(&["/l", "/a"], "/x/"), &[("x/a", "a"), ("x/l", "a")]),
        (&["a", "l -> a"], op(&["/*"], "/x/"), &[("x/a", "a"), ("x/l", "a")]),
        (
            &["d/a", "d-b", "d/e/f"],
            op(&["/d", "/d-b", "/d/e"], "/x/"),
            &[("x/e/f", "d/e/f"), ("x/f", "d/e/f")],
        ),
    ];
    for (source, op, expected) in cases {
        check(source, &[], &op, expected);
    }
}

#[test]
fn names_of_one_file_in_two_sources_become_two_files() {
    let trees = Trees::new(&["one"], &[]);
    let staging = trees.rootfs().join("staging");
    fs::rename(trees.source(), &staging).unwrap();
    fs::hard_link(staging.join("one"), staging.join("two")).unwrap();
    let inputs = CopyInputs { source: Some(&staging), may_move: true, ..CopyInputs::default() };
    copy(&op(&["/one", "/two"], "/x/"), inputs, &trees.rootfs()).unwrap();
    let inode = |name: &str| fs::metadata(trees.rootfs().join(name)).unwrap().ino();
    assert_ne!(inode("x/one"), inode("x/two"));
}

#[test]
fn a_moved_file_with_another_name_does_not_change_under_that_one() {
    let trees = Trees::new(&["a", "b"], &[]);
    let staging = trees.rootfs().join("staging");
    fs::rename(trees.source(), &staging).unwrap();
    let kept = trees.root.path().join("kept");
    fs::hard_link(staging.join("a"), &kept).unwrap();
    let before = fs::metadata(&kept).unwrap();
    let op = CopyOp { chown: Some("7:8".to_owned()), ..op(&["/a", "/b"], "/x/") };
    let inputs = CopyInputs { source: Some(&staging), may_move: true, ..CopyInputs::default() };
    copy(&op, inputs, &trees.rootfs()).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().uid(), before.uid());
    for name in ["x/a", "x/b"] {
        let made = fs::metadata(trees.rootfs().join(name)).unwrap();
        assert_eq!((made.uid(), made.gid(), made.nlink()), (7, 8, 1), "{name}");
    }
    assert!(!staging.join("b").exists(), "a file with one name is moved");
}

#[test]
fn a_file_becomes_the_destination_or_lands_in_it() {
    check(&["a"], &[], &op(&["/a"], "/x/y"), &[("x/y", "a")]);
    check(&["a"], &[], &op(&["/a"], "/x/y/"), &[("x/y/a", "a")]);
    check(&["a"], &["x/"], &op(&["/a"], "/x"), &[("x/a", "a")]);
    check(&["a"], &["x"], &op(&["/a"], "/x"), &[("x", "a")]);
    check(&["a", "b"], &[], &op(&["/a", "/b"], "/x/"), &[("x/a", "a"), ("x/b", "b")]);
    check(&["a", "b"], &[], &op(&["/a", "/b"], "/x"), &[("x", "b")]);
}

#[test]
fn a_directory_gives_its_contents() {
    check(&["d/a", "d/e/b"], &[], &op(&["/d"], "/x"), &[("x/a", "d/a"), ("x/e/b", "d/e/b")]);
    check(&["d/a", "e/b"], &["x/"], &op(&["/*"], "/x/"), &[("x/a", "d/a"), ("x/b", "e/b")]);
    check(&["d/a"], &[], &op(&["/"], "/"), &[("d/a", "d/a")]);
}

#[test]
fn wildcards_without_match_are_fine_and_missing_names_are_not() {
    let trees = Trees::new(&["a"], &[]);
    assert_eq!(trees.copy(&op(&["/*.none"], "/x/")).unwrap().files, 0);
    let error = trees.copy(&op(&["/none"], "/x/")).unwrap_err();
    assert!(matches!(&error, CopyError::MissingSource { path, .. } if path == "/none"));
    assert_eq!(error.failure().code, "missing-source");
}

#[test]
fn a_named_link_is_followed_and_one_inside_a_tree_is_kept() {
    let source = ["real", "link -> /real", "d/inner -> ../real", "dirlink -> d"];
    check(&source, &[], &op(&["/link"], "/x"), &[("x", "real")]);
    check(&source, &[], &op(&["/link"], "/x/"), &[("x/link", "real")]);
    let trees = Trees::new(&source, &[]);
    trees.copy(&op(&["/dirlink"], "/x")).unwrap();
    let target = fs::read_link(trees.rootfs().join("x/inner")).unwrap();
    assert_eq!(target, PathBuf::from("../real"));
}

#[test]
fn links_in_the_destination_are_followed_inside_the_root() {
    check(&["a"], &["real/", "to -> /real"], &op(&["/a"], "/to/"), &[("real/a", "a")]);
    check(&["a"], &["real", "to -> real"], &op(&["/a"], "/to"), &[("real", "a")]);
    check(&["a"], &["to -> /new/file"], &op(&["/a"], "/to"), &[("new/file", "a")]);
    let outside = tempfile::tempdir().unwrap();
    let link = format!("to -> {}", outside.path().display());
    let trees = Trees::new(&["a"], &[&link]);
    trees.copy(&op(&["/a"], "/to/")).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn nothing_outside_of_the_source_is_read() {
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("key"), "secret").unwrap();
    let link = format!("out -> {}/key", secret.path().display());
    let climbing = format!("up -> ../../../../../..{}/key", secret.path().display());
    let trees = Trees::new(&[&link, &climbing], &[]);
    for source in ["/out", "/up"] {
        assert!(trees.copy(&op(&[source], "/x/")).is_err(), "{source}");
    }
}

#[test]
fn children_replace_links_and_files_but_not_directories() {
    check(&["d/a"], &["x/a -> /etc/passwd"], &op(&["/d"], "/x"), &[("x/a", "d/a")]);
    let trees = Trees::new(&["d/a"], &["x/a/"]);
    assert_eq!(trees.copy(&op(&["/d"], "/x")).unwrap_err().failure().code, "copy-destination");
    let trees = Trees::new(&["d/a/b"], &["x/a -> /", "x/"]);
    assert_eq!(trees.copy(&op(&["/d"], "/x")).unwrap_err().failure().code, "copy-destination");
}

#[test]
fn owners_and_modes_follow_chown_and_chmod() {
    let trees = Trees::new(&["d/a", "d/e/"], &[]);
    let setuid = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(trees.source().join("d/a"), setuid).unwrap();
    std::os::unix::fs::chown(trees.source().join("d/a"), Some(7), Some(7)).unwrap();
    fs::set_permissions(trees.source().join("d/a"), fs::Permissions::from_mode(0o4755)).unwrap();
    trees.copy(&op(&["/d"], "/plain")).unwrap();
    let found = fs::metadata(trees.rootfs().join("plain/a")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o4755));
    let owned = CopyOp {
        chown: Some("5:6".into()),
        chmod: Some(Chmod::Octal(0o640)),
        ..op(&["/d"], "/new/x")
    };
    trees.copy(&owned).unwrap();
    for path in ["new", "new/x", "new/x/a", "new/x/e"] {
        let found = fs::metadata(trees.rootfs().join(path)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (5, 6, 0o640), "{path}");
    }
    trees.copy_with(&op(&["/d"], "/kept"), true).unwrap();
    assert_eq!(fs::metadata(trees.rootfs().join("kept/a")).unwrap().uid(), 7);
}

#[test]
fn times_are_kept_and_a_new_destination_takes_the_time_of_its_source() {
    let trees = Trees::new(&["d/a"], &[]);
    let old = Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
    for path in ["d/a", "d"] {
        set_time(&File::open(trees.source().join(path)).unwrap().into(), old).unwrap();
    }
    trees.copy(&op(&["/d"], "/x")).unwrap();
    for path in ["x/a", "x"] {
        assert_eq!(fs::metadata(trees.rootfs().join(path)).unwrap().mtime(), 1_000_000, "{path}");
    }
}

#[test]
fn hard_links_of_one_source_stay_hard_links() {
    let trees = Trees::new(&["d/a"], &[]);
    fs::hard_link(trees.source().join("d/a"), trees.source().join("d/b")).unwrap();
    trees.copy(&op(&["/d"], "/x")).unwrap();
    let inode = |path: &str| fs::metadata(trees.rootfs().join(path)).unwrap().ino();
    assert_eq!(inode("x/a"), inode("x/b"));
    trees.copy(&op(&["/d/a", "/d/b"], "/y/")).unwrap();
    assert_ne!(inode("y/a"), inode("y/b"));
}

#[test]
fn inline_files_are_written_after_paths() {
    let inline = vec![InlineFile { name: "a".into(), content: "inline".into() }];
    let trees = Trees::new(&["a"], &[]);
    trees.copy(&CopyOp { inline, ..op(&["/a"], "/x/") }).unwrap();
    assert_eq!(trees.read("x/a"), "inline");
    assert_eq!(fs::metadata(trees.rootfs().join("x/a")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn archives_are_unpacked_by_add_and_copied_by_copy() {
    let trees = Trees::new(&["in/f", "in/g -> f"], &[]);
    let archive = trees.source().join("thing");
    let status = std::process::Command::new("tar")
        .args(["-C", trees.source().join("in").to_str().unwrap(), "-czf"])
        .arg(&archive)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    trees.copy(&CopyOp { unpack: Unpack::Local, ..op(&["/thing"], "/out") }).unwrap();
    assert_eq!(trees.read("out/f"), "source:in/f");
    assert_eq!(trees.read("out/g"), "source:in/f");
    trees.copy(&op(&["/thing"], "/copied/")).unwrap();
    assert!(trees.rootfs().join("copied/thing").is_file());
}

#[test]
fn archives_cannot_write_outside() {
    let trees = Trees::new(&[], &[]);
    let mut builder = tar::Builder::new(File::create(trees.source().join("evil.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    let outside = trees.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    builder.append_link(&mut header, "link", &outside).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, "link/file", &b"x"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    // `append_data` refuses to climb, so the name is written by hand.
    header.as_old_mut().name[..14].copy_from_slice(b"../../outside/");
    header.as_old_mut().name[14] = b'y';
    header.set_cksum();
    builder.append(&header, &b"y"[..]).unwrap();
    builder.finish().unwrap();
    let result = trees.copy(&CopyOp { unpack: Unpack::Local, ..op(&["/evil.tar"], "/x/") });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{result:?}");
}

#[test]
fn a_missing_stage_path_names_the_stage() {
    let trees = Trees::new(&[], &[]);
    let from = CopyFrom::Stage {
        stage: common::plan::StageIndex(0),
        selector: SliceSelector::new(vec!["/app".into()]),
    };
    let error = trees.copy(&CopyOp { from, ..op(&["/app"], "/") }).unwrap_err();
    assert_eq!(error.to_string(), "\"/app\" not found in the stage");
}

#[test]
fn working_directories_belong_to_the_user_of_the_stage() {
    for (owner, expected) in [("app", (12, 34)), ("7", (7, 7)), ("5:6", (5, 6)), ("", (0, 0))] {
        let trees = Trees::new(&[], &["etc/"]);
        fs::write(trees.rootfs().join("etc/passwd"), "app:x:12:34::/:\n").unwrap();
        let workdir = WorkdirOp { path: "/srv/app".into(), owner: owner.into() };
        make_workdir(&workdir, &trees.rootfs()).unwrap();
        for path in ["srv", "srv/app"] {
            let found = fs::metadata(trees.rootfs().join(path)).unwrap();
            assert_eq!(((found.uid(), found.gid()), found.mode() & 0o777), (expected, 0o755));
        }
    }
}

/// All paths below a directory, those of directories with a slash, sorted.
fn listed(directory: &Path) -> Vec<String> {
    let walk = walkdir::WalkDir::new(directory).min_depth(1).sort_by_file_name();
    let name = |entry: walkdir::DirEntry| {
        let path = entry.path().strip_prefix(directory).unwrap().display().to_string();
        if entry.file_type().is_dir() { format!("{path}/") } else { path }
    };
    walk.into_iter().map(|entry| name(entry.unwrap())).collect()
}

fn flagged(op: &CopyOp, source: &[&str]) -> Vec<String> {
    let trees = Trees::new(source, &[]);
    trees.copy(op).unwrap();
    listed(&trees.rootfs())
}

#[test]
fn excluded_paths_are_left_out_relative_to_each_source() {
    // C28
    let source = ["d/a.o", "d/a.c", "d/sub/b.o", "d/sub/c.c", "d/only/x.o"];
    let with = |exclude: &[&str]| {
        let exclude = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
        flagged(&CopyOp { exclude, ..op(&["/d"], "/t/") }, &source)
    };
    assert_eq!(
        with(&["*.o"]),
        ["t/", "t/a.c", "t/only/", "t/only/x.o", "t/sub/", "t/sub/b.o", "t/sub/c.c"]
    );
    assert_eq!(with(&["**/*.o"]), ["t/", "t/a.c", "t/only/", "t/sub/", "t/sub/c.c"]);
    // The directory itself, or only what it holds.
    assert_eq!(with(&["sub", "only"]), ["t/", "t/a.c", "t/a.o"]);
    assert_eq!(with(&["sub/**", "only", "*.o"]), ["t/", "t/a.c", "t/sub/"]);
    // Taken back.
    assert_eq!(with(&["*", "!sub/c.c"]), ["t/", "t/sub/", "t/sub/c.c"]);
    // Of a wildcard each match is a source of its own.
    let exclude = vec!["*.o".to_owned()];
    let found = flagged(&CopyOp { exclude, ..op(&["/d/a.*"], "/t/") }, &source);
    assert_eq!(found, ["t/", "t/a.c"]);
}

#[test]
fn parents_are_kept_from_the_root_or_from_the_pivot() {
    // C27
    let source = ["x/y/a", "x/y/b", "x/z/c", "p/q/r/d"];
    let with = |sources: &[&str]| flagged(&CopyOp { parents: true, ..op(sources, "/t/") }, &source);
    assert_eq!(with(&["/x/y/a"]), ["t/", "t/x/", "t/x/y/", "t/x/y/a"]);
    assert_eq!(with(&["/x/./y/a"]), ["t/", "t/y/", "t/y/a"]);
    // A directory comes as itself.
    assert_eq!(with(&["/x/./y"]), ["t/", "t/y/", "t/y/a", "t/y/b"]);
    assert_eq!(with(&["/x/*/?"]).len(), 7);
    assert_eq!(with(&["/**/d"]), ["t/", "t/p/", "t/p/q/", "t/p/q/r/", "t/p/q/r/d"]);
    assert_eq!(with(&["/p/./**/d", "/x/y/./b"]), ["t/", "t/b", "t/q/", "t/q/r/", "t/q/r/d"]);
    let trees = Trees::new(&source, &[]);
    let missing = trees.copy(&CopyOp { parents: true, ..op(&["/x/./none"], "/t/") });
    assert!(matches!(missing, Err(CopyError::MissingSource { .. })), "{missing:?}");
    // Parents look like those of the source.
    let private = PermissionsExt::from_mode(0o750);
    fs::set_permissions(trees.source().join("x"), private).unwrap();
    trees.copy(&CopyOp { parents: true, ..op(&["/x/y/a"], "/u") }).unwrap();
    assert_eq!(fs::metadata(trees.rootfs().join("u/x")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn a_layer_of_its_own_knows_no_names() {
    // C16, C26
    let trees = Trees::new(&["a"], &[]);
    let linked = |owner: &str| CopyOp { link: true, chown: Some(owner.into()), ..op(&["/a"], "/") };
    assert!(matches!(trees.copy(&linked("app")), Err(CopyError::NamedOwner(_))));
    trees.copy(&linked("5:6")).unwrap();
    assert_eq!(fs::metadata(trees.rootfs().join("a")).unwrap().uid(), 5);
}

#[test]
fn archives_of_every_compression_are_known_by_their_content() {
    // D1
    for (name, flag) in [("gzip", "-z"), ("bzip2", "-j"), ("xz", "-J"), ("plain", "")] {
        let trees = Trees::new(&["in/f"], &[]);
        let archive = trees.source().join("thing");
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(trees.source().join("in")).arg("-cf").arg(&archive);
        if !flag.is_empty() {
            tar.arg(flag);
        }
        assert!(tar.arg(".").status().unwrap().success(), "{name}");
        trees.copy(&CopyOp { unpack: Unpack::Local, ..op(&["/thing"], "/out") }).unwrap();
        assert_eq!(trees.read("out/f"), "source:in/f", "{name}");
        // What only begins like one is a file.
        let mut bytes = fs::read(&archive).unwrap();
        bytes.truncate(20);
        fs::write(trees.source().join("cut"), bytes).unwrap();
        trees.copy(&CopyOp { unpack: Unpack::Local, ..op(&["/cut"], "/cut/") }).unwrap();
        assert!(trees.rootfs().join("cut/cut").is_file(), "{name}");
    }
}
