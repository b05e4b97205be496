//! `slipway build --check` and `--call`: a Dockerfile looked at, nothing built.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use e2e::{Farm, FarmOptions, Ran};
use serde_json::Value;

const UNWISE: &str = "ARG TAG=latest\n# app is what runs\nFROM alpine:$TAG AS App\n\
                      ARG TOKEN\nCOPY hidden missing /\n\
                      RUN --mount=type=secret,id=key,required true\nCMD echo\n";

fn run(farm: &Farm, dockerfile: &str, flags: &[&str]) -> Ran {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.path().join("hidden"), "").unwrap();
    std::fs::write(context.path().join(".dockerignore"), "hidden\n").unwrap();
    let mut arguments = vec!["build"];
    arguments.extend(flags);
    arguments.push(context.path().to_str().unwrap());
    farm.slipway(&arguments).unwrap()
}

#[test]
fn a_check_says_what_is_unwise_and_builds_nothing() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let ran = run(&farm, UNWISE, &["--check"]);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    for part in [
        "Check complete, 4 warnings have been found!",
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
        "WARNING: SecretsUsedInArgOrEnv",
        "Attempting to Copy file \"hidden\" that is excluded by .dockerignore",
        "   7 | >>> CMD echo",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is missing in {}", ran.stdout);
    }
    let ran = run(&farm, UNWISE, &["--call=check,format=json"]);
    let view: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, view["findings"].as_array().unwrap().len()), (1, 4));
    let ran = run(&farm, "FROM alpine\nRUN true\n", &["--check"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "Check complete, no warnings found.\n"));
    // What is wrong is told with what is unwise.
    let ran = run(&farm, "FROM alpine AS A\nCPOY a b\n", &["--check"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("StageNameCasing"), "{}", ran.stdout);
    assert!(ran.stderr.contains("did you mean COPY?"), "{}", ran.stderr);

    let ran = run(&farm, UNWISE, &["--call=targets"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("app (default)    is what runs"), "{}", ran.stdout);
    let ran = run(&farm, UNWISE, &["--call=outline", "--build-arg", "TAG=latest"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in ["TARGET:      app", "TAG          latest", "key       true"] {
        assert!(ran.stdout.contains(part), "{part:?} is missing in {}", ran.stdout);
    }
    assert_eq!(farm.query("select count(*) from build").unwrap().trim(), "0");

    // A build says it too, and fails where the file wants that.
    let small = "FROM alpine\nCMD echo\n";
    let ran = run(&farm, small, &["--progress", "plain"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("JSONArgsRecommended: "), "{}", ran.stderr);
    let strict = format!("# check=error=true\n{small}");
    let ran = run(&farm, &strict, &["--progress", "plain"]);
    assert_eq!(ran.code, 1);
    let message = "lint violation found for rules: JSONArgsRecommended";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    // And a source that the ignore file hides is explained.
    let ran = run(&farm, "FROM alpine\nCOPY hidden /\n", &["--progress", "plain"]);
    assert!(ran.stderr.contains(".dockerignore leaves it out"), "{}", ran.stderr);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
