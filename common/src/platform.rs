//! Platforms: operating system, architecture, variant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform in the OCI image specification's terms (Go's `GOOS` and `GOARCH` names).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture, such as `amd64`.
    pub architecture: String,
    /// Variant, such as `v7` of `arm`; empty when there is none.
    pub variant: String,
}

/// Text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid platform {0:?}: expected os/arch, os/arch/variant, os, or arch, such as linux/amd64"
)]
pub struct InvalidPlatform(String);

impl Platform {
    /// The platform that this program was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, "");
        Self { os: std::env::consts::OS.to_owned(), architecture, variant }
    }
}

/// Operating systems that may stand alone: the architecture is this machine's then.
const SYSTEMS: [&str; 8] =
    ["darwin", "freebsd", "linux", "netbsd", "openbsd", "plan9", "solaris", "windows"];

/// Architectures that may stand alone: of Linux then, as all that a farm builds.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

/// Brings the common spellings of an architecture to Go's, as containerd's `platforms` package
/// documents: `x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `armhf` is `arm/v7`.
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPlatform(text.chars().take(100).collect());
        let lower = text.trim().to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let clean = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !parts.iter().all(clean) {
            return Err(invalid());
        }
        let (os, architecture, variant) = match parts[..] {
            [os] if SYSTEMS.contains(&os) || os == "macos" => {
                let host = Self::host();
                return Ok(Self { os: system(os), ..host });
            }
            [architecture] => {
                let known = normalise(architecture, "").0;
                if !ARCHITECTURES.contains(&known.as_str()) {
                    return Err(invalid());
                }
                ("linux", architecture, "")
            }
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(invalid()),
        };
        let (architecture, variant) = normalise(architecture, variant);
        Ok(Self { os: system(os), architecture, variant })
    }
}

fn system(os: &str) -> String {
    if os == "macos" { "darwin" } else { os }.to_owned()
}

impl TryFrom<String> for Platform {
    type Error = InvalidPlatform;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_equal() {
        for (text, shown) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm/8", "linux/arm/v8"),
            ("arm64", "linux/arm64"),
            ("X86_64", "linux/amd64"),
            ("armhf", "linux/arm/v7"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        let host = Platform::host();
        let named = Platform { os: "windows".to_owned(), ..host };
        assert_eq!("windows".parse::<Platform>(), Ok(named));
        for text in ["", "lunix", "linux/", "a/b/c/d", "li nux/amd64", "amd46"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
