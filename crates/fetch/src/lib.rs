//! Downloads of addresses that a Dockerfile names, and of contexts that a user names.
//!
//! The address in a Dockerfile is a stranger's: where the operator does not allow it, nothing of the
//! farm's own networks is reached, whatever names and redirects say; sizes and times are bounded.
//! What a user names on his own machine may be in his own network and use his SSH agent.

mod address;
mod archive;
mod credentials;
mod error;
mod fetcher;
mod git;
mod ssh;
mod times;

pub use archive::{Opened, open as open_archive, youngest};
pub use credentials::Credentials;
pub use error::FetchError;
pub use fetcher::{Downloaded, FetchConfig, Fetcher};
pub use git::{Checkout, is_commit};
pub use ssh::Ssh;
