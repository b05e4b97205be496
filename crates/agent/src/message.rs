//! Messages: framing, and which of them are passed on.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest message in bytes: what OpenSSH's own agent takes (`AGENT_MAX_LEN`).
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;

// Numbers of the draft, section 6.1.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const EXTENSION: u8 = 27;

/// Extensions that change no key: binding a connection to a session, and asking which there are.
const EXTENSIONS: [&[u8]; 2] = [b"session-bind@openssh.com", b"query"];

/// A request or an answer: 1 to [`MAX_MESSAGE_BYTES`] bytes. Its debug form shows only what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Takes bytes that can be a message.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=MAX_MESSAGE_BYTES).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The answer that nothing was done.
    pub fn failure() -> Self {
        Self(vec![FAILURE])
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whether this request may be passed on: a list of keys, a signature, or a harmless extension.
    /// Adding, removing, locking and whatever else there may be is not.
    pub fn is_passed_on(&self) -> bool {
        match self.0.as_slice() {
            [REQUEST_IDENTITIES | SIGN_REQUEST, ..] => true,
            [EXTENSION, a, b, c, d, rest @ ..] => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                let name = usize::try_from(length).ok().and_then(|length| rest.get(..length));
                name.is_some_and(|name| EXTENSIONS.contains(&name))
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.first().copied().unwrap_or_default();
        write!(f, "Message(kind {kind}, {} bytes)", self.0.len())
    }
}

/// Reads a message; none where the other side has ended between two. One that is empty or too long
/// is an error, after which nothing more can be read.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Message>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(1..=MAX_MESSAGE_BYTES).contains(&length) {
        let text = format!("a message of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // The memory grows with what has come: a length alone costs nothing.
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Message(bytes)))
}

/// Writes a message.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    let length = u32::try_from(message.0.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(4 + message.0.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message.0);
    to.write_all(&frame).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn read_all(mut bytes: &[u8]) -> io::Result<Vec<Message>> {
        run(async {
            let mut found = Vec::new();
            while let Some(message) = read(&mut bytes).await? {
                found.push(message);
            }
            Ok(found)
        })
    }

    fn extension(name: &[u8]) -> Message {
        let length = u32::try_from(name.len()).unwrap().to_be_bytes();
        Message([&[EXTENSION], &length[..], name, b"more"].concat())
    }

    #[test]
    fn only_listing_signing_and_harmless_extensions_are_passed_on() {
        for kind in 0..=u8::MAX {
            let is_passed_on = Message(vec![kind, 0, 0, 0, 0]).is_passed_on();
            assert_eq!(is_passed_on, matches!(kind, 11 | 13), "{kind}");
        }
        assert!(extension(b"session-bind@openssh.com").is_passed_on());
        assert!(extension(b"query").is_passed_on());
        for name in [&b"add-key@x.test"[..], b"", b"quer", b"query\0", b"session-bind@openssh.co"] {
            assert!(!extension(name).is_passed_on(), "{name:?}");
        }
        // A name longer than the message, and no name at all.
        assert!(
            !Message([&[EXTENSION, 0xff, 0xff, 0xff, 0xff], &b"query"[..]].concat()).is_passed_on()
        );
        assert!(!Message([&[EXTENSION, 0, 0, 0, 6], &b"query"[..]].concat()).is_passed_on());
        assert!(!Message(vec![EXTENSION, 0, 0]).is_passed_on());
    }

    #[test]
    fn messages_without_bytes_or_with_too_many_are_refused() {
        assert_eq!(Message::new(Vec::new()), None);
        assert_eq!(Message::new(vec![0; MAX_MESSAGE_BYTES + 1]), None);
        assert!(Message::new(vec![0; MAX_MESSAGE_BYTES]).is_some());
        assert!(read_all(&[0, 0, 0, 0]).is_err());
        assert!(read_all(&[0xff, 0xff, 0xff, 0xff, 1, 2]).is_err());
        let too_long = u32::try_from(MAX_MESSAGE_BYTES).unwrap() + 1;
        assert!(read_all(&too_long.to_be_bytes()).is_err());
        // Cut short: in the length, and in what follows.
        assert!(read_all(&[0, 0]).is_err());
        assert!(read_all(&[0, 0, 0, 3, 11]).is_err());
        assert_eq!(read_all(&[]).unwrap(), []);
    }

    #[test]
    fn what_a_message_says_is_not_shown() {
        let message = Message(b"\x0dhunter2".to_vec());
        assert_eq!(format!("{message:?}"), "Message(kind 13, 8 bytes)");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5)) {
            let all: Vec<Message> = all.into_iter().map(|bytes| Message::new(bytes).unwrap()).collect();
            let mut wire = Vec::new();
            run(async {
                for message in &all {
                    write(&mut wire, message).await.unwrap();
                }
            });
            prop_assert_eq!(read_all(&wire).unwrap(), all);
        }

        #[test]
        fn no_bytes_confuse_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(found) = read_all(&bytes) {
                let length: usize = found.iter().map(|message| message.bytes().len() + 4).sum();
                prop_assert_eq!(length, bytes.len());
                for message in found {
                    let _ = message.is_passed_on();
                }
            }
        }
    }
}
