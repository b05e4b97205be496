//! Outputs: forms of images, annotations, files of several platforms; read with tools of others.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::Path;
use std::process::Command;

use e2e::{ArchivedImage, BuildKit, Farm, FarmOptions};
use serde_json::Value;

const DOCKERFILE: &str = "FROM alpine\nRUN mkdir /d && echo made > /d/made\nCOPY given /d/given\n\
                          CMD [\"cat\", \"/d/made\", \"/d/given\"]\n";
const OCI: &str = "application/vnd.oci.image.";
const DOCKER: &str = "application/vnd.docker.";

fn context(farm: &Farm, dockerfile: &str) -> tempfile::TempDir {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.path().join("given"), "given\n").unwrap();
    context
}

fn build(farm: &Farm, context: &Path, flags: &[&str]) {
    let arguments = ["build", "--progress", "plain"].iter().chain(flags).copied();
    let ran = farm.slipway(arguments.chain([context.to_str().unwrap()])).unwrap();
    assert_eq!(ran.code, 0, "{flags:?}: {}", ran.stderr);
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn raw(reference: &str) -> Value {
    let place = format!("docker://{reference}");
    let mut skopeo = Command::new("skopeo");
    serde_json::from_slice(&run(skopeo.args(["inspect", "--tls-verify=false", "--raw", &place])))
        .unwrap()
}

fn layer_types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect()
}

/// The media types of the layers: one of the base image, then ours.
fn types(base: &str, ours: &str) -> Vec<String> {
    [base, ours, ours].map(|form| format!("{OCI}layer.v1.tar{form}")).to_vec()
}

#[test]
fn images_of_every_form_are_read_by_others() {
    let farm = Farm::start(FarmOptions::default()).unwrap();
    let here = context(&farm, DOCKERFILE);
    let registry = farm.registry().to_owned();
    let engine = BuildKit::start(farm.directory(), &registry).unwrap();
    let base = layer_types(&raw(&format!("{registry}/library/alpine:latest")))[0].to_owned();
    let base = base.rsplit_once(".tar").unwrap().1.to_owned();
    // The first build makes its layers as zstd; the others find them so in the cache.
    for (form, options, expected) in [
        ("zstd", "compression=zstd", types(&base, "+zstd")),
        ("gzip", "compression=gzip", types(&base, "+gzip")),
        ("plain", "compression=uncompressed", types(&base, "")),
        (
            "forced",
            "compression=zstd,compression-level=7,force-compression=true",
            types("+zstd", "+zstd"),
        ),
        ("docker", "oci-mediatypes=false", Vec::new()),
    ] {
        let name = format!("{registry}/forms/{form}:1");
        let archive = farm.directory().join(format!("{form}.tar"));
        let image = format!("type=registry,name={name},{options}");
        let loaded =
            format!("type=docker,name=loaded/{form}:1,dest={},{options}", archive.display());
        build(&farm, here.path(), &["-o", &image, "-o", &loaded]);
        let view = farm.last_build().unwrap();
        let manifest = raw(&name);
        if form == "docker" {
            let kinds = [&manifest["mediaType"], &manifest["config"]["mediaType"]];
            assert!(kinds.iter().all(|kind| kind.as_str().unwrap().starts_with(DOCKER)));
            assert!(layer_types(&manifest).iter().all(|kind| kind.starts_with(DOCKER)));
        } else {
            assert_eq!(layer_types(&manifest), expected, "{form}");
        }
        // An engine takes it from the registry and from the archive: the same image.
        let docker = |arguments: &[&str]| -> String {
            let output = engine.docker(arguments).unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments:?}: {errors}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        docker(&["pull", "--quiet", &name]);
        docker(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
        for reference in [name.as_str(), &format!("loaded/{form}:1")] {
            let id = docker(&["image", "inspect", "--format", "{{.Id}}", reference]);
            assert_eq!(id, view.exports[0].config_digest.to_string(), "{reference}");
        }
        // umoci knows no zstd.
        if matches!(form, "gzip" | "plain") {
            let place = tempfile::tempdir_in(farm.directory()).unwrap();
            assert_eq!(e2e::run_image(&name, place.path()).unwrap(), "made\ngiven\n");
        }
        let copy = format!("dir:{}", farm.directory().join(format!("copy-{form}")).display());
        let source = format!("docker://{name}");
        run(Command::new("skopeo").args(["copy", "--src-tls-verify=false", &source, &copy]));
    }
    drop(engine);
    let farm_left = farm.stop_and_list_leftovers().unwrap();
    assert_eq!(farm_left, Vec::<String>::new());
}

#[test]
fn the_same_input_is_the_same_image_on_any_farm() {
    let epoch = "SOURCE_DATE_EPOCH=1000000000";
    let mut made = Vec::new();
    // One farm has the layers as zstd in its cache, the other makes them as they are wanted.
    for warm in [true, false] {
        let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
        let here = context(&farm, DOCKERFILE);
        let zstd = format!("type=oci,dest={},compression=zstd", here.path().join("z").display());
        if warm {
            build(&farm, here.path(), &["--build-arg", epoch, "-o", &zstd]);
            std::fs::remove_file(here.path().join("z")).unwrap();
        }
        let archive = farm.directory().join("image.tar");
        let oci = format!("type=oci,dest={},rewrite-timestamp=true", archive.display());
        build(&farm, here.path(), &["--build-arg", epoch, "-o", &oci]);
        let image = ArchivedImage::read(&archive).unwrap();
        let youngest = |path: &str| image.tree[path].modified;
        assert_eq!(youngest("d/made"), 1_000_000_000);
        assert_eq!(image.config["created"], "2001-09-09T01:46:40Z");
        made.push((farm.last_build().unwrap().exports[0].digest, std::fs::read(archive).unwrap()));
        // Without an age there is nothing to rewrite to.
        let ran = farm.slipway(["build", "-o", &oci, here.path().to_str().unwrap()]).unwrap();
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("without SOURCE_DATE_EPOCH"), "{}", ran.stderr);
    }
    assert_eq!(made[0].0, made[1].0);
    assert!(made[0].1 == made[1].1);
}

#[test]
fn several_platforms_have_one_index_with_annotations_and_a_directory_each() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let text = "FROM scratch\nARG TARGETARCH\nCOPY given /of-$TARGETARCH\n";
    let here = context(&farm, text);
    let name = format!("{}/several:1", farm.registry());
    let image = format!(
        "type=image,name={name},push=true,annotation.a=all,annotation[linux/arm64].a=arm,\
         annotation-manifest-descriptor.d=e"
    );
    let files = farm.directory().join("files");
    let layout = farm.directory().join("layout");
    let layout_output = format!("type=oci,tar=false,dest={}", layout.display());
    let local = format!("type=local,dest={}", files.display());
    let platforms = "linux/amd64,linux/arm64";
    let index = "index,index-descriptor:i=j";
    let flags = [
        "--platform",
        platforms,
        "--annotation",
        index,
        "-o",
        &image,
        "-o",
        &local,
        "-o",
        &layout_output,
    ];
    build(&farm, here.path(), &flags);

    let written = raw(&name);
    assert_eq!(written["annotations"]["i"], "j");
    let entries = written["manifests"].as_array().unwrap();
    for (entry, (architecture, annotation)) in
        entries.iter().zip([("amd64", "all"), ("arm64", "arm")])
    {
        assert_eq!(entry["platform"]["architecture"], architecture);
        assert_eq!(entry["annotations"]["d"], "e");
        let digest = entry["digest"].as_str().unwrap();
        let of_one = raw(&format!("{}@{digest}", name.trim_end_matches(":1")));
        assert_eq!(of_one["annotations"]["a"], annotation);
    }
    let read = |path: &str| std::fs::read_to_string(files.join(path)).unwrap();
    assert_eq!(read("linux_amd64/of-amd64"), "given\n");
    assert_eq!(read("linux_arm64/of-arm64"), "given\n");
    // The directory is a layout that others read.
    let top: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["annotations"]["i"], "j");
    let source = format!("oci:{}", layout.display());
    let copy = format!("dir:{}", farm.directory().join("copy").display());
    run(Command::new("skopeo").args(["--override-arch", "arm64", "copy", &source, &copy]));

    // One that is known by its digest alone.
    let bare = format!("{}/bare", farm.registry());
    let output = format!("type=image,name={bare},push=true,push-by-digest=true");
    build(&farm, here.path(), &["-o", &output]);
    let digest = farm.last_build().unwrap().exports[0].digest;
    assert_eq!(raw(&format!("{bare}@{digest}"))["schemaVersion"], 2);
    let tags = format!("docker://{bare}");
    let listed = Command::new("skopeo").args(["list-tags", "--tls-verify=false", &tags]).output();
    let listed = String::from_utf8_lossy(&listed.unwrap().stdout).into_owned();
    assert!(!listed.contains("latest"), "{listed}");
}

#[test]
fn a_slow_old_build_never_moves_a_tag_back() {
    let farm = Farm::start(FarmOptions { workers: 1, slots: 3, ..FarmOptions::default() }).unwrap();
    let name = format!("{}/app:latest", farm.registry());
    // The old build waits for a file in a cache.
    let mount = "FROM alpine\nRUN --mount=type=cache,id=sign,target=/sign ";
    let wait = "until [ -e /sign/go ]; do sleep 0.1; done; echo old > /made\n";
    let old = context(&farm, &format!("{mount}{wait}"));
    let new = context(&farm, "FROM alpine\nRUN echo new > /made\n");
    let go = context(&farm, &format!("{mount}touch /sign/go\n"));
    let (alone, metadata) = (format!("{}/app:old", farm.registry()), old.path().join("metadata"));
    let both = ["build", "--progress", "plain", "--push", "-t", &name, "-t", &alone];
    let more = ["--metadata-file", metadata.to_str().unwrap(), old.path().to_str().unwrap()];
    let slow = farm.spawn(both.iter().chain(&more)).unwrap();
    let runs = |view: &api::public::v1::BuildView| {
        view.stages.iter().any(|stage| stage.state == common::stage::StageState::Running)
    };
    let first = farm.wait_for_build("the old build to run", runs).unwrap();
    build(&farm, new.path(), &["--push", "-t", &name]);
    let second = farm.last_build().unwrap();
    build(&farm, go.path(), &[]);
    let ended = slow.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{says}");
    assert!(says.contains(&format!("{name} was left at the newer build {}", second.id)), "{says}");
    assert!(says.contains(&format!("pushed {alone}@")), "{says}");
    let shown = farm.slipway(["show", &first.id.to_string(), "--json"]).unwrap();
    let shown: api::public::v1::BuildView = serde_json::from_str(&shown.stdout).unwrap();
    let (export, left) = (&shown.exports[0], &shown.exports[0].left[0]);
    assert_eq!((&export.names, &left.name, left.newer), (&vec![alone.clone()], &name, second.id));
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["slipway.left"][&name], second.id.to_string());
    assert_eq!(metadata["image.name"], alone);
    // The tag names the newer one; the older one is there by its digest and its other name.
    let config = |reference: &str| raw(reference)["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(config(&name), second.exports[0].config_digest.to_string());
    let by_digest = format!("{}/app@{}", farm.registry(), export.digest);
    assert_eq!(config(&by_digest), config(&alone));
    assert_ne!(config(&name), config(&alone));
}
