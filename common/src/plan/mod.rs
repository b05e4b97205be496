//! The plan of a build: stages, steps and what they read from each other.
//!
//! The planner (crate `dockerfile`) makes it, the coordinator stores it and cuts it into jobs, the
//! worker runs its steps. Everything in it is fully expanded: no variable is left.

mod mount;
mod slice;
mod stages;
mod step;

pub use mount::{Mount, MountOwner, RunOptions, Security, Sharing, Ulimit};
pub use slice::{Demand, SliceSelector};
pub use stages::{Base, ImageIndex, Plan, PlanTarget, PlannedStage, StageIndex};
pub use step::{
    Chmod, CopyFrom, CopyOp, DEFAULT_AGENT, InlineFile, Network, Op, Remote, RunOp, Step, Unpack,
    WorkdirOp, is_over_ssh,
};
