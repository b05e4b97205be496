//! A git server, for ADD.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Service, free_port, wait_for};

/// A server of repositories: `app.git` with the branches `main` and `next`, the annotated tag `v1`,
/// a directory, an executable file and a link; `parent.git` with `lib.git` as a submodule at `lib`.
#[derive(Debug)]
pub struct GitServer {
    _service: Service,
    address: String,
    /// The commit of `main`.
    commit: String,
}

/// Makes the repositories in an empty directory.
const SCRIPT: &str = r#"
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@test
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
git init -q -b main lib && cd lib
echo library > lib.txt && git add . && git commit -qm lib && cd ..
git clone -q --bare lib lib.git
git init -q -b main app && cd app
mkdir dir && echo one > dir/file && echo top > top && ln -s top link
printf '#!/bin/sh\n' > run && chmod 755 run
git add . && git commit -qm one && git tag -a -m v1 v1
git checkout -qb next && echo next > next && git add . && git commit -qm next && git checkout -q main
echo two > dir/two && git add . && git commit -qm two && cd ..
git clone -q --bare app app.git
git init -q -b main parent && cd parent
echo parent > parent.txt
git -c protocol.file.allow=always submodule add -q "$PWD/../lib.git" lib
git config -f .gitmodules submodule.lib.url ../lib.git
git add . && git commit -qm parent && cd ..
git clone -q --bare parent parent.git
for name in app lib parent; do
  git -C $name.git config uploadpack.allowAnySHA1InWant true
  touch $name.git/git-daemon-export-ok
done
git -C app.git rev-parse main
"#;

impl GitServer {
    /// Starts a server below `directory`.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let base = directory.join("git");
        std::fs::create_dir(&base)?;
        let made = Command::new("sh").args(["-c", SCRIPT]).current_dir(&base).output()?;
        anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let commit = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let port = free_port()?;
        let mut command = Command::new("git");
        command.args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--informative-errors"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", base.display()));
        let service = Service::start("git-daemon", &command, directory)?;
        wait_for("git daemon", Duration::from_secs(30), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        Ok(Self { _service: service, address: format!("git://127.0.0.1:{port}"), commit })
    }

    /// Where it is; a repository is `<address>/app.git`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The commit of `app.git`'s branch `main`.
    pub fn commit(&self) -> &str {
        &self.commit
    }
}
