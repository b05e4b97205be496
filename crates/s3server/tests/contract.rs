//! The server, through the client that the farm uses.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::time::Duration;

use blobstore::objects::{Checksums, ObjectError, ObjectStore, Presigned, S3Config};
use common::Digest;
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
        upload_checksums: true,
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
    let put = server.store.presign_put("a/b", &Digest::of(b"hello"), 5, minute).await.unwrap();
    let answer = send(&http, &put, "hello").await;
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
    let longer = send(&http, &put, "hello, longer").await;
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

async fn send(http: &reqwest::Client, put: &Presigned, body: &'static str) -> reqwest::Response {
    let mut request = http.put(&put.url);
    for (name, value) in &put.headers {
        request = request.header(name, value);
    }
    request.body(body).send().await.unwrap()
}

#[tokio::test]
async fn an_address_to_write_to_takes_nothing_but_the_bytes_of_its_digest() {
    let server = start().await;
    let (http, minute) = (http(), Duration::from_mins(1));
    let (right, wrong) = ("hello", "hullo");
    let digest = Digest::of(right.as_bytes());
    let put = server.store.presign_put("a", &digest, 5, minute).await.unwrap();
    let refused = send(&http, &put, wrong).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("BadDigest"));
    // Who leaves the checksum out, or puts another in its place, has not what was signed.
    let none = Presigned { headers: Vec::new(), ..put.clone() };
    assert_eq!(send(&http, &none, wrong).await.status(), 403);
    let mut other =
        server.store.presign_put("a", &Digest::of(wrong.as_bytes()), 5, minute).await.unwrap();
    other.url.clone_from(&put.url);
    assert_eq!(send(&http, &other, wrong).await.status(), 403);
    assert_eq!(server.store.size("a").await.unwrap(), None);
    assert!(send(&http, &put, right).await.status().is_success());
    // For stores that refuse such headers.
    let plain = S3Config { upload_checksums: false, ..server.config.clone() };
    let put = ObjectStore::new(&plain).presign_put("b", &digest, 5, minute).await.unwrap();
    assert_eq!(put.headers, []);
    assert!(send(&http, &put, wrong).await.status().is_success());
}

#[tokio::test]
async fn what_a_store_does_with_checksums_is_found_out() {
    let server = start().await;
    assert_eq!(server.store.probe_checksums().await.unwrap(), Checksums::Checked);
    // Stores that are less careful.
    for (refuses, expected) in [(false, Checksums::Ignored), (true, Checksums::Refused)] {
        let answer = move |headers: axum::http::HeaderMap| async move {
            let is_refused = refuses && headers.contains_key("x-amz-checksum-sha256");
            if is_refused {
                axum::http::StatusCode::BAD_REQUEST
            } else {
                axum::http::StatusCode::OK
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(answer);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let config = S3Config { endpoint, ..server.config.clone() };
        assert_eq!(ObjectStore::new(&config).probe_checksums().await.unwrap(), expected);
        serving.abort();
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let server = start().await;
    let wrong = S3Config { secret_key: "wrong".into(), ..server.config.clone() };
    assert!(ObjectStore::new(&wrong).put("x", b"x".to_vec()).await.is_err());
    assert_eq!(server.store.size("x").await.unwrap(), None);
}
