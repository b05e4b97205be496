//! Who may do what: bearer tokens with scopes and projects.

mod identity;
mod keys;

pub use identity::{Identity, Scope};
pub use keys::{AuthError, Claims, InvalidKey, KeyRing};
