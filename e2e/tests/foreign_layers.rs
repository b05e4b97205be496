//! A base image with a layer that registries do not hand out: it is somewhere else, and stays there.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use common::Digest;
use e2e::{Farm, FarmOptions, WebFile, WebFiles};
use serde_json::{Value, json};

/// Docker's name for such layers, in its own manifests.
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn raw(reference: &str) -> Value {
    let place = format!("docker://{reference}");
    serde_json::from_slice(&skopeo(&["inspect", "--tls-verify=false", "--raw", &place])).unwrap()
}

/// A layer with one file: its archive, and that compressed.
fn layer(name: &str, content: &str) -> (Vec<u8>, Vec<u8>) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    let plain = archive.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    (plain, gzip.finish().unwrap())
}

/// Puts an image into the registry: `alpine` with one more layer, whose bytes the registry never gets.
fn push_base(farm: &Farm, name: &str, url: &str, (plain, blob): &(Vec<u8>, Vec<u8>)) {
    let place = tempfile::tempdir_in(farm.directory()).unwrap();
    let at = |name: &str| place.path().join(name);
    let directory = format!("dir:{}", place.path().display());
    let source = format!("docker://{}/library/alpine:latest", farm.registry());
    skopeo(&["copy", "--format=v2s2", "--src-tls-verify=false", &source, &directory]);
    let read =
        |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let mut manifest = read(&at("manifest.json"));
    let old = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let mut config = read(&at(old));
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(Digest::of(plain).to_string().into());
    config.as_object_mut().unwrap().remove("history");
    let config = config.to_string();
    let digest = Digest::of(config.as_bytes());
    std::fs::write(at(&digest.hex()), &config).unwrap();
    manifest["config"]["digest"] = digest.to_string().into();
    manifest["config"]["size"] = config.len().into();
    let size = blob.len();
    let entry =
        json!({"mediaType": FOREIGN, "digest": Digest::of(blob), "size": size, "urls": [url]});
    manifest["layers"].as_array_mut().unwrap().push(entry);
    std::fs::write(at("manifest.json"), manifest.to_string()).unwrap();
    skopeo(&["copy", "--dest-tls-verify=false", &directory, &format!("docker://{name}")]);
}

/// How often the layer was asked for since the last look.
fn gets(web: &WebFiles) -> usize {
    web.asked().iter().filter(|asked| *asked == "GET /layer").count()
}

#[test]
fn a_layer_that_is_elsewhere_is_read_there_and_never_copied() {
    let options = FarmOptions { workers: 1, fetch_private: true, ..FarmOptions::default() };
    let farm = Farm::start(options).unwrap();
    let web = WebFiles::start().unwrap();
    let layer = layer("far", "from far away\n");
    let digest = Digest::of(&layer.1);
    web.put("/layer", WebFile { content: layer.1.clone(), ..WebFile::default() });
    let url = format!("{}/layer", web.address());
    let base = format!("{}/foreign/base:1", farm.registry());
    push_base(&farm, &base, &url, &layer);

    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    let path = context.path().to_str().unwrap();
    let dockerfile = format!("FROM {base}\nRUN sed s/from/got/ /far > /made\n");
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let mut fetched = 0;
    for (form, expected) in [
        ("gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        (
            "zstd,force-compression=true",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        ("gzip,oci-mediatypes=false", FOREIGN),
    ] {
        let name = format!("{}/foreign/app:{}", farm.registry(), form.len());
        let image = format!("type=registry,name={name},compression={form}");
        let files = farm.directory().join(format!("files-{}", form.len()));
        let local = format!("type=local,dest={}", files.display());
        let ran = farm
            .slipway(["build", "--progress", "plain", "-o", &image, "-o", &local, path])
            .unwrap();
        assert_eq!(ran.code, 0, "{form}: {}", ran.stderr);
        let read = |name: &str| std::fs::read_to_string(files.join(name)).unwrap();
        assert_eq!(
            (read("far"), read("made")),
            ("from far away\n".into(), "got far away\n".into())
        );
        fetched += gets(&web);
        // The image says where the layer is, as its base does.
        let manifest = raw(&name);
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 3, "{manifest:#}");
        assert_eq!(layers[1]["digest"], digest.to_string());
        assert_eq!(
            (&layers[1]["urls"], &layers[1]["mediaType"]),
            (&json!([url]), &json!(expected))
        );
        assert!(layers[0].get("urls").is_none() && layers[2].get("urls").is_none());
        // Others find it so.
        let copy = farm.directory().join(format!("copy-{}", form.len()));
        let (source, place) = (format!("docker://{name}"), format!("dir:{}", copy.display()));
        skopeo(&["copy", "--src-tls-verify=false", &source, &place]);
        assert_eq!(std::fs::read(copy.join(digest.hex())).unwrap(), layer.1);
        assert_eq!(gets(&web), 1);
    }
    assert_eq!(fetched, 1, "the worker reads it once");
    // Neither the registry nor the farm's store has it.
    let blobs = farm.directory().join("registry/docker/registry/v2/blobs/sha256");
    let place = |hex: &str| blobs.join(&hex[..2]).join(hex);
    let made = raw(&format!("{}/foreign/app:4", farm.registry()));
    let present = made["layers"][2]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(place(present).exists() && !place(&digest.hex()).exists());
    let objects = farm.query("select digest from object where kind = 'blob'").unwrap();
    assert!(objects.contains(present), "{objects}");
    assert!(!objects.contains(&digest.hex()), "{objects}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
