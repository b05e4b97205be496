//! End-to-end tests and the demo: the whole farm as real processes.
