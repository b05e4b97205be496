//! What is promised when something dies, hangs or lies: `docs/failures.md` names these tests.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod coordinators;
mod damage;
mod objects;
mod registries;
mod services;
mod workers;

use std::time::Duration;

use e2e::{Ended, Farm, FarmOptions, Launched};

/// Longest time that any build of these tests may take, on a slow machine.
const LIMIT: Duration = Duration::from_mins(2);

/// Two coordinators behind one address, three workers on cables, S3 and registry behind proxies.
fn options() -> FarmOptions {
    FarmOptions {
        workers: 3,
        slots: 2,
        lost_after_secs: 3,
        coordinators: 2,
        faults: Some(1),
        cables: true,
        ..FarmOptions::default()
    }
}

/// Waits for the ends of builds and looks whether each is as it should be and nothing was broken.
fn all_is_well(farm: &Farm, builds: impl IntoIterator<Item = Launched>) -> Vec<Ended> {
    let ended: Vec<Ended> = builds.into_iter().map(|build| build.finish(LIMIT).unwrap()).collect();
    for build in &ended {
        build.check().unwrap();
    }
    assert_eq!(farm.audit().unwrap(), Vec::<String>::new());
    ended
}

/// Waits until the database gives something else than nothing, or zero.
fn wait_for(farm: &Farm, sql: &str) -> String {
    testkit::wait_for(sql, Duration::from_mins(1), || {
        let found = farm.query(sql).ok()?.trim().to_owned();
        (!matches!(found.as_str(), "" | "0")).then_some(found)
    })
    .unwrap()
}

/// The number of the worker that runs a stage; waits until one does and has said what it does.
fn busy_worker(farm: &Farm, build: &mut Launched) -> usize {
    build.wait_for("begin-one").unwrap();
    let name = wait_for(
        farm,
        "select w.name from stage s join worker w on w.id = s.worker_id where s.state = 'running'
         order by s.started_at limit 1",
    );
    name.trim_start_matches("worker-").parse().unwrap()
}

/// How many attempts all stages took that ran.
fn attempts(farm: &Farm) -> u32 {
    farm.query("select count(*) from attempt").unwrap().trim().parse().unwrap()
}
