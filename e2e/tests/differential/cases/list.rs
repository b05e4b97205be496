//! All of them.

use super::{add, caches, config, copy, errors, layers, options, run, stages, text};
use crate::case::Case;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [
        text::cases(),
        stages::cases(),
        copy::cases(),
        add::cases(),
        run::cases(),
        layers::cases(),
        config::cases(),
        options::cases(),
        caches::cases(),
        errors::cases(),
    ]
    .concat()
}
