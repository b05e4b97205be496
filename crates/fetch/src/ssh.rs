//! Repositories over ssh: their addresses, and the program that git is to use.

use std::net::IpAddr;
use std::path::Path;

use url::{Host, Url};

/// What git over ssh needs.
#[derive(Debug, Clone, Copy)]
pub struct Ssh<'a> {
    /// The socket of an agent.
    pub agent: &'a Path,
    /// A file for the keys of hosts, in a directory of nobody else's. Each host is trusted when it is
    /// met first; a file that is new for each fetch makes that every fetch.
    pub known_hosts: &'a Path,
}

/// Where a repository over ssh is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshAddress {
    /// The host, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl SshAddress {
    /// Reads `ssh://[user@]host[:port]/path` or `user@host:path`; nothing where it is neither, or says
    /// more than that.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        if url.starts_with("ssh://") {
            let parsed = Url::parse(url).ok()?;
            let host = match parsed.host()? {
                Host::Domain(name) => name.to_owned(),
                Host::Ipv4(address) => address.to_string(),
                Host::Ipv6(address) => address.to_string(),
            };
            let user = parsed.username();
            let fits = (user.is_empty() || is_word(user)) && parsed.password().is_none();
            let fits = fits && (is_word(&host) || host.parse::<IpAddr>().is_ok());
            return (fits && parsed.path().len() > 1)
                .then(|| Self { host, port: parsed.port().unwrap_or(22) });
        }
        let (place, path) = url.split_once(':')?;
        let (user, host) = place.split_once('@')?;
        let is_path = !path.is_empty() && !path.starts_with('-') && !path.starts_with("//");
        (is_word(user) && is_word(host) && is_path)
            .then(|| Self { host: host.to_owned(), port: 22 })
    }
}

/// Whether a name of a user or host has nothing that a program could take for something else.
fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=255).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(fits)
}

/// The command for `GIT_SSH_COMMAND`: with nothing of this machine's configuration and keys. With
/// `pinned` it connects there, whatever the host's name may lead to by then. None where a path cannot
/// be written into a command.
pub(crate) fn command(
    ssh: Ssh<'_>,
    address: &SshAddress,
    pinned: Option<IpAddr>,
) -> Option<String> {
    let known_hosts = ssh.known_hosts.to_str().filter(|path| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        path.bytes().all(plain)
    })?;
    let mut options = vec![
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=accept-new".to_owned(),
        format!("UserKnownHostsFile={known_hosts}"),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "CheckHostIP=no".to_owned(),
        "IdentityFile=none".to_owned(),
        "PreferredAuthentications=publickey".to_owned(),
        "ForwardAgent=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ProxyCommand=none".to_owned(),
        "ControlMaster=no".to_owned(),
        "ControlPath=none".to_owned(),
        "ConnectTimeout=20".to_owned(),
        "ServerAliveInterval=15".to_owned(),
        "LogLevel=ERROR".to_owned(),
    ];
    if let Some(ip) = pinned {
        options.push(format!("HostName={ip}"));
        options.push(format!("HostKeyAlias={}", address.host));
    }
    Some(format!("ssh -F /dev/null -o {}", options.join(" -o ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_host_and_nothing_else() {
        let address = |host: &str, port| Some(SshAddress { host: host.to_owned(), port });
        for (text, expected) in [
            ("git@h.test:a/b.git", address("h.test", 22)),
            ("git@h.test:/srv/b.git", address("h.test", 22)),
            ("ssh://git@h.test/a/b.git", address("h.test", 22)),
            ("ssh://h.test:2222/~/b.git", address("h.test", 2222)),
            ("ssh://git@[::1]:22/b.git", address("::1", 22)),
            ("ssh://git@10.0.0.1/b.git", address("10.0.0.1", 22)),
        ] {
            assert_eq!(SshAddress::parse(text), expected, "{text}");
        }
        for text in [
            "ssh://-oProxyCommand=x/b.git",
            "ssh://git@-oProxyCommand=x/b.git",
            "ssh://git:secret@h.test/b.git",
            "ssh://a%20b@h.test/b.git",
            "ssh://h.test",
            "ssh://h.test/",
            "git@-x:b.git",
            "-l@h.test:b.git",
            "git@h.test:-x",
            "git@h.test:",
            "git@h.test",
            "ext::sh -c x",
            "/etc/passwd",
            "file:///etc",
            "x@y://z",
            "https://h.test/b.git",
        ] {
            assert_eq!(SshAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_command_connects_where_it_was_checked() {
        let ssh = Ssh { agent: Path::new("/a"), known_hosts: Path::new("/t/known") };
        let address = SshAddress::parse("git@h.test:b.git").unwrap();
        let text = command(ssh, &address, Some([1, 1, 1, 1].into())).unwrap();
        assert!(text.ends_with(" -o HostName=1.1.1.1 -o HostKeyAlias=h.test"), "{text}");
        assert!(!command(ssh, &address, None).unwrap().contains("HostName"));
        let odd = Ssh { known_hosts: Path::new("/t/a b'$x"), ..ssh };
        assert_eq!(command(odd, &address, None), None);
    }
}
