//! Ignore files: patterns and a path, divided by a NUL byte.
#![no_main]

use common::ignore::IgnoreFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (patterns, path) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b"dir/file.txt"[..]),
    };
    let Ok(file) = IgnoreFile::parse(patterns) else { return };
    let path = String::from_utf8_lossy(path);
    let ignored = file.is_ignored(&path);
    // Without a line that takes back, what lies below an ignored directory is ignored too.
    if ignored && !file.has_negations() && !path.is_empty() && !path.ends_with('/') {
        assert!(file.is_ignored(&format!("{path}/below")), "{path:?}");
    }
    file.may_include_below(&path);
    file.leaves_out_everything();
});
