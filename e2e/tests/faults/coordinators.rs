//! Coordinators that die and hang, one or both, at bad moments.

use std::time::Duration;

use e2e::{Farm, FarmOptions, Piece, Shape};
use testkit::{Fault, Rule};

use crate::{all_is_well, busy_worker, options, wait_for};

fn epochs_of_all(farm: &Farm) -> String {
    farm.query("select max(epoch) from stage").unwrap().trim().to_owned()
}

#[test]
fn when_one_coordinator_dies_the_other_goes_on() {
    for dead in [1, 2] {
        let mut farm = Farm::start(FarmOptions { lost_after_secs: 10, ..options() }).unwrap();
        let mut builds = [Shape::Chain, Shape::FanOut, Shape::Pushed].map(|shape| {
            farm.launch(shape, &format!("c{dead}-{shape:?}").to_lowercase(), 1.5).unwrap()
        });
        builds[0].wait_for("begin-one").unwrap();
        farm.kill(Piece::Coordinator(dead)).unwrap();
        all_is_well(&farm, builds);
        assert_eq!(epochs_of_all(&farm), "1", "something ran twice");
    }
}

#[test]
fn when_one_coordinator_hangs_the_other_goes_on() {
    let mut farm = Farm::start(FarmOptions { lost_after_secs: 10, ..options() }).unwrap();
    let mut builds = [Shape::Chain, Shape::Parked, Shape::Failing]
        .map(|shape| farm.launch(shape, &format!("h-{shape:?}").to_lowercase(), 1.5).unwrap());
    builds[0].wait_for("begin-one").unwrap();
    farm.pause(Piece::Coordinator(1)).unwrap();
    wait_for(&farm, "select 1 from stage where state = 'succeeded' limit 1");
    farm.resume(Piece::Coordinator(1)).unwrap();
    all_is_well(&farm, builds);
    assert_eq!(epochs_of_all(&farm), "1", "something ran twice");
}

#[test]
fn without_any_coordinator_steps_go_on_and_their_results_are_not_lost() {
    let mut farm = Farm::start(options()).unwrap();
    let mut build = farm.launch(Shape::Chain, "none-left", 3.0).unwrap();
    busy_worker(&farm, &mut build);
    farm.kill(Piece::Coordinator(1)).unwrap();
    farm.kill(Piece::Coordinator(2)).unwrap();
    // Longer than a worker may be silent: it is not its silence.
    std::thread::sleep(Duration::from_secs(4));
    farm.start_again(Piece::Coordinator(1)).unwrap();
    farm.start_again(Piece::Coordinator(2)).unwrap();
    all_is_well(&farm, [build]);
    assert_eq!(epochs_of_all(&farm), "1", "something ran twice");
}

#[test]
fn a_coordinator_that_dies_between_an_upload_and_its_record_loses_nothing() {
    let mut farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    let mut build = farm.launch(Shape::Chain, "between", 1.0).unwrap();
    let number = busy_worker(&farm, &mut build);
    // The layer is stored, and the report of it does not get through.
    farm.cable_faults(number).unwrap().add(Rule::always(Fault::Reset).path("/steps"));
    testkit::wait_for("the layer's blob", crate::LIMIT, || {
        let stored = farm.stored_objects().ok()?;
        stored.keys().any(|name| name.contains("/blobs/")).then_some(())
    })
    .unwrap();
    farm.kill(Piece::Coordinator(1)).unwrap();
    farm.kill(Piece::Coordinator(2)).unwrap();
    farm.start_again(Piece::Coordinator(1)).unwrap();
    farm.start_again(Piece::Coordinator(2)).unwrap();
    farm.cable_faults(number).unwrap().clear();
    all_is_well(&farm, [build]);
    assert_eq!(epochs_of_all(&farm), "1", "something ran twice");
}
