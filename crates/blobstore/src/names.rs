//! Every object name, in one place. Changing one loses what is stored under it.

use common::{Digest, Epoch, ProjectName, StageId};

fn addressed(project: &ProjectName, kind: &str, digest: &Digest) -> String {
    format!("{project}/{kind}/sha256/{}", digest.hex())
}

/// A layer: the very bytes that a push sends.
pub fn blob(project: &ProjectName, digest: &Digest) -> String {
    addressed(project, "blobs", digest)
}

/// A group of files.
pub fn pack(project: &ProjectName, digest: &Digest) -> String {
    addressed(project, "packs", digest)
}

/// A tree.
pub fn manifest(project: &ProjectName, digest: &Digest) -> String {
    addressed(project, "manifests", digest)
}

/// An archive that a client asked for.
pub fn export(project: &ProjectName, digest: &Digest) -> String {
    addressed(project, "exports", digest)
}

/// One chunk of a stage's log.
pub fn log_chunk(project: &ProjectName, stage: StageId, epoch: Epoch, chunk: u32) -> String {
    format!("{project}/logs/{stage}/{epoch}/{chunk:08}")
}
