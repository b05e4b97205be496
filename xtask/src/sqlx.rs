//! The data by which queries are checked without a database.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Makes `crates/store/.sqlx` anew from the migrations, or checks that it is as it would be made.
pub(crate) fn run(root: &Path, check: bool) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), open)?;
    let postgres = testkit::postgres(scratch.path(), testkit::Durability::Scratch)?;
    let url = postgres.database("schema")?;
    let mut migrations: Vec<_> = std::fs::read_dir(root.join("migrations"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    migrations.sort();
    for migration in migrations {
        let status = Command::new("psql")
            .args(["-q", "-v", "ON_ERROR_STOP=1", &url, "-f"])
            .arg(&migration)
            .status()?;
        ensure!(status.success(), "{} failed", migration.display());
    }
    let fresh = scratch.path().join("queries");
    std::fs::create_dir(&fresh)?;
    // Queries are written out while they are compiled, so they have to be compiled.
    let target = root.join("target/sqlx");
    let status = Command::new(env!("CARGO"))
        .args(["clean", "--quiet", "--package", "store", "--target-dir"])
        .arg(&target)
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "the last run cannot be cleaned away");
    let status = Command::new(env!("CARGO"))
        .args([
            "rustc",
            "--quiet",
            "--package",
            "store",
            "--lib",
            "--profile",
            "check",
            "--",
            "--emit=metadata",
        ])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &target)
        .env("DATABASE_URL", &url)
        .env("SQLX_OFFLINE_DIR", &fresh)
        .status()?;
    ensure!(status.success(), "the queries do not compile");
    let stored = root.join("crates/store/.sqlx");
    let (made, kept) = (read(&fresh)?, read(&stored)?);
    ensure!(!made.is_empty(), "no query was written");
    if check {
        ensure!(made == kept, "crates/store/.sqlx is out of date: run make sqlx");
        return Ok(());
    }
    for name in kept.keys() {
        std::fs::remove_file(stored.join(name))?;
    }
    for (name, content) in made {
        std::fs::write(stored.join(name), content)?;
    }
    Ok(())
}

fn read(directory: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        files.insert(name, std::fs::read(&path)?);
    }
    Ok(files)
}
