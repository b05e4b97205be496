//! Serving connections.

use std::io;
use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::objects::Objects;

/// What to serve, and to whom.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where the objects are.
    pub root: PathBuf,
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// Buckets that exist from the start.
    pub buckets: Vec<String>,
}

/// Serves until `stop` fires; requests that are under way are finished.
pub async fn serve(
    listener: TcpListener,
    config: ServerConfig,
    stop: CancellationToken,
) -> io::Result<()> {
    let objects = Objects::open(&config.root)?;
    for bucket in &config.buckets {
        objects.make_bucket(bucket)?;
    }
    let mut builder = S3ServiceBuilder::new(objects);
    builder.set_auth(SimpleAuth::from_single(config.access_key, config.secret_key));
    let service = builder.build();
    let tasks = TaskTracker::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a client that is gone: neither ends the server.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        // Without this a small answer waits for the client's acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), tasks.wait()).await;
    Ok(())
}
