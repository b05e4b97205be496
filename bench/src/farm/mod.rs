//! The rows of a farm: what several workers are worth, and what a coordinator can bear.

mod graphs;
mod history;
mod processors;
mod rows;
mod swarm;

pub(crate) use rows::run;
