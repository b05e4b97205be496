//! ADD of files behind URLs: what is asked for, and when it runs again.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use common::Digest;
use common::stage::{StageKind, StageState};
use e2e::{Farm, FarmOptions, Ran, WebFile, WebFiles};

fn build(farm: &Farm, dockerfile: &str) -> Ran {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let path = context.path().to_str().unwrap();
    farm.slipway(["build", "--progress", "plain", path]).unwrap()
}

fn has_run(farm: &Farm) -> bool {
    let view = farm.last_build().unwrap();
    let mut stages = view.stages.iter().filter(|stage| stage.kind == StageKind::Stage);
    stages.any(|stage| stage.state == StageState::Succeeded)
}

#[test]
fn a_file_is_fetched_again_when_its_server_says_so() {
    let options = FarmOptions { workers: 1, fetch_private: true, ..FarmOptions::default() };
    let farm = Farm::start(options).unwrap();
    let server = WebFiles::start().unwrap();
    let file = |content: &str, tag: Option<&str>| WebFile {
        content: content.as_bytes().to_vec(),
        tag: tag.map(str::to_owned),
        ..WebFile::default()
    };
    server.put("/tagged", file("one", Some("\"1\"")));
    server.put("/silent", file("one", None));
    let address = server.address();
    let text = format!("FROM alpine\nADD {address}/tagged /x\nRUN grep -q . /x\n");
    let succeed = |text: &str| {
        let ran = build(&farm, text);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        has_run(&farm)
    };
    assert!(succeed(&text));
    assert_eq!(server.asked(), ["HEAD /tagged", "GET /tagged"]);
    // D7: what has not changed is not sent again.
    assert!(!succeed(&text));
    assert_eq!(server.asked(), ["HEAD /tagged"]);
    server.put("/tagged", file("two", Some("\"2\"")));
    assert!(succeed(&text));
    // A server that says nothing is asked every time.
    let silent = format!("FROM alpine\nADD {address}/silent /x\n");
    assert!(succeed(&silent) && succeed(&silent));

    // D8: with a checksum nobody is asked whether it has changed, and another file is refused.
    server.asked();
    let sum = Digest::of(b"one");
    let summed = format!("FROM alpine\nADD --checksum={sum} {address}/silent /x\n");
    assert!(succeed(&summed));
    assert_eq!(server.asked(), ["GET /silent"]);
    assert!(!succeed(&summed));
    assert_eq!(server.asked(), Vec::<String>::new());
    let wrong = format!("FROM alpine\nADD --checksum={} {address}/silent /x\n", Digest::of(b"x"));
    let ran = build(&farm, &wrong);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("digest mismatch"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Dockerfile:2"), "{}", ran.stderr);
    let ran = build(&farm, &format!("FROM alpine\nADD {address}/none /x\n"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the server answered 404"), "{}", ran.stderr);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn private_networks_are_not_fetched_from() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let server = WebFiles::start().unwrap();
    server.put("/x", WebFile::default());
    let sum = Digest::of(b"");
    // By the coordinator, and by a worker that nobody has asked before.
    for flag in [String::new(), format!("--checksum={sum} ")] {
        let ran = build(&farm, &format!("FROM alpine\nADD {flag}{}/x /x\n", server.address()));
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("it leads to a private network"), "{}", ran.stderr);
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
