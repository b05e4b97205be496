//! An S3 server that errs, is slow, breaks off and lies.

use std::time::{Duration, Instant};

use e2e::{Farm, FarmOptions, Piece, Shape};
use testkit::{Fault, Rule};

use crate::{all_is_well, options};

fn unavailable() -> Fault {
    Fault::Status { status: 503, headers: Vec::new() }
}

#[test]
fn a_storm_of_503_is_waited_out() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    farm.s3_faults().unwrap().add(Rule::always(unavailable()).one_in(2));
    let builds = Shape::ALL
        .map(|shape| farm.launch(shape, &format!("storm-{shape:?}").to_lowercase(), 0.2).unwrap());
    all_is_well(&farm, builds);
    assert!(farm.s3_faults().unwrap().met() > 10);
    // Nothing had to run again for it; the command that fails by itself is no part of that.
    let others = "select outcome, failure from attempt where outcome is distinct from 'succeeded'
                  and failure->>'class' is distinct from 'user'";
    assert_eq!(farm.query(others).unwrap().trim(), "");
    assert_eq!(farm.query("select max(epoch) from stage").unwrap().trim(), "1");
}

#[test]
fn answers_that_are_cut_shortened_or_wrong_are_found_and_asked_for_again() {
    let mut farm = Farm::start(FarmOptions { workers: 1, ..options() }).unwrap();
    all_is_well(&farm, [farm.launch(Shape::Parked, "lies", 0.1).unwrap()]);
    // Another machine has to get everything from S3.
    farm.kill(Piece::Worker(1)).unwrap();
    std::fs::remove_dir_all(farm.worker_data("worker-1")).unwrap();
    farm.start_again(Piece::Worker(1)).unwrap();
    farm.wait_for_workers(1).unwrap();
    for fault in [Fault::Cut { at: 20 }, Fault::Truncate { at: 20 }, Fault::Corrupt { at: 30 }] {
        let rule = || Rule::always(fault.clone()).method("GET");
        farm.s3_faults().unwrap().add(rule().path("/blobs/").times(1));
        farm.s3_faults().unwrap().add(rule().path("/packs/").times(1));
        farm.s3_faults().unwrap().add(rule().path("/manifests/").times(1));
    }
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    let text = Shape::Parked.dockerfile("lies", 0.1) + "RUN echo more\n";
    std::fs::write(directory.path().join("Dockerfile"), text).unwrap();
    let ran = farm.slipway(["build", "--progress", "plain", directory.path().to_str().unwrap()]);
    let ran = ran.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(farm.s3_faults().unwrap().met() >= 3);
    all_is_well(&farm, []);
}

#[test]
fn an_upload_whose_answer_is_lost_or_that_breaks_off_is_made_again() {
    let farm = Farm::start(options()).unwrap();
    let faults = farm.s3_faults().unwrap();
    faults.add(Rule::always(Fault::LoseAnswer).method("PUT").times(3));
    faults.add(Rule::always(Fault::Reset).method("PUT").one_in(3));
    let builds = [Shape::FanOut, Shape::Pushed]
        .map(|shape| farm.launch(shape, &format!("up-{shape:?}").to_lowercase(), 0.1).unwrap());
    all_is_well(&farm, builds);
    assert!(faults.met() >= 3);
}

#[test]
fn a_slow_object_holds_up_nobody_else() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    let delay = Duration::from_secs(8);
    // The first slice is slow; whoever does not need it goes on.
    let rule = Rule::always(Fault::Delay(delay)).method("PUT").path("/packs/").times(1);
    farm.s3_faults().unwrap().add(rule);
    let start = Instant::now();
    let slow = farm.launch(Shape::Parked, "slow", 0.1).unwrap();
    testkit::wait_for("the slow upload", crate::LIMIT, || {
        (farm.s3_faults().unwrap().met() > 0).then_some(())
    })
    .unwrap();
    let met = start.elapsed();
    let others = [Shape::Chain, Shape::Pushed]
        .map(|shape| farm.launch(shape, &format!("quick-{shape:?}").to_lowercase(), 0.1).unwrap());
    for build in others {
        build.finish(crate::LIMIT).unwrap().check().unwrap();
    }
    assert!(start.elapsed() < met + delay, "{:?} after {met:?}", start.elapsed());
    all_is_well(&farm, [slow]);
}
