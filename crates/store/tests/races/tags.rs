//! Tags move only forward.

use common::stage::StageKind;
use common::{BuildId, Lease};
use futures_util::future::join_all;
use store::{NewStage, StoreError, TagGrant};

use crate::database::{Database, Worker, stage, succeeded};

const NAME: &str = "registry.example/app:latest";

struct Exports {
    database: Database,
    worker: Worker,
}

impl Exports {
    async fn start() -> Self {
        let database = Database::start().await;
        let worker = database.worker("one").await;
        Self { database, worker }
    }

    /// A build, submitted now, whose export runs.
    async fn build(&self) -> (BuildId, Lease) {
        self.build_on(self.worker).await
    }

    async fn build_on(&self, worker: Worker) -> (BuildId, Lease) {
        let export = NewStage { kind: StageKind::Export, ..stage("export", 0) };
        let id = export.id;
        let build = self.database.plan(vec![export], Vec::new()).await;
        (build, self.database.claim(id, worker).await.unwrap())
    }

    async fn ask(&self, lease: Lease) -> TagGrant {
        self.database.store.ask_for_tag(lease, NAME).await.unwrap()
    }

    async fn moved(&self, lease: Lease) -> Option<BuildId> {
        self.database.store.tag_moved(lease, NAME).await.unwrap()
    }

    /// All rights have run out.
    fn run_out(&self) {
        let text = "update image_tag set held_until = now() - interval '1 second' \
                    where held_until is not null";
        self.database.postgres.query("races", text).unwrap();
    }
}

fn is_granted(grant: TagGrant) -> bool {
    matches!(grant, TagGrant::Granted { good_millis } if good_millis > 0)
}

#[tokio::test]
async fn a_tag_is_left_at_the_newer_build_whichever_ends_last() {
    let exports = Exports::start().await;
    let (_, old) = exports.build().await;
    let (newer, new) = exports.build().await;
    assert!(is_granted(exports.ask(new).await));
    assert_eq!(exports.moved(new).await, None);
    assert_eq!(exports.ask(old).await, TagGrant::Left { newer });
    // In the order of submission both move it; another name is another tag.
    let (_, newest) = exports.build().await;
    assert!(is_granted(exports.ask(newest).await));
    assert_eq!(exports.moved(newest).await, None);
    let other = exports.database.store.ask_for_tag(old, "registry.example/app:1").await.unwrap();
    assert!(is_granted(other));
}

#[tokio::test]
async fn one_build_at_a_time_moves_a_tag_and_the_end_is_the_newest() {
    let exports = Exports::start().await;
    let mut builds = Vec::new();
    for _ in 0..6 {
        builds.push(exports.build().await);
    }
    let newest = builds[5].0;
    // What the registry would have: written between the grant and the word of it.
    let tag = std::sync::Mutex::new(None);
    let writers = std::sync::atomic::AtomicU32::new(0);
    let (exports, tag_ref, writers) = (&exports, &tag, &writers);
    join_all(builds.iter().map(async |(build, lease)| {
        loop {
            match exports.ask(*lease).await {
                TagGrant::Busy => tokio::task::yield_now().await,
                TagGrant::Left { .. } => return,
                TagGrant::Granted { .. } => {
                    assert_eq!(writers.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    let before = tag_ref.lock().unwrap().replace(*build);
                    assert!(before < Some(*build), "the tag moved back");
                    writers.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(exports.moved(*lease).await, None);
                    return;
                }
            }
        }
    }))
    .await;
    assert_eq!(*tag.lock().unwrap(), Some(newest));
}

#[tokio::test]
async fn asking_and_telling_again_changes_nothing() {
    let exports = Exports::start().await;
    let (_, lease) = exports.build().await;
    for _ in 0..2 {
        assert!(is_granted(exports.ask(lease).await));
    }
    for _ in 0..2 {
        assert_eq!(exports.moved(lease).await, None);
    }
    assert!(is_granted(exports.ask(lease).await));
    // What it knows it did not do frees the tag at once.
    let (_, next) = exports.build().await;
    assert_eq!(exports.ask(next).await, TagGrant::Busy);
    exports.database.store.release_tag(lease, NAME).await.unwrap();
    assert!(is_granted(exports.ask(next).await));
}

#[tokio::test]
async fn a_right_is_taken_over_when_it_has_run_out_and_not_before() {
    let exports = Exports::start().await;
    let (_, silent) = exports.build().await;
    assert!(is_granted(exports.ask(silent).await));
    // Its worker is gone; what it sent may still be on its way, for the next attempt as well.
    let again = Worker { session: common::SessionId(uuid::Uuid::new_v4()), ..exports.worker };
    exports.database.sync(again, &[]).await;
    let second = exports.database.claim(silent.stage, again).await.unwrap();
    let (newer, new) = exports.build_on(again).await;
    assert_eq!(exports.ask(second).await, TagGrant::Busy);
    assert_eq!(exports.ask(new).await, TagGrant::Busy);
    let late = exports.database.store.tag_moved(silent, NAME).await;
    assert!(matches!(late, Err(StoreError::StaleLease)), "{late:?}");
    exports.run_out();
    assert!(is_granted(exports.ask(new).await));
    assert_eq!(exports.ask(second).await, TagGrant::Busy);
    assert_eq!(exports.moved(new).await, None);
    assert_eq!(exports.ask(second).await, TagGrant::Left { newer });
    exports.database.store.finish_stage(&succeeded(second)).await.unwrap();
    let ended = exports.database.store.ask_for_tag(second, NAME).await;
    assert!(matches!(ended, Err(StoreError::StaleLease)), "{ended:?}");
}

#[tokio::test]
async fn what_a_silent_newer_build_may_have_moved_is_left_alone() {
    let exports = Exports::start().await;
    let (_, old) = exports.build().await;
    let (newer, new) = exports.build().await;
    assert!(is_granted(exports.ask(new).await));
    assert_eq!(exports.ask(old).await, TagGrant::Busy);
    exports.run_out();
    assert_eq!(exports.ask(old).await, TagGrant::Left { newer });
}
