//! What is built: a directory, what comes on standard input, or what is elsewhere.

use std::io::Read;
use std::path::{Path, PathBuf};

use dockerfile::Address;
use fetch::{Opened, open_archive};
use tempfile::TempDir;

use super::download::{Owners, lay_out};
use super::request::build_args;
use super::source::{Fetched, Source, unpacked};
use crate::args::Build;
use crate::context::{find_dockerfile, ignore_file};
use crate::exit::CliError;

/// Longest Dockerfile that is read, in bytes; the farm takes less.
const MAX_DOCKERFILE_BYTES: u64 = 16 << 20;

/// Dockerfile and context of a build.
#[derive(Debug)]
pub(super) struct Input {
    /// The directory of the context; none where there are no files.
    pub(super) context: Option<PathBuf>,
    /// The Dockerfile's name, for messages.
    pub(super) name: String,
    pub(super) dockerfile: Vec<u8>,
    /// The context's ignore file.
    pub(super) ignore: Option<Vec<u8>>,
    /// When its source was made, in seconds since 1970; a directory does not tell.
    pub(super) made_at: Option<i64>,
    /// Where an archive was unpacked to.
    _scratch: Option<TempDir>,
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("https://") || text.starts_with("http://"))
}

impl Input {
    /// Finds Dockerfile and context, and fetches what is elsewhere.
    pub(super) async fn load(arguments: &Build, stdin: impl Read) -> Result<Self, CliError> {
        if let Some(url) = arguments.file.as_deref().filter(|file| is_url(file)) {
            return Self::with_dockerfile_at(arguments, &url.display().to_string()).await;
        }
        let address = arguments.context.to_str().filter(|_| !arguments.context.is_dir());
        let address = match address.and_then(Address::parse) {
            Some(address) => address.map_err(CliError::usage)?,
            None => return Self::read(arguments, stdin),
        };
        let source = Source::new(&arguments.secret)?;
        let file = arguments.file.as_deref();
        match &address {
            Address::Repository(repository) => {
                let keeps = keeps_git_dir(arguments)?;
                from_fetched(source.repository(repository, keeps).await?, file, stdin)
            }
            Address::File(url) => {
                let (fetched, is_archive) = unpacked(source.file(url, Some("Dockerfile")).await?)?;
                if is_archive {
                    return from_fetched(fetched, file, stdin);
                }
                if file.is_some() {
                    let message =
                        format!("{url} is no archive but a Dockerfile: -f has no meaning");
                    return Err(CliError::usage(message));
                }
                let dockerfile = std::fs::File::open(&fetched.path)
                    .map_err(|error| CliError::file(&fetched.path, &error))?;
                Ok(Self {
                    context: None,
                    name: "Dockerfile".to_owned(),
                    dockerfile: limited(dockerfile)?,
                    ignore: None,
                    made_at: fetched.made_at,
                    _scratch: None,
                })
            }
        }
    }

    /// `-f URL`: the Dockerfile is elsewhere, whatever the context is.
    async fn with_dockerfile_at(arguments: &Build, url: &str) -> Result<Self, CliError> {
        if !arguments.context.is_dir() {
            return Err(CliError::usage("with -f URL the context has to be a directory"));
        }
        let fetched = Source::new(&arguments.secret)?.file(url, Some("Dockerfile")).await?;
        let dockerfile = std::fs::File::open(&fetched.path)
            .map_err(|error| CliError::file(&fetched.path, &error))?;
        Ok(Self {
            context: Some(arguments.context.clone()),
            name: url.to_owned(),
            dockerfile: limited(dockerfile)?,
            ignore: ignore_file(&arguments.context, None)?,
            made_at: None,
            _scratch: None,
        })
    }

    /// Finds Dockerfile and context on this machine. `-` as context is standard input: an archive with both, or a
    /// Dockerfile without a context; `-f -` is a Dockerfile on standard input.
    pub(super) fn read(arguments: &Build, stdin: impl Read) -> Result<Self, CliError> {
        let file = arguments.file.as_deref();
        let file_is_stdin = file.is_some_and(is_stdin);
        if is_stdin(&arguments.context) {
            if file_is_stdin {
                let message = "context and Dockerfile cannot both come on standard input";
                return Err(CliError::usage(message));
            }
            return from_stdin(file, stdin);
        }
        let context = arguments.context.as_path();
        if !context.is_dir() {
            return Err(CliError::Usage {
                message: format!("the context {} is no directory", context.display()),
                hint: Some("it can also be a git address, a URL of an archive, or -".into()),
            });
        }
        if file_is_stdin {
            let (name, dockerfile) = ("Dockerfile".to_owned(), limited(stdin)?);
            let ignore = ignore_file(context, None)?;
            let context = Some(context.to_owned());
            return Ok(Self { context, name, dockerfile, ignore, made_at: None, _scratch: None });
        }
        let path = find_dockerfile(context, file)?;
        Self::of_directory(context.to_owned(), &path, path.display().to_string(), None)
    }

    fn of_directory(
        context: PathBuf,
        path: &Path,
        name: String,
        scratch: Option<TempDir>,
    ) -> Result<Self, CliError> {
        let dockerfile = std::fs::read(path).map_err(|error| CliError::file(path, &error))?;
        let ignore = ignore_file(&context, Some(path))?;
        let (context, made_at) = (Some(context), None);
        Ok(Self { context, name, dockerfile, ignore, made_at, _scratch: scratch })
    }
}

/// With its cause: what unpacks archives says only where it failed.
fn failed(error: &std::io::Error) -> CliError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    CliError::file(Path::new("-"), &format!("{error}{}", cause.unwrap_or_default()))
}

fn limited(reader: impl Read) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_DOCKERFILE_BYTES {
        return Err(CliError::usage("the Dockerfile is too long"));
    }
    Ok(bytes)
}

fn from_stdin(file: Option<&Path>, stdin: impl Read) -> Result<Input, CliError> {
    let text = match open_archive(stdin).map_err(|error| failed(&error))? {
        Opened::Archive(mut archive) => return from_archive(file, &mut archive),
        Opened::Other(text) => text,
    };
    if file.is_some() {
        let message =
            "a Dockerfile on standard input cannot be named with -f: use -f - and a directory";
        return Err(CliError::usage(message));
    }
    let (name, dockerfile) = ("Dockerfile".to_owned(), limited(text)?);
    let (context, ignore, made_at) = (None, None, None);
    Ok(Input { context, name, dockerfile, ignore, made_at, _scratch: None })
}

fn from_archive(file: Option<&Path>, archive: &mut impl Read) -> Result<Input, CliError> {
    let scratch = tempfile::tempdir().map_err(|error| failed(&error))?;
    let context = scratch.path().join("context");
    lay_out(archive, &context, Owners::Own).map_err(|error| failed(&error))?;
    let (path, name) = dockerfile_inside(&context, file)?;
    Input::of_directory(context, &path, name, Some(scratch))
}

/// The Dockerfile of a context that came from a stranger: inside, whatever links it has. Gives its
/// path and its name.
fn dockerfile_inside(context: &Path, file: Option<&Path>) -> Result<(PathBuf, String), CliError> {
    let file = file.map(|file| context.join(file.strip_prefix("/").unwrap_or(file)));
    let path = find_dockerfile(context, file.as_deref())?;
    let real = path.canonicalize().map_err(|error| CliError::file(&path, &error))?;
    let root = context.canonicalize().map_err(|error| CliError::file(context, &error))?;
    if !real.starts_with(&root) {
        return Err(CliError::usage("the Dockerfile lies outside of the context"));
    }
    let name = path.strip_prefix(context).unwrap_or(&path).display().to_string();
    Ok((path, name))
}

/// Ignore files are for directories of this machine only, as in BuildKit.
fn from_fetched(
    fetched: Fetched,
    file: Option<&Path>,
    stdin: impl Read,
) -> Result<Input, CliError> {
    let Fetched { path: context, made_at, scratch } = fetched;
    let (name, dockerfile) = if file.is_some_and(is_stdin) {
        ("Dockerfile".to_owned(), limited(stdin)?)
    } else {
        let (path, name) = dockerfile_inside(&context, file)?;
        let opened = std::fs::File::open(&path);
        (name, limited(opened.map_err(|error| CliError::file(&path, &error))?)?)
    };
    let (context, ignore) = (Some(context), None);
    Ok(Input { context, name, dockerfile, ignore, made_at, _scratch: Some(scratch) })
}

/// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
fn keeps_git_dir(arguments: &Build) -> Result<bool, CliError> {
    const NAME: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
    match build_args(&arguments.build_arg).get(NAME).map(String::as_str) {
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(other) => Err(CliError::usage(format!("invalid boolean value for {NAME}: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser as _;

    fn read(list: &[&str], stdin: &[u8]) -> Result<Input, CliError> {
        let all = ["slipway", "build"].iter().chain(list);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Build(build) => Input::read(&build, stdin),
            other => panic!("{other:?}"),
        }
    }

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_ustar();
            header.set_size(7);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, &b"FROM a\n"[..]).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn standard_input_is_a_dockerfile_or_an_archive() {
        let text = read(&["-"], b"FROM a\n").unwrap();
        assert_eq!((text.context, text.dockerfile.as_slice()), (None, &b"FROM a\n"[..]));
        let plain = archive(&["Dockerfile", "other", ".dockerignore"]);
        let found = read(&["-"], &plain).unwrap();
        assert!(found.context.as_ref().unwrap().join("other").is_file());
        assert_eq!((found.name.as_str(), found.ignore.is_some()), ("Dockerfile", true));
        let named = read(&["-f", "other", "-"], &plain).unwrap();
        assert_eq!(named.name, "other");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &plain).unwrap();
        assert!(read(&["-"], &gzip.finish().unwrap()).unwrap().context.is_some());
        for (list, bytes) in [
            (&["-f", "x", "-"][..], &b"FROM a\n"[..]),
            (&["-f", "-", "-"], b""),
            (&["-"], b"BZh91AY"),
            (&["-f", "none", "-"], &plain),
            (&["/no/such/place"], b""),
            (&["-f", "../../etc/passwd", "-"], &plain),
        ] {
            assert!(read(list, bytes).is_err(), "{list:?}");
        }
    }

    #[test]
    fn a_dockerfile_on_standard_input_has_the_context_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".dockerignore"), "x").unwrap();
        let path = directory.path().to_str().unwrap();
        let found = read(&["-f", "-", path], b"FROM b\n").unwrap();
        assert_eq!(found.dockerfile, b"FROM b\n");
        assert_eq!(
            (found.context.as_deref(), found.ignore),
            (Some(directory.path()), Some(b"x".to_vec()))
        );
    }
}
