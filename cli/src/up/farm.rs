//! Starting all parts, waiting, and stopping them in order.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coordinator::auth::{KeyRing, Scope};
use s3server::ServerConfig as StoreConfig;
use service::lifecycle::Lifecycle;
use standalone::{Durability, Postgres, Registry, Service, registry_is_installed};
use tokio::net::TcpListener;

use super::config::UpConfig;
use super::keys::Keys;
use super::place::{Place, take, write_private};
use crate::args::Up;
use crate::exit::CliError;
use crate::output::print;

/// How often the parts are looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the tokens of workers and of this machine's users are good: until the next start, at
/// which new ones are made.
const TOKEN_SECS: u64 = 366 * 24 * 3600;
/// Where registries usually listen.
const REGISTRY_PORT: u16 = 5000;

/// Everything that runs outside of this process, in the order in which it stops.
struct Parts {
    workers: Vec<Service>,
    registry: Option<Registry>,
    postgres: Postgres,
}

/// Runs a farm until a signal comes or a part of it cannot go on.
pub(crate) async fn run(arguments: &Up) -> Result<ExitCode, CliError> {
    let directory = arguments.data_dir.clone().unwrap_or_else(super::default_directory);
    let directory = std::path::absolute(&directory).map_err(|e| CliError::file(&directory, &e))?;
    if arguments.listen.ip().is_unspecified() {
        return Err(CliError::Usage {
            message: format!("{} is no address that others can call", arguments.listen),
            hint: Some("give the address of one network interface".to_owned()),
        });
    }
    let config = UpConfig::load(arguments.config.as_deref())?;
    service::telemetry::init(&config.terminal_log());
    let lock = take(&directory)?;
    // Of one that was killed.
    Place::remove(&directory);
    // A signal stops the workers first, while the services still serve them.
    let (signals, services) = (Lifecycle::new(), Lifecycle::new());
    signals.listen_to_signals().map_err(|error| CliError::file(&directory, &error))?;
    let started = tokio::select! {
        started = start(arguments, &config, &directory, &services) => started?,
        () = signals.soft().cancelled() => return Ok(ExitCode::from(130)),
    };
    let (mut parts, place) = started;
    place.write(&directory)?;
    announce(&place, arguments, &directory);
    let ended = watch(&mut parts, &signals, &services).await;
    Place::remove(&directory);
    print("stopping ...");
    stop(parts, &signals, &services).await;
    drop(lock);
    match ended {
        None => Ok(ExitCode::SUCCESS),
        Some(name) => Err(CliError::Farm(format!(
            "{name} has ended by itself; its log is in {}",
            directory.display()
        ))),
    }
}

async fn start(
    arguments: &Up,
    config: &UpConfig,
    directory: &Path,
    services: &Lifecycle,
) -> Result<(Parts, Place), CliError> {
    let keys = Keys::load(directory)?;
    let postgres = Postgres::start(directory, Durability::Kept)?;
    let database = postgres.database("slipway")?;
    let host = arguments.listen.ip();
    let registry = start_registry(directory, host)?;
    let object_store = start_object_store(directory, host, &keys, services).await?;
    let farm = |error: &dyn std::fmt::Display| CliError::Farm(error.to_string());
    let store = store::Store::connect(&database, 1).await.map_err(|error| farm(&error))?;
    store.migrate().await.map_err(|error| farm(&error))?;
    let coordinator = config.coordinator(arguments.listen, database, object_store, &keys);
    let server = coordinator::Server::bind(coordinator).await.map_err(|error| farm(&error))?;
    let url = format!("http://{}", server.address());
    server.start(services);
    let ring = KeyRing::new(&keys.auth, &[]).map_err(|error| farm(&error))?;
    let token = |subject: &str, scopes: Vec<Scope>| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = KeyRing::claims(subject, scopes, vec!["*".to_owned()], now, TOKEN_SECS);
        ring.sign(&claims).map_err(|error| farm(&error))
    };
    let join = token("workers", vec![Scope::Workers])?;
    let mut workers = Vec::new();
    let slots = arguments.slots.unwrap_or_else(default_slots);
    for number in 1..=arguments.workers {
        let name = format!("worker-{number}");
        let data = private_directory(&directory.join(&name))?;
        let config = config.worker(name.clone(), data, slots, url.clone(), join.clone());
        workers.push(start_worker(directory, &name, &config)?);
    }
    let registry_host = registry.as_ref().map(|registry| registry.host().to_owned());
    let user = token("slipway up", vec![Scope::Admin, Scope::BuildsWrite])?;
    let place = Place { server: url, token: user, registry: registry_host };
    wait_for_workers(&place, &mut workers, directory).await?;
    Ok((Parts { workers, registry, postgres }, place))
}

/// A directory that nobody else can look into.
fn private_directory(path: &Path) -> Result<PathBuf, CliError> {
    let fail = |error| CliError::file(path, &error);
    std::fs::create_dir_all(path).map_err(|error: std::io::Error| fail(error))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(fail)?;
    Ok(path.to_owned())
}

/// As many stages at once as there are processors, but two at least: one often waits.
fn default_slots() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors).unwrap_or(u32::MAX).max(2)
}

/// A registry where one is installed, at the port that it had before if that can be.
fn start_registry(directory: &Path, host: IpAddr) -> Result<Option<Registry>, CliError> {
    if !registry_is_installed() {
        return Ok(None);
    }
    let path = directory.join("registry-port");
    let before = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    let is_free = |port: &u16| std::net::TcpListener::bind((host, *port)).is_ok();
    let free = || Some(std::net::TcpListener::bind((host, 0)).ok()?.local_addr().ok()?.port());
    let wanted = [before, Some(REGISTRY_PORT)].into_iter().flatten().find(is_free);
    let Some(port) = wanted.or_else(free) else { return Ok(None) };
    private_directory(&directory.join("registry"))?;
    let registry = Registry::start(directory, SocketAddr::new(host, port))?;
    std::fs::write(&path, format!("{port}\n")).map_err(|error| CliError::file(&path, &error))?;
    Ok(Some(registry))
}

async fn start_object_store(
    directory: &Path,
    host: IpAddr,
    keys: &Keys,
    services: &Lifecycle,
) -> Result<SocketAddr, CliError> {
    let root = private_directory(&directory.join("objects"))?;
    let listener =
        TcpListener::bind((host, 0)).await.map_err(|error| CliError::file(&root, &error))?;
    let address = listener.local_addr().map_err(|error| CliError::file(&root, &error))?;
    let config = StoreConfig {
        root,
        access_key: keys.s3_access.clone(),
        secret_key: keys.s3_secret.clone(),
        buckets: vec!["slipway".to_owned()],
    };
    let stop = services.soft().clone();
    services.spawn_essential("objects", async move {
        if let Err(error) = s3server::serve(listener, config, stop).await {
            tracing::error!(%error, "the object store failed");
        }
    });
    Ok(address)
}

/// Starts this program again in the role of a worker.
fn start_worker(
    directory: &Path,
    name: &str,
    config: &worker::Config,
) -> Result<Service, CliError> {
    let path = directory.join(format!("{name}.toml"));
    let fail = |error: &dyn std::fmt::Display| CliError::file(&path, error);
    let text = toml::to_string(config).map_err(|error| fail(&error))?;
    write_private(&path, text.as_bytes()).map_err(|error| fail(&error))?;
    let program = std::env::current_exe().map_err(|error| fail(&error))?;
    let mut command = Command::new(program);
    command.args(["worker", "--config"]).arg(&path);
    Ok(Service::start(name, &command, directory)?)
}

/// Waits until every worker has called, or one has ended because it cannot work here.
async fn wait_for_workers(
    place: &Place,
    workers: &mut [Service],
    directory: &Path,
) -> Result<(), CliError> {
    let client = client::public::Client::new(&place.server, Some(&place.token));
    let limit = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        let listed = client.workers().await?;
        let live = listed.iter().filter(|worker| worker.state == "live").count();
        if live >= workers.len() {
            return Ok(());
        }
        for ended in workers.iter_mut() {
            if ended.is_running() {
                continue;
            }
            let log = ended.log();
            let last = log.lines().rev().find(|line| !line.trim().is_empty());
            return Err(CliError::Farm(format!(
                "{} cannot work here: {}",
                ended.name(),
                last.unwrap_or("it said nothing").trim()
            )));
        }
        if tokio::time::Instant::now() >= limit {
            let log = directory.join("worker-1.log");
            let message = format!("the workers did not start; see {}", log.display());
            return Err(CliError::Farm(message));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn announce(place: &Place, arguments: &Up, directory: &Path) {
    let workers = if arguments.workers == 1 { "worker" } else { "workers" };
    print(&format!("a farm with {} {workers} is up", arguments.workers));
    print(&format!("  dashboard  {}/#token={}", place.server, place.token));
    print(&format!("  data       {}", directory.display()));
    let name = match &place.registry {
        Some(host) => {
            print(&format!("  registry   {host}"));
            format!("-t {host}/hello --push ")
        }
        None => String::new(),
    };
    let default = super::default_directory() == directory;
    let server =
        if default { "" } else { "(with SLIPWAY_SERVER and SLIPWAY_TOKEN from farm.json) " };
    print(&format!("  build      {server}slipway build {name}DIRECTORY"));
    print("Ctrl-C stops it; nothing is lost.");
}

/// Waits for a stop; gives the name of a part that ended by itself. Workers are started again.
async fn watch(
    parts: &mut Parts,
    signals: &Lifecycle,
    services: &Lifecycle,
) -> Option<&'static str> {
    loop {
        tokio::select! {
            () = signals.soft().cancelled() => return None,
            () = services.soft().cancelled() => return Some("the coordinator"),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if !parts.postgres.is_running() {
            return Some("postgres");
        }
        if let Some(registry) = &mut parts.registry
            && !registry.is_running()
        {
            return Some("registry");
        }
        for worker in &mut parts.workers {
            if worker.is_running() {
                continue;
            }
            tracing::warn!(worker = worker.name(), "the worker has ended and is started again");
            if let Err(error) = worker.restart() {
                tracing::warn!(%error, worker = worker.name(), "it cannot be started");
            }
        }
    }
}

/// Workers first: they hand back what they hold and end what they send; then the coordinator and
/// the object store; Postgres last.
async fn stop(parts: Parts, signals: &Lifecycle, services: &Lifecycle) {
    let Parts { mut workers, registry, postgres } = parts;
    for worker in &workers {
        let _ = worker.signal(rustix::process::Signal::TERM);
    }
    // They still need the coordinator, which runs in this process: wait elsewhere.
    let waited = tokio::task::spawn_blocking(move || {
        for worker in &mut workers {
            let _ = worker.stop();
        }
    });
    tokio::select! {
        _ = waited => {}
        () = signals.hard().cancelled() => {}
    }
    services.stop();
    services.run_until_stopped(Duration::from_secs(10)).await;
    drop(registry);
    drop(postgres);
}

/// The worker that `slipway up` has started: before any thread is.
pub(crate) fn work(config: &Path) -> Result<ExitCode, CliError> {
    let config = service::config::load(Some(config), &worker::config::SECTIONS, [])
        .map_err(|error| CliError::usage(error.to_string()))?;
    worker::program(config).map_err(|error| CliError::Farm(error.to_string()))
}
