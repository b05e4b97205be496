//! Pulling an image back and running it, with tools that are not ours.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// An image in a registry, as others see it.
#[derive(Debug)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: String,
    /// Number of its layers.
    pub layers: usize,
}

impl Image {
    /// Asks a registry.
    pub fn inspect(reference: &str) -> anyhow::Result<Self> {
        let output = Command::new("skopeo")
            .args(["inspect", "-n", "--tls-verify=false"])
            .arg(format!("docker://{reference}"))
            .output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let digest = value["Digest"].as_str().context("no digest")?.to_owned();
        let layers = value["Layers"].as_array().map_or(0, Vec::len);
        Ok(Self { digest, layers })
    }
}

/// Pulls an image with skopeo, unpacks it with umoci, and runs its command with runc, below
/// `directory`. Returns what it prints.
pub fn run_image(reference: &str, directory: &Path) -> anyhow::Result<String> {
    let id = format!("slipway-e2e-{}-{}", std::process::id(), directory.display());
    let id: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let layout = directory.join("layout");
    let bundle = directory.join("bundle");
    let run = |command: &mut Command| -> anyhow::Result<String> {
        let output = command.output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{command:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{reference}"))
        .arg(format!("oci:{}:image", layout.display())))?;
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:image", layout.display()))
        .arg(&bundle))?;
    // umoci asks for a terminal, which a test has not, and for the host's resolver file, which the
    // host may not have.
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/etc/resolv.conf");
    }
    std::fs::write(&path, config.to_string())?;
    run(Command::new("runc")
        .arg("--root")
        .arg(directory.join("state"))
        .arg("run")
        .arg("--bundle")
        .arg(&bundle)
        .arg(&id))
}
