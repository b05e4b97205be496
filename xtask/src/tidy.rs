//! Rules that compilers do not know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::failures;

/// Longest source file in lines.
const MAX_LINES: usize = 800;

/// What each crate of ours may use, besides crates of others: ARCHITECTURE.md.
const MAY_USE: [(&str, &[&str]); 22] = [
    ("common", &[]),
    ("agent", &[]),
    ("dockerfile", &["common"]),
    ("fetch", &["common"]),
    ("oci", &["common"]),
    ("layer", &["common", "oci"]),
    ("registry", &["common", "oci"]),
    ("blobstore", &["common"]),
    ("store", &["common"]),
    ("api", &["common"]),
    ("client", &["api", "common"]),
    ("logbus", &["api", "common"]),
    ("service", &[]),
    ("s3server", &["service"]),
    ("standalone", &[]),
    ("testkit", &["common", "standalone"]),
    (
        "coordinator",
        &[
            "agent",
            "api",
            "blobstore",
            "common",
            "dockerfile",
            "fetch",
            "logbus",
            "oci",
            "registry",
            "service",
            "store",
        ],
    ),
    (
        "worker",
        &[
            "agent",
            "api",
            "blobstore",
            "client",
            "common",
            "fetch",
            "layer",
            "oci",
            "registry",
            "service",
        ],
    ),
    (
        "cli",
        &[
            "agent",
            "api",
            "blobstore",
            "client",
            "common",
            "dockerfile",
            "fetch",
            "oci",
            // For the farm on one machine.
            "coordinator",
            "registry",
            "s3server",
            "service",
            "standalone",
            "store",
            "worker",
        ],
    ),
    ("e2e", &["api", "common", "testkit"]),
    ("bench", &["api", "client", "common", "e2e", "testkit"]),
    ("xtask", &["testkit"]),
];

/// Checks everything and lists all that is wrong.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let mut functions = BTreeSet::new();
    directions(root, &mut problems)?;
    for path in tracked(root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        let name = path.display().to_string();
        let extension = path.extension().unwrap_or_default();
        if extension == "lock" || name.contains("/.sqlx/") {
            continue;
        }
        text_rules(&name, &text, &mut problems);
        if extension == "rs" {
            rust_rules(&name, &text, &mut problems);
            failures::functions(&text, &mut functions);
        }
        if extension == "md" {
            links(root, &path, &text, &mut problems);
        }
    }
    let page = std::fs::read_to_string(root.join(failures::PAGE))?;
    failures::check(&page, &functions, &mut problems);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} problems:\n{}", problems.len(), problems.join("\n"))
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root).output()?;
    Ok(String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect())
}

fn text_rules(name: &str, text: &str, problems: &mut Vec<String>) {
    // Files that a parser is tried on are as they are.
    if name.contains("/tests/corpus/") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            problems.push(format!("{name}:{}: blanks at the end of the line", number + 1));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        problems.push(format!("{name}: no line end at the end"));
    }
}

fn rust_rules(name: &str, text: &str, problems: &mut Vec<String>) {
    let count = text.lines().count();
    if count > MAX_LINES {
        problems.push(format!("{name}: {count} lines are more than {MAX_LINES}"));
    }
    // Put together, so that this file is not its own first finding.
    let holes = ["TO DO", "FIX ME", "#[ig nore", "unimple mented!", "to do!("];
    for hole in holes.map(|hole| hole.replace(' ', "")) {
        if text.contains(&hole) {
            problems.push(format!("{name}: {hole}"));
        }
    }
    let is_module_list = name.ends_with("/mod.rs");
    if is_module_list
        && text.lines().any(|line| line.trim_start().starts_with("fn ") || line.contains(" fn "))
    {
        problems.push(format!("{name}: a mod.rs holds no functions"));
    }
    let uses_unsafe = text.lines().any(|line| line.trim_start().starts_with("unsafe "));
    if uses_unsafe && !name.starts_with("worker/src/runtime/") {
        problems.push(format!("{name}: unsafe code outside worker/src/runtime"));
    }
    let may_name_sql = name.starts_with("crates/store/") || name.starts_with("xtask/");
    if text.contains("sqlx::") && !may_name_sql {
        problems.push(format!("{name}: SQL outside crates/store"));
    }
}

/// Links to files of the tree have to lead somewhere.
fn links(root: &Path, path: &Path, text: &str, problems: &mut Vec<String>) {
    for part in text.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else { continue };
        let target = target.split('#').next().unwrap_or("");
        if target.is_empty() || target.contains("://") {
            continue;
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        if !root.join(directory).join(target).exists() {
            problems.push(format!("{}: the link to {target} leads nowhere", path.display()));
        }
    }
}

fn directions(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    for (name, allowed) in &may_use {
        let manifest = [root.join(name), root.join("crates").join(name)]
            .into_iter()
            .map(|directory| directory.join("Cargo.toml"))
            .find(|path| path.is_file())
            .with_context(|| format!("there is no crate {name}"))?;
        let table: toml::Table = std::fs::read_to_string(manifest)?.parse()?;
        let used = table.get("dependencies").and_then(|value| value.as_table());
        for dependency in used.into_iter().flat_map(toml::Table::keys) {
            let ours = may_use.contains_key(dependency.as_str());
            if ours && !allowed.contains(&dependency.as_str()) {
                problems
                    .push(format!("{name} uses {dependency}: ARCHITECTURE.md does not allow that"));
            }
        }
    }
    Ok(())
}
