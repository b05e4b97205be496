//! The same contexts built by BuildKit and by Slipway, and the images compared: merged file system,
//! configuration, layers, history.
//!
//! A case is data; see `case`. What differs is either mended or listed in its case with the reason.

mod case;
mod cases;
mod compare;
mod rules;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Case, Expected};
use e2e::{ArchivedImage, BuildKit, Farm, FarmOptions, GitServer, WebFile, WebFiles};

/// Cases that are built at once.
const AT_ONCE: usize = 3;

#[test]
fn images_are_those_that_buildkit_makes() {
    let options =
        FarmOptions { workers: 1, slots: 4, fetch_private: true, ..FarmOptions::default() };
    let farm = Farm::start(options).unwrap();
    let engine = BuildKit::start(farm.directory(), farm.registry()).unwrap();
    let (server, repositories) = (served().unwrap(), GitServer::start(farm.directory()).unwrap());
    let places = [
        ("{server}", server.address()),
        ("{git}", repositories.address()),
        ("{commit}", repositories.commit()),
    ];
    let mut cases = cases::all();
    if let Ok(only) = std::env::var("SLIPWAY_CASE") {
        cases.retain(|case| case.name.contains(&only));
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let lines = match run(&farm, &engine, &places, case) {
                        Ok(lines) => lines,
                        Err(error) => vec![format!("{error:#}")],
                    };
                    if !lines.is_empty() {
                        let text =
                            format!("{} ({}):\n  {}", case.name, case.rules, lines.join("\n  "));
                        failures.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    println!("{} cases, {} of them with differences", cases.len(), failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    drop((engine, repositories));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn names_of_cases_are_unique_and_there_are_enough() {
    let cases = cases::all();
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 200, "{}", cases.len());
}

/// What words in braces stand for.
type Places<'a> = [(&'a str, &'a str)];

/// What cases find behind `{server}`.
fn served() -> anyhow::Result<WebFiles> {
    let server = WebFiles::start()?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    header.set_mtime(1_000_000_000);
    archive.append_data(&mut header, "in/archive", &b"x\n"[..])?;
    let mut context = tar::Builder::new(Vec::new());
    for (name, content) in [("Dockerfile", "FROM scratch\nCOPY . /d/\n"), (".dockerignore", "*")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        context.append_data(&mut header, name, content.as_bytes())?;
    }
    let modified = Some("Sun, 09 Sep 2001 01:46:40 GMT".to_owned());
    for (path, content) in [
        ("/text.txt", b"served\n".to_vec()),
        ("/a%20b.txt", b"blank\n".to_vec()),
        ("/", b"root\n".to_vec()),
        ("/t.tar", archive.into_inner()?),
        ("/context.tar", context.into_inner()?),
        ("/Dockerfile", b"FROM alpine\nRUN echo x > /x\n".to_vec()),
    ] {
        let tag = Some(format!("\"{path}\""));
        let modified = modified.clone();
        server.put(path, WebFile { content, tag, modified, ..WebFile::default() });
    }
    Ok(server)
}

/// Builds a case on both sides. Gives what differs and should not.
fn run(
    farm: &Farm,
    engine: &BuildKit,
    places: &Places<'_>,
    case: &Case,
) -> anyhow::Result<Vec<String>> {
    let directory = tempfile::tempdir_in(farm.directory())?;
    let context = directory.path().join("context");
    std::fs::create_dir(&context)?;
    case.write(&context, places)?;
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    let here = context.display().to_string();
    let place = |argument: &str| {
        let text = argument.replace("{context}", &here);
        places.iter().fold(text, |text, (word, place)| text.replace(word, place))
    };
    let mut arguments: Vec<String> = case.arguments.iter().map(|text| place(text)).collect();
    arguments.push(place(case.context.unwrap_or("{context}")));
    let their_result = match case.alone {
        None => Some(engine.build(case.name, &arguments, &theirs)?),
        Some(_) => None,
    };
    let output = format!("type=oci,dest={}", ours.display());
    let mut all = vec!["build".to_owned(), "--progress".to_owned(), "plain".to_owned()];
    all.extend(["--output".to_owned(), output]);
    all.extend(arguments);
    let our_result = farm.slipway(&all)?;
    Ok(match case.expected {
        Expected::Image => {
            let mut lines = Vec::new();
            if our_result.code != 0 {
                lines.push(format!("ours failed: {}", our_result.stderr));
            }
            if let Some(Err(text)) = &their_result {
                lines.push(format!("theirs failed: {text}"));
            }
            if !lines.is_empty() {
                return Ok(lines);
            }
            unexpected(case, images(&ours, &theirs, case.times)?)
        }
        Expected::Failure { line, says } => {
            let mut lines = failure(&our_result.stderr, our_result.code, line, says);
            if their_result.is_some_and(|result| result.is_ok()) {
                lines.push("theirs succeeded".to_owned());
            }
            lines
        }
        Expected::Ours(files) => {
            if our_result.code != 0 {
                return Ok(vec![format!("ours failed: {}", our_result.stderr)]);
            }
            compare::missing(&ArchivedImage::read(&ours)?, files)
        }
    })
}

fn images(ours: &Path, theirs: &Path, times: bool) -> anyhow::Result<Vec<String>> {
    let (ours, theirs) = (ArchivedImage::read(ours)?, ArchivedImage::read(theirs)?);
    Ok(compare::differences(&ours, &theirs, times))
}

/// What is left of the differences without the ones that are known; and what is known and is none.
fn unexpected(case: &Case, lines: Vec<String>) -> Vec<String> {
    let is_known =
        |line: &String| case.differences.iter().any(|(start, _)| line.starts_with(start));
    let gone = case
        .differences
        .iter()
        .filter(|(start, _)| !lines.iter().any(|line| line.starts_with(start)))
        .map(|(start, _)| format!("no longer differs: {start}"));
    let gone: Vec<String> = gone.collect();
    lines.into_iter().filter(|line| !is_known(line)).chain(gone).collect()
}

fn failure(stderr: &str, code: i32, line: u32, says: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if code != 1 {
        lines.push(format!("ours ended with {code}: {stderr}"));
    }
    if line > 0 && !stderr.contains(&format!("Dockerfile:{line}")) {
        lines.push(format!("ours does not name line {line}: {stderr}"));
    }
    if !stderr.contains(says) {
        lines.push(format!("ours does not say {says:?}: {stderr}"));
    }
    lines
}
