//! `--output`, `--push`, `--annotation`: what is made, and where it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::public::v1::{Annotation, AnnotationPlace, ImageOptions, LayerCompression, OutputRequest};

use crate::args::Build;
use crate::exit::CliError;

/// Where something made goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Download {
    /// The archive into this file.
    File(PathBuf),
    /// The archive to standard output.
    Standard,
    /// The files in the archive into this directory, with their owners.
    Directory(PathBuf),
    /// The same with owners of no interest: an image layout.
    Layout(PathBuf),
    /// The archive into the Docker engine of this machine.
    Engine,
}

impl Download {
    /// `dest=FILE`, or `-`.
    fn to(dest: &str) -> Self {
        if dest == "-" { Self::Standard } else { Self::File(PathBuf::from(dest)) }
    }
}

/// Keys of every output, and those of images alone.
const KEYS: [&str; 2] = ["type", "dest"];
const FILE_KEYS: [&str; 1] = ["platform-split"];
const IMAGE_KEYS: [&str; 8] = [
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "annotation.KEY",
    "annotation-index.KEY",
];
const PUSH_KEYS: [&str; 3] = ["push", "push-by-digest", "name-canonical"];
const ARCHIVE_KEYS: [&str; 1] = ["tar"];
/// Keys that mean nothing here, and why.
const POINTLESS: [(&str, &str); 8] = [
    ("store", "a farm has no image store of its own"),
    ("unpack", "a farm has no image store of its own"),
    ("dangling-name-prefix", "a farm has no image store of its own"),
    ("registry.insecure", "the workers' configuration says so: plain_http under [registries]"),
    ("prefer-nondist-layers", "foreign layers are not supported"),
    ("buildinfo", "BuildKit itself has given it up"),
    ("attestation-prefix", "attestations are not supported yet"),
    ("attestation-inline", "attestations are not supported yet"),
];

/// The outputs that are asked for, and where those go that are downloaded.
pub(crate) fn outputs(arguments: &Build) -> Result<(Vec<OutputRequest>, Vec<Download>), CliError> {
    let mut outputs = Vec::new();
    let mut downloads = Vec::new();
    for text in &arguments.output {
        let (output, download) = output(arguments, text)?;
        outputs.push(output);
        downloads.extend(download);
    }
    let image = |push| OutputRequest::Image {
        names: arguments.tag.clone(),
        push,
        by_digest: false,
        options: ImageOptions::default(),
    };
    if arguments.load {
        if !arguments.output.is_empty() {
            let message = "--load and --output exclude each other: use type=docker";
            return Err(CliError::usage(message));
        }
        let (names, options) = (arguments.tag.clone(), ImageOptions::default());
        outputs.push(OutputRequest::Docker { names, options });
        downloads.push(Download::Engine);
        outputs.extend(arguments.push.then(|| image(true)));
    } else if outputs.is_empty() {
        outputs.push(image(arguments.push));
    } else if arguments.push {
        return Err(CliError::usage("--push and --output exclude each other: use push=true"));
    }
    annotate(arguments, &mut outputs)?;
    let nameless = |output: &OutputRequest| matches!(output, OutputRequest::Image { names, push: true, .. } if names.is_empty());
    if outputs.iter().any(nameless) {
        return Err(CliError::usage("an image without a name cannot be pushed: add -t NAME"));
    }
    Ok((outputs, downloads))
}

/// One `--output`: `type=…,dest=…`, or a directory, or `-` for a tar file on standard output.
fn output(arguments: &Build, text: &str) -> Result<(OutputRequest, Option<Download>), CliError> {
    if text == "-" {
        return Ok((OutputRequest::Tar { split: None }, Some(Download::Standard)));
    }
    if !text.contains('=') {
        let directory = Download::Directory(PathBuf::from(text));
        return Ok((OutputRequest::Tar { split: None }, Some(directory)));
    }
    let bad = |message: String| CliError::usage(format!("--output {text}: {message}"));
    let mut values = Values::read(text).map_err(bad)?;
    let kind = values.take("type").ok_or_else(|| bad("type= is missing".to_owned()))?;
    let made = typed(arguments, &kind, &mut values).map_err(bad)?;
    values.end(&kind).map_err(bad)?;
    Ok(made)
}

fn typed(
    arguments: &Build,
    kind: &str,
    values: &mut Values,
) -> Result<(OutputRequest, Option<Download>), String> {
    let dest = values.take("dest");
    let to_file =
        || dest.as_deref().map(Download::to).ok_or_else(|| "dest=FILE is missing".to_owned());
    match kind {
        "image" | "registry" => {
            if dest.is_some() {
                return Err(format!("dest= makes no sense with type={kind}"));
            }
            let push = values.flag("push")?.unwrap_or(kind == "registry");
            let by_digest = values.flag("push-by-digest")?.unwrap_or(false);
            // Whatever is pushed here can be had by its digest.
            values.flag("name-canonical")?;
            let (names, options) = image(arguments, values)?;
            Ok((OutputRequest::Image { names, push, by_digest, options }, None))
        }
        // The cache is filled anyway.
        "cacheonly" if dest.is_some() => Err("dest= makes no sense with type=cacheonly".to_owned()),
        "cacheonly" => {
            let options = ImageOptions::default();
            Ok((
                OutputRequest::Image { names: Vec::new(), push: false, by_digest: false, options },
                None,
            ))
        }
        "docker" if dest.is_none() => {
            if values.flag("tar")? == Some(false) {
                return Err("tar=false needs dest=DIRECTORY".to_owned());
            }
            let (names, options) = image(arguments, values)?;
            Ok((OutputRequest::Docker { names, options }, Some(Download::Engine)))
        }
        "oci" | "docker" => {
            let is_file = values.flag("tar")?.unwrap_or(true);
            let download = match (&dest, is_file) {
                (Some(dest), false) if dest != "-" => Download::Layout(PathBuf::from(dest)),
                (_, false) => return Err("tar=false needs dest=DIRECTORY".to_owned()),
                _ => to_file()?,
            };
            let (names, options) = image(arguments, values)?;
            let output = if kind == "oci" {
                OutputRequest::Oci { names, options }
            } else {
                OutputRequest::Docker { names, options }
            };
            Ok((output, Some(download)))
        }
        "tar" | "local" => {
            let split = values.flag("platform-split")?;
            let download = match dest.as_deref() {
                None if kind == "local" => return Err("dest=DIRECTORY is missing".to_owned()),
                Some(dest) if kind == "local" => Download::Directory(PathBuf::from(dest)),
                _ => to_file()?,
            };
            Ok((OutputRequest::Tar { split }, Some(download)))
        }
        other => {
            let known = ["image", "registry", "oci", "docker", "tar", "local"];
            Err(with_suggestion(format!("the type {other} is not supported"), other, known))
        }
    }
}

/// Names of an image, and what it is like.
fn image(arguments: &Build, values: &mut Values) -> Result<(Vec<String>, ImageOptions), String> {
    let mut names = arguments.tag.clone();
    let given = values.take("name").unwrap_or_default();
    names.extend(given.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
    let compression = match values.take("compression").as_deref() {
        None | Some("gzip") => LayerCompression::Gzip,
        Some("zstd") => LayerCompression::Zstd,
        Some("uncompressed") => LayerCompression::Uncompressed,
        Some("estargz") => {
            return Err("compression=estargz is not supported: gzip, zstd or uncompressed".into());
        }
        Some(other) => {
            let message = format!("compression={other}: gzip, zstd or uncompressed is expected");
            return Err(message);
        }
    };
    let level = values.take("compression-level").map(|text| {
        text.parse().map_err(|_| format!("compression-level={text}: a number is expected"))
    });
    let oci = values.flag("oci-mediatypes")?.unwrap_or(true);
    let options = ImageOptions {
        compression,
        compression_level: level.transpose()?,
        force_compression: values.flag("force-compression")?.unwrap_or(false),
        docker_media_types: !oci,
        rewrite_timestamp: values.flag("rewrite-timestamp")?.unwrap_or(false),
        annotations: values.annotations()?,
    };
    Ok((names, options))
}

/// The values of one output, by key.
struct Values(BTreeMap<String, String>);

impl Values {
    /// Fields between commas; one that has commas is in double quotes, where two of them stand for
    /// one (RFC 4180), as buildx reads it.
    fn read(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        let mut rest = text;
        loop {
            let (field, after) = field(rest)?;
            let (key, value) = field.split_once('=').unwrap_or((&field, "true"));
            let key = key.trim().to_owned();
            // The names of annotations keep their case.
            let key = if key.starts_with("annotation") { key } else { key.to_ascii_lowercase() };
            if values.insert(key.clone(), value.to_owned()).is_some() {
                return Err(format!("{key}= is there twice"));
            }
            match after {
                Some(after) => rest = after,
                None => return Ok(Self(values)),
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "" => Ok(Some(true)),
            "false" | "0" | "f" => Ok(Some(false)),
            _ => Err(format!("{key}={text}: true or false is expected")),
        }
    }

    /// `annotation[-PLACE][PLATFORM].KEY=VALUE`.
    fn annotations(&mut self) -> Result<Vec<Annotation>, String> {
        let is_one = |key: &String| key.starts_with("annotation") && key.contains('.');
        let keys: Vec<String> = self.0.keys().filter(|key| is_one(key)).cloned().collect();
        let mut annotations = Vec::new();
        for full in keys {
            let value = self.take(&full).unwrap_or_default();
            let rest = full.trim_start_matches("annotation").trim_start_matches('-');
            // The platform stands before the name, which has points itself.
            let (head, key) = rest.split_once('.').unwrap_or((rest, ""));
            let (place, platform) = place(head).map_err(|problem| format!("{full}: {problem}"))?;
            annotations.push(Annotation { place, platform, key: key.to_owned(), value });
        }
        Ok(annotations)
    }

    /// Refuses what is left.
    fn end(self, kind: &str) -> Result<(), String> {
        for (key, value) in self.0 {
            if let Some((_, why)) = POINTLESS.iter().find(|(known, _)| *known == key) {
                if value == "false" {
                    continue;
                }
                return Err(format!("{key}= is not supported: {why}"));
            }
            let mut known: Vec<&str> = KEYS.to_vec();
            match kind {
                "image" | "registry" => known.extend(IMAGE_KEYS.iter().chain(&PUSH_KEYS)),
                "oci" | "docker" => known.extend(IMAGE_KEYS.iter().chain(&ARCHIVE_KEYS)),
                _ => known.extend(FILE_KEYS),
            }
            return Err(with_suggestion(format!("type={kind} knows no {key}="), &key, known));
        }
        Ok(())
    }
}

/// The first field, and what stands behind its comma.
fn field(text: &str) -> Result<(String, Option<&str>), String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (field, after) = match text.split_once(',') {
            Some((field, after)) => (field, Some(after)),
            None => (text, None),
        };
        return Ok((field.to_owned(), after));
    };
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a double quote is not closed")?;
        field.push_str(part);
        match after.chars().next() {
            None => return Ok((field, None)),
            Some(',') => return Ok((field, Some(&after[1..]))),
            Some('"') => {
                field.push('"');
                rest = &after[1..];
            }
            Some(_) => return Err("a comma is missing behind a double quote".to_owned()),
        }
    }
}

/// `PLACE`, `PLACE[PLATFORM]` or `[PLATFORM]`; without a place it is the manifest.
fn place(text: &str) -> Result<(AnnotationPlace, Option<common::Platform>), String> {
    let (name, platform) = match text.split_once('[') {
        Some((name, rest)) => {
            let platform = rest.strip_suffix(']').ok_or("a bracket is not closed")?;
            let platform = platform.parse::<common::Platform>().map_err(|e| e.to_string())?;
            (name, Some(platform))
        }
        None => (text, None),
    };
    let place = match name {
        "" | "manifest" => AnnotationPlace::Manifest,
        "manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
        "index" => AnnotationPlace::Index,
        "index-descriptor" => AnnotationPlace::IndexDescriptor,
        other => {
            let known = ["manifest", "manifest-descriptor", "index", "index-descriptor"];
            return Err(with_suggestion(format!("unknown place {other}"), other, known));
        }
    };
    Ok((place, platform))
}

/// Adds `--annotation [PLACE,…:]KEY=VALUE` to every image.
fn annotate(arguments: &Build, outputs: &mut [OutputRequest]) -> Result<(), CliError> {
    let mut annotations = Vec::new();
    for text in &arguments.annotation {
        let bad = |message: String| CliError::usage(format!("--annotation {text}: {message}"));
        let (name, value) =
            text.split_once('=').ok_or_else(|| bad("KEY=VALUE is expected".to_owned()))?;
        let (places, key) = name.split_once(':').unwrap_or(("manifest", name));
        for head in places.split(',') {
            let (place, platform) = place(head).map_err(bad)?;
            let (key, value) = (key.to_owned(), value.to_owned());
            annotations.push(Annotation { place, platform, key, value });
        }
    }
    if annotations.is_empty() {
        return Ok(());
    }
    let mut any = false;
    for output in outputs {
        match output {
            OutputRequest::Image { options, .. }
            | OutputRequest::Oci { options, .. }
            | OutputRequest::Docker { options, .. } => {
                options.annotations.extend_from_slice(&annotations);
                any = true;
            }
            OutputRequest::Tar { .. } => {}
        }
    }
    if any { Ok(()) } else { Err(CliError::usage("--annotation: no output is an image")) }
}

fn with_suggestion<'a>(
    message: String,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    match dockerfile::nearest(word, known) {
        Some(near) => format!("{message} (did you mean {near}?)"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser as _;

    fn arguments(list: &[&str]) -> Build {
        let all = ["slipway", "build"].iter().chain(list).chain(&["."]);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Build(build) => *build,
            other => panic!("{other:?}"),
        }
    }

    fn read(list: &[&str]) -> (Vec<OutputRequest>, Vec<Download>) {
        outputs(&arguments(list)).unwrap()
    }

    fn image(push: bool, options: ImageOptions) -> OutputRequest {
        OutputRequest::Image { names: vec!["a".into()], push, by_digest: false, options }
    }

    #[test]
    fn outputs_are_read_as_buildx_does() {
        let plain = ImageOptions::default;
        assert_eq!(read(&["-t", "a"]).0, [image(false, plain())]);
        assert_eq!(read(&["-t", "a", "--push"]).0, [image(true, plain())]);
        assert_eq!(read(&["-o", "type=image,name=a,push=true"]).0, [image(true, plain())]);
        assert_eq!(read(&["-o", "type=registry,name=a"]).0, [image(true, plain())]);
        let (oci, downloads) = read(&["-o", "type=oci,dest=x.tar"]);
        assert_eq!(oci, [OutputRequest::Oci { names: Vec::new(), options: plain() }]);
        assert_eq!(downloads, [Download::File("x.tar".into())]);
        let (_, downloads) = read(&["-o", "type=oci,tar=false,dest=x"]);
        assert_eq!(downloads, [Download::Layout("x".into())]);
        let (tar, downloads) = read(&["-o", "out", "-o", "type=tar,dest=-"]);
        let whole = OutputRequest::Tar { split: None };
        assert_eq!(tar, [whole.clone(), whole]);
        assert_eq!(downloads, [Download::Directory("out".into()), Download::Standard]);
        let (local, _) = read(&["-o", "type=local,dest=x,platform-split=false"]);
        assert_eq!(local, [OutputRequest::Tar { split: Some(false) }]);
        let (docker, _) = read(&["-t", "a", "-o", "type=docker,dest=x.tar"]);
        assert_eq!(docker, [OutputRequest::Docker { names: vec!["a".into()], options: plain() }]);
    }

    #[test]
    fn what_goes_to_an_engine_is_an_archive_for_it() {
        let archive =
            OutputRequest::Docker { names: vec!["a".into()], options: ImageOptions::default() };
        for list in [&["-t", "a", "--load"][..], &["-t", "a", "-o", "type=docker"]] {
            let expected = (vec![archive.clone()], vec![Download::Engine]);
            assert_eq!(read(list), expected, "{list:?}");
        }
        let pushed = image(true, ImageOptions::default());
        assert_eq!(read(&["-t", "a", "--load", "--push"]).0, [archive, pushed]);
    }

    #[test]
    fn options_of_images_are_read() {
        let text = "type=registry,\"name=a,b\",compression=zstd,compression-level=9,\
                    force-compression=true,rewrite-timestamp=true,push-by-digest=true,\
                    name-canonical=true,store=false,annotation.org.x=1,\
                    annotation-manifest-descriptor[linux/arm64].k=2";
        let annotation = |place, platform: Option<&str>, key: &str, value: &str| Annotation {
            place,
            platform: platform.map(|text| text.parse().unwrap()),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let (outputs, _) = read(&["-o", text, "--annotation", "index,manifest:k=a:b"]);
        let expected = OutputRequest::Image {
            names: vec!["a".into(), "b".into()],
            push: true,
            by_digest: true,
            options: ImageOptions {
                compression: LayerCompression::Zstd,
                compression_level: Some(9),
                force_compression: true,
                docker_media_types: false,
                rewrite_timestamp: true,
                annotations: vec![
                    annotation(AnnotationPlace::ManifestDescriptor, Some("linux/arm64"), "k", "2"),
                    annotation(AnnotationPlace::Manifest, None, "org.x", "1"),
                    annotation(AnnotationPlace::Index, None, "k", "a:b"),
                    annotation(AnnotationPlace::Manifest, None, "k", "a:b"),
                ],
            },
        };
        assert_eq!(outputs, [expected]);
        let options = ImageOptions { docker_media_types: true, ..ImageOptions::default() };
        assert_eq!(
            read(&["-o", "type=image,name=a,oci-mediatypes=false"]).0,
            [image(false, options)]
        );
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (bad, words) in [
            (&["--push"][..], "without a name"),
            (&["-o", "type=local"], "dest=DIRECTORY is missing"),
            (&["-o", "type=docker,tar=false"], "tar=false needs"),
            (&["--load", "-o", "x"], "exclude each other"),
            (&["-o", "type=image,dest=x"], "dest= makes no sense"),
            (&["-o", "type=cacheonly,dest=x"], "dest= makes no sense with type=cacheonly"),
            (&["-o", "type=imag"], "did you mean image?"),
            (&["-o", "type=oci"], "dest=FILE is missing"),
            (&["-o", "type=oci,tar=false,dest=-"], "tar=false needs"),
            (&["-o", "type=image,name=a,compression=estargz"], "estargz is not supported"),
            (&["-o", "type=image,name=a,compresion=zstd"], "did you mean compression?"),
            (&["-o", "type=image,name=a,push=maybe"], "true or false"),
            (&["-o", "type=image,name=a,name=b"], "twice"),
            (&["-o", "type=image,\"name=a"], "not closed"),
            (&["-o", "type=image,name=a,unpack=true"], "no image store"),
            (&["-o", "type=tar,dest=x,name=a"], "knows no name="),
            (&["-o", "type=image,annotation-indx.k=v"], "did you mean index?"),
            (&["-o", "x", "--annotation", "k=v"], "no output is an image"),
            (&["-t", "a", "--annotation", "k"], "KEY=VALUE"),
        ] {
            let error = outputs(&arguments(bad)).unwrap_err().to_string();
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }
}
