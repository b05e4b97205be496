//! A farm: Postgres, Redis, S3, a registry, a coordinator and workers, each a process.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use api::public::v1::BuildView;
use testkit::{
    Balancer, Durability, FaultProxy, Postgres, Redis, Registry, Service, program, wait_for,
};

use crate::standins::push_base_images;

/// What the farm of a test is like.
#[derive(Debug, Clone, Copy)]
pub struct FarmOptions {
    /// Workers.
    pub workers: usize,
    /// Stages that each runs at once.
    pub slots: u32,
    /// A worker that has not called for this long, in seconds, is lost.
    pub lost_after_secs: u64,
    /// Whether ADD may fetch from this machine.
    pub fetch_private: bool,
    /// Most bytes that a worker keeps.
    pub store_max_bytes: Option<u64>,
    /// Whether the database survives a crash of the machine; tests do without.
    pub is_durable: bool,
    /// Whether the workers are started by a user without rights.
    pub rootless: bool,
    /// Coordinators; several are behind one address.
    pub coordinators: usize,
    /// S3 and registry are behind proxies that can spoil what passes, with dice of this seed.
    pub faults: Option<u64>,
    /// Whether each worker reaches the coordinators by a cable that can be pulled.
    pub cables: bool,
    /// How far off the clocks of the workers are, in seconds: odd ones run ahead, even ones behind.
    pub clocks_off_secs: u32,
}

impl Default for FarmOptions {
    fn default() -> Self {
        Self {
            workers: 2,
            slots: 1,
            lost_after_secs: 3,
            fetch_private: false,
            store_max_bytes: None,
            is_durable: false,
            rootless: false,
            coordinators: 1,
            faults: None,
            cables: false,
            clocks_off_secs: 0,
        }
    }
}

/// A running farm. Everything ends, and everything is removed, with this value.
#[derive(Debug)]
pub struct Farm {
    // In the order in which they end.
    pub(crate) workers: Vec<Option<Service>>,
    pub(crate) coordinators: Vec<Option<Service>>,
    pub(crate) cables: Vec<Balancer>,
    pub(crate) cable_faults: Vec<FaultProxy>,
    _balancer: Option<Balancer>,
    pub(crate) s3_faults: Option<FaultProxy>,
    pub(crate) registry_faults: Option<FaultProxy>,
    pub(crate) s3: Option<Service>,
    pub(crate) s3_host: String,
    pub(crate) registry: Registry,
    registry_host: String,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    address: String,
    token: String,
    pub(crate) is_rootless: bool,
    pub(crate) directory: tempfile::TempDir,
}

/// What a run of the command line came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Farm {
    /// Starts everything and waits until it works.
    pub fn start(options: FarmOptions) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("slipway-farm-").tempdir()?;
        let root = directory.path();
        // Postgres runs as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root, open)?;
        let durability = if options.is_durable { Durability::Kept } else { Durability::Scratch };
        let postgres = testkit::postgres(root, durability)?;
        let redis = Redis::start(root)?;
        let registry = testkit::registry(root)?;
        let is_mirror = push_base_images(registry.host())?;
        let (s3, s3_host) = start_s3(root, "127.0.0.1:0")?;
        let faulty = |host: &str| options.faults.map(|seed| FaultProxy::start(host, seed));
        let (s3_faults, registry_faults) =
            (faulty(&s3_host).transpose()?, faulty(registry.host()).transpose()?);
        let registry_host = shown(registry_faults.as_ref(), registry.host());
        let mirrors = if is_mirror {
            format!("[registries.\"docker.io\"]\nmirrors = [\"{registry_host}\"]\n")
        } else {
            String::new()
        };
        let database = postgres.database("farm")?;
        let rest = format!(
            "worker_lost_after_secs = {}\n[database]\nurl = \"{database}\"\n\
             [redis]\nurl = \"{}\"\n[s3]\nendpoint = \"http://{}\"\nbucket = \"slipway\"\n\
             access_key = \"key\"\nsecret_key = \"secret\"\n[auth]\nkey = \"{}\"\n\
             [secrets]\nkey = \"{}\"\n[fetch]\nallow_private_networks = {}\n{mirrors}",
            options.lost_after_secs,
            redis.url(),
            shown(s3_faults.as_ref(), &s3_host),
            "5c".repeat(32),
            "a7".repeat(32),
            options.fetch_private,
        );
        let (mut coordinators, mut addresses) = (Vec::new(), Vec::new());
        for number in 1..=options.coordinators {
            let (coordinator, address) = first_start(root, number, &rest)?;
            coordinators.push(Some(coordinator));
            addresses.push(address);
        }
        let is_one = addresses.len() == 1;
        let start_balancer = || Balancer::start(&addresses, Some("/healthz"));
        let balancer = (!is_one).then(start_balancer).transpose()?;
        let address = balancer.as_ref().map_or(addresses[0], Balancer::address);
        let config = root.join("coordinator.toml");
        let token = run_coordinator(&config, &["token", "--scope", "builds:write"])?;
        let join = run_coordinator(&config, &["token", "--scope", "workers"])?;
        let join = format!("token = \"{}\"\n{mirrors}", join.trim());
        let (mut workers, mut cables, mut cable_faults) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=options.workers {
            let mut seen = address;
            if options.cables {
                let (cable, faults) = cable_to(address, number)?;
                seen = faults.address();
                cables.push(cable);
                cable_faults.push(faults);
            }
            let rest = format!("[coordinator]\nurl = \"http://{seen}\"\n{join}");
            workers.push(Some(first_worker(root, number, &rest, options)?));
        }
        let farm = Self {
            workers,
            coordinators,
            cables,
            cable_faults,
            _balancer: balancer,
            s3_faults,
            registry_faults,
            s3: Some(s3),
            s3_host,
            registry,
            registry_host,
            redis,
            postgres,
            address: format!("http://{address}"),
            token: token.trim().to_owned(),
            is_rootless: options.rootless,
            directory,
        };
        farm.wait_for_workers(options.workers)?;
        Ok(farm)
    }

    /// Waits until so many workers are live.
    pub fn wait_for_workers(&self, count: usize) -> anyhow::Result<()> {
        Ok(wait_for("the workers", Duration::from_secs(30), || {
            let listed = self.slipway(["workers"]).ok()?.stdout;
            (listed.matches(" live ").count() == count).then_some(())
        })?)
    }

    /// The directory of all its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The coordinator's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A token for builds.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The registry's address.
    pub fn registry(&self) -> &str {
        &self.registry_host
    }

    /// Redis.
    pub fn redis(&mut self) -> &mut Redis {
        &mut self.redis
    }

    /// The command line, ready to be given arguments.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(program("slipway")?);
        command.env("SLIPWAY_SERVER", &self.address).env("SLIPWAY_TOKEN", &self.token);
        // What it remembers of contexts is not for other farms.
        command.env("XDG_CACHE_HOME", self.directory().join("cache")).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the command line.
    pub fn slipway<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Ran> {
        Ok(Ran::of(&self.command()?.args(arguments).output()?))
    }

    /// Starts the command line in the background.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Child> {
        let mut command = self.command()?;
        Ok(command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// The newest build.
    pub fn last_build(&self) -> anyhow::Result<BuildView> {
        let ran = self.slipway(["show", "last", "--json"])?;
        serde_json::from_str(&ran.stdout).with_context(|| ran.stderr)
    }

    /// All builds, oldest first.
    pub fn builds(&self) -> anyhow::Result<Vec<BuildView>> {
        let ids = self.query("select id from build order by created_at, id")?;
        let view = |id: &str| {
            let ran = self.slipway(["show", id, "--json"])?;
            serde_json::from_str(&ran.stdout).with_context(|| ran.stderr)
        };
        ids.lines().map(str::trim).filter(|id| !id.is_empty()).map(view).collect()
    }

    /// What a query of the farm's database gives: a line a row, columns between bars.
    pub fn query(&self, sql: &str) -> anyhow::Result<String> {
        Ok(self.postgres.query("farm", sql)?)
    }

    /// The newest build, once `condition` holds for it.
    pub fn wait_for_build(
        &self,
        what: &str,
        condition: impl Fn(&BuildView) -> bool,
    ) -> anyhow::Result<BuildView> {
        let newest = || self.last_build().ok().filter(&condition);
        Ok(wait_for(what, Duration::from_mins(1), newest)?)
    }

    /// The whole log of the newest build.
    pub fn last_log(&self) -> anyhow::Result<String> {
        Ok(self.slipway(["logs", "last"])?.stdout)
    }

    /// Runs `slipway-worker store` for a worker; `name` as in `worker-1`.
    pub fn store<S: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Ran> {
        let mut command = Command::new(program("slipway-worker")?);
        command.arg("store").args(arguments).arg("--config");
        let output = command.arg(self.directory().join(format!("{name}.toml"))).output()?;
        Ok(Ran::of(&output))
    }

    /// Where a worker keeps things.
    pub fn worker_data(&self, name: &str) -> PathBuf {
        self.directory().join(format!("data-{}", name.trim_start_matches("worker-")))
    }

    /// Starts a worker that was killed.
    pub fn restart_worker(&mut self, name: &str) -> anyhow::Result<()> {
        let number: usize = name.trim_start_matches("worker-").parse()?;
        let started = start_worker(self.directory.path(), number, self.is_rootless)?;
        *self.workers.get_mut(number - 1).context("no such worker")? = Some(started);
        Ok(())
    }

    /// Kills a worker without warning; `name` as in `worker-1`.
    pub fn kill_worker(&mut self, name: &str) -> anyhow::Result<()> {
        let number: usize = name.trim_start_matches("worker-").parse()?;
        let worker = self.workers.get_mut(number - 1).context("no such worker")?;
        Ok(worker.take().context("the worker is gone already")?.kill()?)
    }

    /// Ends a worker in order and starts it again with an empty store.
    pub fn renew_worker(&mut self, name: &str) -> anyhow::Result<()> {
        let number: usize = name.trim_start_matches("worker-").parse()?;
        let (root, is_rootless) = (self.directory.path().to_owned(), self.is_rootless);
        let worker = self.workers.get_mut(number - 1).context("no such worker")?;
        drop(worker.take());
        std::fs::remove_dir_all(root.join(format!("data-{number}")))?;
        *worker = Some(start_worker(&root, number, is_rootless)?);
        Ok(wait_for("the new worker", Duration::from_secs(30), || {
            let listed = self.slipway(["workers"]).ok()?.stdout;
            let is_live = |line: &str| line.contains(name) && line.contains(" live ");
            listed.lines().any(is_live).then_some(())
        })?)
    }

    /// Kills the coordinator without warning.
    pub fn kill_coordinator(&mut self) -> anyhow::Result<()> {
        Ok(self.coordinators[0].take().context("the coordinator is gone already")?.kill()?)
    }

    /// Starts the coordinator again.
    pub fn restart_coordinator(&mut self) -> anyhow::Result<()> {
        self.coordinators[0] = Some(start_coordinator(self.directory.path(), 1)?);
        Ok(())
    }

    /// Adds to the coordinator's configuration, and starts it anew.
    pub fn configure_coordinator(&mut self, text: &str) -> anyhow::Result<()> {
        let path = self.directory.path().join("coordinator.toml");
        let old = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{old}\n{text}"))?;
        self.kill_coordinator()?;
        self.restart_coordinator()?;
        wait_for("the coordinator", Duration::from_secs(30), || {
            self.slipway(["workers"]).ok().filter(|ran| ran.code == 0).map(drop)
        })?;
        Ok(())
    }

    /// A token for a scope.
    pub fn make_token(&self, scope: &str) -> anyhow::Result<String> {
        let config = self.directory.path().join("coordinator.toml");
        Ok(run_coordinator(&config, &["token", "--scope", scope])?.trim().to_owned())
    }

    /// The process of a worker; `name` as in `worker-1`.
    pub fn worker_process(&self, name: &str) -> anyhow::Result<u32> {
        let number: usize = name.trim_start_matches("worker-").parse()?;
        let worker = self.workers.get(number.wrapping_sub(1)).and_then(Option::as_ref);
        Ok(worker.with_context(|| format!("{name} does not run"))?.id())
    }

    /// Where the object store keeps what it has.
    pub fn object_directory(&self) -> PathBuf {
        self.directory.path().join("s3")
    }

    /// Where the workers' cgroups are, or would be: see the worker's module `runtime::cgroup`.
    fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut places: Vec<PathBuf> = hierarchies.map(|entry| entry.path()).collect();
        places.push(PathBuf::from("/sys/fs/cgroup"));
        let names: Vec<String> = (1..=self.workers.len())
            .filter_map(|number| {
                let data = self.directory.path().join(format!("data-{number}/tmp"));
                let data = data.canonicalize().ok()?;
                let digest = common::Digest::of(data.as_os_str().as_encoded_bytes());
                Some(format!("slipway-{}", digest.short()))
            })
            .collect();
        places.iter().flat_map(|place| names.iter().map(|name| place.join(name))).collect()
    }

    /// Stops everything and tells what is left behind: processes and mounts that name the farm's
    /// directory.
    pub fn stop_and_list_leftovers(self) -> anyhow::Result<Vec<String>> {
        let path = self.directory.path().to_owned();
        let cgroups = self.cgroups();
        drop(self);
        let mut left = leftovers(&path)?;
        left.extend(
            cgroups
                .iter()
                .filter(|cgroup| cgroup.exists())
                .map(|cgroup| cgroup.display().to_string()),
        );
        if path.exists() {
            left.push(path.display().to_string());
        }
        Ok(left)
    }
}

impl Drop for Farm {
    /// A worker that a test has killed cannot remove its cgroups; the next one on its data directory
    /// would, but there is none.
    fn drop(&mut self) {
        let cgroups = self.cgroups();
        self.workers.clear();
        for cgroup in cgroups {
            let inner = std::fs::read_dir(&cgroup).into_iter().flatten().flatten();
            for container in inner.map(|entry| entry.path()).filter(|path| path.is_dir()) {
                let _ = std::fs::remove_dir(container.join("container"));
                let _ = std::fs::remove_dir(container);
            }
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

/// Processes and mounts that name a directory.
pub fn leftovers(directory: &Path) -> anyhow::Result<Vec<String>> {
    let path = directory.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut left: Vec<String> =
        mounts.lines().filter(|line| line.contains(&path)).map(str::to_owned).collect();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&path) {
            left.push(command);
        }
    }
    Ok(left)
}

fn run_coordinator(config: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program("slipway-coordinator")?)
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a coordinator's configuration is.
fn coordinator_config(root: &Path, number: usize) -> PathBuf {
    match number {
        1 => root.join("coordinator.toml"),
        _ => root.join(format!("coordinator-{number}.toml")),
    }
}

pub(crate) fn start_coordinator(root: &Path, number: usize) -> anyhow::Result<Service> {
    let mut command = Command::new(program("slipway-coordinator")?);
    command.arg("serve").arg("--config").arg(coordinator_config(root, number));
    let name = if number == 1 { "coordinator".to_owned() } else { format!("coordinator-{number}") };
    Ok(Service::start(&name, &command, root)?)
}

/// Configures and starts a coordinator; `rest` is its configuration from within `[server]` on.
fn first_start(root: &Path, number: usize, rest: &str) -> anyhow::Result<(Service, SocketAddr)> {
    let config = coordinator_config(root, number);
    let address_file = root.join(format!("address-{number}"));
    let listen = |address: &str| {
        let file = address_file.display();
        format!("[server]\nlisten = \"{address}\"\naddress_file = \"{file}\"\n{rest}")
    };
    std::fs::write(&config, listen("127.0.0.1:0"))?;
    run_coordinator(&config, &["migrate"])?;
    let coordinator = start_coordinator(root, number)?;
    let address = wait_for("the coordinator", Duration::from_secs(30), || {
        std::fs::read_to_string(&address_file).ok().filter(|text| text.ends_with('\n'))
    })?;
    let address = address.trim().trim_start_matches("http://");
    // A restart has to come back under the same address.
    std::fs::write(&config, listen(address))?;
    Ok((coordinator, address.parse()?))
}

/// The address of a server, or of what stands before it.
fn shown(faults: Option<&FaultProxy>, host: &str) -> String {
    faults.map_or_else(|| host.to_owned(), FaultProxy::host)
}

/// A cable that can be pulled, and before it what spoils requests.
fn cable_to(address: SocketAddr, number: usize) -> anyhow::Result<(Balancer, FaultProxy)> {
    let cable = Balancer::start(&[address], None)?;
    let faults = FaultProxy::start(&cable.address().to_string(), number as u64)?;
    Ok((cable, faults))
}

/// Configures and starts a worker; `rest` is its configuration from the coordinator on.
fn first_worker(
    root: &Path,
    number: usize,
    rest: &str,
    options: FarmOptions,
) -> anyhow::Result<Service> {
    let text = worker_config(root, number, options) + rest;
    std::fs::write(root.join(format!("worker-{number}.toml")), text)?;
    if options.clocks_off_secs > 0 {
        let sign = if number % 2 == 1 { '+' } else { '-' };
        let clock = format!("{sign}{}", options.clocks_off_secs);
        std::fs::write(root.join(format!("worker-{number}.clock")), clock)?;
    }
    start_worker(root, number, options.rootless)
}

/// The user of workers without rights. Nobody else has the number.
const ROOTLESS_USER: u32 = 61_234;

/// Starts a worker as that user: it is known, and has numbers to give away, in a mount namespace of
/// the worker alone. The rest of the machine does not learn of it.
const ROOTLESS_SCRIPT: &str = "
for name in passwd group subuid subgid; do cat /etc/$name > $2/$name 2> /dev/null || :; done
echo slipway-test:x:$1:$1::/:/bin/sh >> $2/passwd
echo slipway-test:x:$1: >> $2/group
echo slipway-test:200000:65536 | tee -a $2/subuid >> $2/subgid
for name in passwd group subuid subgid; do mount --bind $2/$name /etc/$name; done
exec setpriv --reuid $1 --regid $1 --clear-groups --inh-caps=-all -- $0 run --config $3";

pub(crate) fn start_worker(root: &Path, number: usize, rootless: bool) -> anyhow::Result<Service> {
    let config = root.join(format!("worker-{number}.toml"));
    let program = program("slipway-worker")?;
    let mut command = if rootless {
        let (data, tables) =
            (root.join(format!("data-{number}")), root.join(format!("etc-{number}")));
        for directory in [&data, &tables] {
            std::fs::create_dir_all(directory)?;
        }
        std::os::unix::fs::chown(&data, Some(ROOTLESS_USER), Some(ROOTLESS_USER))?;
        // Where a table is missing there has to be something to mount it on.
        for name in ["/etc/subuid", "/etc/subgid"] {
            std::fs::File::options().append(true).create(true).open(name)?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-ec", ROOTLESS_SCRIPT]);
        command.arg(program).arg(ROOTLESS_USER.to_string()).arg(tables).arg(config);
        command
    } else {
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(config);
        command
    };
    command.stdin(Stdio::null());
    if let Ok(clock) = std::fs::read_to_string(root.join(format!("worker-{number}.clock"))) {
        // Time that passes is right, as on any machine; what time it is is not.
        let library = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library = library
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.is_file());
        let library = library.context("libfaketime is not installed: make deps")?;
        command.env("LD_PRELOAD", library).env("FAKETIME", clock);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    Ok(Service::start(&format!("worker-{number}"), &command, root)?)
}

/// What a worker's configuration says of the worker itself.
fn worker_config(root: &Path, number: usize, options: FarmOptions) -> String {
    let limit = options.store_max_bytes;
    let store = limit.map_or_else(String::new, |limit| format!("store_max_bytes = {limit}\n"));
    format!(
        // However full the disk is on which the tests run.
        "[worker]\nname = \"worker-{number}\"\ndata_dir = \"{}\"\nslots = {}\ndrain_secs = 5\n{store}\
         store_min_free_bytes = 1\n[fetch]\nallow_private_networks = {}\n",
        root.join(format!("data-{number}")).display(),
        options.slots,
        options.fetch_private,
    )
}

/// Starts the S3 server and gives its `HOST:PORT`.
pub(crate) fn start_s3(root: &Path, listen: &str) -> anyhow::Result<(Service, String)> {
    let mut command = Command::new(program("slipway-s3")?);
    command.args(["--listen", listen, "--access-key", "key", "--secret-key", "secret"]);
    command.arg("--root").arg(root.join("s3"));
    let service = Service::start("s3", &command, root)?;
    let address = wait_for("the S3 server", Duration::from_secs(20), || {
        let log = service.log();
        let line = log.lines().rev().find_map(|line| line.strip_prefix("listening on "))?;
        Some(line.to_owned())
    })?;
    wait_for("its socket", Duration::from_secs(20), || {
        std::net::TcpStream::connect(&address).ok()
    })?;
    Ok((service, address))
}
