//! The object store: S3 or anything that speaks its protocol.
//!
//! All objects are named by content or written once, so that writing twice does no harm and nothing
//! rests on conditional writes, which not every store has.

use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::Digest;
use common::digest::Hasher;
use serde::{Deserialize, Serialize};

/// Section `[s3]` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// Address of the store, such as `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// Address that clients and workers reach the store by, where it differs.
    #[serde(default)]
    pub public_endpoint: Option<String>,
    /// Region.
    #[serde(default = "default_region")]
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// Whether the bucket is part of the path rather than of the host name.
    #[serde(default = "default_path_style")]
    pub path_style: bool,
    /// Whether addresses to write to are for bytes of one SHA-256 only (`x-amz-checksum-sha256`);
    /// `false` is for stores that refuse that header.
    #[serde(default = "default_upload_checksums")]
    pub upload_checksums: bool,
}

fn default_upload_checksums() -> bool {
    true
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_path_style() -> bool {
    true
}

/// A call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("no object {0}")]
    NotFound(String),
    /// The object is longer than the caller takes.
    #[error("the object {0} is too big")]
    TooBig(String),
    /// The bytes are not those that the name promises.
    #[error("the object {0} is damaged")]
    Damaged(String),
    /// The store refused, failed or could not be reached, after retries.
    #[error("the object store failed to {action} {name}: {message}")]
    Store {
        /// What was asked for.
        action: &'static str,
        /// Of which object.
        name: String,
        /// What happened.
        message: String,
    },
}

/// What a store does with the checksum of what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// It refuses bytes that do not match.
    Checked,
    /// It takes any bytes.
    Ignored,
    /// It refuses the checksum itself.
    Refused,
}

/// Where a store is asked what it does with checksums. Nothing is ever read from there.
const CHECKSUM_PROBE: &str = "probes/checksum";

/// A request that somebody without keys may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presigned {
    /// Where.
    pub url: String,
    /// Headers that belong to it.
    pub headers: Vec<(String, String)>,
}

/// Attempts to read an object whose bytes arrive wrong, and the pause after the first; it grows.
const READ_ATTEMPTS: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(200);

/// A client of one bucket.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    client: Client,
    public: Client,
    bucket: String,
    upload_checksums: bool,
}

impl ObjectStore {
    /// A client. Nothing is sent yet.
    pub fn new(config: &S3Config) -> Self {
        let public = config.public_endpoint.as_deref().unwrap_or(&config.endpoint);
        Self {
            client: client(config, &config.endpoint),
            public: client(config, public),
            bucket: config.bucket.clone(),
            upload_checksums: config.upload_checksums,
        }
    }

    /// Makes the bucket if it is missing.
    pub async fn ensure_bucket(&self) -> Result<(), ObjectError> {
        if self.client.head_bucket().bucket(&self.bucket).send().await.is_ok() {
            return Ok(());
        }
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let known = error.as_service_error().is_some_and(|error| {
                    error.is_bucket_already_exists() || error.is_bucket_already_owned_by_you()
                });
                if known { Ok(()) } else { Err(failed("make the bucket", &self.bucket, error)) }
            }
        }
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), ObjectError> {
        let request = self.client.head_bucket().bucket(&self.bucket);
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| failed("find the bucket", &self.bucket, error))
    }

    /// From now on addresses to write to name no checksum.
    #[must_use]
    pub fn without_upload_checksums(self) -> Self {
        Self { upload_checksums: false, ..self }
    }

    /// Finds out what the store does with the checksums of what others send it.
    pub async fn probe_checksums(&self) -> Result<Checksums, ObjectError> {
        let body = b"checksum";
        let send = async |checksum: Option<Digest>| {
            let request = self.client.put_object().bucket(&self.bucket).key(CHECKSUM_PROBE);
            let request = request.body(ByteStream::from_static(body));
            let sent = request.set_checksum_sha256(checksum.as_ref().map(checksum_of)).send().await;
            match sent {
                Ok(_) => Ok(true),
                // It has answered, and the answer is no.
                Err(error)
                    if error.raw_response().is_some_and(|raw| raw.status().is_client_error()) =>
                {
                    Ok(false)
                }
                Err(error) => Err(failed("store", CHECKSUM_PROBE, error)),
            }
        };
        if !send(Some(Digest::of(body))).await? {
            // That it takes nothing at all is not for this to say.
            return Ok(Checksums::Refused);
        }
        let takes_others = send(Some(Digest::of(b"other"))).await?;
        // A few bytes that stay harm nobody.
        let _ = self.delete(CHECKSUM_PROBE).await;
        Ok(if takes_others { Checksums::Ignored } else { Checksums::Checked })
    }

    /// Stores bytes.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let request = self.client.put_object().bucket(&self.bucket).key(name);
        let request = request.body(ByteStream::from(bytes));
        request.send().await.map(drop).map_err(|error| failed("store", name, error))
    }

    /// Stores a file.
    pub async fn put_file(&self, name: &str, path: &Path) -> Result<(), ObjectError> {
        let body =
            ByteStream::from_path(path).await.map_err(|error| failed("read", name, error))?;
        let request = self.client.put_object().bucket(&self.bucket).key(name).body(body);
        request.send().await.map(drop).map_err(|error| failed("store", name, error))
    }

    /// An object of at most `limit_bytes`.
    pub async fn get(&self, name: &str, limit_bytes: usize) -> Result<Vec<u8>, ObjectError> {
        let mut body = self.open(name).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) =
            body.try_next().await.map_err(|error| failed("read", name, error))?
        {
            if bytes.len() + chunk.len() > limit_bytes {
                return Err(ObjectError::TooBig(name.to_owned()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn open(&self, name: &str) -> Result<ByteStream, ObjectError> {
        let request = self.client.get_object().bucket(&self.bucket).key(name);
        let answer = request.send().await.map_err(|error| {
            let missing = error
                .as_service_error()
                .is_some_and(aws_sdk_s3::operation::get_object::GetObjectError::is_no_such_key);
            if missing {
                ObjectError::NotFound(name.to_owned())
            } else {
                failed("read", name, error)
            }
        })?;
        Ok(answer.body)
    }

    /// An object that is named by its digest: the bytes are checked. What arrives broken or wrong is
    /// asked for again; it is called damaged when that does not help.
    pub async fn get_checked(
        &self,
        name: &str,
        digest: &Digest,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, ObjectError> {
        let mut attempt = 1;
        loop {
            let error = match self.get(name, limit_bytes).await {
                Ok(bytes) if Digest::of(&bytes) == *digest => return Ok(bytes),
                Ok(_) => ObjectError::Damaged(name.to_owned()),
                Err(error @ ObjectError::Store { .. }) => error,
                Err(error) => return Err(error),
            };
            if attempt == READ_ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(READ_PAUSE * attempt).await;
            attempt += 1;
        }
    }

    /// Whether an object that is named by its digest is there and has the bytes that the name promises.
    /// It is read as it comes, whatever its length, and read again before it is called damaged.
    pub async fn is_whole(&self, name: &str, digest: &Digest) -> Result<bool, ObjectError> {
        let mut attempt = 1;
        loop {
            let error = match self.digest_of(name).await {
                Ok(found) if found == *digest => return Ok(true),
                Ok(_) => None,
                Err(ObjectError::NotFound(_)) => return Ok(false),
                Err(error) => Some(error),
            };
            if attempt == READ_ATTEMPTS {
                return error.map_or(Ok(false), Err);
            }
            tokio::time::sleep(READ_PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn digest_of(&self, name: &str) -> Result<Digest, ObjectError> {
        let mut body = self.open(name).await?;
        let mut hasher = Hasher::new();
        while let Some(chunk) =
            body.try_next().await.map_err(|error| failed("read", name, error))?
        {
            hasher.update(&chunk);
        }
        Ok(hasher.finish())
    }

    /// Length of an object in bytes; none if there is none.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        match self.client.head_object().bucket(&self.bucket).key(name).send().await {
            Ok(answer) => {
                Ok(Some(u64::try_from(answer.content_length().unwrap_or(0)).unwrap_or(0)))
            }
            Err(error)
                if error.as_service_error().is_some_and(
                    aws_sdk_s3::operation::head_object::HeadObjectError::is_not_found,
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed("look for", name, error)),
        }
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(name);
        request.send().await.map(drop).map_err(|error| failed("remove", name, error))
    }

    /// A GET that somebody else may make for a while.
    pub async fn presign_get(&self, name: &str, valid: Duration) -> Result<Presigned, ObjectError> {
        let config =
            PresigningConfig::expires_in(valid).map_err(|error| failed("sign", name, error))?;
        let request = self.public.get_object().bucket(&self.bucket).key(name);
        request.presigned(config).await.map(presigned).map_err(|error| failed("sign", name, error))
    }

    /// A PUT of the `size_bytes` with this digest, and of no others, that somebody else may make for a
    /// while.
    pub async fn presign_put(
        &self,
        name: &str,
        digest: &Digest,
        size_bytes: u64,
        valid: Duration,
    ) -> Result<Presigned, ObjectError> {
        let config =
            PresigningConfig::expires_in(valid).map_err(|error| failed("sign", name, error))?;
        let length = i64::try_from(size_bytes).unwrap_or(i64::MAX);
        let request =
            self.public.put_object().bucket(&self.bucket).key(name).content_length(length);
        let checksum = self.upload_checksums.then(|| checksum_of(digest));
        let request = request.set_checksum_sha256(checksum);
        request.presigned(config).await.map(presigned).map_err(|error| failed("sign", name, error))
    }
}

/// A digest as S3 spells it.
fn checksum_of(digest: &Digest) -> String {
    BASE64_STANDARD.encode(digest.as_bytes())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map")]
fn presigned(request: aws_sdk_s3::presigning::PresignedRequest) -> Presigned {
    let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
    // The HTTP client of whoever sends it knows the length itself.
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    Presigned { url: request.uri().to_owned(), headers: headers.collect() }
}

fn failed<E>(action: &'static str, name: &str, error: E) -> ObjectError
where
    E: std::error::Error,
{
    let message = DisplayErrorContext(&error).to_string();
    ObjectError::Store { action, name: name.to_owned(), message }
}

fn client(config: &S3Config, endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
            aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https();
    let keys = Credentials::from_keys(&config.access_key, &config.secret_key, None);
    // The SDK itself has no limit for one attempt.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .read_timeout(Duration::from_secs(20))
        .operation_attempt_timeout(Duration::from_mins(2))
        .build();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(endpoint)
        .region(Region::new(config.region.clone()))
        .credentials_provider(keys)
        .force_path_style(config.path_style)
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(timeouts)
        // Not every store knows the newer checksums; digests are checked by whoever reads.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}
