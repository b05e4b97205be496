//! One build for several platforms, without emulation: what runs, runs on the workers' own.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use common::stage::{StageKind, StageState};
use e2e::{Farm, FarmOptions};
use serde_json::Value;

const DOCKERFILE: &str = "FROM --platform=$BUILDPLATFORM alpine AS tools\nRUN echo tool > /tool\n\
                          FROM --platform=$BUILDPLATFORM alpine AS build\nARG TARGETARCH\n\
                          COPY --from=tools /tool /\nRUN echo \"app for $TARGETARCH\" > /app\n\
                          FROM scratch\nCOPY --from=build /app /app\nENTRYPOINT [\"/app\"]\n";

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn stages_that_do_not_ask_for_the_target_run_once_for_all_platforms() {
    let farm = Farm::start(FarmOptions::default()).unwrap();
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), DOCKERFILE).unwrap();
    let archive = farm.directory().join("multi.tar");
    let name = format!("{}/multi:1", farm.registry());
    let image = format!("type=image,name={name},push=true");
    let oci = format!("type=oci,dest={}", archive.display());
    let path = context.path().to_str().unwrap();
    let platforms = "linux/amd64,linux/arm64/v8";
    let arguments =
        ["build", "--progress", "plain", "--platform", platforms, "-o", &image, "-o", &oci, path];
    let ran = farm.slipway(arguments).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let view = farm.last_build().unwrap();
    let mut labels: Vec<&str> = view
        .stages
        .iter()
        .filter(|stage| stage.kind == StageKind::Stage && stage.state == StageState::Succeeded)
        .map(|stage| stage.label.as_str())
        .collect();
    labels.sort_unstable();
    let expected = ["build", "build (linux/arm64)", "stage-2", "stage-2 (linux/arm64)", "tools"];
    assert_eq!(labels, expected);

    // A registry serves each platform its own image.
    let index: Value = serde_json::from_slice(&skopeo(&[
        "inspect",
        "--tls-verify=false",
        "--raw",
        &format!("docker://{name}"),
    ]))
    .unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(view.exports[0].digest.to_string().len(), 71);
    for architecture in ["amd64", "arm64"] {
        let layout = farm.directory().join(format!("oci-{architecture}"));
        let place = format!("oci:{}:x", layout.display());
        let source = format!("docker://{name}");
        skopeo(&[
            "--override-arch",
            architecture,
            "copy",
            "--src-tls-verify=false",
            &source,
            &place,
        ]);
        let config: Value =
            serde_json::from_slice(&skopeo(&["inspect", "--config", &place])).unwrap();
        assert_eq!(config["architecture"], architecture);
        // The archive has the same images.
        let source = format!("oci-archive:{}", archive.display());
        let other = format!("oci:{}-2:x", layout.display());
        skopeo(&["--override-arch", architecture, "copy", &source, &other]);
        let again: Value =
            serde_json::from_slice(&skopeo(&["inspect", "--config", &other])).unwrap();
        assert_eq!(config, again);
    }

    // Commands for another platform have nowhere to run.
    let text = "FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n";
    std::fs::write(context.path().join("Dockerfile"), text).unwrap();
    let ran = farm.slipway(["build", "--platform", "linux/riscv64", path]).unwrap();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no worker runs commands for linux/riscv64"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Dockerfile:3"), "{}", ran.stderr);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
