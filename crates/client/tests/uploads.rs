//! Uploads to an object store that says that something else arrived.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use api::public::v1::UploadTarget;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::put;
use client::public::Client;
use common::Digest;

/// What an upload comes to where the store refuses the first `mismatches` attempts, and what the store
/// has received.
async fn upload(mismatches: usize, code: &'static str) -> (Result<(), String>, Vec<Bytes>) {
    let received: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let seen = Arc::clone(&received);
    let answer = move |body: Bytes| async move {
        let mut seen = seen.lock().unwrap();
        seen.push(body);
        if seen.len() > mismatches {
            return (StatusCode::OK, String::new());
        }
        (StatusCode::BAD_REQUEST, format!("<Error><Code>{code}</Code></Error>"))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/part", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/part", put(answer))).await.unwrap();
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), PART).unwrap();
    let target = UploadTarget { digest: Digest::of(PART), url, headers: Vec::new() };
    let client = Client::new("http://127.0.0.1:9", None);
    let uploaded = client.upload(&target, file.path(), PART.len() as u64).await;
    server.abort();
    let received = std::mem::take(&mut *received.lock().unwrap());
    (uploaded.map_err(|error| error.to_string()), received)
}

const PART: &[u8] = b"a part of a context";

#[tokio::test]
async fn what_arrived_as_something_else_is_sent_again_whole() {
    for code in ["BadDigest", "XAmzContentChecksumMismatch"] {
        let (uploaded, received) = upload(2, code).await;
        assert_eq!(uploaded, Ok(()), "{code}");
        assert_eq!(received, [PART; 3], "{code}");
    }
}

#[tokio::test]
async fn what_never_matches_is_given_up() {
    let (uploaded, received) = upload(usize::MAX, "BadDigest").await;
    assert!(uploaded.unwrap_err().contains("BadDigest"));
    assert_eq!(received.len(), 4);
}

#[tokio::test]
async fn what_the_store_refuses_is_not_sent_again() {
    let (uploaded, received) = upload(usize::MAX, "EntityTooLarge").await;
    assert!(uploaded.unwrap_err().contains("EntityTooLarge"));
    assert_eq!(received.len(), 1);
}
