//! Typed HTTP clients of the coordinator.
