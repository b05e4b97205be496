//! The worker: runs stages, shares what they made, pushes images.
//!
//! Calls go down: `session` → `dispatch` → `execute` → the leaves: `rootfs`, `runtime`, `content`,
//! `transfer`, `logs`.

mod boot;
pub mod config;
mod content;
mod dispatch;
pub mod doctor;
pub mod execute;
mod logs;
mod program;
pub mod rootfs;
pub mod runtime;
mod session;
mod transfer;

pub use boot::{BootError, run, store};
pub use config::Config;
pub use content::StoreAction;
pub use program::{in_namespaces, program};
