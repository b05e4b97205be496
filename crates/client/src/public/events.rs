//! Server-Sent Events (WHATWG HTML, "Server-sent events").

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::Response;
use std::pin::Pin;

/// Longest event in bytes: a build's view with many stages.
const MAX_EVENT_BYTES: usize = 32 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Its type.
    pub name: String,
    /// Its id, by which a reader can go on later.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

type Chunks = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// Reads events of an answer.
pub(super) struct EventReader {
    chunks: Chunks,
    parser: Parser,
}

impl EventReader {
    pub(super) fn new(response: Response) -> Self {
        Self { chunks: response.bytes_stream().boxed(), parser: Parser::default() }
    }

    /// The next event; none at the end.
    pub(super) async fn next(&mut self) -> reqwest::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.event() {
                return Ok(Some(event));
            }
            match self.chunks.next().await {
                Some(chunk) => self.parser.push(&chunk?),
                None => return Ok(None),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > MAX_EVENT_BYTES {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first complete event; comments alone are none.
    fn event(&mut self) -> Option<Event> {
        loop {
            let end = self.bytes.windows(2).position(|pair| pair == b"\n\n")?;
            let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&block);
            let mut event = Event { name: "message".to_owned(), ..Event::default() };
            let mut data: Vec<&str> = Vec::new();
            for line in text.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => value.clone_into(&mut event.name),
                    "id" => event.id = Some(value.to_owned()),
                    "data" => data.push(value),
                    _ => {}
                }
            }
            if !data.is_empty() {
                event.data = data.join("\n");
                return Some(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_pieces() {
        let mut parser = Parser::default();
        for byte in b": hello\n\nevent: log\nid: 7\ndata: a\ndata: b\n\ndata:c\n\n" {
            parser.push(&[*byte]);
        }
        let first = Event { name: "log".into(), id: Some("7".into()), data: "a\nb".into() };
        assert_eq!(parser.event(), Some(first));
        let second = Event { name: "message".into(), id: None, data: "c".into() };
        assert_eq!(parser.event(), Some(second));
        assert_eq!(parser.event(), None);
    }
}
