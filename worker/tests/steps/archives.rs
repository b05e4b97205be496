//! ADD of archives as people make them.

use std::fs;
use std::path::Path;
use std::process::Command;

use common::plan::{CopyOp, Unpack};

use crate::sandbox::{Trees, copy_op, write};

fn add(sources: &[&str], destination: &str) -> CopyOp {
    CopyOp { unpack: Unpack::Local, ..copy_op(sources, destination) }
}

fn command(directory: &Path, line: &str) {
    let status = Command::new("sh").args(["-ec", line]).current_dir(directory).status().unwrap();
    assert!(status.success(), "{line}");
}

#[test]
fn formats_are_told_by_content_and_not_by_name() {
    let trees = Trees::new();
    write(trees.source("in/f"), "f");
    let source = trees.source("");
    command(&source, "tar -C in -cf plain . && gzip -k plain && gzip -c in/f > text.tar.gz");
    let plain = fs::read(trees.source("plain")).unwrap();
    fs::write(trees.source("plain.zst"), zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap();
    command(&source, "bzip2 -k plain && xz -k plain");
    fs::write(trees.source("cut.bz2"), b"BZh91AY&SY").unwrap();
    fs::write(trees.source("cut.xz"), b"\xfd7zXZ\0\0\x04").unwrap();
    for name in ["plain", "plain.gz", "plain.zst", "plain.bz2", "plain.xz"] {
        let destination = format!("/out-{name}");
        trees.copy(&add(&[&format!("/{name}")], &destination)).unwrap();
        let found = trees.rootfs(destination.trim_start_matches('/')).join("f");
        assert_eq!(fs::read_to_string(found).unwrap(), "f", "{name}");
    }
    for name in ["text.tar.gz", "cut.bz2", "cut.xz"] {
        trees.copy(&add(&[&format!("/{name}")], "/kept/")).unwrap();
        assert!(trees.rootfs(&format!("kept/{name}")).is_file(), "{name}");
    }
}

#[test]
fn several_archives_of_one_pattern_are_all_unpacked() {
    let trees = Trees::new();
    for name in ["one", "two"] {
        write(trees.source(name), name);
        command(&trees.source(""), &format!("tar -cf {name}.tar {name}"));
    }
    trees.copy(&add(&["/*.tar"], "/x")).unwrap();
    assert!(trees.rootfs("x/one").exists() && trees.rootfs("x/two").exists());
}

#[test]
fn a_truncated_archive_is_an_error_that_names_it() {
    let trees = Trees::new();
    write(trees.source("in/f"), &"x".repeat(100_000));
    command(&trees.source(""), "tar -C in -cf full . && head -c 50000 full > cut.tar");
    let failure = trees.copy(&add(&["/cut.tar"], "/x")).unwrap_err().failure();
    assert_eq!(failure.class, common::FailureClass::User, "{failure}");
    assert!(failure.message.contains("cut.tar"), "{failure}");
}
