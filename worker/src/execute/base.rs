//! A base that has ended on this worker and is not stored yet: it is read where it lies.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use common::image::Layer;
use common::{Failure, FailureClass, StageId};
use tokio::sync::watch;

use super::failure::JobError;
use crate::content::{ContentStore, OpenChain};

/// Builds are short; layers that nobody has asked for in so many stages are not asked for any more.
const MAX_STAGES: usize = 1000;

/// The root file system of another stage.
#[derive(Debug)]
pub(super) struct LocalBase {
    pub(super) stage: StageId,
    pub(super) local: OpenChain,
}

impl LocalBase {
    /// Opens what a stage has left here.
    pub(super) fn open(content: &ContentStore, stage: StageId) -> Result<Self, JobError> {
        let local = content.open_chain(stage).ok_or_else(gone)?;
        Ok(Self { stage, local })
    }
}

fn gone() -> JobError {
    let message = "what the base stage left on this worker is not there any more";
    Failure::new(FailureClass::Infrastructure, "base-gone", message).into()
}

/// The layers of stages that ran here, for those that have started from them before they were known.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<HashMap<StageId, watch::Receiver<Option<Vec<Layer>>>>>);

impl Published {
    /// A stage has ended: its layers follow, or the sender is dropped.
    pub(super) fn announce(&self, stage: StageId) -> watch::Sender<Option<Vec<Layer>>> {
        let (sender, receiver) = watch::channel(None);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_STAGES {
            // Those that are still being made stay.
            all.retain(|_, receiver| receiver.borrow().is_none() && receiver.has_changed().is_ok());
        }
        all.insert(stage, receiver);
        sender
    }

    /// Waits for the layers of a stage.
    pub(super) async fn layers(&self, stage: StageId) -> Result<Vec<Layer>, JobError> {
        let receiver = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&stage).cloned()
        };
        let mut receiver = receiver.ok_or_else(gone)?;
        let layers = receiver.wait_for(Option::is_some).await.map_err(|_| gone())?;
        layers.clone().ok_or_else(gone)
    }
}
