//! Ways out of a container and out of a tree, tried.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::plan::{CopyOp, Unpack};
use layer::{Compression, PackError, pack_upper};
use worker::execute::copy::{copy, open_directory};

use crate::sandbox::{Sandbox, Trees, copy_op, every_runtime, inputs_of, run, write};

/// A file that is on the host and in no root file system.
fn host_file(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.directory.path().join("of-the-host");
    fs::write(&path, "secret of the host").unwrap();
    path
}

#[tokio::test]
async fn roots_and_working_directories_of_processes_lead_nowhere_else() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let secret = host_file(&sandbox).display().to_string();
        for way in ["/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/proc/self/cwd/../../.."] {
            let ran = sandbox.sh(&format!("ls {way}/bin/busybox && cat {way}{secret}")).await;
            assert_ne!(ran.exit.code, 0, "{way}: {ran:?}");
            assert!(ran.stdout.contains("busybox") && !ran.stdout.contains("secret"), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn a_second_root_does_not_open_the_first() {
    let script = "mkdir '/jail'; chroot '/jail' or die; chdir '..' for 1 .. 100; chroot '.' or die; \
                  print -e '/bin/busybox' ? 'own ' : 'lost ', -e $ARGV[0] ? 'escaped' : 'held'";
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        sandbox.add_program("/usr/bin/perl");
        let secret = host_file(&sandbox).display().to_string();
        let step = sandbox.step();
        let request = sandbox.request(&step, &["/usr/bin/perl", "-e", script, &secret]);
        let ran = run(&sandbox.runtime, request).await.unwrap();
        assert_eq!(ran.stdout, "own held", "{ran:?}");
    }
}

/// The class of CVE-2019-5736: the runtime enters the container and can be reached there as
/// somebody's program.
#[tokio::test]
async fn the_runtime_itself_cannot_be_overwritten_from_inside() {
    let digest = |name: &str| {
        let places = ["/usr/bin", "/usr/sbin", "/sbin"].map(|place| Path::new(place).join(name));
        let place = places.into_iter().find(|place| place.is_file()).unwrap();
        common::Digest::of(&fs::read(place).unwrap())
    };
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let name = sandbox.runtime.name();
        let before = digest(name);
        // The command is the runtime's own program, which is still there when it starts.
        write(sandbox.base("self"), "#!/proc/self/exe\n");
        let step = sandbox.step();
        fs::set_permissions(
            step.mount.path().join("self"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let request = sandbox.request(&step, &["/self"]);
        // Whether it starts at all does not matter.
        let _ = run(&sandbox.runtime, request).await;
        drop(step);
        let script = "for i in $(seq 200); do for exe in /proc/[0-9]*/exe; do \
                      (echo x > $exe) 2>/dev/null && echo wrote $exe; done; done; true";
        let ran = sandbox.sh(script).await;
        assert_eq!(ran.stdout, "", "{ran:?}");
        assert_eq!(digest(name), before);
    }
}

#[tokio::test]
async fn cgroups_devices_and_mounts_of_the_host_cannot_be_had() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        for script in [
            "echo /x > $(find /sys/fs/cgroup -name release_agent | head -n 1)",
            "echo 1 > $(find /sys/fs/cgroup -name notify_on_release | head -n 1)",
            "d=/sys/fs/cgroup; test ! -d $d/memory || d=$d/memory; mkdir $d/x",
            "mount -t cgroup -o memory none /tmp",
            "mount -t cgroup2 none /tmp",
            "mount -t devtmpfs none /tmp",
            "mount -t sysfs none /tmp",
            "mount --bind /proc/1/root /tmp",
            "mount -o remount,rw /sys",
            "mount -o remount,rw /proc/sys",
            "umount /sys/firmware",
            "umount /etc/hosts",
            "ls /sys/firmware | grep .",
            "ls /sys/devices/virtual/powercap | grep .",
            "test -s /proc/timer_list",
            "test -s /proc/interrupts",
            "echo 0 > /proc/sys/kernel/randomize_va_space",
            "echo x > /proc/1/attr/current",
        ] {
            let ran = sandbox.sh(script).await;
            assert_ne!(ran.exit.code, 0, "{script}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn abstract_sockets_and_processes_of_the_host_are_not_there() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("slipway-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    assert!(fs::read_to_string("/proc/net/unix").unwrap().contains(&name));
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let ran = sandbox.sh(&format!("grep {name} /proc/net/unix")).await;
        assert_eq!((ran.exit.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
        // Every process that it may signal is its own.
        let ran = sandbox.sh("trap '' TERM; kill -TERM -1; echo alive").await;
        assert_eq!(ran.stdout, "alive\n", "{ran:?}");
    }
}

/// Swaps two names until told to stop: whoever looks between two steps sees either.
fn swap_meanwhile(one: PathBuf, other: PathBuf) -> (Arc<AtomicBool>, std::thread::JoinHandle<()>) {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let thread = std::thread::spawn(move || {
        while !flag.load(Ordering::Relaxed) {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &one,
                rustix::fs::CWD,
                &other,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
    });
    (done, thread)
}

#[test]
fn a_source_that_turns_into_a_link_meanwhile_shows_nothing_of_the_host() {
    let trees = Trees::new();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path().join("file"), "secret of the host");
    write(trees.source("tree/d/file"), "of the context");
    symlink(outside.path(), trees.source("tree/other")).unwrap();
    let (done, thread) = swap_meanwhile(trees.source("tree/d"), trees.source("tree/other"));
    let mut copied = 0;
    for number in 0..400 {
        for source in ["/tree", "/tree/d", "/tree/d/file"] {
            let target = format!("/out-{number}/");
            if copy(
                &copy_op(&[source], &target),
                inputs_of(&trees.source(""), false),
                &trees.rootfs(""),
            )
            .is_ok()
            {
                copied += 1;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert!(copied > 0);
    let mut todo = vec![trees.rootfs("")];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                assert_eq!(fs::read_to_string(&path).unwrap(), "of the context", "{path:?}");
            }
        }
    }
}

#[test]
fn a_destination_that_turns_into_a_link_meanwhile_leads_nowhere_else() {
    let trees = Trees::new();
    let outside = tempfile::tempdir().unwrap();
    write(trees.source("a/b/file"), "x");
    fs::create_dir_all(trees.rootfs("d/a/b")).unwrap();
    symlink(outside.path(), trees.rootfs("other")).unwrap();
    let (done, thread) = swap_meanwhile(trees.rootfs("d"), trees.rootfs("other"));
    for _ in 0..400 {
        for (source, target) in [("/a", "/d/a"), ("/a/b/file", "/d/new/file"), ("/a", "/d/")] {
            let _ = copy(
                &copy_op(&[source], target),
                inputs_of(&trees.source(""), false),
                &trees.rootfs(""),
            );
        }
    }
    done.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// The class of CVE-2024-23651: two commands share a cache, and one swaps the directory that the
/// other mounts a part of.
#[test]
fn a_part_of_a_cache_stays_in_the_cache_whoever_changes_it() {
    let cache = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(cache.path().join("d/part")).unwrap();
    fs::create_dir(outside.path().join("part")).unwrap();
    symlink(outside.path(), cache.path().join("other")).unwrap();
    let root = cache.path().canonicalize().unwrap();
    let place = |directory: &std::os::fd::OwnedFd| {
        fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap()
    };
    // What is missing is made inside, where the link leads from there.
    let opened = open_directory(&root, b"other/new").unwrap();
    assert!(place(&opened).starts_with(&root));
    let (done, thread) = swap_meanwhile(root.join("d"), root.join("other"));
    let mut opened = 0;
    for _ in 0..2000 {
        if let Ok(directory) = open_directory(&root, b"d/part") {
            assert!(place(&directory).starts_with(&root), "{:?}", place(&directory));
            opened += 1;
        }
    }
    done.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert!(opened > 0);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn names_that_mean_removal_are_refused_wherever_they_come_from() {
    let trees = Trees::new();
    write(trees.source("d/.wh.passwd"), "x");
    let mut archive = tar::Builder::new(fs::File::create(trees.source("a.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    archive.append_data(&mut header, "etc/.wh..wh..opq", [].as_slice()).unwrap();
    archive.finish().unwrap();
    let add = CopyOp { unpack: Unpack::Local, ..copy_op(&["/a.tar"], "/") };
    for op in [copy_op(&["/d"], "/etc/"), add] {
        let upper = tempfile::tempdir().unwrap();
        copy(&op, inputs_of(&trees.source(""), false), upper.path()).unwrap();
        let blob = trees.directory.path().join("blob");
        let packed = pack_upper(upper.path(), &[], &blob, Compression::None);
        assert!(matches!(packed.unwrap_err(), PackError::ReservedName { .. }), "{op:?}");
    }
}

#[test]
fn an_archive_for_add_cannot_ask_for_any_amount_of_memory() {
    let trees = Trees::new();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(1 << 30);
    header.set_cksum();
    let file = fs::File::create(trees.source("a.tar.zst")).unwrap();
    let mut encoder = zstd::Encoder::new(file, 1).unwrap();
    std::io::Write::write_all(&mut encoder, header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder).unwrap();
    encoder.finish().unwrap();
    let add = CopyOp { unpack: Unpack::Local, ..copy_op(&["/a.tar.zst"], "/") };
    let failure = trees.copy(&add).unwrap_err().failure();
    assert_eq!(failure.code, "bad-archive", "{failure}");
    assert!(failure.message.contains("headers of an entry"), "{failure}");
}

#[test]
fn sparse_files_stay_sparse_through_copies_and_archives() {
    const LENGTH: u64 = (8 << 30) + 1;
    let trees = Trees::new();
    fs::create_dir(trees.source("d")).unwrap();
    let file = fs::File::create(trees.source("d/disk.img")).unwrap();
    file.set_len(LENGTH).unwrap();
    file.write_all_at(b"data", 5 << 30).unwrap();
    trees.copy(&copy_op(&["/d"], "/x/")).unwrap();
    let copy = fs::File::open(trees.rootfs("x/disk.img")).unwrap();
    let found = copy.metadata().unwrap();
    assert_eq!(found.len(), LENGTH);
    assert!(found.blocks() <= 64, "{} blocks", found.blocks());
    let mut bytes = [0; 4];
    copy.read_exact_at(&mut bytes, 5 << 30).unwrap();
    assert_eq!(&bytes, b"data");
    // As GNU tar writes it: the holes are not in the archive.
    let line = ["-C", "d", "-cSf", "a.tar", "disk.img"];
    let made = std::process::Command::new("tar").args(line).current_dir(trees.source("")).status();
    assert!(made.unwrap().success());
    assert!(fs::metadata(trees.source("a.tar")).unwrap().len() < 1 << 20);
    // Its zeros are looked at one by one: a shorter file does.
    file.set_len((5 << 30) / 16).unwrap();
    let made = std::process::Command::new("tar").args(line).current_dir(trees.source("")).status();
    assert!(made.unwrap().success());
    trees.copy(&CopyOp { unpack: Unpack::Local, ..copy_op(&["/a.tar"], "/y/") }).unwrap();
    let found = fs::metadata(trees.rootfs("y/disk.img")).unwrap();
    assert_eq!(found.len(), (5 << 30) / 16);
    assert!(found.blocks() <= 64, "{} blocks", found.blocks());
}
