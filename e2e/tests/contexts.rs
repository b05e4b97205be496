//! Contexts that are elsewhere, how old they are, and what is shown to their servers.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::{ArchivedImage, Farm, FarmOptions, GitServer, Ran, WebFile, WebFiles};

fn farm(fetch_private: bool) -> Farm {
    Farm::start(FarmOptions { workers: 1, fetch_private, ..FarmOptions::default() }).unwrap()
}

fn build(farm: &Farm, arguments: &[&str]) -> Ran {
    farm.slipway(["build", "--progress", "plain"].iter().chain(arguments)).unwrap()
}

/// Builds into a directory.
fn made(farm: &Farm, arguments: &[&str]) -> Result<tempfile::TempDir, String> {
    let place = tempfile::tempdir_in(farm.directory()).unwrap();
    let output = format!("type=local,dest={}", place.path().display());
    let all: Vec<&str> = ["-o", &output].into_iter().chain(arguments.iter().copied()).collect();
    let ran = build(farm, &all);
    if ran.code == 0 { Ok(place) } else { Err(ran.stderr) }
}

/// `created` of the image that a build makes.
fn age(farm: &Farm, arguments: &[&str]) -> String {
    let place = tempfile::tempdir_in(farm.directory()).unwrap();
    let archive = place.path().join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let all: Vec<&str> = ["-o", &output].into_iter().chain(arguments.iter().copied()).collect();
    let ran = build(farm, &all);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let image = ArchivedImage::read(&archive).unwrap();
    image.config["created"].as_str().unwrap_or_default().to_owned()
}

/// A tar archive of files, all of one age.
fn archive(files: &[(&str, &str)], time: u64) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(time);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A context with a Dockerfile and this beside it.
fn directory(farm: &Farm, dockerfile: &str) -> tempfile::TempDir {
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    context
}

fn path(directory: &tempfile::TempDir) -> &str {
    directory.path().to_str().unwrap()
}

#[test]
fn a_repository_is_a_context_in_every_form_that_buildkit_knows() {
    // The farm itself may not fetch from here: the client does.
    let farm = farm(false);
    let server = GitServer::start(farm.directory()).unwrap();
    let (v2, latest) =
        (server.commit_of("context.git", "v2").unwrap(), server.commit_of("context.git", "main"));
    let latest = latest.unwrap();
    let (short_v2, short) = (&v2[..8], &latest[..8]);
    let head = format!("{latest}\n");
    for (rest, target, expected) in [
        (String::new(), "", Ok("latest")),
        ("#v2".to_owned(), "", Ok("v2")),
        ("#refs/tags/v2".to_owned(), "", Ok("v2")),
        ("?ref=base".to_owned(), "", Ok("base")),
        ("?branch=base".to_owned(), "", Ok("base")),
        ("?branch=invalid".to_owned(), "", Err("repository does not contain ref")),
        ("?branch=v2".to_owned(), "", Err("repository does not contain ref")),
        ("?tag=v2#refs/tags/v2".to_owned(), "", Ok("v2")),
        (format!("?commit={v2}"), "", Ok("v2")),
        (format!("?commit={short_v2}"), "", Err("expected checksum to match")),
        (format!("?commit={short}"), "", Ok("latest")),
        (format!("?ref={v2}"), "", Ok("v2")),
        (format!("?ref={short_v2}"), "", Err("repository does not contain ref")),
        (format!("?tag=v2&commit={v2}"), "", Ok("v2")),
        (format!("?tag=v2&commit={latest}"), "", Err("expected checksum to match")),
        (format!("?ref={v2}&commit={v2}"), "", Ok("v2")),
        ("?tag=v2#refs/heads/main".to_owned(), "", Err("ref conflicts")),
        ("#feature:sub".to_owned(), "", Ok("subfeature")),
        ("?subdir=sub&ref=feature".to_owned(), "", Ok("subfeature")),
        ("#:none".to_owned(), "", Err("is not there")),
        ("?keep-git-dir=true".to_owned(), "withgit", Ok(head.trim())),
        ("?keep-git-dir&submodules".to_owned(), "withgit", Ok(head.trim())),
        (String::new(), "withgit", Err(".git/HEAD\" not found")),
        ("?keep-git-dir=false".to_owned(), "withgit", Err(".git/HEAD\" not found")),
        (String::new(), "withsubmod", Ok("library")),
        ("?submodules=true".to_owned(), "withsubmod", Ok("library")),
        ("?submodules=false".to_owned(), "withsubmod", Err("lib/lib.txt\" not found")),
    ] {
        let url = format!("{}/context.git{rest}", server.address());
        let mut arguments = vec![url.as_str()];
        if !target.is_empty() {
            arguments.extend(["--target", target]);
        }
        let result = made(&farm, &arguments);
        match (expected, result) {
            (Ok(text), Ok(place)) => {
                let found = std::fs::read_to_string(place.path().join("out")).unwrap();
                assert_eq!(found.trim_end(), text, "{url} {target}");
            }
            (Err(says), Err(text)) => assert!(text.contains(says), "{url} {target}: {text}"),
            (expected, result) => panic!("{url} {target}: {expected:?}, but {result:?}"),
        }
    }
    let url = format!("{}/context.git", server.address());
    let keeps = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "--target", "withgit", &url];
    assert!(made(&farm, &keeps).is_ok());
    // A Dockerfile below; and how old everything is.
    let below = format!("{url}#feature");
    assert!(made(&farm, &["-f", "sub/Dockerfile", &below]).is_ok());
    let escaped = made(&farm, &["-f", "../../etc/hostname", &url]);
    assert!(escaped.is_err(), "{escaped:?}");
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=context", &url];
    assert_eq!(age(&farm, &epoch), "2023-11-14T22:15:01Z");
    let plan = farm.slipway(["plan", &url]).unwrap();
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    drop(server);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_url_is_an_archive_or_a_dockerfile() {
    let farm = farm(false);
    let server = WebFiles::start().unwrap();
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY foo /\n"),
        ("sub/Other", "FROM scratch\nCOPY foo /other\n"),
        ("foo", "bar"),
        (".dockerignore", "foo"),
    ];
    let plain = archive(&files, 1_700_000_302);
    let tar = farm.directory().join("context.tar");
    std::fs::write(&tar, &plain).unwrap();
    let put = |name: &str, content: Vec<u8>, modified: Option<&str>| {
        let modified = modified.map(str::to_owned);
        server.put(name, WebFile { content, modified, ..WebFile::default() });
    };
    put("/context.tar", plain, None);
    let compressed = |program: &str| {
        let output = std::process::Command::new(program).arg("-c").arg(&tar).output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    for (name, program) in [("/c.gz", "gzip"), ("/c.bz2", "bzip2"), ("/c.xz", "xz")] {
        put(name, compressed(program), Some("Tue, 14 Nov 2023 22:16:41 GMT"));
    }
    put("/text", b"FROM scratch\nCOPY <<A /a\nx\nA\n".to_vec(), None);
    put("/copies", b"FROM scratch\nCOPY foo /\n".to_vec(), None);
    let address = server.address();
    let url = |name: &str| format!("{address}{name}");
    // D: the ignore file of what is not a directory here is a file like any other.
    for name in ["/context.tar", "/c.gz", "/c.bz2", "/c.xz"] {
        let place = made(&farm, &[&url(name)]).unwrap();
        assert_eq!(std::fs::read_to_string(place.path().join("foo")).unwrap(), "bar", "{name}");
    }
    let place = made(&farm, &["-f", "sub/Other", &url("/context.tar")]).unwrap();
    assert!(place.path().join("other").is_file());
    assert!(made(&farm, &[&url("/text")]).unwrap().path().join("a").is_file());
    for (arguments, says) in [
        (vec![url("/copies")], "\"/foo\" not found"),
        (vec!["-f".to_owned(), "x".to_owned(), url("/text")], "-f has no meaning"),
        (vec![url("/none")], "the server answered 404"),
    ] {
        let list: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let error = made(&farm, &list).unwrap_err();
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
    // The age of the archive is what the server says, else that of its youngest file.
    let by_context =
        |name: &str| age(&farm, &["--build-arg", "SOURCE_DATE_EPOCH=context", &url(name)]);
    assert_eq!(by_context("/c.gz"), "2023-11-14T22:16:41Z");
    assert_eq!(by_context("/context.tar"), "2023-11-14T22:18:22Z");
    // A Dockerfile elsewhere for a directory here.
    let context = directory(&farm, "FROM none\n");
    std::fs::write(context.path().join("foo"), "here").unwrap();
    let place = made(&farm, &["-f", &url("/copies"), path(&context)]).unwrap();
    assert_eq!(std::fs::read_to_string(place.path().join("foo")).unwrap(), "here");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_named_context_is_elsewhere_and_has_an_age() {
    let farm = farm(false);
    let (server, repositories) =
        (WebFiles::start().unwrap(), GitServer::start(farm.directory()).unwrap());
    let file = |modified: Option<&str>| WebFile {
        content: archive(&[("foo", "bar")], 1_700_000_602),
        modified: modified.map(str::to_owned),
        ..WebFile::default()
    };
    server.put("/src.tar", file(Some("Tue, 14 Nov 2023 22:23:21 GMT")));
    server.put("/silent.tar", file(None));
    let context = directory(
        &farm,
        "ARG SOURCE_DATE_EPOCH=mine\nFROM alpine AS build\nARG SOURCE_DATE_EPOCH\n\
         RUN --mount=from=mine,target=/m ls /m > /list && echo \"$SOURCE_DATE_EPOCH\" > /epoch\n\
         FROM scratch\nCOPY --from=build /list /epoch /\nCOPY --from=mine / /files/\n",
    );
    let of = |url: String| {
        let named = format!("mine={url}");
        let place = made(&farm, &["--build-context", &named, path(&context)]).unwrap();
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap();
        (read("list").replace('\n', " "), read("epoch"))
    };
    // A file under its name; archives stay archives.
    let seen = of(format!("{}/src.tar", server.address()));
    assert_eq!(seen, ("src.tar ".to_owned(), "1700000601\n".to_owned()));
    let seen = of(format!("{}/silent.tar", server.address()));
    assert_eq!(seen, ("silent.tar ".to_owned(), "1700000602\n".to_owned()));
    let seen = of(format!("{}/context.git#v1", repositories.address()));
    assert_eq!(seen, ("Dockerfile foo lib ".to_owned(), "1700000100\n".to_owned()));
    let seen = of(context.path().display().to_string());
    assert_eq!(seen, ("Dockerfile ".to_owned(), "\n".to_owned()));
    drop(repositories);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

/// Manifest and configuration of a layout's only image.
fn documents(layout: &Path) -> [Vec<u8>; 2] {
    let read = |name: &str| std::fs::read(layout.join(name)).unwrap();
    let parse = |bytes: &[u8]| -> serde_json::Value { serde_json::from_slice(bytes).unwrap() };
    let blob = |digest: &serde_json::Value| {
        read(&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/")))
    };
    let manifest = blob(&parse(&read("index.json"))["manifests"][0]["digest"]);
    let config = blob(&parse(&manifest)["config"]["digest"]);
    [manifest, config]
}

/// Submits a build from a layout without sending its layers; the code of its failure.
fn submitted(farm: &Farm, layout: &Path) -> String {
    let [manifest, config] = documents(layout).map(|bytes| BASE64_STANDARD.encode(bytes));
    let image = serde_json::json!({"manifest_base64": manifest, "config_base64": config});
    let text = BASE64_STANDARD.encode("FROM base\nRUN true\n");
    let request = serde_json::json!({
        "project": "default",
        "source": {"kind": "context", "dockerfile": {"name": "Dockerfile", "content_base64": text}},
        "contexts": {"base": {"kind": "layout", "images": [image]}},
    });
    let body = farm.directory().join("request.json");
    std::fs::write(&body, request.to_string()).unwrap();
    let output = std::process::Command::new("curl")
        .args(["-s", "--fail-with-body", "-H", "content-type: application/json", "-H"])
        .arg(format!("authorization: Bearer {}", farm.token()))
        .arg("-d")
        .arg(format!("@{}", body.display()))
        .arg(format!("{}/v1/builds", farm.address()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let view = farm.wait_for_build("its end", |view| view.state.is_terminal()).unwrap();
    view.failure.unwrap().code
}

/// The digests of the layers of a layout's only image.
fn layers(layout: &Path) -> Vec<String> {
    let [manifest, _] = documents(layout);
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_image_of_a_layout_takes_the_place_of_an_image_and_of_a_stage() {
    // Made by another farm, so that this one has nothing of it.
    let place = tempfile::tempdir().unwrap();
    let layout = place.path().join("layout");
    {
        let farm = farm(false);
        let context = directory(
            &farm,
            "FROM alpine\nENV FROM_LAYOUT=yes\nWORKDIR /work\nRUN echo made > file\n\
             ONBUILD RUN echo triggered > /trigger\n",
        );
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        let ran = build(&farm, &["-o", &output, "-t", "made:v1", path(&context)]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
    }
    let farm = farm(false);
    let context = directory(
        &farm,
        "FROM none AS tools\nRUN false\n\
         FROM base AS build\nRUN echo \"$FROM_LAYOUT $PWD $(cat file)\" > /seen\n\
         FROM scratch\nCOPY --from=build /seen /trigger /\n\
         COPY --from=base /work/file /copied\nCOPY --from=tools /work/file /tool\n",
    );
    let base = format!("base=oci-layout://{}", layout.display());
    let tools = format!("tools=oci-layout://{}:v1", layout.display());
    let arguments = ["--build-context", &base, "--build-context", &tools, path(&context)];
    // A plan needs none of the layers.
    let plan = || {
        let ran = farm.slipway(["plan"].iter().chain(&arguments)).unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    assert!(plan().contains("oci-layout://base@sha256:"), "{}", plan());
    let blobs = || {
        farm.query("select digest from object where kind = 'blob' and present order by digest")
            .unwrap()
    };
    assert_eq!(blobs(), "");
    // Nor is a build taken on trust that names layers that never came.
    let cheat = submitted(&farm, &layout);
    assert_eq!(cheat, "context-incomplete");
    assert_eq!(blobs(), "");
    let made_of_it = made(&farm, &arguments).unwrap();
    let read = |name: &str| std::fs::read_to_string(made_of_it.path().join(name)).unwrap();
    assert_eq!(read("seen"), "yes /work made\n");
    assert_eq!(read("trigger"), "triggered\n");
    assert_eq!((read("copied"), read("tool")), ("made\n".to_owned(), "made\n".to_owned()));
    let brought = layers(&layout);
    assert!(brought.iter().all(|layer| blobs().contains(layer)), "{brought:?}, but {}", blobs());
    assert!(plan().contains("nothing would run"), "{}", plan());
    assert!(made(&farm, &arguments).is_ok());

    // Its layers keep their form in another image, whatever the others get.
    let other = farm.directory().join("other");
    let output = format!("type=oci,tar=false,compression=zstd,dest={}", other.display());
    let mut with_output = vec!["-o", &output, "--target", "build"];
    with_output.extend(arguments);
    let ran = build(&farm, &with_output);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(layers(&other)[..brought.len()], brought);

    for (rest, says) in [(":v2", "it has v1"), ("/blobs", "index.json")] {
        let base = format!("base=oci-layout://{}{rest}", layout.display());
        let error = made(&farm, &["--build-context", &base, path(&context)]).unwrap_err();
        assert!(error.contains(says), "{rest}: {error}");
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn each_platform_gets_its_own_image_of_a_layouts_index() {
    let farm = farm(false);
    let context =
        directory(&farm, "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n");
    let layout = farm.directory().join("several");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let ran = build(&farm, &[both[0], both[1], "-o", &output, path(&context)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let context = directory(&farm, "FROM base\nCOPY Dockerfile /more\n");
    let base = format!("base=oci-layout://{}", layout.display());
    let of = |platforms: &str| {
        made(&farm, &["--build-context", &base, "--platform", platforms, path(&context)])
    };
    let place = of(both[1]).unwrap();
    for (directory, own, others) in
        [("linux_amd64", "of-amd64", "of-arm64"), ("linux_arm64", "of-arm64", "of-amd64")]
    {
        let directory = place.path().join(directory);
        assert!(directory.join(own).is_file() && directory.join("more").is_file(), "{own}");
        assert!(!directory.join(others).exists(), "{others}");
    }
    let error = of("linux/s390x").unwrap_err();
    assert!(error.contains("oci-layout://base has no image for linux/s390x"), "{error}");
    assert!(error.contains("it has linux/amd64, linux/arm64"), "{error}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

/// Serves a bare repository as files, for who shows this.
fn serve(server: &WebFiles, directory: &Path, prefix: &str, authorization: &str) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            serve(server, &entry.path(), &name, authorization);
        } else {
            let content = std::fs::read(entry.path()).unwrap();
            let authorization = Some(authorization.to_owned());
            server.put(&name, WebFile { content, authorization, ..WebFile::default() });
        }
    }
}

#[test]
fn secrets_open_private_sources_and_leave_no_trace() {
    let farm = farm(true);
    let (server, repositories) =
        (WebFiles::start().unwrap(), GitServer::start(farm.directory()).unwrap());
    let private = |content: &[u8]| WebFile {
        content: content.to_vec(),
        tag: Some("\"1\"".to_owned()),
        authorization: Some("Bearer tok-of-http".to_owned()),
        ..WebFile::default()
    };
    server.put("/file", private(b"private\n"));
    server.put("/context.tar", private(&archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n")], 1)));
    let basic = BASE64_STANDARD.encode("x-access-token:tok-of-git");
    let bare = repositories.directory().join("context.git");
    serve(&server, &bare, "/context.git", &format!("basic {basic}"));

    let host = server.address().trim_start_matches("http://");
    let secrets = tempfile::tempdir_in(farm.directory()).unwrap();
    let secret = |id: &str, value: &str| {
        let place = secrets.path().join(id);
        std::fs::write(&place, value).unwrap();
        format!("id={id},src={}", place.display())
    };
    let http = secret(&format!("HTTP_AUTH_TOKEN_{host}"), "tok-of-http\n");
    let git = secret("GIT_AUTH_TOKEN", "tok-of-git");
    let other = secret("HTTP_AUTH_TOKEN_other.test", "tok-of-http");
    let context = directory(
        &farm,
        &format!(
            "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {0}/context.git?submodules=0 /\n\
             FROM scratch\nADD {0}/file /\nCOPY --from=src /foo /foo\n",
            server.address()
        ),
    );
    for flags in [&[][..], &["--secret", &other, "--secret", &git], &["--secret", &http]] {
        let all: Vec<&str> = flags.iter().copied().chain([path(&context)]).collect();
        let error = made(&farm, &all).unwrap_err();
        assert!(error.contains("401") || error.contains("could not read"), "{flags:?}: {error}");
    }
    let flags = ["--secret", http.as_str(), "--secret", &git];
    let with = |rest: &str| flags.iter().copied().chain([rest]).map(str::to_owned).collect();
    let list: Vec<String> = with(path(&context));
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let place = made(&farm, &list).unwrap();
    assert_eq!(std::fs::read_to_string(place.path().join("file")).unwrap(), "private\n");
    assert_eq!(std::fs::read_to_string(place.path().join("foo")).unwrap(), "latest\n");
    assert_eq!(age(&farm, &list), "2023-11-14T22:15:01Z");
    let log = farm.last_log().unwrap();
    let kept =
        farm.query("select to_jsonb(s)::text, to_jsonb(b)::text from stage s, build b").unwrap();
    for text in [log, kept] {
        assert!(!text.contains("tok-of") && !text.contains(&basic), "{text}");
    }
    // The client's own fetches, of contexts.
    for rest in ["/context.tar", "/context.git?submodules=0"] {
        let url = format!("{}{rest}", server.address());
        assert!(made(&farm, &[&url]).is_err(), "{rest}");
        let list: Vec<String> = with(&url);
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        made(&farm, &list).unwrap();
    }
    drop(repositories);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn flags_for_what_is_so_anyway_are_taken() {
    let farm = farm(false);
    let context = directory(&farm, "FROM scratch\nCOPY Dockerfile /\n");
    let here = path(&context);
    let ran = build(
        &farm,
        &[
            "--provenance=false",
            "--sbom=false",
            "--attest=type=sbom,disabled=true",
            "--allow=network.host",
            "--cache-from=type=registry,ref=x",
            "--cache-to=type=inline",
            here,
        ],
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for says in ["--cache-from has no effect", "--cache-to has no effect"] {
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
    for (flag, says) in [
        ("--provenance=true", "--provenance: attestations are not supported yet"),
        ("--allow=device", "--allow device"),
        ("--builder=x", "--builder has no meaning"),
        ("--cgroup-parent=x", "--cgroup-parent is not supported"),
    ] {
        let ran = build(&farm, &[flag, here]);
        assert_eq!(ran.code, 2, "{flag}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{flag}: {}", ran.stderr);
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
