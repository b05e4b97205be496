//! The copy itself.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use common::ignore::IgnoreFile;
use common::plan::{CopyFrom, CopyOp, InlineFile, Unpack, WorkdirOp};
use common::tree::TreePath;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, Timespec, statat};

use super::destination::{self, ensure};
use super::error::CopyError;
use super::glob::{expand, has_wildcard, os_name};
use super::inside::{Root, split};
use super::mode::ModeRule;
use super::node::{self, Metadata};
use super::whole::Moving;
use super::{owner, parents, unpack};

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyStats {
    /// Regular files written.
    pub files: u64,
    /// Bytes of them.
    pub content_bytes: u64,
    /// Things to tell the user, one line each.
    pub warnings: Vec<String>,
    /// The directory of the source whose files were moved, and where to, when the copy did nothing
    /// else.
    pub moved: Option<(TreePath, TreePath)>,
}

/// How entries of one copy get their metadata.
pub(super) struct Rules {
    owner: Option<(u32, u32)>,
    keep_owner: bool,
    mode: ModeRule,
}

impl Rules {
    /// The metadata of a copy of something with `found`.
    pub(super) fn apply(&self, mut found: Metadata, is_directory: bool) -> Metadata {
        match self.owner {
            Some((uid, gid)) => (found.uid, found.gid) = (uid, gid),
            None if !self.keep_owner => (found.uid, found.gid) = (0, 0),
            None => {}
        }
        found.mode = self.mode.apply(found.mode, is_directory);
        found
    }

    /// The metadata of something that comes out of an archive: it keeps its mode, and its owner
    /// unless another one is asked for.
    pub(super) fn apply_to_unpacked(&self, mut found: Metadata) -> Metadata {
        if let Some((uid, gid)) = self.owner {
            (found.uid, found.gid) = (uid, gid);
        }
        found
    }

    /// The metadata of a directory that is made to hold the destination.
    pub(super) fn fresh_directory(&self) -> Metadata {
        self.fresh(0o755, true)
    }

    /// The metadata of a file whose content stands in the Dockerfile.
    fn fresh_file(&self) -> Metadata {
        self.fresh(0o644, false)
    }

    fn fresh(&self, mode: u32, is_directory: bool) -> Metadata {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Metadata { uid, gid, mode: self.mode.apply(mode, is_directory), modified: now() }
    }
}

/// One copy under way.
pub(super) struct Copy<'a> {
    pub(super) rules: Rules,
    pub(super) target: Root,
    pub(super) stats: CopyStats,
    exclude: Option<IgnoreFile>,
    /// Whether archives among the sources are unpacked.
    unpacks: bool,
    /// Whether files are moved rather than copied.
    moves: bool,
    /// Whether directories may be moved with all that is below them.
    pub(super) moves_whole: bool,
    /// Files with several names that were moved: the names in another source become copies.
    pub(super) moved: HashSet<(u64, u64)>,
    op: &'a CopyOp,
}

/// What a copy reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyInputs<'a> {
    /// The directory that stands for context, stage or image; none is an empty one.
    pub source: Option<&'a Path>,
    /// Whether its entries keep their owner; without, they are root's.
    pub keep_owner: bool,
    /// Whether the files of `source` are wanted by nobody else and lie in the root file system: then
    /// they are moved, with what is asked for changed, where they have one name only.
    pub may_move: bool,
    /// The directory of what was downloaded: `0/<name>`, `1/<name>`, by position in the operation.
    pub remotes: Option<&'a Path>,
}

/// Runs a COPY or ADD into the root file system at `rootfs`.
///
/// For `--link` the root file system is an empty directory: the copy is a layer by itself.
pub fn copy(op: &CopyOp, inputs: CopyInputs<'_>, rootfs: &Path) -> Result<CopyStats, CopyError> {
    let CopyInputs { source, keep_owner, may_move, remotes } = inputs;
    let target = Root::open(rootfs).map_err(|error| CopyError::io("/", error))?;
    let mut stats = CopyStats::default();
    let owner = match op.chown.as_deref() {
        Some(text) if op.link && !owner::is_numeric(text) => {
            return Err(CopyError::NamedOwner(text.to_owned()));
        }
        Some(text) => {
            let (owner, warning) = owner::resolve(rootfs, text);
            stats.warnings.extend(warning);
            Some(owner)
        }
        None => None,
    };
    let rules = Rules { owner, keep_owner, mode: ModeRule::new(op.chmod.as_ref())? };
    let unpacks = op.unpack != Unpack::Never;
    let mut copy = Copy {
        rules,
        target,
        stats,
        exclude: excludes(op)?,
        unpacks,
        moves: false,
        moves_whole: false,
        moved: HashSet::new(),
        op,
    };
    let sources = named(op, source)?;
    if let Some(source) = source.filter(|_| !sources.is_empty()) {
        let source = Root::open(source).map_err(|error| CopyError::io("/", error))?;
        copy.moves = may_move && are_apart(&source, &sources);
        copy.moves_whole = copy.moves && copy.exclude.is_none();
        let is_all = sources.len() == 1 && op.remotes.is_empty() && op.inline.is_empty();
        for (path, pivot) in sources {
            if op.parents {
                copy.with_parents(&source, &path, pivot)?;
            } else {
                copy.one_source(&source, &path)?;
            }
        }
        if !(copy.moves && is_all) {
            // Something else may stand where a moved file was.
            copy.stats.moved = None;
        }
        (copy.moves, copy.moves_whole) = (false, false);
    }
    copy.unpacks = op.unpack == Unpack::All;
    for (number, remote) in op.remotes.iter().enumerate() {
        let path = remote.path();
        let fail = |error| CopyError::io(path, error);
        let directory = remotes.ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
        let source = Root::open(&directory.join(number.to_string())).map_err(fail)?;
        if source.open_with(path.as_bytes(), OFlags::PATH).is_err() {
            let path = format!("/{path}");
            return Err(CopyError::MissingSource { path, from: "repository" });
        }
        copy.one_source(&source, path.as_bytes())?;
    }
    for file in &op.inline {
        copy.inline_file(file)?;
    }
    Ok(copy.stats)
}

/// The paths that the sources of an operation name, and for `--parents` how many of their components
/// are left out.
fn named(op: &CopyOp, source: Option<&Path>) -> Result<Vec<(Vec<u8>, usize)>, CopyError> {
    let mut sources = Vec::new();
    for pattern in &op.sources {
        let (pattern, pivot) =
            if op.parents { parents::pivot(pattern) } else { (pattern.clone(), 0) };
        let from = match &op.from {
            CopyFrom::Context => "build context",
            CopyFrom::Scratch => "empty image",
            CopyFrom::NamedContext { .. } => "named context",
            CopyFrom::Stage { .. } => "stage",
            CopyFrom::Image { .. } => "image",
        };
        let missing = || CopyError::MissingSource { path: pattern.clone(), from };
        let Some(source) = source else {
            if has_wildcard(&pattern) || pattern.trim_matches('/').is_empty() {
                continue;
            }
            return Err(missing());
        };
        let source = Root::open(source).map_err(|error| CopyError::io(pattern.as_str(), error))?;
        let found = if has_wildcard(&pattern) {
            expand(&source, &pattern).map_err(|error| CopyError::io(pattern.as_str(), error))?
        } else {
            let path = pattern.trim_matches('/').as_bytes().to_vec();
            if source.open_with(&path, OFlags::PATH).is_err() {
                return Err(missing());
            }
            vec![path]
        };
        sources.extend(found.into_iter().map(|path| (path, pivot)));
    }
    Ok(sources)
}

/// Whether nothing is named by two of the sources, so that each can be moved.
fn are_apart(source: &Root, paths: &[(Vec<u8>, usize)]) -> bool {
    let [_, _, ..] = paths else { return true };
    let mut followed: Vec<TreePath> = Vec::new();
    for (path, _) in paths {
        // A link makes another path of what may be named by itself as well.
        match source.resolve(path) {
            Ok(found) if found == *path => followed.extend(TreePath::new(found).ok()),
            _ => return false,
        }
    }
    followed.sort_unstable();
    // Sorted by bytes, what is below a directory need not be right behind it.
    followed.len() == paths.len()
        && followed
            .iter()
            .enumerate()
            .all(|(at, path)| !followed[at + 1..].iter().any(|other| other.is_within(path)))
}

fn excludes(op: &CopyOp) -> Result<Option<IgnoreFile>, CopyError> {
    if op.exclude.is_empty() {
        return Ok(None);
    }
    let parsed = IgnoreFile::parse(op.exclude.join("\n").as_bytes());
    parsed.map(Some).map_err(|failure| CopyError::Exclude(failure.message))
}

/// Makes a working directory; existing parts of it keep what they are.
pub fn make_workdir(op: &WorkdirOp, rootfs: &Path) -> Result<(), CopyError> {
    // As `--chown` does: a number alone is user and group, an unknown name is root.
    let ((uid, gid), _) = owner::resolve(rootfs, &op.owner);
    let root = Root::open(rootfs).map_err(|error| CopyError::io("/", error))?;
    let path =
        root.resolve(op.path.as_bytes()).map_err(|error| CopyError::io(op.path.as_str(), error))?;
    let metadata = Metadata { uid, gid, mode: 0o755, modified: now() };
    ensure(&root, &path, &metadata)?;
    Ok(())
}

/// Opens a directory of a tree that others change meanwhile, making what is missing of it. Links are
/// followed inside the tree; what the directory is does not change any more once it is open.
pub fn open_directory(tree: &Path, path: &[u8]) -> Result<OwnedFd, CopyError> {
    let root = Root::open(tree).map_err(|error| CopyError::io("/", error))?;
    let shown = || String::from_utf8_lossy(path).into_owned();
    let resolved = root.resolve(path).map_err(|error| CopyError::io(shown(), error))?;
    ensure(&root, &resolved, &Metadata { uid: 0, gid: 0, mode: 0o755, modified: now() })
}

pub(super) fn now() -> Timespec {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or(0),
        tv_nsec: i64::from(since.subsec_nanos()),
    }
}

impl Copy<'_> {
    /// Copies one path of the source: links in it are followed to the end.
    pub(super) fn one_source(&mut self, source: &Root, path: &[u8]) -> Result<(), CopyError> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let fail = |error: io::Error| CopyError::io(format!("/{shown}"), error);
        let followed = source.resolve(path).map_err(fail)?;
        let stat = source.stat_link(&followed).map_err(|error| fail(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let from = source.open_directory(&followed).map_err(|error| fail(error.into()))?;
            let destination = self.destination_directory()?;
            let mut links = HardLinks::new(&destination, &followed).map_err(fail)?;
            self.note_move(&followed, self.resolve_destination()?);
            self.children(&from, &destination, &followed, &mut links)?;
            // The destination itself keeps its mode and owner, but takes the source's time.
            let times = Metadata::of(&stat).modified;
            set_time(&destination, times).map_err(fail)?;
            return Ok(());
        }
        let (parent, name) = split(&followed);
        if self.is_excluded(split(path).1) {
            return Ok(());
        }
        let directory = source
            .open_with(parent, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| fail(error.into()))?;
        if self.unpacks
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && let Some(archive) = unpack::recognise(|| open_regular(&directory, name), &shown)?
        {
            // The mode asked for is not for what an archive goes to.
            let path = self.resolve_destination()?;
            let directory = Metadata { mode: 0o755, ..self.rules.fresh_directory() };
            let destination = ensure(&self.target, &path, &directory)?;
            return unpack::unpack(self, archive, &destination, &shown);
        }
        let (into, new_name) = self.destination_of_file(split(path).1)?;
        let mut links = HardLinks::new(&into, path).map_err(fail)?;
        self.entry(&directory, name, &stat, &into, &new_name, path, &mut links)
    }

    /// The destination as a directory, made where missing.
    pub(super) fn destination_directory(&mut self) -> Result<OwnedFd, CopyError> {
        let path = self.resolve_destination()?;
        ensure(&self.target, &path, &self.rules.fresh_directory())
    }

    /// The directory and the name that a file is copied to: below the destination when that is
    /// written with a slash at the end or is a directory, else the destination itself.
    fn destination_of_file(&mut self, name: &[u8]) -> Result<(OwnedFd, Vec<u8>), CopyError> {
        let path = self.resolve_destination()?;
        let is_directory = self.op.destination.ends_with('/')
            || self.target.open_with(&path, OFlags::PATH | OFlags::DIRECTORY).is_ok();
        let (parent, name) = if is_directory { (path.as_slice(), name) } else { split(&path) };
        let directory = ensure(&self.target, parent, &self.rules.fresh_directory())?;
        Ok((directory, name.to_vec()))
    }

    fn note_move(&mut self, from: &[u8], to: Vec<u8>) {
        if let (Ok(from), Ok(to)) = (TreePath::new(from), TreePath::new(to)) {
            self.stats.moved = Some((from, to));
        }
    }

    fn resolve_destination(&self) -> Result<Vec<u8>, CopyError> {
        let path = &self.op.destination;
        self.target.resolve(path.as_bytes()).map_err(|error| CopyError::io(path.as_str(), error))
    }

    fn inline_file(&mut self, file: &InlineFile) -> Result<(), CopyError> {
        let (directory, name) = self.destination_of_file(file.name.as_bytes())?;
        let fail = |error: io::Error| CopyError::io(file.name.as_str(), error);
        make_room(&directory, &name, &file.name)?;
        let mut written = node::make_file(&directory, &name).map_err(fail)?;
        written.write_all(file.content.as_bytes()).map_err(fail)?;
        self.rules.fresh_file().apply(&written).map_err(fail)?;
        self.count(file.content.len() as u64);
        Ok(())
    }

    /// Copies what a directory holds into another one.
    fn children(
        &mut self,
        from: &OwnedFd,
        into: &OwnedFd,
        path: &[u8],
        links: &mut HardLinks,
    ) -> Result<(), CopyError> {
        let fail = |error: io::Error| CopyError::io(shown(path), error);
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(from).map_err(|error| fail(error.into()))? {
            let name = entry.map_err(|error| fail(error.into()))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let path = [path, b"/", name.as_slice()].concat();
            let below = links.below(&path);
            let is_excluded = self.is_excluded(below);
            if is_excluded && !self.may_include_below(below) {
                continue;
            }
            let stat = statat(from, os_name(&name), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| fail(error.into()))?;
            if is_excluded {
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if !is_directory || !self.holds_included(from, &name, links.below(&path))? {
                    continue;
                }
            }
            self.entry(from, &name, &stat, into, &name, &path, links)?;
        }
        Ok(())
    }

    fn is_excluded(&self, below: &[u8]) -> bool {
        let text = String::from_utf8_lossy(below);
        self.exclude.as_ref().is_some_and(|exclude| exclude.is_ignored(&text))
    }

    fn may_include_below(&self, below: &[u8]) -> bool {
        let text = String::from_utf8_lossy(below);
        self.exclude.as_ref().is_some_and(|exclude| exclude.may_include_below(&text))
    }

    /// Whether an excluded directory holds something that is taken back.
    fn holds_included(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        below: &[u8],
    ) -> Result<bool, CopyError> {
        let fail = |error: io::Error| CopyError::io(shown(below), error);
        let directory = node::open_child(parent, name).map_err(fail)?;
        for entry in Dir::read_from(&directory).map_err(|error| fail(error.into()))? {
            let entry = entry.map_err(|error| fail(error.into()))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let below = [below, b"/", name].concat();
            let is_directory = entry.file_type() == FileType::Directory;
            if !self.is_excluded(&below)
                || (is_directory
                    && self.may_include_below(&below)
                    && self.holds_included(&directory, name, &below)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies one entry, of whatever kind, to `into/new_name`.
    #[expect(
        clippy::too_many_arguments,
        reason = "source and target are a directory and a name each"
    )]
    pub(super) fn entry(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        into: &OwnedFd,
        new_name: &[u8],
        path: &[u8],
        links: &mut HardLinks,
    ) -> Result<(), CopyError> {
        let fail = |error: io::Error| CopyError::io(shown(path), error);
        let metadata = self.rules.apply(Metadata::of(stat), false);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.directory(from, name, stat, into, new_name, path, links);
        }
        make_room(into, new_name, &shown(path))?;
        match kind {
            FileType::Symlink => {
                let target = node::read_link(from, name).map_err(fail)?;
                let metadata = self.rules.apply(Metadata::of(stat), false);
                node::make_symlink(into, new_name, &target, &metadata).map_err(fail)
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                node::make_special(into, new_name, kind, stat.st_rdev, &metadata).map_err(fail)
            }
            FileType::RegularFile => {
                if stat.st_nlink > 1 && links.link(stat, path, into, new_name).map_err(fail)? {
                    return Ok(());
                }
                let is_first = stat.st_nlink == 1 || self.moved.insert((stat.st_dev, stat.st_ino));
                if self.moves
                    && is_first
                    && node::take(from, name, stat, into, new_name, &metadata).map_err(fail)?
                {
                    self.count(u64::try_from(stat.st_size).unwrap_or(0));
                    return Ok(());
                }
                let mut reader = open_regular(from, name).map_err(fail)?;
                let mut writer = node::make_file(into, new_name).map_err(fail)?;
                let bytes = layer::sparse::copy_file(&mut reader, &mut writer).map_err(fail)?;
                metadata.apply(&writer).map_err(fail)?;
                node::copy_xattrs(&reader, &writer).map_err(fail)?;
                self.count(bytes);
                Ok(())
            }
            // A socket has no content to copy: an empty file takes its place, as in BuildKit.
            _ => {
                let file = node::make_file(into, new_name).map_err(fail)?;
                metadata.apply(&file).map_err(fail)
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "source and target are a directory and a name each"
    )]
    pub(super) fn directory(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        into: &OwnedFd,
        new_name: &[u8],
        path: &[u8],
        links: &mut HardLinks,
    ) -> Result<(), CopyError> {
        let fail = |error: io::Error| CopyError::io(shown(path), error);
        let source = node::open_child(from, name).map_err(fail)?;
        let target = match node::open_child(into, new_name) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.moves_whole {
                    let moving = Moving { from, name, source: &source, path };
                    if self.take_directory(&moving, stat, into, new_name, links)? {
                        return Ok(());
                    }
                }
                node::make_directory(into, new_name).map_err(fail)?
            }
            Err(error) if destination::is_no_directory(&error) => {
                return Err(CopyError::Destination {
                    path: shown(path),
                    problem: "a directory cannot replace what is no directory",
                });
            }
            Err(error) => return Err(fail(error)),
        };
        self.children(&source, &target, path, links)?;
        node::copy_xattrs(&source, &target).map_err(fail)?;
        // Last, because making children changes the time.
        self.rules.apply(Metadata::of(stat), true).apply(&target).map_err(fail)
    }

    /// Counts a file that was written.
    pub(super) fn count(&mut self, bytes: u64) {
        self.stats.files += 1;
        self.stats.content_bytes += bytes;
    }
}

/// Makes room for something that is no directory.
pub(super) fn make_room(into: &OwnedFd, name: &[u8], path: &str) -> Result<(), CopyError> {
    match node::clear(into, name) {
        Ok(false) => Ok(()),
        Ok(true) => Err(CopyError::Destination {
            path: path.to_owned(),
            problem: "a file cannot replace a directory",
        }),
        Err(error) => Err(CopyError::io(path, error)),
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).trim_start_matches('/'))
}

fn open_regular(directory: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::empty();
    Ok(File::from(rustix::fs::openat(directory, os_name(name), flags, mode)?))
}

fn set_time(fd: &OwnedFd, modified: Timespec) -> io::Result<()> {
    let times = rustix::fs::Timestamps { last_access: modified, last_modification: modified };
    rustix::fs::futimens(fd, &times)?;
    Ok(())
}

/// Files of one source that have several names there, and where their first copy is: as a path
/// below the destination, because a tree may have more such files than a process has descriptors.
pub(super) struct HardLinks {
    destination: Root,
    /// Length of the source's own path, which the paths of its entries begin with.
    prefix: usize,
    copies: HashMap<(u64, u64), Vec<u8>>,
}

impl HardLinks {
    pub(super) fn new(destination: &OwnedFd, source: &[u8]) -> io::Result<Self> {
        let destination = Root::from_directory(destination)?;
        Ok(Self { destination, prefix: source.len(), copies: HashMap::new() })
    }

    /// Links to the copy that was made before; the first time it only takes note.
    fn link(&mut self, stat: &Stat, path: &[u8], into: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        use std::collections::hash_map::Entry;
        match self.copies.entry((stat.st_dev, stat.st_ino)) {
            Entry::Occupied(first) => {
                let (directory, first_name) = split(first.get());
                let directory = self.destination.open_directory(directory)?;
                node::make_hardlink(&directory, first_name, into, name)?;
                Ok(true)
            }
            Entry::Vacant(vacant) => {
                let below = &path[self.prefix.min(path.len())..];
                vacant.insert(below.strip_prefix(b"/").unwrap_or(below).to_vec());
                Ok(false)
            }
        }
    }

    /// Takes note of files that came to their place some other way.
    pub(super) fn note(&mut self, inode: (u64, u64), path: &[u8]) {
        let below = self.below(path).to_vec();
        self.copies.entry(inode).or_insert(below);
    }

    /// A path as seen from the source that is copied.
    fn below<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        let below = &path[self.prefix.min(path.len())..];
        below.strip_prefix(b"/").unwrap_or(below)
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
