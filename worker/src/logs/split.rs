//! Bytes to lines.

/// Longest line in bytes; a longer one is cut into several.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Collects bytes until a line is complete.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes bytes and gives the lines that they complete. A carriage return overwrites, as on a
    /// terminal: of a progress bar the last state stays.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = &rest[..rest.len().min(MAX_LINE_BYTES - self.rest.len())];
            let newline = room.iter().position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(room.len());
            self.rest.extend_from_slice(&room[..taken]);
            rest = &rest[taken..];
            // A line that is exactly as long as may be ends with its own end.
            let ends = rest.first() == Some(&b'\n');
            if ends || (self.rest.len() == MAX_LINE_BYTES && !rest.is_empty()) {
                rest = &rest[usize::from(ends)..];
                lines.push(self.take());
            }
        }
        lines
    }

    /// The last line, if it did not end.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let bytes = std::mem::take(&mut self.rest);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(&bytes);
        let visible = bytes.rsplit(|byte| *byte == b'\r').next().unwrap_or(bytes);
        String::from_utf8_lossy(visible).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_any_pieces() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"on"), Vec::<String>::new());
        assert_eq!(splitter.push(b"e\ntwo\r\n\nth"), ["one", "two", ""]);
        assert_eq!(splitter.push(b"10%\r50%\r100%\n"), ["100%"]);
        assert_eq!(splitter.push("\u{fc}\n".as_bytes()), ["\u{fc}"]);
        assert_eq!(splitter.push(b"\xff\n"), ["\u{fffd}"]);
        assert_eq!(splitter.finish(), None);
        splitter.push(b"end");
        assert_eq!(splitter.finish().as_deref(), Some("end"));
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut splitter = Splitter::default();
        let lines = splitter.push(&vec![b'x'; 3 * MAX_LINE_BYTES]);
        assert_eq!(lines.len(), 2);
        assert_eq!(splitter.push(b"\n").len(), 1);
        assert_eq!(splitter.push(b"next\n"), ["next"]);
    }
}
