//! A git server, for ADD.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Service, free_port, wait_for};

/// A server of repositories: `app.git` with the branches `main` and `next`, the annotated tag `v1`,
/// a directory, an executable file and a link; `parent.git` with `lib.git` as a submodule at `lib`;
/// `context.git` with Dockerfiles, the branches `main`, `base` and `feature` and the tags `v1` and
/// `v2`.
#[derive(Debug)]
pub struct GitServer {
    _service: Service,
    address: String,
    /// The commit of `main`.
    commit: String,
    /// Where the repositories lie.
    base: PathBuf,
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
git init -q -b main context && cd context
cat > Dockerfile <<'END'
FROM scratch AS withgit
COPY .git/HEAD out
FROM scratch AS withsubmod
COPY lib/lib.txt out
FROM scratch
COPY foo out
END
echo base > foo && echo foo > .dockerignore
git -c protocol.file.allow=always submodule add -q "$PWD/../lib.git" lib
git config -f .gitmodules submodule.lib.url ../lib.git
git add . && GIT_COMMITTER_DATE='1700000100 +0000' git commit -qm initial
git tag v1 && git branch base
echo feature > foo && mkdir sub && echo subfeature > sub/foo && cp Dockerfile sub/
git add . && git commit -qm feature && git branch feature && git checkout -qB main base
echo v2 > foo && git add . && git commit -qm v2 && git tag -a -m v2 v2
echo latest > foo && git add . && GIT_COMMITTER_DATE='1700000101 +0000' git commit -qm latest
cd .. && git clone -q --bare context context.git
for name in app lib parent context; do
  git -C $name.git config uploadpack.allowAnySHA1InWant true
  touch $name.git/git-daemon-export-ok
  git -C $name.git update-server-info
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
        Ok(Self { _service: service, address: format!("git://127.0.0.1:{port}"), commit, base })
    }

    /// Where it is; a repository is `<address>/app.git`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where `app.git` and the others lie.
    pub fn directory(&self) -> &Path {
        &self.base
    }

    /// The commit that a name of a repository is at.
    pub fn commit_of(&self, repository: &str, name: &str) -> anyhow::Result<String> {
        let place = self.base.join(repository);
        let name = format!("{name}^{{commit}}");
        let output =
            Command::new("git").arg("-C").arg(place).args(["rev-parse", &name]).output()?;
        anyhow::ensure!(output.status.success(), "{name}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The commit of `app.git`'s branch `main`.
    pub fn commit(&self) -> &str {
        &self.commit
    }
}
