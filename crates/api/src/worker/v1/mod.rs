//! Version 1, under `/worker/v1`.
//!
//! The worker dials out. One idempotent call, `sync`, carries the worker's whole state one way and
//! its whole wished state the other way; it is held open until something changes. Every other call
//! names a lease. An older epoch is answered with 409 and changes nothing.

mod agent;
mod enrol;
mod lookup;
mod objects;
mod report;
mod sync;
mod tag;

pub use agent::{AgentAnswer, AgentCall};
pub use enrol::{EnrolRequest, EnrolResponse};
pub use lookup::{LookupRequest, LookupResponse};
pub use objects::{
    GetUrl, ObjectKind, ObjectName, ObjectsRequest, ObjectsResponse, PutUrl, SuspectRequest,
    SuspectResponse,
};
pub use report::{
    DoneReport, ExportResult, LogChunk, ResultReport, SliceReport, SliceUse, StageOutcome,
    StepReport, StepState, StepsReport, StoredPack,
};
pub use sync::{
    Abandon, AbandonReason, Assignment, ExportImage, ExportJob, ExportTarget, HeldPhase, HeldStage,
    InputReady, Job, SliceInput, SliceWish, StageJob, SyncRequest, SyncResponse,
};
pub use tag::{TagAnswer, TagRequest, TagStep};
