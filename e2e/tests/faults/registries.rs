//! A registry that is busy, errs, breaks off and lies.

use std::time::{Duration, Instant};

use e2e::{Farm, FarmOptions, Shape};
use testkit::{Fault, Rule};

use crate::{all_is_well, options};

fn status(status: u16, headers: &[(&str, &str)]) -> Fault {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Fault::Status { status, headers }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says_so() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    let faults = farm.registry_faults().unwrap();
    faults.add(Rule::always(status(429, &[("Retry-After", "2")])).path("/busy/").times(1));
    faults.add(Rule::always(status(503, &[])).path("/busy/").after(2).times(2));
    faults.add(Rule::always(Fault::LoseAnswer).path("/busy/manifests/").method("PUT").times(1));
    let start = Instant::now();
    all_is_well(&farm, [farm.launch(Shape::Pushed, "busy", 0.1).unwrap()]);
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert!(faults.met() >= 3, "{}", faults.met());
}

#[test]
fn a_registry_that_stays_broken_fails_the_push_and_the_push_alone_is_made_again() {
    let farm = Farm::start(FarmOptions { lost_after_secs: 15, ..options() }).unwrap();
    let faults = farm.registry_faults().unwrap();
    faults.add(Rule::always(status(500, &[])).path("/broken/"));
    let ended = farm.launch(Shape::Pushed, "broken", 0.1).unwrap().finish(crate::LIMIT).unwrap();
    assert_ne!(ended.code, 0, "{}", ended.text);
    let view = farm.last_build().unwrap();
    let failure = view.failure.unwrap();
    assert_eq!(failure.class, common::FailureClass::Registry, "{failure:?}");
    faults.clear();
    let before = farm.query("select epoch from stage where kind = 'stage'").unwrap();
    let again = farm.slipway(["retry", "--progress", "plain", "last"]).unwrap();
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(farm.query("select epoch from stage where kind = 'stage'").unwrap(), before);
    all_is_well(&farm, []);
}

#[test]
fn base_layers_that_arrive_cut_or_wrong_are_fetched_again() {
    let farm = Farm::start(FarmOptions { workers: 1, ..options() }).unwrap();
    let faults = farm.registry_faults().unwrap();
    for fault in [Fault::Cut { at: 1000 }, Fault::Corrupt { at: 2000 }, Fault::Truncate { at: 500 }]
    {
        faults.add(Rule::always(fault).method("GET").path("/blobs/").after(1).times(1));
    }
    all_is_well(&farm, [farm.launch(Shape::Chain, "base", 0.1).unwrap()]);
    assert!(faults.met() >= 2, "{}", faults.met());
}
