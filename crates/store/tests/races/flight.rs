//! Stages with the same key run once, and builds end with their steps.

use common::outcome::FailureClass;
use common::plan::SliceSelector;
use common::stage::StageKind;
use common::{Digest, SessionId};
use store::{CachedSlice, NewStage, Outcome, StoreError};
use uuid::Uuid;

use crate::database::{
    Database, Worker, base_edge, done, failed, finished, layer, spent, stage, succeeded, trusted,
};

/// A stage that others may share.
fn shared(name: &str, bases_missing: u32) -> NewStage {
    let key = Some(Digest::of(name.as_bytes()));
    NewStage { key, may_attach: true, ..stage(name, bases_missing) }
}

/// One that only tells the digest of another.
fn answer(of: &NewStage) -> (NewStage, store::NewEdge) {
    let export = NewStage {
        kind: StageKind::Export,
        is_goal: false,
        steps: Vec::new(),
        ..stage("export", 1)
    };
    let edge = base_edge(&export, of);
    (export, edge)
}

fn slice(path: &str) -> CachedSlice {
    CachedSlice {
        selector: SliceSelector::new(vec![path.to_owned()]),
        manifest: Digest::of(path.as_bytes()),
        inline_manifest: None,
        files: 1,
        content_bytes: 1,
        stored_bytes: 1,
        content: None,
    }
}

#[tokio::test]
async fn the_same_stage_of_two_builds_runs_once_and_both_end_alike() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (first, second) = (shared("same", 0), shared("same", 0));
    let (id, follower) = (first.id, second.id);
    let one = database.plan(vec![first], Vec::new()).await;
    let child = stage("child", 1);
    let edges = vec![base_edge(&child, &second)];
    let two = database.plan(vec![second, child], edges).await;
    assert_eq!(database.states(two).await, ["attached", "waiting"]);
    assert!(database.claim(follower, worker).await.is_none(), "an attached stage was claimed");

    let lease = database.claim(id, worker).await.unwrap();
    let told =
        database.store.report_slice(lease, Digest::of(b"same"), &slice("/x"), &[]).await.unwrap();
    assert_eq!(told, [one, two]);
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.state(one).await, "succeeded");
    assert_eq!(database.states(two).await, ["succeeded", "ready"]);
    let view = &database.store.build_stages(two).await.unwrap()[0];
    assert_eq!(view.attached_to, Some((id, one)));
    assert_eq!(view.worker.as_deref(), Some("one"));

    // A third one that comes now finds nobody at it.
    let third = database.plan(vec![shared("same", 0)], Vec::new()).await;
    assert_eq!(database.states(third).await, ["ready"]);
}

#[tokio::test]
async fn of_builds_that_are_planned_at_once_one_runs_the_stage() {
    let database = Database::start().await;
    let plans = (0..6).map(|_| database.plan_alone(vec![shared("same", 0)]));
    let builds = futures_util::future::join_all(plans).await;
    let mut states = Vec::new();
    for build in builds {
        states.extend(database.states(build).await);
    }
    states.sort();
    assert_eq!(states, ["attached", "attached", "attached", "attached", "attached", "ready"]);
}

#[tokio::test]
async fn a_failure_is_everybodys() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (first, second) = (shared("same", 0), shared("same", 0));
    let id = first.id;
    let one = database.plan(vec![first], Vec::new()).await;
    let two = database.plan(vec![second, stage("other", 0)], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    database.store.finish_stage(&failed(lease, FailureClass::User, false)).await.unwrap();
    assert_eq!(database.state(one).await, "failed");
    assert_eq!(database.state(two).await, "failed");
    assert_eq!(database.states(two).await, ["failed", "cancelled"]);
}

#[tokio::test]
async fn the_cancel_of_one_build_never_ends_the_run_of_another() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    // What is shared starts from a stage that the other build found done or runs itself.
    let (base, first) = (stage("base", 0), shared("same", 1));
    let second = shared("same", 0);
    let (base_id, id) = (base.id, first.id);
    let edges = vec![base_edge(&first, &base)];
    let unrelated = stage("unrelated", 0);
    let one = database.plan(vec![base, first, unrelated], edges).await;
    let two = database.plan(vec![second], Vec::new()).await;
    let failure = common::Failure::new(FailureClass::Cancelled, "cancelled", "enough");
    assert!(database.store.cancel_build(one, &failure).await.unwrap());
    assert_eq!(database.states(one).await, ["ready", "waiting", "cancelled"]);

    // It even survives the loss of its worker.
    let lost = database.claim(base_id, worker).await.unwrap();
    let worker = Worker { session: SessionId(Uuid::new_v4()), ..worker };
    database.sync(worker, &[]).await;
    let lease = database.claim(base_id, worker).await.unwrap();
    let late = database.store.finish_stage(&succeeded(lost)).await;
    assert!(matches!(late, Err(StoreError::StaleLease)), "{late:?}");
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    let lease = database.claim(id, worker).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.state(one).await, "cancelled");
    assert_eq!(database.state(two).await, "succeeded");
}

#[tokio::test]
async fn what_is_kept_for_others_and_fails_ends_them() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (base, first) = (stage("base", 0), shared("same", 1));
    let base_id = base.id;
    let edges = vec![base_edge(&first, &base)];
    let one = database.plan(vec![base, first], edges).await;
    let two = database.plan(vec![shared("same", 0)], Vec::new()).await;
    let failure = common::Failure::new(FailureClass::Cancelled, "cancelled", "enough");
    database.store.cancel_build(one, &failure).await.unwrap();
    let lease = database.claim(base_id, worker).await.unwrap();
    database.store.finish_stage(&failed(lease, FailureClass::User, false)).await.unwrap();
    assert_eq!(database.state(two).await, "failed");
    assert_eq!(database.states(one).await, ["failed", "cancelled"]);
}

#[tokio::test]
async fn a_slice_that_the_leader_was_not_asked_for_is_made_afterwards() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let first = shared("same", 0);
    let wanted = vec![slice("/y").selector];
    let second = NewStage { make_slices: wanted.clone(), ..shared("same", 0) };
    let third = NewStage { make_slices: wanted, ..shared("same", 0) };
    let (id, late) = (first.id, third.id);
    database.plan(vec![first], Vec::new()).await;
    // In time: the leader is asked for it before it begins.
    let two = database.plan(vec![second], Vec::new()).await;
    assert_eq!(database.store.stage_job(id).await.unwrap().make_slices.len(), 1);
    let lease = database.claim(id, worker).await.unwrap();
    let three = database.plan(vec![third], Vec::new()).await;
    database.store.report_slice(lease, Digest::of(b"same"), &slice("/y"), &[]).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.states(two).await, ["succeeded"]);
    assert_eq!(database.states(three).await, ["succeeded"]);

    // Too late: another path, while the leader runs.
    let leader = shared("next", 0);
    let other = vec![slice("/z").selector];
    let follower = NewStage { make_slices: other, ..shared("next", 0) };
    let (leader_id, follower_id) = (leader.id, follower.id);
    database.plan(vec![leader], Vec::new()).await;
    let lease = database.claim(leader_id, worker).await.unwrap();
    let build = database.plan(vec![follower], Vec::new()).await;
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.states(build).await, ["ready"]);
    let job = database.store.stage_job(follower_id).await.unwrap();
    assert_eq!(job.base_layers, Some(vec![layer("result")]));
    assert!(job.first_step > 2, "its steps would run again");
    assert!(database.store.stage_job(late).await.unwrap().first_step == 2);
}

#[tokio::test]
async fn a_build_that_makes_nothing_ends_with_its_last_step() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let only = shared("only", 0);
    let id = only.id;
    let (export, edge) = answer(&only);
    let export_id = export.id;
    let build = database.plan(vec![only, export], vec![edge]).await;
    let lease = database.claim(id, worker).await.unwrap();
    assert_eq!(database.store.stage_done(lease, &spent()).await.unwrap(), [build]);
    assert_eq!(database.state(build).await, "succeeded");
    assert_eq!(database.states(build).await, ["running", "waiting"]);

    // One that comes now has its result at once, and the digest with it.
    let again = shared("only", 0);
    let (other, edge) = answer(&again);
    let other_id = other.id;
    let second = database.plan(vec![again, other], vec![edge]).await;
    assert_eq!(database.state(second).await, "succeeded");
    assert_eq!(database.states(second).await, ["attached", "waiting"]);

    // Nobody is told to drop what is being stored.
    let told = database.sync(worker, &[lease]).await;
    assert!(told.dropped.is_empty() && told.stale.is_empty(), "{told:?}");
    let ended = database.store.finish_stages(&[succeeded(lease)]).await.unwrap();
    let ready = ended.exports;
    assert_eq!(database.states(build).await, ["succeeded", "ready"]);
    assert_eq!(ready.len(), 2);
    assert!(ready.contains(&export_id) && ready.contains(&other_id));
    assert!(database.store.finish_export(export_id, &[]).await.unwrap());
    assert!(!database.store.finish_export(export_id, &[]).await.unwrap(), "it ended twice");
    assert_eq!(database.states(build).await, ["succeeded", "succeeded"]);
}

#[tokio::test]
async fn layers_that_are_lost_on_their_way_leave_a_finished_build_alone() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let only = stage("only", 0);
    let id = only.id;
    let (export, edge) = answer(&only);
    let build = database.plan(vec![only, export], vec![edge]).await;
    let lease = database.claim(id, worker).await.unwrap();
    database.store.stage_done(lease, &spent()).await.unwrap();
    let restarted = Worker { session: SessionId(Uuid::new_v4()), ..worker };
    database.sync(restarted, &[]).await;
    assert_eq!(database.state(build).await, "succeeded");
    assert_eq!(database.states(build).await, ["succeeded", "skipped"]);
}

#[tokio::test]
async fn layers_that_are_lost_while_others_need_them_are_made_again() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (base, child) = (stage("base", 0), stage("child", 1));
    let (id, child_id) = (base.id, child.id);
    let edges = vec![base_edge(&child, &base)];
    let build = database.plan(vec![base, child], edges).await;
    let lease = database.claim(id, worker).await.unwrap();
    database.store.stage_done(lease, &spent()).await.unwrap();
    assert_eq!(database.states(build).await, ["running", "ready"]);
    let handed = finished(lease, Outcome::HandedBack);
    database.store.finish_stage(&handed).await.unwrap();
    assert_eq!(database.states(build).await, ["ready", "waiting"]);
    let lease = database.claim(id, worker).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.states(build).await, ["succeeded", "ready"]);
    // Now anybody may go on.
    let other = database.worker("other").await;
    assert!(database.claim(child_id, other).await.is_some());
}

#[tokio::test]
async fn what_starts_from_a_stage_goes_on_where_that_is_unpacked() {
    let database = Database::start().await;
    let (here, there) = (database.worker("here").await, database.worker("there").await);
    let (base, child) = (stage("base", 0), stage("child", 1));
    let (id, child_id) = (base.id, child.id);
    let edges = vec![base_edge(&child, &base)];
    let build = database.plan(vec![base, child], edges).await;
    let lease = database.claim(id, here).await.unwrap();
    database.store.stage_done(lease, &spent()).await.unwrap();
    let host = store::OfferRow {
        platforms: vec![common::Platform::host().to_string()],
        labels: Vec::new(),
        cpu_millis: 0,
        memory_bytes: 0,
    };
    assert!(database.store.ready_stages(&host, &[there.id], 1).await.unwrap().is_empty());
    assert_eq!(database.store.ready_stages(&host, &[here.id], 1).await.unwrap().len(), 1);
    assert!(database.claim(child_id, there).await.is_none(), "its base is elsewhere");
    let second = database.claim(child_id, here).await.unwrap();
    assert_eq!(database.store.stage_job(child_id).await.unwrap().unstored_base, Some(id));
    // Whichever is stored first.
    database.store.finish_stage(&succeeded(second)).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.states(build).await, ["succeeded", "succeeded"]);
}

#[tokio::test]
async fn with_the_worker_goes_what_had_started_from_its_unpacked_layers() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (base, child) = (stage("base", 0), stage("child", 1));
    let (id, child_id) = (base.id, child.id);
    let edges = vec![base_edge(&child, &base)];
    let build = database.plan(vec![base, child], edges).await;
    let lease = database.claim(id, worker).await.unwrap();
    database.store.stage_done(lease, &spent()).await.unwrap();
    database.claim(child_id, worker).await.unwrap();
    let restarted = Worker { session: SessionId(Uuid::new_v4()), ..worker };
    database.sync(restarted, &[]).await;
    assert_eq!(database.states(build).await, ["ready", "waiting"]);
}

#[tokio::test]
async fn a_plan_is_old_when_the_cache_has_got_what_it_would_run() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let first = shared("same", 0);
    let id = first.id;
    database.plan(vec![first], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    let key = Digest::of(b"same");
    database.store.report_steps(lease, &[done(None)]).await.unwrap();
    assert_eq!(database.store.unsettled_keys(&trusted(), &[key]).await.unwrap(), [key]);
    assert_eq!(database.store.running_keys(&trusted(), &[key]).await.unwrap(), [key]);
    let layer = layer("made");
    database.store.report_steps(lease, &[done(Some(&layer))]).await.unwrap();
    assert_eq!(database.store.unsettled_keys(&trusted(), &[key]).await.unwrap(), []);
    let saved = database.try_plan(vec![shared("same", 0)], vec![key]).await;
    assert!(matches!(saved, Err(StoreError::PlanIsOld)), "{saved:?}");
}

#[tokio::test]
async fn a_build_that_misses_something_is_planned_again_unless_others_wait_for_it() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let first = shared("only", 0);
    let id = first.id;
    let build = database.plan(vec![first], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    let other = database.plan(vec![shared("only", 0)], Vec::new()).await;
    assert_eq!(database.states(other).await, ["attached"]);
    assert!(!database.store.plan_again(build).await.unwrap(), "another build waits for its stage");
    // The one that waits has nothing that anybody waits for.
    assert!(database.store.plan_again(other).await.unwrap());
    assert_eq!(database.state(other).await, "queued");
    assert!(database.states(other).await.is_empty());
    assert!(!database.store.plan_again(other).await.unwrap(), "it does not run");

    assert!(database.store.plan_again(build).await.unwrap());
    let told = database.sync(worker, &[lease]).await;
    assert_eq!(told.stale, [lease], "its holder is to drop it");
    assert!(matches!(
        database.store.finish_stages(&[succeeded(lease)]).await.unwrap().results[..],
        [Err(StoreError::StaleLease)]
    ));
}
