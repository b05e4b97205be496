//! The rules.

use common::outcome::LineRange;

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub lines: LineRange,
    /// By which rule.
    pub rule: Rule,
    /// In words.
    pub message: String,
}

impl Finding {
    pub(crate) fn new(rule: Rule, lines: LineRange, message: String) -> Self {
        Self { lines, rule, message }
    }
}

impl std::fmt::Display for Finding {
    /// As BuildKit writes it: `Rule: message (line 3)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (line {})", self.rule.name(), self.message, self.lines.start)
    }
}

macro_rules! rules {
    ($($name:ident $description:literal,)*) => {
        /// A rule of BuildKit's linter, by its name there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each has its description")]
        pub enum Rule { $($name,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, as `# check=skip=` takes it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it asks for.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

rules! {
    StageNameCasing "Stage names should be lowercase",
    FromAsCasing "The 'as' keyword should match the case of the 'from' keyword",
    NoEmptyContinuation "Empty continuation lines will become errors in a future release",
    ConsistentInstructionCasing
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    DuplicateStageName "Stage names should be unique",
    ReservedStageName "Reserved words should not be used as stage names",
    JSONArgsRecommended
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    MaintainerDeprecated
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    UndefinedArgInFrom "FROM command must use declared ARGs",
    WorkdirRelativePath
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    UndefinedVar "Variables should be defined before their use",
    MultipleInstructionsDisallowed
        "Multiple instructions of the same type should not be used in the same stage",
    LegacyKeyValueFormat "Legacy key/value format with whitespace separator should not be used",
    InvalidBaseImagePlatform "Base image platform does not match expected target platform",
    RedundantTargetPlatform
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    SecretsUsedInArgOrEnv "Sensitive data should not be used in the ARG or ENV commands",
    InvalidDefaultArgInFrom
        "Default value for global ARG results in an empty or invalid base image name",
    FromPlatformFlagConstDisallowed "FROM --platform flag should not use a constant value",
    CopyIgnoredFile "Attempting to Copy file that is excluded by .dockerignore",
    InvalidDefinitionDescription
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ExposeProtoCasing "Protocol in EXPOSE instruction should be lowercase",
    ExposeInvalidFormat
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
}

impl Rule {
    /// Whether it has to be asked for.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    /// Where Docker documents it.
    pub fn url(self) -> String {
        let mut slug = String::new();
        let name: Vec<char> = self.name().chars().collect();
        for (at, char) in name.iter().enumerate() {
            let after_word = at > 0 && !name[at - 1].is_ascii_uppercase();
            let before_word = name.get(at + 1).is_some_and(|next| !next.is_ascii_uppercase());
            if char.is_ascii_uppercase() && at > 0 && (after_word || before_word) {
                slug.push('-');
            }
            slug.push(char.to_ascii_lowercase());
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_documented_under_their_names() {
        let base = "https://docs.docker.com/go/dockerfile/rule";
        assert_eq!(Rule::StageNameCasing.url(), format!("{base}/stage-name-casing/"));
        assert_eq!(Rule::JSONArgsRecommended.url(), format!("{base}/json-args-recommended/"));
        assert_eq!(Rule::ALL.len(), 22);
    }
}
