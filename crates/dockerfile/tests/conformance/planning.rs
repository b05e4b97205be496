//! Planning without registry or file system.

use std::collections::BTreeMap;

use common::image::{ContainerConfig, ImageDocument, ResolvedImage};
use common::plan::{CopyOp, Op, Plan, PlannedStage, RunOp, Step};
use common::tree::{Entry, EntryKind, Manifest, TreePath};
use common::{Digest, Failure, Platform};
use dockerfile::{Dockerfile, ImageFacts, Options, Planned, parse};

/// A Dockerfile with what is around it.
pub(crate) struct Planning {
    pub(crate) text: String,
    pub(crate) options: Options,
    pub(crate) context: Manifest,
    /// Configurations of base images that have one, by reference.
    pub(crate) images: BTreeMap<String, ContainerConfig>,
}

impl Planning {
    pub(crate) fn new(text: &str) -> Self {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let options = Options::new(platform);
        let context = tree(&[("file", "content"), ("dir/inner", "content")]);
        Self { text: text.to_owned(), options, context, images: BTreeMap::new() }
    }

    pub(crate) fn target(mut self, name: &str) -> Self {
        self.options.target = Some(name.to_owned());
        self
    }

    pub(crate) fn build_arg(mut self, name: &str, value: &str) -> Self {
        self.options.build_args.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn context(mut self, context: Manifest) -> Self {
        self.context = context;
        self
    }

    pub(crate) fn image(mut self, reference: &str, config: ContainerConfig) -> Self {
        self.images.insert(reference.to_owned(), config);
        self
    }

    /// Resolves every image that is asked for, then plans.
    pub(crate) fn run(&self) -> Result<Planned, Vec<Failure>> {
        let file = parse("Dockerfile", self.text.as_bytes())?;
        let known = self.images_of(&file)?;
        file.plan(&self.options, &known, Some(&self.context))
    }

    /// Every image that is asked for, also by the triggers of others.
    pub(crate) fn images_of(&self, file: &Dockerfile) -> Result<ImageFacts, Vec<Failure>> {
        let mut known = ImageFacts::new();
        loop {
            let missing = file.missing_images(&self.options, &known)?;
            if missing.is_empty() {
                return Ok(known);
            }
            for need in missing {
                let config = self.images.get(&need.reference).cloned();
                let image = image(&need.reference, config, &need.platform);
                known.insert((need.reference, need.platform), image);
            }
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        self.run().unwrap_or_else(|failures| panic!("{}: {failures:?}", self.text)).plan
    }

    /// The target's stage.
    pub(crate) fn last(&self) -> PlannedStage {
        self.plan().stages.pop().unwrap()
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.run().map(|planned| panic!("{}: {planned:?}", self.text)).unwrap_err()
    }

    /// Code and first line of the only failure.
    pub(crate) fn failure(&self) -> (String, u32) {
        let failures = self.failures();
        assert_eq!(failures.len(), 1, "{}: {failures:?}", self.text);
        (failures[0].code.clone(), failures[0].lines.unwrap().start)
    }
}

/// An image of no layers.
pub(crate) fn image(
    reference: &str,
    config: Option<ContainerConfig>,
    platform: &Platform,
) -> ResolvedImage {
    let env = vec!["PATH=/bin".to_owned()];
    let config = config.unwrap_or_else(|| ContainerConfig { env, ..ContainerConfig::default() });
    let (os, architecture) = (platform.os.clone(), platform.architecture.clone());
    ResolvedImage {
        reference: reference.to_owned(),
        digest: Digest::of(reference.as_bytes()),
        document: ImageDocument { config, os, architecture, ..ImageDocument::default() },
        layers: Vec::new(),
    }
}

/// The target's stage of a Dockerfile without anything around it.
pub(crate) fn last(text: &str) -> PlannedStage {
    Planning::new(text).last()
}

/// The commands of a stage.
pub(crate) fn runs<'a>(stage: &'a PlannedStage) -> Vec<&'a RunOp> {
    let run = |step: &'a Step| match &step.op {
        Op::Run(run) => Some(&**run),
        _ => None,
    };
    stage.steps.iter().filter_map(run).collect()
}

/// The copies of a stage.
pub(crate) fn copies<'a>(stage: &'a PlannedStage) -> Vec<&'a CopyOp> {
    let copy = |step: &'a Step| match &step.op {
        Op::Copy(copy) => Some(copy),
        _ => None,
    };
    stage.steps.iter().filter_map(copy).collect()
}

/// What a command sees under a name.
pub(crate) fn variable<'a>(run: &'a RunOp, name: &str) -> Option<&'a str> {
    run.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The texts of a stage's history.
pub(crate) fn history(stage: &PlannedStage) -> Vec<String> {
    stage.history.iter().map(|entry| entry.created_by.clone().unwrap_or_default()).collect()
}

/// A tree of regular files.
pub(crate) fn tree(files: &[(&str, &str)]) -> Manifest {
    let mut tree = Manifest::default();
    add(&mut tree, "", EntryKind::Directory);
    for (path, content) in files {
        add(&mut tree, path, file(content));
    }
    tree
}

/// A regular file.
pub(crate) fn file(content: &str) -> EntryKind {
    let digest = Digest::of(content.as_bytes());
    EntryKind::File { size_bytes: content.len() as u64, digest, parts: Vec::new() }
}

/// A symbolic link.
pub(crate) fn link(target: &str) -> EntryKind {
    EntryKind::Symlink { target: target.as_bytes().to_vec() }
}

/// Adds an entry with the directories that hold it; gives it back for changes.
pub(crate) fn add<'a>(tree: &'a mut Manifest, path: &str, kind: EntryKind) -> &'a mut Entry {
    let path = TreePath::new(path).unwrap();
    if let Some(parent) = path.parent()
        && tree.get(&parent).is_none()
    {
        add(tree, &parent.display(), EntryKind::Directory);
    }
    tree.entries.retain(|entry| entry.path != path);
    let at = tree.entries.partition_point(|entry| entry.path < path);
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    let xattrs = Vec::new();
    tree.entries.insert(at, Entry { path, mode, uid: 0, gid: 0, mtime_secs: 0, xattrs, kind });
    &mut tree.entries[at]
}

/// Adds an entry as [`add`] does.
pub(crate) fn put(tree: &mut Manifest, path: &str, kind: EntryKind) {
    add(tree, path, kind);
}
