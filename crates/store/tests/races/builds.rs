//! Submitting, planning and cancelling.

use std::task::{Context, Poll};
use std::time::Duration;

use common::outcome::{Failure, FailureClass};
use futures_util::future::join_all;
use store::{NewPlan, Store, StoreError, Submitted};
use uuid::Uuid;

use crate::database::{Database, base_edge, new_build, stage};

fn cancelled() -> Failure {
    Failure::new(FailureClass::Cancelled, "cancelled", "cancelled")
}

fn plan_of(stages: Vec<store::NewStage>) -> NewPlan {
    NewPlan {
        inputs: Vec::new(),
        context: None,
        stages,
        edges: Vec::new(),
        warnings: Vec::new(),
        first_keys: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_half_way_loses_nothing_of_the_next_one() {
    let database = Database::start().await;
    // One connection: whatever is left behind in it meets the next call.
    let narrow = Store::connect(&database.url, 1).await.unwrap();
    let victim = database.submit().await;
    for polls in 0..120 {
        // Gives up at ever other moments: before, within and after the begin of the transaction.
        let failure = cancelled();
        let mut call = Box::pin(narrow.cancel_build(victim, &failure));
        for _ in 0..polls {
            let poll = |context: &mut Context<'_>| Poll::Ready(call.as_mut().poll(context));
            if std::future::poll_fn(poll).await.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        let submitted = narrow.submit_build(&new_build(None)).await.unwrap();
        let Submitted::New(build) = submitted else { panic!("{submitted:?}") };
        let seen = database.store.build(build).await;
        assert!(seen.is_ok(), "given up after {polls} polls: {seen:?}");
    }
}

#[tokio::test]
async fn one_key_is_one_build_however_many_submit_it_at_once() {
    let database = Database::start().await;
    let store = &database.store;
    let submit = async |_| store.submit_build(&new_build(Some("key"))).await.unwrap();
    let all = join_all((0..16).map(submit)).await;
    let id = |submitted: &Submitted| match submitted {
        Submitted::New(build) | Submitted::Existing(build) => *build,
    };
    assert_eq!(all.iter().filter(|one| matches!(one, Submitted::New(_))).count(), 1);
    assert!(all.iter().all(|one| id(one) == id(&all[0])), "{all:?}");
}

#[tokio::test]
async fn a_build_is_planned_by_one_planner() {
    let database = Database::start().await;
    let store = &database.store;
    let builds = [database.submit().await, database.submit().await];
    let claim = async |_| store.claim_build(Uuid::new_v4()).await.unwrap().map(|build| build.id);
    let claimed: Vec<_> = join_all((0..12).map(claim)).await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 2, "{claimed:?}");
    assert!(builds.iter().all(|build| claimed.contains(build)));
}

#[tokio::test]
async fn a_planner_that_lost_its_build_stores_nothing() {
    let database = Database::start().await;
    let store = &database.store;
    let build = database.submit().await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let claimed = store.claim_build(first).await.unwrap().unwrap();
    assert!(store.renew_planning(build, first).await.unwrap());
    assert!(store.claim_build(second).await.unwrap().is_none(), "its lease is live");
    store.release_build(build, first).await.unwrap();
    let taken = until_some(async || store.claim_build(second).await.unwrap()).await;
    assert_eq!(taken.id, build);
    let plan = plan_of(vec![stage("late", 0)]);
    let late = store.save_plan(build, &claimed.domain, first, &plan).await;
    assert!(matches!(late, Err(StoreError::WrongState("build"))), "{late:?}");
    assert!(!store.renew_planning(build, first).await.unwrap());
    assert_eq!(database.states(build).await, Vec::<String>::new());
    let plan = plan_of(vec![stage("right", 0)]);
    store.save_plan(build, &claimed.domain, second, &plan).await.unwrap();
    assert_eq!(database.states(build).await, ["ready"]);
}

#[tokio::test]
async fn a_plan_for_a_build_that_was_cancelled_meanwhile_is_not_stored() {
    let database = Database::start().await;
    let store = &database.store;
    let build = database.submit().await;
    let planner = Uuid::new_v4();
    let claimed = store.claim_build(planner).await.unwrap().unwrap();
    assert!(store.cancel_build(build, &cancelled()).await.unwrap());
    let plan = plan_of(vec![stage("late", 0)]);
    let late = store.save_plan(build, &claimed.domain, planner, &plan).await;
    assert!(matches!(late, Err(StoreError::WrongState("build"))), "{late:?}");
    assert_eq!(database.state(build).await, "cancelled");
    assert_eq!(database.states(build).await, Vec::<String>::new());
}

#[tokio::test]
async fn cancelling_ends_what_waits_at_once_and_what_runs_through_its_holder() {
    let database = Database::start().await;
    let (running, ready, waiting) = (stage("running", 0), stage("ready", 0), stage("waiting", 1));
    let (held, edges) = (running.id, vec![base_edge(&waiting, &ready)]);
    let build = database.plan(vec![running, ready, waiting], edges).await;
    let worker = database.worker("one").await;
    let lease = database.claim(held, worker).await.unwrap();
    assert!(database.store.cancel_build(build, &cancelled()).await.unwrap());
    assert!(!database.store.cancel_build(build, &cancelled()).await.unwrap(), "it has ended");
    assert_eq!(database.states(build).await, ["running", "cancelled", "cancelled"]);
    let told = database.sync(worker, &[lease]).await;
    assert_eq!(told.dropped, [(lease, "cancelled".to_owned())]);
    // It lets go of it: nobody else has to end the stage.
    database.sync(worker, &[]).await;
    assert_eq!(database.states(build).await, ["cancelled", "cancelled", "cancelled"]);
    assert_eq!(database.state(build).await, "cancelled");
}

/// Calls until there is something.
async fn until_some<T>(mut call: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = call().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited for too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
