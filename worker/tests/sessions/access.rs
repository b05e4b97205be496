//! One copy of a layer is for all projects that may have it, and for no other.

use api::worker::v1::{ObjectKind, StageOutcome};
use common::image::{Layer, LayerOrigin};
use common::{Lease, ProjectName};

use crate::coordinator::{Coordinator, object_path};
use crate::jobs::{Worker, add_layer, base, stage};

/// Reads a file of the layers for a project.
fn read(coordinator: &Coordinator, project: &ProjectName, layers: &[Layer]) -> Lease {
    let mut assignment = stage(layers).run("cat /out/a").assignment();
    assignment.project = project.clone();
    let lease = assignment.lease;
    coordinator.change(|state| state.ready.push_back(assignment));
    lease
}

#[tokio::test]
async fn who_knows_a_digest_of_another_projects_layer_has_not_the_layer() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let made = stage(std::slice::from_ref(&base)).run("echo what it says > /out/a");
    let made = coordinator.result(made.submit(&coordinator)).await;
    let StageOutcome::Succeeded { layers, .. } = made.outcome else { panic!("{made:?}") };
    let secret = &layers[1];
    let place = object_path(ObjectKind::Blob, &secret.blob);
    let blob = coordinator.state().objects.remove(&place).unwrap();
    let [own, other] = ["default", "other"].map(|name| name.parse::<ProjectName>().unwrap());

    // Whoever made it needs no store for it.
    let lease = read(&coordinator, &own, &layers);
    let result = coordinator.result(lease).await;
    assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
    assert!(coordinator.lines(lease).contains(&(2, "what it says".to_owned())));

    // An image that claims the content, with a blob of its own, and one that claims the blob.
    let nothing = tempfile::tempdir().unwrap();
    let junk = add_layer(&coordinator, nothing.path());
    let content = Layer { diff_id: secret.diff_id, origin: LayerOrigin::Brought, ..junk };
    let named = Layer { origin: LayerOrigin::Brought, ..secret.clone() };
    for claimed in [content, named, secret.clone()] {
        let lease = read(&coordinator, &other, &[base.clone(), claimed.clone()]);
        let result = coordinator.result(lease).await;
        assert!(matches!(result.outcome, StageOutcome::Failed { .. }), "{claimed:?}: {result:?}");
        assert!(!coordinator.lines(lease).iter().any(|(_, text)| text.contains("what it says")));
    }

    // Who can fetch it may have it.
    coordinator.put_object(ObjectKind::Blob, &secret.blob, blob);
    let lease = read(&coordinator, &other, &layers);
    let result = coordinator.result(lease).await;
    assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
    coordinator.state().objects.remove(&place).unwrap();
    let lease = read(&coordinator, &other, &layers);
    let result = coordinator.result(lease).await;
    assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
    worker.stop().await;
}
