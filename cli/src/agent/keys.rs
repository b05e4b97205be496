//! An agent of keys that were read from files. It lists and signs, and does nothing else.

use std::path::Path;

use agent::{Message, Relay};
use rsa::pkcs1v15::SigningKey;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::{BigUint, RsaPrivateKey};
use ssh_key::private::{KeypairData, RsaKeypair};
use ssh_key::sha2::{Sha256, Sha512};
use ssh_key::{Mpint, PrivateKey, Signature};
use uuid::Uuid;

use crate::exit::CliError;

// Numbers and flags of draft-ietf-sshm-ssh-agent, section 6.
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Longest key file in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Keys.
#[derive(Debug)]
pub(crate) struct KeyAgent {
    keys: Vec<Key>,
}

struct Key {
    /// The public key as the protocol has it.
    public: Vec<u8>,
    comment: String,
    secret: SecretKey,
}

enum SecretKey {
    Rsa(Box<RsaPrivateKey>),
    Other(Box<PrivateKey>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.comment)
    }
}

impl Relay for KeyAgent {
    async fn ask(&self, _: Uuid, request: Message) -> Message {
        self.answer(&request)
    }

    async fn closed(&self, _: Uuid) {}
}

impl KeyAgent {
    /// Reads private keys in OpenSSH's format, without passphrase.
    pub(super) fn read(paths: &[&Path]) -> Result<Self, CliError> {
        let keys = paths.iter().map(|path| Key::read(path)).collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// The answer to a request.
    pub(super) fn answer(&self, request: &Message) -> Message {
        let answer = match request.bytes() {
            [REQUEST_IDENTITIES] => Some(self.list()),
            [SIGN_REQUEST, rest @ ..] => self.sign(rest),
            _ => None,
        };
        answer.and_then(Message::new).unwrap_or_else(Message::failure)
    }

    fn list(&self) -> Vec<u8> {
        let mut answer = vec![IDENTITIES_ANSWER];
        answer.extend_from_slice(&u32::try_from(self.keys.len()).unwrap_or(0).to_be_bytes());
        for key in &self.keys {
            put(&mut answer, &key.public);
            put(&mut answer, key.comment.as_bytes());
        }
        answer
    }

    fn sign(&self, mut request: &[u8]) -> Option<Vec<u8>> {
        let (public, data) = (take(&mut request)?, take(&mut request)?);
        let flags = u32::from_be_bytes(request.try_into().ok()?);
        let key = self.keys.iter().find(|key| key.public == public)?;
        let mut answer = vec![SIGN_RESPONSE];
        put(&mut answer, &key.secret.sign(data, flags)?);
        Some(answer)
    }
}

impl Key {
    fn read(path: &Path) -> Result<Self, CliError> {
        let failed = |message: &str| CliError::file(path, &message);
        let found = std::fs::metadata(path).map_err(|error| CliError::file(path, &error))?;
        if found.len() > MAX_FILE_BYTES {
            return Err(failed("it is too long to be a private key"));
        }
        let text = std::fs::read(path).map_err(|error| CliError::file(path, &error))?;
        let key = PrivateKey::from_openssh(&text).map_err(|error| {
            let message = format!(
                "no private key in OpenSSH's format ({error}); ssh-keygen -p -f FILE writes others anew"
            );
            CliError::file(path, &message)
        })?;
        if key.is_encrypted() {
            return Err(failed("the key has a passphrase: add it to an agent with ssh-add"));
        }
        let public = key.public_key().to_bytes();
        let public = public.map_err(|error| CliError::file(path, &error))?;
        let comment = match key.comment() {
            "" => path.display().to_string(),
            comment => comment.to_owned(),
        };
        let secret = match key.key_data() {
            KeypairData::Rsa(pair) => {
                let key = rsa_key(pair).ok_or_else(|| failed("the RSA key is not usable"))?;
                SecretKey::Rsa(Box::new(key))
            }
            KeypairData::Ed25519(_) | KeypairData::Ecdsa(_) => SecretKey::Other(Box::new(key)),
            _ => {
                let message = "keys of this kind are not read: add it to an agent with ssh-add";
                return Err(failed(message));
            }
        };
        Ok(Self { public, comment, secret })
    }
}

/// By hand: `ssh-key` 0.6.7 takes one prime twice, and refuses every RSA key.
fn rsa_key(pair: &RsaKeypair) -> Option<RsaPrivateKey> {
    let number = |number: &Mpint| number.as_positive_bytes().map(BigUint::from_bytes_be);
    let primes = vec![number(&pair.private.p)?, number(&pair.private.q)?];
    let (n, e, d) = (number(&pair.public.n)?, number(&pair.public.e)?, number(&pair.private.d)?);
    RsaPrivateKey::from_components(n, e, d, primes).ok()
}

impl SecretKey {
    /// A signature as the protocol has it: the algorithm's name and the signature itself.
    fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let key = match self {
            Self::Rsa(key) => key,
            Self::Other(key) => {
                let signature: Signature = key.try_sign(data).ok()?;
                return Vec::try_from(signature).ok();
            }
        };
        let (name, signature) = if flags & RSA_SHA2_512 != 0 {
            let key = SigningKey::<Sha512>::new(key.as_ref().clone());
            ("rsa-sha2-512", key.try_sign(data).ok()?.to_vec())
        } else if flags & RSA_SHA2_256 != 0 {
            let key = SigningKey::<Sha256>::new(key.as_ref().clone());
            ("rsa-sha2-256", key.try_sign(data).ok()?.to_vec())
        } else {
            // SHA-1, which nobody takes any more.
            return None;
        };
        let mut answer = Vec::new();
        put(&mut answer, name.as_bytes());
        put(&mut answer, &signature);
        Some(answer)
    }
}

/// Adds a text with its length.
fn put(to: &mut Vec<u8>, text: &[u8]) {
    // Keys, comments and signatures are short.
    to.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    to.extend_from_slice(text);
}

/// Takes a text with its length.
fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_at_checked(4)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::Arc;

    use ::agent::{AgentSocket, Relay};
    use uuid::Uuid;

    struct Direct(KeyAgent);

    impl Relay for Direct {
        async fn ask(&self, _: Uuid, request: Message) -> Message {
            self.0.answer(&request)
        }

        async fn closed(&self, _: Uuid) {}
    }

    fn keygen(path: &Path, arguments: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-C", "a comment", "-f"]).arg(path).args(arguments);
        assert!(command.status().unwrap().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openssh_lists_the_keys_and_takes_their_signatures() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (kind, bits) in [
            ("ed25519", "256"),
            ("rsa", "2048"),
            ("ecdsa", "256"),
            ("ecdsa", "384"),
            ("ecdsa", "521"),
        ] {
            // Of ecdsa some keys cannot be read: those whose number begins with zeros.
            let made = (0..50).find_map(|attempt| {
                let path = directory.path().join(format!("{kind}{bits}-{attempt}"));
                keygen(&path, &["-N", "", "-t", kind, "-b", bits]);
                KeyAgent::read(&[path.as_path()]).is_ok().then_some(path)
            });
            paths.push(made.unwrap());
        }
        let keys: Vec<&Path> = paths.iter().map(std::path::PathBuf::as_path).collect();
        let path = directory.path().join("agent");
        let direct = Arc::new(Direct(KeyAgent::read(&keys).unwrap()));
        let _socket = AgentSocket::listen(&path, direct).unwrap();
        let add = |argument: &str, key: Option<&Path>| {
            let mut command = Command::new("ssh-add");
            command.env("SSH_AUTH_SOCK", &path).arg(argument).args(key);
            tokio::task::block_in_place(|| command.output().unwrap())
        };
        let listed = String::from_utf8(add("-L", None).stdout).unwrap();
        assert_eq!(listed.lines().count(), 5, "{listed}");
        assert!(listed.lines().all(|line| line.ends_with(" a comment")), "{listed}");
        // Signs a file with the agent's key, and verifies that.
        let script = "ssh-keygen -q -Y sign -f \"$0\" -n test \"$1\" && \
                      ssh-keygen -Y check-novalidate -n test -s \"$1.sig\" < \"$1\"";
        for key in &paths {
            let here = tempfile::tempdir().unwrap();
            let (public, file) = (here.path().join("key.pub"), here.path().join("file"));
            std::fs::copy(key.with_extension("pub"), &public).unwrap();
            std::fs::write(&file, "text").unwrap();
            let mut sh = Command::new("sh");
            sh.env("SSH_AUTH_SOCK", &path).args(["-c", script]).arg(&public).arg(&file);
            let tested = tokio::task::block_in_place(|| sh.output().unwrap());
            let text = String::from_utf8_lossy(&tested.stderr).into_owned();
            assert!(tested.status.success(), "{}: {text}", key.display());
        }
        assert!(!add("-D", None).status.success());
        assert!(!add("-d", Some(&paths[0])).status.success());
    }

    #[test]
    fn keys_with_a_passphrase_and_what_is_no_key_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let locked = directory.path().join("locked");
        keygen(&locked, &["-N", "words words", "-t", "ed25519"]);
        let error = KeyAgent::read(&[&locked]).unwrap_err();
        assert!(error.to_string().contains("passphrase"), "{error}");
        let pem = directory.path().join("pem");
        keygen(&pem, &["-N", "", "-t", "rsa", "-b", "2048", "-m", "PEM"]);
        let error = KeyAgent::read(&[&pem]).unwrap_err();
        assert!(error.to_string().contains("OpenSSH's format"), "{error}");
        assert!(KeyAgent::read(&[directory.path()]).is_err());
    }

    #[test]
    fn rsa_keys_sign_with_the_hash_that_is_asked_for_and_not_with_sha_1() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        keygen(&path, &["-N", "", "-t", "rsa", "-b", "2048"]);
        let agent = KeyAgent::read(&[&path]).unwrap();
        let name = |flags| {
            let signature = agent.keys[0].secret.sign(b"data", flags)?;
            String::from_utf8(take(&mut signature.as_slice())?.to_vec()).ok()
        };
        assert_eq!(name(RSA_SHA2_512).as_deref(), Some("rsa-sha2-512"));
        assert_eq!(name(RSA_SHA2_256).as_deref(), Some("rsa-sha2-256"));
        assert_eq!(name(RSA_SHA2_256 | RSA_SHA2_512).as_deref(), Some("rsa-sha2-512"));
        assert_eq!(name(0), None);
    }

    #[test]
    fn requests_that_make_no_sense_fail() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        keygen(&path, &["-N", "", "-t", "ed25519"]);
        let agent = KeyAgent::read(&[&path]).unwrap();
        let public = agent.keys[0].public.clone();
        let sign = |public: &[u8], flags: &[u8]| {
            let mut request = vec![SIGN_REQUEST];
            put(&mut request, public);
            put(&mut request, b"data");
            request.extend_from_slice(flags);
            agent.answer(&Message::new(request).unwrap())
        };
        assert_eq!(sign(&public, &[0; 4]).bytes()[0], SIGN_RESPONSE);
        assert_eq!(sign(b"another", &[0; 4]), Message::failure());
        assert_eq!(sign(&public, &[0; 3]), Message::failure());
        for bytes in
            [&[SIGN_REQUEST][..], &[SIGN_REQUEST, 0xff, 0xff, 0xff, 0xff], &[17, 1], &[11, 0]]
        {
            let request = Message::new(bytes.to_vec()).unwrap();
            assert_eq!(agent.answer(&request), Message::failure(), "{bytes:?}");
        }
    }
}
