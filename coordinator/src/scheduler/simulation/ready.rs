//! The stages that wait for a worker, in the orders in which the database is asked for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Most urgent stages of a project that are looked at. The query of the store has the same numbers.
const URGENT: usize = 32;
/// Oldest stages of a project that are looked at.
const OLDEST: usize = 8;

type Key = (Reverse<i16>, Reverse<u64>, u64, usize);

#[derive(Debug, Default)]
struct Queue {
    by_urgency: BTreeSet<Key>,
    by_age: BTreeSet<(u64, usize)>,
}

/// The stages that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queues: BTreeMap<String, Queue>,
    count: usize,
}

/// A stage in these orders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) job: usize,
    pub(super) priority: i16,
    pub(super) critical_millis: u64,
    pub(super) since: u64,
}

impl Entry {
    fn key(&self) -> Key {
        (Reverse(self.priority), Reverse(self.critical_millis), self.since, self.job)
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, project: &str, entry: &Entry) {
        let queue = self.queues.entry(project.to_owned()).or_default();
        queue.by_urgency.insert(entry.key());
        queue.by_age.insert((entry.since, entry.job));
        self.count += 1;
    }

    pub(super) fn remove(&mut self, project: &str, entry: &Entry) {
        let Some(queue) = self.queues.get_mut(project) else { return };
        queue.by_age.remove(&(entry.since, entry.job));
        if queue.by_urgency.remove(&entry.key()) {
            self.count -= 1;
        }
        if queue.by_urgency.is_empty() {
            self.queues.remove(project);
        }
    }

    /// Those that are looked at.
    pub(super) fn look(&self) -> Vec<usize> {
        let mut jobs = Vec::new();
        for queue in self.queues.values() {
            let first = jobs.len();
            jobs.extend(queue.by_urgency.iter().take(URGENT).map(|(.., job)| *job));
            for (_, job) in queue.by_age.iter().take(OLDEST) {
                if !jobs[first..].contains(job) {
                    jobs.push(*job);
                }
            }
        }
        jobs
    }
}
