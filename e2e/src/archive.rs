//! An image in an archive (OCI image layout in a tar file), as a tree of files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use common::Digest;
use serde_json::Value;

/// An image, its layers laid on top of each other.
#[derive(Debug)]
pub struct ArchivedImage {
    /// Its configuration document.
    pub config: Value,
    /// Number of its layers.
    pub layers: usize,
    /// Its files by path, without a leading slash.
    pub tree: BTreeMap<String, Node>,
}

/// A file of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `file`, `directory`, `symlink`, `fifo`, `character`, `block`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub modified: u64,
    /// Target of a link.
    pub link: String,
    /// Content of a file: itself where it is short text, else its digest.
    pub content: String,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// The first path of a file that has several.
    pub same_as: Option<String>,
}

impl ArchivedImage {
    /// Reads an archive.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut archive = tar::Archive::new(std::fs::File::open(path)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(name.trim_start_matches("./").to_owned(), bytes);
        }
        let json = |name: &str| -> anyhow::Result<Value> {
            let bytes = files.get(name).with_context(|| format!("{name} is missing"))?;
            Ok(serde_json::from_slice(bytes)?)
        };
        let blob = |value: &Value| -> anyhow::Result<String> {
            let digest = value["digest"].as_str().context("a descriptor without digest")?;
            Ok(format!("blobs/{}", digest.replace(':', "/")))
        };
        let index = json("index.json")?;
        let manifest = json(&blob(&index["manifests"][0])?)?;
        let config = json(&blob(&manifest["config"])?)?;
        let mut tree = BTreeMap::new();
        let layers = manifest["layers"].as_array().context("no layers")?;
        for layer in layers {
            let name = blob(layer)?;
            let bytes = files.get(&name).with_context(|| format!("{name} is missing"))?;
            apply(&mut tree, bytes).with_context(|| name)?;
        }
        Ok(Self { config, layers: layers.len(), tree })
    }
}

/// Lays a layer over a tree (OCI image specification, `layer.md`).
fn apply(tree: &mut BTreeMap<String, Node>, layer: &[u8]) -> anyhow::Result<()> {
    let reader: Box<dyn Read> = if layer.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::read::MultiGzDecoder::new(layer))
    } else {
        Box::new(layer)
    };
    let mut archive = tar::Archive::new(reader);
    let mut added = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            remove_below(tree, parent);
            continue;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden =
                if parent.is_empty() { hidden.to_owned() } else { format!("{parent}/{hidden}") };
            remove_below(tree, &hidden);
            tree.remove(&hidden);
            continue;
        }
        if path.is_empty() {
            continue;
        }
        let node = node(&mut entry, tree, &added)?;
        added.insert(path, node);
    }
    for (path, node) in added {
        let was_directory = tree.get(&path).is_some_and(|old| old.kind == "directory");
        if was_directory && node.kind != "directory" {
            remove_below(tree, &path);
        }
        tree.insert(path, node);
    }
    Ok(())
}

fn shown(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) if text.len() < 300 => text,
        Ok(text) => Digest::of(text.as_bytes()).to_string(),
        Err(error) => Digest::of(error.as_bytes()).to_string(),
    }
}

fn remove_below(tree: &mut BTreeMap<String, Node>, directory: &str) {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    tree.retain(|path, _| !path.starts_with(&prefix));
}

fn node<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    tree: &BTreeMap<String, Node>,
    added: &BTreeMap<String, Node>,
) -> anyhow::Result<Node> {
    let kind = entry.header().entry_type();
    let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
    let target = target.unwrap_or_default();
    if kind.is_hard_link() {
        let target = target.trim_start_matches("./").trim_matches('/').to_owned();
        let first = added.get(&target).or_else(|| tree.get(&target));
        let first = first.with_context(|| format!("a hard link to {target}, which is missing"))?;
        let same_as = first.same_as.clone().unwrap_or(target);
        return Ok(Node { same_as: Some(same_as), ..first.clone() });
    }
    let mut attributes = BTreeMap::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
            attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
        }
    }
    let mut content = String::new();
    let kind = match kind {
        tar::EntryType::Directory => "directory",
        tar::EntryType::Symlink => "symlink",
        tar::EntryType::Fifo => "fifo",
        tar::EntryType::Char => "character",
        tar::EntryType::Block => "block",
        _ => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            content = shown(bytes);
            "file"
        }
    };
    let header = entry.header();
    // Other entries may have anything there.
    let device = if matches!(kind, "character" | "block") {
        (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))
    } else {
        (0, 0)
    };
    Ok(Node {
        kind,
        mode: header.mode()? & 0o7777,
        uid: header.uid()?,
        gid: header.gid()?,
        modified: header.mtime()?,
        link: if kind == "symlink" { target } else { String::new() },
        content,
        device,
        attributes,
        same_as: None,
    })
}
