//! The parts of a farm, each of which can die, hang and come back.

use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::Signal;
use testkit::{Balancer, FaultProxy, Service};

use crate::Farm;
use crate::farm::{start_coordinator, start_s3, start_worker};

/// A part of the farm; coordinators and workers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A coordinator.
    Coordinator(usize),
    /// A worker.
    Worker(usize),
    /// Postgres with all its processes.
    Postgres,
    /// Redis.
    Redis,
    /// The S3 server.
    S3,
    /// The registry.
    Registry,
}

impl Farm {
    /// Kills a part without warning.
    pub fn kill(&mut self, piece: Piece) -> anyhow::Result<()> {
        match piece {
            Piece::Postgres => Ok(self.postgres.kill()?),
            Piece::Redis => Ok(self.redis.service().kill()?),
            Piece::Registry => Ok(self.registry.service().kill()?),
            Piece::Coordinator(_) | Piece::Worker(_) | Piece::S3 => {
                let slot = self.slot(piece)?;
                Ok(slot.take().context("it is gone already")?.kill()?)
            }
        }
    }

    /// Starts a part again that was killed.
    pub fn start_again(&mut self, piece: Piece) -> anyhow::Result<()> {
        let root = self.directory.path().to_owned();
        match piece {
            Piece::Postgres => self.postgres.restart()?,
            Piece::Redis => self.redis.service().restart()?,
            Piece::Registry => self.registry.service().restart()?,
            Piece::S3 => self.s3 = Some(start_s3(&root, &self.s3_host)?.0),
            Piece::Coordinator(number) => {
                *self.slot(piece)? = Some(start_coordinator(&root, number)?);
            }
            Piece::Worker(number) => {
                let started = start_worker(&root, number, self.is_rootless)?;
                *self.slot(piece)? = Some(started);
            }
        }
        Ok(())
    }

    /// Stops a part as SIGSTOP does: its sockets stay open, and nobody answers.
    pub fn pause(&mut self, piece: Piece) -> anyhow::Result<()> {
        self.send_all(piece, Signal::STOP)
    }

    /// Lets a part go on that was paused.
    pub fn resume(&mut self, piece: Piece) -> anyhow::Result<()> {
        self.send_all(piece, Signal::CONT)
    }

    /// Asks a part to stop in order, and does not wait for it.
    pub fn ask_to_stop(&mut self, piece: Piece) -> anyhow::Result<()> {
        self.send(piece, Signal::TERM)
    }

    /// Whether the process of a part runs.
    pub fn is_running(&mut self, piece: Piece) -> anyhow::Result<bool> {
        Ok(match piece {
            Piece::Postgres => self.postgres.is_running(),
            Piece::Redis => self.redis.service().is_running(),
            Piece::Registry => self.registry.is_running(),
            Piece::Coordinator(_) | Piece::Worker(_) | Piece::S3 => {
                self.slot(piece)?.as_mut().is_some_and(Service::is_running)
            }
        })
    }

    fn send(&mut self, piece: Piece, signal: Signal) -> anyhow::Result<()> {
        match piece {
            Piece::Postgres => Ok(self.postgres.signal(signal)?),
            Piece::Redis => Ok(self.redis.service().signal(signal)?),
            Piece::Registry => Ok(self.registry.service().signal(signal)?),
            Piece::Coordinator(_) | Piece::Worker(_) | Piece::S3 => {
                Ok(self.slot(piece)?.as_ref().context("it is gone already")?.signal(signal)?)
            }
        }
    }

    /// A worker is several processes, and the commands that it runs.
    fn send_all(&mut self, piece: Piece, signal: Signal) -> anyhow::Result<()> {
        match piece {
            Piece::Worker(_) => {
                let worker = self.slot(piece)?.as_ref().context("it is gone already")?;
                Ok(worker.signal_tree(signal)?)
            }
            _ => self.send(piece, signal),
        }
    }

    fn slot(&mut self, piece: Piece) -> anyhow::Result<&mut Option<Service>> {
        match piece {
            Piece::Coordinator(number) => self.coordinators.get_mut(number - 1),
            Piece::Worker(number) => self.workers.get_mut(number - 1),
            Piece::S3 => Some(&mut self.s3),
            Piece::Postgres | Piece::Redis | Piece::Registry => None,
        }
        .with_context(|| format!("no such part: {piece:?}"))
    }

    /// The cable between a worker and the coordinators: `FarmOptions::cables`.
    pub fn cable(&self, worker: usize) -> anyhow::Result<&Balancer> {
        self.cables.get(worker - 1).context("the farm has no cables")
    }

    /// The proxy on a worker's cable: `FarmOptions::cables`.
    pub fn cable_faults(&self, worker: usize) -> anyhow::Result<&FaultProxy> {
        self.cable_faults.get(worker - 1).context("the farm has no cables")
    }

    /// The proxy before the S3 server: `FarmOptions::faults`.
    pub fn s3_faults(&self) -> anyhow::Result<&FaultProxy> {
        self.s3_faults.as_ref().context("the farm has no faults")
    }

    /// The proxy before the registry: `FarmOptions::faults`.
    pub fn registry_faults(&self) -> anyhow::Result<&FaultProxy> {
        self.registry_faults.as_ref().context("the farm has no faults")
    }

    /// Copies what all parts have said to where it stays, and gives that directory.
    pub fn keep(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("slipway-chaos-{}", std::process::id()));
        let _ = std::fs::create_dir_all(&kept);
        for entry in std::fs::read_dir(self.directory()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log" || extension == "said") {
                let _ = std::fs::copy(&path, kept.join(entry.file_name()));
            }
        }
        kept
    }

    /// What a part has said so far.
    pub fn log_of(&self, piece: Piece) -> String {
        let name = match piece {
            Piece::Coordinator(1) => "coordinator".to_owned(),
            Piece::Coordinator(number) => format!("coordinator-{number}"),
            Piece::Worker(number) => format!("worker-{number}"),
            Piece::Postgres => "postgres".to_owned(),
            Piece::Redis => "redis".to_owned(),
            Piece::S3 => "s3".to_owned(),
            Piece::Registry => "registry".to_owned(),
        };
        let bytes = std::fs::read(self.directory().join(format!("{name}.log")));
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }
}
