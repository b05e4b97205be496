use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::scheduler::facts::{Needs, Offer};

fn stage(id: u128) -> Ready {
    Ready {
        id: StageId(Uuid::from_u128(id)),
        project: "default".into(),
        needs: Needs { platform: "linux/amd64".into(), ..Needs::default() },
        priority: 0,
        critical_millis: 0,
        waiting_millis: 0,
        here_bytes: 0,
        elsewhere_bytes: 0,
        failed_here: false,
    }
}

fn asking(free_slots: u32, other_idle: u32) -> Asking {
    let platforms = vec!["linux/amd64".to_owned()];
    Asking {
        offer: Offer { platforms, labels: Vec::new(), cpu_millis: 4_000, memory_bytes: 1 << 30 },
        used_cpu_millis: 0,
        used_memory_bytes: 0,
        free_slots,
        other_idle,
        is_quarantined: false,
    }
}

fn chosen(ready: &[Ready], asking: &Asking) -> Vec<u128> {
    let choice = choose(ready, asking, &Shares::default());
    choice.take.into_iter().map(|id| id.0.as_u128()).collect()
}

fn why(ready: &Ready, asking: &Asking) -> Option<Left> {
    let choice = choose(std::slice::from_ref(ready), asking, &Shares::default());
    choice.left.into_iter().next().map(|(_, left)| left)
}

#[test]
fn the_longest_path_goes_first() {
    let ready = [
        stage(1),
        Ready { critical_millis: 30_000, ..stage(2) },
        Ready { critical_millis: 10_000, ..stage(3) },
    ];
    assert_eq!(chosen(&ready, &asking(2, 0)), [2, 3]);
}

#[test]
fn a_higher_priority_goes_first_within_a_project_only() {
    let urgent = Ready { priority: 5, ..stage(1) };
    let long = Ready { critical_millis: 90_000, ..stage(2) };
    assert_eq!(chosen(&[long, urgent.clone()], &asking(2, 0)), [1, 2]);
    let other = Ready { project: "other".into(), ..stage(3) };
    let shares = Shares { running: [("default".to_owned(), 1)].into(), ..Shares::default() };
    let choice = choose(&[urgent, other], &asking(1, 0), &shares);
    assert_eq!(choice.take, [StageId(Uuid::from_u128(3))]);
}

#[test]
fn stages_spread_while_others_are_idle() {
    let ready = [stage(1), stage(2), stage(3)];
    assert_eq!(chosen(&ready, &asking(3, 1)), [1]);
    assert_eq!(chosen(&ready, &asking(3, 0)), [1, 2, 3]);
    assert_eq!(chosen(&ready, &asking(0, 0)), [0_u128; 0]);
}

#[test]
fn a_busy_project_waits_for_an_idle_one() {
    let busy = Ready { project: "busy".into(), critical_millis: 90_000, ..stage(1) };
    let shares = Shares { running: [("busy".to_owned(), 9)].into(), ..Shares::default() };
    let choice = choose(&[busy, stage(2)], &asking(1, 0), &shares);
    assert_eq!(choice.take, [StageId(Uuid::from_u128(2))]);
}

#[test]
fn slots_are_shared_by_weight() {
    let of = |project: &str, id| Ready { project: project.into(), ..stage(id) };
    let ready: Vec<Ready> =
        (0..40).map(|n| of(if n % 2 == 0 { "light" } else { "heavy" }, n)).collect();
    let weights = [("light".to_owned(), 100), ("heavy".to_owned(), 300)].into();
    let choice = choose(&ready, &asking(16, 0), &Shares { weights, ..Shares::default() });
    let heavy = choice.take.iter().filter(|id| id.0.as_u128() % 2 == 1).count();
    assert_eq!((choice.take.len(), heavy), (16, 12));
}

#[test]
fn fair_share_two_projects_1_vs_1000_jobs() {
    let flood =
        (0..1_000).map(|n| Ready { project: "flood".into(), critical_millis: 900_000, ..stage(n) });
    let ready: Vec<Ready> = flood.chain([stage(5_000)]).collect();
    let shares = Shares { running: [("flood".to_owned(), 3)].into(), ..Shares::default() };
    assert_eq!(choose(&ready, &asking(1, 0), &shares).take, [StageId(Uuid::from_u128(5_000))]);
}

#[test]
fn a_stage_waits_for_its_home_no_longer_than_the_transfer_would_take() {
    let base = 20_000_000;
    let fresh = Ready { elsewhere_bytes: base, waiting_millis: 100, ..stage(1) };
    // 250 ms, and 200 ms for 20 MB.
    assert_eq!(why(&fresh, &asking(1, 1)), Some(Left::Home(Duration::from_millis(350))));
    assert_eq!(chosen(&[Ready { waiting_millis: 450, ..fresh.clone() }], &asking(1, 1)), [1]);
    assert_eq!(chosen(&[Ready { here_bytes: base, ..fresh.clone() }], &asking(1, 1)), [1]);
    let huge = Ready { elsewhere_bytes: 1 << 40, ..fresh };
    assert_eq!(why(&huge, &asking(1, 1)), Some(Left::Home(Duration::from_millis(1_900))));
}

#[test]
fn what_is_here_goes_before_what_is_about_as_long() {
    let here = Ready { here_bytes: 500_000_000, critical_millis: 7_000, ..stage(1) };
    let long = Ready { critical_millis: 9_000, ..stage(2) };
    let longer = Ready { critical_millis: 60_000, ..stage(3) };
    assert_eq!(chosen(&[long, here, longer], &asking(3, 0)), [3, 1, 2]);
}

#[test]
fn what_failed_here_goes_elsewhere_if_there_is_an_elsewhere() {
    let failed = Ready { failed_here: true, ..stage(1) };
    assert_eq!(why(&failed, &asking(1, 1)), Some(Left::FailedHere));
    assert_eq!(chosen(std::slice::from_ref(&failed), &asking(1, 0)), [1]);
    assert_eq!(chosen(&[Ready { waiting_millis: 6_000, ..failed }], &asking(1, 1)), [1]);
}

#[test]
fn platforms_labels_and_declared_resources_are_respected() {
    let needs = |needs: Needs| Ready { needs, ..stage(1) };
    let base = || stage(1).needs;
    let arm = needs(Needs { platform: "linux/arm64".into(), ..base() });
    assert_eq!(why(&arm, &asking(1, 0)), Some(Left::Platform));
    let gpu = needs(Needs { labels: vec!["gpu".into()], ..base() });
    assert_eq!(why(&gpu, &asking(1, 0)), Some(Left::Label("gpu".into())));
    let mut with_gpu = asking(1, 0);
    with_gpu.offer.labels = vec!["eu".into(), "gpu".into()];
    assert_eq!(chosen(&[gpu], &with_gpu), [1]);
    let wide = Ready { needs: Needs { cpu_millis: 3_000, ..base() }, ..stage(1) };
    let second = Ready { id: StageId(Uuid::from_u128(2)), ..wide.clone() };
    assert_eq!(chosen(&[wide.clone(), second], &asking(4, 0)), [1]);
    let busy = Asking { used_cpu_millis: 2_000, ..asking(1, 0) };
    assert_eq!(why(&wide, &busy), Some(Left::Cpu));
    let large = needs(Needs { memory_bytes: 1 << 29, ..base() });
    let full = Asking { used_memory_bytes: 1 << 30, ..asking(1, 0) };
    assert_eq!(why(&large, &full), Some(Left::Memory));
}

#[test]
fn a_quarantined_worker_gets_nothing() {
    let worker = Asking { is_quarantined: true, ..asking(1, 0) };
    assert_eq!(why(&stage(1), &worker), Some(Left::Quarantined));
}

fn any_stage() -> impl Strategy<Value = Ready> {
    let numbers = (-100_i16..=100, 0_u64..10_000_000, 0_u64..AGE_STEP_MILLIS, 0_u64..1 << 40);
    (1_u128..1 << 100, 0_u8..5, numbers).prop_map(|(id, project, numbers)| {
        let (priority, critical_millis, waiting_millis, bytes) = numbers;
        let project = format!("p{project}");
        let here_bytes = bytes / 2;
        Ready { project, priority, critical_millis, waiting_millis, here_bytes, ..stage(id) }
    })
}

proptest! {
    /// Whatever else comes, and however little its project may have: a stage that has waited long
    /// enough is next.
    #[test]
    fn aged_low_priority_job_runs(
        fresh in proptest::collection::vec(any_stage(), 0..200),
        running in proptest::collection::btree_map("p[0-4]", 0_u32..10_000, 0..5),
        weights in proptest::collection::btree_map("p[0-4]", 1_u32..1_000, 0..5),
    ) {
        let waiting_millis = AGE_STEP_MILLIS * MAX_STEPS;
        let old = Ready { project: "p0".into(), priority: -100, waiting_millis, ..stage(0) };
        let ready: Vec<Ready> = fresh.into_iter().chain([old.clone()]).collect();
        let choice = choose(&ready, &asking(1, 0), &Shares { running, weights });
        prop_assert_eq!(choice.take, [old.id]);
    }

    /// No stage twice, none that may not run, and no slot stays free while one may.
    #[test]
    fn slots_are_filled_while_something_fits(
        ready in proptest::collection::vec(any_stage(), 0..50),
        free_slots in 0_u32..20,
    ) {
        let choice = choose(&ready, &asking(free_slots, 0), &Shares::default());
        let mut taken = choice.take.clone();
        taken.sort();
        taken.dedup();
        prop_assert_eq!(taken.len(), choice.take.len());
        prop_assert_eq!(choice.take.len(), ready.len().min(free_slots as usize));
        prop_assert_eq!(choice.take.len() + choice.left.len(), ready.len());
    }
}
