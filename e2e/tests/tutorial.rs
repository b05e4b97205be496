//! The multi-stage tutorial, on a farm.

use common::build::BuildState;
use common::stage::{StageKind, StageState};
use e2e::{Farm, FarmOptions, Image, run_image, source_root};

#[test]
fn the_tutorial_is_built_on_two_workers_and_runs() {
    let farm = Farm::start(FarmOptions::default()).unwrap();
    let example = source_root().join("examples/named");
    let name = format!("{}/hello:1", farm.registry());
    let build = || {
        let metadata = farm.directory().join("metadata.json");
        let mut command = farm.command().unwrap();
        command.args(["build", "--progress", "plain", "--push", "-t", &name, "--metadata-file"]);
        let output = command.arg(&metadata).arg(&example).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = std::fs::read(metadata).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };

    let metadata = build();
    // Its layers are on their way when the image is done already.
    let view = farm
        .wait_for_build("the builder's layers", |view| {
            view.stages.iter().all(|stage| stage.state == StageState::Succeeded)
        })
        .unwrap();
    assert_eq!(view.state, BuildState::Succeeded);
    let [builder, last, export] = &view.stages[..] else { panic!("{view:?}") };
    assert_eq!((builder.label.as_str(), last.label.as_str()), ("builder", "stage-1"));
    assert_eq!(export.kind, StageKind::Export);
    assert_ne!(builder.worker, last.worker, "both stages ran on one worker");

    // What one stage copied from the other went through the object store, and only that.
    let [transfer] = &last.transfers[..] else { panic!("{last:?}") };
    assert_eq!(transfer.paths, ["/go/src/example.com/hello/app"]);
    assert_eq!(transfer.files, 1);
    assert!(transfer.transferred_bytes > 100_000, "{transfer:?}");
    assert!(transfer.transferred_bytes < transfer.content_bytes * 12 / 10, "{transfer:?}");

    // The digest that was reported is the one that others see, and the image runs.
    let image = Image::inspect(&name).unwrap();
    assert_eq!(metadata["containerimage.digest"], image.digest.as_str());
    assert_eq!(view.exports[0].digest.to_string(), image.digest);
    assert_eq!(image.layers, 3);
    let scratch = tempfile::tempdir_in(farm.directory()).unwrap();
    assert_eq!(run_image(&name, scratch.path()).unwrap(), "hello from a farm, linux\n");

    // Again: nothing runs, and the image is the same one.
    let again = build();
    assert_eq!(again["containerimage.digest"], metadata["containerimage.digest"]);
    let view = farm.last_build().unwrap();
    for stage in view.stages.iter().filter(|stage| stage.kind == StageKind::Stage) {
        assert_eq!(stage.attempts, 0, "{stage:?}");
        let is_known = matches!(stage.state, StageState::Cached | StageState::Skipped);
        assert!(is_known || stage.attached_to.is_some(), "{stage:?}");
    }

    // The other examples.
    for arguments in
        [&["--target", "builder", "examples/named"][..], &["examples/index"], &["examples/image"]]
    {
        let mut command = farm.command().unwrap();
        command.current_dir(source_root()).args(["build", "--progress", "plain"]);
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
