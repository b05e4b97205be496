//! What a build has made, brought here.

use std::io::Read;
use std::path::Path;

use client::public::Client;

use super::engine;
use super::outputs::Download;
use crate::exit::CliError;

/// Downloads an archive to where it goes; a file appears under its name only when it is whole.
pub(super) async fn save(client: &Client, url: &str, download: &Download) -> Result<(), CliError> {
    let path = match download {
        Download::File(path) => path,
        Download::Standard | Download::Directory(_) | Download::Layout(_) | Download::Engine => {
            return unpack(client, url, download).await;
        }
    };
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    client.download(url, Path::new(&partial)).await?;
    std::fs::rename(&partial, path).map_err(|error| CliError::file(path, &error))
}

async fn unpack(client: &Client, url: &str, download: &Download) -> Result<(), CliError> {
    let scratch =
        tempfile::NamedTempFile::new().map_err(|error| CliError::usage(error.to_string()))?;
    client.download(url, scratch.path()).await?;
    if *download == Download::Engine {
        return engine::load(scratch.path()).await;
    }
    let mut file = scratch.reopen().map_err(|error| CliError::file(scratch.path(), &error))?;
    let (directory, owners) = match download {
        Download::Directory(directory) => (directory, Owners::Keep),
        Download::Layout(directory) => (directory, Owners::Own),
        Download::File(_) | Download::Standard | Download::Engine => {
            let copied = std::io::copy(&mut file, &mut std::io::stdout());
            return copied.map(|_| ()).map_err(|error| CliError::file(Path::new("-"), &error));
        }
    };
    lay_out(&mut file, directory, owners).map_err(|error| CliError::file(directory, &error))
}

/// Whose the files of an archive become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// As in the archive, where one may.
    Keep,
    /// Those of whoever unpacks.
    Own,
}

/// Writes what an archive holds into a directory, which is made where it is missing. Nothing goes
/// elsewhere, whatever the names are. Devices stay out.
pub(super) fn lay_out(
    archive: &mut impl Read,
    directory: &Path,
    owners: Owners,
) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    let is_root = rustix::process::geteuid().is_root();
    archive.set_preserve_ownerships(is_root && owners == Owners::Keep);
    archive.set_overwrite(true);
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            // Their modes and times come last: a read-only directory could not be filled.
            directories.push(entry);
        } else if kind.is_file() || kind.is_symlink() || kind.is_hard_link() {
            entry.unpack_in(directory)?;
        }
    }
    directories.sort_by_key(|entry| std::cmp::Reverse(entry.path_bytes().len()));
    for mut entry in directories {
        entry.unpack_in(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn archive(entries: &[(&str, tar::EntryType, u32, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, mode, content) in entries {
            let mut header = tar::Header::new_gnu();
            // As they come: names that the library would refuse to write too.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_mtime(1_000_000_000);
            header.set_uid(0);
            header.set_gid(0);
            let is_link = kind.is_symlink();
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            if is_link {
                header.set_link_name(content).unwrap();
            }
            header.set_cksum();
            archive.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn files_keep_modes_and_times_and_stay_inside() {
        use tar::EntryType::{Char, Directory, Regular, Symlink};
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        let bytes = archive(&[
            ("d/", Directory, 0o555, ""),
            ("d/file", Regular, 0o640, "x"),
            ("null", Char, 0o666, ""),
            ("../escaped", Regular, 0o644, "x"),
            ("link", Symlink, 0o777, "/tmp"),
        ]);
        lay_out(&mut bytes.as_slice(), &place, Owners::Keep).unwrap();
        let of = |name: &str| std::fs::symlink_metadata(place.join(name)).unwrap();
        assert_eq!(of("d").permissions().mode() & 0o777, 0o555);
        assert_eq!(of("d/file").permissions().mode() & 0o777, 0o640);
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&of("d/file")), 1_000_000_000);
        assert!(of("link").is_symlink());
        assert!(!place.join("null").exists() && !root.path().join("escaped").exists());
    }
}
