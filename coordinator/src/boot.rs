//! Starting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blobstore::objects::{Checksums, ObjectStore};
use logbus::Bus;
use service::lifecycle::Lifecycle;
use store::{SchemaState, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::{App, Keeping};
use crate::auth::KeyRing;
use crate::config::Config;
use crate::dispatch::Seats;
use crate::gather::Gather;
use crate::metrics::Metrics;
use crate::vault::Vault;
use crate::{dispatch, http, reconcile};

/// Planners of one process.
const PLANNERS: usize = 4;

/// Why the coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The signing key.
    #[error(transparent)]
    Key(#[from] crate::auth::InvalidKey),
    /// The key of the secrets.
    #[error(transparent)]
    SecretsKey(#[from] crate::vault::InvalidSecretsKey),
    /// The database.
    #[error("cannot use the database: {0}")]
    Store(#[from] store::StoreError),
    /// Migrations are missing.
    #[error("the database schema is behind this program: run slipway-coordinator migrate")]
    SchemaBehind,
    /// The schema is newer.
    #[error("the database schema is newer than this program: install the version that migrated it")]
    SchemaAhead,
    /// The object store.
    #[error("cannot use the object store: {0}")]
    Objects(#[from] blobstore::objects::ObjectError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] logbus::InvalidAddress),
    /// The registries' configuration.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The client of ADD.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// The socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The metrics.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A coordinator that is ready to serve.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Connects to everything and opens the socket.
    pub async fn bind(config: Config) -> Result<Self, BootError> {
        let keys = KeyRing::new(&config.auth.key, &config.auth.old_keys)?;
        let vault = config.secrets.as_ref().map(|it| Vault::new(&it.key, &it.old_keys));
        let vault = vault.transpose()?;
        let store = Store::connect(&config.database.url, config.database.max_connections).await?;
        match store.schema_state().await? {
            SchemaState::Current => {}
            SchemaState::Behind => return Err(BootError::SchemaBehind),
            SchemaState::Ahead => return Err(BootError::SchemaAhead),
        }
        let mut objects = ObjectStore::new(&config.s3);
        objects.ensure_bucket().await?;
        if config.s3.upload_checksums {
            objects = settle_checksums(objects).await;
        }
        let bus = match &config.redis {
            Some(redis) => Bus::redis(&redis.url)?,
            None => Bus::in_process(),
        };
        let registry = registry::Client::new(registry::Config {
            registries: config.registries.clone(),
            docker_config: None,
        })?;
        let address = config.server.listen;
        let fail = |source| BootError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        if let Some(path) = &config.server.address_file {
            std::fs::write(path, format!("http://{address}\n")).map_err(fail)?;
        }
        let lost_after = Duration::from_secs(config.server.worker_lost_after_secs);
        let metrics = Metrics::new()?;
        let retention = Keeping::from(&config.retention);
        let fetcher = fetch::Fetcher::new(config.fetch)?;
        let app = Arc::new(App {
            store,
            objects,
            bus,
            seats: Seats::default(),
            exchanges: Gather::default(),
            results: Gather::default(),
            registry,
            fetcher,
            keys,
            vault,
            metrics,
            lost_after,
            suspicion: tokio::sync::Mutex::default(),
            retention,
            weights: watch::Sender::default(),
        });
        Ok(Self { app, listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs all parts on the lifecycle's tasks, until its stop.
    pub fn start(self, lifecycle: &Lifecycle) {
        tracing::info!("listening on http://{}", self.address);
        for _ in 0..PLANNERS {
            let planner = crate::app::plan_build::run_planner(
                Arc::clone(&self.app),
                lifecycle.soft().clone(),
            );
            lifecycle.spawn_essential("planner", planner);
        }
        let dispatch = dispatch::run(Arc::clone(&self.app), lifecycle.soft().clone());
        lifecycle.spawn_essential("dispatch", dispatch);
        let reconcile = reconcile::run(Arc::clone(&self.app), lifecycle.soft().clone());
        lifecycle.spawn_essential("reconcile", reconcile);
        let keep = reconcile::keep(Arc::clone(&self.app), lifecycle.soft().clone());
        lifecycle.spawn_essential("retention", keep);
        let serve = http::serve(self.app, self.listener, lifecycle.soft().clone());
        lifecycle.spawn_essential("http", serve);
    }
}

/// Goes without checksums of uploads where the store does not take them, and says what that costs.
async fn settle_checksums(objects: ObjectStore) -> ObjectStore {
    const COST: &str = "who has an address to write to may send other bytes: readers find that out";
    match objects.probe_checksums().await {
        Ok(Checksums::Checked) => objects,
        Ok(Checksums::Ignored) => {
            tracing::warn!("the object store does not compare checksums: {COST}");
            objects
        }
        Ok(Checksums::Refused) => {
            tracing::warn!("the object store takes no checksums: {COST}");
            objects.without_upload_checksums()
        }
        Err(error) => {
            tracing::warn!(%error, "what the object store does with checksums is not known");
            objects
        }
    }
}
