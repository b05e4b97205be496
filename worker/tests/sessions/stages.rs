//! Stages when all goes well, and when the Dockerfile is wrong.

use api::worker::v1::{ObjectKind, StageOutcome, StepState};
use common::{Digest, FailureClass};

use crate::coordinator::{Coordinator, object_path, slice_input};
use crate::jobs::{Worker, base, stage};

#[tokio::test]
async fn what_a_stage_made_is_stored_before_it_is_reported() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(std::slice::from_ref(&base))
        .run("echo one; echo x > /out/a")
        .run("echo two >&2; cat /out/a > /out/b")
        .slice("/out/b")
        .submit(&coordinator);
    let result = coordinator.result(lease).await;
    let StageOutcome::Succeeded { layers, .. } = &result.outcome else { panic!("{result:?}") };
    assert_eq!((layers.len(), &layers[0]), (3, &base));
    {
        let state = coordinator.state();
        for layer in &layers[1..] {
            let blob = &state.objects[&object_path(ObjectKind::Blob, &layer.blob)];
            assert_eq!((Digest::of(blob), blob.len() as u64), (layer.blob, layer.size_bytes));
        }
        let slice = &state.slices[0];
        assert_eq!((slice.files, slice.content_bytes), (1, 2));
        assert!(state.objects.contains_key(&object_path(ObjectKind::Manifest, &slice.manifest)));
        for number in [2, 3] {
            let of_step = state.steps.iter().filter(|report| report.number == number);
            let states: Vec<_> = of_step.map(|report| report.state).collect();
            // Of what a step has to say between two calls the newest is said.
            let order = [StepState::Running, StepState::Done, StepState::Stored];
            let places = states.iter().map(|state| order.iter().position(|one| one == state));
            assert!(places.is_sorted_by(|one, other| one < other), "{states:?}");
            assert_eq!(states.last(), Some(&StepState::Stored));
        }
        let stored = state.steps.iter().filter_map(|report| report.layer.as_ref());
        assert!(stored.eq(&layers[1..]));
    }
    let lines = coordinator.lines(lease);
    let text: Vec<_> = lines.iter().map(|(step, text)| (*step, text.as_str())).collect();
    assert!(text.contains(&(2, "one")) && text.contains(&(3, "two")), "{text:?}");
    assert!(result.uploaded_bytes > 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_slice_is_read_in_place_where_it_was_made_and_through_the_store_elsewhere() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let here = Worker::start(&coordinator, 1);
    let producer = stage(std::slice::from_ref(&base))
        .run("seq 1 5000 > /out/wanted; seq 1 100000 > /out/not")
        .slice("/out/wanted")
        .submit(&coordinator);
    coordinator.result(producer).await;
    let consumer = || {
        let mut stage = stage(std::slice::from_ref(&base));
        stage.job.inputs = vec![slice_input(&coordinator.state().slices[0])];
        stage
            .copy_from(producer, "/out/wanted", "/got")
            .run("cat /got > /dev/null; ! test -e /out/not")
    };
    let near = consumer().submit(&coordinator);
    let near = coordinator.result(near).await;
    here.stop().await;
    let there = Worker::start(&coordinator, 1);
    let far = consumer().submit(&coordinator);
    let far = coordinator.result(far).await;
    let transferred = |result: &api::worker::v1::ResultReport| {
        assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
        result.slices_read[0].transferred_bytes
    };
    assert_eq!(transferred(&near), 0);
    let wanted = 23_893;
    assert!((1..wanted).contains(&transferred(&far)), "{}", transferred(&far));
    assert_eq!(far.slices_read[0].content_bytes, wanted);
    // The same files make the same layer, wherever they come from.
    let layers = |result: api::worker::v1::ResultReport| match result.outcome {
        StageOutcome::Succeeded { layers, .. } => layers[1].diff_id,
        _ => Digest::of(b""),
    };
    assert_eq!(layers(near), layers(far));
    there.stop().await;
}

#[tokio::test]
async fn a_command_that_fails_is_told_with_place_code_and_output() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base]).run("true").run("echo why it failed; exit 7").submit(&coordinator);
    let result = coordinator.result(lease).await;
    let StageOutcome::Failed { failure, step } = result.outcome else { panic!("{result:?}") };
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::User, "run-exit-code"));
    assert_eq!((failure.exit_code, step), (Some(7), Some(3)));
    assert_eq!(failure.file.as_deref(), Some("Dockerfile"));
    assert_eq!(failure.lines.map(|lines| lines.start), Some(3));
    assert!(failure.message.contains("exit code: 7"), "{failure}");
    let lines = coordinator.lines(lease);
    assert!(lines.contains(&(3, "why it failed".to_owned())), "{lines:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_file_that_the_producer_never_made_is_named() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 2);
    let producer = stage(std::slice::from_ref(&base)).run("true").slice("/out/app");
    let consumer = stage(&[base]).copy_from(producer.lease, "/out/app", "/app");
    let consumer = consumer.submit(&coordinator);
    producer.submit(&coordinator);
    let result = coordinator.result(consumer).await;
    let StageOutcome::Failed { failure, .. } = result.outcome else { panic!("{result:?}") };
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::User, "missing-source"));
    assert!(failure.message.contains("/out/app"), "{failure}");
    worker.stop().await;
}

#[tokio::test]
async fn every_log_line_arrives_however_short_and_many_they_are() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base]).run("yes '' | head -n 20000; echo end").submit(&coordinator);
    let result = coordinator.result(lease).await;
    assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
    assert_eq!(coordinator.state().refused_bodies, 0);
    let lines = coordinator.lines(lease);
    let empty = lines.iter().filter(|(step, text)| *step == 2 && text.is_empty()).count();
    assert_eq!((empty, lines.last().map(|(_, text)| text.as_str())), (20_000, Some("end")));
    worker.stop().await;
}
