//! Slipway, BuildKit and buildah on one machine, with one registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::{BuildKit, Farm, FarmOptions};

use crate::workloads::run;

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Builder {
    Slipway,
    BuildKit,
    Buildah,
}

impl Builder {
    pub(crate) const ALL: [Self; 3] = [Self::Slipway, Self::BuildKit, Self::Buildah];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slipway => "Slipway",
            Self::BuildKit => "BuildKit",
            Self::Buildah => "buildah",
        }
    }

    /// All of them, each run beginning with another one.
    pub(crate) fn in_turn(run: usize) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().cycle().skip(run % 3).take(3)
    }
}

/// All builders, running.
pub(crate) struct Lab {
    // In the order in which they end.
    buildkit: BuildKit,
    farm: Farm,
    buildah: Buildah,
    directory: tempfile::TempDir,
}

impl Lab {
    /// Starts everything.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("slipway-bench-").tempdir()?;
        let slots = u32::try_from(std::thread::available_parallelism()?.get())?;
        let farm = Farm::start(FarmOptions {
            workers: 1,
            slots,
            lost_after_secs: 15,
            is_durable: true,
            ..FarmOptions::default()
        })?;
        let buildkit = BuildKit::start(directory.path(), farm.registry())?;
        let buildah = Buildah::new(directory.path(), farm.registry())?;
        Ok(Self { buildkit, farm, buildah, directory })
    }

    /// Where everything is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until Slipway has stored what it made.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let open = "select count(*) from stage
                    where state not in ('succeeded', 'failed', 'cancelled', 'cached', 'skipped')";
        while self.farm.query(open)?.trim() != "0" {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }

    /// Builds a context, and pushes the image where that is asked for.
    pub(crate) fn build(
        &self,
        builder: Builder,
        name: &str,
        context: &Path,
        push: bool,
    ) -> anyhow::Result<()> {
        let image = format!(
            "{}/made/{}-{name}:latest",
            self.farm.registry(),
            builder.name().to_lowercase()
        );
        match builder {
            Builder::Slipway => {
                let mut command = self.farm.command()?;
                command.args(["build", "--progress", "plain", "-t", &image]);
                command.args(push.then_some("--push"));
                run(command.arg(context))
            }
            Builder::BuildKit => {
                let path = context.to_str().context("the path is no text")?;
                let mut all =
                    vec!["build", "--progress", "plain", "--network", "host", "-t", &image];
                all.extend(push.then_some("--push"));
                all.push(path);
                let output = self.buildkit.docker(&all)?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Ok(())
            }
            Builder::Buildah => self.buildah.build(&image, context, push),
        }
    }

    /// Makes a builder forget all images and layers.
    pub(crate) fn forget_images(&mut self, builder: Builder) -> anyhow::Result<()> {
        match builder {
            Builder::Slipway => self.farm.renew_worker("worker-1"),
            Builder::BuildKit => {
                for arguments in [&["system", "prune", "-af"][..], &["builder", "prune", "-af"][..]]
                {
                    let output = self.buildkit.docker(arguments)?;
                    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
                Ok(())
            }
            Builder::Buildah => run(self.buildah.command().args(["rmi", "--all", "--force"])),
        }
    }

    /// Pushes an image with one layer for each root directory, on top of busybox, as
    /// `bench/NAME:latest`.
    pub(crate) fn push_image(&self, name: &str, roots: &[&Path]) -> anyhow::Result<()> {
        let layout = self.directory().join(format!("image-{name}"));
        let place = layout.to_str().context("the path is no text")?;
        let image = format!("{place}:latest");
        let base = format!("docker://{}/library/alpine:latest", self.farm.registry());
        let target = format!("oci:{image}");
        run(Command::new("skopeo").args(["copy", "--src-tls-verify=false", &base, &target]))?;
        for (number, root) in roots.iter().enumerate() {
            let archive = self.directory().join(format!("{name}-{number}.tar"));
            run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg("."))?;
            let mut add = Command::new("umoci");
            run(add.args(["raw", "add-layer", "--image", &image]).arg(&archive))?;
            std::fs::remove_file(archive)?;
            std::fs::remove_dir_all(root)?;
        }
        let source = format!("oci:{image}");
        let target = format!("docker://{}/bench/{name}:latest", self.farm.registry());
        run(Command::new("skopeo").args(["copy", "--dest-tls-verify=false", &source, &target]))?;
        Ok(std::fs::remove_dir_all(layout)?)
    }
}

/// buildah with storage of its own.
struct Buildah {
    root: PathBuf,
    registries: PathBuf,
}

impl Buildah {
    fn new(directory: &Path, registry: &str) -> anyhow::Result<Self> {
        let root = directory.join("buildah");
        std::fs::create_dir(&root)?;
        let registries = root.join("registries.conf");
        let text = format!(
            "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"docker.io\"\n\
             location = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{registry}\"\ninsecure = true\n"
        );
        std::fs::write(&registries, text)?;
        Ok(Self { root, registries })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.root.join("storage"));
        command.arg("--runroot").arg(self.root.join("run"));
        command.arg("--storage-driver").arg("overlay");
        command.arg("--registries-conf").arg(&self.registries);
        command
    }

    fn build(&self, image: &str, context: &Path, push: bool) -> anyhow::Result<()> {
        let mut command = self.command();
        // Its containers do not start beside this machine's cgroups; chroot is its fastest way too.
        command.args([
            "bud",
            "--layers",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "-t",
            image,
        ]);
        run(command.arg(context))?;
        if push {
            run(self.command().args(["push", "--tls-verify=false", image]))?;
        }
        Ok(())
    }
}
