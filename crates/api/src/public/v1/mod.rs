//! Version 1, under `/v1`.

mod agent;
mod build;
mod check;
mod context;
mod keep;
mod log;
mod options;
mod output;
mod plan;
mod why;
mod worker;

pub use agent::{AgentMessage, AgentMessages, AgentPoll, AgentReply};
pub use build::{
    AttachedView, BuildPage, BuildRequest, BuildSource, BuildView, ContextSource, DockerfileSource,
    ExportView, LeftName, Requirements, SliceTransferView, StageView, StepView, TargetRequest,
    TimingView,
};
pub use check::{
    CheckView, FindingView, OutlineArgView, OutlineMountView, OutlineView, TargetView,
};
pub use context::{ContextNegotiation, ContextUpload, PackOffer, UploadTarget};
pub use keep::{KeptObject, ProjectSettings, ProjectView, PurgeView};
pub use log::{LogLine, LogStream};
pub use options::{CommandOptions, HostOption, LayoutImage, NamedContextSource, UlimitOption};
pub use output::{Annotation, AnnotationPlace, ImageOptions, LayerCompression, OutputRequest};
pub use plan::{
    PlanRequest, PlanView, PlannedFate, PlannedStageView, PlannedStepView, RepositoryAnswer,
    RepositoryQuestion,
};
pub use why::{StageReasonsView, StepReasonView, WhyView};
pub use worker::WorkerView;
