//! What a client's process has seen of the trust bundle, so that it is restarted when that is no longer what there is,
//! and only then: one small file for each container with `dbssl.client.restart=true`. Nothing else tells it, since the
//! file of today says nothing of the one that a process read when it started. Losing a record costs one restart that
//! is not made, nothing else.

use std::{fs, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::files::{self, FileContent, FileError};
use crate::model::ContainerId;

/// One process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Tells it from the container's other processes, before and after.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// The certificates that it found when it started, by fingerprint.
    pub certificates: Vec<String>,
    /// What the container was last restarted for: never twice for the same.
    pub restarted_for: Option<Target>,
}

/// The bundle at one moment: the certificates by fingerprint, and the file that holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub certificates: Vec<String>,
    pub device: u64,
    pub inode: u64,
}

/// The container's record, if there is one that can be read.
pub fn read(state: &Path, id: &ContainerId) -> Option<Seen> {
    serde_json::from_slice(&fs::read(file(state, id)).ok()?).ok()
}

pub fn write(state: &Path, id: &ContainerId, seen: &Seen) -> Result<(), FileError> {
    let path = file(state, id);
    if let Some(folder) = path.parent() {
        files::make_folder(folder, 0o700)?;
    }
    let text = serde_json::to_vec(seen).map_err(|why| FileError::new("encode", &path, why))?;
    files::replace(&path, FileContent::Public(&text), 0o600, None)
}

/// Removes the records of all containers but these.
pub fn retain(state: &Path, keep: impl Fn(&ContainerId) -> bool) {
    for entry in fs::read_dir(folder(state)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::parse);
        // A file that is being written has another name.
        if let Some(Ok(id)) = id
            && !keep(&id)
        {
            // Not being there is what is wanted.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("clients")
}

fn file(state: &Path, id: &ContainerId) -> PathBuf {
    folder(state).join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_goes_with_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other]: [ContainerId; 2] = ["a", "b"].map(|digit| digit.repeat(64).parse().unwrap());
        let target = Target { certificates: vec!["01".to_owned()], device: u64::MAX, inode: 7 };
        let seen = Seen {
            started_at: OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds(1),
            certificates: Vec::new(),
            restarted_for: Some(target),
        };
        assert_eq!(read(folder.path(), &one), None);
        retain(folder.path(), |_| true);
        write(folder.path(), &one, &seen).unwrap();
        write(folder.path(), &other, &seen).unwrap();
        retain(folder.path(), |id| *id == one);
        assert_eq!(read(folder.path(), &one), Some(seen));
        assert_eq!(read(folder.path(), &other), None);
        fs::write(file(folder.path(), &one), "{").unwrap();
        assert_eq!(read(folder.path(), &one), None);
    }
}
