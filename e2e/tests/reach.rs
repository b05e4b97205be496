//! What is sent of contexts: only what the target's instructions can reach.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

use e2e::{Farm, FarmOptions, Ran};

/// Every file of a context; its content is `content of NAME`.
const FILES: [&str; 9] =
    ["a.txt", "b.txt", "c.md", "dir/x", "dir/y.md", "dir/deep/w", "far/z", "far/q", "hidden"];

fn farm() -> Farm {
    Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap()
}

/// A context with a Dockerfile. What its files hold begins with `mark`.
fn context(farm: &Farm, mark: &str, dockerfile: &str) -> tempfile::TempDir {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    let at = |name: &str| context.path().join(name);
    for name in FILES {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), format!("<{mark} {name}>\n")).unwrap();
    }
    std::os::unix::fs::symlink("../a.txt", at("dir/up")).unwrap();
    std::os::unix::fs::symlink("/far", at("link")).unwrap();
    std::fs::hard_link(at("far/q"), at("twin")).unwrap();
    std::fs::write(at(".dockerignore"), "hidden\n").unwrap();
    std::fs::write(at("Dockerfile"), dockerfile).unwrap();
    context
}

fn build(farm: &Farm, context: &Path, flags: &[&str]) -> Ran {
    let place = tempfile::tempdir_in(farm.directory()).unwrap();
    let output = format!("type=local,dest={}", place.path().join("out").display());
    let all = ["build", "--progress", "plain", "-o", &output].into_iter();
    farm.slipway(all.chain(flags.iter().copied()).chain([context.to_str().unwrap()])).unwrap()
}

/// The files with this mark whose content is in the object store, as a part of a context.
fn sent(farm: &Farm, mark: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![farm.directory().join("s3")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let described = std::fs::read(&path).unwrap();
            let described: serde_json::Value = serde_json::from_slice(&described).unwrap();
            if !described["key"].as_str().unwrap().contains("/packs/") {
                continue;
            }
            let content = path.with_file_name(described["content"].as_str().unwrap());
            let bytes = std::fs::read(content).unwrap();
            let text = String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap();
            let files = text.split('<').filter_map(|text| text.split_once('>'));
            let files = files.filter_map(|(file, _)| file.split_once(' '));
            found.extend(files.filter(|(of, _)| *of == mark).map(|(_, name)| name.to_owned()));
        }
    }
    found
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn only_what_the_target_reaches_is_sent() {
    let farm = farm();
    for (number, (dockerfile, expected)) in [
        ("FROM scratch\nCOPY <<E /made\nx\nE\n", &[][..]),
        ("FROM scratch\nCOPY a.txt /\n", &["a.txt"]),
        ("FROM scratch\nCOPY *.txt /\n", &["a.txt", "b.txt"]),
        (
            "FROM scratch\nADD --exclude=*.md *.md dir /\n",
            &["c.md", "dir/x", "dir/y.md", "dir/deep/w"],
        ),
        ("FROM scratch\nCOPY --parents dir/./deep /\n", &["dir/deep/w"]),
        (
            "FROM scratch\nCOPY --parents dir/**/w /\n",
            &["a.txt", "dir/x", "dir/y.md", "dir/deep/w"],
        ),
        // What links lead to comes too, and what hard links are; links below are links.
        ("FROM scratch\nCOPY dir/up /\n", &["a.txt"]),
        ("FROM scratch\nCOPY link/z /\n", &["far/z"]),
        ("FROM scratch\nCOPY link /d/\n", &["far/z", "far/q"]),
        ("FROM scratch\nCOPY twin /\n", &["far/q"]),
        ("FROM alpine\nRUN --mount=type=bind,source=far,target=/m cat /m/z\n", &["far/q", "far/z"]),
        ("FROM alpine\nRUN --mount=type=bind,source=dir/x,target=/m cat /m\n", &["dir/x"]),
        ("ARG D=far\nFROM scratch\nARG D\nCOPY $D/z /\n", &["far/z"]),
        ("FROM scratch AS base\nONBUILD COPY b.txt /\nFROM base\n", &["b.txt"]),
        ("FROM scratch AS none\nCOPY a.txt /\nFROM scratch\nCOPY b.txt /\n", &["b.txt"]),
        ("FROM scratch AS some\nCOPY dir/x /\nFROM scratch\nCOPY --from=some x /\n", &["dir/x"]),
        (
            "FROM scratch\nCOPY . /\n",
            &["a.txt", "b.txt", "c.md", "dir/x", "dir/y.md", "dir/deep/w", "far/z", "far/q"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mark = format!("case{number}");
        let context = context(&farm, &mark, dockerfile);
        let ran = build(&farm, context.path(), &[]);
        assert_eq!(ran.code, 0, "{dockerfile}: {}", ran.stderr);
        assert_eq!(sent(&farm, &mark), set(expected), "{dockerfile}");
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn another_target_sends_what_it_needs_and_the_rest_changes_nothing() {
    let farm = farm();
    let dockerfile = "FROM scratch AS one\nCOPY a.txt /\nFROM one AS two\nCOPY far/z /\n";
    let context = context(&farm, "some", dockerfile);
    let ran = build(&farm, context.path(), &["--target", "one"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(sent(&farm, "some"), set(&["a.txt"]));
    // Nobody asks for it: nothing is sent, and nothing runs.
    std::fs::write(context.path().join("b.txt"), "changed").unwrap();
    let ran = build(&farm, context.path(), &["--target", "one"]);
    assert!(ran.stderr.contains(" 0 B sent"), "{}", ran.stderr);
    let ran = build(&farm, context.path(), &["--target", "two"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(sent(&farm, "some"), set(&["a.txt", "far/z"]));
    // The step that both have is the same, whatever else was sent.
    let plan = farm.slipway(["plan", "--target", "one", context.path().to_str().unwrap()]);
    assert!(plan.unwrap().stdout.contains("nothing would run"));
    let view = farm.last_build().unwrap();
    let one = view.stages.iter().find(|stage| stage.label == "one").unwrap();
    assert_eq!(one.attempts, 0, "{one:?}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn of_named_contexts_too_only_what_is_reached_is_sent() {
    let farm = farm();
    let extra = context(&farm, "extra", "");
    let given = format!("extra={}", extra.path().display());
    let flags = ["--build-context", given.as_str()];
    for (dockerfile, expected) in [
        ("FROM scratch\nCOPY a.txt /\n", &[][..]),
        ("FROM scratch\nCOPY --from=extra link/z /\n", &["far/z"]),
        (
            "FROM alpine\nRUN --mount=type=bind,from=extra,source=dir/x,target=/m cat /m\n",
            &["far/z", "dir/x"],
        ),
        (
            "FROM extra\n",
            &["a.txt", "b.txt", "c.md", "dir/x", "dir/y.md", "dir/deep/w", "far/z", "far/q"],
        ),
    ] {
        let context = context(&farm, "main", dockerfile);
        let ran = build(&farm, context.path(), &flags);
        assert_eq!(ran.code, 0, "{dockerfile}: {}", ran.stderr);
        assert_eq!(sent(&farm, "extra"), set(expected), "{dockerfile}");
    }
    assert_eq!(sent(&farm, "main"), set(&["a.txt"]));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn what_an_image_asks_for_is_sent_when_that_is_known() {
    let farm = farm();
    let base = format!("{}/base:1", farm.registry());
    let triggers = "FROM scratch\nENV WHERE=far\nONBUILD COPY b.txt /from/\n";
    let made = context(&farm, "base", triggers);
    let made = made.path().to_str().unwrap().to_owned();
    let ran = farm.slipway(["build", "--push", "-t", &base, &made]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let user = context(&farm, "user", &format!("FROM {base}\nCOPY $WHERE/z a.txt /to/\n"));
    let path = user.path().to_str().unwrap();
    let output = format!("type=local,dest={}", farm.directory().join("out").display());
    let all = ["build", "--progress", "plain", "-o", &output, path];
    let ran = farm.slipway(all).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("they are sent whole"), "{}", ran.stderr);
    for (name, content) in [("from/b.txt", "b.txt"), ("to/z", "far/z"), ("to/a.txt", "a.txt")] {
        let found = std::fs::read_to_string(farm.directory().join("out").join(name)).unwrap();
        assert_eq!(found, format!("<user {content}>\n"));
    }
    // It is found out once: the next build is one.
    let ran = farm.slipway(all).unwrap();
    assert!(ran.code == 0 && !ran.stderr.contains("they are sent whole"), "{}", ran.stderr);
    assert_eq!(farm.query("select count(*) from build").unwrap().trim(), "4");
    let plan = farm.slipway(["plan", path]).unwrap();
    assert!(plan.stdout.contains("nothing would run"), "{}{}", plan.stdout, plan.stderr);
    // A file that is nowhere is told as ever, though the context is not sent.
    for (dockerfile, says) in [
        ("FROM scratch\nCOPY dir/dep /\n", "did you mean dir/deep"),
        ("FROM scratch\nCOPY hidden /\n", ".dockerignore leaves it out"),
    ] {
        let context = context(&farm, "wrong", dockerfile);
        let ran = build(&farm, context.path(), &[]);
        assert!(ran.code != 0 && ran.stderr.contains(says), "{}", ran.stderr);
        assert!(ran.stderr.contains("not found in the build context"), "{}", ran.stderr);
    }
    assert_eq!(sent(&farm, "wrong"), BTreeSet::new());
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
