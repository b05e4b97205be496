//! Running a stage.

pub mod copy;
