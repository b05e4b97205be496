//! BuildKit, as a private Docker engine embeds it: what Slipway is compared with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context as _;
use testkit::{Service, wait_for};

/// A private engine. It reaches one registry, which stands for Docker Hub.
#[derive(Debug)]
pub struct BuildKit {
    service: Service,
    programs: PathBuf,
    directory: PathBuf,
}

impl BuildKit {
    /// Starts an engine below `directory`.
    pub fn start(directory: &Path, registry: &str) -> anyhow::Result<Self> {
        let programs = crate::cache_directory()?.join("buildkit");
        let script = crate::source_root().join("scripts/buildkit.sh");
        let made = Command::new("bash").arg(script).arg(&programs).output()?;
        anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let directory = directory.join("buildkit");
        let plugins = directory.join("client/cli-plugins");
        std::fs::create_dir_all(&plugins)?;
        std::os::unix::fs::symlink(
            programs.join("usr/libexec/docker/cli-plugins/docker-buildx"),
            plugins.join("docker-buildx"),
        )?;
        let mut command = Command::new(programs.join("usr/sbin/dockerd"));
        command.arg("--data-root").arg(directory.join("data"));
        command.arg("--exec-root").arg(directory.join("exec"));
        command.arg("--pidfile").arg(directory.join("pid"));
        command.arg("--host").arg(format!("unix://{}", directory.join("socket").display()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.arg("--registry-mirror").arg(format!("http://{registry}"));
        command.env("PATH", path(&programs)?);
        let service = Service::start("dockerd", &command, &directory)?;
        let engine = Self { service, programs, directory };
        wait_for("the engine", Duration::from_mins(1), || {
            let answers = engine.docker(["version"]).is_ok_and(|output| output.status.success());
            answers.then_some(())
        })
        .with_context(|| engine.service.log())?;
        Ok(engine)
    }

    /// Where its programs are, as Debian's packages have them: containerd is among them.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Runs its command line.
    pub fn docker<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Output> {
        let mut command = Command::new(self.programs.join("usr/bin/docker"));
        command.env("PATH", path(&self.programs)?);
        command.env("DOCKER_BUILDKIT", "1").env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        command.env("DOCKER_CONFIG", self.directory.join("client"));
        command.env("DOCKER_HOST", format!("unix://{}", self.directory.join("socket").display()));
        command.env_remove("HTTP_PROXY").env_remove("HTTPS_PROXY");
        Ok(command.args(arguments).output()?)
    }

    /// Builds, and writes the image as an archive. The error is what the client said.
    pub fn build(
        &self,
        name: &str,
        arguments: &[String],
        archive: &Path,
    ) -> anyhow::Result<Result<(), String>> {
        let tag = format!("differential/{name}");
        let mut all: Vec<String> =
            ["build", "--progress", "plain", "--network", "host", "-t", &tag]
                .map(str::to_owned)
                .to_vec();
        all.extend_from_slice(arguments);
        let output = self.docker(&all)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let has_died = ["error reading from server", "Cannot connect to the Docker daemon"];
            if has_died.iter().any(|sign| text.contains(sign)) {
                anyhow::bail!("the engine has died: {text}\n{}", self.service.log());
            }
            return Ok(Err(text));
        }
        let place = archive.to_str().context("the path is no text")?;
        let saved = self.docker(["save", "-o", place, &tag])?;
        anyhow::ensure!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
        Ok(Ok(()))
    }
}

/// The engine finds its parts by their names.
fn path(programs: &Path) -> anyhow::Result<String> {
    let path = std::env::var("PATH").context("PATH is not set")?;
    let programs = programs.display();
    Ok(format!("{programs}/usr/bin:{programs}/usr/sbin:{path}"))
}
