//! The seccomp profile of a RUN: Docker's default, for the capabilities and the architecture of the
//! container.
//!
//! One thing is said differently than there. A call that the filter's author could not know has to
//! fail with `ENOSYS`, or programs do not fall back to the older call: glibc's `chmod` on a kernel
//! that is newer than the host's libseccomp is the known case. runc answers so by itself whatever
//! the default is, crun does not. So `ENOSYS` is the default here, and what is refused with `EPERM`
//! is listed. A `personality` that is not allowed is the one call for which that makes a difference.

mod profile;
mod table;

pub(super) use profile::{COMPILED_ANNOTATION, Filter, profile};
