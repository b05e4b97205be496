//! The server, through the client that the farm uses.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::time::Duration;

use blobstore::objects::{ObjectError, ObjectStore, S3Config};
use s3server::{ServerConfig, serve};
use tokio_util::sync::CancellationToken;

struct Server {
    store: ObjectStore,
    config: S3Config,
    _root: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

async fn start() -> Server {
    let root = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let config = ServerConfig {
        root: root.path().to_owned(),
        access_key: "key".into(),
        secret_key: "secret".into(),
        buckets: Vec::new(),
    };
    tokio::spawn(serve(listener, config, stop.clone()));
    let config = S3Config {
        endpoint,
        public_endpoint: None,
        region: "us-east-1".into(),
        bucket: "farm".into(),
        access_key: "key".into(),
        secret_key: "secret".into(),
        path_style: true,
    };
    let store = ObjectStore::new(&config);
    store.ensure_bucket().await.unwrap();
    store.ensure_bucket().await.unwrap();
    Server { store, config, _root: root, _stop: stop.drop_guard() }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[tokio::test]
async fn objects_are_stored_read_measured_and_removed() {
    let server = start().await;
    for name in ["x", "x/y", "../escape", "trail/", "ü ? & #"] {
        server.store.put(name, name.as_bytes().to_vec()).await.unwrap();
    }
    for name in ["x", "x/y", "../escape", "trail/", "ü ? & #"] {
        assert_eq!(server.store.get(name, 100).await.unwrap(), name.as_bytes(), "{name}");
        assert_eq!(server.store.size(name).await.unwrap(), Some(name.len() as u64));
    }
    server.store.put("x", b"again".to_vec()).await.unwrap();
    assert_eq!(server.store.get("x", 100).await.unwrap(), b"again");
    assert!(matches!(server.store.get("x", 2).await, Err(ObjectError::TooBig(_))));
    server.store.delete("x").await.unwrap();
    server.store.delete("x").await.unwrap();
    assert!(matches!(server.store.get("x", 100).await, Err(ObjectError::NotFound(_))));
    assert_eq!(server.store.size("x").await.unwrap(), None);
    assert_eq!(server.store.get("x/y", 100).await.unwrap(), b"x/y");
}

#[tokio::test]
async fn presigned_requests_work_for_their_object_only_and_not_for_ever() {
    let server = start().await;
    let http = http();
    let minute = Duration::from_mins(1);
    let put = server.store.presign_put("a/b", 5, minute).await.unwrap();
    let answer = http.put(&put.url).body("hello").send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    let get = server.store.presign_get("a/b", minute).await.unwrap();
    assert_eq!(http.get(&get.url).send().await.unwrap().text().await.unwrap(), "hello");
    for (range, expected) in [("bytes=1-3", "ell"), ("bytes=3-", "lo"), ("bytes=-2", "lo")] {
        let answer = http.get(&get.url).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.text().await.unwrap(), expected);
    }
    let other = get.url.replace("a/b", "a/c");
    assert_eq!(http.get(other).send().await.unwrap().status(), 403);
    let longer = http.put(&put.url).body("hello, longer").send().await.unwrap();
    assert!(!longer.status().is_success());
    let short = server.store.presign_get("a/b", Duration::from_secs(1)).await.unwrap();
    let mut status = http.get(&short.url).send().await.unwrap().status();
    let start = std::time::Instant::now();
    while status.is_success() && start.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        status = http.get(&short.url).send().await.unwrap().status();
    }
    assert_eq!(status, 403);
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let server = start().await;
    let wrong = S3Config { secret_key: "wrong".into(), ..server.config.clone() };
    assert!(ObjectStore::new(&wrong).put("x", b"x".to_vec()).await.is_err());
    assert_eq!(server.store.size("x").await.unwrap(), None);
}
