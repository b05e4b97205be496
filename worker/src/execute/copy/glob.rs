//! Wildcards of COPY sources: Go's `filepath.Match`, one path component at a time.

use std::os::unix::ffi::OsStrExt;

use rustix::fs::Dir;

use super::inside::Root;

/// Directories and matches that one pattern may visit: a hostile tree has millions.
const MAX_MATCHES: usize = 1_000_000;

/// Whether a pattern has any wildcard.
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// Whether one component of a path matches one component of a pattern: `*` any run, `?` one
/// character, `[a-z]` and `[^a-z]` one of a class, `\` the next character itself. A malformed
/// pattern matches nothing.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last star was, and which part of the name it has swallowed: one star is enough to
    // go back to, so matching takes time in proportion to the product of the lengths.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        match match_one(&pattern[p..], name[n]) {
            Some(used) => {
                p += used;
                n += 1;
            }
            None => match star {
                Some((after, swallowed)) => {
                    star = Some((after, swallowed + 1));
                    p = after;
                    n = swallowed + 1;
                }
                None => return false,
            },
        }
    }
}

/// Matches one byte; returns how much of the pattern that took.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => match_class(class, byte).map(|used| used + 1),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

fn match_class(class: &[u8], byte: u8) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut position = usize::from(negated);
    let mut found = false;
    let first = position;
    loop {
        let (low, used) = class_byte(&class[position.min(class.len())..], position == first)?;
        let Some(low) = low else {
            position += used;
            break;
        };
        position += used;
        let mut high = low;
        if class.get(position) == Some(&b'-') {
            let (end, used) = class_byte(&class[position + 1..], true)?;
            high = end?;
            position += used + 1;
        }
        found |= (low..=high).contains(&byte);
    }
    (found != negated).then_some(position)
}

/// One byte of a class, or its closing bracket as `None`; an empty class is malformed.
fn class_byte(rest: &[u8], needed: bool) -> Option<(Option<u8>, usize)> {
    match rest {
        [b']', ..] if !needed => Some((None, 1)),
        [b'\\', escaped, ..] => Some((Some(*escaped), 2)),
        [b']' | b'-', ..] | [] => None,
        [byte, ..] => Some((Some(*byte), 1)),
    }
}

/// The paths below `root` that match `pattern`, sorted; both are relative to the root. Links on the
/// way are followed inside the root. Nothing that matches is no error.
pub fn expand(root: &Root, pattern: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let mut next = Vec::new();
        for base in &found {
            if part == "**" {
                directories(root, base, &mut next)?;
            } else if has_wildcard(part) {
                for name in names(root, base)? {
                    if matches(part.as_bytes(), &name) {
                        next.push(join(base, &name));
                    }
                }
            } else {
                let path = join(base, part.as_bytes());
                if root.exists(&path) {
                    next.push(path);
                }
            }
            if next.len() > MAX_MATCHES {
                return Err(std::io::Error::other(format!(
                    "the pattern matches more than {MAX_MATCHES} paths"
                )));
            }
        }
        found = next;
    }
    found.sort_unstable();
    // Several `**` find the same in several ways.
    found.dedup();
    Ok(found)
}

/// A directory and all below it: what `**` stands for.
fn directories(root: &Root, base: &[u8], found: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    found.push(base.to_vec());
    for name in names(root, base)? {
        let path = join(base, &name);
        // Links are not followed here: they may lead in a circle.
        let is_directory = root.stat_link(&path).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
        });
        if found.len() > MAX_MATCHES {
            return Err(std::io::Error::other(format!(
                "the pattern matches more than {MAX_MATCHES} paths"
            )));
        }
        if is_directory {
            directories(root, &path, found)?;
        }
    }
    Ok(())
}

fn join(base: &[u8], name: &[u8]) -> Vec<u8> {
    if base.is_empty() { name.to_vec() } else { [base, b"/", name].concat() }
}

fn names(root: &Root, directory: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    // Not a directory, or gone: nothing matches below it.
    let Ok(directory) = root.open_directory(directory) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// The name as the file system takes it.
pub(super) fn os_name(name: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_as_in_go() {
        for (pattern, name, expected) in [
            ("*", "abc", true),
            ("*.so", "x.so", true),
            ("*.so", "x.so.1", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("?", "ab", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[[]x", "[x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", false),
            ("[]a]", "]", false),
            ("[\\]a]", "]", true),
            ("[a", "a", false),
            ("", "", true),
            ("*", "", true),
            ("**", "abc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(pattern.as_bytes(), "b".repeat(4000).as_bytes()));
    }

    #[test]
    fn patterns_are_expanded_through_directories_in_order() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/x.c", "a/y.c", "b/z.c", "b/z.h"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let root = Root::open(root.path()).unwrap();
        let found = expand(&root, "/*/*.c").unwrap();
        assert_eq!(found, [b"a/x.c".to_vec(), b"a/y.c".to_vec(), b"b/z.c".to_vec()]);
        assert_eq!(expand(&root, "/none/*").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(expand(&root, "/a").unwrap(), [b"a".to_vec()]);
        assert_eq!(expand(&root, "/").unwrap(), [b"".to_vec()]);
    }
}
