//! Farms in which things die: the parts that can, builds to run meanwhile, and an auditor that looks
//! afterwards whether anything was broken.

mod audit;
mod piece;
mod shape;

pub use piece::Piece;
pub use shape::{Ended, Launched, Shape};
