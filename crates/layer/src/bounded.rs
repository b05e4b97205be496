//! Archives whose headers are bounded.
//!
//! Names and attributes of an entry may stand in blocks before it, which the reader of archives
//! keeps in memory, however long they say that they are: a small compressed file can ask for any
//! amount. So the bytes that may be read between two entries are counted.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes that all headers of one entry may have: the kernel's longest attribute is 64 KiB, its
/// longest path 4 KiB.
const HEADER_BYTES: u64 = 1 << 20;

/// Says what is being read.
#[derive(Debug, Clone)]
pub struct Gate(Rc<Cell<Option<u64>>>);

impl Gate {
    /// From here on headers are read. What is left of the content before has to be read already.
    pub fn expect_headers(&self) {
        self.0.set(Some(HEADER_BYTES));
    }

    /// From here on content is read, as much as there is.
    pub fn expect_content(&self) {
        self.0.set(None);
    }
}

/// A reader that a [`Gate`] bounds.
#[derive(Debug)]
pub struct Bounded<R> {
    inner: R,
    gate: Gate,
}

impl<R: Read> Bounded<R> {
    /// The reader and its gate.
    pub fn new(inner: R) -> (Self, Gate) {
        let gate = Gate(Rc::new(Cell::new(None)));
        (Self { inner, gate: gate.clone() }, gate)
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.gate.0.get() else { return self.inner.read(buffer) };
        if left == 0 && !buffer.is_empty() {
            let text = format!("the headers of an entry are longer than {HEADER_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..limit])?;
        self.gate.0.set(Some(left - count as u64));
        Ok(count)
    }
}
