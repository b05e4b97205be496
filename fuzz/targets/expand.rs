//! Words: whatever stands behind `LABEL x=`, a value or an error, and the same one twice.
#![no_main]

use dockerfile::{ImageFacts, Options, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|word: &str| {
    if word.contains(['\n', '\0']) {
        return;
    }
    let text = format!("FROM scratch\nENV v=value e= p=/usr/local/lib.tar.gz\nLABEL x={word}\n");
    let Ok(file) = parse("Dockerfile", text.as_bytes()) else { return };
    let Ok(platform) = "linux/amd64".parse() else { return };
    let options = Options::new(platform);
    let labels = || {
        let planned = file.plan(&options, &ImageFacts::new(), None).ok()?;
        planned.plan.stages.last()?.config.labels.clone()
    };
    assert_eq!(labels(), labels());
});
