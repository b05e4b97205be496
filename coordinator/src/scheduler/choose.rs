//! The choice.

use common::{StageId, WorkerId};
use store::ReadyRow;

/// How long a stage waits for the worker that has its base before any other may take it.
const HOME_WAIT_MILLIS: u64 = 300;
/// How long a stage that failed somewhere waits for another worker.
const OTHER_WORKER_WAIT_MILLIS: u64 = 5_000;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    /// The worker.
    pub(crate) worker: WorkerId,
    /// What it runs.
    pub(crate) platforms: Vec<String>,
    /// Its free slots.
    pub(crate) free_slots: u32,
    /// Other live workers with a free slot.
    pub(crate) other_idle: u32,
}

/// The stages that the worker should get now, best first; others are tried where a claim fails.
///
/// Fair first: the project with the fewest running stages. Within a project the longest path to
/// the end of its build, then age. While others are idle too, one stage at a time, so that the
/// stages of a build spread.
pub(crate) fn choose(ready: &[ReadyRow], asking: &Asking) -> Vec<StageId> {
    let mut fitting: Vec<&ReadyRow> =
        ready.iter().filter(|stage| may_take(stage, asking)).collect();
    fitting.sort_by_key(|stage| {
        (
            stage.project_running,
            std::cmp::Reverse(stage.depth),
            std::cmp::Reverse(stage.waiting_millis),
            stage.id,
        )
    });
    let limit = if asking.other_idle > 0 { asking.free_slots.min(1) } else { asking.free_slots };
    fitting.into_iter().take(limit as usize).map(|stage| stage.id).collect()
}

fn may_take(stage: &ReadyRow, asking: &Asking) -> bool {
    if !asking.platforms.contains(&stage.platform) {
        return false;
    }
    let home_waits = stage.home.is_some_and(|home| home != asking.worker)
        && stage.waiting_millis < HOME_WAIT_MILLIS;
    let failed_here = stage.failed_on.contains(&asking.worker)
        && asking.other_idle > 0
        && stage.waiting_millis < OTHER_WORKER_WAIT_MILLIS;
    !home_waits && !failed_here
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::BuildId;
    use uuid::Uuid;

    fn stage(id: u128) -> ReadyRow {
        ReadyRow {
            id: StageId(Uuid::from_u128(id)),
            build: BuildId(Uuid::nil()),
            project: "default".into(),
            platform: "linux/amd64".into(),
            depth: 0,
            waiting_millis: 0,
            home: None,
            failed_on: Vec::new(),
            project_running: 0,
        }
    }

    fn asking(free_slots: u32, other_idle: u32) -> Asking {
        let platforms = vec!["linux/amd64".to_owned()];
        Asking { worker: WorkerId(Uuid::from_u128(1)), platforms, free_slots, other_idle }
    }

    fn chosen(ready: &[ReadyRow], asking: &Asking) -> Vec<u128> {
        choose(ready, asking).into_iter().map(|id| id.0.as_u128()).collect()
    }

    #[test]
    fn the_longest_path_goes_first() {
        let ready =
            [stage(1), ReadyRow { depth: 3, ..stage(2) }, ReadyRow { depth: 1, ..stage(3) }];
        assert_eq!(chosen(&ready, &asking(2, 0)), [2, 3]);
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
        let busy = ReadyRow { project: "busy".into(), project_running: 9, depth: 9, ..stage(1) };
        assert_eq!(chosen(&[busy, stage(2)], &asking(1, 0)), [2]);
    }

    #[test]
    fn a_stage_waits_a_moment_for_its_home() {
        let home = Some(WorkerId(Uuid::from_u128(2)));
        let fresh = ReadyRow { home, waiting_millis: 100, ..stage(1) };
        let old = ReadyRow { home, waiting_millis: 400, ..stage(2) };
        assert_eq!(chosen(&[fresh, old], &asking(2, 0)), [2]);
    }

    #[test]
    fn what_failed_here_goes_elsewhere_if_there_is_an_elsewhere() {
        let failed_on = vec![WorkerId(Uuid::from_u128(1))];
        let failed = ReadyRow { failed_on, ..stage(1) };
        assert_eq!(chosen(std::slice::from_ref(&failed), &asking(1, 1)), [0_u128; 0]);
        assert_eq!(chosen(&[failed], &asking(1, 0)), [1]);
    }

    #[test]
    fn other_platforms_are_left_alone() {
        let other = ReadyRow { platform: "linux/arm64".into(), ..stage(1) };
        assert_eq!(chosen(&[other], &asking(1, 0)), [0_u128; 0]);
    }
}
