//! RUN.

use common::Digest;
use common::cache_key::{KeyBuilder, PARENT, stage_identity};
use common::plan::{
    CopyFrom, InlineFile, Mount, MountOwner, Network, Op, RunOp, Security, SliceSelector,
};

use super::config::shell;
use super::graph::{self, From};
use super::mounts::{self, Kind, Written};
use super::stage::{Planner, Work, push_step};
use super::{history, paths};
use crate::diagnostic::Problem;
use crate::instruction::{CommandForm, Run, Spanned};
use crate::source::is_lone_heredoc;

impl Planner<'_> {
    pub(super) fn run(
        &mut self,
        work: &mut Work,
        run: &Run,
        spanned: &Spanned,
    ) -> Result<(), Problem> {
        let (argv, script) = run_command(work, run)?;
        let size = |(name, value): &(String, String)| name.len() + value.len();
        let env: usize = work.variables.visible.iter().map(size).sum();
        // The environment, its parts of the key, and history.
        self.charge(work, 3 * env + argv.iter().map(String::len).sum::<usize>())?;
        let mut key = KeyBuilder::new();
        key.part(PARENT, work.key.to_string()).part("command", history::quoted(&argv));
        let mounts = self.mounts(work, run, &mut key)?;
        let network = match run.network {
            Network::Default => self.options.network,
            network => network,
        };
        let declared = |name: &str| work.variables.get(name).is_some();
        let mut op = RunOp {
            unkeyed_env: self.graph.global.proxies(&declared),
            env: work.variables.visible.clone(),
            working_dir: paths::join("/", &work.config.working_dir),
            user: work.config.user.clone(),
            network,
            security: run.security,
            script,
            mounts,
            options: self.options.run.clone(),
            ..RunOp::new(argv)
        };
        if let Some(name) = self.graph.global.build_arg("BUILDKIT_SANDBOX_HOSTNAME") {
            op.options.hostname = Some(name);
        }
        // The first agent's socket, unless the Dockerfile says otherwise.
        let socket = op.mounts.iter().find_map(|mount| match mount {
            Mount::Ssh { target, .. } => Some(target.clone()),
            _ => None,
        });
        if let Some(socket) = socket
            && !declared("SSH_AUTH_SOCK")
        {
            op.env.push(("SSH_AUTH_SOCK".to_owned(), socket));
        }
        key_of_surroundings(&mut key, &op);
        let text = history::run(&work.variables, &op.argv);
        work.history.push(history::entry(text, false));
        push_step(work, spanned.lines, spanned.text.clone(), Op::Run(Box::new(op)), key);
        Ok(())
    }

    fn mounts(
        &mut self,
        work: &Work,
        run: &Run,
        key: &mut KeyBuilder,
    ) -> Result<Vec<Mount>, Problem> {
        let mut planned = Vec::new();
        let mut agents = 0;
        for text in &run.mounts {
            let written = mounts::read(text, &|value| self.expand(work, value))?;
            let mount = match written.kind {
                Kind::Bind => self.bind(work, &written, key)?,
                Kind::Cache => self.cache(work, &written, key)?,
                Kind::Tmpfs => tmpfs(work, &written, key)?,
                Kind::Secret => secret(&written, key),
                Kind::Ssh => {
                    agents += 1;
                    ssh(&written, agents - 1, key)
                }
            };
            planned.push(mount);
        }
        Ok(planned)
    }

    fn bind(
        &mut self,
        work: &Work,
        written: &Written,
        key: &mut KeyBuilder,
    ) -> Result<Mount, Problem> {
        let target = absolute_target(work, written)?;
        let source = paths::join("/", written.source.as_deref().unwrap_or("/"));
        let (from, identity) = self.mount_source(work, written.from.as_deref(), &source)?;
        let writable = written.read_only == Some(false);
        key.part(
            format!("bind mount {target}"),
            format!("{identity} {source}{}", if writable { " writable" } else { "" }),
        );
        Ok(Mount::Bind { target, from, source, writable })
    }

    fn cache(
        &mut self,
        work: &Work,
        written: &Written,
        key: &mut KeyBuilder,
    ) -> Result<Mount, Problem> {
        let target = absolute_target(work, written)?;
        let source = paths::join("/", written.source.as_deref().unwrap_or("/"));
        // What it holds is in no key, but where it lies is, and what it begins with.
        let mut value = String::new();
        let from = match &written.from {
            None => None,
            Some(from) => {
                let (from, identity) = self.mount_source(work, Some(from), &source)?;
                value = format!("{identity} {source}");
                Some(from)
            }
        };
        let read_only = written.read_only == Some(true);
        if read_only {
            value.push_str(" read-only");
        }
        let has_owner = written.mode.is_some() || written.uid.is_some() || written.gid.is_some();
        let owner = has_owner.then(|| owner(written, 0o755));
        if let Some(owner) = &owner {
            value.push_str(&format!(" {}:{} {:o}", owner.uid, owner.gid, owner.mode));
        }
        key.part(format!("cache mount {target}"), value);
        let namespace = self.graph.global.build_arg("BUILDKIT_CACHE_MOUNT_NS");
        let id = match &written.id {
            Some(id) => id.clone(),
            // As written, not as joined; nothing written is the directory itself.
            None => clean(written.target.as_deref().unwrap_or("")),
        };
        let id = namespace.map_or(id.clone(), |namespace| format!("{namespace}/{id}"));
        let sharing = written.sharing.unwrap_or_default();
        Ok(Mount::Cache { target, id, from, source, sharing, owner, read_only })
    }

    /// Whose files a mount shows, and what that is in a key.
    fn mount_source(
        &mut self,
        work: &Work,
        from: Option<&str>,
        source: &str,
    ) -> Result<(CopyFrom, String), Problem> {
        let Some(from) = from else {
            let digest = self.context.select(source, &self.graph.global.budget)?;
            return Ok((CopyFrom::Context, digest.to_string()));
        };
        let found = graph::resolve_from(self.file, self.options, work.source, from, false)?;
        self.named_source(&found, &[source.to_owned()])
    }

    /// A stage, image or named context, and what it is in a key. `sources` are absolute.
    pub(super) fn named_source(
        &mut self,
        from: &From,
        sources: &[String],
    ) -> Result<(CopyFrom, String), Problem> {
        match from {
            From::Stage(source) => {
                let stage = self.index(*source);
                // Not its name: giving a stage another one changes nothing.
                let key = self.stages[stage.0 as usize].key;
                let patterns = sources.iter().map(|source| paths::searched(source)).collect();
                let selector = SliceSelector::new(patterns);
                Ok((CopyFrom::Stage { stage, selector }, stage_identity(&key)))
            }
            From::Image(reference) => {
                let platform = self.options.platform.clone();
                let image = self.image(reference, &platform);
                let digest = self.images[image.0 as usize].digest;
                Ok((CopyFrom::Image { image }, format!("image {digest}")))
            }
            // Whatever is looked for there is missing when it is copied, as in BuildKit.
            From::Scratch => Ok((CopyFrom::Scratch, "scratch".to_owned())),
            From::Context(name) => {
                let mut digests = Vec::new();
                for source in sources {
                    digests.push(self.select_named(name, source)?.to_string());
                }
                let from = CopyFrom::NamedContext { name: name.clone() };
                Ok((from, format!("files {}", digests.join(" "))))
            }
        }
    }
}

/// Everything around the command.
fn key_of_surroundings(key: &mut KeyBuilder, op: &RunOp) {
    for (name, value) in &op.env {
        key.part(format!("variable {name}"), value.clone());
    }
    key.part("working directory", op.working_dir.clone()).part("user", op.user.clone());
    key.part("network", format!("{:?}", op.network));
    if op.security == Security::Insecure {
        key.part("security", "insecure");
    }
    if let Some(script) = &op.script {
        key.part("script", Digest::of(script.content.as_bytes()).to_string());
    }
    let options = &op.options;
    if let Some(name) = &options.hostname {
        key.part("host name", name.clone());
    }
    for (name, _) in &options.hosts {
        key.part("host", name.clone());
    }
    if let Some(bytes) = options.shm_bytes {
        key.part("shared memory", bytes.to_string());
    }
    for limit in &options.ulimits {
        key.part(format!("limit {}", limit.name), format!("{}:{}", limit.soft, limit.hard));
    }
}

/// Targets of files are joined to the working directory.
fn absolute_target(work: &Work, written: &Written) -> Result<String, Problem> {
    let target = written.target.as_deref().unwrap_or("");
    let joined = paths::join(&work.config.working_dir, target);
    if joined == "/" {
        let message = format!("invalid mount target {joined:?}");
        return Err(Problem::new("bad-mount", message).with_hint("target= names a directory"));
    }
    Ok(joined)
}

fn owner(written: &Written, mode: u32) -> MountOwner {
    MountOwner {
        uid: written.uid.unwrap_or(0),
        gid: written.gid.unwrap_or(0),
        mode: written.mode.unwrap_or(mode),
    }
}

fn tmpfs(work: &Work, written: &Written, key: &mut KeyBuilder) -> Result<Mount, Problem> {
    let target = absolute_target(work, written)?;
    let size = written.size_bytes.map_or(String::new(), |bytes| bytes.to_string());
    key.part(format!("tmpfs mount {target}"), size);
    Ok(Mount::Tmpfs { target, size_bytes: written.size_bytes })
}

fn secret(written: &Written, key: &mut KeyBuilder) -> Mount {
    let target = written.target.as_deref();
    let named = written.id.as_deref().or(written.source.as_deref());
    let id = named.or(target.map(last_name)).unwrap_or_default().to_owned();
    // Not joined to the working directory, as in BuildKit.
    let path = match (target, &written.env) {
        (Some(target), _) => Some(paths::join("/", target)),
        (None, Some(_)) => None,
        (None, None) => Some(format!("/run/secrets/{}", last_name(&id))),
    };
    let owner = owner(written, 0o400);
    let file = path.as_ref().map_or(String::new(), |path| {
        format!(" {path} {}:{} {:o}", owner.uid, owner.gid, owner.mode)
    });
    let env = written.env.as_ref().map_or(String::new(), |name| format!(" in {name}"));
    let required = if written.required { " required" } else { "" };
    key.part("secret", format!("{id}{file}{env}{required}"));
    Mount::Secret { id, target: path, env: written.env.clone(), required: written.required, owner }
}

fn ssh(written: &Written, number: usize, key: &mut KeyBuilder) -> Mount {
    let id = written.id.clone().unwrap_or_else(|| "default".to_owned());
    let default = || format!("/run/buildkit/ssh_agent.{number}");
    let target = written.target.as_deref().map_or_else(default, |path| paths::join("/", path));
    let (owner, required) = (owner(written, 0o600), written.required);
    let text = format!("{id} {target} {}:{} {:o} {required}", owner.uid, owner.gid, owner.mode);
    key.part("ssh agent", text);
    Mount::Ssh { id, target, required, owner }
}

fn last_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// Go's `path.Clean`: a relative path stays one, and nothing is `.`.
fn clean(path: &str) -> String {
    let joined = paths::join("/", path);
    match (path.starts_with('/'), joined.trim_start_matches('/')) {
        (true, _) => joined,
        (false, "") => ".".to_owned(),
        (false, relative) => relative.to_owned(),
    }
}

/// The command of a RUN and the script file it needs, if any.
fn run_command(work: &Work, run: &Run) -> Result<(Vec<String>, Option<InlineFile>), Problem> {
    let text = match &run.command {
        CommandForm::Exec(argv) if argv.is_empty() => {
            return Err(Problem::new("missing-argument", "RUN [] has no command"));
        }
        CommandForm::Exec(argv) => return Ok((argv.clone(), None)),
        CommandForm::Shell(text) => text,
    };
    let mut argv = shell(work);
    let [only] = &run.heredocs[..] else {
        let mut script = text.clone();
        for heredoc in &run.heredocs {
            script.push('\n');
            script.push_str(heredoc.raw.trim_end_matches('\n'));
        }
        argv.push(script);
        return Ok((argv, None));
    };
    // One heredoc and nothing else: its body is the script.
    if !is_lone_heredoc(text) {
        argv.push(format!("{text}\n{}", only.raw.trim_end_matches('\n')));
        return Ok((argv, None));
    }
    if !only.content.starts_with("#!") {
        argv.push(only.content.clone());
        return Ok((argv, None));
    }
    check_file_name(&only.name)?;
    let name = format!("/dev/pipes/{}", only.name);
    argv.push(name.clone());
    Ok((argv, Some(InlineFile { name, content: only.content.clone() })))
}

/// A heredoc that becomes a file is named by its delimiter, which has to be a plain name: a path
/// would lead out of the directory that the file is meant for.
pub(super) fn check_file_name(name: &str) -> Result<(), Problem> {
    if !name.contains('/') && !matches!(name, "." | "..") && name.len() <= 255 {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    let message = format!("the heredoc {shown:?} cannot be the name of a file");
    Err(Problem::new("bad-heredoc", message).with_hint("use a plain word such as EOF"))
}
