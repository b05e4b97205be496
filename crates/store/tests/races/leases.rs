//! Claims, losses, results.

use common::image::Layer;
use common::outcome::FailureClass;
use common::{Digest, Epoch, Lease, SessionId};
use futures_util::future::join_all;
use store::{Outcome, Resulted, StoreError};
use uuid::Uuid;

use crate::database::{
    Database, Worker, base_edge, done, failed, finished, layer, stage, succeeded, trusted,
};

#[tokio::test]
async fn of_many_workers_one_gets_a_stage() {
    let database = Database::start().await;
    let stage = stage("wanted", 0);
    let id = stage.id;
    let build = database.plan(vec![stage], Vec::new()).await;
    let workers = join_all((0..8).map(async |n| database.worker(&format!("w{n}")).await)).await;
    let leases = join_all(workers.iter().map(|worker| database.claim(id, *worker))).await;
    let leases: Vec<Lease> = leases.into_iter().flatten().collect();
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0].epoch, Epoch(1));
    assert_eq!(database.states(build).await, ["running"]);
}

#[tokio::test]
async fn late_completion_with_an_old_epoch_changes_nothing() {
    let database = Database::start().await;
    let stage = stage("one", 0);
    let id = stage.id;
    let build = database.plan(vec![stage], Vec::new()).await;
    let (slow, quick) = (database.worker("slow").await, database.worker("quick").await);
    let old = database.claim(id, slow).await.unwrap();
    // The slow one is given up; everybody else has called just now.
    expire_all_but(&database, quick).await;
    let new = database.claim(id, quick).await.unwrap();
    assert_eq!(new.epoch, Epoch(old.epoch.0 + 1));

    let late = database.store.finish_stage(&succeeded(old)).await;
    assert!(matches!(late, Err(StoreError::StaleLease)), "{late:?}");
    let step = database.store.report_steps(old, &[done(Some(&layer("late")))]).await;
    assert!(matches!(step, Err(StoreError::StaleLease)), "{step:?}");
    assert_eq!(database.states(build).await, ["running"]);
    assert_eq!(cached_layer(&database, "one").await, None, "a late layer made a cache record");

    // When it comes back it is told, and the new holder goes on.
    assert_eq!(database.sync(slow, &[old]).await.stale, [old]);
    let result = database.store.finish_stage(&succeeded(new)).await.unwrap();
    assert_eq!(result, Resulted::Recorded(vec![build]));
    assert_eq!(database.state(build).await, "succeeded");
}

#[tokio::test]
async fn the_same_result_twice_counts_once() {
    let database = Database::start().await;
    let (base, child) = (stage("base", 0), stage("child", 1));
    let (id, edges) = (base.id, vec![base_edge(&child, &base)]);
    let build = database.plan(vec![base, child], edges).await;
    let worker = database.worker("one").await;
    let lease = database.claim(id, worker).await.unwrap();
    let (first, second) = (succeeded(lease), succeeded(lease));
    let results =
        tokio::join!(database.store.finish_stage(&first), database.store.finish_stage(&second),);
    let results = [results.0.unwrap(), results.1.unwrap()];
    assert!(results.contains(&Resulted::Recorded(vec![build])), "{results:?}");
    assert!(results.contains(&Resulted::Repeated(build)), "{results:?}");
    assert_eq!(database.states(build).await, ["succeeded", "ready"]);
    let other = database.store.finish_stage(&failed(lease, FailureClass::User, false)).await;
    assert!(matches!(other, Err(StoreError::StaleLease)), "{other:?}");
}

#[tokio::test]
async fn two_bases_that_end_at_once_make_their_child_ready_once() {
    for _ in 0..3 {
        let database = Database::start().await;
        let bases: Vec<_> = (0..6).map(|n| stage(&format!("base-{n}"), 0)).collect();
        let child = stage("child", 6);
        let edges = bases.iter().map(|base| base_edge(&child, base)).collect();
        let ids: Vec<_> = bases.iter().map(|base| base.id).collect();
        let build = database.plan(bases.into_iter().chain([child]).collect(), edges).await;
        let worker = database.worker("one").await;
        let mut leases = Vec::new();
        for id in ids {
            leases.push(database.claim(id, worker).await.unwrap());
        }
        let finish = async |lease: &Lease| database.store.finish_stage(&succeeded(*lease)).await;
        for result in join_all(leases.iter().map(finish)).await {
            assert_eq!(result.unwrap(), Resulted::Recorded(vec![build]));
        }
        assert_eq!(database.states(build).await.last().unwrap(), "ready");
    }
}

#[tokio::test]
async fn whichever_of_its_last_stages_ends_last_ends_the_build() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    for _ in 0..10 {
        let goals: Vec<_> = (0..4).map(|n| stage(&format!("goal-{n}"), 0)).collect();
        let ids: Vec<_> = goals.iter().map(|goal| goal.id).collect();
        let build = database.plan(goals, Vec::new()).await;
        let mut results = Vec::new();
        for id in ids {
            results.push(succeeded(database.claim(id, worker).await.unwrap()));
        }
        let finish = async |result| database.store.finish_stage(result).await.unwrap();
        join_all(results.iter().map(finish)).await;
        assert_eq!(database.state(build).await, "succeeded");
    }
}

#[tokio::test]
async fn results_that_are_stored_together_count_each_for_itself() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let bases = [stage("low", 0), stage("high", 0)];
    let child = stage("child", 2);
    let edges = bases.iter().map(|base| base_edge(&child, base)).collect();
    let [low, high] = [bases[0].id, bases[1].id];
    let build = database.plan(bases.into_iter().chain([child]).collect(), edges).await;
    let other = stage("other", 0);
    let id = other.id;
    let second = database.plan(vec![other], Vec::new()).await;
    let low = database.claim(low, worker).await.unwrap();
    let high = database.claim(high, worker).await.unwrap();
    let other = database.claim(id, worker).await.unwrap();
    let stale = Lease { epoch: Epoch(other.epoch.0 - 1), ..other };
    let all = [low, stale, high, low, other].map(succeeded);
    let done = database.store.finish_stages(&all).await.unwrap();
    let found: Vec<_> = done.results.into_iter().map(Result::ok).collect();
    let recorded = |build| Some(Resulted::Recorded(vec![build]));
    let repeated = Some(Resulted::Repeated(build));
    assert_eq!(found, [recorded(build), None, recorded(build), repeated, recorded(second)]);
    assert_eq!(database.states(build).await, ["succeeded", "succeeded", "ready"]);
    assert_eq!(database.state(second).await, "succeeded");
}

#[tokio::test]
async fn another_run_of_a_worker_gives_back_what_the_old_one_held() {
    let database = Database::start().await;
    let stage = stage("one", 0);
    let id = stage.id;
    let build = database.plan(vec![stage], Vec::new()).await;
    let worker = database.worker("one").await;
    let lease = database.claim(id, worker).await.unwrap();
    let restarted = Worker { session: SessionId(Uuid::new_v4()), ..worker };
    database.sync(restarted, &[]).await;
    assert_eq!(database.states(build).await, ["ready"]);
    assert!(database.claim(id, worker).await.is_none(), "the old run claimed a stage");
    let late = database.store.finish_stage(&succeeded(lease)).await;
    assert!(matches!(late, Err(StoreError::StaleLease)), "{late:?}");
}

#[tokio::test]
async fn failures_of_the_farm_are_tried_three_times_and_failures_of_the_user_once() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let user = stage("user", 0);
    let id = user.id;
    let build = database.plan(vec![user], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    database.store.finish_stage(&failed(lease, FailureClass::User, false)).await.unwrap();
    assert_eq!(database.state(build).await, "failed");

    let farm = stage("farm", 0);
    let id = farm.id;
    let build = database.plan(vec![farm], Vec::new()).await;
    for attempt in 1..=3 {
        assert_eq!(database.state(build).await, "running", "attempt {attempt}");
        let lease = until_claimed(&database, id, worker).await;
        let result = failed(lease, FailureClass::Infrastructure, true);
        database.store.finish_stage(&result).await.unwrap();
    }
    assert_eq!(database.state(build).await, "failed");
    assert_eq!(database.states(build).await, ["failed"]);
}

#[tokio::test]
async fn a_stage_that_is_handed_back_costs_no_attempt() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let stage = stage("one", 0);
    let id = stage.id;
    let build = database.plan(vec![stage], Vec::new()).await;
    for _ in 0..4 {
        let lease = until_claimed(&database, id, worker).await;
        database.store.finish_stage(&finished(lease, Outcome::HandedBack)).await.unwrap();
    }
    assert_eq!(database.states(build).await, ["ready"]);
    assert_eq!(database.store.build_stages(build).await.unwrap()[0].attempts, 0);
}

#[tokio::test]
async fn a_failed_stage_ends_its_build_and_what_the_others_hold() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (bad, good) = (stage("bad", 0), stage("good", 0));
    let ids = [bad.id, good.id];
    let build = database.plan(vec![bad, good], Vec::new()).await;
    let first = database.claim(ids[0], worker).await.unwrap();
    let second = database.claim(ids[1], worker).await.unwrap();
    database.store.finish_stage(&failed(first, FailureClass::User, false)).await.unwrap();
    let told = database.sync(worker, &[second]).await;
    assert_eq!(told.dropped, [(second, "build_failed".to_owned())]);
    // Its own end, which crossed the message, is no error and makes nothing good again.
    database.store.finish_stage(&succeeded(second)).await.unwrap();
    assert_eq!(database.state(build).await, "failed");
}

/// Gives up on every worker but one, as if they had been silent.
async fn expire_all_but(database: &Database, alive: Worker) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut watch = store::Watch::default();
    loop {
        database.sync(alive, &[]).await;
        if database.store.expire_workers(0.05, &mut watch).await.unwrap() > 0 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "nobody was given up");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn until_claimed(database: &Database, stage: common::StageId, worker: Worker) -> Lease {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(lease) = database.claim(stage, worker).await {
            return lease;
        }
        assert!(std::time::Instant::now() < deadline, "the stage cannot be claimed");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What the cache has under the key of a step of this name.
async fn cached_layer(database: &Database, name: &str) -> Option<Layer> {
    let key = Digest::of(name.as_bytes());
    database.store.find_layers(&trusted(), &[key]).await.unwrap().remove(&key)
}
