//! Values that must not be seen.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// A secret's value in base64. Its debug form shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: &[u8]) -> Self {
        Self(BASE64_STANDARD.encode(value))
    }

    /// The value; `None` where it is not base64.
    pub fn value(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.0).ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new(b"hunter2");
        assert_eq!(secret.value().unwrap(), b"hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
