//! Many workers at once.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::WORKER_PROTOCOL;
use api::worker::v1::{EnrolRequest, SyncRequest};
use client::worker::Client;
use common::{Platform, SessionId, WorkerId};
use e2e::{Farm, FarmOptions};
use testkit::wait_for;

/// As many as a large farm has.
const WORKERS: usize = 500;
const LIMIT: Duration = Duration::from_mins(2);

/// Which life of the coordinator it is, and how many workers it has answered.
#[derive(Default)]
struct Lives {
    current: AtomicUsize,
    answered: [AtomicUsize; 2],
}

/// A worker that has nothing to do.
struct Idle {
    id: WorkerId,
    session: SessionId,
    client: Client,
    lives: Arc<Lives>,
}

impl Idle {
    async fn enrol(number: usize, farm: (&str, &str), lives: Arc<Lives>) -> Self {
        let (address, token) = farm;
        let client = Client::new(address, token);
        let id = WorkerId(uuid::Uuid::now_v7());
        let request = EnrolRequest {
            worker: id,
            name: format!("idle-{number}"),
            platforms: vec![Platform::host()],
            labels: Vec::new(),
            cpu_millis: 0,
            memory_bytes: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: WORKER_PROTOCOL,
        };
        client.enrol(&request).await.unwrap();
        Self { id, session: SessionId(uuid::Uuid::now_v7()), client, lives }
    }

    /// Calls as a worker does, hardly with a pause after an error: that is the storm. Counts itself
    /// once in each life of the coordinator.
    async fn call(self) {
        let mut counted = None;
        loop {
            let request = SyncRequest {
                worker: self.id,
                session: self.session,
                slots: 1,
                free_slots: 1,
                draining: false,
                held: Vec::new(),
                wait_millis: 2_000,
            };
            match self.client.sync(&request).await {
                Ok(_) => {
                    let life = self.lives.current.load(Ordering::SeqCst);
                    if counted.replace(life) != Some(life) {
                        self.lives.answered[life].fetch_add(1, Ordering::SeqCst);
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

#[test]
fn five_hundred_workers_that_come_back_at_once_are_all_served_and_none_is_lost() {
    let options = FarmOptions { workers: 0, lost_after_secs: 15, ..FarmOptions::default() };
    let mut farm = Farm::start(options).unwrap();
    let token = farm.make_token("workers").unwrap();
    let lives: Arc<Lives> = Arc::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let address = farm.address().to_owned();
    for number in 0..WORKERS {
        let farm = (address.as_str(), token.as_str());
        let worker = runtime.block_on(Idle::enrol(number, farm, Arc::clone(&lives)));
        runtime.spawn(worker.call());
    }
    let all_answered = |life: usize| {
        wait_for("all workers to be answered", LIMIT, || {
            (lives.answered[life].load(Ordering::SeqCst) == WORKERS).then_some(())
        })
    };
    all_answered(0).unwrap();
    farm.kill_coordinator().unwrap();
    lives.current.store(1, Ordering::SeqCst);
    farm.restart_coordinator().unwrap();
    all_answered(1).unwrap();
    let lost = farm.query("select count(*) from worker where lost").unwrap();
    assert_eq!(lost.trim(), "0");
    runtime.shutdown_background();
}
