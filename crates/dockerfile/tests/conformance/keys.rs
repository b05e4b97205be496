//! What changes a key and what does not.

use common::Digest;
use common::tree::{EntryKind, Manifest};
use dockerfile::RemoteKind;

use crate::planning::{Planning, add, file, link, put, tree};

fn key(text: &str) -> Digest {
    Planning::new(text).last().key
}

fn key_of(text: &str, context: &Manifest) -> Digest {
    Planning::new(text).context(context.clone()).last().key
}

const FILES: [(&str, &str); 4] =
    [("src/a.c", "a"), ("src/b.h", "b"), ("src/deep/c.c", "c"), ("other", "o")];

fn changed(change: impl FnOnce(&mut Manifest)) -> Manifest {
    let mut context = tree(&FILES);
    change(&mut context);
    context
}

#[test]
fn a_copy_depends_on_what_it_selects() {
    let copy = "FROM a\nCOPY src /x";
    let base = key_of(copy, &tree(&FILES));
    let same: [Manifest; 3] = [
        changed(|tree| add(tree, "src/a.c", file("a")).mtime_secs = 77),
        changed(|tree| add(tree, "other", file("changed")).mode = 0o600),
        changed(|tree| put(tree, "src.c", file("new"))),
    ];
    for context in &same {
        assert_eq!(key_of(copy, context), base, "{context:?}");
    }
    let different: [Manifest; 7] = [
        changed(|tree| put(tree, "src/a.c", file("changed"))),
        changed(|tree| add(tree, "src/a.c", file("a")).mode = 0o755),
        changed(|tree| put(tree, "src/new", file(""))),
        changed(|tree| put(tree, "src/a.c", link("b.h"))),
        changed(|tree| put(tree, "src/empty", EntryKind::Directory)),
        changed(|tree| tree.entries.retain(|entry| entry.path.display() != "src/b.h")),
        changed(|tree| {
            add(tree, "src/a.c", file("a")).xattrs = vec![("security.capability".into(), vec![1])];
        }),
    ];
    for context in &different {
        assert_ne!(key_of(copy, context), base, "{context:?}");
    }
}

#[test]
fn a_wildcard_depends_on_what_it_matches() {
    let copy = "FROM a\nCOPY src/*.c /x/";
    let base = key_of(copy, &tree(&FILES));
    assert_eq!(base, key_of(copy, &changed(|tree| put(tree, "src/b.h", file("changed")))));
    assert_eq!(base, key_of(copy, &changed(|tree| put(tree, "src/deep/c.c", file("changed")))));
    assert_ne!(base, key_of(copy, &changed(|tree| put(tree, "src/new.c", file("")))));
    let renamed = changed(|tree| {
        tree.entries.retain(|entry| entry.path.display() != "src/a.c");
        add(tree, "src/z.c", file("a"));
    });
    assert_ne!(base, key_of(copy, &renamed));
    let nothing = "FROM a\nCOPY none* /x/";
    assert_eq!(key_of(nothing, &tree(&FILES)), key_of(nothing, &tree(&[])));
}

#[test]
fn behind_a_link_everything_counts() {
    let mut context = tree(&FILES);
    add(&mut context, "link", link("src"));
    add(&mut context, "way/there", link("../src"));
    for copy in ["link", "link/a.c", "way/there/*.c", "way/*/a.c", "li*"] {
        let text = format!("FROM a\nCOPY {copy} /x/");
        let base = key_of(&text, &context);
        let mut touched = context.clone();
        add(&mut touched, "src/a.c", file("changed"));
        assert_ne!(base, key_of(&text, &touched), "{copy}");
    }
}

#[test]
fn a_missing_source_is_found_before_anything_runs() {
    for (source, hint) in
        [("src/a.cc", "src/a.c"), ("srx", "src"), ("nowhere/at/all", ".dockerignore")]
    {
        let text = format!("FROM a\nRUN x\nCOPY {source} /x");
        let failure = Planning::new(&text).context(tree(&FILES)).failures().remove(0);
        assert_eq!((failure.code.as_str(), failure.lines.unwrap().start), ("missing-source", 3));
        assert!(failure.hint.unwrap().contains(hint), "{source}");
    }
    let mut context = tree(&FILES);
    add(&mut context, "link", link("src"));
    // What lies behind a link is for the worker to say.
    key_of("FROM a\nCOPY link/whatever /x", &context);
}

#[test]
fn a_command_depends_on_what_it_sees() {
    let base = key("FROM a\nRUN x");
    for same in [
        "# note\n\n\nFROM a\n\nRUN   x",
        "FROM a\nLABEL l=1\nEXPOSE 80\nCMD c\nRUN x",
        "FROM a AS named\nRUN x",
        "FROM b AS unrelated\nRUN y\nFROM a\nRUN x",
        "FROM a\nARG UNSET\nRUN x",
        "FROM a\nRUN --network=default x",
    ] {
        assert_eq!(key(same), base, "{same}");
    }
    for different in [
        "FROM b\nRUN x",
        "FROM a\nRUN y",
        "FROM a\nENV A=1\nRUN x",
        "FROM a\nARG A=1\nRUN x",
        "FROM a\nUSER u\nRUN x",
        "FROM a\nWORKDIR /w\nRUN x",
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nRUN x",
        "FROM a\nRUN --network=none x",
        "FROM a\nRUN [\"x\"]",
        "FROM a\nRUN x\nRUN x",
    ] {
        assert_ne!(key(different), base, "{different}");
    }
}

#[test]
fn a_copy_depends_on_its_flags_and_texts() {
    let texts = [
        "COPY file /x",
        "COPY file /x/",
        "COPY file /y",
        "COPY --chown=1 file /x",
        "COPY --chmod=755 file /x",
        "ADD file /x",
        "COPY file dir /x/",
        "COPY dir file /x/",
        "COPY <<file /x\nbody\nfile",
        "COPY <<file /x\nother\nfile",
        "COPY <<name /x\nbody\nname",
        "COPY --from=img file /x",
        "WORKDIR /x",
    ];
    let keys: Vec<Digest> = texts.iter().map(|text| key(&format!("FROM a\n{text}"))).collect();
    for (at, found) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(found), "{}", texts[at]);
    }
    // Arguments count where they are used.
    let text = "FROM a\nARG A=1\nCOPY file /x";
    assert_eq!(key(text), Planning::new(text).build_arg("A", "2").last().key);
    let text = "FROM a\nARG A=1\nCOPY file /$A";
    assert_ne!(key(text), Planning::new(text).build_arg("A", "2").last().key);
}

#[test]
fn a_copy_from_a_stage_depends_on_that_stage_and_the_paths() {
    let text =
        |run: &str, path: &str| format!("FROM a AS p\nRUN {run}\nFROM b\nCOPY --from=p {path} /x");
    assert_eq!(key(&text("x", "/o")), key(&text("x", "o")));
    assert_ne!(key(&text("x", "/o")), key(&text("y", "/o")));
    assert_ne!(key(&text("x", "/o")), key(&text("x", "/q")));
}

#[test]
fn the_parts_of_a_key_say_what_changed() {
    let parts = |text: &str| Planning::new(text).last().steps.pop().unwrap().key_parts;
    let (one, two) = (parts("FROM a\nARG VERSION=1\nRUN x"), parts("FROM a\nARG VERSION=2\nRUN x"));
    let changed: Vec<_> = one.iter().zip(&two).filter(|(a, b)| a != b).collect();
    let [(before, after)] = changed[..] else { panic!("{changed:?}") };
    assert!(before.name.contains("VERSION"));
    assert_eq!((before.value.as_str(), after.value.as_str()), ("1", "2"));
}

#[test]
fn a_file_behind_a_url_is_what_its_server_or_checksum_says() {
    let key = |text: &str, said: &str| {
        let mut planning = Planning::new(&format!("FROM a\n{text}"));
        for url in ["https://x.test/f", "https://y.test/f"] {
            planning.options.remotes.insert((RemoteKind::File, url.into()), said.into());
        }
        let planned = planning.run().unwrap();
        assert!(planned.remotes.is_empty());
        planned.plan.stages[0].key
    };
    let add = "ADD https://x.test/f /";
    assert_eq!(key(add, "etag 1"), key(add, "etag 1"));
    assert_ne!(key(add, "etag 1"), key(add, "etag 2"));
    assert_ne!(key(add, "etag 1"), key("ADD https://y.test/f /", "etag 1"));
    // A checksum says all: neither what the server says nor where it is counts.
    let sum = format!("--checksum={}", Digest::of(b"x"));
    let summed = |host: &str, said| key(&format!("ADD {sum} https://{host}/f /"), said);
    assert_eq!(summed("x.test", "etag 1"), summed("y.test", "etag 2"));
}
