//! Objects of the farm's store, by presigned URL.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::worker::v1::{ObjectName, ObjectsRequest, SuspectRequest};
use client::ClientError;
use client::worker::Client;
use common::{Digest, Lease};
use futures_util::{FutureExt as _, StreamExt as _};
use reqwest::header::{CONTENT_LENGTH, RANGE};

use super::TransferError;

/// Attempts of one transfer whose bytes arrive wrong.
const ATTEMPTS: u32 = 5;
/// How long a coordinator or store that does not answer is waited for: a restart must fail no stage.
const PATIENCE: Duration = Duration::from_mins(5);
/// First pause between attempts; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Uploads at once.
const PARALLEL: usize = 4;

/// Runs a transfer until it works, or fails in a way that will not pass.
pub(super) async fn with_retries<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, TransferError>
where
    F: Future<Output = Result<T, TransferError>>,
{
    let mut pause = FIRST_PAUSE;
    let start = Instant::now();
    let mut bad = 0;
    loop {
        match attempt().await {
            Err(TransferError::Client(error)) if passes(&error) && start.elapsed() < PATIENCE => {
                tracing::debug!(%error, "a transfer is tried again");
            }
            // A short answer is a broken connection as far as anybody can tell, and a layer that
            // ends too early cannot be unpacked.
            Err(error @ (TransferError::Damaged(_) | TransferError::Extract(_)))
                if bad + 1 < ATTEMPTS && !error.is_disk_full() =>
            {
                bad += 1;
                tracing::warn!(%error, "a transfer arrived damaged");
            }
            result => return result,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells the coordinator of an object that never arrives as it should. The outcome stays what it is:
/// if the object is damaged where it lies, the build goes on without this stage.
pub(super) async fn or_suspect<T>(
    client: &Client,
    lease: Lease,
    objects: &[ObjectName],
    outcome: Result<T, TransferError>,
) -> Result<T, TransferError> {
    if let Err(error) = &outcome
        && error.blames_object()
    {
        let request = SuspectRequest { lease, objects: objects.to_vec() };
        match client.suspect(&request).await {
            Ok(answer) => {
                let struck_out = answer.struck_out.len();
                tracing::warn!(%error, struck_out, "the coordinator was told of a bad object");
            }
            Err(other) => tracing::warn!(%error, %other, "a bad object could not be told of"),
        }
    }
    outcome
}

/// Whether the next attempt may work: also when the token ended, which the session renews, and when
/// an address has run out, since each attempt asks for a new one.
fn passes(error: &ClientError) -> bool {
    error.is_transient()
        || match error {
            ClientError::Refused(problem) => problem.status == 401,
            ClientError::Store { status, .. } => *status == 403,
            _ => false,
        }
}

/// Gets an object, or a range of it, into memory.
pub(super) async fn fetch_bytes(
    client: &Client,
    lease: Lease,
    object: ObjectName,
    range: Option<(u64, u64)>,
    limit_bytes: usize,
) -> Result<Vec<u8>, TransferError> {
    let fetched = with_retries(|| async {
        let response = get(client, lease, object, range).await?;
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| broken(&error))?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit_bytes {
                return Err(TransferError::Damaged(object.digest.to_string()));
            }
        }
        let complete = match range {
            Some((_, length)) => bytes.len() as u64 == length,
            None => Digest::of(&bytes) == object.digest,
        };
        if complete { Ok(bytes) } else { Err(TransferError::Damaged(object.digest.to_string())) }
    })
    .await;
    or_suspect(client, lease, &[object], fetched).await
}

fn broken(error: &reqwest::Error) -> TransferError {
    let url = error.url().map_or_else(String::new, |url| url.path().to_owned());
    ClientError::Unreachable { url, message: error.to_string() }.into()
}

/// Begins to read an object.
pub(super) async fn get(
    client: &Client,
    lease: Lease,
    object: ObjectName,
    range: Option<(u64, u64)>,
) -> Result<reqwest::Response, TransferError> {
    let request = ObjectsRequest { lease, get: vec![object], put: Vec::new() };
    let answer = client.objects(&request).await?;
    let missing = || TransferError::Damaged("the list of addresses".to_owned());
    let url = &answer.get.first().ok_or_else(missing)?.url;
    let mut builder = client.http().get(url).timeout(Duration::from_mins(10));
    if let Some((offset, length)) = range {
        builder = builder.header(RANGE, format!("bytes={offset}-{}", offset + length - 1));
    }
    let response = builder.send().await.map_err(|error| broken(&error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refused(response).await)
}

async fn refused(response: reqwest::Response) -> TransferError {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_default();
    ClientError::Store { status, message: text.chars().take(200).collect() }.into()
}

/// Sends files that the store lacks. Returns the bytes that were sent.
pub(crate) async fn upload(
    client: &Client,
    lease: Lease,
    files: Vec<(ObjectName, PathBuf)>,
) -> Result<u64, TransferError> {
    let mut sent = 0;
    for batch in files.chunks(500) {
        let results: Vec<Result<u64, TransferError>> = futures_util::stream::iter(batch.to_vec())
            .map(|(object, path)| upload_one(client.clone(), lease, object, path).boxed())
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        for result in results {
            sent += result?;
        }
    }
    Ok(sent)
}

async fn upload_one(
    client: Client,
    lease: Lease,
    object: ObjectName,
    path: PathBuf,
) -> Result<u64, TransferError> {
    with_retries(|| async {
        let request = ObjectsRequest { lease, get: Vec::new(), put: vec![object] };
        let answer = client.objects(&request).await?;
        let Some(url) = answer.put.first().and_then(|put| put.url.as_ref()) else { return Ok(0) };
        let file = tokio::fs::File::open(&path).await?;
        let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
        let mut builder = client
            .http()
            .put(url)
            .timeout(Duration::from_mins(30))
            .header(CONTENT_LENGTH, object.size_bytes);
        for (name, value) in &answer.put[0].headers {
            builder = builder.header(name, value);
        }
        let body = reqwest::Body::wrap_stream(stream);
        let response = builder.body(body).send().await.map_err(|error| broken(&error))?;
        if response.status().is_success() {
            return Ok(object.size_bytes);
        }
        match refused(response).await {
            TransferError::Client(error) if error.is_mismatch() => {
                Err(TransferError::Damaged(object.digest.to_string()))
            }
            error => Err(error),
        }
    })
    .await
}
