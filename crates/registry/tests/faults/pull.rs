//! Pulling.

use common::image::LayerOrigin;
use common::{Digest, Platform};
use futures_util::TryStreamExt as _;
use registry::{Client, Config, RegistryError};

use crate::double::{Double, Faults};

fn client() -> Client {
    Client::new(Config::default()).unwrap()
}

/// Bytes that differ everywhere.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at / 251 + at % 251) % 256).unwrap()).collect()
}

async fn pull(faults: Faults, length: usize) -> (Double, Result<Vec<u8>, String>) {
    let double = Double::start(faults).await;
    let bytes = content(length);
    let digest = Digest::of(&bytes);
    let place = ("team/app".to_owned(), digest.to_string());
    double.state().blobs.insert(place, bytes);
    let repository = format!("{}/team/app", double.host);
    let got = async {
        let stream = client().pull_blob(&repository, &digest).await.map_err(|e| e.to_string())?;
        let parts: Vec<_> = stream.try_collect().await.map_err(|error| error.to_string())?;
        Ok(parts.concat())
    };
    let got = got.await;
    (double, got)
}

#[tokio::test]
async fn a_download_that_breaks_goes_on_where_it_stopped() {
    let length = 3 << 20;
    let (double, got) = pull(Faults { cut_downloads: 3, ..Faults::default() }, length).await;
    assert!(got.unwrap() == content(length));
    assert_eq!(double.count("GET team/app/blobs/"), 4);
}

#[tokio::test]
async fn without_ranges_the_beginning_is_dropped() {
    let length = 1 << 20;
    let faults = Faults { cut_downloads: 1, no_ranges: true, ..Faults::default() };
    let (double, got) = pull(faults, length).await;
    assert!(got.unwrap() == content(length));
    assert_eq!(double.count("GET team/app/blobs/"), 2);
}

#[tokio::test]
async fn a_download_that_gets_nowhere_ends() {
    // Each try brings half of what is left; the last byte never comes.
    let (double, got) = pull(Faults { cut_downloads: 1000, ..Faults::default() }, 1 << 20).await;
    assert!(got.is_err());
    assert!((6..60).contains(&double.count("GET team/app/blobs/")));
}

#[tokio::test]
async fn busy_registries_are_given_the_time_they_ask_for() {
    let now = "Wed, 21 Oct 2015 07:28:00 GMT";
    let refusals = vec![(429, Some("0".to_owned())), (503, Some(now.to_owned())), (500, None)];
    let (double, got) = pull(Faults { refusals, ..Faults::default() }, 10).await;
    assert_eq!(got.unwrap(), content(10));
    assert_eq!(double.count("GET team/app/blobs/"), 4);
    let refusals = vec![(429, Some("0".to_owned())); 20];
    let (double, got) = pull(Faults { refusals, ..Faults::default() }, 10).await;
    assert!(got.unwrap_err().contains("answered 429"));
    assert_eq!(double.count("GET team/app/blobs/"), 5);
}

#[tokio::test]
async fn a_layer_that_is_gone_is_named() {
    let double = Double::start(Faults::default()).await;
    let repository = format!("{}/team/app", double.host);
    let digest = Digest::of(b"gone");
    let error = client().pull_blob(&repository, &digest).await.err().unwrap();
    assert_eq!(error.to_string(), format!("layer {digest} of {repository} was not found"));
}

/// What resolving a manifest comes to.
async fn resolve(manifest: &str, faults: Faults) -> RegistryError {
    let double = Double::start(faults).await;
    let place = ("app".to_owned(), "1".to_owned());
    let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
    double.state().manifests.insert(place, (kind, manifest.as_bytes().to_vec()));
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}}"#;
    let config_place = ("app".to_owned(), Digest::of(config).to_string());
    double.state().blobs.insert(config_place, config.to_vec());
    let reference = format!("{}/app:1", double.host).parse().unwrap();
    client().resolve(&reference, &Platform::host()).await.unwrap_err()
}

#[tokio::test]
async fn what_no_manifest_should_be_is_said() {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}}"#;
    let foreign = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{}","size":1}}]}}"#,
        Digest::of(config),
        config.len(),
        Digest::of(b"x"),
    );
    let long = format!(r#"{{"schemaVersion":2,"x":"{}"}}"#, "x".repeat(5 << 20));
    for (manifest, faults, words) in [
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, Faults::default(), "schema 1"),
        (&foreign, Faults::default(), "says no address"),
        (&long, Faults::default(), "longer than"),
        (&foreign, Faults { wrong_header: true, ..Faults::default() }, "what its header says"),
    ] {
        let error = resolve(manifest, faults).await.to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn a_foreign_layer_is_known_by_its_addresses() {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}}"#;
    let with = |urls: String| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":"{}","size":1,"urls":[{urls}]}}]}}"#,
            Digest::of(config),
            config.len(),
            Digest::of(b"x"),
        )
    };
    let double = Double::start(Faults::default()).await;
    let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
    let place = ("app".to_owned(), Digest::of(config).to_string());
    double.state().blobs.insert(place, config.to_vec());
    let reference = format!("{}/app:1", double.host).parse().unwrap();
    let manifest = with(r#""https://one.example/x","https://two.example/x""#.to_owned());
    let place = ("app".to_owned(), "1".to_owned());
    double.state().manifests.insert(place.clone(), (kind.clone(), manifest.into_bytes()));
    let image = client().resolve(&reference, &Platform::host()).await.unwrap();
    let urls = ["https://one.example/x", "https://two.example/x"].map(str::to_owned).to_vec();
    let repository = format!("{}/app", double.host);
    assert_eq!(image.layers[0].origin, LayerOrigin::Foreign { repository, urls });
    let many = vec![r#""https://one.example/x""#; 17].join(",");
    double.state().manifests.insert(place, (kind, with(many).into_bytes()));
    let error = client().resolve(&reference, &Platform::host()).await.unwrap_err().to_string();
    assert!(error.contains("too many or too long addresses"), "{error}");
}
