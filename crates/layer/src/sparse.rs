//! Files with holes, without filling them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{SeekFrom, seek};

/// Bytes that are looked at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Copies a stream into a new, empty file, leaving holes for long stretches of zeros. Returns its
/// length. `buffer` is empty at first and can be used again; `check` is called with the bytes so
/// far, now and then.
pub fn write_stream(
    reader: &mut impl Read,
    file: &File,
    buffer: &mut Vec<u8>,
    mut check: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    buffer.resize(BUFFER_BYTES, 0);
    let (mut length, mut end) = (0, 0);
    loop {
        let count = fill(reader, buffer)?;
        for (at, run) in common::holes::runs(&buffer[..count]) {
            file.write_all_at(run, length + at as u64)?;
            end = length + (at + run.len()) as u64;
        }
        length += count as u64;
        if count < buffer.len() {
            break;
        }
        check(length)?;
    }
    if end < length {
        file.set_len(length)?;
    }
    Ok(length)
}

/// Copies a file into a new, empty one; what is a hole stays one. Returns its length.
pub fn copy_file(from: &mut File, to: &mut File) -> io::Result<u64> {
    let found = from.metadata()?;
    if found.blocks().saturating_mul(512) >= found.len() {
        // The standard library lets the kernel share or copy the bytes.
        return io::copy(from, to);
    }
    let mut at = 0;
    while at < found.len() {
        let start = match seek(&*from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(&*from, SeekFrom::Hole(start))?;
        seek(&*from, SeekFrom::Start(start))?;
        seek(&*to, SeekFrom::Start(start))?;
        let copied = io::copy(&mut (&*from).take(end - start), to)?;
        if copied < end - start {
            // It became shorter meanwhile.
            return Ok(start + copied);
        }
        at = end;
    }
    to.set_len(found.len())?;
    Ok(found.len())
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stay_holes_and_content_stays_content() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true);
            options.open(directory.path().join(name)).unwrap()
        };
        // Empty, nothing but a hole, data at the end, data in the middle.
        for (number, (length, places)) in [
            (0, vec![]),
            (9 << 30, vec![]),
            (9 << 30, vec![(9 << 30) - 3]),
            (5 << 20, vec![1 << 20]),
        ]
        .into_iter()
        .enumerate()
        {
            let mut from = make(&format!("from-{number}"));
            from.set_len(length).unwrap();
            for place in &places {
                from.write_all_at(b"abc", *place).unwrap();
            }
            let mut to = make(&format!("to-{number}"));
            assert_eq!(copy_file(&mut from, &mut to).unwrap(), length);
            let found = to.metadata().unwrap();
            assert_eq!(found.len(), length);
            assert!(found.blocks() <= 64, "{number}: {} blocks", found.blocks());
            for place in &places {
                let mut bytes = [0; 3];
                to.read_exact_at(&mut bytes, *place).unwrap();
                assert_eq!(&bytes, b"abc");
            }
        }
        let file = make("stream");
        let zeros = io::repeat(0).take(3 << 20).chain(b"end".as_slice());
        assert_eq!(
            write_stream(&mut { zeros }, &file, &mut Vec::new(), |_| Ok(())).unwrap(),
            (3 << 20) + 3
        );
        assert!(file.metadata().unwrap().blocks() <= 64);
    }
}
