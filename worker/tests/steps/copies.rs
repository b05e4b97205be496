//! COPY and WORKDIR: rules that need real file systems, and sources that mean harm.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use common::plan::{CopyFrom, CopyOp, SliceSelector, StageIndex, WorkdirOp};
use worker::execute::copy::{copy, make_workdir};

use crate::sandbox::inputs_of;

use crate::sandbox::{Sandbox, Trees, copy_op, every_runtime, run, write};

fn facts(path: impl AsRef<std::path::Path>) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.mode() & 0o7777, found.uid(), found.gid())
}

fn set(path: impl AsRef<std::path::Path>, mode: u32, owner: u32) {
    std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_destination_is_plain_and_an_existing_one_keeps_what_it_is() {
    let trees = Trees::new();
    write(trees.source("d/nested/file"), "x");
    set(trees.source("d"), 0o750, 5);
    set(trees.source("d/nested"), 0o711, 5);
    trees.copy(&copy_op(&["/d"], "/new")).unwrap();
    assert_eq!(facts(trees.rootfs("new")), (0o755, 0, 0));
    assert_eq!(facts(trees.rootfs("new/nested")), (0o711, 0, 0));
    fs::create_dir_all(trees.rootfs("old/nested")).unwrap();
    set(trees.rootfs("old"), 0o700, 9);
    set(trees.rootfs("old/nested"), 0o700, 9);
    trees.copy(&copy_op(&["/d"], "/old")).unwrap();
    assert_eq!(facts(trees.rootfs("old")), (0o700, 9, 9));
    // What lies deeper takes the source's.
    assert_eq!(facts(trees.rootfs("old/nested")), (0o711, 0, 0));
}

#[test]
fn owners_of_a_stage_are_kept_with_special_bits_and_sparse_names() {
    let trees = Trees::new();
    write(trees.source("bin/tool"), "x");
    set(trees.source("bin/tool"), 0o6755, 42);
    fs::create_dir(trees.source("bin/drop")).unwrap();
    set(trees.source("bin/drop"), 0o1777, 43);
    let odd = std::ffi::OsStr::from_bytes(b"not \xff utf-8\n");
    fs::write(trees.source("bin").join(odd), "odd").unwrap();
    let from =
        CopyFrom::Stage { stage: StageIndex(0), selector: SliceSelector::new(vec!["/bin".into()]) };
    let op = CopyOp { from, ..copy_op(&["/bin"], "/usr/bin/") };
    copy(&op, inputs_of(&trees.source(""), true), &trees.rootfs("")).unwrap();
    assert_eq!(facts(trees.rootfs("usr/bin/tool")), (0o6755, 42, 42));
    assert_eq!(facts(trees.rootfs("usr/bin/drop")), (0o1777, 43, 43));
    assert_eq!(fs::read_to_string(trees.rootfs("usr/bin").join(odd)).unwrap(), "odd");
    // The directories on the way are new.
    assert_eq!(facts(trees.rootfs("usr")), (0o755, 0, 0));
}

#[test]
fn sources_that_climb_stay_in_the_context() {
    let trees = Trees::new();
    write(trees.source("etc/passwd"), "of the context");
    trees.copy(&copy_op(&["/../../../etc/passwd"], "/got")).unwrap();
    assert_eq!(fs::read_to_string(trees.rootfs("got")).unwrap(), "of the context");
}

#[test]
fn links_are_followed_over_several_steps_and_through_directories() {
    let trees = Trees::new();
    write(trees.source("real/file"), "x");
    symlink("/b", trees.source("a")).unwrap();
    symlink("c", trees.source("b")).unwrap();
    symlink("real", trees.source("c")).unwrap();
    symlink("../a/file", trees.source("real/again")).unwrap();
    trees.copy(&copy_op(&["/a/again"], "/one")).unwrap();
    assert_eq!(fs::read_to_string(trees.rootfs("one")).unwrap(), "x");
    trees.copy(&copy_op(&["/a"], "/tree")).unwrap();
    assert_eq!(fs::read_link(trees.rootfs("tree/again")).unwrap().as_os_str(), "../a/file");
}

#[test]
fn specials_survive_and_a_pipe_does_not_stop_the_copy() {
    let trees = Trees::new();
    fs::create_dir(trees.source("d")).unwrap();
    let (pipe, block) = (trees.source("d/pipe"), trees.source("d/block"));
    let status = std::process::Command::new("mkfifo").arg("-m").arg("640").arg(&pipe).status();
    assert!(status.unwrap().success());
    let status = std::process::Command::new("mknod").arg(&block).args(["b", "7", "200"]).status();
    assert!(status.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(trees.source("d/socket")).unwrap();
    trees.copy(&copy_op(&["/d"], "/x")).unwrap();
    let kind = |path: &str| fs::symlink_metadata(trees.rootfs(path)).unwrap().file_type();
    assert!(kind("x/pipe").is_fifo() && kind("x/block").is_block_device());
    assert!(kind("x/socket").is_file());
    assert_eq!(facts(trees.rootfs("x/pipe")).0, 0o640);
    trees.copy(&copy_op(&["/d/pipe"], "/named")).unwrap();
    assert!(kind("named").is_fifo());
}

#[test]
fn a_copy_over_a_lower_layer_touches_the_upper_one_only() {
    let mut sandbox = Sandbox::plain();
    write(sandbox.base("srv/conf"), "old");
    symlink("/srv", sandbox.base("way")).unwrap();
    let context = sandbox.fresh("context");
    write(context.join("conf"), "new");
    let step = sandbox.step();
    copy(&copy_op(&["/conf"], "/way/conf"), inputs_of(&context, false), step.mount.path()).unwrap();
    sandbox.commit(step);
    let view = sandbox.view();
    assert_eq!(fs::read_to_string(view.path().join("srv/conf")).unwrap(), "new");
    assert_eq!(fs::read_to_string(sandbox.base("srv/conf")).unwrap(), "old");
    assert!(view.path().join("way").is_symlink());
}

#[test]
fn a_file_copied_out_of_a_mounted_chain_is_the_one_on_top() {
    let mut sandbox = Sandbox::plain();
    write(sandbox.base("out/app"), "old");
    let step = sandbox.step();
    write(step.mount.path().join("out/app"), "new");
    sandbox.commit(step);
    let producer = sandbox.view();
    let trees = Trees::new();
    let from =
        CopyFrom::Stage { stage: StageIndex(0), selector: SliceSelector::new(vec!["/out".into()]) };
    let op = CopyOp { from, ..copy_op(&["/out/*"], "/") };
    let stats = copy(&op, inputs_of(producer.path(), true), &trees.rootfs("")).unwrap();
    assert_eq!((stats.files, stats.content_bytes), (1, 3));
    assert_eq!(fs::read_to_string(trees.rootfs("app")).unwrap(), "new");
}

#[tokio::test]
async fn a_working_directory_that_is_there_makes_an_empty_layer() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        fs::create_dir(sandbox.base("srv")).unwrap();
        set(sandbox.base("srv"), 0o700, 3);
        let step = sandbox.step();
        let op = WorkdirOp { path: "/srv".into(), owner: "app".into() };
        make_workdir(&op, step.mount.path()).unwrap();
        assert_eq!(sandbox.commit(step).0.uncompressed_bytes, 1024);
        let step = sandbox.step();
        let op = WorkdirOp { path: "/srv/in/side".into(), owner: "app".into() };
        make_workdir(&op, step.mount.path()).unwrap();
        let request = sandbox.request(&step, &["/bin/stat", "-c", "%u:%g %a", "/srv", "/srv/in"]);
        let ran = run(&sandbox.runtime, request).await.unwrap();
        assert_eq!(ran.stdout, "3:3 700\n7:8 755\n", "{ran:?}");
    }
}
