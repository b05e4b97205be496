//! Layers to blobs and back.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use layer::{Compression, ExtractError, PackedLayer, extract, pack_upper};

fn pack(upper: &Path, compression: Compression) -> (PackedLayer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    // What an opaque directory hides.
    let lower = directory.path().join("lower");
    fs::create_dir_all(lower.join("etc/opaque")).unwrap();
    let blob = directory.path().join("blob");
    (pack_upper(upper, &[lower], &blob, compression).unwrap(), directory)
}

fn unpack(blob: &Path) -> Result<(layer::Extracted, tempfile::TempDir), ExtractError> {
    let destination = tempfile::tempdir().unwrap();
    let extracted = extract(fs::File::open(blob).unwrap(), destination.path())?;
    Ok((extracted, destination))
}

/// An upper directory with a bit of everything.
fn upper() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(at("etc/opaque")).unwrap();
    fs::write(at("etc/file"), "content").unwrap();
    fs::set_permissions(at("etc/file"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("etc/file"), at("etc/twin")).unwrap();
    symlink("/somewhere/ü", at("link")).unwrap();
    fs::write(at(&"long".repeat(40)), "x").unwrap();
    fs::write(at("ü"), vec![7; 100_000]).unwrap();
    std::os::unix::fs::chown(at("ü"), Some(3_000_000), Some(5)).unwrap();
    for arguments in [["removed", "c"], ["device", "b"]] {
        let numbers = if arguments[1] == "c" { ["0", "0"] } else { ["7", "9"] };
        let status =
            Command::new("mknod").arg(at(arguments[0])).arg(arguments[1]).args(numbers).status();
        assert!(status.unwrap().success());
    }
    xattr::set(at("etc/opaque"), "trusted.overlay.opaque", b"y").unwrap();
    root
}

#[test]
fn a_layer_survives_a_round_trip_in_every_compression() {
    let upper = upper();
    let (plain, _keep) = pack(upper.path(), Compression::None);
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let (packed, directory) = pack(upper.path(), compression);
        assert_eq!(packed.diff_id, plain.diff_id);
        let (extracted, copy) = unpack(&directory.path().join("blob")).unwrap();
        assert_eq!(extracted.diff_id, packed.diff_id);
        let (again, _keep) = pack(copy.path(), compression);
        assert_eq!(again, packed, "{compression:?}");
        let at = |path: &str| fs::symlink_metadata(copy.path().join(path)).unwrap();
        assert!(at("removed").file_type().is_char_device());
        assert_eq!(at("etc/file").ino(), at("etc/twin").ino());
        assert_eq!(at("etc/file").mode() & 0o7777, 0o4755);
        assert_eq!(at("ü").uid(), 3_000_000);
    }
}

#[test]
fn the_archive_is_one_that_tar_reads() {
    let (_, directory) = pack(upper().path(), Compression::Gzip);
    let listing =
        Command::new("tar").arg("-tzf").arg(directory.path().join("blob")).output().unwrap();
    assert!(listing.status.success());
    let listing = String::from_utf8(listing.stdout).unwrap();
    for name in ["etc/", ".wh.removed", "etc/opaque/.wh..wh..opq", &"long".repeat(40)] {
        assert!(listing.lines().any(|line| line == name), "{name} in {listing}");
    }
}

#[test]
fn times_and_order_of_creation_do_not_matter_but_content_does() {
    let make = |names: [&str; 2], content: &str| {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(root.path().join(name), content).unwrap();
            let file = fs::File::options().write(true).open(root.path().join(name)).unwrap();
            let nanos = std::time::Duration::from_millis(1_000_400);
            file.set_modified(std::time::UNIX_EPOCH + nanos).unwrap();
        }
        pack(root.path(), Compression::Gzip).0
    };
    assert_eq!(make(["a", "b"], "x"), make(["b", "a"], "x"));
    assert_ne!(make(["a", "b"], "x").diff_id, make(["a", "b"], "y").diff_id);
}

#[test]
fn directories_that_were_only_copied_up_are_left_out() {
    let [lower, upper, out] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for root in [&lower, &upper] {
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let directory = fs::File::open(root.path().join("etc")).unwrap();
        directory.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let lowers = [lower.path().to_owned()];
    let blob = |name: &str| out.path().join(name);
    let packed = pack_upper(upper.path(), &lowers, &blob("1"), Compression::None).unwrap();
    assert_eq!(packed.uncompressed_bytes, 1024);
    fs::set_permissions(upper.path().join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    let packed = pack_upper(upper.path(), &lowers, &blob("2"), Compression::None).unwrap();
    assert_eq!(packed.uncompressed_bytes, 1024 + 512);
}

/// A tar of hand-written entries: name, type, link or content.
fn hostile(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, value) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..value.len()].copy_from_slice(value.as_bytes());
        }
        let content = if is_link { "" } else { value };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn hostile_layers_write_nothing_outside() {
    use tar::EntryType::{Link, Regular, Symlink};
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let out = outside.path().display().to_string();
    let (escape, secret) = (format!("{out}/new"), format!("{out}/secret"));
    for entries in [
        vec![("../new", Regular, "x")],
        vec![("a/../../new", Regular, "x")],
        vec![("link", Symlink, out.as_str()), ("link/new", Regular, "x")],
        vec![("hard", Link, "../../../../etc/passwd")],
        vec![("link", Symlink, secret.as_str()), ("link", Regular, "changed")],
        vec![("link", Symlink, out.as_str()), ("hard", Link, "link/secret")],
        vec![(".wh.", Regular, "")],
        vec![(".wh...", Regular, "")],
        vec![(escape.as_str(), Regular, "x")],
    ] {
        let destination = tempfile::tempdir().unwrap();
        let result = extract(hostile(&entries).as_slice(), destination.path());
        assert!(!outside.path().join("new").exists(), "{entries:?} {result:?}");
        assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
        assert!(!destination.path().join("hard").exists(), "{entries:?}");
    }
}

#[test]
fn truncated_and_random_bytes_are_errors() {
    let (_, directory) = pack(upper().path(), Compression::Gzip);
    let bytes = fs::read(directory.path().join("blob")).unwrap();
    let destination = tempfile::tempdir().unwrap();
    assert!(extract(&bytes[..bytes.len() / 2], destination.path()).is_err());
    let destination = tempfile::tempdir().unwrap();
    assert!(extract([0x55; 4096].as_slice(), destination.path()).is_err());
}
