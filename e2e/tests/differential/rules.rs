//! Which of the rules of Dockerfiles have a case, and where the others are tested.

use std::collections::BTreeSet;

use crate::cases;

/// The rules, each with its number and its meaning.
const RULES: &str = include_str!("../../../docs/dockerfile-rules.md");

/// Rules without a case here: what two images side by side cannot show.
const ELSEWHERE: [(&str, &str); 29] = [
    ("A5", "crates/dockerfile, source: other places of the syntax directive"),
    ("A24", "crates/dockerfile, tests/conformance/lines.rs"),
    ("A25", "crates/dockerfile, tests/conformance/checks.rs"),
    ("B13", "e2e/tests/platforms.rs"),
    ("C30", "crates/blobstore: contexts travel by content"),
    ("D7", "e2e/tests/remotes.rs"),
    ("E16", "e2e/tests/flags.rs"),
    ("E20", "crates/dockerfile, tests/conformance/mounts.rs"),
    ("F5", "worker, the layer writer sees what overlayfs wrote and compares nothing"),
    ("F9", "crates/layer"),
    ("F10", "worker, the options of every overlay mount"),
    ("G12", "e2e/tests/platforms.rs"),
    ("G13", "crates/dockerfile, tests/plans.rs"),
    ("G14", "of config, history and files: e2e/tests/outputs.rs"),
    ("G15", "crates/dockerfile, tests/conformance/scopes.rs"),
    ("G19", "several platforms go to registries and OCI layouts: e2e/tests/platforms.rs"),
    ("H7", "e2e/tests/reach.rs"),
    ("H8", "crates/dockerfile, tests/conformance/checks.rs"),
    ("I1", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I2", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I3", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I4", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I5", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I6", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I7", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I11", "no cache is exported; chains of equal results: e2e/tests/sharing.rs"),
    ("I12", "e2e/tests/sharing.rs"),
    ("I9", "crates/dockerfile, tests/conformance/keys.rs"),
    ("I10", "crates/dockerfile, tests/conformance/keys.rs"),
];

#[test]
fn every_rule_has_a_case_or_a_place_where_it_is_tested() {
    let cases = cases::all();
    let with_case: BTreeSet<&str> = cases.iter().flat_map(|case| case.rules.split(' ')).collect();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(rule, _)| *rule).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in RULES.lines() {
        let Some((rule, _)) = line.strip_prefix("| ").and_then(|line| line.split_once(" |")) else {
            continue;
        };
        if !rule.ends_with(|last: char| last.is_ascii_digit()) {
            continue;
        }
        count += 1;
        match [&with_case, &elsewhere].map(|set| set.contains(rule)) {
            [true, true] => wrong.push(format!("{rule} has a case by now")),
            [false, false] => wrong.push(format!("{rule} has no case")),
            _ => {}
        }
    }
    assert_eq!(count, 170);
    assert!(wrong.is_empty(), "{wrong:?}");
}
