//! The farm and its clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use common::StageId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::ready::{Entry, Waiting};
use super::report::{Report, jain};
use super::workload::Workload;
use crate::scheduler::facts::transfer_millis;
use crate::scheduler::{Asking, Needs, Offer, Ready, Shares, choose, critical_paths};

/// Idle workers that are asked at a moment: all of a small farm.
const ASKED: usize = 64;
/// Time until idle workers ask again while something waits.
const ASK_AGAIN_MILLIS: u64 = 50;
/// Workers with a base that are looked at.
const HOLDERS: usize = 32;

/// The workers.
#[derive(Debug, Clone, Default)]
pub struct Farm {
    /// How many.
    pub workers: usize,
    /// Stages that each runs at once.
    pub slots: u32,
    /// Weights of projects; 100 where none is named.
    pub weights: BTreeMap<String, u32>,
    /// Of the order in which idle workers ask.
    pub seed: u64,
}

/// What a job starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Base {
    Image(u32),
    Job(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    /// The job got to its end, or to its next copy.
    Reached(usize),
    AskAgain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Ready,
    Held,
    Parked,
    Ended,
}

#[derive(Debug)]
struct Progress {
    state: State,
    worker: usize,
    /// Milliseconds of its run that are over, and copies that it has.
    done_millis: u64,
    copied: usize,
    ready_since: u64,
    slot_since: u64,
    /// Bytes of its base and of what it made.
    chain_bytes: u64,
}

#[derive(Debug, Default)]
struct Worker {
    free: u32,
    has: HashSet<Base>,
    /// Parked jobs that could go on.
    resuming: VecDeque<usize>,
}

/// Runs a workload.
pub fn simulate(workload: &Workload, farm: &Farm) -> Report {
    let mut run = Run::new(workload, farm);
    run.run_all();
    run.report()
}

struct Run<'a> {
    workload: &'a Workload,
    farm: &'a Farm,
    rng: StdRng,
    now: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    asks_again: bool,
    progress: Vec<Progress>,
    critical: Vec<u64>,
    /// Jobs that start from, or copy out of, each one.
    consumers: Vec<Vec<usize>>,
    workers: Vec<Worker>,
    idle: BTreeSet<usize>,
    waiting: Waiting,
    holders: HashMap<Base, Vec<usize>>,
    shares: Shares,
    /// Jobs that have not ended, and slot time that was got, by project.
    open: BTreeMap<String, usize>,
    got: BTreeMap<String, u64>,
    fairness: Option<f64>,
    longest_waits: BTreeMap<String, u64>,
    moved_bytes: u64,
    decisions: u64,
    deciding: Duration,
}

impl<'a> Run<'a> {
    fn new(workload: &'a Workload, farm: &'a Farm) -> Self {
        let jobs = &workload.jobs;
        let mut consumers = vec![Vec::new(); jobs.len()];
        let producers = workload.producers();
        for (job, read) in producers.iter().enumerate() {
            for &producer in read {
                consumers[producer].push(job);
            }
        }
        let millis: Vec<u64> = jobs.iter().map(|job| job.run_millis).collect();
        let mut open: BTreeMap<String, usize> = BTreeMap::new();
        for job in jobs {
            *open.entry(job.project.clone()).or_default() += 1;
        }
        let progress = jobs.iter().map(|_| Progress {
            state: State::Waiting,
            worker: 0,
            done_millis: 0,
            copied: 0,
            ready_since: 0,
            slot_since: 0,
            chain_bytes: 0,
        });
        let arrivals = jobs.iter().enumerate();
        Self {
            workload,
            farm,
            rng: StdRng::seed_from_u64(farm.seed),
            now: 0,
            events: arrivals
                .map(|(number, job)| Reverse((job.arrives_millis, Event::Arrives(number))))
                .collect(),
            asks_again: false,
            progress: progress.collect(),
            critical: critical_paths(&millis, &producers),
            consumers,
            workers: (0..farm.workers)
                .map(|_| Worker { free: farm.slots, ..Worker::default() })
                .collect(),
            idle: (0..farm.workers).collect(),
            waiting: Waiting::default(),
            holders: HashMap::new(),
            shares: Shares { running: BTreeMap::new(), weights: farm.weights.clone() },
            got: open.keys().map(|project| (project.clone(), 0)).collect(),
            open,
            fairness: None,
            longest_waits: BTreeMap::new(),
            moved_bytes: 0,
            decisions: 0,
            deciding: Duration::ZERO,
        }
    }

    fn run_all(&mut self) {
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            self.happens(event);
            let is_last_of_moment = self.events.peek().is_none_or(|Reverse((next, _))| *next > at);
            if is_last_of_moment {
                self.ask_all();
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives(job) => self.make_ready(job),
            Event::AskAgain => self.asks_again = false,
            Event::Reached(job) => {
                let copies = &self.workload.jobs[job].copies;
                if self.progress[job].copied < copies.len() {
                    self.go_on(job);
                } else {
                    self.end(job);
                }
            }
        }
    }

    /// Ready as soon as its build is there and its base has ended.
    fn make_ready(&mut self, number: usize) {
        let job = &self.workload.jobs[number];
        let is_based = job.base.is_none_or(|base| self.progress[base].state == State::Ended);
        let progress = &mut self.progress[number];
        if progress.state != State::Waiting || !is_based || self.now < job.arrives_millis {
            return;
        }
        progress.state = State::Ready;
        progress.ready_since = self.now;
        let entry = self.entry(number);
        self.waiting.add(&job.project, &entry);
    }

    fn entry(&self, job: usize) -> Entry {
        Entry {
            job,
            priority: self.workload.jobs[job].priority,
            critical_millis: self.critical[job],
            since: self.progress[job].ready_since,
        }
    }

    fn base(&self, number: usize) -> (Base, u64) {
        let job = &self.workload.jobs[number];
        match job.base {
            Some(base) => (Base::Job(base), self.progress[base].chain_bytes),
            None => (Base::Image(job.image), job.bytes),
        }
    }

    /// Idle workers ask, in random order, those first that have what somebody starts from.
    fn ask_all(&mut self) {
        let mut has_progress = true;
        while has_progress && !self.waiting.is_empty() && !self.idle.is_empty() {
            has_progress = false;
            for worker in self.askers() {
                if self.waiting.is_empty() {
                    return;
                }
                has_progress |= self.workers[worker].free > 0 && self.ask(worker);
            }
        }
        if !self.waiting.is_empty() && !self.idle.is_empty() && !self.asks_again {
            self.asks_again = true;
            self.events.push(Reverse((self.now + ASK_AGAIN_MILLIS, Event::AskAgain)));
        }
    }

    fn askers(&mut self) -> Vec<usize> {
        let mut askers = Vec::new();
        if self.idle.len() <= ASKED {
            askers.extend(&self.idle);
        } else {
            for job in self.waiting.look().into_iter().take(ASKED) {
                let holders = self.holders.get(&self.base(job).0);
                let free = |worker: &&usize| self.idle.contains(*worker);
                askers.extend(holders.into_iter().flatten().take(HOLDERS).find(free));
            }
            for _ in 0..ASKED {
                let from = self.rng.random_range(0..self.workers.len());
                let next = self.idle.range(from..).next().or_else(|| self.idle.first());
                askers.extend(next);
            }
        }
        for position in (1..askers.len()).rev() {
            askers.swap(position, self.rng.random_range(0..=position));
        }
        askers
    }

    /// One worker asks; whether it got anything.
    fn ask(&mut self, worker: usize) -> bool {
        let jobs = self.waiting.look();
        let ready: Vec<Ready> = jobs.iter().map(|&job| self.view(job, worker)).collect();
        let others = self.idle.len() - 1;
        let asking = Asking {
            offer: Offer { platforms: vec![String::new()], ..Offer::default() },
            used_cpu_millis: 0,
            used_memory_bytes: 0,
            free_slots: self.workers[worker].free,
            other_idle: u32::try_from(others).unwrap_or(u32::MAX),
            is_quarantined: false,
        };
        let start = Instant::now();
        let choice = choose(&ready, &asking, &self.shares);
        self.deciding += start.elapsed();
        self.decisions += 1;
        for stage in &choice.take {
            let job = usize::try_from(stage.0.as_u128()).unwrap_or(usize::MAX);
            self.begin(job, worker);
        }
        !choice.take.is_empty()
    }

    fn view(&self, number: usize, worker: usize) -> Ready {
        let job = &self.workload.jobs[number];
        let (base, base_bytes) = self.base(number);
        let has = |is_there: bool| if is_there { base_bytes } else { 0 };
        let holders = self.holders.get(&base).into_iter().flatten().take(HOLDERS);
        let is_elsewhere =
            holders.into_iter().any(|&holder| holder != worker && self.workers[holder].free > 0);
        Ready {
            id: StageId(Uuid::from_u128(number as u128)),
            project: job.project.clone(),
            needs: Needs::default(),
            priority: job.priority,
            critical_millis: self.critical[number],
            waiting_millis: self.now - self.progress[number].ready_since,
            here_bytes: has(self.workers[worker].has.contains(&base)),
            elsewhere_bytes: has(is_elsewhere),
            failed_here: false,
        }
    }

    fn begin(&mut self, number: usize, worker: usize) {
        let job = &self.workload.jobs[number];
        let entry = self.entry(number);
        self.waiting.remove(&job.project, &entry);
        let longest = self.longest_waits.entry(job.project.clone()).or_default();
        *longest = (*longest).max(self.now - entry.since);
        let (base, base_bytes) = self.base(number);
        let fetch_millis = if self.learn(worker, base) {
            self.moved_bytes += base_bytes;
            transfer_millis(base_bytes)
        } else {
            0
        };
        let added = if job.base.is_some() { job.bytes } else { job.bytes / 10 };
        let progress = &mut self.progress[number];
        progress.chain_bytes = base_bytes + added;
        progress.worker = worker;
        self.take_slot(number);
        self.run_on(number, fetch_millis);
    }

    /// The worker has it from now on; whether that is news.
    fn learn(&mut self, worker: usize, base: Base) -> bool {
        let is_new = self.workers[worker].has.insert(base);
        if is_new {
            self.holders.entry(base).or_default().push(worker);
        }
        is_new
    }

    fn take_slot(&mut self, number: usize) {
        let worker = self.progress[number].worker;
        self.workers[worker].free -= 1;
        if self.workers[worker].free == 0 {
            self.idle.remove(&worker);
        }
        self.progress[number].state = State::Held;
        self.progress[number].slot_since = self.now;
        let project = self.workload.jobs[number].project.clone();
        *self.shares.running.entry(project).or_default() += 1;
    }

    fn free_slot(&mut self, number: usize, state: State) {
        self.progress[number].state = state;
        let project = &self.workload.jobs[number].project;
        if let Some(running) = self.shares.running.get_mut(project) {
            *running -= 1;
        }
        if let Some(got) = self.got.get_mut(project) {
            *got += self.now - self.progress[number].slot_since;
        }
        let worker = self.progress[number].worker;
        self.workers[worker].free += 1;
        match self.workers[worker].resuming.pop_front() {
            // What was parked here goes before anything new.
            Some(parked) => {
                self.take_slot(parked);
                self.run_on(parked, 0);
            }
            None => {
                self.idle.insert(worker);
            }
        }
    }

    /// Runs to the next copy or to the end.
    fn run_on(&mut self, number: usize, fetch_millis: u64) {
        let job = &self.workload.jobs[number];
        let progress = &mut self.progress[number];
        let until = job.copies.get(progress.copied).map_or(job.run_millis, |copy| copy.at_millis);
        let rest = until.saturating_sub(progress.done_millis);
        progress.done_millis = progress.done_millis.max(until);
        self.events.push(Reverse((self.now + fetch_millis + rest, Event::Reached(number))));
    }

    /// At a copy: on if the files are there, else the slot is given up.
    fn go_on(&mut self, number: usize) {
        let copy = self.workload.jobs[number].copies[self.progress[number].copied];
        if self.progress[copy.from].state == State::Ended {
            self.progress[number].copied += 1;
            self.run_on(number, 0);
        } else {
            self.free_slot(number, State::Parked);
        }
    }

    fn end(&mut self, number: usize) {
        self.free_slot(number, State::Ended);
        self.learn(self.progress[number].worker, Base::Job(number));
        for consumer in self.consumers[number].clone() {
            self.make_ready(consumer);
            let waits_for = self.workload.jobs[consumer]
                .copies
                .get(self.progress[consumer].copied)
                .map(|copy| copy.from);
            if self.progress[consumer].state != State::Parked || waits_for != Some(number) {
                continue;
            }
            self.progress[consumer].copied += 1;
            let worker = self.progress[consumer].worker;
            if self.workers[worker].free > 0 {
                self.take_slot(consumer);
                self.run_on(consumer, 0);
            } else {
                self.workers[worker].resuming.push_back(consumer);
                // It waits for a slot, no longer for files.
                self.progress[consumer].state = State::Held;
            }
        }
        let project = &self.workload.jobs[number].project;
        if let Some(open) = self.open.get_mut(project) {
            *open -= 1;
            if *open == 0 && self.fairness.is_none() {
                self.fairness = Some(self.fairness_now());
            }
        }
    }

    /// What each project has got by its weight, with what it is getting.
    fn fairness_now(&self) -> f64 {
        let mut got = self.got.clone();
        for (progress, job) in self.progress.iter().zip(&self.workload.jobs) {
            if let (State::Held, Some(got)) = (progress.state, got.get_mut(&job.project)) {
                *got += self.now - progress.slot_since;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "an index of few digits")]
        let part = |(project, millis): (&String, &u64)| {
            *millis as f64 / f64::from(self.shares.weight(project))
        };
        jain(&got.iter().map(part).collect::<Vec<f64>>())
    }

    fn report(self) -> Report {
        let ended = |progress: &&Progress| progress.state == State::Ended;
        let finished = self.progress.iter().filter(ended).count();
        let slots = self.farm.workers as u64 * u64::from(self.farm.slots);
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let micros_a_decision = self.deciding.as_secs_f64() * 1e6 / self.decisions.max(1) as f64;
        Report {
            finished,
            unfinished: self.progress.len() - finished,
            makespan_millis: self.now,
            lower_bound_millis: self.workload.lower_bound_millis(slots),
            fairness: self.fairness.unwrap_or(1.0),
            longest_waits_millis: self.longest_waits,
            moved_bytes: self.moved_bytes,
            decisions: self.decisions,
            micros_a_decision,
        }
    }
}
