//! Workers that die, hang, are cut off, say things twice, or do not know what time it is.

use std::time::{Duration, Instant};

use e2e::{Farm, FarmOptions, Piece, Shape};
use testkit::{Fault, Rule};

use crate::{all_is_well, attempts, busy_worker, options, wait_for};

#[test]
fn a_killed_worker_costs_what_it_ran_and_nothing_that_had_ended() {
    let mut farm = Farm::start(options()).unwrap();
    let mut build = farm.launch(Shape::Chain, "killed", 3.0).unwrap();
    build.wait_for("begin-two").unwrap();
    let name = wait_for(
        &farm,
        "select w.name from stage s join worker w on w.id = s.worker_id
         where s.state = 'running' and s.position = 1",
    );
    let dead = Instant::now();
    farm.kill(Piece::Worker(name.trim_start_matches("worker-").parse().unwrap())).unwrap();
    wait_for(&farm, "select 1 from stage where position = 1 and epoch = 2");
    // Lost after 3 s, then 2 s for the new attempt; a slow machine gets a little more.
    assert!(dead.elapsed() < Duration::from_secs(7), "{:?}", dead.elapsed());
    all_is_well(&farm, [build]);
    let first = farm.query("select attempts from stage where position = 0").unwrap();
    assert_eq!((first.trim(), attempts(&farm)), ("1", 4));
}

#[test]
fn a_worker_that_hangs_is_replaced_and_says_nothing_afterwards() {
    let mut farm = Farm::start(options()).unwrap();
    let mut build = farm.launch(Shape::Pushed, "hangs", 6.0).unwrap();
    let worker = Piece::Worker(busy_worker(&farm, &mut build));
    farm.pause(worker).unwrap();
    wait_for(&farm, "select 1 from stage where epoch = 2");
    farm.resume(worker).unwrap();
    all_is_well(&farm, [build]);
    assert_eq!(
        farm.query(
            "select a.outcome from attempt a join stage s on s.id = a.stage_id
             where a.epoch = 1 and s.kind = 'stage'"
        )
        .unwrap()
        .trim(),
        "lost"
    );
    farm.wait_for_workers(3).unwrap();
}

#[test]
fn a_short_cut_of_the_network_keeps_the_stage_running() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    let mut build = farm.launch(Shape::Parked, "short-cut", 3.0).unwrap();
    let number = busy_worker(&farm, &mut build);
    let cable = farm.cable(number).unwrap();
    cable.cut();
    std::thread::sleep(Duration::from_secs(3));
    cable.heal();
    all_is_well(&farm, [build]);
    assert_eq!(farm.query("select max(epoch) from stage").unwrap().trim(), "1");
}

#[test]
fn a_worker_that_was_cut_off_for_long_drops_its_stage_and_publishes_nothing() {
    let farm = Farm::start(options()).unwrap();
    let mut build = farm.launch(Shape::Pushed, "long-cut", 6.0).unwrap();
    let number = busy_worker(&farm, &mut build);
    farm.cable(number).unwrap().cut();
    let ended = build.finish(crate::LIMIT).unwrap();
    ended.check().unwrap();
    farm.cable(number).unwrap().heal();
    farm.wait_for_workers(3).unwrap();
    all_is_well(&farm, []);
    let lost = farm.query("select count(*) from attempt where outcome = 'lost'").unwrap();
    assert!(lost.trim() != "0", "the worker was never lost");
    // Nobody has held back a slot for what was dropped.
    all_is_well(&farm, [farm.launch(Shape::FanOut, "afterwards", 0.1).unwrap()]);
}

#[test]
fn answers_that_are_lost_make_nothing_happen_twice() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    for worker in 1..=3 {
        let faults = farm.cable_faults(worker).unwrap();
        // What was asked for happened, and is asked for again.
        for path in ["/result", "/slices", "/steps", "/done", "/tag", "/logs"] {
            faults.add(Rule::always(Fault::LoseAnswer).path(path).times(2));
        }
        faults.add(Rule::always(Fault::LoseAnswer).path("/sync").one_in(3));
    }
    let builds = [Shape::Chain, Shape::Parked, Shape::Pushed]
        .map(|shape| farm.launch(shape, &format!("lost-{shape:?}").to_lowercase(), 0.2).unwrap());
    all_is_well(&farm, builds);
    assert!((1..=3).any(|worker| farm.cable_faults(worker).unwrap().met() > 3));
    assert_eq!(farm.query("select max(epoch) from stage").unwrap().trim(), "1");
}

#[test]
fn a_worker_that_is_to_stop_ends_what_it_runs_and_takes_no_more() {
    let mut farm = Farm::start(FarmOptions { workers: 2, ..options() }).unwrap();
    let mut build = farm.launch(Shape::Chain, "drain", 2.0).unwrap();
    let worker = Piece::Worker(busy_worker(&farm, &mut build));
    farm.ask_to_stop(worker).unwrap();
    let ended = all_is_well(&farm, [build]);
    assert!(ended[0].text.contains("three"), "{}", ended[0].text);
    // The stage that ran when it was asked ran once, there; the others ran elsewhere.
    assert_eq!(attempts(&farm), 3);
    let stages = farm.query("select count(distinct worker_id) from attempt").unwrap();
    assert_eq!(stages.trim(), "2");
    testkit::wait_for("the end of the worker", Duration::from_secs(20), || {
        (!farm.is_running(worker).unwrap()).then_some(())
    })
    .unwrap();
}

#[test]
fn clocks_of_workers_that_are_an_hour_off_change_nothing() {
    let farm = Farm::start(FarmOptions { clocks_off_secs: 3600, ..options() }).unwrap();
    let builds = Shape::ALL
        .map(|shape| farm.launch(shape, &format!("clock-{shape:?}").to_lowercase(), 0.5).unwrap());
    let ended = all_is_well(&farm, builds);
    assert_eq!(farm.query("select max(epoch) from stage").unwrap().trim(), "1");
    // The workers' clocks really were off.
    let log = farm.log_of(Piece::Worker(1));
    let year =
        farm.query("select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24')").unwrap();
    assert!(!log.contains(year.trim()), "{log}");
    assert_eq!(ended.len(), 5);
}
