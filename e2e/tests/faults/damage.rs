//! Objects that are damaged where they lie, or gone.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use e2e::{Farm, FarmOptions};

/// Files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The stored objects of a kind: the file that describes it, and the one with its bytes.
fn objects(farm: &Farm, kind: &str) -> Vec<(PathBuf, PathBuf)> {
    let all = files(&farm.object_directory());
    let descriptions = all.iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut found = Vec::new();
    for description in descriptions {
        let text = std::fs::read_to_string(description).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        if value["key"].as_str().unwrap().contains(kind) {
            let content = value["content"].as_str().unwrap();
            let bytes = all.iter().find(|path| path.ends_with(content)).unwrap();
            found.push((description.clone(), bytes.clone()));
        }
    }
    found
}

/// What is done to an object, by the file that describes it and the one with its bytes.
type Harm = fn(&Path, &Path);

fn damage(_: &Path, bytes: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(bytes).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
}

fn remove(description: &Path, bytes: &Path) {
    std::fs::remove_file(description).unwrap();
    std::fs::remove_file(bytes).unwrap();
}

/// Builds something that has to fetch what earlier builds have stored; gives what only a run of the
/// first stage makes. A context whose manifest was damaged has to come from the client once more.
fn build(farm: &Farm, mark: &str, more: &str) -> String {
    // Layers are read by what comes behind the copies, slices by the copies.
    let (before, behind) = if mark.starts_with("blobs") { ("", more) } else { (more, "") };
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    let text = format!(
        "FROM alpine AS one\nRUN echo {mark} && cat /proc/sys/kernel/random/uuid > /made \\\n\
         && head -c 300000 /dev/urandom > /big\n\
         FROM one AS two\nRUN echo two > /two\n\
         FROM alpine\n{before}COPY --from=one /made /big /\nCOPY --from=two /two /two\n{behind}"
    );
    std::fs::write(directory.path().join("Dockerfile"), text).unwrap();
    let (context, out) = (directory.path().to_str().unwrap(), directory.path().join("out"));
    let arguments = ["build", "--progress", "plain", context, "-o", out.to_str().unwrap()];
    let mut ran = farm.slipway(arguments).unwrap();
    if mark.starts_with("manifests") && ran.code != 0 {
        assert!(ran.stderr.contains("run the build again"), "{mark}: {}", ran.stderr);
        ran = farm.slipway(arguments).unwrap();
    }
    assert_eq!(ran.code, 0, "{mark}: {}", ran.stderr);
    assert_eq!(std::fs::read_to_string(out.join("two")).unwrap(), "two\n");
    std::fs::read_to_string(out.join("made")).unwrap()
}

#[test]
fn what_is_damaged_where_it_lies_or_gone_is_made_again() {
    let mut farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    for (way, harm) in [("damaged", damage as Harm), ("gone", remove)] {
        for kind in ["blobs", "packs", "manifests"] {
            let mark = format!("{kind}-{way}");
            build(&farm, &mark, "");
            let harmed = objects(&farm, &format!("/{kind}/"));
            // Small slices come with the job: those have no objects that anybody reads.
            assert!(!harmed.is_empty(), "{mark}");
            for (description, bytes) in harmed {
                harm(&description, &bytes);
            }
            farm.renew_worker("worker-1").unwrap();
            let again = build(&farm, &mark, "RUN echo more > /more\n");
            let plans = farm.query("select plans from build order by created_at desc limit 1");
            let plans: i32 = plans.unwrap().trim().parse().unwrap();
            // A manifest may have come with the job.
            assert!(plans > 0 || kind == "manifests", "{mark}: nobody missed anything");
            // The build after it finds all of it whole.
            let last = build(&farm, &mark, "RUN echo other > /more\n");
            assert_eq!(last, again, "{mark}");
        }
    }
}
