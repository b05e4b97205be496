use super::*;
use crate::rootfs::{Mount, mount_writable};
use crate::runtime::{DefaultNetwork, RuntimeConfig, RuntimeKind};
use std::path::Path;

/// A busybox root file system on an overlay, and a runtime.
struct Sandbox {
    directory: tempfile::TempDir,
    runtime: Runtime,
    mount: Option<Mount>,
}

impl Sandbox {
    fn new(config: &RuntimeConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [
            "low/bin", "low/etc", "low/dev", "low/proc", "low/sys", "upper", "work", "root",
            "scratch",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::copy("/bin/busybox", at("low/bin/busybox")).unwrap();
        for name in ["sh", "echo", "sleep", "cat", "id", "hostname", "dd", "touch", "ls", "wget"] {
            std::os::unix::fs::symlink("busybox", at("low/bin").join(name)).unwrap();
        }
        fs::write(at("low/etc/passwd"), "root:x:0:0::/root:\napp:x:7:8::/home/app:\n").unwrap();
        let runtime = Runtime::probe(config, &at("scratch")).unwrap();
        let mount = mount_writable(&[at("low")], &at("upper"), &at("work"), &at("root")).unwrap();
        Self { directory, runtime, mount: Some(mount) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn request(&self, script: &str) -> RunRequest {
        let id = format!("test-{}", uuid::Uuid::now_v7().simple());
        let bundle = self.at(&id);
        fs::create_dir(&bundle).unwrap();
        RunRequest {
            id,
            rootfs: self.at("root"),
            bundle,
            op: RunOp {
                env: vec![("GREETING".into(), "hello".into())],
                network: Network::None,
                ..RunOp::new(vec!["/bin/sh".into(), "-c".into(), script.into()])
            },
            mounts: Vec::new(),
            secret_env: Vec::new(),
            limits: Resources::default(),
            written: vec![self.at("upper")],
        }
    }

    async fn run(&self, request: RunRequest) -> (RunExit, String) {
        self.run_until(request, CancellationToken::new()).await
    }

    async fn run_until(&self, request: RunRequest, cancel: CancellationToken) -> (RunExit, String) {
        let (sender, mut receiver) = mpsc::channel::<OutputChunk>(16);
        let collect = tokio::spawn(async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                bytes.extend(chunk.bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let exit = self.runtime.run(request, sender, cancel).await.unwrap();
        (exit, collect.await.unwrap())
    }

    /// What the commands changed, sorted.
    fn changes(&mut self) -> Vec<String> {
        self.mount = None;
        let upper = self.at("upper");
        let mut names = Vec::new();
        collect_names(&upper, &upper, &mut names);
        names.sort();
        names
    }
}

fn collect_names(root: &Path, directory: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.strip_prefix(root).unwrap().display().to_string());
        if path.is_dir() && !path.is_symlink() {
            collect_names(root, &path, names);
        }
    }
}

fn every_runtime() -> Vec<RuntimeConfig> {
    [RuntimeKind::Crun, RuntimeKind::Runc]
        .map(|kind| RuntimeConfig {
            kind,
            network: DefaultNetwork::Isolated,
            ..RuntimeConfig::default()
        })
        .to_vec()
}

#[tokio::test]
async fn a_command_runs_with_its_environment_and_leaves_only_its_own_changes() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let script = "echo $GREETING $HOME; hostname; id -u; echo x > /made; cat /etc/hosts | \
                      busybox wc -l; echo oops >&2";
        let (exit, output) = sandbox.run(sandbox.request(script)).await;
        assert_eq!(exit.code, 0, "{output}");
        for expected in ["hello /root", "buildkitsandbox", "0\n", "2\n", "oops"] {
            assert!(output.contains(expected), "{expected:?} in {output:?}");
        }
        let changes = sandbox.changes();
        // `etc` was copied up for the mount points in it; they are gone again.
        let own: Vec<_> = changes.iter().filter(|name| *name != "etc").collect();
        assert_eq!(own, ["made"], "{config:?}");
    }
}

#[tokio::test]
async fn exit_codes_and_users_are_those_of_the_command() {
    for config in every_runtime() {
        let sandbox = Sandbox::new(&config);
        let (exit, _) = sandbox.run(sandbox.request("exit 3")).await;
        assert_eq!(exit.code, 3);
        let mut request = sandbox.request("id -u; id -g; echo $HOME");
        request.op.user = "app".into();
        let (exit, output) = sandbox.run(request).await;
        assert_eq!((exit.code, output.as_str()), (0, "7\n8\n/home/app\n"));
        let mut request = sandbox.request("");
        request.op.argv = vec!["/bin/none".into()];
        assert_eq!(sandbox.run(request).await.0.code, 127);
    }
}

#[tokio::test]
async fn a_cancelled_command_ends_with_all_its_processes() {
    for config in every_runtime() {
        let sandbox = Sandbox::new(&config);
        let request = sandbox.request("trap '' TERM; sleep 1000 & touch /started; wait");
        let cancel = CancellationToken::new();
        let (token, started) = (cancel.clone(), sandbox.at("root/started"));
        let canceller = tokio::spawn(async move {
            while !started.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            token.cancel();
        });
        let id = request.id.clone();
        let (exit, _) = sandbox.run_until(request, cancel).await;
        canceller.await.unwrap();
        assert!(exit.cancelled);
        assert_eq!(testkit::cgroups_named(&id), 0);
    }
}

#[tokio::test]
async fn time_and_memory_limits_hold_and_are_named() {
    for config in every_runtime() {
        let sandbox = Sandbox::new(&config);
        let mut request = sandbox.request("sleep 1000");
        request.limits.timeout_secs = Some(1);
        assert!(sandbox.run(request).await.0.timed_out);
        let mut request = sandbox.request("dd if=/dev/zero of=/dev/null bs=200M count=1");
        request.limits.memory_bytes = Some(50 << 20);
        let (exit, output) = sandbox.run(request).await;
        assert!(exit.oom && exit.code != 0, "{exit:?} {output}");
        assert!(exit.peak_memory_bytes.is_some_and(|peak| peak > 10 << 20));
    }
}

#[tokio::test]
async fn a_script_is_run_from_a_file_that_stays_out_of_the_layer() {
    let sandbox = Sandbox::new(&every_runtime()[0]);
    let mut request = sandbox.request("");
    let name = "/dev/pipes/EOF".to_owned();
    request.op.argv = vec!["/bin/sh".into(), "-c".into(), name.clone()];
    let content = "#!/bin/busybox sh\necho from a script\n".to_owned();
    request.op.script = Some(common::plan::InlineFile { name, content });
    let (exit, output) = sandbox.run(request).await;
    assert_eq!((exit.code, output.as_str()), (0, "from a script\n"));
    assert!(!sandbox.directory.path().join("upper/dev/pipes").exists());
}

#[tokio::test]
async fn the_default_network_never_reaches_the_host_loopback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = RuntimeConfig { network: DefaultNetwork::Slirp, ..RuntimeConfig::default() };
    let sandbox = Sandbox::new(&config);
    for address in ["127.0.0.1", "10.0.2.2", "169.254.169.254"] {
        let script = format!("wget -T 1 -O /dev/null http://{address}:{port}/");
        let mut request = sandbox.request(&script);
        request.op.network = Network::Default;
        let (exit, output) = sandbox.run(request).await;
        assert_ne!(exit.code, 0, "{address}: {output}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a container connected to the host's loopback");
}

#[tokio::test]
async fn host_network_is_refused_unless_allowed() {
    let sandbox = Sandbox::new(&every_runtime()[0]);
    let mut request = sandbox.request("true");
    request.op.network = Network::Host;
    let (sender, _receiver) = mpsc::channel(1);
    let error = sandbox.runtime.run(request, sender, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RunError::HostNetwork));
}
