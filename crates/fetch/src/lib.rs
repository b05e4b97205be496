//! Downloads of addresses that a Dockerfile names.
//!
//! The address is a stranger's: where the operator does not allow it, nothing of the farm's own
//! networks is reached, whatever names and redirects say; sizes and times are bounded.

mod address;
mod error;
mod fetcher;
mod git;
mod ssh;

pub use error::FetchError;
pub use fetcher::{Downloaded, FetchConfig, Fetcher};
pub use git::Checkout;
pub use ssh::Ssh;
