//! Long stretches of zeros in a file's bytes: they need not be written.

/// Zeros shorter than this are written like anything else: a hole costs the file system more.
const CHUNK_BYTES: usize = 32 << 10;

/// The parts of `bytes` that have to be written, each with its place, when the file is all zeros.
pub fn runs(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        if is_zero(chunk) {
            continue;
        }
        let start = number * CHUNK_BYTES;
        match runs.last_mut() {
            Some((_, end)) if *end == start => *end = start + chunk.len(),
            _ => runs.push((start, start + chunk.len())),
        }
    }
    runs.into_iter().map(|(start, end)| (start, &bytes[start..end])).collect()
}

fn is_zero(chunk: &[u8]) -> bool {
    // A comparison of memory, which is fast in debug builds too.
    static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
    chunk == ZEROS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_chunks_of_zeros_are_left_out_and_nothing_else() {
        assert!(runs(&[]).is_empty());
        assert_eq!(runs(&[0; 10]), [(0, [0; 10].as_slice())]);
        let mut bytes = vec![0; 4 * CHUNK_BYTES + 1];
        assert_eq!(runs(&bytes).len(), 1);
        bytes[CHUNK_BYTES] = 1;
        bytes[3 * CHUNK_BYTES - 1] = 1;
        let found: Vec<_> = runs(&bytes).iter().map(|(at, run)| (*at, run.len())).collect();
        assert_eq!(found, [(CHUNK_BYTES, 2 * CHUNK_BYTES), (4 * CHUNK_BYTES, 1)]);
    }
}
