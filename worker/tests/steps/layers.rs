//! The change of a step as a layer: packed, unpacked, mounted again.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::sandbox::inputs_of;
use layer::{Compression, pack_upper};
use worker::execute::copy::copy;
use worker::rootfs::{mount_readonly, mount_writable};

use crate::sandbox::{Sandbox, copy_op, every_runtime, run, tree, write};

/// The one attribute that a layer holds.
const CAPABILITY: &str = "security.capability";

/// Names in a blob, in order.
fn names(blob: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("-tzf").arg(blob).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_command_that_changes_nothing_makes_an_empty_layer() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let (packed, blob) = sandbox.layer("cat /etc/passwd > /dev/null").await;
        assert_eq!(names(&blob), Vec::<String>::new());
        assert_eq!(packed.uncompressed_bytes, 1024);
    }
}

#[tokio::test]
async fn the_next_step_sees_exactly_what_the_last_one_left() {
    let mut sandbox = Sandbox::plain();
    write(sandbox.base("data/a"), "a");
    write(sandbox.base("data/b/c"), "c");
    write(sandbox.base("gone/x/y"), "y");
    write(sandbox.base("swap"), "was a file");
    let script = "echo new > /new; chmod 4750 /new; ln /new /twin; ln -s ../x /link; \
                  mkdir -p /deep/er; echo x > '/deep/er/name with ü'; mknod /pipe p; \
                  echo changed >> /data/a; rm /data/b/c; rm -r /gone; mkdir /gone; \
                  echo z > /gone/z; rm /swap; mkdir /swap; mv /etc/group /etc/moved; \
                  mv /data /renamed; chmod 1777 /tmp; touch /etc/passwd";
    let step = sandbox.step();
    let request = sandbox.request(&step, &["/bin/sh", "-ec", script]);
    let ran = run(&sandbox.runtime, request).await.unwrap();
    assert_eq!(ran.exit.code, 0, "{ran:?}");
    let seen = tree(step.mount.path());
    sandbox.commit(step);
    let view = sandbox.view();
    assert_eq!(tree(view.path()), seen);
}

#[tokio::test]
async fn a_removed_tree_is_one_whiteout_and_its_parents_are_in_the_layer() {
    let mut sandbox = Sandbox::plain();
    for name in ["srv/tree/a", "srv/tree/b/c", "srv/tree-2/kept", "srv/file"] {
        write(sandbox.base(name), name);
    }
    let (_, blob) = sandbox.layer("rm -r /srv/tree /srv/file").await;
    assert_eq!(names(&blob), ["srv/", "srv/.wh.file", "srv/.wh.tree"]);
    let view = sandbox.view();
    assert!(!view.path().join("srv/tree").exists() && !view.path().join("srv/file").exists());
    assert!(view.path().join("srv/tree-2/kept").exists());
}

#[tokio::test]
async fn what_a_later_step_brings_back_hides_the_whiteout() {
    let mut sandbox = Sandbox::plain();
    write(sandbox.base("srv/old/a"), "a");
    sandbox.layer("rm -r /srv/old").await;
    sandbox.layer("mkdir /srv/old; echo b > /srv/old/b").await;
    let view = sandbox.view();
    let found: Vec<_> = fs::read_dir(view.path().join("srv/old"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(found, ["b"]);
}

#[tokio::test]
async fn new_directories_carry_no_opaque_marker_and_replaced_ones_hide_what_was_below() {
    let mut sandbox = Sandbox::plain();
    write(sandbox.base("srv/dir/old"), "old");
    let (_, blob) = sandbox.layer("mkdir -p /srv/new/deep; echo x > /srv/new/deep/x").await;
    assert_eq!(names(&blob), ["srv/", "srv/new/", "srv/new/deep/", "srv/new/deep/x"]);
    sandbox.layer("rm -r /srv/dir; mkdir /srv/dir; echo x > /srv/dir/new").await;
    let view = sandbox.view();
    assert!(view.path().join("srv/dir/new").exists());
    assert!(!view.path().join("srv/dir/old").exists());
}

#[tokio::test]
async fn no_attribute_of_the_overlay_reaches_the_blob() {
    let mut sandbox = Sandbox::plain();
    write(sandbox.base("srv/a"), "a");
    let (_, blob) = sandbox.layer("echo b >> /srv/a; mv /srv/a /srv/b; rm -r /tmp").await;
    let plain = Command::new("gzip").arg("-dc").arg(&blob).output().unwrap().stdout;
    let text = String::from_utf8_lossy(&plain);
    assert!(!text.contains("overlay") && !text.contains("xattr"), "{:?}", names(&blob));
}

#[tokio::test]
async fn a_socket_is_left_out_and_a_capability_kept() {
    let mut sandbox = Sandbox::plain();
    let step = sandbox.step();
    let _socket = std::os::unix::net::UnixListener::bind(step.mount.path().join("s")).unwrap();
    write(step.mount.path().join("ping"), "program");
    // CAP_NET_RAW, permitted and effective, in the form of setcap(8).
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ping = step.mount.path().join("ping");
    rustix::fs::setxattr(&ping, CAPABILITY, &value, rustix::fs::XattrFlags::empty()).unwrap();
    let (_, blob) = sandbox.commit(step);
    assert_eq!(names(&blob), ["ping"]);
    let view = sandbox.view();
    let mut found = [0; 64];
    let length =
        rustix::fs::getxattr(view.path().join("ping"), CAPABILITY, &mut found[..]).unwrap();
    assert_eq!(found[..length], value);
}

#[tokio::test]
async fn the_same_copy_makes_the_same_layer_on_any_worker() {
    let context = tempfile::tempdir().unwrap();
    for name in ["d/b", "d/a", "d/e/c"] {
        write(context.path().join(name), name);
    }
    let digests = [(); 2].map(|()| {
        let mut sandbox = Sandbox::plain();
        let step = sandbox.step();
        copy(&copy_op(&["/d"], "/x"), inputs_of(context.path(), false), step.mount.path()).unwrap();
        sandbox.commit(step).0
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn as_many_layers_as_the_kernel_takes_can_be_mounted_and_packed_over() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: String| directory.path().join(name);
    let layers: Vec<_> =
        (0..worker::rootfs::MAX_LAYERS).map(|n| at(format!("layer {n}"))).collect();
    for (number, layer) in layers.iter().enumerate() {
        write(layer.join("d").join(number.to_string()), "x");
        write(layer.join("top"), &number.to_string());
    }
    let [upper, work, root, view] = ["upper", "work", "root", "view"].map(|n| at(n.to_owned()));
    for path in [&upper, &work, &root, &view] {
        fs::create_dir(path).unwrap();
    }
    let mount = mount_writable(&layers, &upper, &work, &root).unwrap();
    assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), layers.len());
    assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "499");
    fs::remove_file(root.join("d/0")).unwrap();
    drop(mount);
    let packed = pack_upper(&upper, &layers, &at("blob".into()), Compression::None).unwrap();
    assert_eq!(packed.uncompressed_bytes, 1024 + 2 * 512);
    drop(mount_readonly(&layers, &view).unwrap());
    let mut more = layers;
    more.push(upper);
    let error = mount_readonly(&more, &view).unwrap_err();
    assert!(error.to_string().contains("500"), "{error}");
}
