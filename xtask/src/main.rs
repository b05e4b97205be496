//! Development tasks.

mod failures;
mod sqlx;
mod tidy;

use std::path::{Path, PathBuf};

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["tidy"] => tidy::run(&root()),
        ["sqlx"] => sqlx::run(&root(), false),
        ["sqlx", "--check"] => sqlx::run(&root(), true),
        _ => bail!("usage: cargo xtask tidy | sqlx [--check]"),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
