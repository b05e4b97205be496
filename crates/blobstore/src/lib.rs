//! Content-addressed bytes in S3: object names, packs, manifests, the client.
