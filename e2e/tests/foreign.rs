//! Images that were pushed, pulled and run by clients of others: the Docker engine, containerd, podman,
//! buildah, and umoci after skopeo.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{BuildKit, Farm, FarmOptions};
use testkit::{Service, wait_for};

/// What can go wrong between a layer and another client's disk: what was removed, what was replaced as
/// a whole, names of one file, modes, owners, times.
const STEPS: &str = "COPY --chmod=755 list /list\n\
    RUN mkdir -p /made/kept /made/gone/deep /made/opaque /made/turned && echo a > /made/kept/a && \
    touch -d '2001-09-09 01:46:40' /made/kept/a && echo x > /made/gone/deep/x && touch /made/dropped && \
    echo old > /made/opaque/old && echo 1 > /made/turned/f && ln -s kept /made/link\n\
    RUN echo hard > /made/hard && ln /made/hard /made/hard2\n\
    RUN rm -r /made/gone /made/dropped /made/opaque /made/turned /etc/os-release && mkdir /made/opaque && \
    echo new > /made/opaque/new && ln -s hard /made/turned\n\
    RUN cp /list /made/setuid && chmod 4755 /made/setuid && mkfifo -m 640 /made/fifo && \
    mkdir -m 1777 /made/sticky && chown 1234:5678 /made/sticky && : > '/made/odd name é'\n\
    COPY cat /capable/cat\n";
const END: &str = "USER 65534:65534\nCMD [\"/bin/sh\", \"/list\"]\n";

const LIST: &str = r#"cd /made && find . | sort | while read -r file; do
  if [ -L "$file" ]; then echo "$file -> $(readlink "$file")"
  elif [ -f "$file" ]; then stat -c '%n %a %u:%g %h' "$file"
  else stat -c '%n %F %a %u:%g' "$file"; fi
done
[ hard -ef hard2 ] && echo "one file"
stat -c %Y kept/a
cat kept/a opaque/new turned
[ -e /etc/os-release ] || echo "none of the base"
id -u
/capable/cat /proc/self/status | grep CapEff
cd / && for file in of-*; do echo "$file"; done
"#;

const LISTED: &str = "\
. directory 755 0:0
./fifo fifo 640 0:0
./hard 644 0:0 2
./hard2 644 0:0 2
./kept directory 755 0:0
./kept/a 644 0:0 1
./link -> kept
./odd name é 644 0:0 1
./opaque directory 755 0:0
./opaque/new 644 0:0 1
./setuid 4755 0:0 1
./sticky directory 1777 1234:5678
./turned -> hard
one file
1000000000
a
new
hard
none of the base
65534
CapEff:\t0000000000000400
";

/// `cap_net_bind_service+ep` (linux/capability.h, `vfs_cap_data`, version 2): one that every client grants.
const BIND: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn context(farm: &Farm, dockerfile: &str) -> tempfile::TempDir {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    let at = |name: &str| context.path().join(name);
    std::fs::write(at("Dockerfile"), dockerfile).unwrap();
    std::fs::write(at("list"), LIST).unwrap();
    std::fs::copy("/bin/busybox", at("cat")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("cat"), "security.capability", &BIND, flags).unwrap();
    context
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Cgroups of this test, in all hierarchies; they go with this value.
struct Cgroups(String);

impl Cgroups {
    fn new() -> Self {
        Self(format!("/slipway-foreign-{}", std::process::id()))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        roots.extend(hierarchies.map(|entry| entry.path()));
        for root in roots {
            let _ = std::fs::remove_dir(root.join(&self.0[1..]));
        }
    }
}

/// Runs podman and buildah below a directory, where nothing stays of them: their mounts and processes
/// are in namespaces that end with the script.
fn contained(directory: &Path, script: &str) -> String {
    let (root, state) = (directory.join("root"), directory.join("state"));
    std::fs::create_dir_all(&state).unwrap();
    // crun refuses to start where cgroup v2 has some controllers and v1 the others; what it does not
    // see it does not mind.
    let hide = "if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi; set -e; ";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
    command.arg(format!("{hide}{script}"));
    command.env("ROOT", root).env("STATE", &state).env("TMPDIR", &state);
    command.env("HOME", directory).env("XDG_RUNTIME_DIR", &state).current_dir(directory);
    command.env_remove("CONTAINERS_STORAGE_CONF").env_remove("CONTAINERS_CONF");
    run(&mut command)
}

fn podman(image: &str, directory: &Path) -> String {
    let script = format!(
        "podman --root $ROOT --runroot $STATE/run --tmpdir $STATE/tmp --storage-driver overlay \
         --cgroup-manager cgroupfs --events-backend none --runtime crun run --quiet --tls-verify=false \
         --rm --network none --cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 {image}"
    );
    contained(directory, &script)
}

fn buildah(image: &str, directory: &Path) -> String {
    let script = format!(
        "buildah() {{ command buildah --root $ROOT --runroot $STATE/run --storage-driver overlay \"$@\"; }}; \
         container=$(buildah from --quiet --tls-verify=false {image}); \
         buildah run --isolation oci --runtime runc --network none $container -- /bin/sh /list; \
         buildah rm $container >&2"
    );
    contained(directory, &script)
}

/// A private containerd.
struct Containerd {
    service: Service,
    ctr: PathBuf,
    socket: PathBuf,
    containers: std::cell::Cell<u32>,
}

impl Containerd {
    fn start(programs: &Path, directory: &Path) -> Self {
        let place = directory.join("containerd");
        std::fs::create_dir(&place).unwrap();
        let (socket, config) = (place.join("socket"), place.join("config.toml"));
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/socket\"\n\
             [ttrpc]\naddress = \"{0}/ttrpc\"\n",
            place.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(programs.join("usr/bin/containerd"));
        command.arg("--config").arg(&config);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", programs.join("usr/bin").display()));
        let service = Service::start("containerd", &command, &place).unwrap();
        let ctr = programs.join("usr/bin/ctr");
        let started = Self { service, ctr, socket, containers: std::cell::Cell::new(0) };
        let answers = || started.ctr().arg("version").output().ok()?.status.success().then_some(());
        if let Err(error) = wait_for("containerd", Duration::from_mins(1), answers) {
            panic!("{error}: {}", started.service.log());
        }
        started
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket);
        command
    }

    fn run(&self, image: &str, cgroups: &Cgroups) -> String {
        let number = self.containers.replace(self.containers.get() + 1);
        run(self.ctr().args(["images", "pull", "--plain-http", image]));
        let (id, cgroup) = (format!("foreign-{number}"), cgroups.0.as_str());
        let flags = ["run", "--rm", "--allow-new-privs", "--cgroup", cgroup];
        run(self.ctr().args(flags).args([image, &id]))
    }
}

fn docker(engine: &BuildKit, arguments: &[&str]) -> String {
    let output = engine.docker(arguments).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn images_run_alike_wherever_they_are_pulled() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let registry = farm.registry().to_owned();
    let cgroups = Cgroups::new();
    let engine = BuildKit::start(farm.directory(), &registry).unwrap();
    let containerd = Containerd::start(engine.programs(), farm.directory());
    let layers = context(&farm, &format!("FROM alpine\n{STEPS}{END}"));
    let copied = format!(
        "FROM --platform=$BUILDPLATFORM alpine AS made\n{STEPS}FROM scratch\nARG TARGETARCH\n\
         COPY --from=made / /\nCOPY list /of-$TARGETARCH\n{END}"
    );
    let copied = context(&farm, &copied);
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let both = ["--platform", "linux/amd64,linux/arm64"].as_slice();
    let mut differ = String::new();
    for (form, here, options, flags, last) in [
        ("gzip", &layers, "compression=gzip", [].as_slice(), "of-*".to_owned()),
        ("zstd", &layers, "compression=zstd", &[], "of-*".to_owned()),
        ("docker", &layers, "oci-mediatypes=false", &[], "of-*".to_owned()),
        ("index", &copied, "compression=gzip", both, format!("of-{own}")),
    ] {
        let image = format!("{registry}/foreign/{form}:1");
        let output = format!("type=registry,name={image},{options}");
        let path = here.path().to_str().unwrap();
        let arguments = ["build", "--progress", "plain", "-o", &output].into_iter();
        let ran = farm.slipway(arguments.chain(flags.iter().copied()).chain([path])).unwrap();
        assert_eq!(ran.code, 0, "{form}: {}", ran.stderr);
        let place = |client: &str| {
            let place = farm.directory().join(format!("{client}-{form}"));
            std::fs::create_dir(&place).unwrap();
            place
        };
        let mut listed = vec![
            ("podman", podman(&image, &place("podman"))),
            ("buildah", buildah(&image, &place("buildah"))),
            ("containerd", containerd.run(&image, &cgroups)),
        ];
        let flags = ["run", "--rm", "--quiet", "--network", "none", "--cgroup-parent", &cgroups.0];
        listed.push(("docker", docker(&engine, &[&flags[..], &[&image]].concat())));
        // umoci knows no zstd.
        if form != "zstd" {
            listed.push(("umoci", e2e::run_image(&image, &place("umoci")).unwrap()));
        }
        let expected = format!("{LISTED}{last}\n");
        for (client, text) in listed {
            if text != expected {
                let _ = writeln!(differ, "{client}, {form}:\n{text}");
            }
        }
        if form == "index" {
            docker(&engine, &["pull", "--quiet", "--platform", "linux/arm64", &image]);
            let shown = docker(&engine, &["image", "inspect", "-f", "{{.Architecture}}", &image]);
            assert_eq!(shown.trim(), "arm64");
        }
    }
    assert!(differ.is_empty(), "{differ}");
    drop((containerd, engine, cgroups));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
