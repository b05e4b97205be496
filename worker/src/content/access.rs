//! Who has had which bytes.
//!
//! Layers and blobs have one copy for all projects, named by their digest, and digests are no secret:
//! configurations of images list them. So an image may claim to have a layer that its maker has
//! never seen. What is here is used only for those who have had the same bytes before: made or
//! fetched by the project, if they are the farm's, or fetched from the repository that is to have
//! them, which this worker reads with the same credentials for all projects. Others fetch them once
//! more, and so show that they can.
//!
//! ```text
//! had/<digest>-<digest of where from>      an empty file
//! ```
//!
//! A file that is lost costs a download. One whose bytes are gone means nothing, and goes at the next start.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use common::image::LayerOrigin;
use common::{Digest, ProjectName};

use super::ContentStore;
use super::entry::{Entry, Kind};

/// The directory below the store's.
pub(super) const DIRECTORY: &str = "had";

/// Who has had what.
#[derive(Debug)]
pub(super) struct Access {
    directory: PathBuf,
    names: Mutex<HashSet<String>>,
}

/// Where bytes come from, as far as rights go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right(String);

impl Right {
    /// That of a project to a layer.
    pub(crate) fn of(project: &ProjectName, origin: &LayerOrigin) -> Self {
        match origin {
            LayerOrigin::Registry { repository } | LayerOrigin::Foreign { repository, .. } => {
                Self(format!("repository {repository}"))
            }
            LayerOrigin::Farm | LayerOrigin::Brought => Self::of_project(project),
        }
    }

    /// That of a project to what it has made.
    pub(crate) fn of_project(project: &ProjectName) -> Self {
        Self(format!("project {project}"))
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{}-{}", digest.hex(), Digest::of(self.0.as_bytes()).hex())
    }
}

impl Access {
    /// Reads what is known; `is_there` says whether the bytes of a digest still are.
    pub(super) fn open(root: &Path, is_there: impl Fn(&Digest) -> bool) -> io::Result<Self> {
        let directory = root.join(DIRECTORY);
        let mut names = HashSet::new();
        for found in fs::read_dir(&directory)? {
            let found = found?;
            let name = found.file_name().to_string_lossy().into_owned();
            let digest =
                name.split_once('-').and_then(|(hex, _)| format!("sha256:{hex}").parse().ok());
            if digest.is_some_and(|digest| is_there(&digest)) {
                names.insert(name);
            } else {
                super::index::discard(&found.path())?;
            }
        }
        Ok(Self { directory, names: Mutex::new(names) })
    }

    fn has(&self, digest: &Digest, right: &Right) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(&right.name(digest))
    }

    fn note(&self, digest: &Digest, right: &Right) {
        let name = right.name(digest);
        let place = self.directory.join(&name);
        let is_new = self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        // It holds for this run in any case.
        if is_new && let Err(error) = fs::File::create(&place) {
            tracing::debug!(path = %place.display(), %error, "cannot be written");
        }
    }
}

impl ContentStore {
    /// Whether whoever has this right has had these bytes.
    pub(crate) fn has_had(&self, digest: &Digest, right: &Right) -> bool {
        self.access.has(digest, right)
    }

    /// Takes note that whoever has this right has had these bytes.
    pub(crate) fn note_had(&self, digest: &Digest, right: &Right) {
        self.access.note(digest, right);
    }

    /// What of the entries can be had: see [`Access`].
    pub(super) fn holds(index: &super::index::Index, digest: &Digest) -> bool {
        [Kind::Layer, Kind::Blob].iter().any(|kind| index.has(Entry::new(*kind, *digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(store: &ContentStore, name: &[u8]) -> Digest {
        let scratch = store.scratch().unwrap();
        let layer = scratch.path().join("layer");
        fs::create_dir(&layer).unwrap();
        store.commit_layer(&layer, &Digest::of(name), 4096).unwrap();
        Digest::of(name)
    }

    #[test]
    fn rights_are_those_of_a_project_or_of_a_repository() {
        let [one, other] = ["one", "other"].map(|name| name.parse::<ProjectName>().unwrap());
        let repository = |name: &str| LayerOrigin::Registry { repository: name.to_owned() };
        let urls = Vec::new();
        let foreign = LayerOrigin::Foreign { repository: "a.example/x".to_owned(), urls };
        assert_ne!(Right::of_project(&one), Right::of_project(&other));
        assert_eq!(Right::of(&one, &LayerOrigin::Brought), Right::of_project(&one));
        let of_one = Right::of(&one, &repository("a.example/x"));
        assert_eq!(of_one, Right::of(&other, &foreign));
        assert_ne!(of_one, Right::of(&one, &repository("b.example/x")));
        // No repository passes for a project.
        assert_ne!(Right::of(&one, &repository("one")), Right::of_project(&one));
    }

    #[test]
    fn who_has_had_what_outlives_a_restart_as_long_as_it_is_there() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let [kept, gone] = [b"kept", b"gone"].map(|name| layer(&store, name));
        let [mine, others] =
            ["mine", "others"].map(|name| Right::of_project(&name.parse().unwrap()));
        for digest in [kept, gone] {
            store.note_had(&digest, &mine);
            assert!(store.has_had(&digest, &mine) && !store.has_had(&digest, &others));
        }
        store.remove(&[Entry::new(Kind::Layer, gone)]).unwrap();
        drop(store);
        let store = ContentStore::open(root.path()).unwrap();
        assert!(store.has_had(&kept, &mine) && !store.has_had(&kept, &others));
        assert!(!store.has_had(&gone, &mine));
        assert_eq!(fs::read_dir(root.path().join(DIRECTORY)).unwrap().count(), 1);
    }
}
