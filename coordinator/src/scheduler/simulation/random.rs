//! Random workloads.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::workload::{Copy, Job, Workload};

/// The graphs of a workload's builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Many stages that one copies from.
    Wide,
    /// A chain, each from the one before.
    Deep,
    /// One stage, many from it, one that copies from all.
    Diamond,
    /// Anything.
    Mixed,
    /// Anything, all at once from one project, and a little from others.
    Burst,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "wide" => Self::Wide,
            "deep" => Self::Deep,
            "diamond" => Self::Diamond,
            "mixed" => Self::Mixed,
            "burst" => Self::Burst,
            _ => return Err("a shape is wide, deep, diamond, mixed or burst".to_owned()),
        })
    }
}

/// Images that builds start from.
const IMAGES: u32 = 20;

/// A workload of so many stages, in builds of up to twelve.
pub fn random(shape: Shape, stages: usize, projects: u32, seed: u64) -> Workload {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut workload = Workload::default();
    while workload.jobs.len() < stages {
        let size = rng.random_range(1..=12).min(stages - workload.jobs.len());
        let project = match shape {
            // Nine of ten builds are one project's.
            Shape::Burst if rng.random_range(0..10) > 0 => 0,
            _ => rng.random_range(0..projects.max(1)),
        };
        let arrives_millis = if shape == Shape::Burst { 0 } else { rng.random_range(0..60_000) };
        let priority = if rng.random_range(0..10) == 0 { 50 } else { 0 };
        build(&mut workload, shape, size, &mut rng, |job| Job {
            project: format!("p{project}"),
            priority,
            arrives_millis,
            ..job
        });
    }
    workload
}

fn build(
    workload: &mut Workload,
    shape: Shape,
    size: usize,
    rng: &mut StdRng,
    finish: impl Fn(Job) -> Job,
) {
    let first = workload.jobs.len();
    for position in 0..size {
        let number = first + position;
        let is_last = position + 1 == size;
        let run_millis = run_millis(rng);
        let (base, from): (Option<usize>, Vec<usize>) = match shape {
            Shape::Wide if is_last => (None, (first..number).collect()),
            Shape::Deep if position > 0 => (Some(number - 1), Vec::new()),
            Shape::Diamond if is_last && position > 1 => (None, (first + 1..number).collect()),
            Shape::Diamond if position > 0 => (Some(first), Vec::new()),
            Shape::Mixed | Shape::Burst if position > 0 => {
                let base = rng.random_bool(0.5).then(|| rng.random_range(first..number));
                let count = rng.random_range(0..=3.min(position));
                (base, (0..count).map(|_| rng.random_range(first..number)).collect())
            }
            _ => (None, Vec::new()),
        };
        let copy = |from| Copy { from, at_millis: rng.random_range(0..=run_millis) };
        let mut copies: Vec<Copy> = from.into_iter().map(copy).collect();
        copies.sort_by_key(|copy| copy.at_millis);
        let bytes = 1 << rng.random_range(20..29);
        let image = rng.random_range(0..IMAGES);
        let (project, priority, arrives_millis) = (String::new(), 0, 0);
        let job = Job { project, priority, arrives_millis, run_millis, base, image, bytes, copies };
        workload.jobs.push(finish(job));
    }
}

/// Most stages are short, a few are long.
fn run_millis(rng: &mut StdRng) -> u64 {
    let scale = 10_f64.powf(rng.random_range(2.5..5.0));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "300 ms to 100 s")]
    let millis = scale as u64;
    millis
}
