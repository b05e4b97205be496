//! How long it takes from the bytes of a Dockerfile to its plan.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a benchmark ends it")]

use std::fmt::Write as _;
use std::hint::black_box;

use common::image::{ContainerConfig, ImageDocument, ResolvedImage};
use common::tree::{Entry, EntryKind, Manifest, TreePath};
use common::{Digest, Platform};
use criterion::{Criterion, criterion_group, criterion_main};
use dockerfile::{ImageFacts, Options, parse};

/// 40 stages in 500 lines: each copies from the context and from the stage before it, runs two
/// commands, and carries the environment of its base.
fn dockerfile() -> String {
    let mut text = "ARG TAG=3.20\nFROM alpine:${TAG} AS base\nENV LANG=C PATH=/opt:$PATH\n\
                    WORKDIR /src\nRUN apk add build-base\n"
        .to_owned();
    for stage in 1..40 {
        let before = if stage == 1 { "base".to_owned() } else { format!("s{}", stage - 1) };
        let _ = write!(
            text,
            "\nFROM base AS s{stage}\nARG OPTIONS=-O{stage}\nENV STAGE={stage} FLAGS=\"${{OPTIONS:-none}}\"\n\
             LABEL stage.{stage}=\"${{STAGE}}\"\nCOPY --chown=1000:1000 src{stage}/*.c include/ ./\n\
             COPY --from={before} /src/out /in/{before}\nRUN --mount=type=cache,target=/cache \\\n  \
             make -j4 $FLAGS && \\\n  make install\nRUN echo {stage} > out\n"
        );
    }
    let _ = write!(text, "EXPOSE 80 443/tcp\nUSER 1000\nCMD [\"serve\"]\n");
    while text.lines().count() < 500 {
        text.push_str("# more\n");
    }
    text
}

fn context() -> Manifest {
    let mut entries = Vec::new();
    let mut add = |path: String, kind: EntryKind| {
        let path = TreePath::new(path).unwrap();
        let (xattrs, mtime_secs) = (Vec::new(), 0);
        entries.push(Entry { path, mode: 0o644, uid: 0, gid: 0, mtime_secs, xattrs, kind });
    };
    add(String::new(), EntryKind::Directory);
    for directory in (1..40).map(|stage| format!("src{stage}")).chain(["include".to_owned()]) {
        add(directory.clone(), EntryKind::Directory);
        for file in 0..25 {
            let digest = Digest::of(format!("{directory}{file}").as_bytes());
            let kind = EntryKind::File { size_bytes: 100, digest, parts: Vec::new() };
            add(format!("{directory}/file{file}.c"), kind);
        }
    }
    entries.sort_by(|a: &Entry, b: &Entry| a.path.cmp(&b.path));
    Manifest { entries, ..Manifest::default() }
}

fn facts() -> ImageFacts {
    let env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let config = ContainerConfig { env, ..ContainerConfig::default() };
    let image = ResolvedImage {
        reference: "alpine:3.20".to_owned(),
        digest: Digest::of(b"alpine"),
        document: ImageDocument { config, ..ImageDocument::default() },
        layers: Vec::new(),
    };
    ImageFacts::from([(("alpine:3.20".to_owned(), Platform::host()), image)])
}

fn planning(criterion: &mut Criterion) {
    let (text, context, images) = (dockerfile(), context(), facts());
    let options = Options::new(Platform::host());
    let plan = || {
        let file = parse("Dockerfile", text.as_bytes()).unwrap();
        file.plan(&options, &images, Some(&context)).unwrap()
    };
    assert_eq!((plan().plan.stages.len(), text.lines().count()), (40, 500));
    criterion.bench_function("500 lines, 40 stages, 1000 files", |bencher| {
        bencher.iter(|| black_box(plan()));
    });
}

/// Files that want to be expensive. Each is refused.
fn hostile_files() -> Vec<(&'static str, Vec<u8>)> {
    let mut bomb = "FROM scratch\nARG A0=xxxxxxxxxx\n".to_owned();
    for round in 1..40 {
        let _ = writeln!(bomb, "ARG A{round}=${{A{0}}}${{A{0}}}${{A{0}}}${{A{0}}}", round - 1);
    }
    let nested =
        format!("FROM scratch\nLABEL x={}{}\n", "${a:-".repeat(10_000), "}".repeat(10_000));
    vec![
        ("a line of 100 MB", [b"FROM scratch\nRUN ".as_slice(), &vec![b'x'; 100 << 20]].concat()),
        ("a million stages", b"FROM a\n".repeat(1_000_000)),
        ("590,000 stages in 4 MiB", b"FROM a\n".repeat(590_000)),
        ("an expansion bomb", bomb.into_bytes()),
        ("nesting 10,000 deep", nested.into_bytes()),
    ]
}

fn refusing(criterion: &mut Criterion) {
    let options = Options::new(Platform::host());
    for (name, bytes) in hostile_files() {
        let refused = || {
            let file = match parse("Dockerfile", &bytes) {
                Ok(file) => file,
                Err(failures) => return failures,
            };
            file.plan(&options, &facts(), None).unwrap_err()
        };
        assert!(!refused().is_empty());
        criterion.bench_function(name, |bencher| bencher.iter(|| black_box(refused())));
    }
}

criterion_group!(benches, planning, refusing);
criterion_main!(benches);
