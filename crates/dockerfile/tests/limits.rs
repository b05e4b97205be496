//! What files cost that want to be expensive: each is refused within 64 MB.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use common::Platform;
use dockerfile::{ImageFacts, Options, parse};

/// Growth of a process that refuses a file, at most.
const MOST_BYTES: u64 = 64_000_000;
/// Names the file that a child of the test refuses.
const FILE: &str = "SLIPWAY_HOSTILE_FILE";

/// What a file is, the code that it is refused with, and how it is made.
type Hostile = (&'static str, &'static str, fn() -> Vec<u8>);

const FILES: [Hostile; 10] = [
    ("a line of 100 MB", "file-too-long", || {
        [b"FROM scratch\nRUN ".as_slice(), &vec![b'x'; 100 << 20]].concat()
    }),
    ("a million stages", "file-too-long", || b"FROM a\n".repeat(1_000_000)),
    ("590,000 stages in 4 MiB", "file-too-long", || b"FROM a\n".repeat(590_000)),
    ("190,000 stages", "too-many-instructions", || b"FROM a\n".repeat(190_000)),
    ("4 MiB of blank lines", "file-too-long", || vec![b'\n'; 4 << 20]),
    ("an expansion bomb", "bad-substitution", || doubling("ARG", 40).into_bytes()),
    ("a bomb of variables that stay", "bad-substitution", || doubling("ENV", 40).into_bytes()),
    ("many large values", "plan-too-large", || {
        let labels = (0..500).map(|label| format!("LABEL l{label}=$A8\n"));
        (doubling("ARG", 9) + &labels.collect::<Vec<_>>().concat()).into_bytes()
    }),
    ("nesting 10,000 deep", "bad-substitution", || {
        let (open, close) = ("${a:-".repeat(10_000), "}".repeat(10_000));
        format!("FROM scratch\nLABEL x={open}{close}\n").into_bytes()
    }),
    ("a line of 65,536 bytes", "line-too-long", || {
        format!("FROM scratch\nRUN {}\n", "x".repeat(65_533)).into_bytes()
    }),
];

/// Variables of which each holds four times the one before.
fn doubling(keyword: &str, rounds: usize) -> String {
    let mut text = format!("FROM scratch\n{keyword} A0=xxxxxxxxxx\n");
    for round in 1..rounds {
        let part = format!("${{A{}}}", round - 1);
        let _ = writeln!(text, "{keyword} A{round}={}", part.repeat(4));
    }
    text
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kibibytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// In a process of its own, whose peak is that of this file.
fn refuse(name: &str) {
    let (_, code, make) = FILES.iter().find(|(known, ..)| *known == name).unwrap();
    let bytes = make();
    // Begins the peak anew: proc(5), clear_refs.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let start = Instant::now();
    let failures = match parse("Dockerfile", &bytes) {
        Ok(file) => {
            let options = Options::new(Platform::host());
            file.plan(&options, &ImageFacts::new(), None).unwrap_err()
        }
        Err(failures) => failures,
    };
    let took = start.elapsed();
    let grown = status("VmHWM").saturating_sub(before);
    println!("{name}: {took:?}, {} kB", grown / 1000);
    assert_eq!(failures[0].code, *code, "{name}");
    assert!(failures[0].excerpt.as_deref().unwrap_or("").len() < 1 << 17, "{name}");
    assert!(grown < MOST_BYTES, "{name}: {grown} bytes");
}

#[test]
fn hostile_files_are_refused_within_their_memory() {
    if let Some(name) = std::env::var_os(FILE) {
        return refuse(name.to_str().unwrap());
    }
    for (name, ..) in FILES {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child
            .args(["--exact", "hostile_files_are_refused_within_their_memory", "--nocapture"])
            .env(FILE, name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text.lines().find(|line| line.starts_with(name)).unwrap_or(&text);
        println!("{said}");
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.ends_with("kB"), "{text}");
    }
}
