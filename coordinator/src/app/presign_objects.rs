//! Addresses for workers, which hold no keys of the object store.

use std::collections::BTreeSet;

use api::Problem;
use api::worker::v1::{GetUrl, ObjectKind, ObjectName, ObjectsRequest, ObjectsResponse, PutUrl};
use blobstore::names;
use common::ProjectName;
use store::{ObjectKey, ObjectRow};

use super::{App, AppError};

/// Most names of one request.
const MAX_NAMES: usize = 1000;

/// Name of a kind in the database.
pub(super) fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Blob => "blob",
        ObjectKind::Pack => "pack",
        ObjectKind::Manifest => "manifest",
        ObjectKind::Export => "export",
    }
}

pub(super) fn object_name(project: &ProjectName, object: &ObjectName) -> String {
    match object.kind {
        ObjectKind::Blob => names::blob(project, &object.digest),
        ObjectKind::Pack => names::pack(project, &object.digest),
        ObjectKind::Manifest => names::manifest(project, &object.digest),
        ObjectKind::Export => names::export(project, &object.digest),
    }
}

impl App {
    /// Addresses of objects of the lease's project. What is there already gets none to write to.
    pub(crate) async fn presign_objects(
        &self,
        request: &ObjectsRequest,
    ) -> Result<ObjectsResponse, AppError> {
        if request.get.len() + request.put.len() > MAX_NAMES {
            let detail = format!("more than {MAX_NAMES} objects in one request");
            return Err(Problem::new(413, "too-many-objects", detail).into());
        }
        let (project, _) = self.store.lease_scope(request.lease).await?;
        let valid = self.retention.addresses;
        let mut get = Vec::new();
        for object in &request.get {
            let signed = self.objects.presign_get(&object_name(&project, object), valid).await?;
            get.push(GetUrl { digest: object.digest, url: signed.url });
        }
        let row = |object: &ObjectName| ObjectRow {
            key: ObjectKey { kind: kind_name(object.kind), digest: object.digest },
            size_bytes: object.size_bytes,
        };
        let rows: Vec<ObjectRow> = request.put.iter().map(row).collect();
        let present = if rows.is_empty() {
            BTreeSet::new()
        } else {
            self.store.present_objects(&project, &rows).await?
        };
        let mut put = Vec::new();
        for object in &request.put {
            let digest = object.digest;
            if present.contains(&(kind_name(object.kind).to_owned(), digest)) {
                put.push(PutUrl { digest, url: None, headers: Vec::new() });
                continue;
            }
            let name = object_name(&project, object);
            let signed = self.objects.presign_put(&name, &digest, object.size_bytes, valid).await?;
            put.push(PutUrl { digest, url: Some(signed.url), headers: signed.headers });
        }
        Ok(ObjectsResponse { get, put })
    }
}
