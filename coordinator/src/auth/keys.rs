//! Signing and checking tokens: JWT with HS256.

use common::{ProjectName, WorkerId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, Scope};

/// Who issues the tokens.
const ISSUER: &str = "slipway";
/// Shortest key in bytes: that of the hash.
const MIN_KEY_BYTES: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whose it is.
    pub sub: String,
    /// Always `slipway`.
    pub iss: String,
    /// Made at, in seconds since 1970.
    pub iat: u64,
    /// Good until, in seconds since 1970.
    pub exp: u64,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// For which projects; `*` is all.
    pub projects: Vec<String>,
    /// The worker that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "auth.key has to be at least {MIN_KEY_BYTES} bytes in hex; make one with: openssl rand -hex 32"
)]
pub struct InvalidKey;

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is none.
    #[error("no bearer token was sent")]
    Missing,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It was not made by us, or was changed.
    #[error("the token is not valid here")]
    Invalid,
}

/// The keys: one signs, all are accepted.
pub struct KeyRing {
    signing: EncodingKey,
    accepted: Vec<DecodingKey>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing {{ {} keys }}", self.accepted.len())
    }
}

impl KeyRing {
    /// Reads keys in hex.
    pub fn new(key: &str, old_keys: &[String]) -> Result<Self, InvalidKey> {
        let read = |text: &str| {
            let bytes = unhex(text).ok_or(InvalidKey)?;
            if bytes.len() < MIN_KEY_BYTES { Err(InvalidKey) } else { Ok(bytes) }
        };
        let current = read(key)?;
        let mut accepted = vec![DecodingKey::from_secret(&current)];
        for key in old_keys {
            accepted.push(DecodingKey::from_secret(&read(key)?));
        }
        Ok(Self { signing: EncodingKey::from_secret(&current), accepted })
    }

    /// Makes a token.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing)
    }

    /// Makes claims that are good from `now` (seconds since 1970) for `ttl_secs`.
    pub fn claims(
        subject: &str,
        scopes: Vec<Scope>,
        projects: Vec<String>,
        now: u64,
        ttl_secs: u64,
    ) -> Claims {
        Claims {
            sub: subject.to_owned(),
            iss: ISSUER.to_owned(),
            iat: now,
            exp: now.saturating_add(ttl_secs),
            scopes,
            projects,
            worker: None,
        }
    }

    /// Checks a token.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        validation.leeway = 10;
        let mut result = Err(AuthError::Invalid);
        for key in &self.accepted {
            match jsonwebtoken::decode::<Claims>(token, key, &validation) {
                Ok(data) => return identity(data.claims),
                Err(error) => {
                    if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::ExpiredSignature) {
                        result = Err(AuthError::Expired);
                    }
                }
            }
        }
        result
    }
}

fn identity(claims: Claims) -> Result<Identity, AuthError> {
    let projects = if claims.projects.iter().any(|project| project == "*") {
        None
    } else {
        let names: Result<Vec<ProjectName>, _> =
            claims.projects.into_iter().map(ProjectName::try_from).collect();
        Some(names.map_err(|_| AuthError::Invalid)?)
    };
    Ok(Identity { subject: claims.sub, scopes: claims.scopes, projects, worker: claims.worker })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn now() -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    }

    fn token(key: &str, now: u64, projects: &[&str]) -> String {
        let projects = projects.iter().map(|name| (*name).to_owned()).collect();
        let claims = KeyRing::claims("me", vec![Scope::BuildsWrite], projects, now, 60);
        KeyRing::new(key, &[]).unwrap().sign(&claims).unwrap()
    }

    #[test]
    fn tokens_allow_what_they_say_and_no_more() {
        let ring = KeyRing::new(KEY, &[]).unwrap();
        let identity = ring.verify(&token(KEY, now(), &["a"])).unwrap();
        let project = |name: &str| name.parse::<ProjectName>().unwrap();
        assert!(identity.may(Scope::BuildsRead, &project("a")));
        assert!(identity.may(Scope::BuildsWrite, &project("a")));
        assert!(!identity.may(Scope::BuildsWrite, &project("b")));
        assert!(!identity.has(Scope::Workers) && !identity.has(Scope::Admin));
        let all = ring.verify(&token(KEY, now(), &["*"])).unwrap();
        assert!(all.may(Scope::BuildsWrite, &project("b")));
    }

    #[test]
    fn expired_forged_and_foreign_tokens_are_refused() {
        let ring = KeyRing::new(KEY, &[]).unwrap();
        assert_eq!(ring.verify(&token(KEY, now() - 1000, &["*"])), Err(AuthError::Expired));
        let other = KEY.replace("00", "ff");
        assert_eq!(ring.verify(&token(&other, now(), &["*"])), Err(AuthError::Invalid));
        let rotated = KeyRing::new(KEY, std::slice::from_ref(&other)).unwrap();
        assert!(rotated.verify(&token(&other, now(), &["*"])).is_ok());
        // The same claims without a signature.
        let good = token(KEY, now(), &["*"]);
        let payload = good.split('.').nth(1).unwrap();
        let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
        assert_eq!(ring.verify(&none), Err(AuthError::Invalid));
        assert_eq!(ring.verify("nonsense"), Err(AuthError::Invalid));
    }

    #[test]
    fn short_keys_are_refused() {
        assert!(KeyRing::new("00", &[]).is_err());
        assert!(KeyRing::new("zz", &[]).is_err());
    }
}
