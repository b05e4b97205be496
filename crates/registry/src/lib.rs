//! Client of OCI registries: resolve, pull and push, with mirrors, auth and retries.
