//! Files that nobody writes by accident.

use std::time::{Duration, Instant};

use common::ignore::IgnoreFile;
use dockerfile::{ImageFacts, parse};

use crate::planning::{Planning, tree};

/// What Dockerfiles are made of.
const PIECES: [&str; 66] = [
    "FROM ",
    "FROM a AS b",
    "RUN ",
    "COPY ",
    "ADD ",
    "ARG ",
    "ENV ",
    "LABEL ",
    "CMD ",
    "ONBUILD ",
    "WORKDIR ",
    "USER ",
    "EXPOSE ",
    "VOLUME ",
    "SHELL ",
    "HEALTHCHECK ",
    "STOPSIGNAL ",
    "--from=",
    "--chmod=",
    "--mount=type=cache",
    "--x",
    "--",
    "<<EOF",
    "<<-'E'",
    "EOF",
    "$",
    "${",
    "}",
    ":-",
    ":+",
    ":?",
    "#",
    "%%",
    "//",
    "/",
    "\\",
    "`",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "\t",
    "=",
    "a",
    "b",
    "é",
    "\u{0}",
    "\u{feff}",
    "0",
    "80-90/udp",
    "*",
    "?",
    "..",
    ".",
    "scratch",
    "# escape=`\n",
    "# syntax=docker/dockerfile:1\n",
    "#",
    "1s",
    "CMD",
    "NONE",
];

/// Numbers that look random and are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn text(&mut self, pieces: &[&str], most: usize) -> String {
        (0..self.below(most)).map(|_| pieces[self.below(pieces.len())]).collect()
    }
}

#[test]
fn no_text_makes_the_parser_or_the_planner_panic() {
    let mut numbers = Numbers(0x5eed);
    let mut planned = 0;
    for _ in 0..6_000 {
        let mut text = numbers.text(&PIECES, 40);
        if numbers.below(2) == 0 {
            text.insert_str(0, "FROM a\n");
        }
        match Planning::new(&text).run() {
            Ok(_) => planned += 1,
            Err(failures) => assert!(failures.iter().all(|failure| !failure.code.is_empty())),
        }
    }
    assert!(planned > 100, "only {planned} texts were more than a parse error");
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let mut numbers = Numbers(7);
    for _ in 0..3_000 {
        let bytes: Vec<u8> = (0..numbers.below(200)).map(|_| numbers.byte()).collect();
        let _ = parse("f", &[b"FROM a\nRUN ", bytes.as_slice()].concat());
        let _ = parse("f", &bytes);
        let _ = IgnoreFile::parse(&bytes);
    }
}

#[test]
fn no_pattern_makes_an_ignore_file_panic() {
    let pieces = [
        "*", "**", "/", "a", "b", "!", "[", "]", "^", "-", "\\", "?", "..", ".", "\n", " ", "é",
        "#",
    ];
    let mut numbers = Numbers(99);
    for _ in 0..5_000 {
        let text = numbers.text(&pieces, 20);
        let Ok(file) = IgnoreFile::parse(text.as_bytes()) else { continue };
        for path in ["a", "a/b", "b/a/é", "..", ""] {
            let _ = (file.is_ignored(path), file.may_include_below(path));
        }
    }
}

#[test]
fn sizes_are_bounded() {
    let many = format!("FROM a\n{}", "RUN x\n".repeat(10_000));
    assert_eq!(parse("f", many.as_bytes()).unwrap_err()[0].code, "too-many-instructions");
    let long = format!("FROM a\n{}", "# x\n".repeat(1 << 20));
    assert_eq!(parse("f", long.as_bytes()).unwrap_err()[0].code, "file-too-long");
    let deep = format!("FROM a\nENV A={}", "${x:-".repeat(5_000));
    assert_eq!(Planning::new(&deep).failure().0, "bad-substitution");
    let mut doubled = "FROM a\nENV A0=0123456789\n".to_owned();
    for at in 1..40 {
        doubled.push_str(&format!("ENV A{at}=$A{0}$A{0}\n", at - 1));
    }
    assert!(Planning::new(&doubled).run().is_err());
    let nested = format!("FROM a\nCMD {}", "[".repeat(60_000));
    assert!(Planning::new(&nested).run().is_ok(), "no JSON is text");
}

#[test]
fn a_long_chain_of_stages_is_planned_soon() {
    let mut text = "FROM a AS s0\nRUN x\n".to_owned();
    for at in 1..1_000 {
        text.push_str(&format!("FROM s{} AS s{at}\nCOPY --from=s{} /x /x\n", at - 1, at - 1));
    }
    let start = Instant::now();
    assert_eq!(Planning::new(&text).plan().stages.len(), 1_000);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn failures_of_images_are_all_told_at_once() {
    let file =
        parse("f", b"FROM a\nCOPY --from=b /x /x\nFROM c\nCOPY --from=0 / /\nCOPY --from=d /x /x")
            .unwrap();
    let options = Planning::new("").options;
    let needs = file.missing_images(&options, &ImageFacts::new()).unwrap();
    assert_eq!(needs.len(), 4);
    let failures = file.plan(&options, &ImageFacts::new(), Some(&tree(&[]))).unwrap_err();
    assert_eq!(failures.len(), 4);
    assert!(failures.iter().all(|failure| failure.code == "image-not-resolved"));
}
