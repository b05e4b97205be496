//! What of the contexts a build can need, before anything is known of its images.

use std::collections::{BTreeMap, BTreeSet};

use common::image::{ImageDocument, ResolvedImage};
use common::tree::{EntryKind, Manifest};
use common::{Digest, Platform};

use super::select::Selection;
use crate::expand::Budget;
use crate::{Dockerfile, ImageFacts, Options};

/// How often images are asked for: answers without triggers ask for no others.
const MAX_ROUNDS: usize = 4;

/// Paths and patterns, absolute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths(BTreeSet<String>);

impl Paths {
    /// All that there is.
    pub fn everything() -> Self {
        Self(BTreeSet::from(["/".to_owned()]))
    }

    /// Whether nothing is reached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which entries of a tree they reach, one answer for each. A hard link's file comes with it.
    pub fn select(&self, manifest: &Manifest) -> Vec<bool> {
        let mut reached = vec![false; manifest.entries.len()];
        let budget = Budget::default();
        for pattern in &self.0 {
            let Ok(found) = Selection::of(manifest, pattern, &budget) else {
                return vec![true; manifest.entries.len()];
            };
            for position in found {
                reached[position] = true;
            }
        }
        for (position, entry) in manifest.entries.iter().enumerate() {
            if reached[position]
                && let EntryKind::Hardlink { target } = &entry.kind
                && let Ok(target) = manifest.entries.binary_search_by(|it| it.path.cmp(target))
            {
                reached[target] = true;
            }
        }
        reached
    }
}

/// What the instructions of a target ask of the contexts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    main: Paths,
    named: BTreeMap<String, Paths>,
    /// Images, for the platforms that they are asked for.
    images: BTreeSet<(String, Platform)>,
}

impl Reach {
    pub(crate) fn new(
        main: impl Iterator<Item = String>,
        named: impl Iterator<Item = (String, impl Iterator<Item = String>)>,
    ) -> Self {
        let named = named.map(|(name, patterns)| (name, Paths(patterns.collect())));
        Self { main: Paths(main.collect()), named: named.collect(), images: BTreeSet::new() }
    }

    /// What is reached of the main context.
    pub fn main(&self) -> &Paths {
        &self.main
    }

    /// What is reached of a named context, by [`crate::context_name`].
    pub fn named(&self, name: &str) -> Paths {
        self.named.get(name).cloned().unwrap_or_default()
    }

    /// For which platforms an image is asked for, by its reference.
    pub fn platforms_of(&self, reference: &str) -> BTreeSet<Platform> {
        let asked = self.images.iter().filter(|(known, _)| known == reference);
        asked.map(|(_, platform)| platform.clone()).collect()
    }

    /// Adds what another target reaches.
    pub fn add(&mut self, other: Self) {
        self.add_named(&other);
        self.main.0.extend(other.main.0);
    }

    /// Adds what another target reaches of the named contexts.
    pub fn add_named(&mut self, other: &Self) {
        for (name, paths) in other.named.clone() {
            self.named.entry(name).or_default().0.extend(paths.0);
        }
        self.images.extend(other.images.iter().cloned());
    }
}

impl Dockerfile {
    /// What the instructions of the target ask of the contexts, as far as it can be told without the
    /// images: their triggers and variables are unknown, so a plan may ask for more and then fails
    /// with [`crate::NOT_SENT`]. Nothing where it cannot be told at all.
    pub fn reach(&self, options: &Options) -> Option<Reach> {
        let mut known = ImageFacts::new();
        for _ in 0..MAX_ROUNDS {
            let missing = self.missing_images(options, &known).ok()?;
            if missing.is_empty() {
                let reach = self.check(options, &known).ok()?.reach;
                return Some(Reach { images: known.into_keys().collect(), ..reach });
            }
            for need in missing {
                let image = ResolvedImage {
                    reference: need.reference.clone(),
                    digest: Digest::of(need.reference.as_bytes()),
                    document: ImageDocument::default(),
                    layers: Vec::new(),
                };
                known.insert((need.reference, need.platform), image);
            }
        }
        None
    }
}
