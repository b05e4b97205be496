//! Making slices: exactly what another stage copies, with what is needed to reach it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use api::worker::v1::{ObjectKind, ObjectName, SliceReport, StoredPack};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use blobstore::scan::{Scan, ScanError, scan_paths};
use common::plan::SliceSelector;
use common::tree::{EntryKind, Owners, TreePath};
use common::{Failure, FailureClass, Lease};

use super::copy::{Root, expand, has_wildcard};
use super::failure::JobError;
use super::job::persist;
use crate::content::ContentStore;
use crate::dispatch::{Held, Worker};
use crate::rootfs::mount_readonly;
use crate::transfer::{DISK_FULL, upload};

/// A manifest shorter than this rides inside the job message.
const INLINE_BYTES: usize = 64 << 10;

/// Makes, uploads and reports one slice of the root file system with these layers. Returns the
/// bytes that were sent.
pub(super) async fn make(
    worker: &Arc<Worker>,
    held: &Held,
    lowers: &[PathBuf],
    selector: &SliceSelector,
) -> Result<u64, JobError> {
    let lease = held.lease;
    let scratch = worker.content.scratch()?;
    let (root, packs) = (scratch.path().join("root"), scratch.path().join("packs"));
    for directory in [&root, &packs] {
        std::fs::create_dir(directory)?;
    }
    let (lowers, wanted, content) =
        (lowers.to_vec(), selector.clone(), Arc::clone(&worker.content));
    let scan = tokio::task::spawn_blocking(move || {
        let mount = mount_readonly(&lowers, &root)?;
        let paths = resolve(mount.path(), &wanted)?;
        let scan = scan_paths(mount.path(), &paths, &packs);
        scan.map_err(|error| JobError::from(scan_failure(&content, &error)))
    })
    .await??;
    let manifest_path = scratch.path().join("manifest");
    std::fs::write(&manifest_path, &scan.encoded)?;
    let manifest_bytes = scan.encoded.len() as u64;
    let mut files: Vec<(ObjectName, PathBuf)> = Vec::new();
    for pack in scan.packs() {
        let (kind, digest, size_bytes) = (ObjectKind::Pack, pack.digest, pack.size_bytes);
        let path =
            scan.pack_file(&digest).map_err(|error| scan_failure(&worker.content, &error))?;
        files.push((ObjectName { kind, digest, size_bytes }, path));
    }
    let manifest =
        ObjectName { kind: ObjectKind::Manifest, digest: scan.digest, size_bytes: manifest_bytes };
    files.push((manifest, manifest_path));
    let sent = upload(&worker.client, lease, files).await?;
    let report = report(lease, selector, &scan);
    persist(held, || worker.client.slice(&report)).await?;
    Ok(sent)
}

fn scan_failure(content: &ContentStore, error: &ScanError) -> Failure {
    let code = if content.has_no_room() { DISK_FULL } else { "slice-failed" };
    Failure::new(FailureClass::Infrastructure, code, error.to_string())
}

fn report(lease: Lease, selector: &SliceSelector, scan: &Scan) -> SliceReport {
    let packs: u64 = scan.packs().map(|pack| pack.size_bytes).sum();
    let manifest_bytes = scan.encoded.len() as u64;
    let is_file = |kind: &EntryKind| matches!(kind, EntryKind::File { .. });
    let files = scan.manifest.entries.iter().filter(|entry| is_file(&entry.kind)).count();
    let inline = scan.encoded.len() < INLINE_BYTES;
    SliceReport {
        lease,
        selector: selector.clone(),
        manifest: scan.digest,
        manifest_bytes,
        packs: scan
            .packs()
            .map(|pack| StoredPack { digest: pack.digest, size_bytes: pack.size_bytes })
            .collect(),
        files: files as u64,
        content_bytes: scan.manifest.content_bytes(),
        stored_bytes: packs + manifest_bytes,
        content: Some(scan.manifest.digest_of(&scan.manifest.entries, Owners::Counted)),
        inline_manifest: inline.then(|| BASE64_STANDARD.encode(&scan.encoded)),
    }
}

/// The paths that the patterns name: what they match, and for each match every link on the way and
/// what it leads to. What is not there is left out: the copy will say so.
fn resolve(root: &std::path::Path, selector: &SliceSelector) -> Result<Vec<TreePath>, JobError> {
    let tree = Root::open(root)?;
    let mut paths = BTreeSet::new();
    for pattern in selector.patterns() {
        let matches = if has_wildcard(pattern) {
            expand(&tree, pattern)?
        } else {
            vec![pattern.trim_matches('/').as_bytes().to_vec()]
        };
        for path in matches {
            // Links are followed component by component; each one on the way is kept.
            let mut current = path;
            for _ in 0..40 {
                paths.extend(links_on_the_way(&tree, &current));
                let Ok(resolved) = tree.resolve(&current) else { break };
                let done = resolved == current;
                current = resolved;
                if done {
                    break;
                }
            }
            paths.extend(TreePath::new(current).ok());
        }
    }
    Ok(paths.into_iter().collect())
}

/// The links among the leading parts of a path, and those that each of them leads through.
fn links_on_the_way(tree: &Root, path: &[u8]) -> Vec<TreePath> {
    let mut links = Vec::new();
    let mut todo = vec![path.to_vec()];
    let mut seen = BTreeSet::new();
    while let Some(path) = todo.pop() {
        if !seen.insert(path.clone()) || seen.len() > 100 {
            continue;
        }
        let mut done: Vec<&[u8]> = Vec::new();
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        for (position, part) in parts.iter().enumerate() {
            done.push(part);
            let here = done.join(&b'/');
            if let Some(target) = tree.link_target(&here) {
                links.extend(TreePath::new(here.clone()).ok());
                let parent = &done[..done.len() - 1];
                let mut next: Vec<Vec<u8>> = if target.first() == Some(&b'/') {
                    Vec::new()
                } else {
                    parent.iter().map(|part| part.to_vec()).collect()
                };
                for step in target.split(|byte| *byte == b'/') {
                    match step {
                        b"" | b"." => {}
                        b".." => {
                            next.pop();
                        }
                        step => next.push(step.to_vec()),
                    }
                }
                next.extend(parts[position + 1..].iter().map(|part| part.to_vec()));
                todo.push(next.join(&b'/'));
                break;
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_what_they_lead_to_are_part_of_a_slice() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        std::fs::write(at("usr/lib/real.so.1"), "x").unwrap();
        symlink("real.so.1", at("usr/lib/real.so")).unwrap();
        symlink("/usr/lib", at("lib")).unwrap();
        let resolved = |pattern: &str| -> Vec<String> {
            let selector = SliceSelector::new(vec![pattern.to_owned()]);
            let paths = resolve(root.path(), &selector).unwrap();
            paths.iter().map(TreePath::display).collect()
        };
        assert_eq!(resolved("/lib/real.so"), ["lib", "usr/lib/real.so", "usr/lib/real.so.1"]);
        assert_eq!(resolved("/usr/lib/*.1"), ["usr/lib/real.so.1"]);
        assert_eq!(resolved("/usr"), ["usr"]);
        assert_eq!(resolved("/none"), ["none"]);
    }
}
