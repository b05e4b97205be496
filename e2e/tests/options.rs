//! Secrets, named contexts and builds without cache: what only a farm shows.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::time::Duration;

use common::stage::{StageKind, StageState};
use e2e::{Farm, FarmOptions, Ran};
use testkit::wait_for;

/// Builds a Dockerfile in an own context directory with two files.
fn build(farm: &Farm, dockerfile: &str, flags: &[&str]) -> Ran {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.path().join("token"), "hunter2-of-the-farm").unwrap();
    let here = context.path().display().to_string();
    let mut arguments = vec!["build".to_owned(), "--progress".into(), "plain".into()];
    arguments.extend(flags.iter().map(|flag| flag.replace("{context}", &here)));
    arguments.push(here);
    farm.slipway(arguments).unwrap()
}

#[test]
fn a_secret_is_sealed_used_and_forgotten() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let dockerfile = "FROM alpine\nRUN --mount=type=secret,id=tok,required \\\n  \
                      test \"$(cat /run/secrets/tok)\" = hunter2-of-the-farm && cat /run/secrets/tok\n\
                      RUN sleep 5\n";
    // A command that will run and cannot is known before anything runs.
    let ran = build(&farm, dockerfile, &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("secret tok: not found"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Dockerfile:2"), "{}", ran.stderr);
    assert_eq!(farm.query("select count(*) from stage").unwrap().trim(), "0");

    let secret = "id=tok,src={context}/token";
    std::thread::scope(|scope| {
        let building = scope.spawn(|| build(&farm, dockerfile, &["--secret", secret]));
        wait_for("the sealed secret", Duration::from_secs(30), || {
            let rows = farm.query("select name, sealed from build_secret").ok()?;
            rows.starts_with("tok|").then_some(())
        })
        .unwrap();
        // Neither request nor row show it.
        let rows =
            "select request::text from build union all select sealed::text from build_secret";
        let all = farm.query(rows).unwrap();
        assert!(!all.contains("hunter2"), "{all}");
        // The same in hex, and in base64.
        assert!(!all.contains("68756e74657232") && !all.contains("aHVudGVyMi1"), "{all}");
        let ran = building.join().unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let log = farm.last_log().unwrap();
        let shown = log.lines().filter(|line| !line.contains("RUN"));
        assert!(!shown.clone().any(|line| line.contains("hunter2")), "{log}");
        assert!(shown.clone().any(|line| line.contains("***")), "{log}");
    });
    wait_for("the end of the secret", Duration::from_secs(30), || {
        (farm.query("select count(*) from build_secret").ok()?.trim() == "0").then_some(())
    })
    .unwrap();
    // Its value is in no key, and what is cached needs none.
    let ran = build(&farm, dockerfile, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn without_cache_the_named_stages_run_and_what_reads_them() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let dockerfile = "FROM alpine AS one\nRUN --mount=type=cache,target=/c \
                      echo x >> /c/f && wc -l < /c/f | tee /n\n\
                      FROM alpine AS two\nRUN echo two > /two\n\
                      FROM alpine AS three\nCOPY --from=two /two /\nCOPY --from=one /n /\n\
                      RUN cat /n\n";
    let ran = |flags: &[&str]| {
        let built = build(&farm, dockerfile, flags);
        assert_eq!(built.code, 0, "{}", built.stderr);
        let view = farm.last_build().unwrap();
        let stages = view.stages.iter().filter(|stage| stage.kind == StageKind::Stage);
        // One whose layers are still on their way to the store is shared, not run.
        let ran = stages
            .filter(|stage| stage.state == StageState::Succeeded && stage.attached_to.is_none());
        ran.map(|stage| stage.label.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ran(&[]), ["one", "two", "three"]);
    assert_eq!(ran(&[]), Vec::<String>::new());
    assert_eq!(ran(&["--no-cache-filter", "ONE"]), ["one", "three"]);
    // The cache mount of a stage that runs without cache begins empty.
    assert!(farm.last_log().unwrap().lines().any(|line| line.trim_end().ends_with(" 1")));
    assert_eq!(ran(&["--no-cache-filter", "three"]), ["three"]);
    assert_eq!(ran(&["--no-cache"]), ["one", "two", "three"]);
    assert_eq!(ran(&[]), Vec::<String>::new());
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn what_was_made_comes_as_archives_and_as_files() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let at = |name: &str| farm.directory().join(name);
    let dockerfile = "FROM alpine\nRUN mkdir /out && echo made > /out/file && chmod 600 /out/file\n\
                      FROM scratch\nCOPY --from=0 /out /\nCMD [\"x\"]\n";
    let (local, tar, docker) = (at("local"), at("made.tar"), at("docker.tar"));
    let outputs = [
        format!("type=local,dest={}", local.display()),
        format!("type=tar,dest={}", tar.display()),
        format!("type=docker,dest={}", docker.display()),
    ];
    let mut flags = vec!["-t", "made:1"];
    for output in &outputs {
        flags.extend(["-o", output]);
    }
    let ran = build(&farm, dockerfile, &flags);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(local.join("file")).unwrap(), "made\n");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(local.join("file")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let list = |path: &std::path::Path| {
        let output = std::process::Command::new("tar").arg("-tf").arg(path).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        list(&tar).lines().any(|name| name.trim_start_matches("./") == "file"),
        "{}",
        list(&tar)
    );
    // Another program reads it as a Docker archive.
    let source = format!("docker-archive:{}", docker.display());
    let output = std::process::Command::new("skopeo").args(["inspect", &source]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(list(&docker).contains("manifest.json"));
    // A directory alone is short for local.
    let short = at("short");
    let ran = build(&farm, dockerfile, &["-o", short.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(short.join("file").is_file());
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_context_comes_on_standard_input() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), "FROM alpine\nCOPY file /\n").unwrap();
    std::fs::write(context.path().join("file"), "x").unwrap();
    let here = context.path().display();
    for (pipe, arguments) in [
        (format!("tar -C {here} -cf - ."), "-"),
        (format!("tar -C {here} -czf - ."), "-"),
        ("printf 'FROM alpine\\nRUN true\\n'".to_owned(), "-"),
        ("printf 'FROM alpine\\nADD file /x\\n'".to_owned(), &format!("-f - {here}")),
    ] {
        let command = farm.command().unwrap();
        let program = command.get_program().to_owned();
        let mut shell = std::process::Command::new("sh");
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let build = format!("{} build --progress plain {arguments}", program.display());
        shell.args(["-c", &format!("{pipe} | {build}")]);
        let output = shell.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{pipe}: {stderr}");
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
