//! One held stage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::worker::v1::{HeldPhase, SliceInput, SliceWish};
use common::plan::SliceSelector;
use common::{Digest, Lease, ProjectName, StageId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Fence;

/// Why a stage ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The coordinator wants it dropped: nobody waits for a result.
    Abandoned,
    /// The worker stops: somebody else is to run it.
    HandBack,
}

/// On whose behalf something is fetched.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) lease: Lease,
    pub(crate) project: ProjectName,
}

/// A held stage, as its task and the session share it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) project: ProjectName,
    /// Fires when the stage has to end at once.
    pub(crate) cancel: CancellationToken,
    pub(crate) fence: Arc<Fence>,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    phase: HeldPhase,
    stopped: Option<Stopped>,
    inputs: HashMap<(StageId, Digest), SliceInput>,
}

impl Held {
    pub(crate) fn new(lease: Lease, project: ProjectName, fence: Arc<Fence>) -> Self {
        let state = State { phase: HeldPhase::Running, stopped: None, inputs: HashMap::new() };
        let (cancel, arrived) = (CancellationToken::new(), Notify::new());
        Self { lease, project, cancel, fence, state: Mutex::new(state), arrived }
    }

    /// On whose behalf it fetches.
    pub(crate) fn asker(&self) -> Asker {
        Asker { lease: self.lease, project: self.project.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> HeldPhase {
        self.state().phase.clone()
    }

    pub(crate) fn set_phase(&self, phase: HeldPhase) {
        self.state().phase = phase;
    }

    /// Ends the stage; the first reason counts.
    pub(crate) fn stop(&self, reason: Stopped) {
        self.state().stopped.get_or_insert(reason);
        self.cancel.cancel();
    }

    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.state().stopped
    }

    pub(crate) fn add_inputs(&self, inputs: impl IntoIterator<Item = SliceInput>) {
        let mut state = self.state();
        for input in inputs {
            // What has come is not waited for, even while the stage waits for a slot: otherwise each
            // exchange would bring it again, at once.
            if let HeldPhase::Parked { waiting_for } = &mut state.phase {
                waiting_for
                    .retain(|wish| wish.stage != input.stage || wish.selector != input.selector);
            }
            state.inputs.insert((input.stage, input.selector.digest()), input);
        }
        self.arrived.notify_waiters();
    }

    /// A slice, if it has arrived.
    pub(crate) fn input(&self, stage: StageId, selector: &SliceSelector) -> Option<SliceInput> {
        self.state().inputs.get(&(stage, selector.digest())).cloned()
    }

    /// Waits for a slice. The phase tells the coordinator what is waited for.
    pub(crate) async fn wait_for_input(
        &self,
        stage: StageId,
        selector: &SliceSelector,
    ) -> SliceInput {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state();
                if let Some(input) = state.inputs.get(&(stage, selector.digest())) {
                    return input.clone();
                }
                let waiting_for = vec![SliceWish { stage, selector: selector.clone() }];
                state.phase = HeldPhase::Parked { waiting_for };
            }
            arrived.await;
        }
    }
}
