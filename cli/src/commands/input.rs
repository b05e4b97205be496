//! What is built: a directory, or what comes on standard input.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::download::{Owners, lay_out};
use crate::args::Build;
use crate::context::{find_dockerfile, ignore_file};
use crate::exit::CliError;

/// Longest Dockerfile that is read, in bytes; the farm takes less.
const MAX_DOCKERFILE_BYTES: u64 = 16 << 20;
/// Where a tar header says that it is one (POSIX.1, "ustar Interchange Format").
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

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
    /// Where an archive was unpacked to.
    _scratch: Option<TempDir>,
}

impl Input {
    /// Finds Dockerfile and context. `-` as context is standard input: an archive with both, or a
    /// Dockerfile without a context; `-f -` is a Dockerfile on standard input.
    pub(super) fn read(arguments: &Build, stdin: impl Read) -> Result<Self, CliError> {
        let is_stdin = |path: &Path| path == Path::new("-");
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
                hint: Some("git addresses and URLs are not supported yet".into()),
            });
        }
        if file_is_stdin {
            let (name, dockerfile) = ("Dockerfile".to_owned(), limited(stdin)?);
            let ignore = ignore_file(context, None)?;
            let context = Some(context.to_owned());
            return Ok(Self { context, name, dockerfile, ignore, _scratch: None });
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
        Ok(Self { context: Some(context), name, dockerfile, ignore, _scratch: scratch })
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
        return Err(CliError::usage("the Dockerfile on standard input is too long"));
    }
    Ok(bytes)
}

fn from_stdin(file: Option<&Path>, mut stdin: impl Read) -> Result<Input, CliError> {
    // A pipe may give a few bytes at a time.
    let mut start = Vec::new();
    let head = stdin.by_ref().take(512).read_to_end(&mut start);
    head.map_err(|error| failed(&error))?;
    let mut reader = Cursor::new(start.clone()).chain(stdin);
    let (at, magic) = TAR_MAGIC;
    if start.starts_with(&[0x1f, 0x8b]) {
        let mut plain = flate2::read::MultiGzDecoder::new(reader);
        return from_archive(file, &mut plain);
    }
    if start.get(at..at + magic.len()) == Some(magic) {
        return from_archive(file, &mut reader);
    }
    if start.starts_with(b"BZh") || start.starts_with(b"\xfd7zXZ") {
        let message = "archives on standard input may be plain or compressed with gzip";
        return Err(CliError::usage(message));
    }
    if file.is_some() {
        let message =
            "a Dockerfile on standard input cannot be named with -f: use -f - and a directory";
        return Err(CliError::usage(message));
    }
    let (name, dockerfile) = ("Dockerfile".to_owned(), limited(reader)?);
    Ok(Input { context: None, name, dockerfile, ignore: None, _scratch: None })
}

fn from_archive(file: Option<&Path>, archive: &mut impl Read) -> Result<Input, CliError> {
    let scratch = tempfile::tempdir().map_err(|error| failed(&error))?;
    let context = scratch.path().join("context");
    lay_out(archive, &context, Owners::Own).map_err(|error| failed(&error))?;
    let file = file.map(|file| context.join(file));
    let path = find_dockerfile(&context, file.as_deref())?;
    let real = path.canonicalize().map_err(|error| CliError::file(&path, &error))?;
    let root = context.canonicalize().map_err(|error| failed(&error))?;
    if !real.starts_with(&root) {
        return Err(CliError::usage("the archive's Dockerfile lies outside of it"));
    }
    let name = path.strip_prefix(&context).unwrap_or(&path).display().to_string();
    Input::of_directory(context, &path, name, Some(scratch))
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
