//! Repositories, by the installed git program.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use url::Url;

use crate::address::is_public;
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::ssh::{Ssh, SshAddress, command};
use crate::times::committed;

/// Longest time of one call of git.
const TIMEOUT: Duration = Duration::from_mins(30);
/// Most submodules of a checkout, and how deep they may lie in each other.
const MAX_SUBMODULES: usize = 200;
const MAX_DEPTH: usize = 10;
/// What git adds when ssh has failed and said why.
const NOTHING_SAID: [&str; 3] = [
    "fatal: Could not read from remote repository.",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];

/// A commit to check out.
#[derive(Debug, Clone, Copy)]
pub struct Checkout<'a> {
    /// Where.
    pub url: &'a str,
    /// The branch, tag or commit as written.
    pub reference: Option<&'a str>,
    /// The full commit.
    pub commit: &'a str,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are checked out too.
    pub submodules: bool,
    /// For addresses over ssh, which are refused without.
    pub ssh: Option<Ssh<'a>>,
}

/// Whether it is the number of a commit in full.
pub fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Fetcher {
    /// The commit that a branch, a tag or, without a name, the default branch is at.
    pub async fn commit_of(
        &self,
        url: &str,
        reference: Option<&str>,
        ssh: Option<Ssh<'_>>,
    ) -> Result<String, FetchError> {
        let name = reference.unwrap_or("HEAD");
        let guard = self.guard(url, url, ssh).await?;
        let peeled = format!("{name}^{{}}");
        let asked = ["ls-remote", "--", url, name, &peeled];
        let text = git(&guard, Path::new("/"), &asked, url).await?;
        let lines: Vec<(&str, &str)> = text.lines().filter_map(|it| it.split_once('\t')).collect();
        let found = |wanted: &str| {
            lines.iter().find(|(_, name)| *name == wanted).map(|(commit, _)| (*commit).to_owned())
        };
        // An annotated tag is an object of its own: what it names is meant.
        let places = [
            peeled.clone(),
            name.to_owned(),
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}^{{}}"),
            format!("refs/tags/{name}"),
        ];
        places.iter().find_map(|place| found(place)).ok_or_else(|| FetchError::Address {
            url: url.to_owned(),
            problem: format!("repository does not contain ref {name}"),
        })
    }

    /// Checks a commit out into the new directory `into`. Says when it was made, in seconds since
    /// 1970.
    pub async fn check_out(&self, what: Checkout<'_>, into: &Path) -> Result<i64, FetchError> {
        let mut time = 0;
        let mut todo = vec![(what.url.to_owned(), what.commit.to_owned(), into.to_owned(), 0)];
        let mut done = 0;
        while let Some((url, commit, place, depth)) = todo.pop() {
            let reference = what.reference.filter(|_| depth == 0);
            self.check_out_one((&url, what.url), reference, &commit, &place, what.ssh).await?;
            if what.submodules && depth < MAX_DEPTH {
                for (path, url, commit) in submodules(&url, &place).await? {
                    todo.push((url, commit, place.join(path), depth + 1));
                }
            }
            if depth == 0 {
                time = committed(&place, &commit, &url).await?;
            }
            // Those of submodules are of no use without their parent's.
            if depth > 0 || !what.keep_git_dir {
                tokio::fs::remove_dir_all(place.join(".git")).await?;
            }
            done += 1;
            if done > MAX_SUBMODULES {
                let problem = format!("more than {MAX_SUBMODULES} submodules");
                return Err(FetchError::Address { url: what.url.to_owned(), problem });
            }
        }
        Ok(time)
    }

    async fn check_out_one(
        &self,
        (url, main): (&str, &str),
        reference: Option<&str>,
        commit: &str,
        into: &Path,
        ssh: Option<Ssh<'_>>,
    ) -> Result<(), FetchError> {
        let guard = self.guard(url, main, ssh).await?;
        tokio::fs::create_dir_all(into).await?;
        git(&guard, into, &["init", "--quiet"], url).await?;
        let fetch = |what: &str| {
            let arguments = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", url, what];
            arguments.map(str::to_owned)
        };
        let one = fetch(commit);
        let one: Vec<&str> = one.iter().map(String::as_str).collect();
        if git(&guard, into, &one, url).await.is_err() {
            // Not every server gives a commit by its number: then by its name, or all there is.
            let all = ["fetch", "--quiet", "--", url, "+refs/heads/*:refs/remotes/origin/*"];
            let tags = ["fetch", "--quiet", "--tags", "--", url];
            let named = fetch(reference.unwrap_or("HEAD"));
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            let _ = git(&guard, into, &named, url).await;
            let has = git(&guard, into, &["cat-file", "-e", commit], url).await;
            if has.is_err() {
                git(&guard, into, &all, url).await?;
                git(&guard, into, &tags, url).await?;
            }
        }
        git(&guard, into, &["checkout", "--quiet", "--force", "--detach", commit], url).await?;
        Ok(())
    }

    /// What keeps git where it may go: the addresses that a name has now are those that are used, and
    /// no redirect leads elsewhere. `main` is the repository that `url` is a submodule of, or itself.
    pub(crate) async fn guard(
        &self,
        url: &str,
        main: &str,
        ssh: Option<Ssh<'_>>,
    ) -> Result<Guard, FetchError> {
        let bad = |problem: &str| FetchError::Address {
            url: url.to_owned(),
            problem: problem.to_owned(),
        };
        if let Some(address) = SshAddress::parse(url) {
            if self.uses_own_ssh {
                return Ok(own_ssh());
            }
            let ssh = ssh.ok_or_else(|| bad("it needs an SSH agent, and none is here for it"))?;
            return self.ssh_guard(url, &address, ssh).await;
        }
        let parsed = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        let is_open = self.config.allow_private_networks;
        match parsed.scheme() {
            "http" | "https" => {}
            "git" if is_open => {}
            "git" => return Err(bad("git:// is neither encrypted nor guarded: use https://")),
            _ => return Err(bad("repositories are fetched over https and ssh only")),
        }
        let mut guard = Guard::default();
        if let Some(header) = self.credentials.for_repository(url, main) {
            // Not among the arguments: anybody can read those.
            guard.settings.push("http.followRedirects=false".to_owned());
            for (name, value) in [
                ("GIT_CONFIG_COUNT", "1".to_owned()),
                ("GIT_CONFIG_KEY_0", "http.extraHeader".to_owned()),
                ("GIT_CONFIG_VALUE_0", format!("Authorization: {header}")),
            ] {
                guard.variables.push((name.to_owned(), value));
            }
        }
        if is_open {
            return Ok(guard);
        }
        let (Some(host), Some(port)) = (parsed.host_str(), parsed.port_or_known_default()) else {
            return Err(bad("it has no host"));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let public: Vec<String> =
            public_addresses(url, bare, port).await?.iter().map(IpAddr::to_string).collect();
        guard.settings.extend([
            format!("http.curloptResolve={host}:{port}:{}", public.join(",")),
            "http.followRedirects=false".to_owned(),
            "http.proxy=".to_owned(),
        ]);
        Ok(guard)
    }

    /// The same for ssh, which is sent to the address that was checked.
    async fn ssh_guard(
        &self,
        url: &str,
        address: &SshAddress,
        ssh: Ssh<'_>,
    ) -> Result<Guard, FetchError> {
        let pinned = if self.config.allow_private_networks {
            None
        } else {
            public_addresses(url, &address.host, address.port).await?.first().copied()
        };
        let odd =
            || FetchError::File(std::io::Error::other("the scratch directory has an odd name"));
        let variables = [
            ("GIT_SSH_COMMAND", command(ssh, address, pinned).ok_or_else(odd)?),
            ("GIT_SSH_VARIANT", "ssh".to_owned()),
            ("SSH_AUTH_SOCK", ssh.agent.to_str().ok_or_else(odd)?.to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Ok(Guard { settings: vec!["protocol.ssh.allow=always".to_owned()], variables })
    }
}

/// The addresses of a host that are nobody's own, at least one.
async fn public_addresses(url: &str, host: &str, port: u16) -> Result<Vec<IpAddr>, FetchError> {
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| {
        FetchError::Transport { url: url.to_owned(), message: error.to_string() }
    })?;
    let public: Vec<IpAddr> =
        found.map(|address: SocketAddr| address.ip()).filter(|ip| is_public(*ip)).collect();
    if public.is_empty() { Err(FetchError::Private(url.to_owned())) } else { Ok(public) }
}

/// How git is called for one address.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// As after `-c`.
    settings: Vec<String>,
    variables: Vec<(String, String)>,
}

/// The agent and the settings of whoever runs this; nothing is asked.
fn own_ssh() -> Guard {
    let mut guard = Guard::default();
    guard.settings.push("protocol.ssh.allow=always".to_owned());
    for name in ["SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND"] {
        if let Ok(value) = std::env::var(name) {
            guard.variables.push((name.to_owned(), value));
        }
    }
    if !guard.variables.iter().any(|(name, _)| name.starts_with("GIT_SSH")) {
        guard.variables.push(("GIT_SSH_COMMAND".to_owned(), "ssh -o BatchMode=yes".to_owned()));
    }
    guard
}

/// The submodules of a checkout: path, address and commit.
async fn submodules(url: &str, place: &Path) -> Result<Vec<(PathBuf, String, String)>, FetchError> {
    if !place.join(".gitmodules").is_file() {
        return Ok(Vec::new());
    }
    let own = Guard::default();
    let links = git(&own, place, &["ls-tree", "-r", "-z", "HEAD"], url).await?;
    let list =
        ["config", "--file", ".gitmodules", "-z", "--get-regexp", r"^submodule\..*\.(path|url)$"];
    let settings = git(&own, place, &list, url).await.unwrap_or_default();
    let mut found = Vec::new();
    for link in links.split('\0').filter_map(|line| line.strip_prefix("160000 commit ")) {
        let Some((commit, path)) = link.split_once('\t') else { continue };
        let Some(address) = address_of(&settings, path) else { continue };
        let address = if address.starts_with("./") || address.starts_with("../") {
            relative(url, address)
        } else {
            Some(address.to_owned())
        };
        // Paths of git have no `..`, but this is a stranger's repository.
        let is_inside =
            Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if let Some(address) = address.filter(|_| is_inside) {
            found.push((PathBuf::from(path), address, commit.to_owned()));
        }
    }
    Ok(found)
}

/// The address of the submodule at a path, from `name\nvalue\0` pairs.
fn address_of<'a>(settings: &'a str, path: &str) -> Option<&'a str> {
    let pairs = || settings.split('\0').filter_map(|pair| pair.split_once('\n'));
    let name =
        pairs().find_map(|(key, value)| key.strip_suffix(".path").filter(|_| value == path))?;
    pairs().find_map(|(key, value)| (key.strip_suffix(".url") == Some(name)).then_some(value))
}

/// `../other.git` beside a repository's address.
fn relative(url: &str, address: &str) -> Option<String> {
    if let (Some((host, path)), false) = (url.split_once(':'), url.contains("://")) {
        // `git@host:path`: the path is joined as one of a URL.
        let root = if path.starts_with('/') { "" } else { "/" };
        let joined = relative(&format!("ssh://host{root}{path}"), address)?;
        return joined
            .strip_prefix("ssh://host")
            .map(|path| format!("{host}:{}", &path[root.len()..]));
    }
    let mut base = Url::parse(&format!("{}/", url.trim_end_matches('/'))).ok()?;
    base.set_query(None);
    base.join(address).ok().map(|joined| joined.to_string().trim_end_matches('/').to_owned())
}

/// Runs git with nothing of this machine's configuration, no hooks and no questions.
pub(crate) async fn git(
    guard: &Guard,
    directory: &Path,
    arguments: &[&str],
    url: &str,
) -> Result<String, FetchError> {
    let mut command = Command::new("git");
    for setting in [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "protocol.allow=never",
        "protocol.http.allow=always",
        "protocol.https.allow=always",
        "protocol.git.allow=always",
        "credential.helper=",
        "advice.detachedHead=false",
        "transfer.bundleURI=false",
        "submodule.recurse=false",
    ] {
        command.args(["-c", setting]);
    }
    for setting in &guard.settings {
        command.args(["-c", setting]);
    }
    command.args(arguments).current_dir(directory).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    for (name, value) in [
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
    ] {
        command.env(name, value);
    }
    command.envs(guard.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let failed = |message: String| FetchError::Transport { url: url.to_owned(), message };
    let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(output) => output.map_err(|error| failed(format!("git cannot be run: {error}")))?,
        Err(_) => return Err(failed(format!("git took longer than {} s", TIMEOUT.as_secs()))),
    };
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let says = |line: &&str| !line.trim().is_empty() && !NOTHING_SAID.contains(line);
        let last = text.lines().rfind(says).unwrap_or("git failed");
        let problem: String = last.chars().take(300).collect();
        let is_missing = [
            "not found",
            "no such repository",
            "does not appear",
            "not our ref",
            "could not read Username",
            "Permission denied",
            "Host key verification failed",
        ];
        if is_missing.iter().any(|sign| text.contains(sign)) {
            return Err(FetchError::Address { url: url.to_owned(), problem });
        }
        return Err(failed(problem));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetcher::FetchConfig;

    #[tokio::test]
    async fn strangers_cannot_send_git_where_they_like() {
        let closed = Fetcher::new(FetchConfig::default()).unwrap();
        for url in ["http://127.0.0.1:1/x.git", "http://localhost:1/x.git", "http://[::1]:1/x.git"]
        {
            let error = closed.commit_of(url, None, None).await.unwrap_err();
            assert!(matches!(error, FetchError::Private(_)), "{url}: {error}");
        }
        for url in ["git://1.1.1.1/x.git", "ssh://1.1.1.1/x.git", "file:///etc", "ext::sh -c x"] {
            let error = closed.commit_of(url, None, None).await.unwrap_err();
            assert!(matches!(error, FetchError::Address { .. }), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn ssh_goes_where_git_may_go_and_not_without_an_agent() {
        let ssh = Ssh { agent: Path::new("/none"), known_hosts: Path::new("/none") };
        let closed = Fetcher::new(FetchConfig::default()).unwrap();
        for url in ["ssh://git@127.0.0.1:1/x.git", "git@localhost:x.git", "ssh://[::1]:1/x.git"] {
            let error = closed.commit_of(url, None, Some(ssh)).await.unwrap_err();
            assert!(matches!(error, FetchError::Private(_)), "{url}: {error}");
            let error = closed.commit_of(url, None, None).await.unwrap_err();
            assert!(error.to_string().contains("it needs an SSH agent"), "{url}: {error}");
        }
    }

    #[test]
    fn submodules_have_their_addresses_by_path() {
        let settings =
            "submodule.a b.path\nlib/x\0submodule.a b.url\n../x.git\0submodule.c.path\nc\0";
        assert_eq!(address_of(settings, "lib/x"), Some("../x.git"));
        assert_eq!(address_of(settings, "c"), None);
        let url = "https://h.test/team/app.git";
        assert_eq!(relative(url, "../x.git").unwrap(), "https://h.test/team/x.git");
        assert_eq!(relative(url, "../../o/x.git").unwrap(), "https://h.test/o/x.git");
        let url = "git@h.test:team/app.git";
        assert_eq!(relative(url, "../x.git").unwrap(), "git@h.test:team/x.git");
        assert_eq!(relative("git@h.test:/srv/app.git", "../x").unwrap(), "git@h.test:/srv/x");
        let url = "ssh://git@h.test:2222/team/app.git";
        assert_eq!(relative(url, "../x.git").unwrap(), "ssh://git@h.test:2222/team/x.git");
    }
}
