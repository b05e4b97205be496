//! The texts of an image's history, as BuildKit writes them: tools read them.

use common::image::HistoryEntry;

/// What tools know BuildKit's entries by.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// An entry; `empty` where the instruction makes no layer.
pub(crate) fn entry(created_by: String, empty: bool) -> HistoryEntry {
    HistoryEntry {
        created_by: Some(created_by),
        comment: Some(COMMENT.to_owned()),
        empty_layer: empty,
        ..HistoryEntry::default()
    }
}

/// `RUN |1 A=3 /bin/sh -c … # buildkit`.
pub(crate) fn run(args: &[(String, String)], argv: &[String]) -> String {
    let mut text = "RUN ".to_owned();
    if !args.is_empty() {
        text.push_str(&format!("|{} ", args.len()));
        for (name, value) in args {
            text.extend([name, "=", value, " "]);
        }
    }
    text.push_str(&argv.join(" "));
    text.push_str(" # buildkit");
    text
}

/// A list of quoted strings as Go's `%q` writes it: `["a" "b"]`.
pub(crate) fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

/// A list as Go's `%v` writes it: `[a b]`.
pub(crate) fn plain(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}
