//! What a user namespace changes: the attribute that marks replaced directories, and what cannot be
//! made.

use std::sync::OnceLock;

/// The attribute by which overlayfs says that nothing of a directory below is left, for a mount
/// that root makes.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// The same for a mount with the option `userxattr`: in a user namespace nobody may write the other
/// one.
pub(crate) const USER_OPAQUE_XATTR: &str = "user.overlay.opaque";

/// Whether this process lives in a user namespace: it is root there and nobody outside.
pub fn in_user_namespace() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // The first namespace maps every number to itself (user_namespaces(7)).
    *FOUND.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        !map.trim().is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// The attribute to write here.
pub(crate) fn opaque_xattr() -> &'static str {
    if in_user_namespace() { USER_OPAQUE_XATTR } else { OPAQUE_XATTR }
}
