//! Secrets of builds: sealed in the database, open only on their way to a worker.

use common::BuildId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// A key that is none.
#[derive(Debug, thiserror::Error)]
#[error("[secrets] key has to be 32 bytes in hex: openssl rand -hex 32 makes one")]
pub struct InvalidSecretsKey;

/// Seals and opens.
pub(crate) struct Vault {
    /// The first one seals, all of them open.
    keys: Vec<LessSafeKey>,
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault { .. }")
    }
}

impl Vault {
    /// A vault with a key in hex, and with older ones that only open.
    pub(crate) fn new(key: &str, old_keys: &[String]) -> Result<Self, InvalidSecretsKey> {
        let keys = std::iter::once(key).chain(old_keys.iter().map(String::as_str)).map(parse);
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, random: SystemRandom::new() })
    }

    /// Seals a value for one name of one build: nonce, then ciphertext. `None` when the system has
    /// no random numbers.
    pub(crate) fn seal(&self, build: BuildId, name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = vec![0; NONCE_LEN];
        self.random.fill(&mut sealed).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed).ok()?;
        let mut text = value.to_vec();
        let key = self.keys.first()?;
        key.seal_in_place_append_tag(nonce, aad(build, name), &mut text).ok()?;
        sealed.append(&mut text);
        Some(sealed)
    }

    /// Opens what was sealed for the same name of the same build.
    pub(crate) fn open(&self, build: BuildId, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        self.keys.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = text.to_vec();
            let opened = key.open_in_place(nonce, aad(build, name), &mut text).ok()?;
            Some(opened.to_vec())
        })
    }
}

fn parse(text: &str) -> Result<LessSafeKey, InvalidSecretsKey> {
    let bytes = hex::decode(text.trim()).map_err(|_| InvalidSecretsKey)?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSecretsKey)?;
    Ok(LessSafeKey::new(key))
}

fn aad(build: BuildId, name: &str) -> Aad<Vec<u8>> {
    Aad::from([build.0.as_bytes().as_slice(), name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_the_same_name_of_the_same_build_opens_with_a_known_key() {
        let (first, second) = ("11".repeat(32), "22".repeat(32));
        let vault = Vault::new(&first, &[]).unwrap();
        let (build, other) = (BuildId(Uuid::now_v7()), BuildId(Uuid::now_v7()));
        let sealed = vault.seal(build, "token", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, vault.seal(build, "token", b"hunter2").unwrap());
        assert_eq!(vault.open(build, "token", &sealed).unwrap(), b"hunter2");
        assert!(vault.open(build, "other", &sealed).is_none());
        assert!(vault.open(other, "token", &sealed).is_none());
        assert!(vault.open(build, "token", &sealed[..5]).is_none());
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(vault.open(build, "token", &changed).is_none());
        // After a change of keys.
        let rotated = Vault::new(&second, &[first]).unwrap();
        assert_eq!(rotated.open(build, "token", &sealed).unwrap(), b"hunter2");
        assert!(Vault::new(&second, &[]).unwrap().open(build, "token", &sealed).is_none());
    }

    #[test]
    fn keys_have_32_bytes() {
        for bad in ["", "zz", "1122", &"1".repeat(63)] {
            assert!(Vault::new(bad, &[]).is_err(), "{bad}");
        }
    }
}
