//! Layers that mean harm, and files that are merely odd.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use layer::{Compression, ExtractError, PackError, extract, pack_upper};

/// A header of an old archive.
fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.set_cksum();
    header
}

/// One entry with so many zeros, compressed.
fn zeros(name: &str, kind: tar::EntryType, size: u64) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(header(name, kind, size).as_bytes()).unwrap();
    let padded = size.div_ceil(512) * 512;
    std::io::copy(&mut std::io::repeat(0).take(padded), &mut encoder).unwrap();
    encoder.write_all(header("after", tar::EntryType::Regular, 0).as_bytes()).unwrap();
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

fn unpack(blob: &[u8]) -> (Result<layer::Extracted, ExtractError>, tempfile::TempDir) {
    let destination = tempfile::tempdir().unwrap();
    (extract(blob, destination.path()), destination)
}

#[test]
fn headers_that_ask_for_any_amount_of_memory_are_refused() {
    for kind in [tar::EntryType::XHeader, tar::EntryType::GNULongName, tar::EntryType::GNULongLink]
    {
        let blob = zeros("x", kind, 64 << 20);
        assert!(blob.len() < 1 << 20);
        let (result, _destination) = unpack(&blob);
        let error = result.unwrap_err();
        assert!(error.to_string().contains("headers of an entry"), "{error}");
    }
}

#[test]
fn a_file_of_nothing_but_zeros_takes_no_disk() {
    let blob = zeros("zeros", tar::EntryType::Regular, 1 << 30);
    assert!(blob.len() < 1 << 20);
    let (result, destination) = unpack(&blob);
    assert_eq!(result.unwrap().content_bytes, 1 << 30);
    let found = fs::metadata(destination.path().join("zeros")).unwrap();
    assert_eq!((found.len(), found.blocks()), (1 << 30, 0));
}

#[test]
fn sizes_and_depths_that_no_layer_has_are_refused_before_anything_is_written() {
    let (result, destination) =
        unpack(header("big", tar::EntryType::Regular, 1 << 50).as_bytes().as_slice());
    assert!(matches!(result.unwrap_err(), ExtractError::Refused { .. }));
    assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 0);
    let mut builder = tar::Builder::new(Vec::new());
    let deep = "d/".repeat(1001);
    builder.append_data(&mut header("", tar::EntryType::Regular, 0), &deep, [].as_slice()).unwrap();
    let (result, destination) = unpack(&builder.into_inner().unwrap());
    assert!(matches!(result.unwrap_err(), ExtractError::Refused { .. }));
    assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 0);
}

#[test]
fn names_that_mean_removal_cannot_be_hidden_in_a_layer() {
    for name in [".wh.x", ".wh..wh..opq", ".wh."] {
        let (upper, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(upper.path().join("d")).unwrap();
        fs::write(upper.path().join("d").join(name), "x").unwrap();
        let packed = pack_upper(upper.path(), &[], &out.path().join("blob"), Compression::None);
        let error = packed.unwrap_err();
        assert!(matches!(&error, PackError::ReservedName { path } if path.ends_with(name)));
        assert!(error.to_string().contains("/d/.wh."), "{error}");
    }
}

#[test]
fn odd_names_and_empty_files_survive_a_round_trip() {
    let upper = tempfile::tempdir().unwrap();
    let long = "n".repeat(255);
    let names: [&[u8]; 6] =
        [b"line\nbreak", b"not \xff\xfe utf-8", long.as_bytes(), b" ", b"-rf", b"back\\slash"];
    let path = |root: &Path, name: &[u8]| root.join("d").join(OsStr::from_bytes(name));
    fs::create_dir(upper.path().join("d")).unwrap();
    for name in names {
        fs::write(path(upper.path(), name), name).unwrap();
    }
    fs::write(upper.path().join("empty"), "").unwrap();
    let out = tempfile::tempdir().unwrap();
    let blob = out.path().join("blob");
    pack_upper(upper.path(), &[], &blob, Compression::Gzip).unwrap();
    let (result, copy) = unpack(&fs::read(&blob).unwrap());
    result.unwrap();
    for name in names {
        assert_eq!(fs::read(path(copy.path(), name)).unwrap(), name);
    }
    assert_eq!(fs::read(copy.path().join("empty")).unwrap(), b"");
}

#[test]
fn a_sparse_file_longer_than_a_plain_header_can_say_stays_sparse() {
    // Eleven octal digits end at 8 GiB.
    const LENGTH: u64 = (8 << 30) + (1 << 20);
    let (upper, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = fs::File::create(upper.path().join("image")).unwrap();
    file.set_len(LENGTH).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    file.write_all_at(b"tail", LENGTH - 4).unwrap();
    let blob = out.path().join("blob");
    let packed = pack_upper(upper.path(), &[], &blob, Compression::Zstd).unwrap();
    let (result, copy) = unpack(&fs::read(&blob).unwrap());
    assert_eq!(result.unwrap().diff_id, packed.diff_id);
    let copy = fs::File::open(copy.path().join("image")).unwrap();
    let found = copy.metadata().unwrap();
    assert_eq!(found.len(), LENGTH);
    assert!(found.blocks() <= 256, "{} blocks", found.blocks());
    let mut ends = [0; 8];
    copy.read_exact_at(&mut ends[..4], 0).unwrap();
    copy.read_exact_at(&mut ends[4..], LENGTH - 4).unwrap();
    assert_eq!(&ends, b"headtail");
}
