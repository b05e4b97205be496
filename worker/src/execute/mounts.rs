//! Getting ready what a RUN mounts: trees to bind, caches, memory, secrets.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use ::agent::AgentSocket;
use api::public::v1::TimingView;
use common::plan::{CopyFrom, CopyOp, Mount, MountOwner, RunOp, Sharing};
use common::{Digest, Domain, Failure, FailureClass};

use super::agent;
use super::copy::{CopyInputs, Root, copy, open_directory};
use super::failure::JobError;
use super::sources::{self, Source};
use super::stage::StageRun;
use crate::content::{Cache, cache_name};
use crate::rootfs::{self, mount_directory, mount_memory, mount_writable};
use crate::runtime::{ContainerMount, MountSource};

/// The mounts of one command; what they hold is given back when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) mounts: Vec<ContainerMount>,
    pub(super) secret_env: Vec<(String, String)>,
    // In the order in which they have to go.
    overlays: Vec<rootfs::Mount>,
    sources: Vec<Source>,
    caches: Vec<Cache>,
    agents: Vec<AgentSocket>,
}

/// Prepares below `directory`, which is empty. May wait, for another stage's files or for a cache.
pub(super) async fn prepare(
    run: &mut StageRun<'_>,
    (op, step): (&RunOp, u32),
    directory: &Path,
    timing: &mut TimingView,
) -> Result<Prepared, JobError> {
    let mut prepared = Prepared::default();
    if op.mounts.is_empty() {
        return Ok(prepared);
    }
    std::fs::create_dir(directory)?;
    prepared.take_caches(run, op).await?;
    let mut caches = prepared.caches.iter().map(Cache::data).collect::<Vec<_>>().into_iter();
    for (number, mount) in op.mounts.iter().enumerate() {
        let place = directory.join(number.to_string());
        std::fs::create_dir(&place)?;
        match mount {
            Mount::Bind { target, from, source, writable } => {
                let tree = tree(run, from, source, &place, timing).await?;
                let bound = prepared.bind(&tree, from, source, *writable, &place)?;
                prepared.mounts.push(ContainerMount { target: target.clone(), source: bound });
                prepared.sources.push(tree);
            }
            Mount::Cache { target, source, read_only, .. } => {
                let data =
                    caches.next().ok_or_else(|| std::io::Error::other("a cache is missing"))?;
                fill_cache(run, mount, &prepared, &data, &place, timing).await?;
                let path = prepared.inside_cache(&data, source, &place)?;
                let source = MountSource::Directory { path, read_only: *read_only };
                prepared.mounts.push(ContainerMount { target: target.clone(), source });
            }
            Mount::Tmpfs { target, size_bytes } => {
                let source = MountSource::Tmpfs { size_bytes: *size_bytes };
                prepared.mounts.push(ContainerMount { target: target.clone(), source });
            }
            Mount::Secret { .. } => prepared.secret(run, mount, &place)?,
            Mount::Ssh { .. } => prepared.agent(run, mount, step, &place)?,
        }
    }
    Ok(prepared)
}

impl Prepared {
    /// Takes every cache in one order, so that two commands never wait for each other. One that is
    /// named twice is taken once.
    async fn take_caches(&mut self, run: &StageRun<'_>, op: &RunOp) -> Result<(), JobError> {
        let domain = Domain { project: run.project.clone(), trust: run.job.trust };
        let mut wanted: Vec<(usize, Digest, Sharing)> = Vec::new();
        for (number, mount) in op.mounts.iter().enumerate() {
            if let Mount::Cache { id, from, sharing, .. } = mount {
                let origin = origin(run, from.as_ref());
                wanted.push((number, cache_name(&domain, id, &origin), *sharing));
            }
        }
        let mut order = wanted.clone();
        order.sort_by_key(|(number, name, _)| (*name, *number));
        let mut taken: Vec<(Digest, Cache)> = Vec::new();
        for (_, name, sharing) in order {
            if taken.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let cache = tokio::select! {
                cache = run.worker.content.cache(name, sharing) => cache?,
                () = run.held.cancel.cancelled() => return Err(JobError::Stopped),
            };
            taken.push((name, cache));
        }
        if run.job.fresh_caches {
            for (_, cache) in &taken {
                cache.empty()?;
            }
        }
        // As they stand in the Dockerfile; a second use of one has no lock of its own.
        for (_, name, _) in wanted {
            let found = taken.iter().position(|(known, _)| *known == name);
            self.caches.push(match found {
                Some(at) => taken.swap_remove(at).1,
                None => self.again(name)?,
            });
        }
        Ok(())
    }

    /// A cache that this command has taken before.
    fn again(&self, name: Digest) -> Result<Cache, JobError> {
        let hex = name.hex();
        let found = self
            .caches
            .iter()
            .find(|cache| cache.data().components().any(|part| part.as_os_str() == hex.as_str()));
        let cache = found.map(Cache::unlocked);
        cache.ok_or_else(|| std::io::Error::other("a cache was not taken").into())
    }

    /// A directory of a cache. Other commands use the cache meanwhile, and may put links in the
    /// way: the directory is opened inside the cache, and what is open is mounted where nobody else
    /// comes.
    fn inside_cache(
        &mut self,
        data: &Path,
        source: &str,
        place: &Path,
    ) -> Result<PathBuf, JobError> {
        if source == "/" {
            return Ok(data.to_owned());
        }
        let directory = open_directory(data, source.as_bytes()).map_err(|error| error.failure())?;
        let at = place.join("part");
        std::fs::create_dir(&at)?;
        self.overlays.push(mount_directory(&directory, &at)?);
        Ok(at)
    }

    fn bind(
        &mut self,
        tree: &Source,
        from: &CopyFrom,
        source: &str,
        writable: bool,
        place: &Path,
    ) -> Result<MountSource, JobError> {
        let path = match tree.path() {
            Some(root) => inside(root, source, from)?,
            // Nothing at all.
            None => {
                let empty = place.join("empty");
                std::fs::create_dir_all(&empty)?;
                empty
            }
        };
        let is_file = !path.is_dir();
        match (is_file, writable) {
            (true, false) => Ok(MountSource::File { path, read_only: true }),
            (false, false) => Ok(MountSource::Directory { path, read_only: true }),
            (true, true) => {
                // What is written is thrown away: it goes into a copy.
                let scratch = place.join("copy");
                std::fs::copy(&path, &scratch)?;
                Ok(MountSource::File { path: scratch, read_only: false })
            }
            (false, true) => {
                let [upper, work, at] = ["upper", "work", "at"].map(|name| place.join(name));
                for path in [&upper, &work, &at] {
                    std::fs::create_dir(path)?;
                }
                std::fs::set_permissions(&upper, std::fs::metadata(&path)?.permissions())?;
                self.overlays.push(mount_writable(&[path], &upper, &work, &at)?);
                Ok(MountSource::Directory { path: at, read_only: false })
            }
        }
    }

    fn secret(&mut self, run: &StageRun<'_>, mount: &Mount, place: &Path) -> Result<(), JobError> {
        let Mount::Secret { id, target, env, required, owner } = mount else { return Ok(()) };
        let Some(value) = run.job.secrets.get(id).and_then(api::Secret::value) else {
            if !required {
                return Ok(());
            }
            let message = format!("secret {id}: not found");
            let hint =
                format!("give it with --secret id={id},src=FILE or --secret id={id},env=NAME");
            return Err(Failure::new(FailureClass::User, "secret-not-found", message)
                .with_hint(hint)
                .into());
        };
        if let Some(name) = env {
            let text = String::from_utf8_lossy(&value).into_owned();
            self.secret_env.push((name.clone(), text));
        }
        if let Some(target) = target {
            self.overlays.push(mount_memory(place)?);
            let path = place.join("secret");
            std::fs::write(&path, &value)?;
            give(&path, *owner)?;
            let source = MountSource::File { path, read_only: true };
            self.mounts.push(ContainerMount { target: target.clone(), source });
        }
        Ok(())
    }
}

impl Prepared {
    /// A socket of the container's alone. An agent that is not there, and need not be, has none; the
    /// variable that names it is set all the same, as in BuildKit.
    fn agent(
        &mut self,
        run: &StageRun<'_>,
        mount: &Mount,
        step: u32,
        place: &Path,
    ) -> Result<(), JobError> {
        let Mount::Ssh { id, target, required, owner } = mount else { return Ok(()) };
        if !run.job.agents.contains(id) {
            if !required {
                return Ok(());
            }
            let message = format!("the SSH agent {id:?} is not there");
            let hint = format!("give it with --ssh {id}=SOCKET or --ssh {id}=KEYFILE");
            return Err(Failure::new(FailureClass::User, "agent-missing", message)
                .with_hint(hint)
                .into());
        }
        let path = place.join("agent");
        let socket = agent::listen(run, id, step, &path)?;
        give(&path, *owner)?;
        self.agents.push(socket);
        let source = MountSource::File { path, read_only: true };
        self.mounts.push(ContainerMount { target: target.clone(), source });
        Ok(())
    }
}

fn give(path: &Path, owner: MountOwner) -> std::io::Result<()> {
    chown(path, Some(owner.uid), Some(owner.gid))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(owner.mode))
}

/// What a cache begins with, as far as it tells caches apart.
fn origin(run: &StageRun<'_>, from: Option<&CopyFrom>) -> String {
    match from {
        None => String::new(),
        Some(CopyFrom::Context) => format!("context {:?}", run.job.context),
        Some(CopyFrom::Scratch) => "scratch".to_owned(),
        Some(CopyFrom::NamedContext { name }) => {
            format!("context {:?}", run.job.contexts.get(name))
        }
        Some(CopyFrom::Image { image }) => {
            let found = run.job.images.iter().find(|(index, _)| *index == image.0);
            format!("image {:?}", found.map(|(_, image)| image.digest))
        }
        // The key of the stage's first step that follows covers what the producer is.
        Some(CopyFrom::Stage { stage, selector }) => {
            let id = run.job.stage_ids.iter().find(|(index, _)| index == stage);
            format!("stage {id:?} {}", selector.digest())
        }
    }
}

async fn tree(
    run: &mut StageRun<'_>,
    from: &CopyFrom,
    source: &str,
    place: &Path,
    timing: &mut TimingView,
) -> Result<Source, JobError> {
    let cancel = run.held.cancel.clone();
    let at = place.join("tree");
    let wanted = [source.to_owned()];
    // Commands may write to it.
    let at = sources::Place { mount: &at, files: &at, may_link: false };
    tokio::select! {
        tree = sources::prepare(run, from, &wanted, at, timing) => tree,
        () = cancel.cancelled() => Err(JobError::Stopped),
    }
}

/// The first content of a cache: what it comes from, or an empty directory of the asked for owner.
async fn fill_cache(
    run: &mut StageRun<'_>,
    mount: &Mount,
    prepared: &Prepared,
    data: &Path,
    place: &Path,
    timing: &mut TimingView,
) -> Result<(), JobError> {
    let Mount::Cache { from, source, owner, .. } = mount else { return Ok(()) };
    let Some(cache) = prepared.caches.iter().find(|cache| cache.data() == data) else {
        return Ok(());
    };
    if !cache.is_new() {
        return Ok(());
    }
    let scratch = run.worker.content.scratch()?;
    let first = scratch.path().to_owned();
    if let Some(from) = from {
        let tree = tree(run, from, source, place, timing).await?;
        let op = CopyOp::new(from.clone(), vec!["/".to_owned()], "/");
        let (path, into) = (tree.path().map(Path::to_owned), first.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let source = path.as_deref();
            copy(&op, CopyInputs { source, keep_owner: true, ..CopyInputs::default() }, &into)
        })
        .await?;
        copied.map_err(|error| error.failure())?;
        tokio::task::spawn_blocking(move || drop(tree)).await?;
    }
    // Owner and mode are for the directory that is mounted; a part of another tree has its own.
    let default = MountOwner { uid: 0, gid: 0, mode: 0o755 };
    if source == "/" {
        give(&first, owner.unwrap_or(default))?;
    } else {
        give(&first, default)?;
    }
    Ok(cache.fill(&first)?)
}

fn os_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// A path of a tree, links followed inside of it.
fn inside(root: &Path, source: &str, from: &CopyFrom) -> Result<PathBuf, JobError> {
    let tree = Root::open(root)?;
    let resolved = tree.resolve(source.as_bytes())?;
    if tree.exists(&resolved) {
        return Ok(root.join(os_path(&resolved)));
    }
    let place = match from {
        CopyFrom::Context => "build context",
        CopyFrom::Scratch => "empty image",
        CopyFrom::NamedContext { .. } => "named context",
        CopyFrom::Stage { .. } => "stage",
        CopyFrom::Image { .. } => "image",
    };
    let message = format!("{source:?} not found in the {place}");
    Err(Failure::new(FailureClass::User, "missing-source", message)
        .with_hint("check source= of --mount")
        .into())
}
