//! The worker: runs stages, shares what they made, pushes images.

pub mod execute;
pub mod rootfs;
pub mod runtime;
