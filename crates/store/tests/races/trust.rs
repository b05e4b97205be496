//! Untrusted builds use what trusted ones have made, and never the other way round.

use common::cache_key::content_key;
use common::plan::SliceSelector;
use common::{Digest, Domain};
use store::{
    BuildOrder, CachedSlice, ContentFound, NewBuild, NewPlan, NewStage, NewStep, ObjectKey,
    ObjectRow, SliceKey, StoreError, Submitted,
};
use uuid::Uuid;

use crate::database::{
    Database, Worker, done, layer, new_build, stage, succeeded, trusted, untrusted,
};

fn shared(name: &str) -> NewStage {
    NewStage { key: Some(key(name)), may_attach: true, ..stage(name, 0) }
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn slice(name: &str) -> CachedSlice {
    CachedSlice {
        selector: SliceSelector::new(vec!["/x".to_owned()]),
        manifest: key(name),
        inline_manifest: None,
        files: 1,
        content_bytes: 1,
        stored_bytes: 1,
        content: None,
    }
}

/// Runs a claimed stage to its end: its layer and its slice are named after `made`.
async fn run(database: &Database, stage: &NewStage, worker: Worker, made: &str) {
    let lease = database.claim(stage.id, worker).await.unwrap();
    let (store, layer) = (&database.store, layer(made));
    store.report_steps(lease, &[done(Some(&layer))]).await.unwrap();
    let manifest = ObjectKey { kind: "manifest", digest: key(made) };
    let objects = [ObjectRow { key: manifest, size_bytes: 1 }];
    store.report_slice(lease, key(&stage.label), &slice(made), &objects).await.unwrap();
    store.finish_stages(&[succeeded(lease)]).await.unwrap();
}

/// What the cache of a domain has under a name: of which run the layer is, and the slice.
async fn cached(
    database: &Database,
    domain: &Domain,
    name: &str,
) -> (Option<Digest>, Option<Digest>) {
    let (store, key) = (&database.store, key(name));
    let layers = store.find_layers(domain, &[key]).await.unwrap();
    let slices = store.find_slices(domain, &[key]).await.unwrap();
    let slice = SliceKey { stage_key: key, selector: slice("").selector.digest() };
    (layers.get(&key).map(|layer| layer.blob), slices.get(&slice).map(|slice| slice.manifest))
}

#[tokio::test]
async fn what_untrusted_builds_store_is_for_them_alone() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let stranger = shared("step");
    database.plan_untrusted(vec![stranger.clone()]).await;
    run(&database, &stranger, worker, "strange").await;
    let strange = (Some(layer("strange").blob), Some(key("strange")));
    assert_eq!(cached(&database, &untrusted(), "step").await, strange);
    assert_eq!(cached(&database, &trusted(), "step").await, (None, None));

    // The project's own, once it is there, goes before the strangers'.
    let own = shared("step");
    database.plan(vec![own.clone()], Vec::new()).await;
    run(&database, &own, worker, "own").await;
    let mine = (Some(layer("own").blob), Some(key("own")));
    assert_eq!(cached(&database, &trusted(), "step").await, mine);
    assert_eq!(cached(&database, &untrusted(), "step").await, mine);
}

#[tokio::test]
async fn nobody_waits_for_what_an_untrusted_build_runs_but_another_one() {
    let database = Database::start().await;
    let stranger = database.plan_untrusted(vec![shared("step")]).await;
    let own = database.plan(vec![shared("step")], Vec::new()).await;
    let other = database.plan_untrusted(vec![shared("step")]).await;
    assert_eq!(database.states(stranger).await, ["ready"]);
    assert_eq!(database.states(own).await, ["ready"]);
    assert_eq!(database.states(other).await, ["attached"]);
    let store = &database.store;
    assert_eq!(store.running_keys(&trusted(), &[key("step")]).await.unwrap().len(), 1);

    let own = database.plan(vec![shared("else")], Vec::new()).await;
    let stranger = database.plan_untrusted(vec![shared("else")]).await;
    assert_eq!(database.states(own).await, ["ready"]);
    assert_eq!(database.states(stranger).await, ["attached"]);
}

#[tokio::test]
async fn what_an_untrusted_build_finds_by_content_is_recorded_for_its_kind() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    // Something of the project's own, under the key that the content gives.
    let content = content_key(&key("parent"), &[], &[]);
    let own = NewStage { steps: vec![], ..shared("own") };
    let step = NewStep { key: content, ..stage("own", 0).steps.remove(0) };
    let own = NewStage { steps: vec![step], ..own };
    database.plan(vec![own.clone()], Vec::new()).await;
    run(&database, &own, worker, "own").await;

    let stranger = shared("step");
    database.plan_untrusted(vec![stranger.clone()]).await;
    let lease = database.claim(stranger.id, worker).await.unwrap();
    let facts = database.store.content_facts(lease).await.unwrap();
    assert_eq!(facts.domain, untrusted());
    let found = database.store.find_layers(&facts.domain, &[content]).await.unwrap();
    let found = ContentFound {
        keys: vec![(2, content)],
        hits: vec![(2, key("step"), found[&content].clone())],
        slices: Some((key("step"), key("own"), vec![slice("own").selector])),
    };
    let made = database.store.save_found(lease, &found).await.unwrap();
    assert_eq!(made, [slice("own").selector]);
    let known = (Some(layer("own").blob), Some(key("own")));
    assert_eq!(cached(&database, &untrusted(), "step").await, known);
    assert_eq!(cached(&database, &trusted(), "step").await, (None, None));
}

#[tokio::test]
async fn a_plan_is_old_by_what_its_domain_sees_alone() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let stranger = shared("step");
    database.plan_untrusted(vec![stranger.clone()]).await;
    run(&database, &stranger, worker, "strange").await;
    database.try_plan(vec![shared("step")], vec![key("step")]).await.unwrap();
    let planner = Uuid::new_v4();
    let new = NewBuild { domain: untrusted(), ..new_build(None) };
    database.store.submit_build(&new).await.unwrap();
    let claimed = database.store.claim_build(planner).await.unwrap().unwrap();
    let plan = NewPlan {
        context: None,
        inputs: Vec::new(),
        stages: vec![shared("step")],
        edges: Vec::new(),
        warnings: Vec::new(),
        first_keys: vec![key("step")],
    };
    let saved = database.store.save_plan(new.id, &claimed.domain, planner, &plan).await;
    assert!(matches!(saved, Err(StoreError::PlanIsOld)), "{saved:?}");
}

#[tokio::test]
async fn an_untrusted_build_supersedes_its_kind_alone() {
    let database = Database::start().await;
    let submit = async |domain: Domain| {
        let order = BuildOrder { supersede_key: Some("main".into()), ..BuildOrder::default() };
        let new = NewBuild { domain, order, ..new_build(None) };
        match database.store.submit_build(&new).await.unwrap() {
            Submitted::New(build) => build,
            Submitted::Existing(_) => panic!("a build without a key exists"),
        }
    };
    let own = submit(trusted()).await;
    let stranger = submit(untrusted()).await;
    assert_eq!(database.state(own).await, "queued");
    submit(untrusted()).await;
    assert_eq!(database.state(stranger).await, "superseded");
    assert_eq!(database.state(own).await, "queued");
    submit(trusted()).await;
    assert_eq!(database.state(own).await, "superseded");
}
