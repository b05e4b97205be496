//! Secrets in logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Secret;

/// What stands where a secret stood.
const MASKED: &str = "***";
/// Shorter lines of a secret are let through: they would mask half of every log.
const MIN_CHARS: usize = 4;

/// Hides the secrets of a job in what its commands put out.
#[derive(Clone, Default)]
pub(crate) struct Mask(Arc<[String]>);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(…)")
    }
}

impl Mask {
    /// A mask of these secrets: each whole, and each line of those that have several.
    pub(crate) fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        let mut words: Vec<String> = secrets
            .values()
            .filter_map(Secret::value)
            .flat_map(|value| {
                let text = String::from_utf8_lossy(&value).into_owned();
                text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
            })
            .filter(|line| line.chars().count() >= MIN_CHARS)
            .collect();
        // One that holds another one is hidden whole.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.dedup();
        Self(words.into())
    }

    /// The text without what must not be seen.
    pub(super) fn apply(&self, text: String) -> String {
        let hide = |text: String, word: &String| {
            if text.contains(word.as_str()) { text.replace(word.as_str(), MASKED) } else { text }
        };
        self.0.iter().fold(text, hide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_reach_the_log() {
        let secrets = ["hunter2", "-----BEGIN\nabcdef\n-----END\n", "ab", "hunter2-long"];
        let secrets = secrets.iter().enumerate();
        let secrets = secrets
            .map(|(number, text)| (number.to_string(), Secret::new(text.as_bytes())))
            .collect();
        let mask = Mask::new(&secrets);
        let masked = |text: &str| mask.apply(text.to_owned());
        assert_eq!(masked("the word is hunter2."), "the word is ***.");
        assert_eq!(masked("hunter2-long hunter2"), "*** ***");
        assert_eq!(masked("x abcdef y"), "x *** y");
        // Too short to be told from other text.
        assert_eq!(masked("cab"), "cab");
        assert_eq!(format!("{mask:?}"), "Mask(…)");
    }
}
