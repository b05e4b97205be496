//! Workers that a user without rights has started.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use common::build::BuildState;
use e2e::{Farm, FarmOptions, run_image, source_root};

fn farm() -> Farm {
    Farm::start(FarmOptions { rootless: true, ..FarmOptions::default() }).unwrap()
}

#[test]
fn the_tutorial_is_built_without_rights_and_runs() {
    let farm = farm();
    let example = source_root().join("examples/named");
    let name = format!("{}/hello:1", farm.registry());
    let build = ["build", "--progress", "plain", "--push", "-t", &name, example.to_str().unwrap()];
    let ran = farm.slipway(build).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(farm.last_build().unwrap().state, BuildState::Succeeded);
    let scratch = tempfile::tempdir_in(farm.directory()).unwrap();
    assert_eq!(run_image(&name, scratch.path()).unwrap(), "hello from a farm, linux\n");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn owners_removals_and_replaced_directories_are_as_with_rights() {
    let text = "FROM alpine AS one\n\
                RUN mkdir -p /d/old /e && echo x > /d/old/f && echo x > /e/f && chown 1000:1001 /e/f\n\
                RUN rm -r /d && mkdir /d && echo new > /d/new && chmod 4755 /e/f\n\
                FROM alpine\n\
                COPY --from=one /d /d\n\
                COPY --from=one /e /e\n\
                RUN test ! -e /d/old && ls /d && stat -c '%u:%g %a' /e/f\n\
                USER 1000\n\
                RUN id -u; ! mknod /tmp/x b 7 0 && grep Seccomp: /proc/self/status\n";
    let farm = farm();
    let context = tempfile::tempdir_in(farm.directory()).unwrap().keep();
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    let ran = farm.slipway(["build", "--progress", "plain", context.to_str().unwrap()]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let log = farm.last_log().unwrap();
    for expected in ["new", "1000:1001 4755", "Seccomp:\t2"] {
        assert!(log.lines().any(|line| line.ends_with(expected)), "{expected}: {log}");
    }
}

#[test]
fn a_user_without_numbers_is_told_what_is_missing() {
    let doctor = |arguments: &[&str]| {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "61235", "--regid", "61235", "--clear-groups", "--inh-caps=-all"])
            .arg("--")
            .arg(testkit::program("slipway-worker").unwrap())
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .output()
            .unwrap();
        let texts = [output.stdout, output.stderr];
        let [stdout, stderr] = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), stdout, stderr)
    };
    let (code, report, _) = doctor(&["doctor", "--json"]);
    assert_eq!(code, Some(1), "{report}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["level"], "fail");
    let findings = report["findings"].as_array().unwrap();
    let fixes: Vec<_> = findings.iter().filter_map(|finding| finding["fix"].as_str()).collect();
    for expected in ["usermod --add-subuids 100000-165535 61235", "usermod --add-subgids"] {
        assert!(fixes.iter().any(|fix| fix.contains(expected)), "{report}");
    }
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let config = directory.path().join("worker.toml");
    let text = "[worker]\ndata_dir = \"/nonexistent\"\n[coordinator]\nurl = \"http://127.0.0.1:9\"\n\
                token = \"x\"\n";
    std::fs::write(&config, text).unwrap();
    let (code, _, error) = doctor(&["run", "--config", config.to_str().unwrap()]);
    assert_ne!(code, Some(0));
    assert!(error.contains("/etc/subuid gives 0 numbers"), "{error}");
}
