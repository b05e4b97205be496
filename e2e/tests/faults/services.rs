//! Postgres and Redis that die, hang and forget.

use std::time::Duration;

use e2e::{Farm, FarmOptions, Piece, Shape};
use testkit::program;

use crate::{all_is_well, busy_worker, options, wait_for};

#[test]
fn builds_go_on_when_postgres_was_killed_and_is_back() {
    let mut farm = Farm::start(options()).unwrap();
    let mut builds = [Shape::Chain, Shape::FanOut, Shape::Pushed, Shape::Failing]
        .map(|shape| farm.launch(shape, &format!("pg-{shape:?}").to_lowercase(), 1.5).unwrap());
    builds[0].wait_for("begin-one").unwrap();
    farm.kill(Piece::Postgres).unwrap();
    // A build that is begun now waits too.
    let late = farm.launch(Shape::Parked, "pg-late", 0.5).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    farm.start_again(Piece::Postgres).unwrap();
    all_is_well(&farm, builds.into_iter().chain([late]));
    assert_eq!(farm.query("select max(epoch) from stage").unwrap().trim(), "1");
}

#[test]
fn no_lease_is_stolen_because_the_database_was_away() {
    let mut farm = Farm::start(options()).unwrap();
    let mut build = farm.launch(Shape::Chain, "away", 2.0).unwrap();
    busy_worker(&farm, &mut build);
    // Nobody can say that he lives for longer than workers may be silent.
    farm.pause(Piece::Postgres).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    farm.resume(Piece::Postgres).unwrap();
    all_is_well(&farm, [build]);
    assert_eq!(farm.query("select max(epoch) from stage").unwrap().trim(), "1");
}

#[test]
fn a_redis_that_hangs_holds_nothing_up() {
    let mut farm = Farm::start(options()).unwrap();
    farm.pause(Piece::Redis).unwrap();
    let builds = Shape::ALL
        .map(|shape| farm.launch(shape, &format!("rh-{shape:?}").to_lowercase(), 0.5).unwrap());
    let ended = all_is_well(&farm, builds);
    // The log reaches the client by the other way.
    assert!(ended[0].text.contains("begin-one rh-chain"), "{}", ended[0].text);
    farm.resume(Piece::Redis).unwrap();
}

#[test]
fn a_redis_that_forgets_and_dies_loses_nothing() {
    let mut farm = Farm::start(options()).unwrap();
    let mut builds = [Shape::Chain, Shape::Parked, Shape::Pushed]
        .map(|shape| farm.launch(shape, &format!("rf-{shape:?}").to_lowercase(), 1.5).unwrap());
    builds[0].wait_for("begin-one").unwrap();
    let socket = farm.directory().join("redis.sock");
    let flushed = std::process::Command::new("redis-cli")
        .arg("-s")
        .arg(&socket)
        .arg("flushall")
        .output()
        .unwrap();
    assert!(flushed.status.success());
    builds[0].wait_for("begin-two").unwrap();
    farm.kill(Piece::Redis).unwrap();
    let ended = all_is_well(&farm, builds);
    assert!(ended[0].text.contains("begin-three"), "{}", ended[0].text);
}

#[test]
fn a_farm_whose_database_cannot_be_written_says_so_and_comes_back() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 10, ..options() }).unwrap();
    // As a standby that was taken for the primary.
    let set = |mode: &str| {
        let sql = format!("alter database farm set default_transaction_read_only = {mode}");
        farm.query(&format!("begin; set local transaction read write; {sql}; commit")).unwrap();
        farm.query(
            "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = 'farm' and application_name = 'slipway-coordinator'",
        )
        .unwrap();
    };
    set("on");
    let ready = || {
        let output = std::process::Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}"])
            .arg(format!("{}/readyz", farm.address()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    testkit::wait_for("a coordinator that says so", Duration::from_secs(30), || {
        (ready() == "503").then_some(())
    })
    .unwrap();
    let build = farm.launch(Shape::Chain, "read-only", 0.2).unwrap();
    set("off");
    all_is_well(&farm, [build]);
    testkit::wait_for("a coordinator that is well", Duration::from_secs(30), || {
        (ready() == "200").then_some(())
    })
    .unwrap();
    assert!(program("slipway").is_ok());
    wait_for(&farm, "select 1 from build where state = 'succeeded'");
}
