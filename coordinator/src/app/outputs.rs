//! What a build makes of its target.

use api::Problem;
use api::public::v1::{
    AnnotationPlace, BuildRequest, ImageOptions, LayerCompression, OutputRequest,
};
use api::worker::v1::ExportTarget;
use common::{Failure, FailureClass};
use oci::Reference;

use super::options::platforms;

/// Most outputs of a build, and most names of one.
const MAX_OUTPUTS: usize = 50;
/// Most annotations of an output, and longest name or value, in bytes.
const MAX_ANNOTATIONS: usize = 200;
const MAX_ANNOTATION_BYTES: usize = 16 << 10;

/// What the rows of an export need beside plan and decisions.
pub(super) struct Outputs {
    pub(super) targets: Vec<ExportTarget>,
    pub(super) source_date_epoch: Option<i64>,
}

impl Outputs {
    /// What a request asks to make, of this age.
    pub(super) fn of(
        request: &BuildRequest,
        source_date_epoch: Option<i64>,
    ) -> Result<Self, Failure> {
        let rewrites = |output| options(output).is_some_and(|options| options.rewrite_timestamp);
        if source_date_epoch.is_none() && request.outputs.iter().any(rewrites) {
            let message = "rewrite-timestamp=true without SOURCE_DATE_EPOCH";
            return Err(Failure::new(FailureClass::User, "no-epoch", message)
                .with_hint("say --build-arg SOURCE_DATE_EPOCH=SECONDS"));
        }
        let count = platforms(request).len();
        let mut targets: Vec<ExportTarget> =
            request.outputs.iter().map(|output| target(output, count)).collect();
        if targets.is_empty() {
            targets.push(ExportTarget::DigestOnly { options: ImageOptions::default() });
        }
        Ok(Self { targets, source_date_epoch })
    }
}

fn target(output: &OutputRequest, platforms: usize) -> ExportTarget {
    let full = |names: &[String]| -> Vec<String> {
        names.iter().filter_map(|n| Some(n.parse::<Reference>().ok()?.to_string())).collect()
    };
    match output.clone() {
        OutputRequest::Image { names, push: true, by_digest, options } => {
            ExportTarget::Push { names: full(&names), by_digest, options }
        }
        OutputRequest::Image { options, .. } => ExportTarget::DigestOnly { options },
        OutputRequest::Oci { names, options } => {
            ExportTarget::OciArchive { names: full(&names), options }
        }
        OutputRequest::Docker { names, options } => {
            ExportTarget::DockerArchive { names: full(&names), options }
        }
        OutputRequest::Tar { split } => {
            ExportTarget::RootFs { split: split.unwrap_or(platforms > 1) }
        }
    }
}

fn options(output: &OutputRequest) -> Option<&ImageOptions> {
    match output {
        OutputRequest::Image { options, .. }
        | OutputRequest::Oci { options, .. }
        | OutputRequest::Docker { options, .. } => Some(options),
        OutputRequest::Tar { .. } => None,
    }
}

/// How the stages compress their layers, so that they are compressed once: as the outputs want them
/// where they agree. Other levels than the usual ones are not for the cache.
pub(super) fn layer_compression<'a>(
    outputs: impl IntoIterator<Item = &'a OutputRequest>,
) -> LayerCompression {
    let mut wanted = outputs.into_iter().filter_map(options);
    let Some(first) = wanted.next() else { return LayerCompression::default() };
    let is_usual = |options: &ImageOptions| options.compression_level.is_none();
    if is_usual(first) && wanted.all(|o| is_usual(o) && o.compression == first.compression) {
        first.compression
    } else {
        LayerCompression::default()
    }
}

/// Refuses outputs that could never be made.
pub(super) fn check(request: &BuildRequest) -> Result<(), Problem> {
    if request.outputs.len() > MAX_OUTPUTS {
        return bad(format!("a build has at most {MAX_OUTPUTS} outputs"));
    }
    let several = platforms(request).len() > 1;
    for output in &request.outputs {
        let (names, push): (&[String], _) = match output {
            OutputRequest::Image { names, push, .. } => (names, *push),
            OutputRequest::Oci { names, .. } => (names, false),
            OutputRequest::Docker { names, .. } if several => {
                let names = names.join(", ");
                return bad(format!("an archive for docker load is for one platform: {names}"));
            }
            OutputRequest::Docker { names, .. } => (names, false),
            OutputRequest::Tar { split: Some(false) } if several => {
                return bad("platform-split=false with several platforms: their files would be \
                            mixed"
                    .to_owned());
            }
            OutputRequest::Tar { .. } => (&[], false),
        };
        check_names(output, names)?;
        if push && request.trust.is_untrusted() {
            return bad("an untrusted build pushes nothing: it would do so with the farm's \
                        credentials"
                .to_owned());
        }
        if push && names.is_empty() {
            return bad("an image without a name cannot be pushed: add -t NAME".to_owned());
        }
        if let Some(options) = options(output) {
            check_options(request, options)?;
        }
    }
    Ok(())
}

fn check_names(output: &OutputRequest, names: &[String]) -> Result<(), Problem> {
    if names.len() > MAX_OUTPUTS {
        return bad(format!("an output has at most {MAX_OUTPUTS} names"));
    }
    let by_digest = matches!(output, OutputRequest::Image { by_digest: true, .. });
    for name in names {
        let reference: Reference = match name.parse() {
            Ok(reference) => reference,
            Err(error) => return bad(format!("invalid output name: {error}")),
        };
        if reference.digest.is_some() {
            return bad(format!("invalid output name {name:?}: a digest cannot be pushed to"));
        }
        // A tag that was left out reads as the usual one.
        let last = name.rsplit('/').next().unwrap_or_default();
        if by_digest && last.contains(':') {
            return bad(format!("push-by-digest=true pushes under no tag: {name} has one"));
        }
    }
    Ok(())
}

fn check_options(request: &BuildRequest, options: &ImageOptions) -> Result<(), Problem> {
    let levels = match options.compression {
        LayerCompression::Gzip => 1..=9,
        LayerCompression::Zstd => 1..=22,
        LayerCompression::Uncompressed => 0..=0,
    };
    if let Some(level) = options.compression_level
        && !levels.contains(&level)
    {
        let (first, last) = (levels.start(), levels.end());
        return bad(format!("compression-level={level}: {first} to {last} is expected"));
    }
    let needs_oci =
        options.compression == LayerCompression::Zstd || !options.annotations.is_empty();
    if options.docker_media_types && needs_oci {
        return bad("oci-mediatypes=false: Docker's media types know neither zstd nor annotations"
            .to_owned());
    }
    if options.annotations.len() > MAX_ANNOTATIONS {
        return bad(format!("an output has at most {MAX_ANNOTATIONS} annotations"));
    }
    let platforms = platforms(request);
    for annotation in &options.annotations {
        let key = annotation.key.as_str();
        if key.is_empty() || key.len().max(annotation.value.len()) > MAX_ANNOTATION_BYTES {
            return bad("an annotation has a name, and at most 16 KiB".to_owned());
        }
        let of_index =
            matches!(annotation.place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor);
        if of_index && (platforms.len() < 2 || annotation.platform.is_some()) {
            return bad(format!("annotation {key}: an image of one platform has no index"));
        }
        if let Some(platform) = &annotation.platform
            && !platforms.contains(platform)
        {
            return bad(format!("annotation {key}: the build is not for {platform}"));
        }
    }
    Ok(())
}

fn bad<T>(detail: String) -> Result<T, Problem> {
    Err(Problem::new(422, "bad-request", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(platforms: &[&str], outputs: serde_json::Value) -> BuildRequest {
        let dockerfile = json!({"name": "Dockerfile", "content_base64": ""});
        let source = json!({"kind": "context", "dockerfile": dockerfile});
        let request = json!({
            "project": "default", "source": source, "platforms": platforms, "outputs": outputs,
        });
        serde_json::from_value(request).unwrap()
    }

    #[test]
    fn what_could_never_be_made_is_refused() {
        let both: &[&str] = &["linux/amd64", "linux/arm64"];
        let one: &[&str] = &["linux/amd64"];
        let image = |options: serde_json::Value| json!([{"type": "image", "names": ["a"], "push": true, "options": options}]);
        let note = |place: &str| json!([{"place": place, "key": "k", "value": "v"}]);
        for (platforms, outputs, words) in [
            (both, json!([{"type": "docker", "names": ["a"]}]), "one platform"),
            (both, json!([{"type": "tar", "split": false}]), "platform-split"),
            (one, json!([{"type": "image", "names": [], "push": true}]), "without a name"),
            (one, json!([{"type": "image", "names": ["A"], "push": true}]), "invalid output name"),
            (
                one,
                json!([{"type": "image", "names": ["a:1"], "push": true, "by_digest": true}]),
                "under no tag",
            ),
            (one, image(json!({"compression_level": 10})), "1 to 9"),
            (
                one,
                image(json!({"compression": "zstd", "docker_media_types": true})),
                "neither zstd",
            ),
            (one, image(json!({"annotations": note("index")})), "no index"),
            (
                both,
                image(
                    json!({"annotations": [{"place": "manifest", "platform": "linux/s390x", "key": "k", "value": "v"}]}),
                ),
                "not for linux/s390x",
            ),
        ] {
            let problem = check(&request(platforms, outputs.clone())).unwrap_err();
            assert!(
                problem.detail.as_deref().is_some_and(|detail| detail.contains(words)),
                "{outputs}: {problem:?}"
            );
        }
        let good = image(json!({"annotations": note("index"), "compression_level": 9}));
        assert!(check(&request(both, good)).is_ok());
    }

    #[test]
    fn layers_are_made_as_all_outputs_want_them() {
        let of = |options: &[ImageOptions]| {
            let image = |options: &ImageOptions| OutputRequest::Oci {
                names: Vec::new(),
                options: options.clone(),
            };
            layer_compression(&options.iter().map(image).collect::<Vec<_>>())
        };
        let plain = ImageOptions::default();
        let zstd = ImageOptions { compression: LayerCompression::Zstd, ..plain.clone() };
        let hard = ImageOptions { compression_level: Some(19), ..zstd.clone() };
        assert_eq!(of(&[]), LayerCompression::Gzip);
        assert_eq!(of(&[zstd.clone(), zstd.clone()]), LayerCompression::Zstd);
        assert_eq!(of(&[zstd, plain]), LayerCompression::Gzip);
        assert_eq!(of(&[hard]), LayerCompression::Gzip);
    }
}
