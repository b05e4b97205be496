//! Bad input of every kind: a message of one screen, the right exit code, and a row that says the same.

use common::build::BuildState;
use e2e::{Farm, FarmOptions};

struct Case {
    dockerfile: &'static str,
    arguments: &'static [&'static str],
    code: i32,
    /// What the message has to contain.
    message: &'static [&'static str],
}

const CASES: [Case; 8] = [
    Case {
        dockerfile: "FROM alpine\nRUNN echo\n",
        arguments: &[],
        code: 1,
        message: &["unknown instruction: RUNN", "Dockerfile:2", "did you mean RUN?"],
    },
    Case {
        dockerfile: "FROM alpine AS builder\nFROM alpine\nCOPY --from=bulider /x /\n",
        arguments: &[],
        code: 1,
        message: &["docker.io/library/bulider", "Dockerfile:3", "did you mean the stage builder?"],
    },
    Case {
        dockerfile: "FROM alpine AS builder\n",
        arguments: &["--target", "bilder"],
        code: 1,
        message: &["target stage \"bilder\"", "did you mean builder?"],
    },
    Case {
        dockerfile: "FROM alpine\nCOPY main.gp /\n",
        arguments: &[],
        code: 1,
        message: &["\"/main.gp\" not found", "Dockerfile:2", "did you mean main.go?"],
    },
    Case {
        dockerfile: "FROM no-such-image-here:1\n",
        arguments: &[],
        code: 1,
        message: &["no-such-image-here:1 was not found", "Dockerfile:1", "check the name"],
    },
    Case {
        dockerfile: "FROM alpine\nRUN echo last words; exit 3\n",
        arguments: &[],
        code: 1,
        message: &["last words", "exit code: 3", "Dockerfile:2"],
    },
    Case {
        dockerfile: "FROM alpine\n",
        arguments: &["--push", "-t", "127.0.0.1:1/x"],
        code: 4,
        message: &["cannot reach the registry 127.0.0.1:1", "check the address"],
    },
    Case {
        dockerfile: "FROM alpine\nADD git@example.com:x.git /\n",
        arguments: &[],
        code: 1,
        message: &["no SSH agent was given", "--ssh default", "Dockerfile:2"],
    },
];

#[test]
fn mistakes_are_explained_and_leave_nothing_behind() {
    let farm = Farm::start(FarmOptions::default()).unwrap();
    for case in CASES {
        let directory = tempfile::tempdir_in(farm.directory()).unwrap();
        std::fs::write(directory.path().join("Dockerfile"), case.dockerfile).unwrap();
        std::fs::write(directory.path().join("main.go"), "").unwrap();
        let mut arguments = vec!["build", "--progress", "plain"];
        arguments.extend(case.arguments);
        arguments.push(directory.path().to_str().unwrap());
        let ran = farm.slipway(&arguments).unwrap();
        assert_eq!(ran.code, case.code, "{}{}", case.dockerfile, ran.stderr);
        for part in case.message {
            assert!(ran.stderr.contains(part), "{part:?} is missing in {}", ran.stderr);
        }
        assert!(ran.stderr.lines().count() < 40, "{}", ran.stderr);
        let view = farm.last_build().unwrap();
        assert_eq!(view.state, BuildState::Failed);
        let failure = view.failure.unwrap();
        assert!(ran.stderr.contains(&failure.message), "{failure:?} {}", ran.stderr);
        assert_eq!(i32::from(failure.class.exit_code()), case.code);
    }

    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(directory.path().join("Dockerfile"), "FROM alpine\n").unwrap();
    let path = directory.path().to_str().unwrap();
    let wrong = farm.slipway(["--token", "wrong", "build", path]).unwrap();
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("the token is not valid here"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("hint"), "{}", wrong.stderr);
    let nobody = farm.slipway(["--server", "http://127.0.0.1:1", "build", path]).unwrap();
    assert_eq!(nobody.code, 5);
    assert!(nobody.stderr.contains("cannot reach"), "{}", nobody.stderr);
    let flag = farm.slipway(["build", "--builder", "x", path]).unwrap();
    assert_eq!(flag.code, 2);
    assert!(flag.stderr.contains("--builder has no meaning"), "{}", flag.stderr);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn an_archive_is_one_that_others_read() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(directory.path().join("Dockerfile"), "FROM alpine\nRUN echo x > /x\n").unwrap();
    let archive = farm.directory().join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let path = directory.path().to_str().unwrap();
    let ran = farm.slipway(["build", "-t", "thing:1", "-o", &output, path]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let inspected = std::process::Command::new("skopeo")
        .arg("inspect")
        .arg(format!("oci-archive:{}", archive.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inspected.stderr).into_owned();
    assert!(inspected.status.success(), "{text}");
    let value: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(value["Layers"].as_array().unwrap().len(), 2);
    let view = farm.last_build().unwrap();
    assert_eq!(value["Digest"], view.exports[0].digest.to_string().as_str());
}
