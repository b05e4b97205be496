//! What the choice is made of: plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use common::StageId;

/// Bytes that a worker gets and unpacks in a millisecond: 100 MB/s.
const BYTES_PER_MILLI: u64 = 100_000;
/// What getting anything costs, however small it is.
const TRANSFER_START_MILLIS: u64 = 250;

/// What a stage asks of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    /// The platform.
    pub(crate) platform: String,
    /// Labels that the worker has to have, all of them.
    pub(crate) labels: Vec<String>,
    /// Processor time that it declares, in thousandths of a processor.
    pub(crate) cpu_millis: u32,
    /// Memory that it declares.
    pub(crate) memory_bytes: u64,
}

/// What a worker has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Offer {
    /// Platforms.
    pub(crate) platforms: Vec<String>,
    /// Labels.
    pub(crate) labels: Vec<String>,
    /// Processors in thousandths; 0 is not said, and then as many as anybody wants.
    pub(crate) cpu_millis: u32,
    /// Memory; 0 is not said.
    pub(crate) memory_bytes: u64,
}

/// A stage that waits for a worker, as it looks to the one that asks.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    /// The stage.
    pub(crate) id: StageId,
    /// Its project.
    pub(crate) project: String,
    /// What it needs.
    pub(crate) needs: Needs,
    /// Of its build; higher goes first within the project.
    pub(crate) priority: i16,
    /// Milliseconds from its start to the end of its build, as far as history tells.
    pub(crate) critical_millis: u64,
    /// Milliseconds that it has been ready.
    pub(crate) waiting_millis: u64,
    /// Bytes of the layers that it starts from that the asking worker has.
    pub(crate) here_bytes: u64,
    /// The most that any other worker has that could take it now.
    pub(crate) elsewhere_bytes: u64,
    /// Whether the asking worker has failed it.
    pub(crate) failed_here: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    /// What it has.
    pub(crate) offer: Offer,
    /// Declared use of what it runs.
    pub(crate) used_cpu_millis: u32,
    /// Declared use of what it runs.
    pub(crate) used_memory_bytes: u64,
    /// Its free slots.
    pub(crate) free_slots: u32,
    /// Other live workers with a free slot.
    pub(crate) other_idle: u32,
    /// Whether it is to be left alone for a while.
    pub(crate) is_quarantined: bool,
}

/// The shares of the projects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    /// Stages that hold a slot, by project.
    pub(crate) running: BTreeMap<String, u32>,
    /// Weights; a project that is not named has [`Shares::DEFAULT_WEIGHT`].
    pub(crate) weights: BTreeMap<String, u32>,
}

impl Shares {
    /// The weight of a project that nobody gave one.
    pub(crate) const DEFAULT_WEIGHT: u32 = 100;

    pub(crate) fn weight(&self, project: &str) -> u32 {
        self.weights.get(project).copied().unwrap_or(Self::DEFAULT_WEIGHT).max(1)
    }
}

/// How long it takes to get so many bytes to a worker.
pub(crate) fn transfer_millis(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { TRANSFER_START_MILLIS + bytes / BYTES_PER_MILLI }
}

/// Why a worker does not get a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// The worker has failed too often.
    Quarantined,
    /// It runs other platforms.
    Platform,
    /// It lacks this label.
    Label(String),
    /// It has fewer processors, or they are declared for others.
    Cpu,
    /// It has less memory, or that is declared for others.
    Memory,
    /// It has failed this stage, and there are others.
    FailedHere,
    /// Another worker has what it starts from; it waits for that one for so long at most.
    Home(Duration),
    /// Others were more urgent.
    Order,
}

impl Offer {
    /// What the worker lacks of the needs, whatever else it runs.
    pub(crate) fn lacks(&self, needs: &Needs) -> Option<Left> {
        if !self.platforms.contains(&needs.platform) {
            return Some(Left::Platform);
        }
        if let Some(label) = needs.labels.iter().find(|label| !self.labels.contains(label)) {
            return Some(Left::Label(label.clone()));
        }
        if self.cpu_millis > 0 && needs.cpu_millis > self.cpu_millis {
            return Some(Left::Cpu);
        }
        (self.memory_bytes > 0 && needs.memory_bytes > self.memory_bytes).then_some(Left::Memory)
    }
}
