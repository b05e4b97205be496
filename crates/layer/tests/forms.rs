//! Layers in other forms.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use layer::{
    Compression, PackedLayer, Recompress, RecompressError, extract, pack_upper, recompress,
};

const FORMS: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::None];

fn at(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A directory with an old file, a young one, and one with a long name, which takes an extended
/// header.
fn upper(root: &Path) {
    fs::create_dir_all(root.join("d")).unwrap();
    for (name, seconds) in [("old", 1000), ("young", 5000), (&*"long".repeat(40), 6000)] {
        let path = root.join("d").join(name);
        fs::write(&path, name.repeat(3000)).unwrap();
        at(&path, seconds);
    }
    at(&root.join("d"), 7000);
}

fn pack(directory: &Path, name: &str, compression: Compression) -> PackedLayer {
    pack_upper(&directory.join("upper"), &[], &directory.join(name), compression).unwrap()
}

#[test]
fn a_layer_in_another_form_is_as_if_it_had_been_made_so() {
    let root = tempfile::tempdir().unwrap();
    upper(&root.path().join("upper"));
    let of = |form: Compression| pack(root.path(), &format!("{form:?}"), form);
    let made: Vec<PackedLayer> = FORMS.into_iter().map(of).collect();
    for from in FORMS {
        for (number, to) in FORMS.into_iter().enumerate() {
            let blob = File::open(root.path().join(format!("{from:?}"))).unwrap();
            let out = root.path().join(format!("{from:?}-{to:?}"));
            let wish = Recompress { compression: to, ..Recompress::default() };
            let again = recompress(blob, &made[0].diff_id, &out, wish).unwrap();
            assert_eq!(again, made[number], "{from:?} to {to:?}");
            assert_eq!(Compression::of_media_type(again.media_type), Some(to));
        }
    }
}

#[test]
fn levels_count_and_damage_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    upper(&root.path().join("upper"));
    let made = pack(root.path(), "blob", Compression::Gzip);
    let try_one = |name: &str, diff_id, level| {
        let blob = File::open(root.path().join("blob")).unwrap();
        let wish = Recompress { level, ..Recompress::default() };
        recompress(blob, diff_id, &root.path().join(name), wish)
    };
    let best = try_one("best", &made.diff_id, Some(9)).unwrap();
    assert_eq!(best.diff_id, made.diff_id);
    assert_ne!(best.blob, made.blob);
    assert!(best.size_bytes <= made.size_bytes);
    let error = try_one("wrong", &made.blob, None).unwrap_err();
    assert!(matches!(error, RecompressError::Damaged(_)), "{error}");
}

#[test]
fn nothing_is_younger_than_it_may_be() {
    use std::os::unix::fs::MetadataExt as _;
    let root = tempfile::tempdir().unwrap();
    upper(&root.path().join("upper"));
    let made = pack(root.path(), "blob", Compression::Gzip);
    let wish = Recompress { latest: Some(5500), ..Recompress::default() };
    let blob = File::open(root.path().join("blob")).unwrap();
    let rewritten = recompress(blob, &made.diff_id, &root.path().join("new"), wish).unwrap();
    assert_ne!(rewritten.diff_id, made.diff_id);
    let target = root.path().join("target");
    fs::create_dir(&target).unwrap();
    let got = extract(File::open(root.path().join("new")).unwrap(), &target).unwrap();
    assert_eq!(got.diff_id, rewritten.diff_id);
    let mtime = |name: &str| fs::symlink_metadata(target.join(name)).unwrap().mtime();
    let long = format!("d/{}", "long".repeat(40));
    let times = [mtime("d/old"), mtime("d/young"), mtime(&long), mtime("d")];
    assert_eq!(times, [1000, 5000, 5500, 5500]);
    assert_eq!(fs::read(target.join("d/young")).unwrap(), b"young".repeat(3000));
    // It is as if the files had had these times.
    for name in [long.as_str(), "d"] {
        at(&root.path().join("upper").join(name), 5500);
    }
    assert_eq!(pack(root.path(), "made", Compression::Gzip), rewritten);
}
