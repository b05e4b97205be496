//! OCI and Docker image formats: references, manifests, indexes, configs, archives.
