//! `--chmod`: all permission bits at once, or changes as chmod(1) takes them.

use common::plan::Chmod;

use super::error::CopyError;

/// What becomes of permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum ModeRule {
    /// They stay.
    #[default]
    Keep,
    /// These, for files and directories.
    Set(u32),
    /// Changes, one after the other.
    Change(Vec<Clause>),
}

/// One `[ugoa]*[-+=](rwxXst|ugo)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// Bits of those whose permissions change: 0o4700, 0o2070, 0o1007 together.
    who: u32,
    operator: char,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Bits {
        bits: u32,
        execute_where_it_makes_sense: bool,
    },
    /// The permissions of user, group or others: how far they are shifted.
    As(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;
const ALL: u32 = 0o7777;

impl ModeRule {
    /// Reads what the planner has checked.
    pub(super) fn new(chmod: Option<&Chmod>) -> Result<Self, CopyError> {
        match chmod {
            None => Ok(Self::Keep),
            Some(Chmod::Octal(mode)) => Ok(Self::Set(*mode & ALL)),
            Some(Chmod::Symbolic(text)) => {
                let clauses = parse(text).ok_or_else(|| CopyError::Mode(text.clone()))?;
                Ok(Self::Change(clauses))
            }
        }
    }

    /// The bits of a copy of something with these.
    pub(super) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Set(mode) => *mode,
            Self::Change(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, execute_where_it_makes_sense } => {
                let executes = is_directory || mode & 0o111 != 0;
                let execute = if execute_where_it_makes_sense && executes { 0o111 } else { 0 };
                bits | execute
            }
            What::As(shift) => {
                let permissions = mode >> shift & 7;
                permissions << 6 | permissions << 3 | permissions
            }
        } & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => {
                // Of a directory chmod(1) keeps setuid and setgid where they are not named.
                let kept = if is_directory { 0o6000 } else { 0 };
                mode & !(self.who & !kept) | bits
            }
        }
    }
}

fn parse(text: &str) -> Option<Vec<Clause>> {
    let mut clauses = Vec::new();
    for part in text.split(',') {
        let start = part.find(['+', '-', '='])?;
        let mut who = 0;
        for char in part[..start].chars() {
            who |= match char {
                'u' => USER,
                'g' => GROUP,
                'o' => OTHERS,
                'a' => ALL,
                _ => return None,
            };
        }
        if who == 0 {
            who = ALL;
        }
        let mut rest = &part[start..];
        while let Some(operator) = rest.chars().next() {
            let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
            clauses.push(Clause { who, operator, what: parse_what(&rest[1..end])? });
            rest = &rest[end..];
        }
    }
    Some(clauses)
}

fn parse_what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::As(6)),
        "g" => return Some(What::As(3)),
        "o" => return Some(What::As(0)),
        _ => {}
    }
    let (mut bits, mut execute_where_it_makes_sense) = (0, false);
    for char in text.chars() {
        match char {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => execute_where_it_makes_sense = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, execute_where_it_makes_sense })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks chmod(1) itself.
    fn check(change: &str, mode: u32, is_directory: bool) {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x");
        if is_directory {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let command = format!("umask 0; chmod -- '{change}' '{}'", path.display());
        let status = std::process::Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(status.success(), "{change}");
        let expected = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let rule = ModeRule::new(Some(&Chmod::Symbolic(change.to_owned()))).unwrap();
        let found = rule.apply(mode, is_directory);
        assert_eq!(found, expected, "{change} on {mode:o}, directory {is_directory}: {found:o}");
    }

    #[test]
    fn changes_are_those_of_chmod() {
        let changes = [
            "u=rwX,go=rX",
            "u+x",
            "a=r",
            "+x",
            "-w",
            "=",
            "g=u",
            "o=g",
            "u+s",
            "g+s",
            "+t",
            "ug-s",
            "u=rw,g=r,o=",
            "a+X",
            "go-rwx",
            "u+r-w",
            "o+t",
        ];
        for change in changes {
            for mode in [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0] {
                check(change, mode, false);
                check(change, mode, true);
            }
        }
    }

    #[test]
    fn octal_bits_are_for_files_and_directories_alike() {
        let rule = ModeRule::new(Some(&Chmod::Octal(0o750))).unwrap();
        assert_eq!((rule.apply(0o644, false), rule.apply(0o755, true)), (0o750, 0o750));
        assert_eq!(ModeRule::new(None).unwrap().apply(0o4755, false), 0o4755);
        assert!(ModeRule::new(Some(&Chmod::Symbolic("k=r".to_owned()))).is_err());
    }
}
