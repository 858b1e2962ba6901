//! Whether a file may have changed, without reading it.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use time::OffsetDateTime;

/// How long a file of a user's has to be as it is until it is read: whoever writes in several pieces may not have done
/// yet.
pub const QUIET: Duration = Duration::from_millis(50);

/// Changes whenever the file may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    length: u64,
    /// The last change, in nanoseconds since 1970.
    pub changed: i128,
}

/// `None` if there is no file.
pub fn of(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
    Some(Stamp { device: found.dev(), inode: found.ino(), length: found.len(), changed })
}

/// What is left, for a file that changed then (nanoseconds since 1970, by the wall clock), of the time for which it has to
/// stay as it is. A clock that was set back is no reason to wait.
pub fn rest(changed: i128, now: OffsetDateTime, quiet: Duration) -> Option<Duration> {
    let age = u64::try_from(now.unix_timestamp_nanos() - changed).ok()?;
    quiet.checked_sub(Duration::from_nanos(age)).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_with_the_content_and_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(of(&path), None);
        fs::write(&path, "one").unwrap();
        let first = of(&path).unwrap();
        assert_eq!(of(&path), Some(first));
        fs::write(&path, "longer").unwrap();
        let longer = of(&path).unwrap();
        assert!(longer != first && longer.inode == first.inode);
        fs::write(folder.path().join("new"), "longer").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(of(&path).unwrap().inode, longer.inode);
    }
}
