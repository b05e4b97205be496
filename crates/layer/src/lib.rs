//! Deterministic layer archives: writing, extraction, whiteouts, compression, path guard.
