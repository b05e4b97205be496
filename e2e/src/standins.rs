//! The images that examples start from.

use std::process::Command;

/// Whether Docker Hub answers: then its own images are used.
fn docker_hub_answers() -> bool {
    let check = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "--max-time", "3", "https://registry-1.docker.io/v2/"])
        .status();
    check.is_ok_and(|status| status.success())
}

/// Makes the images available: from Docker Hub where it answers, else as stand-ins in `registry`.
/// Returns whether `registry` has to be a mirror of `docker.io`.
pub fn push_base_images(registry: &str) -> anyhow::Result<bool> {
    if docker_hub_answers() {
        return Ok(false);
    }
    let script = crate::source_root().join("scripts/standins.sh");
    let output = Command::new("bash")
        .arg(script)
        .arg(crate::cache_directory()?.join("standins"))
        .arg(registry)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "the stand-in images could not be made: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(true)
}
