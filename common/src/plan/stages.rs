//! Stages of a plan, and the plan itself.

use serde::{Deserialize, Serialize};

use super::{Demand, Step};
use crate::image::{ContainerConfig, HistoryEntry, ResolvedImage};
use crate::outcome::LineRange;
use crate::{Digest, Platform};

/// Position of a stage in [`Plan::stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageIndex(pub u32);

/// Position of an image in [`Plan::images`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageIndex(pub u32);

/// What a build does: only the stages that its targets need, producers before consumers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The stages.
    pub stages: Vec<PlannedStage>,
    /// The images that were asked for, at least one.
    pub targets: Vec<PlanTarget>,
    /// Every image that a stage starts from or copies from.
    pub images: Vec<ResolvedImage>,
}

/// An image that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanTarget {
    /// The stage whose result it is.
    pub stage: StageIndex,
    /// Its platform.
    pub platform: Platform,
}

/// One `FROM …` block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// Its position in the plan.
    pub index: StageIndex,
    /// Its position in the Dockerfile, from 0: what `COPY --from=0` means.
    pub source_index: u32,
    /// Its name after `AS`, lower case.
    pub name: Option<String>,
    /// Name for people: the name, else `stage-<source index>`.
    pub label: String,
    /// Line of the `FROM` instruction.
    pub lines: LineRange,
    /// What it starts from.
    pub base: Base,
    /// Platform that its commands run on.
    pub platform: Platform,
    /// The steps that change its file system, in order. The key of each covers all before it.
    pub steps: Vec<Step>,
    /// Key of the whole stage: that of the last step, else of the base.
    pub key: Digest,
    /// Configuration of its image.
    pub config: ContainerConfig,
    /// Author, from `MAINTAINER` or the base.
    pub author: Option<String>,
    /// History of its own instructions, without times, without the base image's.
    /// Entries without `empty_layer` stand for `steps`, one each, in the same order.
    pub history: Vec<HistoryEntry>,
    /// What other stages of the plan copy out of it, without duplicates.
    pub demands: Vec<Demand>,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image of a registry.
    Image(ImageIndex),
    /// Another stage.
    Stage(StageIndex),
}

impl Plan {
    /// The stage at `index`.
    ///
    /// # Panics
    /// If the index is of another plan.
    pub fn stage(&self, index: StageIndex) -> &PlannedStage {
        &self.stages[index.0 as usize]
    }

    /// The image at `index`.
    ///
    /// # Panics
    /// If the index is of another plan.
    pub fn image(&self, index: ImageIndex) -> &ResolvedImage {
        &self.images[index.0 as usize]
    }
}

impl PlannedStage {
    /// The stages that it reads: its base first, then what its steps copy from, without duplicates.
    pub fn inputs(&self) -> Vec<StageIndex> {
        let base = match self.base {
            Base::Stage(stage) => Some(stage),
            Base::Scratch | Base::Image(_) => None,
        };
        let copied = self.steps.iter().flat_map(Step::input_slices).map(|(stage, _)| stage);
        let mut inputs: Vec<StageIndex> = Vec::new();
        for stage in base.into_iter().chain(copied) {
            if !inputs.contains(&stage) {
                inputs.push(stage);
            }
        }
        inputs
    }
}
