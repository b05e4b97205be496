//! Pushing.

use std::io::Cursor;

use common::Digest;
use common::image::{Layer, LayerOrigin};
use oci::Reference;
use registry::{Client, Config, PushBlob, PushImage, RegistryConfig, RegistryError};

use crate::double::{Double, Faults};
use crate::pull::content;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

fn image(bytes: &[u8], origin: LayerOrigin) -> PushImage {
    let layer = Layer {
        diff_id: Digest::of(bytes),
        blob: Digest::of(bytes),
        size_bytes: bytes.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        origin,
    };
    PushImage {
        manifest: b"{}".to_vec(),
        manifest_media_type: KIND,
        config: b"{\"config\":1}".to_vec(),
        blobs: vec![PushBlob { layer }],
    }
}

fn client(double: &Double, max_request_bytes: Option<u64>) -> Client {
    let mut config = Config::default();
    let own = RegistryConfig { max_request_bytes, ..RegistryConfig::default() };
    config.registries.insert(double.host.clone(), own);
    Client::new(config).unwrap()
}

/// Pushes an image with one layer of this length.
async fn push(
    faults: Faults,
    length: usize,
    max_request_bytes: Option<u64>,
) -> (Double, Result<u64, RegistryError>) {
    let double = Double::start(faults).await;
    let bytes = content(length);
    let reference: Reference = format!("{}/team/app:1", double.host).parse().unwrap();
    let open = |_: Layer| {
        let bytes = bytes.clone();
        async { Ok(Cursor::new(bytes)) }
    };
    let image = image(&bytes, LayerOrigin::Farm);
    let sent = client(&double, max_request_bytes).push(&reference, &image, open).await;
    (double, sent)
}

/// The same, and it arrives.
async fn arrives(faults: Faults, length: usize, max_request_bytes: Option<u64>) -> Double {
    let (double, sent) = push(faults, length, max_request_bytes).await;
    assert_eq!(sent.unwrap(), length as u64 + 12);
    {
        let state = double.state();
        let bytes = content(length);
        let place = ("team/app".to_owned(), Digest::of(&bytes).to_string());
        assert!(state.blobs[&place] == bytes);
        assert_eq!(state.manifests[&("team/app".to_owned(), "1".to_owned())].0, KIND);
    }
    double
}

#[tokio::test]
async fn a_blob_goes_in_one_piece_where_nothing_speaks_against_it() {
    let double = arrives(Faults::default(), 20 << 20, None).await;
    assert_eq!((double.count("PUT team/app/blobs"), double.count("PATCH")), (2, 0));
    // The manifest is looked for after the push.
    assert_eq!(double.count("HEAD team/app/manifests/sha256:"), 1);
}

#[tokio::test]
async fn a_registry_that_takes_only_chunks_gets_chunks() {
    let faults = Faults { only_chunks: true, ..Faults::default() };
    let double = arrives(faults, 20 << 20, None).await;
    // Three of the layer, one of the configuration.
    assert_eq!(double.count("PATCH"), 4);
}

#[tokio::test]
async fn chunks_shrink_to_what_a_proxy_takes() {
    let faults = Faults { max_body: Some(3 << 20), ..Faults::default() };
    let double = arrives(faults, 10 << 20, None).await;
    let longest = double.state().blobs.values().map(Vec::len).max();
    assert_eq!(longest, Some(10 << 20));
}

#[tokio::test]
async fn configured_and_asked_for_lengths_are_kept() {
    let double = arrives(Faults::default(), 5 << 20, Some(1 << 20)).await;
    assert_eq!(double.count("PATCH"), 5);
    let faults = Faults { min_chunk: Some(2 << 20), ..Faults::default() };
    let double = arrives(faults, 5 << 20, Some(1 << 20)).await;
    assert_eq!(double.count("PATCH"), 3);
}

#[tokio::test]
async fn a_chunk_that_breaks_goes_on_where_the_registry_stopped() {
    let faults = Faults { cut_chunks: 2, ..Faults::default() };
    let double = arrives(faults, 5 << 20, Some(2 << 20)).await;
    let state = double.state();
    let sent: u64 =
        state.requests.iter().filter(|(line, _)| line.starts_with("PATCH")).map(|(_, n)| n).sum();
    // Two halves of a chunk at most were sent twice.
    assert!(sent <= 7 << 20, "{sent}");
    assert_eq!(state.requests.iter().filter(|(line, _)| line.starts_with("GET")).count(), 2);
}

#[tokio::test]
async fn a_lost_session_is_begun_anew() {
    for limit in [None, Some(1 << 20)] {
        let faults = Faults { lost_sessions: 2, ..Faults::default() };
        let double = arrives(faults, 3 << 20, limit).await;
        assert!(double.count("POST team/app/blobs/uploads/") >= 4);
    }
}

#[tokio::test]
async fn a_registry_without_head_gets_everything() {
    let double = arrives(Faults { no_head: true, ..Faults::default() }, 1 << 20, None).await;
    assert_eq!(double.count("GET team/app/manifests/sha256:"), 1);
}

#[tokio::test]
async fn what_is_there_is_not_sent_and_what_is_near_is_mounted() {
    let bytes = content(1 << 20);
    for (no_mounts, sent) in [(false, 12), (true, 12 + (1 << 20))] {
        let double = Double::start(Faults { no_mounts, ..Faults::default() }).await;
        let place = ("library/base".to_owned(), Digest::of(&bytes).to_string());
        double.state().blobs.insert(place, bytes.clone());
        let repository = format!("{}/library/base", double.host);
        let image = image(&bytes, LayerOrigin::Registry { repository });
        let reference: Reference = format!("{}/team/app:1", double.host).parse().unwrap();
        let open = |_: Layer| {
            let bytes = bytes.clone();
            async { Ok(Cursor::new(bytes)) }
        };
        let client = client(&double, None);
        assert_eq!(client.push(&reference, &image, open).await.unwrap(), sent);
        assert_eq!(client.push(&reference, &image, open).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_kept_is_noticed() {
    let (_, sent) = push(Faults { forgets_manifests: true, ..Faults::default() }, 10, None).await;
    assert!(sent.unwrap_err().to_string().contains("not there after the push"));
    let (_, sent) = push(Faults { wrong_header: true, ..Faults::default() }, 10, None).await;
    assert!(sent.unwrap_err().to_string().contains("another digest"));
}

#[tokio::test]
async fn a_registry_that_stays_busy_is_a_failure_of_its_class() {
    let refusals = vec![(503, Some("0".to_owned())); 100];
    let (_, sent) = push(Faults { refusals, ..Faults::default() }, 10, None).await;
    let failure = sent.unwrap_err().failure();
    assert_eq!(failure.class, common::FailureClass::Registry);
}

#[tokio::test]
async fn a_foreign_layer_stays_where_it_is() {
    let double = Double::start(Faults::default()).await;
    let reference: Reference = format!("{}/team/app:1", double.host).parse().unwrap();
    let urls = vec!["https://elsewhere.example/x".to_owned()];
    let repository = format!("{}/team/base", double.host);
    let image = image(b"foreign", LayerOrigin::Foreign { repository, urls });
    let open = |_: Layer| async { Err::<Cursor<Vec<u8>>, _>(std::io::Error::other("was read")) };
    let sent = client(&double, None).push(&reference, &image, open).await.unwrap();
    assert_eq!(sent, image.config.len() as u64);
    let foreign = Digest::of(b"foreign").to_string();
    assert!(double.state().requests.iter().all(|(request, _)| !request.contains(&foreign)));
    assert!(double.state().manifests.contains_key(&("team/app".to_owned(), "1".to_owned())));
}
