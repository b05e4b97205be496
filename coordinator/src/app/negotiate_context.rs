//! Which parts of a context are missing.

use api::Problem;
use api::public::v1::{ContextNegotiation, ContextUpload, PackOffer, UploadTarget};
use blobstore::names;
use store::{ObjectKey, ObjectRow};

use super::layouts::MAX_BLOB_BYTES;
use super::{App, AppError};

/// Most packs of one context.
const MAX_PACKS: usize = 20_000;
/// Longest pack in bytes.
const MAX_PACK_BYTES: u64 = 64 << 20;
/// Most layers that are offered at once.
const MAX_BLOBS: usize = 20_000;

impl App {
    /// Names what the farm lacks, each with an address to send it to.
    pub(crate) async fn negotiate_context(
        &self,
        upload: &ContextUpload,
    ) -> Result<ContextNegotiation, AppError> {
        if upload.blobs.len() > MAX_BLOBS
            || upload.blobs.iter().any(|blob| blob.size_bytes > MAX_BLOB_BYTES)
        {
            let detail =
                format!("an image has at most {MAX_BLOBS} layers of {MAX_BLOB_BYTES} bytes");
            return Err(Problem::new(413, "image-too-big", detail).into());
        }
        let parts = || upload.packs.iter().chain(&upload.manifest);
        if upload.packs.len() > MAX_PACKS || parts().any(|part| part.size_bytes > MAX_PACK_BYTES) {
            let detail =
                format!("a context has at most {MAX_PACKS} packs of {MAX_PACK_BYTES} bytes");
            return Err(Problem::new(413, "context-too-big", detail)
                .with_hint("exclude files with .dockerignore")
                .into());
        }
        let offers: Vec<(&'static str, &PackOffer)> = upload
            .packs
            .iter()
            .map(|pack| ("pack", pack))
            .chain(upload.manifest.iter().map(|manifest| ("manifest", manifest)))
            .chain(upload.blobs.iter().map(|blob| ("blob", blob)))
            .collect();
        let row = |(kind, offer): &(&'static str, &PackOffer)| ObjectRow {
            key: ObjectKey { kind, digest: offer.digest },
            size_bytes: offer.size_bytes,
        };
        let rows: Vec<ObjectRow> = offers.iter().map(row).collect();
        let present = self.store.present_objects(&upload.project, &rows).await?;
        let mut missing = Vec::new();
        for (kind, offer) in offers {
            if present.contains(&(kind.to_owned(), offer.digest)) {
                continue;
            }
            let name = match kind {
                "pack" => names::pack(&upload.project, &offer.digest),
                "blob" => names::blob(&upload.project, &offer.digest),
                _ => names::manifest(&upload.project, &offer.digest),
            };
            let (digest, valid) = (&offer.digest, self.retention.addresses);
            let put = self.objects.presign_put(&name, digest, offer.size_bytes, valid).await?;
            missing.push(UploadTarget { digest: offer.digest, url: put.url, headers: put.headers });
        }
        Ok(ContextNegotiation { missing })
    }
}
