//! Every failure, as people see it: message, place, word, hint. The texts are snapshots.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use common::Failure;
use common::image::ContainerConfig;

use crate::planning::Planning;

/// A Dockerfile for each thing that can be wrong.
const WRONG: &[&str] = &[
    "",
    "# nothing\n",
    "FROM alpine\nCPOY a b\n",
    "# escape=x\nFROM alpine\n",
    "# escape=`\n# escape=`\nFROM alpine\n",
    "# syntax=other/frontend:1\nFROM alpine\n",
    "{\"syntax\": \"other/frontend:1\"}\n",
    "# check=nonsense\nFROM alpine\n",
    "RUN x\n",
    "ARG A=1\n",
    "FROM alpine extra\n",
    "FROM alpine AS 1a\n",
    "ARG X\nFROM $X\n",
    "ARG SOURCE_DATE_EPOCH=soon\nFROM alpine\n",
    "FROM --platform=$NONE alpine\n",
    "FROM --platform=a/b/c/d/e alpine\n",
    "FROM alpine\nCOPY --chmd=1 file /\n",
    "FROM alpine\nCOPY --link=maybe file /\n",
    "FROM alpine\nCOPY --chown file /\n",
    "FROM alpine\nCOPY --chown=1 --chown=2 file /\n",
    "FROM alpine\nCOPY --chmod=64a file /\n",
    "FROM alpine\nCOPY --chmod=99999 file /\n",
    "FROM alpine\nCOPY --exclude=[ file /\n",
    "FROM alpine\nCOPY file\n",
    "FROM alpine\nCOPY fiel /\n",
    "FROM alpine\nCOPY \\\n  file \\\n  nothing/like/it \\\n  /\n",
    "FROM alpine\nCOPY https://x.test/y /\n",
    "FROM alpine\nCOPY file <<EOF\nx\nEOF\n",
    "FROM alpine\nCOPY <<a/b /x\na/b\n",
    "FROM alpine\nADD ssh://git:word@x.test/z.git /\n",
    "FROM alpine\nADD https://x.test/y.git?foo=1 /\n",
    "FROM alpine\nADD --keep-git-dir=false https://x.test/y.git?keep-git-dir=1 /\n",
    "FROM alpine\nADD --checksum=abc https://x.test/y.git#0123456789abcdef0123456789abcdef01234567 /\n",
    "FROM alpine\nADD https://user:word@x.test/y /\n",
    "FROM alpine\nADD --checksum=sha256:12 https://x.test/y /\n",
    "FROM alpine\nADD --checksum=sha256:12 https://x.test/y https://x.test/z /\n",
    "FROM alpine\nADD --checksum=sha256:0 file /\n",
    "FROM alpine\nCOPY --from=$S /x /\n",
    "FROM alpine\nCOPY --from=3 /x /\n",
    "FROM alpine\nCOPY --from=-1 /x /\n",
    "FROM alpine\nCOPY --from=later /x /\nFROM alpine AS later\nFROM alpine\nCOPY --from=0 /x /\n",
    "FROM alpine\nRUN <<EOF\nx\n",
    "FROM alpine\nRUN []\n",
    "FROM alpine\nRUN --mount=type=foo,target=/x y\n",
    "FROM alpine\nRUN --mount=form=x,target=/x y\n",
    "FROM alpine\nRUN --mount=target=/ y\n",
    "FROM alpine\nRUN --mount=type=cache,target=/x,sharing=some y\n",
    "FROM alpine\nRUN --mount=type=tmpfs,target=/x,size=big y\n",
    "FROM alpine\nRUN --mount=from=$F,target=/x y\n",
    "FROM alpine\nRUN --network=foo x\n",
    "FROM alpine\nRUN --security=foo x\n",
    "FROM alpine\nRUN --device=a x\n",
    "FROM alpine\nENV a\n",
    "FROM alpine\nENV a=b c\n",
    "FROM alpine\nENV =b\n",
    "FROM alpine\nENV a=${}\n",
    "FROM alpine\nENV a=${x\n",
    "FROM alpine\nENV a=${x:=y}\n",
    "FROM alpine\nENV a=${x/y}\n",
    "FROM alpine\nENV a=${x:?\"has to be set\"}\n",
    "FROM alpine\nENV a=\"x\n",
    "FROM alpine\nARG =x\n",
    "FROM alpine\nARG\n",
    "FROM alpine\nCMD [1, 2]\n",
    "FROM alpine\nSHELL sh\n",
    "FROM alpine\nSHELL []\n",
    "FROM alpine\nMAINTAINER\n",
    "FROM alpine\nSTOPSIGNAL FOO\n",
    "FROM alpine\nEXPOSE 99999\n",
    "FROM alpine\nEXPOSE 1/foo\n",
    "FROM alpine\nEXPOSE 9-1\n",
    "FROM alpine\nEXPOSE $NONE\n",
    "FROM alpine\nVOLUME [\"\"]\n",
    "FROM alpine\nUSER\n",
    "FROM alpine\nHEALTHCHECK\n",
    "FROM alpine\nHEALTHCHECK FOO\n",
    "FROM alpine\nHEALTHCHECK --interval=soon CMD x\n",
    "FROM alpine\nHEALTHCHECK --retries=-1 CMD x\n",
    "FROM alpine\nHEALTHCHECK NONE x\n",
    "FROM alpine\nONBUILD ONBUILD RUN x\n",
    "FROM alpine\nONBUILD FROM x\n",
    "FROM triggers\n",
    "FROM alpine\nRUN a\0b\n",
    // Several at once.
    "FROM alpine\nRNU x\nCOPY file\nEXPOSE 99999\n",
];

/// A file and what it is.
type Named = (&'static str, fn() -> String);

/// Files that are wrong by their size, or by a check that they ask for themselves.
const WRONG_AS_A_WHOLE: [Named; 6] = [
    ("too many instructions", || format!("FROM alpine\n{}", "RUN x\n".repeat(10_000))),
    ("a long line", || format!("FROM alpine\nRUN {}\n", "x".repeat(65_533))),
    ("many lines", || format!("FROM alpine\n{}", "\n".repeat(1 << 20))),
    ("a long file", || format!("FROM alpine\n{}", "# x\n".repeat(1 << 20))),
    ("an expansion bomb", || {
        let round = |at| format!("ENV A{at}=$A{0}$A{0}$A{0}$A{0}\n", at - 1);
        format!(
            "FROM alpine\nENV A0=xxxxxxxxxx\n{}",
            (1..40).map(round).collect::<Vec<_>>().concat()
        )
    }),
    ("many large values", || {
        let round = |at| format!("ARG A{at}=$A{0}$A{0}$A{0}$A{0}\n", at - 1);
        let lines = (1..9).map(round).chain((0..500).map(|at| format!("LABEL l{at}=$A8\n")));
        format!("FROM alpine\nARG A0=xxxxxxxxxx\n{}", lines.collect::<Vec<_>>().concat())
    }),
];

/// Codes of failures that no file shows.
const ELSEWHERE: [&str; 3] = [
    // The target is an option: see below.
    "unknown-target",
    // A mistake of the caller's: `hostile`.
    "image-not-resolved",
    // Where the plan is made: `checks`.
    "check-failed",
];

fn planning(text: &str) -> Planning {
    let triggers = ContainerConfig {
        on_build: Some(vec!["FOO bar".to_owned()]),
        ..ContainerConfig::default()
    };
    Planning::new(text).image("triggers", triggers)
}

/// As the command line shows it.
fn rendered(failure: &Failure) -> String {
    let mut text = format!("[{}] {}\n", failure.code, failure.message);
    if let Some(place) = failure.lines {
        let _ = writeln!(text, "  at line {place}");
    }
    for (offset, line) in failure.excerpt.iter().flat_map(|excerpt| excerpt.lines()).enumerate() {
        let _ = writeln!(text, "  | {}", line.replace('\0', "\u{2400}"));
        let number = failure.lines.map_or(0, |place| place.start as usize) + offset;
        if let Some(span) = failure.span.filter(|span| span.line as usize == number) {
            let (before, marks) = (span.column as usize - 1, "^".repeat(span.length as usize));
            let _ = writeln!(text, "  | {}{marks}", " ".repeat(before));
        }
    }
    for hint in failure.hint.iter().flat_map(|hint| hint.lines()) {
        let _ = writeln!(text, "  = {hint}");
    }
    text
}

#[test]
fn failures_read_as_they_should() {
    let mut text = String::new();
    for wrong in WRONG {
        let _ = writeln!(text, "----- {wrong:?}");
        for failure in planning(wrong).failures() {
            text.push_str(&rendered(&failure));
        }
    }
    for (name, file) in WRONG_AS_A_WHOLE {
        let _ = writeln!(text, "----- {name}");
        for failure in planning(&file()).failures() {
            let shown = rendered(&failure);
            let cut = |line: &str| line.chars().take(100).collect::<String>() + "\n";
            text.extend(shown.lines().take(12).map(cut));
        }
    }
    let named = "FROM alpine AS builder\nFROM alpine AS tester\n";
    for target in ["bulider", "0"] {
        let _ = writeln!(text, "----- --target {target}: {named:?}");
        for failure in planning(named).target(target).failures() {
            text.push_str(&rendered(&failure));
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn every_code_has_its_failure() {
    let whole = WRONG_AS_A_WHOLE.iter().map(|(_, file)| file());
    let wrong = WRONG.iter().map(|wrong| (*wrong).to_owned()).chain(whole);
    let codes: BTreeSet<String> =
        wrong.flat_map(|wrong| planning(&wrong).failures()).map(|f| f.code).collect();
    let mut missing = Vec::new();
    for code in codes_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        if !codes.contains(&code) && !ELSEWHERE.contains(&code.as_str()) {
            missing.push(code);
        }
    }
    assert!(missing.is_empty(), "no Dockerfile shows {missing:?}");
}

/// The codes that the sources name: first argument of `Problem::new`.
fn codes_of(directory: &Path) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes.extend(codes_of(&path));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("Problem::new(").skip(1) {
            let Some(rest) = part.trim_start().strip_prefix('"') else { continue };
            codes.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    codes
}
