//! The numbers of a tar header.

use std::io;

/// Owner, mode and time of an archive's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderNumbers {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime_secs: i64,
}

impl HeaderNumbers {
    /// Reads them. A field that was left blank is 0, as Go reads it.
    pub fn of(header: &tar::Header) -> io::Result<Self> {
        let old = header.as_old();
        let or_blank = |field: &[u8], number: io::Result<u64>| match number {
            Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            other => other,
        };
        let owner =
            |value: u64| u32::try_from(value).map_err(|_| io::Error::other("owner too big"));
        let mode = or_blank(&old.mode, header.mode().map(u64::from))?;
        let mtime = or_blank(&old.mtime, header.mtime())?;
        Ok(Self {
            uid: owner(or_blank(&old.uid, header.uid())?)?,
            gid: owner(or_blank(&old.gid, header.gid())?)?,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            mtime_secs: i64::try_from(mtime).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_fields_are_zero_and_wrong_ones_are_errors() {
        let mut header = tar::Header::new_gnu();
        let zero = HeaderNumbers { uid: 0, gid: 0, mode: 0, mtime_secs: 0 };
        assert_eq!(HeaderNumbers::of(&header).unwrap(), zero);
        header.set_uid(7);
        header.set_mode(0o104_755);
        header.set_mtime(5);
        let found = HeaderNumbers::of(&header).unwrap();
        assert_eq!(found, HeaderNumbers { uid: 7, mode: 0o4755, mtime_secs: 5, ..zero });
        header.as_old_mut().gid = *b"nonsense";
        assert!(HeaderNumbers::of(&header).is_err());
    }
}
