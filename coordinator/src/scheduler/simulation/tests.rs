use proptest::prelude::*;

use super::*;

fn farm(workers: usize, slots: u32) -> Farm {
    Farm { workers, slots, ..Farm::default() }
}

fn job(run_millis: u64, base: Option<usize>) -> Job {
    Job {
        project: "p0".into(),
        priority: 0,
        arrives_millis: 0,
        run_millis,
        base,
        image: 0,
        bytes: 0,
        copies: Vec::new(),
    }
}

/// Jobs of any graph: each reads some of those before it.
fn any_workload(with_copies: bool) -> impl Strategy<Value = Workload> {
    let part = (1_u64..10_000, 0_u8..4, -100_i16..=100, any::<u64>(), any::<u64>(), 0_u64..5_000);
    proptest::collection::vec(part, 1..60).prop_map(move |parts| {
        let mut workload = Workload::default();
        for (number, (run_millis, project, priority, one, other, arrives)) in
            parts.into_iter().enumerate()
        {
            let pick = |seed: u64| usize::try_from(seed).unwrap() % number.max(1);
            let base = (number > 0 && one % 3 == 0).then(|| pick(one));
            let count = if with_copies && number > 0 { other % 4 } else { 0 };
            let mut copies: Vec<Copy> = (0..count)
                .map(|n| Copy {
                    from: pick(other / (n + 1)),
                    at_millis: (one >> n) % (run_millis + 1),
                })
                .collect();
            copies.sort_by_key(|copy| copy.at_millis);
            let arrives_millis = if with_copies { arrives } else { 0 };
            let project = format!("p{project}");
            let bytes = if with_copies { one % (1 << 30) } else { 0 };
            workload.jobs.push(Job {
                project,
                priority,
                arrives_millis,
                copies,
                bytes,
                ..job(run_millis, base)
            });
        }
        workload
    })
}

proptest! {
    /// Stages park and go on: whatever the graph, and with one slot, everything ends.
    #[test]
    fn two_parents_two_children_no_deadlock(
        workload in any_workload(true),
        workers in 1_usize..9,
        slots in 1_u32..4,
        seed in any::<u64>(),
    ) {
        let report = simulate(&workload, &Farm { seed, ..farm(workers, slots) });
        prop_assert_eq!(report.unfinished, 0);
        prop_assert!(report.makespan_millis >= report.lower_bound_millis);
    }

    /// Graham: no schedule that leaves no slot free in vain is longer than twice the best.
    #[test]
    fn without_transfers_a_schedule_is_at_most_twice_the_bound(
        workload in any_workload(false),
        workers in 1_usize..9,
        slots in 1_u32..4,
    ) {
        let report = simulate(&workload, &farm(workers, slots));
        prop_assert_eq!(report.unfinished, 0);
        prop_assert!(report.ratio() <= 2.0, "{}", report);
    }
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    let workload = random(Shape::Mixed, 500, 5, 7);
    let run = |seed| {
        let report = simulate(&workload, &Farm { seed, ..farm(20, 2) });
        (report.makespan_millis, report.moved_bytes, report.longest_waits_millis)
    };
    assert_eq!(run(1), run(1));
    assert_eq!(workload, random(Shape::Mixed, 500, 5, 7));
}

#[test]
fn a_chain_stays_on_one_worker() {
    let mut chain = random(Shape::Deep, 12, 1, 3);
    for (number, job) in chain.jobs.iter_mut().enumerate() {
        // One build, however it was cut.
        job.base = number.checked_sub(1);
        job.arrives_millis = 0;
    }
    let report = simulate(&chain, &farm(8, 1));
    // Only the image of the first stage was got.
    assert_eq!(report.moved_bytes, chain.jobs[0].bytes, "{report}");
}

#[test]
fn projects_share_a_burst_by_their_weights() {
    let of = |project: &str| Job { project: project.into(), ..job(1_000, None) };
    let jobs = (0..900).map(|n| of(if n % 3 == 0 { "light" } else { "heavy" })).collect();
    let weights = [("light".to_owned(), 100), ("heavy".to_owned(), 200)].into();
    let report = simulate(&Workload { jobs }, &Farm { weights, ..farm(10, 3) });
    assert!(report.fairness > 0.98, "{report}");
}

#[test]
fn a_flood_of_one_project_does_not_starve_the_others() {
    let flood = (0..5_000).map(|_| Job { priority: 100, ..job(60_000, None) });
    let late = Job {
        project: "small".into(),
        priority: -100,
        arrives_millis: 100_000,
        ..job(1_000, None)
    };
    let jobs: Vec<Job> = flood.chain([late]).collect();
    let report = simulate(&Workload { jobs }, &farm(10, 1));
    assert_eq!(report.unfinished, 0);
    // It gets the next slot: at most one run of the others later, of five hundred.
    assert!(report.longest_waits_millis["small"] <= 60_000, "{report}");
}

#[test]
fn a_recorded_build_is_simulated() {
    let id = |n: u8| format!("00000000-0000-7000-8000-0000000000{n:02}");
    let stage = |n: u8, needs: &[u8], start: u8, end: u8| {
        let millis = u64::from(end - start) * 1_000;
        serde_json::json!({
            "id": id(n), "label": format!("s{n}"), "kind": "stage", "state": "succeeded",
            "worker": "w", "attempts": 1, "needs": needs.iter().map(|n| id(*n)).collect::<Vec<_>>(),
            "steps": [], "transfers": [], "uploaded_bytes": 1000,
            "timing": {"queue_millis": 0, "parked_millis": 0, "fetch_millis": 0,
                       "run_millis": millis, "snapshot_millis": 0, "upload_millis": 0},
            "started_at": format!("2026-01-01T00:00:{start:02}Z"),
            "ended_at": format!("2026-01-01T00:00:{end:02}Z"),
        })
    };
    let view = serde_json::json!({
        "id": id(99), "project": "default", "state": "succeeded", "dockerfile": "Dockerfile",
        "target": null, "exports": [], "created_at": "2026-01-01T00:00:00Z",
        "stages": [stage(1, &[], 0, 10), stage(2, &[1], 10, 15), stage(3, &[2], 0, 20)],
    });
    let workload = recorded(view.to_string().as_bytes(), 1).unwrap();
    assert_eq!(workload.jobs[1].base, Some(0));
    assert_eq!(workload.jobs[2].copies, [Copy { from: 1, at_millis: 15_000 }]);
    assert_eq!(workload.critical_millis(), 20_000);
    let twice = recorded(view.to_string().as_bytes(), 2).unwrap();
    assert_eq!(simulate(&twice, &farm(4, 1)).finished, 6);
    assert!(matches!(recorded(b"{}", 1), Err(RecordingError::Document(_))));
}
