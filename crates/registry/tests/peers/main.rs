//! The registry that Debian has, in the ways that people run it.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod certificates;
mod server;

use std::io::Cursor;
use std::path::Path;

use common::image::{ImageDocument, Layer, LayerOrigin, RootFs};
use common::{Digest, Platform};
use futures_util::TryStreamExt as _;
use oci::Reference;
use oci::image::{Style, assemble};
use registry::{Client, Config, PushBlob, PushImage, RegistryConfig, RegistryError};

use crate::certificates::Authority;
use crate::server::{Server, TokenServer};

/// A layer and an image of it.
fn image(length: usize) -> (Vec<u8>, PushImage) {
    let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 253).unwrap()).collect();
    let layer = Layer {
        diff_id: Digest::of(&bytes),
        blob: Digest::of(&bytes),
        size_bytes: length as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        origin: LayerOrigin::Farm,
    };
    let platform = Platform::host();
    let document = ImageDocument {
        architecture: platform.architecture,
        os: platform.os,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id] },
        ..ImageDocument::default()
    };
    let made = assemble(&document, std::slice::from_ref(&layer), &Style::default()).unwrap();
    let push = PushImage {
        manifest: made.manifest,
        manifest_media_type: made.manifest_media_type,
        config: made.config,
        blobs: vec![PushBlob { layer }],
    };
    (bytes, push)
}

/// Pushes an image and reads it again.
async fn round_trip(client: &Client, host: &str, length: usize) -> Result<(), RegistryError> {
    let (bytes, image) = image(length);
    let reference: Reference = format!("{host}/team/app:1").parse().unwrap();
    let open = |_: Layer| {
        let bytes = bytes.clone();
        async { Ok(Cursor::new(bytes)) }
    };
    let sent = client.push(&reference, &image, open).await?;
    assert_eq!(sent, (bytes.len() + image.config.len()) as u64);
    assert_eq!(client.push(&reference, &image, open).await?, 0);
    // Another repository of the same registry takes the layer over.
    let other: Reference = format!("{host}/team/other:1").parse().unwrap();
    let resolved = client.resolve(&reference, &Platform::host()).await?;
    assert_eq!(resolved.digest, Digest::of(&image.manifest));
    let from_registry = PushImage {
        blobs: resolved.layers.iter().map(|layer| PushBlob { layer: layer.clone() }).collect(),
        ..image.clone()
    };
    let sent = client.push(&other, &from_registry, open).await?;
    assert_eq!(sent, image.config.len() as u64, "the layer was mounted");
    let stream = client.pull_blob(&other.name(), &resolved.layers[0].blob).await?;
    let got: Vec<_> = stream.try_collect().await.unwrap();
    assert!(got.concat() == bytes);
    Ok(())
}

fn config(host: &str, own: RegistryConfig, docker: Option<&Path>) -> Config {
    let mut config = Config::default();
    config.registries.insert(host.to_owned(), own);
    config.docker_config = docker.map(Path::to_owned);
    config
}

#[tokio::test]
async fn passwords_open_it_and_chunks_arrive() {
    let root = tempfile::tempdir().unwrap();
    // user:secret
    let hash = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    std::fs::write(root.path().join("htpasswd"), hash).unwrap();
    let path = root.path().join("htpasswd");
    let auth = format!("auth: {{htpasswd: {{realm: farm, path: \"{}\"}}}}\n", path.display());
    let server = Server::start(root.path(), &auth, "");
    let docker = root.path().join("config.json");
    let host = &server.host;
    let wrong = format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjp3cm9uZw=="}}}}}}"#);
    let right = format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#);
    for (text, opens) in [("{}", false), (wrong.as_str(), false), (&right, true)] {
        std::fs::write(&docker, text).unwrap();
        let client = Client::new(config(host, RegistryConfig::default(), Some(&docker))).unwrap();
        let result = round_trip(&client, host, 3 << 20).await;
        let denied = matches!(result, Err(RegistryError::Denied { .. }));
        assert_eq!((result.is_ok(), denied), (opens, !opens), "{text}: {result:?}");
    }
    // Chunks, against the same registry.
    let own = RegistryConfig { max_request_bytes: Some(1 << 20), ..RegistryConfig::default() };
    let client = Client::new(config(host, own, Some(&docker))).unwrap();
    let (bytes, image) = image(5 << 20);
    let reference: Reference = format!("{host}/chunks:1").parse().unwrap();
    let open = |_: Layer| {
        let bytes = bytes.clone();
        async { Ok(Cursor::new(bytes)) }
    };
    client.push(&reference, &image, open).await.unwrap();
    assert!(client.resolve(&reference, &Platform::host()).await.is_ok());
}

#[tokio::test]
async fn a_token_server_lets_in_whom_it_knows() {
    let root = tempfile::tempdir().unwrap();
    let tokens = TokenServer::start(root.path()).await;
    let auth = format!(
        "auth: {{token: {{realm: \"http://{}/token\", service: farm, issuer: farm, \
         rootcertbundle: \"{}\"}}}}\n",
        tokens.host,
        tokens.certificate.display(),
    );
    let server = Server::start(root.path(), &auth, "");
    let docker = root.path().join("config.json");
    let host = &server.host;
    for (entry, opens) in [
        (r#"{"auth":"dXNlcjpzZWNyZXQ="}"#, true),
        (r#"{"identitytoken":"refresh"}"#, true),
        (r#"{"auth":"dXNlcjp3cm9uZw=="}"#, false),
    ] {
        std::fs::write(&docker, format!(r#"{{"auths":{{"{host}":{entry}}}}}"#)).unwrap();
        let client = Client::new(config(host, RegistryConfig::default(), Some(&docker))).unwrap();
        let reference: Reference = format!("{host}/{}:1", entry.len()).parse().unwrap();
        let (bytes, image) = image(1000);
        let open = |_: Layer| {
            let bytes = bytes.clone();
            async { Ok(Cursor::new(bytes)) }
        };
        let result = client.push(&reference, &image, open).await;
        assert_eq!(result.is_ok(), opens, "{entry}: {result:?}");
    }
}

#[tokio::test]
async fn a_private_authority_is_believed_by_who_was_told() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::make(root.path());
    let tls = format!(
        ", tls: {{certificate: \"{}\", key: \"{}\"}}",
        authority.certificate.display(),
        authority.key.display()
    );
    let server = Server::start(root.path(), "", &tls);
    let own = RegistryConfig { ca: Some(authority.ca.clone()), ..RegistryConfig::default() };
    let client = Client::new(config(&server.host, own, None)).unwrap();
    round_trip(&client, &server.host, 1000).await.unwrap();
    let stranger = RegistryConfig { plain_http: Some(false), ..RegistryConfig::default() };
    let client = Client::new(config(&server.host, stranger, None)).unwrap();
    let error = round_trip(&client, &server.host, 1000).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_mirror_gives_what_the_registry_behind_it_has() {
    let root = tempfile::tempdir().unwrap();
    let origin = Server::start(&root.path().join("origin"), "", "");
    let client = Client::new(Config::default()).unwrap();
    round_trip(&client, &origin.host, 100_000).await.unwrap();
    let proxy = format!("proxy: {{remoteurl: \"http://{}\"}}\n", origin.host);
    let mirror = Server::start(&root.path().join("mirror"), &proxy, "");
    // A name that nobody answers to: all of it comes through the mirror.
    let own = RegistryConfig { mirrors: vec![mirror.host.clone()], ..RegistryConfig::default() };
    let client = Client::new(config("nowhere.invalid", own, None)).unwrap();
    let reference: Reference = "nowhere.invalid/team/app:1".parse().unwrap();
    let resolved = client.resolve(&reference, &Platform::host()).await.unwrap();
    let stream = client.pull_blob(&reference.name(), &resolved.layers[0].blob).await.unwrap();
    let got: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(Digest::of(&got.concat()), resolved.layers[0].blob);
}

#[tokio::test]
async fn a_helper_that_fails_is_named() {
    let root = tempfile::tempdir().unwrap();
    let hash = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let path = root.path().join("htpasswd");
    std::fs::write(&path, hash).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: farm, path: \"{}\"}}}}\n", path.display());
    let server = Server::start(root.path(), &auth, "");
    let docker = root.path().join("config.json");
    std::fs::write(&docker, r#"{"credsStore":"surely-not-there"}"#).unwrap();
    let client =
        Client::new(config(&server.host, RegistryConfig::default(), Some(&docker))).unwrap();
    let error = round_trip(&client, &server.host, 10).await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-surely-not-there"), "{error}");
}
