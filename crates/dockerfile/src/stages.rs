//! Instructions to stages.

use common::outcome::LineRange;

use crate::diagnostic::Problem;
use crate::instruction::{Instruction, Spanned};

/// One `FROM …` block, nothing expanded.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) image: String,
    pub(crate) platform: Option<String>,
    /// Lower case.
    pub(crate) name: Option<String>,
    pub(crate) lines: LineRange,
    pub(crate) instructions: Vec<Spanned>,
}

/// Splits at every FROM. What stands before the first one may only be ARG.
pub(crate) fn split(
    instructions: Vec<Spanned>,
) -> Result<(Vec<Spanned>, Vec<Stage>), (Problem, LineRange)> {
    let mut global = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut last = LineRange { start: 1, end: 1 };
    for spanned in instructions {
        last = spanned.lines;
        match (spanned.instruction, stages.last_mut()) {
            (Instruction::From { image, platform, name }, _) => {
                let instructions = Vec::new();
                stages.push(Stage { image, platform, name, lines: spanned.lines, instructions });
            }
            (Instruction::Arg(args), None) => {
                global.push(Spanned { instruction: Instruction::Arg(args), ..spanned });
            }
            (_, None) => {
                let problem = Problem::new("no-stage", "no build stage in current context")
                    .with_hint("a Dockerfile begins with FROM; only ARG may stand before it");
                return Err((problem, spanned.lines));
            }
            (instruction, Some(stage)) => {
                stage.instructions.push(Spanned { instruction, ..spanned });
            }
        }
    }
    if stages.is_empty() {
        return Err((Problem::new("no-stage", "dockerfile contains no stages to build"), last));
    }
    Ok((global, stages))
}
