//! How much of a command's output is kept.

use std::collections::VecDeque;

use api::public::v1::LogStream;

/// Of what is too much the last bytes are kept: an error stands at the end.
const END_BYTES: usize = 64 << 10;
/// What a line costs besides its text.
const LINE_BYTES: usize = 1;

/// Lets lines through until there have been too many.
#[derive(Debug)]
pub(super) struct Bound {
    limit: u64,
    left: u64,
    dropped_lines: u64,
    dropped_bytes: u64,
    end: VecDeque<(LogStream, String)>,
    end_bytes: usize,
}

impl Bound {
    /// A bound of so many bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            left: limit,
            dropped_lines: 0,
            dropped_bytes: 0,
            end: VecDeque::new(),
            end_bytes: 0,
        }
    }

    /// The line if there is room for it. After the first one that had none, none has.
    pub(super) fn admit(&mut self, stream: LogStream, text: String) -> Option<String> {
        let size = text.len() + LINE_BYTES;
        let is_open = self.end.is_empty() && self.dropped_lines == 0;
        if is_open && self.left >= size as u64 {
            self.left -= size as u64;
            return Some(text);
        }
        self.end_bytes += size;
        self.end.push_back((stream, text));
        while self.end_bytes > END_BYTES {
            let Some((_, text)) = self.end.pop_front() else { break };
            self.end_bytes -= text.len() + LINE_BYTES;
            self.dropped_lines += 1;
            self.dropped_bytes += (text.len() + LINE_BYTES) as u64;
        }
        None
    }

    /// What to say of the lines that are gone.
    pub(super) fn notice(&self) -> Option<String> {
        (self.dropped_lines > 0).then(|| {
            format!(
                "warning: {} lines ({} bytes) of output are left out here: a step may write {} \\
                 bytes (runtime.log_bytes of the worker)",
                self.dropped_lines, self.dropped_bytes, self.limit
            )
        })
    }

    /// The last lines.
    pub(super) fn end(self) -> VecDeque<(LogStream, String)> {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept_and_the_rest_is_counted() {
        let mut bound = Bound::new(100);
        let line = |number: u32| format!("{number:>999}");
        assert_eq!(bound.admit(LogStream::Stdout, "first".into()).as_deref(), Some("first"));
        for number in 0..1000 {
            assert_eq!(bound.admit(LogStream::Stdout, line(number)), None);
        }
        // Short enough, but out of order.
        assert_eq!(bound.admit(LogStream::Stderr, "error".into()), None);
        let notice = bound.notice().unwrap();
        let end: Vec<_> = bound.end().into();
        assert_eq!(end.last().unwrap(), &(LogStream::Stderr, "error".to_owned()));
        let kept: usize = end.iter().map(|(_, text)| text.len() + 1).sum();
        assert!(kept <= END_BYTES && kept > END_BYTES - 1000);
        assert!(notice.contains(&format!("{} lines", 1001 - end.len())), "{notice}");
    }

    #[test]
    fn what_fits_into_the_end_is_not_missed() {
        let mut bound = Bound::new(3);
        assert_eq!(bound.admit(LogStream::Stdout, "abc".into()), None);
        assert_eq!(bound.notice(), None);
        assert_eq!(bound.end().len(), 1);
    }
}
