//! The objects on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use s3s::dto::{
    CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput,
    ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio_util::io::ReaderStream;

/// Longest object of one PUT, as in S3.
const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// Locks that keys share: writers of one key exclude each other.
const LOCKS: usize = 64;

/// A directory of buckets.
#[derive(Debug)]
pub struct Objects {
    root: PathBuf,
    locks: Vec<Mutex<()>>,
}

/// What stands beside an object's bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    key: String,
    /// Name of the file that holds the bytes.
    content: String,
    size_bytes: u64,
    etag: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl Objects {
    /// Opens a directory, which may be empty or missing.
    pub fn open(root: &Path) -> io::Result<Self> {
        let tmp = root.join(".tmp");
        // What a killed server was receiving is nobody's.
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        fs::create_dir_all(&tmp)?;
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        Ok(Self { root: root.to_owned(), locks })
    }

    /// Makes a bucket unless it is there.
    pub fn make_bucket(&self, bucket: &str) -> io::Result<()> {
        fs::create_dir_all(self.root.join(bucket))
    }

    fn bucket(&self, bucket: &str) -> S3Result<PathBuf> {
        let path = self.root.join(bucket);
        // `s3s` has checked the name against S3's rules for bucket names: no slash, no leading dot.
        if path.is_dir() { Ok(path) } else { Err(s3_error!(NoSuchBucket)) }
    }

    /// Where the description of `key` is.
    fn description_path(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let hash = hex::encode(Sha256::digest(key.as_bytes()));
        Ok(self.bucket(bucket)?.join(&hash[..2]).join(format!("{hash}.json")))
    }

    fn lock(&self, key: &str) -> &Mutex<()> {
        let sum = key.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        &self.locks[sum % LOCKS]
    }

    async fn describe(&self, bucket: &str, key: &str) -> S3Result<(PathBuf, Description)> {
        let path = self.description_path(bucket, key)?;
        let bytes = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(s3_error!(NoSuchKey));
            }
            Err(error) => return Err(internal(error)),
        };
        let description: Description = serde_json::from_slice(&bytes).map_err(internal)?;
        let content = path.with_file_name(&description.content);
        Ok((content, description))
    }

    /// Receives a body into a file of its own, checking length and checksums.
    async fn receive(&self, input: &mut PutObjectInput) -> S3Result<(PathBuf, u64)> {
        let path = self.root.join(".tmp").join(uuid::Uuid::new_v4().simple().to_string());
        let result = receive_into(&path, input).await;
        if result.is_err() {
            let _ = tokio::fs::remove_file(&path).await;
        }
        result.map(|size_bytes| (path, size_bytes))
    }
}

async fn receive_into(path: &Path, input: &mut PutObjectInput) -> S3Result<u64> {
    let mut file = tokio::fs::File::create_new(path).await.map_err(internal)?;
    let mut sha256 = input.checksum_sha256.is_some().then(Sha256::new);
    let mut crc32 = input.checksum_crc32.is_some().then(crc32fast::Hasher::new);
    let mut size_bytes = 0;
    if let Some(mut body) = input.body.take() {
        while let Some(chunk) = body.next().await {
            let chunk =
                chunk.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
            size_bytes += chunk.len() as u64;
            if size_bytes > MAX_OBJECT_BYTES {
                return Err(s3_error!(EntityTooLarge));
            }
            if let Some(hasher) = &mut sha256 {
                hasher.update(&chunk);
            }
            if let Some(hasher) = &mut crc32 {
                hasher.update(&chunk);
            }
            file.write_all(&chunk).await.map_err(internal)?;
        }
    }
    file.flush().await.map_err(internal)?;
    if input.content_length.is_some_and(|length| u64::try_from(length).ok() != Some(size_bytes)) {
        return Err(s3_error!(IncompleteBody));
    }
    let sha256 = sha256.map(|hasher| BASE64_STANDARD.encode(hasher.finalize()));
    let crc32 = crc32.map(|hasher| BASE64_STANDARD.encode(hasher.finalize().to_be_bytes()));
    if sha256 != input.checksum_sha256 || crc32 != input.checksum_crc32 {
        return Err(s3_error!(BadDigest, "the checksum does not match the body"));
    }
    Ok(size_bytes)
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> S3Error {
    S3Error::with_source(S3ErrorCode::InternalError, Box::new(error))
}

/// Refuses a write whose preconditions do not hold.
fn check_conditions(input: &PutObjectInput, existing: Option<&str>) -> S3Result<()> {
    let matches = |condition: &ETagCondition| match condition {
        ETagCondition::Any => existing.is_some(),
        ETagCondition::ETag(etag) => existing == Some(etag.value()),
    };
    if input.if_none_match.as_ref().is_some_and(matches) {
        return Err(s3_error!(PreconditionFailed));
    }
    if input.if_match.as_ref().is_some_and(|condition| !matches(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.make_bucket(&request.input.bucket).map_err(internal)?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        let path = self.description_path(&input.bucket, &input.key)?;
        let (received, size_bytes) = self.receive(&mut input).await?;
        let _guard = self.lock(&input.key).lock().await;
        let existing = match self.describe(&input.bucket, &input.key).await {
            Ok((content, description)) => Some((content, description)),
            Err(error) if *error.code() == S3ErrorCode::NoSuchKey => None,
            Err(error) => return Err(error),
        };
        let etag = existing.as_ref().map(|(_, description)| description.etag.as_str());
        if let Err(error) = check_conditions(&input, etag) {
            let _ = tokio::fs::remove_file(&received).await;
            return Err(error);
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let description = Description {
            content: format!("{id}.bin"),
            // The form of a multipart ETag: nobody takes it for an MD5 sum.
            etag: format!("{id}-1"),
            size_bytes,
            content_type: input.content_type,
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            key: input.key,
        };
        let text = serde_json::to_vec(&description).map_err(internal)?;
        let directory = path.parent().unwrap_or(&self.root);
        tokio::fs::create_dir_all(directory).await.map_err(internal)?;
        let content = path.with_file_name(&description.content);
        tokio::fs::rename(&received, &content).await.map_err(internal)?;
        // The description makes the object visible.
        tokio::fs::write(&received, text).await.map_err(internal)?;
        tokio::fs::rename(&received, &path).await.map_err(internal)?;
        if let Some((old, _)) = existing {
            let _ = tokio::fs::remove_file(old).await;
        }
        let e_tag = Some(ETag::Strong(description.etag));
        Ok(S3Response::new(PutObjectOutput { e_tag, ..PutObjectOutput::default() }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        // A writer may replace the object between the two reads; the second try sees the new one.
        let (description, mut file) = {
            let (content, description) = self.describe(&input.bucket, &input.key).await?;
            match tokio::fs::File::open(&content).await {
                Ok(file) => (description, file),
                Err(_) => {
                    let (content, description) = self.describe(&input.bucket, &input.key).await?;
                    (description, tokio::fs::File::open(content).await.map_err(internal)?)
                }
            }
        };
        let size = description.size_bytes;
        let range = match &input.range {
            Some(range) => range.check(size).map_err(|_| s3_error!(InvalidRange))?,
            None => 0..size,
        };
        file.seek(io::SeekFrom::Start(range.start)).await.map_err(internal)?;
        let length = range.end - range.start;
        let stream = ReaderStream::with_capacity(file.take(length), 256 << 10);
        let content_range = input
            .range
            .map(|_| format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)));
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(StreamingBlob::wrap(stream)),
            content_length: i64::try_from(length).ok(),
            content_range,
            content_type: description.content_type,
            e_tag: Some(ETag::Strong(description.etag)),
            metadata: Some(description.metadata.into_iter().collect()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let (content, description) =
            self.describe(&request.input.bucket, &request.input.key).await?;
        let modified = tokio::fs::metadata(content).await.and_then(|found| found.modified());
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(description.size_bytes).ok(),
            content_type: description.content_type,
            e_tag: Some(ETag::Strong(description.etag)),
            last_modified: modified.ok().map(Timestamp::from),
            metadata: Some(description.metadata.into_iter().collect()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let path = self.description_path(&input.bucket, &input.key)?;
        let _guard = self.lock(&input.key).lock().await;
        if let Ok((content, _)) = self.describe(&input.bucket, &input.key).await {
            tokio::fs::remove_file(path).await.map_err(internal)?;
            let _ = tokio::fs::remove_file(content).await;
        }
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or(input.start_after.clone());
        let limit = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(0).min(1000);
        let all = tokio::task::spawn_blocking(move || read_descriptions(&bucket))
            .await
            .map_err(internal)?
            .map_err(internal)?;
        let mut contents = Vec::new();
        let mut prefixes: Vec<String> = Vec::new();
        let mut last = None;
        let mut is_truncated = false;
        for (key, (description, modified)) in all {
            if !key.starts_with(&prefix) || after.as_ref().is_some_and(|after| key <= *after) {
                continue;
            }
            let group = input.delimiter.as_deref().and_then(|delimiter| {
                let rest = &key[prefix.len()..];
                rest.find(delimiter).map(|at| format!("{prefix}{}", &rest[..at + delimiter.len()]))
            });
            if group.is_some() && group.as_ref() == prefixes.last() {
                last = Some(key);
                continue;
            }
            if contents.len() + prefixes.len() == limit {
                is_truncated = true;
                break;
            }
            match group {
                Some(group) => prefixes.push(group),
                None => contents.push(Object {
                    key: Some(key.clone()),
                    size: i64::try_from(description.size_bytes).ok(),
                    e_tag: Some(ETag::Strong(description.etag)),
                    last_modified: Some(Timestamp::from(modified)),
                    ..Object::default()
                }),
            }
            last = Some(key);
        }
        let prefixes = prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) });
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            common_prefixes: Some(prefixes.collect()),
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            max_keys: input.max_keys,
            ..ListObjectsV2Output::default()
        }))
    }
}

fn read_descriptions(bucket: &Path) -> io::Result<BTreeMap<String, (Description, SystemTime)>> {
    let mut all = BTreeMap::new();
    for shard in fs::read_dir(bucket)? {
        for entry in fs::read_dir(shard?.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(bytes) = fs::read(&path)
                && let Ok(description) = serde_json::from_slice::<Description>(&bytes)
            {
                let modified = fs::metadata(&path)?.modified()?;
                all.insert(description.key.clone(), (description, modified));
            }
        }
    }
    Ok(all)
}
