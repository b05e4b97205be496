//! Whole files: whatever the bytes are, an answer and no panic.
#![no_main]

use common::Digest;
use common::image::{ImageDocument, ResolvedImage};
use dockerfile::{ImageFacts, Options, parse, text_findings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    text_findings("Dockerfile", bytes);
    let Ok(file) = parse("Dockerfile", bytes) else { return };
    file.targets();
    let Ok(platform) = "linux/amd64".parse() else { return };
    let options = Options::new(platform);
    let mut known = ImageFacts::new();
    // An image's triggers may ask for others, but not for ever.
    for _ in 0..4 {
        let Ok(missing) = file.missing_images(&options, &known) else { return };
        if missing.is_empty() {
            break;
        }
        for need in missing {
            let image = ResolvedImage {
                reference: need.reference.clone(),
                digest: Digest::of(need.reference.as_bytes()),
                document: ImageDocument::default(),
                layers: Vec::new(),
            };
            known.insert((need.reference, need.platform), image);
        }
    }
    let _ = file.plan(&options, &known, None);
    let _ = file.check(&options, &known);
});
