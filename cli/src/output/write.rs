//! Standard output.

use std::io::Write as _;

/// Prints a line. A reader that has gone away, such as `head`, is no error.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
