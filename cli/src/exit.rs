//! How the program ends: messages and exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use client::ClientError;
use common::{Failure, FailureClass};

/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line asks for something that makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The farm.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The build.
    #[error("{0}")]
    Failed(Box<Failure>),
    /// The farm on this machine.
    #[error("{0}")]
    Farm(String),
    /// A server of the farm on this machine.
    #[error(transparent)]
    Service(#[from] standalone::ServiceError),
    /// A local file.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
}

impl CliError {
    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: &std::path::Path, error: &dyn std::fmt::Display) -> Self {
        Self::File { path: path.display().to_string(), message: error.to_string() }
    }
}

/// Shows an error and gives its exit code.
pub(crate) fn report(error: &CliError) -> ExitCode {
    let (text, code) = describe(error);
    let _ = write!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}

fn describe(error: &CliError) -> (String, u8) {
    match error {
        CliError::Usage { message, hint } => (lines(message, hint.as_deref()), USAGE),
        CliError::File { .. } => (lines(&error.to_string(), None), FailureClass::User.exit_code()),
        CliError::Failed(failure) => (failure_text(failure), failure.class.exit_code()),
        CliError::Client(ClientError::Refused(problem)) => {
            let class = Failure::from(problem.as_ref()).class;
            let mut text = lines(&problem.to_string(), problem.hint.as_deref());
            if class == FailureClass::Infrastructure
                && let Some(id) = &problem.request_id
            {
                text.push_str(&format!("  = request: {id}\n"));
            }
            (text, class.exit_code())
        }
        CliError::Client(ClientError::Unreachable { .. }) => {
            let hint = "is the coordinator running? --server or SLIPWAY_SERVER names another one; \
                        slipway up starts a farm on this machine";
            (lines(&error.to_string(), Some(hint)), FailureClass::Infrastructure.exit_code())
        }
        CliError::Client(_) | CliError::Farm(_) | CliError::Service(_) => {
            (lines(&error.to_string(), None), FailureClass::Infrastructure.exit_code())
        }
    }
}

fn lines(message: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("  = hint: {}\n", hint.replace('\n', "\n          ")));
    format!("error: {message}\n{}", hint.unwrap_or_default())
}

/// A failure with its place in the Dockerfile, as compilers show it.
pub(crate) fn failure_text(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", failure.message);
    if let (Some(file), Some(place)) = (&failure.file, failure.lines) {
        let width = place.end.to_string().len();
        text.push_str(&format!("{:width$}--> {file}:{place}\n", ""));
        if let Some(excerpt) = &failure.excerpt {
            text.push_str(&format!("{:width$} |\n", ""));
            for (offset, line) in excerpt.lines().enumerate() {
                let number = place.start as usize + offset;
                text.push_str(&format!("{number:>width$} | {line}\n"));
                if let Some(span) = failure.span.filter(|span| span.line as usize == number) {
                    let before = line.chars().take(span.column as usize - 1);
                    // Tabs keep their width.
                    let blank: String =
                        before.map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
                    let marks = "^".repeat(span.length as usize);
                    text.push_str(&format!("{:width$} | {blank}{marks}\n", ""));
                }
            }
            if failure.span.is_none() {
                text.push_str(&format!("{:width$} |\n", ""));
            }
        }
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("  = hint: {}\n", hint.replace('\n', "\n          ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::outcome::{LineRange, Span};

    #[test]
    fn a_failure_shows_its_line() {
        let mut failure = Failure::new(FailureClass::User, "unknown-stage", "no stage \"x\"")
            .with_hint("did you mean y?")
            .at(LineRange { start: 12, end: 12 });
        failure.file = Some("Dockerfile".into());
        failure.excerpt = Some("COPY --from=x / /".into());
        let expected = "error: no stage \"x\"\n  --> Dockerfile:12\n   |\n12 | COPY --from=x / /\n   |\n  = hint: did you mean y?\n";
        assert_eq!(failure_text(&failure), expected);
        failure.span = Some(Span { line: 12, column: 13, length: 1 });
        let marked = "12 | COPY --from=x / /\n   |             ^\n  = hint";
        assert!(failure_text(&failure).contains(marked), "{}", failure_text(&failure));
    }

    #[test]
    fn exit_codes_tell_whose_fault_it_is() {
        let code = |error: &CliError| describe(error).1;
        assert_eq!(code(&CliError::usage("x")), 2);
        for (class, expected) in [
            (FailureClass::User, 1),
            (FailureClass::Resource, 3),
            (FailureClass::Registry, 4),
            (FailureClass::Infrastructure, 5),
            (FailureClass::Cancelled, 130),
        ] {
            let failure = Failure::new(class, "x", "x");
            assert_eq!(code(&CliError::Failed(Box::new(failure))), expected);
        }
        let unreachable = ClientError::Unreachable { url: String::new(), message: String::new() };
        assert_eq!(code(&CliError::Client(unreachable)), 5);
        let problem = api::Problem::new(401, "unauthorized", "no token");
        assert_eq!(code(&CliError::Client(ClientError::Refused(Box::new(problem)))), 1);
    }
}
