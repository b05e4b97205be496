//! Builds on a farm in which something dies, hangs or is cut off all the time: `make chaos`.
//!
//! Rounds of a few builds and a few faults each, chosen by a seed. After each round all is mended, the
//! builds end, and the auditor looks. `CHAOS_SECONDS` is for how long (default: half an hour),
//! `CHAOS_SEED` the seed of the first round; each round says its seed, and a run that begins with it makes the same
//! choices.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::{Farm, FarmOptions, Launched, Piece, Shape};
use testkit::{Dice, Fault, Rule};

/// Without another wish.
const SECONDS: u64 = 1800;
/// Longest time that a build may take once all is mended.
const LIMIT: Duration = Duration::from_mins(3);
/// Workers and coordinators.
const WORKERS: usize = 3;
const COORDINATORS: usize = 2;

fn main() -> anyhow::Result<()> {
    let seconds = number("CHAOS_SECONDS")?.unwrap_or(SECONDS);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let first = number("CHAOS_SEED")?.unwrap_or(now.as_secs());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut farm = start(first)?;
    let (mut rounds, mut builds) = (0, 0);
    for seed in first.. {
        if Instant::now() >= until {
            break;
        }
        match round(&mut farm, seed) {
            Ok(count) => builds += count,
            Err(error) => {
                let kept = farm.keep();
                println!("round {seed}: FAILED: {error:#}");
                println!("the logs are in {}; again: CHAOS_SEED={seed} make chaos", kept.display());
                anyhow::bail!("{rounds} rounds were well, the one with seed {seed} was not");
            }
        }
        rounds += 1;
    }
    println!("{rounds} rounds from seed {first}, {builds} builds: nothing was broken");
    Ok(())
}

fn number(name: &str) -> anyhow::Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{name} is not a number: {text}"))?))
}

fn start(seed: u64) -> anyhow::Result<Farm> {
    Farm::start(FarmOptions {
        workers: WORKERS,
        slots: 2,
        lost_after_secs: 4,
        coordinators: COORDINATORS,
        faults: Some(seed),
        cables: true,
        ..FarmOptions::default()
    })
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Kill(Piece),
    Pause(Piece),
    Cut(usize),
    Objects(u8),
    Images(u8),
    Answers(usize),
}

impl Trouble {
    fn choose(dice: &mut Dice) -> Self {
        let piece = |dice: &mut Dice| match dice.below(7) {
            0 | 1 => Piece::Worker(1 + dice.below(WORKERS)),
            2 | 3 => Piece::Coordinator(1 + dice.below(COORDINATORS)),
            4 => Piece::Postgres,
            5 => Piece::Redis,
            _ => Piece::S3,
        };
        match dice.below(10) {
            0..=3 => Self::Kill(piece(dice)),
            4 | 5 => Self::Pause(piece(dice)),
            6 => Self::Cut(1 + dice.below(WORKERS)),
            7 => Self::Objects(u8::try_from(dice.below(5)).unwrap_or(0)),
            8 => Self::Images(u8::try_from(dice.below(5)).unwrap_or(0)),
            _ => Self::Answers(1 + dice.below(WORKERS)),
        }
    }

    fn begin(self, farm: &mut Farm) -> anyhow::Result<()> {
        match self {
            Self::Kill(piece) => farm.kill(piece)?,
            Self::Pause(piece) => farm.pause(piece)?,
            Self::Cut(worker) => farm.cable(worker)?.cut(),
            Self::Objects(kind) => farm.s3_faults()?.add(spoil(kind)),
            Self::Images(kind) => farm.registry_faults()?.add(spoil(kind)),
            Self::Answers(worker) => {
                let rule = Rule::always(Fault::LoseAnswer).path("/worker/").one_in(3);
                farm.cable_faults(worker)?.add(rule);
            }
        }
        Ok(())
    }

    fn end(self, farm: &mut Farm) -> anyhow::Result<()> {
        match self {
            Self::Kill(piece) => farm.start_again(piece)?,
            Self::Pause(piece) => farm.resume(piece)?,
            Self::Cut(worker) => farm.cable(worker)?.heal(),
            Self::Objects(_) => farm.s3_faults()?.clear(),
            Self::Images(_) => farm.registry_faults()?.clear(),
            Self::Answers(worker) => farm.cable_faults(worker)?.clear(),
        }
        Ok(())
    }
}

/// A rule that is bad, and can be lived with.
fn spoil(kind: u8) -> Rule {
    let fault = match kind {
        0 => Fault::Status { status: 503, headers: Vec::new() },
        1 => Fault::Cut { at: 1000 },
        2 => Fault::Corrupt { at: 100 },
        3 => Fault::Delay(Duration::from_secs(2)),
        _ => Fault::Reset,
    };
    let rule = Rule::always(fault).one_in(4);
    // What is broken on its way here; a head that is answered has no body.
    if matches!(kind, 1 | 2) { rule.method("GET").path("sha256").times(3) } else { rule }
}

/// One round; gives how many builds it had.
fn round(farm: &mut Farm, seed: u64) -> anyhow::Result<usize> {
    let mut dice = Dice::new(seed);
    let start = Instant::now();
    let count = 2 + dice.below(4);
    let mut builds: Vec<Launched> = Vec::new();
    for number in 0..count {
        let shape = *dice.pick(&Shape::ALL);
        // Some are alike, and share their runs.
        let salt = if dice.once_in(3) { 0 } else { number };
        builds.push(farm.launch(shape, &format!("s{seed}-{salt}"), 1.0)?);
    }
    let mut told = Vec::new();
    for _ in 0..=dice.below(3) {
        let pause = dice.between(Duration::from_millis(50), Duration::from_secs(2));
        let trouble = Trouble::choose(&mut dice);
        let length = dice.between(Duration::from_millis(200), Duration::from_secs(6));
        std::thread::sleep(pause);
        let at = start.elapsed().as_millis();
        told.push(format!("{trouble:?} at {at} ms for {} ms", length.as_millis()));
        trouble.begin(farm).with_context(|| told.join(", "))?;
        std::thread::sleep(length);
        trouble.end(farm).with_context(|| told.join(", "))?;
    }
    let troubles = told.join(", ");
    for build in builds {
        let ended = build.finish(LIMIT).with_context(|| troubles.clone())?;
        ended.check().with_context(|| troubles.clone())?;
    }
    let wrong = farm.audit().with_context(|| troubles.clone())?;
    anyhow::ensure!(wrong.is_empty(), "{troubles}: {}", wrong.join("; "));
    farm.wait_for_workers(WORKERS).with_context(|| troubles.clone())?;
    println!("round {seed}: {count} builds, {:.1} s: {troubles}", start.elapsed().as_secs_f64());
    Ok(count)
}
