//! What is to be run.

/// Files that a stage takes from another one while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Whose: an earlier job.
    pub from: usize,
    /// How far into its own run they are needed, in milliseconds.
    pub at_millis: u64,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its project.
    pub project: String,
    /// Of its build.
    pub priority: i16,
    /// When its build comes.
    pub arrives_millis: u64,
    /// How long it runs, without getting anything.
    pub run_millis: u64,
    /// The job that it starts from; an earlier one.
    pub base: Option<usize>,
    /// Otherwise the image that it starts from.
    pub image: u32,
    /// Bytes of that image, or that the job adds to its base.
    pub bytes: u64,
    /// What it copies, by `at_millis`.
    pub copies: Vec<Copy>,
}

/// Jobs, producers first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// The jobs.
    pub jobs: Vec<Job>,
}

impl Workload {
    /// When the last job ends at the earliest, with workers without number and nothing to get.
    pub fn critical_millis(&self) -> u64 {
        let mut ends: Vec<u64> = Vec::with_capacity(self.jobs.len());
        for job in &self.jobs {
            let mut now = job.base.map_or(0, |base| ends[base]).max(job.arrives_millis);
            let mut done = 0;
            for copy in &job.copies {
                now = (now + copy.at_millis.saturating_sub(done)).max(ends[copy.from]);
                done = done.max(copy.at_millis);
            }
            ends.push(now + job.run_millis.saturating_sub(done));
        }
        ends.into_iter().max().unwrap_or(0)
    }

    /// The work of all jobs.
    pub fn work_millis(&self) -> u64 {
        self.jobs.iter().map(|job| job.run_millis).sum()
    }

    /// No schedule is shorter: the longest path, or the work by the slots.
    pub fn lower_bound_millis(&self, slots: u64) -> u64 {
        let first = self.jobs.iter().map(|job| job.arrives_millis).min().unwrap_or(0);
        self.critical_millis().max(first + self.work_millis().div_ceil(slots.max(1)))
    }

    /// The jobs that each one reads.
    pub(super) fn producers(&self) -> Vec<Vec<usize>> {
        let read = |job: &Job| {
            job.base.into_iter().chain(job.copies.iter().map(|copy| copy.from)).collect()
        };
        self.jobs.iter().map(read).collect()
    }
}
