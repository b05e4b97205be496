//! `slipway up`: a farm in one command, whose data outlive it.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use api::public::v1::BuildView;
use common::stage::{StageKind, StageState};
use e2e::{leftovers, push_base_images};
use serde_json::Value;
use testkit::{Service, program, wait_for};

/// A farm that `slipway up` runs.
struct Up {
    service: Service,
    place: Value,
}

impl Up {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(program("slipway").unwrap());
        command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        // Of a farm that was killed.
        let _ = std::fs::remove_file(data.join("farm.json"));
        let mut service = Service::start("up", &command, data.parent().unwrap()).unwrap();
        let place = wait_for("the farm", Duration::from_secs(90), || {
            assert!(service.is_running(), "{}", service.log());
            let text = std::fs::read_to_string(data.join("farm.json")).ok()?;
            serde_json::from_str(&text).ok()
        });
        Self { service, place: place.unwrap() }
    }

    fn slipway(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("slipway").unwrap());
        command.env("SLIPWAY_SERVER", self.place["server"].as_str().unwrap());
        command.env("SLIPWAY_TOKEN", self.place["token"].as_str().unwrap());
        command.args(arguments).output().unwrap()
    }

    fn build(&self, context: &Path) -> BuildView {
        let context = context.to_str().unwrap();
        let output = self.slipway(&["build", "--progress", "plain", context]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown = self.slipway(&["show", "last", "--json"]);
        serde_json::from_slice(&shown.stdout).unwrap()
    }
}

#[test]
fn a_farm_in_one_command_builds_and_remembers_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let data = directory.path().join("data");
    let mut up = Up::start(&data);
    let registry = up.place["registry"].as_str().unwrap().to_owned();
    push_base_images(&registry).unwrap();
    let context = directory.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let dockerfile = format!(
        "FROM {registry}/library/alpine AS maker\nRUN echo made > /made\n\
         FROM {registry}/library/alpine\nCOPY --from=maker /made /\nRUN test -s /made\n"
    );
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let first = up.build(&context);
    assert!(first.stages.iter().all(|stage| stage.state == StageState::Succeeded), "{first:?}");

    // A second one on the same data is refused, and says where the first one is.
    let mut second = Command::new(program("slipway").unwrap());
    second.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let refused = second.output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains(up.place["server"].as_str().unwrap()), "{message}");

    assert!(up.service.stop().unwrap().success(), "{}", up.service.log());
    assert_eq!(leftovers(&data).unwrap(), Vec::<String>::new());
    assert!(!data.join("farm.json").exists());

    let mut up = Up::start(&data);
    assert_eq!(up.place["registry"], registry, "the registry has moved");
    let again = up.build(&context);
    for stage in again.stages.iter().filter(|stage| stage.kind == StageKind::Stage) {
        assert_eq!(stage.attempts, 0, "{stage:?}");
    }
    // Killed without warning, nothing of it goes on.
    up.service.kill().unwrap();
    let gone = || leftovers(&data).is_ok_and(|left| left.is_empty()).then_some(());
    wait_for("the end of all its processes", Duration::from_secs(20), gone).unwrap();
    let mut up = Up::start(&data);
    assert!(up.service.stop().unwrap().success());
}
