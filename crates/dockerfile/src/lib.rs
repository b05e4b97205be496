//! Dockerfile text to plan and diagnostics. Pure.
