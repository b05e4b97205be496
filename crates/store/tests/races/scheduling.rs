//! Predictions, quarantine, deadlines, superseding, retries.

use common::FailureClass;
use common::Lease;
use store::{BuildOrder, NewBuild, OfferRow, Placing, QuarantineRule, Retried, Submitted};

use crate::database::{
    Database, Worker, base_edge, done, failed, layer, new_build, stage, succeeded,
};

const RULE: QuarantineRule = QuarantineRule { failures: 2, secs: 300.0 };

fn host() -> OfferRow {
    let platforms = vec![common::Platform::host().to_string()];
    OfferRow { platforms, labels: Vec::new(), cpu_millis: 0, memory_bytes: 0 }
}

/// Fails a stage on a worker by the farm's fault.
async fn fault(database: &Database, worker: Worker, name: &str) -> (Lease, Option<String>) {
    let new = stage(name, 0);
    let id = new.id;
    database.plan(vec![new], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    let failure = common::Failure::new(FailureClass::Infrastructure, "test", "it failed");
    let result = failed(lease, FailureClass::Infrastructure, false);
    database.store.finish_stage(&result).await.unwrap();
    (lease, database.store.note_fault(lease, &failure, RULE).await.unwrap())
}

#[tokio::test]
async fn bad_worker_is_quarantined_and_jobs_succeed_elsewhere() {
    let database = Database::start().await;
    let (bad, good) = (database.worker("bad").await, database.worker("good").await);
    assert_eq!(fault(&database, bad, "one").await.1, None);
    assert_eq!(fault(&database, bad, "two").await.1, Some("bad".to_owned()));
    let new = stage("three", 0);
    let id = new.id;
    let build = database.plan(vec![new], Vec::new()).await;
    assert!(database.store.asking_worker(bad.id).await.unwrap().is_quarantined);
    assert_eq!(database.claim(id, bad).await, None);
    let lease = database.claim(id, good).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.state(build).await, "succeeded");
    // The last ones are kept, however bad they are.
    fault(&database, good, "four").await;
    assert_eq!(fault(&database, good, "five").await.1, None);
}

#[tokio::test]
async fn poison_job_does_not_quarantine_the_fleet() {
    let database = Database::start().await;
    let workers = [database.worker("one").await, database.worker("two").await];
    let failure = common::Failure::new(FailureClass::Infrastructure, "test", "it failed");
    for name in ["a", "b", "c"] {
        let poison = stage(name, 0);
        let id = poison.id;
        let build = database.plan(vec![poison], Vec::new()).await;
        for worker in workers {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            let lease = loop {
                if let Some(lease) = database.claim(id, worker).await {
                    break lease;
                }
                assert!(std::time::Instant::now() < deadline, "not claimed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            };
            let result = failed(lease, FailureClass::Infrastructure, true);
            database.store.finish_stage(&result).await.unwrap();
            assert_eq!(database.store.note_fault(lease, &failure, RULE).await.unwrap(), None);
        }
        // Two said the same: there is no third attempt.
        assert_eq!(database.state(build).await, "failed");
    }
}

#[tokio::test]
async fn a_prediction_is_the_median_of_the_last_runs() {
    let database = Database::start().await;
    let mut new = stage("one", 0);
    new.placing = Placing { lineage: Some("Dockerfile one".into()), ..Placing::default() };
    let id = new.id;
    database.plan(vec![new], Vec::new()).await;
    for millis in [100, 9_000, 300] {
        database.store.remember_durations(&[(id, millis)]).await.unwrap();
    }
    let project = "default".parse().unwrap();
    let lineages = ["Dockerfile one".to_owned(), "unknown".to_owned()];
    let known = database.store.known_durations(&project, &lineages).await.unwrap();
    assert_eq!(known, [(lineages[0].clone(), 300)].into());
}

#[tokio::test]
async fn unplaceable_job_explains_itself_and_recovers_when_a_worker_joins() {
    let database = Database::start().await;
    let worker = database.worker("plain").await;
    let mut new = stage("wide", 0);
    new.placing.labels = vec!["gpu".to_owned()];
    let id = new.id;
    let build = database.plan(vec![new], Vec::new()).await;
    assert_eq!(database.store.ready_stages(&host(), &[worker.id], 1).await.unwrap(), []);
    let wanted = database.store.wanted().await.unwrap();
    assert_eq!(wanted[0].labels, ["gpu"]);
    let marked = database.store.mark_placeable(&wanted[0], Some("no gpu")).await.unwrap();
    assert_eq!(marked, [build]);
    let said = database.store.build_stages(build).await.unwrap().remove(0).unplaceable;
    assert_eq!(said.as_deref(), Some("no gpu"));
    assert_eq!(database.store.long_unplaceable(900.0).await.unwrap(), []);
    assert_eq!(database.store.mark_placeable(&wanted[0], None).await.unwrap(), [build]);
    assert_eq!(database.store.long_unplaceable(-1.0).await.unwrap(), []);
    let with_gpu = OfferRow { labels: vec!["gpu".to_owned()], ..host() };
    let ready = database.store.ready_stages(&with_gpu, &[worker.id], 1).await.unwrap();
    assert_eq!(ready[0].id, id);
    // Or it never comes.
    database.store.mark_placeable(&wanted[0], Some("no gpu")).await.unwrap();
    let late = database.store.long_unplaceable(-1.0).await.unwrap();
    let failure = common::Failure::new(FailureClass::Resource, "unplaceable", "no gpu");
    let ended = database.store.fail_waiting(late[0].id, &failure).await.unwrap();
    assert_eq!((ended, database.state(build).await.as_str()), (vec![build], "failed"));
}

#[tokio::test]
async fn the_worker_that_has_the_layers_is_known() {
    let database = Database::start().await;
    let (one, other) = (database.worker("one").await, database.worker("other").await);
    let (base, child) = (stage("base", 0), stage("child", 1));
    let (id, edges) = (base.id, vec![base_edge(&child, &base)]);
    database.plan(vec![base, child], edges).await;
    let lease = database.claim(id, one).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    database.store.remember_layers(&[(lease, &[layer("result")])]).await.unwrap();
    let both = [one.id, other.id];
    let ready = database.store.ready_stages(&host(), &both, 1).await.unwrap().remove(0);
    assert_eq!((ready.home, ready.base_bytes), (Some(one.id), 1), "{ready:?}");
    assert!(ready.near.iter().all(|near| *near == one.id) && !ready.near.is_empty(), "{ready:?}");
    let chain = ready.base_chain.unwrap();
    let holders = database.store.chain_holders(std::slice::from_ref(&chain), &both).await.unwrap();
    assert_eq!(holders, [(chain, one.id)]);
}

#[tokio::test]
async fn a_build_whose_time_is_up_is_found_and_a_newer_one_ends_older_ones() {
    let database = Database::start().await;
    let submit = async |order: BuildOrder| {
        let build = NewBuild { order, ..new_build(None) };
        match database.store.submit_build(&build).await.unwrap() {
            Submitted::New(id) | Submitted::Existing(id) => id,
        }
    };
    let late = submit(BuildOrder { timeout_secs: Some(0), ..BuildOrder::default() }).await;
    submit(BuildOrder { timeout_secs: Some(600), ..BuildOrder::default() }).await;
    assert_eq!(database.store.overdue_builds().await.unwrap(), [(late, 0)]);
    let on = |key: &str| BuildOrder { supersede_key: Some(key.into()), ..BuildOrder::default() };
    let (old, apart) = (submit(on("main")).await, submit(on("other")).await);
    let new = submit(on("main")).await;
    let states = [old, apart, new].map(|build| database.state(build));
    let states = futures_util::future::join_all(states).await;
    assert_eq!(states, ["superseded", "queued", "queued"]);
}

#[tokio::test]
async fn a_retry_runs_what_failed_and_keeps_what_is_done() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (base, child) = (stage("base", 0), stage("child", 1));
    let (ids, edges) = ([base.id, child.id], vec![base_edge(&child, &base)]);
    let build = database.plan(vec![base, child], edges).await;
    let lease = database.claim(ids[0], worker).await.unwrap();
    assert_eq!(database.store.retry_build(build).await.unwrap(), Retried::Runs);
    let made = layer("result");
    database.store.report_steps(lease, &[done(Some(&made))]).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    let first = database.claim(ids[1], worker).await.unwrap();
    let result = failed(first, FailureClass::User, false);
    database.store.finish_stage(&result).await.unwrap();
    assert_eq!(database.state(build).await, "failed");
    assert_eq!(database.store.retry_build(build).await.unwrap(), Retried::Again);
    assert_eq!(database.states(build).await, ["succeeded", "ready"]);
    let again = database.claim(ids[1], worker).await.unwrap();
    assert!(again.epoch > first.epoch);
    database.store.finish_stage(&succeeded(again)).await.unwrap();
    assert_eq!(database.state(build).await, "succeeded");
    assert_eq!(database.store.retry_build(build).await.unwrap(), Retried::NotFailed);
}
