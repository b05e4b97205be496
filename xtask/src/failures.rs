//! `docs/failures.md`: every promise names tests, and the tests are there.

use std::collections::BTreeSet;

/// The page.
pub(crate) const PAGE: &str = "docs/failures.md";

/// Names of functions that a Rust file defines.
pub(crate) fn functions(text: &str, names: &mut BTreeSet<String>) {
    for part in text.split("fn ").skip(1) {
        if let Some((name, _)) = part.split_once('(') {
            names.insert(name.to_owned());
        }
    }
}

/// Checks the lines of the table.
pub(crate) fn check(page: &str, names: &BTreeSet<String>, problems: &mut Vec<String>) {
    let mut lines = 0;
    for (number, line) in page.lines().enumerate() {
        let mut cells = line.trim().trim_matches('|').rsplit('|');
        let (Some(tests), Some(_), Some(_)) = (cells.next(), cells.next(), cells.next()) else {
            continue;
        };
        if !line.starts_with("| ") || line.starts_with("| what happens") {
            continue;
        }
        lines += 1;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            problems.push(format!("{PAGE}:{}: a promise without a test", number + 1));
        }
        for name in named.iter().filter(|name| !names.contains(**name)) {
            problems.push(format!("{PAGE}:{}: there is no test {name}", number + 1));
        }
    }
    if lines == 0 {
        problems.push(format!("{PAGE}: the table is missing"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_without_tests_are_found() {
        let mut names = BTreeSet::new();
        functions("#[test]\nfn it_holds() {}\nasync fn so_does_this() {}", &mut names);
        let found = |rows: &str| {
            let mut problems = Vec::new();
            check(
                &format!("| what happens | promise | test |\n|---|---|---|\n{rows}"),
                &names,
                &mut problems,
            );
            problems.len()
        };
        assert_eq!(found("| a | b | `it_holds`, `so_does_this` |\n"), 0);
        assert_eq!(found("| a | b | `it_holds`, `gone` |\n"), 1);
        assert_eq!(found("| a | b | later |\n"), 1);
        assert_eq!(found(""), 1);
    }
}
