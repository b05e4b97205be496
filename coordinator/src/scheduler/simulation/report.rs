//! What a simulation came to.

use std::collections::BTreeMap;
use std::fmt;

/// Figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Jobs that were run.
    pub finished: usize,
    /// Jobs that never ended: a deadlock.
    pub unfinished: usize,
    /// When the last one ended.
    pub makespan_millis: u64,
    /// No schedule ends earlier.
    pub lower_bound_millis: u64,
    /// Jain's index of what the projects got by their weights, until the first had all it wanted: 1 is
    /// fair.
    pub fairness: f64,
    /// Longest time that a stage was ready, by project.
    pub longest_waits_millis: BTreeMap<String, u64>,
    /// Bytes that workers had to get to start.
    pub moved_bytes: u64,
    /// Decisions, and the processor time of each on average.
    pub decisions: u64,
    /// In microseconds.
    pub micros_a_decision: f64,
}

impl Report {
    /// How much longer it took than it has to.
    pub fn ratio(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let ratio = self.makespan_millis as f64 / self.lower_bound_millis.max(1) as f64;
        ratio
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let (seconds, moved) = (|millis: u64| millis as f64 / 1e3, self.moved_bytes as f64 / 1e9);
        writeln!(f, "stages           {} ({} never ended)", self.finished, self.unfinished)?;
        writeln!(f, "makespan         {:.1} s", seconds(self.makespan_millis))?;
        writeln!(f, "lower bound      {:.1} s", seconds(self.lower_bound_millis))?;
        writeln!(f, "ratio            {:.2}", self.ratio())?;
        writeln!(f, "fairness (Jain)  {:.3}", self.fairness)?;
        let longest = self.longest_waits_millis.iter().max_by_key(|(_, millis)| **millis);
        if let Some((project, millis)) = longest {
            writeln!(f, "longest wait     {:.1} s, of {project}", seconds(*millis))?;
        }
        writeln!(f, "moved            {moved:.2} GB")?;
        write!(f, "decisions        {} of {:.1} µs", self.decisions, self.micros_a_decision)
    }
}

/// Jain's index.
pub(super) fn jain(parts: &[f64]) -> f64 {
    let sum: f64 = parts.iter().sum();
    let squares: f64 = parts.iter().map(|part| part * part).sum();
    #[expect(clippy::cast_precision_loss, reason = "projects are few")]
    let count = parts.len() as f64;
    if squares == 0.0 { 1.0 } else { sum * sum / (count * squares) }
}
