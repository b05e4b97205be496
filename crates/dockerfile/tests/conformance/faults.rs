//! Faults that were found once.

use common::plan::Unpack;
use std::time::{Duration, Instant};

use common::image::ContainerConfig;
use common::tree::{EntryKind, TreePath};
use dockerfile::parse;

use crate::planning::{Planning, copies, file, history, last, put, runs, tree, variable};

#[test]
fn a_hard_link_counts_with_what_it_holds() {
    let linked = |content: &str| {
        let mut tree = tree(&[("first", content)]);
        let target = TreePath::new("first").unwrap();
        put(&mut tree, "second", EntryKind::Hardlink { target });
        tree
    };
    let key =
        |content: &str| Planning::new("FROM a\nCOPY second /x").context(linked(content)).last().key;
    assert_ne!(key("old"), key("new"));
}

#[test]
fn a_wildcard_selects_names_that_are_no_ascii() {
    // The copy matches bytes or characters; the key has to cover both.
    let key = |content: &str| {
        let mut tree = tree(&[]);
        put(&mut tree, "é.txt", file(content));
        Planning::new("FROM a\nCOPY ??.txt /x/").context(tree).last().key
    };
    assert_ne!(key("old"), key("new"));
}

#[test]
fn a_heredoc_cannot_name_a_file_elsewhere() {
    for text in [
        "COPY <<../../../etc/shadow /d/\nx\n../../../etc/shadow",
        "COPY <<a/b /d/\nx\na/b",
        "COPY <<.. /d/\nx\n..",
        "RUN <<../x\n#!/bin/sh\n../x",
    ] {
        assert_eq!(Planning::new(&format!("FROM a\n{text}")).failure(), ("bad-heredoc".into(), 2));
    }
}

#[test]
fn arguments_reach_the_stages_above_the_next() {
    let text = "FROM a AS b\nARG V=1\nFROM b AS c\nRUN x\nFROM c\nRUN y";
    let plan = Planning::new(text).plan();
    for stage in &plan.stages[1..] {
        assert_eq!(variable(runs(stage)[0], "V"), Some("1"), "{}", stage.label);
        assert!(history(stage)[0].starts_with("RUN |1 V=1 /bin/sh"), "{:?}", history(stage));
    }
}

#[test]
fn a_value_for_a_bare_argument_beats_env() {
    let text = "FROM a\nENV V=env\nARG V\nRUN x";
    let stage = Planning::new(text).build_arg("V", "given").last();
    assert_eq!(variable(runs(&stage)[0], "V"), Some("given"));
    let stage = last(&format!("ARG V=global\n{text}"));
    assert_eq!(variable(runs(&stage)[0], "V"), Some("global"));
}

#[test]
fn history_shows_what_the_command_sees_and_what_the_copy_says() {
    let stage = last(
        "FROM a\nWORKDIR /w\nARG V=1 NONE\nENV V=2\nARG M=640\nRUN x\nCOPY --chown=1 --chmod=$M file ./to\nADD dir .\nCOPY <<f /\nf",
    );
    let history = history(&stage);
    assert_eq!(history[4], "RUN |3 V=2 NONE= M=640 /bin/sh -c x # buildkit");
    assert_eq!(history[5], "COPY --chown=1 --chmod=640 file ./to # buildkit");
    assert_eq!(history[6], "ADD dir . # buildkit");
    assert_eq!(history[7], "COPY <<f / # buildkit");
    assert_eq!(copies(&stage)[0].destination, "/w/to");
}

#[test]
fn history_of_a_health_check_and_of_odd_strings_is_gos() {
    let stage = last(
        "FROM a\nHEALTHCHECK --interval=1s --timeout=1m30s --start-interval=100ms --retries=5 CMD exit 0\nCMD [\"\\u001b\\u0007\"]",
    );
    assert_eq!(
        history(&stage),
        [
            "HEALTHCHECK {Test:[CMD-SHELL exit 0] Interval:1s Timeout:1m30s StartPeriod:0s StartInterval:100ms Retries:5}",
            "CMD [\"\\x1b\\a\"]",
        ]
    );
}

#[test]
fn a_zero_duration_is_the_default() {
    let health =
        last("FROM a\nHEALTHCHECK --start-period=0s --interval=0 CMD x").config.healthcheck;
    assert_eq!(health.unwrap().start_period, 0);
}

#[test]
fn a_base_without_a_path_gets_one() {
    let stage = Planning::new("FROM i\nRUN x").image("i", ContainerConfig::default()).last();
    assert!(variable(runs(&stage)[0], "PATH").unwrap().starts_with("/usr/local/sbin:"));
    assert_eq!(stage.config.env.len(), 1);
}

#[test]
fn any_command_is_marked_as_escaped() {
    assert!(last("FROM a\nCMD [\"x\"]").config.args_escaped);
}

#[test]
fn backslashes_of_an_expanded_file_vanish() {
    let content = |text: &str| copies(&last(text))[0].inline[0].content.clone();
    assert_eq!(content("FROM a\nCOPY <<E /x\n\\\nE"), "\n");
    assert_eq!(content("FROM a\nCOPY <<E /x\n\\\\ \\$ \\a\nE"), "\\ $ a\n");
    assert_eq!(content("FROM a\nCOPY <<'E' /x\n\\\\ \\$ \\a\nE"), "\\\\ \\$ \\a\n");
}

#[test]
fn a_delimiter_may_be_escaped_or_stand_apart() {
    let script = |text: &str| runs(&last(text))[0].argv[2].clone();
    assert_eq!(script("FROM a\nRUN << EOF\nx\nEOF"), "x\n");
    assert_eq!(script("FROM a\nRUN 3<<EOF\nx\nEOF"), "x\n");
    assert_eq!(script("FROM a\nRUN cat <<\\EOF\nx\nEOF"), "cat <<\\EOF\nx\nEOF");
}

#[test]
fn add_without_unpacking_keeps_archives() {
    let unpack = |flag: &str| copies(&last(&format!("FROM a\nADD {flag} file /x")))[0].unpack;
    assert_eq!(unpack(""), Unpack::Local);
    assert_eq!(unpack("--unpack=false"), Unpack::Never);
}

#[test]
fn a_url_from_a_variable_is_a_url() {
    let add = "FROM a\nARG U=https://x.test/y\nADD $U /x";
    let remotes = Planning::new(add).run().unwrap().remotes;
    assert_eq!(remotes[0].url, "https://x.test/y");
    assert_eq!(remotes[0].lines.start, 3);
    let copy = "FROM a\nARG U=https://x.test/y\nCOPY $U /x";
    assert_eq!(Planning::new(copy).failure(), ("bad-source".into(), 3));
}

#[test]
fn repositories_over_ssh_are_asked_after_as_others_are() {
    for url in ["git@x.test:y/z.git", "ssh://git@x.test:2222/y/z.git"] {
        let planned = Planning::new(&format!("FROM a\nADD {url}#main:sub /x")).run().unwrap();
        assert_eq!(planned.remotes[0].url, url);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let planned = Planning::new(&format!("FROM a\nADD {url}#{commit} /x")).run().unwrap();
        assert!(planned.remotes.is_empty());
        let remote = copies(&planned.plan.stages[0])[0].remotes[0].clone();
        assert!(remote.wants_agent(), "{remote:?}");
    }
    let stage =
        last("FROM a\nADD https://x.test/y.git#0123456789abcdef0123456789abcdef01234567 /x");
    assert!(!copies(&stage)[0].remotes[0].wants_agent());
}

#[test]
fn flags_that_expand_to_nothing_are_absent() {
    let stage = last("FROM a\nCOPY --chown=$NONE --chmod=$NONE file /x");
    let copy = copies(&stage)[0];
    assert_eq!((copy.chown.as_ref(), copy.chmod.as_ref()), (None, None));
    assert_eq!(Planning::new("FROM a\nCOPY --chmod=+755 file /x").failure().0, "bad-flag-value");
    assert_eq!(Planning::new("FROM a\nEXPOSE +80").failure().0, "bad-port");
    assert!(last("FROM a\nEXPOSE 80/").config.exposed_ports.unwrap().contains_key("80/tcp"));
}

#[test]
fn flags_of_later_versions_are_checked_all_the_same() {
    for (line, code) in [
        ("COPY --link=maybe a /b", "bad-flag-value"),
        ("COPY --parents --parents a /b", "duplicate-flag"),
        ("RUN --mount x", "bad-flag"),
        ("RUN --security=nope x", "bad-flag-value"),
    ] {
        let text = format!("FROM a\n{line}");
        assert_eq!(parse("f", text.as_bytes()).unwrap_err()[0].code, code, "{line}");
    }
    assert_eq!(runs(&last("FROM a\nRUN --security=sandbox x")).len(), 1);
}

#[test]
fn a_stage_from_a_stage_has_its_platform() {
    let mut planning = Planning::new(
        "FROM --platform=$BUILDPLATFORM a AS b\nRUN x\nFROM --platform=plan9/386 b\nRUN y",
    );
    planning.options.platform = "linux/arm64".parse().unwrap();
    let plan = planning.plan();
    assert!(plan.stages.iter().all(|stage| stage.platform == planning.options.build_platform));
}

#[test]
fn a_trigger_is_one_instruction() {
    let base = |trigger: &str| ContainerConfig {
        on_build: Some(vec![trigger.to_owned()]),
        ..ContainerConfig::default()
    };
    for trigger in ["RUN a\nRUN b", "FROM x", "ONBUILD RUN x", ""] {
        let planning = Planning::new("FROM i\nRUN x").image("i", base(trigger));
        assert_eq!(planning.failure(), ("bad-onbuild".into(), 1), "{trigger:?}");
    }
}

#[test]
fn the_name_of_a_stage_is_in_no_key() {
    let key = |text: &str| Planning::new(text).last().key;
    let named = key("FROM a AS one\nRUN x\nFROM b\nCOPY --from=one /x /x");
    assert_eq!(named, key("FROM a AS two\nRUN x\nFROM b\nCOPY --from=two /x /x"));
    assert_eq!(named, key("FROM c\nFROM a\nRUN x\nFROM b\nCOPY --from=1 /x /x"));
}

#[test]
fn failures_of_several_instructions_and_stages_are_told_at_once() {
    let text = "FROM a AS one\nCOPY none /x\nCOPY file /x\nEXPOSE nope\nFROM b\nCOPY --from=one /x /x\nSTOPSIGNAL NOPE";
    let failures = Planning::new(text).failures();
    let lines: Vec<u32> = failures.iter().map(|failure| failure.lines.unwrap().start).collect();
    assert_eq!(lines, [2, 4, 7]);
}

#[test]
fn instructions_are_text() {
    for bytes in [&b"FROM a\nENV A=\xe9"[..], b"FROM a\nCOPY <<E /x\n\xe9\nE", b"FROM a\nENV A=\0"]
    {
        assert_eq!(parse("f", bytes).unwrap_err()[0].code, "bad-text");
    }
    assert!(parse("f", b"# caf\xe9\nFROM a\n# \xe9\nRUN x").is_ok());
}

#[test]
fn small_files_that_stand_for_much_are_refused_soon() {
    let value = "ab".repeat(20_000);
    let texts = [
        format!("FROM a\nRUN {}x", "--a \\\n".repeat(300_000)),
        format!("FROM a\nENV{} z=x\nRUN x", pairs(200_000)),
        format!("ARG{} z=x\nFROM a\nRUN x", pairs(200_000)),
        format!("FROM a\nEXPOSE {}", "0-65535 \\\n".repeat(50_000)),
        format!("FROM a\nENV V={value}\nENV W=${{V//a*b*c/x}}\nRUN x"),
        format!("FROM a\nENV V={value}\n{}", "RUN x\n".repeat(9_000)),
        format!("FROM a AS b\n{}{}", "ONBUILD ENV A=1\n".repeat(4_000), chain(2_000)),
    ];
    for text in texts {
        let start = Instant::now();
        assert!(Planning::new(&text).run().is_err(), "{}", &text[..30]);
        assert!(start.elapsed() < Duration::from_secs(15), "{} {:?}", &text[..30], start.elapsed());
    }
}

fn pairs(count: usize) -> String {
    let pairs: Vec<String> = (0..count).map(|at| format!(" a{at}=x \\\n")).collect();
    pairs.concat()
}

fn chain(count: usize) -> String {
    let stage = |at| format!("FROM b AS c{at}\nCOPY --from={at} /x /x\n");
    (0..count).map(stage).collect::<Vec<_>>().concat()
}
