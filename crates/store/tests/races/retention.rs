//! What is kept: nothing that somebody may read is ever deleted, and what nobody needs goes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::image::Layer;
use common::outcome::FailureClass;
use common::plan::SliceSelector;
use common::stage::StageState;
use common::{BuildId, Digest, Lease, ProjectName};
use store::{
    CachedSlice, NewPlan, NewStage, ObjectKey, ObjectRow, ProjectSettings, Purged, Retention,
    Retried, StoreError,
};
use uuid::Uuid;

use crate::database::{Database, Worker, done, failed, layer, stage, succeeded, trusted};

fn project() -> ProjectName {
    "default".parse().unwrap()
}

fn object(kind: &'static str, name: &str) -> ObjectRow {
    ObjectRow { key: ObjectKey { kind, digest: Digest::of(name.as_bytes()) }, size_bytes: 1 }
}

/// Everything is old at once.
fn at_once() -> Retention {
    Retention {
        cache_secs: 0.0,
        cache_bytes: 0,
        unused_secs: 0.0,
        exports_secs: 0.0,
        logs_secs: 0.0,
        builds_secs: 0.0,
        grace_secs: 0.0,
        hold_secs: 0.0,
        check_secs: 0.0,
    }
}

/// Nothing gets old.
fn never() -> Retention {
    let long = 1e9;
    Retention {
        cache_secs: long,
        unused_secs: long,
        exports_secs: long,
        logs_secs: long,
        builds_secs: long,
        ..at_once()
    }
}

fn slice_of(name: &str) -> (CachedSlice, Vec<ObjectRow>) {
    let (manifest, pack) = (object("manifest", name), object("pack", name));
    let slice = CachedSlice {
        selector: SliceSelector::new(vec![format!("/{name}")]),
        manifest: manifest.key.digest,
        inline_manifest: None,
        files: 1,
        content_bytes: 1,
        stored_bytes: 2,
        content: None,
    };
    (slice, vec![manifest, pack])
}

impl Database {
    fn sql(&self, text: &str) -> String {
        self.postgres.query("races", text).unwrap()
    }

    /// One round of everything but the deletion: what is struck out, and what is to be deleted.
    async fn round(&self, keep: &Retention) -> Vec<String> {
        self.sql("update object set check_after = now()");
        self.store.measure_projects(keep).await.unwrap();
        self.store.trim_cache(keep).await.unwrap();
        self.store.strike_objects(keep).await.unwrap();
        let doomed = self.store.take_doomed(keep).await.unwrap();
        self.store.forget_objects(&doomed).await.unwrap();
        doomed.into_iter().map(|one| format!("{} {}", one.kind, one.digest)).collect()
    }

    /// A build of one stage that has succeeded, with its layer and a slice in the cache.
    async fn built(&self, worker: Worker, name: &str) -> BuildId {
        let stage = stage(name, 0);
        let id = stage.id;
        let build = self.plan(vec![stage], Vec::new()).await;
        let lease = self.claim(id, worker).await.unwrap();
        let made = layer(name);
        self.store.report_steps(lease, &[done(Some(&made))]).await.unwrap();
        let (slice, objects) = slice_of(name);
        let key = Digest::of(name.as_bytes());
        self.store.report_slice(lease, key, &slice, &objects).await.unwrap();
        let outcome = store::Outcome::Succeeded { layers: vec![made], exports: Vec::new() };
        self.store.finish_stage(&crate::database::finished(lease, outcome)).await.unwrap();
        build
    }
}

fn named(kind: &str, name: &str) -> String {
    format!("{kind} {}", Digest::of(name.as_bytes()))
}

#[tokio::test]
async fn what_the_cache_has_stays_and_goes_with_it() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    database.built(worker, "a").await;
    let unused = Retention { cache_secs: 1e9, ..at_once() };
    assert_eq!(database.round(&unused).await, [""; 0]);
    // An upload that nothing refers to goes, its row with it.
    database.store.present_objects(&project(), &[object("pack", "context")]).await.unwrap();
    assert_eq!(database.round(&unused).await, [named("pack", "context")]);
    assert_eq!(database.sql("select count(*) from object where present").trim(), "3");
    // The cache's time is up: first the layer and the manifest, and when that is gone its pack.
    let mut gone = database.round(&at_once()).await;
    gone.sort();
    assert_eq!(gone, [named("blob", "a"), named("manifest", "a")]);
    assert_eq!(database.round(&at_once()).await, [named("pack", "a")]);
    let rows = "select (select count(*) from object) + (select count(*) from object_part) \
                + (select count(*) from cache_record) + (select count(*) from cache_slice)";
    assert_eq!(database.sql(rows).trim(), "0");
}

#[tokio::test]
async fn what_was_struck_out_is_had_back_until_it_is_being_deleted() {
    let database = Database::start().await;
    let (store, project) = (&database.store, project());
    let row = object("pack", "x");
    store.mark_present(&project, std::slice::from_ref(&row), None).await.unwrap();
    let slow = Retention { grace_secs: 1000.0, ..at_once() };
    assert_eq!(database.round(&slow).await, [""; 0]);
    assert_eq!(database.sql("select delete_after is not null from object").trim(), "t");
    let present = store.present_objects(&project, std::slice::from_ref(&row)).await.unwrap();
    assert_eq!(present.len(), 1, "it is still there");
    assert_eq!(database.sql("select delete_after is null from object").trim(), "t");

    // Being deleted: no answer until it is gone, and then it is missing.
    store.strike_objects(&at_once()).await.unwrap();
    database.sql("update object set check_after = now()");
    store.strike_objects(&at_once()).await.unwrap();
    let doomed = store.take_doomed(&at_once()).await.unwrap();
    assert_eq!(doomed.len(), 1);
    let asking = store.present_objects(&project, std::slice::from_ref(&row));
    let asked = async {
        tokio::time::timeout(Duration::from_millis(300), asking).await.unwrap_err();
        store.mark_present(&project, std::slice::from_ref(&row), None).await
    };
    assert!(matches!(asked.await, Err(StoreError::WrongState("object"))));
    store.forget_objects(&doomed).await.unwrap();
    let present = store.present_objects(&project, &[row]).await.unwrap();
    assert!(present.is_empty());
}

#[tokio::test]
async fn nothing_goes_that_was_used_since_a_live_build_began() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let waiting = database.plan(vec![stage("runs long", 0)], Vec::new()).await;
    database.built(worker, "a").await;
    database.round(&at_once()).await;
    assert_eq!(database.round(&at_once()).await, [""; 0]);
    let failure = common::Failure::new(FailureClass::Cancelled, "cancelled", "enough");
    database.store.cancel_build(waiting, &failure).await.unwrap();
    assert_eq!(database.round(&at_once()).await.len(), 2);
}

#[tokio::test]
async fn of_too_much_the_oldest_goes() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    for name in ["a", "b", "c"] {
        database.built(worker, name).await;
    }
    // Each is a layer of one byte, and a manifest and a pack of one byte each.
    let hit = [Digest::of(b"a")];
    database.store.find_layers(&trusted(), &hit).await.unwrap();
    database.store.find_slices(&trusted(), &hit).await.unwrap();
    let keep = Retention { cache_bytes: 5, ..never() };
    while !database.round(&keep).await.is_empty() {}
    let keys = ["a", "b", "c"].map(|name| Digest::of(name.as_bytes()));
    let left = database.store.find_layers(&trusted(), &keys).await.unwrap();
    let left: Vec<Digest> = left.into_keys().collect();
    assert!(left.contains(&hit[0]), "what was used last went: {left:?}");
    let bytes = database.sql("select sum(size_bytes) <= 5 from object where present");
    assert_eq!(bytes.trim(), "t");
    // The project's own setting counts more.
    let own = ProjectSettings { cache_bytes: Some(0), ..ProjectSettings::default() };
    database.store.set_project("default", &own).await.unwrap();
    database.built(worker, "d").await;
    database.built(worker, "e").await;
    while !database.round(&keep).await.is_empty() {}
    let row = &database.store.projects().await.unwrap()[0];
    assert_eq!(row.over_bytes, 0);
    assert!(row.used_bytes > 5, "{row:?}");
}

#[tokio::test]
async fn a_purge_takes_all_of_a_build_but_what_others_have_too() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let build = database.built(worker, "a").await;
    // Another step made the same layer.
    let other = stage("b", 0);
    let id = other.id;
    database.plan(vec![other], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    assert_eq!(
        database.store.purge_build(build_of(&database, lease).await, 0.0).await.unwrap(),
        Purged::Runs
    );
    database.store.report_steps(lease, &[done(Some(&layer("a")))]).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    let Purged::Done(purged) = database.store.purge_build(build, 0.0).await.unwrap() else {
        panic!("it has ended");
    };
    assert_eq!((purged.records, purged.objects, purged.bytes), (2, 2, 2));
    assert_eq!(purged.kept, [("blob".to_owned(), Digest::of(b"a").to_string())]);
    let mut gone = database.round(&never()).await;
    gone.extend(database.round(&Retention { check_secs: 0.0, ..never() }).await);
    gone.sort();
    assert_eq!(gone, [named("manifest", "a"), named("pack", "a")]);
    let keys = [Digest::of(b"a"), Digest::of(b"b")];
    let left = database.store.find_layers(&trusted(), &keys).await.unwrap();
    assert_eq!(left.into_keys().collect::<Vec<_>>(), [Digest::of(b"b")]);
}

async fn build_of(database: &Database, lease: Lease) -> BuildId {
    database.store.lease_scope(lease).await.unwrap().1
}

#[tokio::test]
async fn a_failed_build_whose_bytes_are_gone_is_not_taken_up_again() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let (first, second) = (stage("a", 0), stage("b", 0));
    let ids = (first.id, second.id);
    let build = database.plan(vec![first, second], Vec::new()).await;
    let lease = database.claim(ids.0, worker).await.unwrap();
    database.store.report_steps(lease, &[done(Some(&layer("result")))]).await.unwrap();
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    let lease = database.claim(ids.1, worker).await.unwrap();
    database.store.finish_stage(&failed(lease, FailureClass::User, false)).await.unwrap();
    assert_eq!(database.round(&at_once()).await, [named("blob", "result")]);
    assert_eq!(database.store.retry_build(build).await.unwrap(), Retried::Gone);
    assert_eq!(database.state(build).await, "failed");
}

#[tokio::test]
async fn a_plan_that_counts_on_what_is_gone_is_an_old_one() {
    let database = Database::start().await;
    let cached = |name: &str| NewStage {
        state: StageState::Cached,
        layers: Some(vec![layer(name)]),
        ..stage(name, 0)
    };
    let old = database.try_plan(vec![cached("a")], Vec::new()).await;
    assert!(matches!(old, Err(StoreError::PlanIsOld)), "{old:?}");
    let row = object("blob", "a");
    database.store.mark_present(&project(), &[row], None).await.unwrap();
    assert!(database.try_plan(vec![cached("a")], Vec::new()).await.is_ok());
}

#[tokio::test]
async fn logs_go_first_and_then_their_builds() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let stage = stage("a", 0);
    let id = stage.id;
    let build = database.plan(vec![stage], Vec::new()).await;
    let lease = database.claim(id, worker).await.unwrap();
    let object = format!("default/logs/{id}/1/00000000");
    assert!(database.store.add_log_chunk(lease, 0, &object, 1, 1).await.unwrap());
    let keep = at_once();
    assert_eq!(database.store.old_logs(&keep).await.unwrap(), [""; 0], "it runs");
    database.store.finish_stage(&succeeded(lease)).await.unwrap();
    assert_eq!(database.store.remove_old_builds(&keep).await.unwrap(), 0, "its logs are there");
    assert_eq!(database.store.old_logs(&never()).await.unwrap(), [""; 0]);
    assert_eq!(database.store.old_logs(&keep).await.unwrap(), std::slice::from_ref(&object));
    database.store.forget_logs(&[object]).await.unwrap();
    assert_eq!(database.store.old_logs(&keep).await.unwrap(), [""; 0]);
    assert_eq!(database.store.remove_old_builds(&never()).await.unwrap(), 0);
    assert_eq!(database.store.remove_old_builds(&keep).await.unwrap(), 1);
    assert!(matches!(database.store.build(build).await, Err(StoreError::NotFound("build"))));
}

#[tokio::test]
async fn one_process_has_a_duty_until_it_is_silent() {
    let database = Database::start().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    assert!(database.store.take_duty("x", one, 60.0).await.unwrap());
    assert!(!database.store.take_duty("x", two, 60.0).await.unwrap());
    assert!(database.store.take_duty("x", one, 0.0).await.unwrap());
    assert!(database.store.take_duty("x", two, 60.0).await.unwrap());
}

// The model: actors do all of this at once, at random, and the object store is a set of names.

/// How long an address is good, and twice that is how long what was used is left alone. Longer than
/// any stall of a busy machine, short enough that everything gets old many times.
const ADDRESS: Duration = Duration::from_millis(400);
const LASTS: Duration = Duration::from_secs(10);
const NAMES: u64 = 5;

struct Model {
    database: Database,
    keep: Retention,
    worker: Worker,
    bytes: Mutex<BTreeSet<(String, String)>>,
    until: Instant,
    deleted: AtomicUsize,
    hits: AtomicUsize,
    old_plans: AtomicUsize,
    uploads: AtomicUsize,
    purges: AtomicUsize,
    ended: Mutex<Vec<BuildId>>,
}

/// Numbers that look random, from a seed that a failure can be repeated with.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    async fn pause(&mut self, most_millis: u64) {
        let millis = self.roll(most_millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

impl Model {
    fn has(&self, object: &ObjectRow) -> bool {
        let name = (object.key.kind.to_owned(), object.key.digest.to_string());
        self.bytes.lock().unwrap().contains(&name)
    }

    fn check(&self, objects: &[ObjectRow], who: &str) {
        for object in objects {
            assert!(self.has(object), "{who}: {:?} was deleted", object.key);
        }
    }

    /// Negotiates and sends, as clients and workers do; false when an address ran out meanwhile.
    async fn send(&self, objects: &[ObjectRow], dice: &mut Dice) -> bool {
        let start = Instant::now();
        let present = match self.database.store.present_objects(&project(), objects).await {
            Ok(present) => present,
            Err(StoreError::Deleting) => return false,
            Err(error) => panic!("{error}"),
        };
        for object in objects {
            if present.contains(&(object.key.kind.to_owned(), object.key.digest)) {
                continue;
            }
            dice.pause(20).await;
            if start.elapsed() > ADDRESS {
                return false;
            }
            let name = (object.key.kind.to_owned(), object.key.digest.to_string());
            self.bytes.lock().unwrap().insert(name);
            self.uploads.fetch_add(1, Ordering::Relaxed);
        }
        // Who took too long to say what it has sent would have lost its lease.
        start.elapsed() < ADDRESS
    }

    async fn plan(&self, stages: Vec<NewStage>, inputs: Vec<Digest>) -> Option<BuildId> {
        self.database.submit().await;
        let planner = Uuid::new_v4();
        let claimed = self.database.store.claim_build(planner).await.unwrap()?;
        let plan = NewPlan {
            context: None,
            inputs,
            stages,
            edges: Vec::new(),
            warnings: Vec::new(),
            first_keys: Vec::new(),
        };
        let store = &self.database.store;
        match store.save_plan(claimed.id, &claimed.domain, planner, &plan).await {
            Ok(_) => Some(claimed.id),
            Err(StoreError::PlanIsOld) => {
                self.old_plans.fetch_add(1, Ordering::Relaxed);
                let failure = common::Failure::new(FailureClass::User, "test", "old");
                store.fail_build(claimed.id, &failure).await.unwrap();
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn end(&self, build: BuildId) {
        self.ended.lock().unwrap().push(build);
    }

    /// A stage that runs and makes a layer and a slice.
    async fn run_stage(&self, dice: &mut Dice) {
        let name = format!("name {}", dice.roll(NAMES));
        let stage = stage(&name, 0);
        let id = stage.id;
        let Some(build) = self.plan(vec![stage], Vec::new()).await else { return };
        let store = &self.database.store;
        let Some(lease) = self.database.claim(id, self.worker).await else { return };
        let blob = object("blob", &name);
        while !self.send(std::slice::from_ref(&blob), dice).await {}
        let made = layer(&name);
        store.report_steps(lease, &[done(Some(&made))]).await.unwrap();
        self.check(std::slice::from_ref(&blob), "a layer that was reported");
        let (slice, objects) = slice_of(&name);
        while !self.send(&objects, dice).await {}
        let key = Digest::of(name.as_bytes());
        store.report_slice(lease, key, &slice, &objects).await.unwrap();
        dice.pause(300).await;
        self.check(&objects, "the slice of a stage that runs");
        self.check(std::slice::from_ref(&blob), "a layer of a stage that runs");
        let outcome = store::Outcome::Succeeded { layers: vec![made], exports: Vec::new() };
        store.finish_stage(&crate::database::finished(lease, outcome)).await.unwrap();
        self.end(build);
    }

    /// A build that finds a layer and a slice in the cache, and reads them for a while.
    async fn hit_cache(&self, dice: &mut Dice) {
        let name = format!("name {}", dice.roll(NAMES));
        let key = Digest::of(name.as_bytes());
        let store = &self.database.store;
        let layers = store.find_layers(&trusted(), &[key]).await.unwrap();
        let slices = store.find_slices(&trusted(), &[key]).await.unwrap();
        dice.pause(60).await;
        let layers: Vec<Layer> = layers.into_values().collect();
        let mut objects: Vec<ObjectRow> = layers.iter().map(|_| object("blob", &name)).collect();
        if !slices.is_empty() {
            objects.extend(slice_of(&name).1);
        }
        let cached = NewStage {
            state: StageState::Cached,
            layers: Some(layers),
            slices: slices.into_values().collect(),
            is_goal: false,
            ..stage(&name, 0)
        };
        let reader = stage(&format!("reader of {name} {}", Uuid::new_v4()), 0);
        let id = reader.id;
        let Some(build) = self.plan(vec![cached, reader], Vec::new()).await else { return };
        let Some(lease) = self.database.claim(id, self.worker).await else { return };
        for _ in 0..3 {
            self.check(&objects, "what a plan found in the cache");
            dice.pause(250).await;
        }
        self.check(&objects, "what a running build found in the cache");
        self.hits.fetch_add(objects.len(), Ordering::Relaxed);
        store.finish_stage(&succeeded_bare(lease)).await.unwrap();
        self.end(build);
    }

    /// A build with a context that it reads.
    async fn bring_context(&self, dice: &mut Dice) {
        let number = dice.roll(NAMES);
        let manifest = object("manifest", &format!("context {number}"));
        let packs =
            [number, (number + 1) % NAMES].map(|pack| object("pack", &format!("files {pack}")));
        let all: Vec<ObjectRow> = packs.iter().chain([&manifest]).cloned().collect();
        while !self.send(&all, dice).await {}
        let store = &self.database.store;
        let names: Vec<Digest> = packs.iter().map(|pack| pack.key.digest).collect();
        let digest = manifest.key.digest;
        store.mark_present(&project(), &all, Some((&digest, &names))).await.unwrap();
        let reader = stage(&format!("context {}", Uuid::new_v4()), 0);
        let id = reader.id;
        let Some(build) = self.plan(vec![reader], vec![digest]).await else { return };
        let Some(lease) = self.database.claim(id, self.worker).await else { return };
        for _ in 0..3 {
            self.check(&all, "the context of a running build");
            dice.pause(250).await;
        }
        self.check(&all, "the context of a running build");
        store.finish_stage(&succeeded_bare(lease)).await.unwrap();
        self.end(build);
    }

    async fn collect(&self, dice: &mut Dice) {
        let store = &self.database.store;
        dice.pause(10).await;
        match dice.roll(4) {
            0 => store.measure_projects(&self.keep).await.unwrap(),
            1 => drop(store.trim_cache(&self.keep).await.unwrap()),
            2 => drop(store.strike_objects(&self.keep).await.unwrap()),
            _ => {
                let doomed = store.take_doomed(&self.keep).await.unwrap();
                for object in &doomed {
                    dice.pause(10).await;
                    let name = (object.kind.clone(), object.digest.clone());
                    self.bytes.lock().unwrap().remove(&name);
                    self.deleted.fetch_add(1, Ordering::Relaxed);
                }
                store.forget_objects(&doomed).await.unwrap();
            }
        }
    }

    async fn purge(&self, dice: &mut Dice) {
        dice.pause(400).await;
        let build = {
            let mut ended = self.ended.lock().unwrap();
            if ended.is_empty() {
                return;
            }
            let last = ended.len() as u64;
            ended.swap_remove(usize::try_from(dice.roll(last)).unwrap())
        };
        if let Purged::Done(_) =
            self.database.store.purge_build(build, self.keep.hold_secs).await.unwrap()
        {
            self.purges.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn act(self: Arc<Self>, who: usize) {
        let mut dice = Dice(who as u64 * 7919 + 17);
        while Instant::now() < self.until {
            match who {
                0 | 1 => self.run_stage(&mut dice).await,
                2 | 3 => self.hit_cache(&mut dice).await,
                4 => self.bring_context(&mut dice).await,
                5 | 6 => self.collect(&mut dice).await,
                _ => self.purge(&mut dice).await,
            }
            // Pauses, so that things get old, and live builds end.
            if who < 5 && dice.roll(3) == 0 {
                dice.pause(900).await;
            }
        }
    }
}

fn succeeded_bare(lease: Lease) -> store::Finished {
    let outcome = store::Outcome::Succeeded { layers: Vec::new(), exports: Vec::new() };
    crate::database::finished(lease, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_deleted_that_a_cached_or_running_build_or_an_upload_needs() {
    let database = Database::start().await;
    let worker = database.worker("one").await;
    let hold_secs = 2.0 * ADDRESS.as_secs_f64();
    let keep = Retention {
        cache_secs: 1.5,
        cache_bytes: 12,
        unused_secs: 1.0,
        exports_secs: 1.0,
        grace_secs: 0.05,
        hold_secs,
        check_secs: 0.02,
        ..never()
    };
    let model = Arc::new(Model {
        database,
        keep,
        worker,
        bytes: Mutex::default(),
        until: Instant::now() + LASTS,
        deleted: AtomicUsize::default(),
        hits: AtomicUsize::default(),
        old_plans: AtomicUsize::default(),
        uploads: AtomicUsize::default(),
        purges: AtomicUsize::default(),
        ended: Mutex::default(),
    });
    let actors: Vec<_> = (0..8).map(|who| tokio::spawn(Arc::clone(&model).act(who))).collect();
    for actor in actors {
        actor.await.unwrap();
    }
    let names: Vec<String> = (0..NAMES).map(|number| format!("name {number}")).collect();
    for name in &names {
        let key = Digest::of(name.as_bytes());
        let store = &model.database.store;
        let found = store.find_layers(&trusted(), &[key]).await.unwrap();
        model.check(&found.values().map(|_| object("blob", name)).collect::<Vec<_>>(), "the cache");
        if !store.find_slices(&trusted(), &[key]).await.unwrap().is_empty() {
            model.check(&slice_of(name).1, "a cached slice");
        }
    }
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    let counts =
        [count(&model.deleted), count(&model.hits), count(&model.uploads), count(&model.purges)];
    eprintln!("deleted, hits, uploads, purges: {counts:?}; old plans: {}", count(&model.old_plans));
    assert!(counts.iter().all(|count| *count > 3), "too little happened: {counts:?}");

    // In the end nobody needs anything, and nothing is left: neither rows nor bytes.
    model.database.sql(
        "update build set state = 'failed', ended_at = now() where ended_at is null; \
         update stage set state = 'cancelled' where state in ('ready', 'running', 'parked')",
    );
    let all = Retention { grace_secs: 0.0, ..at_once() };
    for _ in 0..4 {
        model.database.sql("update object set check_after = now()");
        model.database.store.trim_cache(&all).await.unwrap();
        model.database.store.strike_objects(&all).await.unwrap();
        let doomed = model.database.store.take_doomed(&all).await.unwrap();
        for object in &doomed {
            model.bytes.lock().unwrap().remove(&(object.kind.clone(), object.digest.clone()));
        }
        model.database.store.forget_objects(&doomed).await.unwrap();
    }
    assert_eq!(model.database.sql("select count(*) from object").trim(), "0");
    assert_eq!(*model.bytes.lock().unwrap(), BTreeSet::new());
}
