//! Problems and suggestions.

use common::{Failure, FailureClass};

/// Something wrong, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The word that is wrong, as written: it is looked for in the lines of the instruction.
    pub(crate) word: Option<String>,
}

impl Problem {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, word: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn blaming(mut self, word: impl Into<String>) -> Self {
        self.word = Some(word.into());
        self
    }

    /// A Dockerfile that is small but stands for very much.
    pub(crate) fn too_much(message: String) -> Self {
        Self::new(Self::TOO_MUCH, message)
            .with_hint("use fewer or shorter variables, instructions or patterns")
    }

    /// Code of [`Problem::too_much`]; whatever comes behind it would fail alike.
    pub(crate) const TOO_MUCH: &'static str = "plan-too-large";

    /// Code of a source that the context does not have.
    pub(crate) const NOT_IN_CONTEXT: &'static str = "missing-source";
    /// The code of a source that the client kept back.
    pub(crate) const NOT_SENT: &'static str = crate::NOT_SENT;

    /// Adds "did you mean" where one of `known` is close to `word`.
    pub(crate) fn suggest<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, known) {
            Some(found) => self.with_hint(format!("did you mean {found}?")),
            None => self,
        }
    }

    pub(crate) fn into_failure(self) -> Failure {
        let mut failure = Failure::new(FailureClass::User, self.code, self.message);
        failure.hint = self.hint;
        failure
    }
}

/// The closest of `known`, if it is close enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    if lower.len() > 100 {
        return None;
    }
    known
        .into_iter()
        // Cheap first: there may be as many candidates as files in a context.
        .filter(|candidate| candidate.len().abs_diff(lower.len()) <= candidate.len().div_ceil(3))
        .filter(|candidate| candidate.len() <= 150)
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words; two neighbours that changed places are one edit (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let edit = (rows[i - 1][j - 1] + cost).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            rows[i][j] = if swapped { edit.min(rows[i - 2][j - 2] + 1) } else { edit };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["FROM", "RUN", "COPY", "WORKDIR"];
        assert_eq!(nearest("FORM", known), Some("FROM"));
        assert_eq!(nearest("CPOY", known), Some("COPY"));
        assert_eq!(nearest("COPPY", known), Some("COPY"));
        assert_eq!(nearest("WORKDIRR", known), Some("WORKDIR"));
        assert_eq!(nearest("XYZZY", known), None);
        let long = "a".repeat(70_000);
        assert_eq!(nearest("aaa", [long.as_str()]), None);
    }
}
