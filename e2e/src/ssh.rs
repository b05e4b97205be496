//! OpenSSH: an agent with a key, a server that takes the key.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context as _;
use testkit::{Service, free_port, wait_for};

/// A private agent that holds one key.
#[derive(Debug)]
pub struct SshAgent {
    _service: Service,
    socket: PathBuf,
    key: PathBuf,
}

impl SshAgent {
    /// Makes a key and starts an agent below `directory`, which has none of this name yet.
    pub fn start(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let (key, socket) = (directory.join(format!("{name}-key")), directory.join(name));
        succeed(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(&key),
        )?;
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket);
        let service = Service::start(name, &command, directory)?;
        wait_for("the agent", Duration::from_secs(20), || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        })?;
        succeed(Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg("-q").arg(&key))?;
        Ok(Self { _service: service, socket, key })
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file of its key; the public one is beside it.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// The public key.
    pub fn public(&self) -> PathBuf {
        self.key.with_extension("pub")
    }

    /// What it lists.
    pub fn list(&self) -> anyhow::Result<String> {
        let output = succeed(Command::new("ssh-add").env("SSH_AUTH_SOCK", &self.socket).arg("-L"))?;
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// A private server that lets root in with one key, and gives what git asks for.
#[derive(Debug)]
pub struct SshServer {
    service: Service,
    port: u16,
}

impl SshServer {
    /// Starts a server below `directory` that takes a public key.
    pub fn start(directory: &Path, public: &Path) -> anyhow::Result<Self> {
        let (key, config) = (directory.join("host-key"), directory.join("sshd_config"));
        succeed(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        )?;
        let port = free_port()?;
        let path = std::env::var("PATH").context("PATH is not set")?;
        let lines = [
            format!("Port {port}"),
            "ListenAddress 127.0.0.1".to_owned(),
            format!("HostKey {}", key.display()),
            format!("AuthorizedKeysFile {}", public.display()),
            "PidFile none".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "PermitRootLogin prohibit-password".to_owned(),
            // Programs that are not the distribution's are found too.
            format!("SetEnv PATH={path}"),
        ];
        std::fs::write(&config, lines.join("\n") + "\n")?;
        // It wants an empty directory of its own in /run: in a mount namespace it is nobody else's.
        let script = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && \
                      exec /usr/sbin/sshd -D -e -f \"$0\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&config);
        let service = Service::start("sshd", &command, directory)?;
        let server = Self { service, port };
        wait_for("sshd", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })
        .with_context(|| server.log())?;
        Ok(server)
    }

    /// The address of a path on it.
    pub fn address(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }

    /// What it has written.
    pub fn log(&self) -> String {
        self.service.log()
    }
}

/// Puts a program of this machine, with the libraries that it needs, below `root` at their places.
pub fn copy_program(name: &str, root: &Path) -> anyhow::Result<()> {
    let script = "set -e\nprogram=$(command -v \"$0\")\n\
                  for file in \"$program\" $(ldd \"$program\" | grep -o '/[^ ]*'); do\n\
                  mkdir -p \"$1$(dirname \"$file\")\"\ncp -L \"$file\" \"$1$file\"\ndone";
    succeed(Command::new("sh").args(["-c", script, name]).arg(root))?;
    Ok(())
}

fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{command:?}: {errors}");
    Ok(output)
}
