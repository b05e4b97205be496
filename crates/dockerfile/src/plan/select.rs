//! The entries of a tree that a path or pattern reaches, links followed.
//!
//! What is selected may be more than what is copied, never less: the client sends exactly this, and
//! keys are made of exactly this.

use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use common::ignore;
use common::tree::{Entry, EntryKind, Manifest, TreePath};

use crate::diagnostic::Problem;
use crate::expand::Budget;

/// Most links on the way to one entry, as in BuildKit.
const MAX_LINKS: u32 = 255;

/// A place in the tree, and what of the pattern is still to be found below it.
struct Todo {
    at: TreePath,
    parts: Rc<[String]>,
    next: usize,
    links: u32,
}

/// Finds what a pattern selects, by position.
pub(super) struct Selection<'a> {
    manifest: &'a Manifest,
    budget: &'a Budget,
    todo: Vec<Todo>,
    /// Where links led.
    seen: HashSet<(TreePath, Vec<String>)>,
    found: BTreeSet<usize>,
}

impl<'a> Selection<'a> {
    /// The entries below the root that `pattern` reaches, in order.
    pub(super) fn of(
        manifest: &'a Manifest,
        pattern: &str,
        budget: &'a Budget,
    ) -> Result<BTreeSet<usize>, Problem> {
        let parts: Rc<[String]> = parts(pattern).map(str::to_owned).collect();
        let start = Todo { at: TreePath::root(), parts, next: 0, links: 0 };
        let (seen, found) = (HashSet::new(), BTreeSet::new());
        let mut selection = Self { manifest, budget, todo: vec![start], seen, found };
        while let Some(todo) = selection.todo.pop() {
            selection.step(&todo)?;
        }
        Ok(selection.found)
    }

    fn step(&mut self, todo: &Todo) -> Result<(), Problem> {
        self.charge(1)?;
        let Some(part) = todo.parts.get(todo.next) else {
            return self.take(&todo.at);
        };
        if part == ".." {
            // Only in the target of a link; the root is its own parent.
            let at = todo.at.parent().unwrap_or_default();
            self.todo.push(Todo {
                at,
                next: todo.next + 1,
                parts: Rc::clone(&todo.parts),
                ..*todo
            });
            return Ok(());
        }
        if part.contains("**") {
            return self.take_with_links(todo);
        }
        if !has_wildcard(part) {
            if let Some(position) = self.position(&todo.at, part.as_bytes()) {
                self.enter(position, todo)?;
            }
            return Ok(());
        }
        for position in self.children(&todo.at) {
            self.charge(1)?;
            if fits(part, &self.manifest.entries[position].path) {
                self.enter(position, todo)?;
            }
        }
        Ok(())
    }

    /// Goes on at an entry that the next part of the pattern names.
    fn enter(&mut self, position: usize, todo: &Todo) -> Result<(), Problem> {
        let entry = &self.manifest.entries[position];
        let (next, parts) = (todo.next + 1, Rc::clone(&todo.parts));
        match &entry.kind {
            EntryKind::Symlink { .. } => {
                self.found.insert(position);
                self.follow(entry, &todo.parts[next..], todo.links)
            }
            EntryKind::Directory => {
                let at = entry.path.clone();
                self.todo.push(Todo { at, parts, next, links: todo.links });
                Ok(())
            }
            _ => {
                if next == parts.len() {
                    self.add(position);
                }
                Ok(())
            }
        }
    }

    fn follow(&mut self, link: &Entry, rest: &[String], links: u32) -> Result<(), Problem> {
        let EntryKind::Symlink { target } = &link.kind else { return Ok(()) };
        // A name that is no text is nothing that a pattern can name, but a link can.
        let Ok(target) = std::str::from_utf8(target) else { return self.take(&TreePath::root()) };
        if links == MAX_LINKS {
            return Ok(());
        }
        let is_absolute = target.starts_with('/');
        let at = link.path.parent().filter(|_| !is_absolute).unwrap_or_default();
        // Names in a link's target are names, whatever characters they have.
        let named = parts(target).map(escaped);
        let parts: Vec<String> = named.chain(rest.iter().cloned()).collect();
        self.charge(parts.iter().map(String::len).sum())?;
        if self.seen.insert((at.clone(), parts.clone())) {
            self.todo.push(Todo { at, parts: parts.into(), next: 0, links: links + 1 });
        }
        Ok(())
    }

    /// An entry with all that is below it.
    fn take(&mut self, at: &TreePath) -> Result<(), Problem> {
        let below = self.below(at);
        self.charge(below.len())?;
        if let Some(position) = self.find(at) {
            self.add(position);
        }
        below.for_each(|position| self.add(position));
        Ok(())
    }

    /// All that is below, and what links below lead to: any of them may be what is copied.
    fn take_with_links(&mut self, todo: &Todo) -> Result<(), Problem> {
        self.take(&todo.at)?;
        for position in self.below(&todo.at) {
            let entry = &self.manifest.entries[position];
            self.follow(entry, &todo.parts[todo.next..], todo.links)?;
            self.follow(entry, &[], todo.links)?;
        }
        Ok(())
    }

    fn add(&mut self, position: usize) {
        self.found.insert(position);
    }

    fn charge(&self, cost: usize) -> Result<(), Problem> {
        self.budget.charge(cost).map_err(Problem::too_much)
    }

    fn find(&self, path: &TreePath) -> Option<usize> {
        self.manifest.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    fn position(&self, at: &TreePath, name: &[u8]) -> Option<usize> {
        self.find(&TreePath::new(child(at, name)).ok()?)
    }

    fn below(&self, at: &TreePath) -> std::ops::Range<usize> {
        let entries = &self.manifest.entries;
        if at.as_bytes().is_empty() {
            return entries.len().min(1)..entries.len();
        }
        // `0` is what follows the slash.
        let (from, to) = ([at.as_bytes(), b"/"].concat(), [at.as_bytes(), b"0"].concat());
        let until = |border: &[u8]| entries.partition_point(|it| it.path.as_bytes() < border);
        until(&from)..until(&to)
    }

    /// The entries of a directory.
    fn children(&self, at: &TreePath) -> Vec<usize> {
        let all = self.below(at);
        let skip = if at.as_bytes().is_empty() { 0 } else { at.as_bytes().len() + 1 };
        let (mut found, mut position) = (Vec::new(), all.start);
        while position < all.end {
            let path = self.manifest.entries[position].path.as_bytes();
            match path[skip..].iter().position(|byte| *byte == b'/') {
                None => {
                    found.push(position);
                    position += 1;
                }
                // What lies deeper is passed over at once.
                Some(end) => {
                    let next = [&path[..skip + end], b"0"].concat();
                    position = self
                        .manifest
                        .entries
                        .partition_point(|entry| entry.path.as_bytes() < next.as_slice());
                }
            }
        }
        found
    }
}

fn parts(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter(|part| !part.is_empty() && *part != ".")
}

pub(super) fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

fn child(at: &TreePath, name: &[u8]) -> Vec<u8> {
    let mut path = at.as_bytes().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
    path
}

/// A name as a pattern that means nothing but it.
fn escaped(name: &str) -> String {
    if !has_wildcard(name) {
        return name.to_owned();
    }
    let escape = |char: char| {
        let is_special = matches!(char, '*' | '?' | '[' | '\\');
        is_special.then_some('\\').into_iter().chain([char])
    };
    name.chars().flat_map(escape).collect()
}

/// Whoever copies may see bytes where this sees characters: such names fit every wildcard.
fn fits(part: &str, path: &TreePath) -> bool {
    let name = String::from_utf8_lossy(path.file_name());
    part == name || !name.is_ascii() || ignore::component(part, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name` is a file, `name/` a directory, `name -> target` a link.
    fn tree(lines: &[&str]) -> Manifest {
        let mut entries: Vec<Entry> = lines.iter().map(|line| entry(line)).collect();
        entries.push(entry("/"));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Manifest { packs: Vec::new(), entries }
    }

    fn entry(line: &str) -> Entry {
        let (name, kind) = if let Some((name, target)) = line.split_once(" -> ") {
            (name, EntryKind::Symlink { target: target.as_bytes().to_vec() })
        } else if let Some(name) = line.strip_suffix('/') {
            (name, EntryKind::Directory)
        } else {
            (line, EntryKind::Fifo)
        };
        let path = TreePath::new(name).unwrap();
        Entry { path, mode: 0, uid: 0, gid: 0, mtime_secs: 0, xattrs: Vec::new(), kind }
    }

    fn selected(manifest: &Manifest, pattern: &str) -> String {
        let budget = Budget::default();
        let found = Selection::of(manifest, pattern, &budget).unwrap();
        let names = found.iter().map(|position| manifest.entries[*position].path.display());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_and_patterns_select_what_they_name_and_what_is_below() {
        let tree = tree(&["a/", "a/x", "a/y/", "a/y/z", "a-b", "b/", "b/x", "c.txt", "d.txt"]);
        for (pattern, expected) in [
            ("/", " a a-b a/x a/y a/y/z b b/x c.txt d.txt"),
            ("/a", "a a/x a/y a/y/z"),
            ("/a/y/z", "a/y/z"),
            ("/a/none", ""),
            ("/c.txt/x", ""),
            ("/*.txt", "c.txt d.txt"),
            ("/*/x", "a/x b/x"),
            ("/a*", "a a-b a/x a/y a/y/z"),
            ("/a/./y", "a/y a/y/z"),
            ("/a/**/z", "a a/x a/y a/y/z"),
        ] {
            assert_eq!(selected(&tree, pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn links_on_the_way_and_named_ones_are_followed_but_none_below() {
        let tree = tree(&[
            "abs -> /real/dir",
            "dir/",
            "dir/in -> ../other",
            "dir/up -> ../../../other",
            "loop -> loop2",
            "loop2 -> loop",
            "lost -> none",
            "other",
            "real/",
            "real/dir/",
            "real/dir/f",
            "real/dir/g -> ../h",
            "real/h",
            "star -> *",
            "*",
        ]);
        for (pattern, expected) in [
            ("/abs", "abs real/dir real/dir/f real/dir/g"),
            ("/abs/f", "abs real/dir/f"),
            ("/abs/g", "abs real/dir/g real/h"),
            ("/ab*/g", "abs real/dir/g real/h"),
            ("/dir", "dir dir/in dir/up"),
            ("/dir/in", "dir/in other"),
            ("/dir/u?", "dir/up other"),
            ("/dir/**", "dir dir/in dir/up other"),
            ("/loop", "loop loop2"),
            ("/lost", "lost"),
            ("/star", "* star"),
        ] {
            assert_eq!(selected(&tree, pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn links_that_lead_to_ever_more_places_end() {
        let names: Vec<String> =
            (0..30).map(|n| format!("l{n} -> l{}/l{}", n + 1, n + 1)).collect();
        let mut lines: Vec<&str> = names.iter().map(String::as_str).collect();
        lines.extend(["l30 -> .", "x -> x/x"]);
        let tree = tree(&lines);
        for pattern in ["/l0", "/x", "/*/*/*/*/*/*/*/*", "/**"] {
            let budget = Budget::default();
            let _ = Selection::of(&tree, pattern, &budget);
        }
    }
}
