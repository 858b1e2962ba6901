//! Files of a container, as Docker's archive API hands them out. What a container's files say is input.

use std::io::Read;

use super::docker::{Docker, DockerError};
use crate::model::ContainerId;

/// The content of one regular file in the container, running or not; `None` if there is none at `path`, if it
/// is something else (a symlink is not followed), or if it is longer than `limit` bytes.
pub async fn read_file(
    docker: &Docker,
    id: &ContainerId,
    path: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, DockerError> {
    // Headers and padding come on top of the content.
    const FRAME: usize = 16 << 10;
    let tar = docker.download(id, path, limit + FRAME).await?;
    Ok(tar.and_then(|tar| first_file(&tar, limit)))
}

fn first_file(tar: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entry = archive.entries().ok()?.next()?.ok()?;
    if entry.header().entry_type() != tar::EntryType::Regular || entry.size() > limit as u64 {
        return None;
    }
    let mut content = Vec::new();
    entry.take(limit as u64).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The same archive without the entries whose path (no leading slash) is to be left out; `None` if it cannot be
/// read, or holds nothing but folders then.
pub fn without(tar: &[u8], leave_out: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let mut kept = tar::Builder::new(Vec::new());
    let mut files = false;
    for entry in tar::Archive::new(tar).entries().ok()? {
        let mut entry = entry.ok()?;
        let path = entry.path().ok()?.to_str()?.trim_matches('/').to_owned();
        if leave_out(&path) {
            continue;
        }
        files |= !entry.header().entry_type().is_dir();
        let mut header = entry.header().clone();
        kept.append_data(&mut header, &path, &mut entry).ok()?;
    }
    let kept = kept.into_inner().ok()?;
    files.then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "passwd", content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn entries_can_be_left_out_and_the_rest_keeps_its_owner_and_mode() {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in [("secrets/own", "a"), ("secrets/mounted", "b")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o440);
            header.set_uid(999);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let both = builder.into_inner().unwrap();
        let own = without(&both, |path| path == "secrets/mounted").unwrap();
        let mut archive = tar::Archive::new(own.as_slice());
        let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path().unwrap().to_str(), Some("secrets/own"));
        assert_eq!((entries[0].header().mode().unwrap(), entries[0].header().uid().unwrap()), (0o440, 999));
        assert_eq!(without(&both, |_| true), None);
        assert_eq!(without(b"no tar at all", |_| false), None);
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let file = archive(tar::EntryType::Regular, b"root:x:0:0");
        assert_eq!(first_file(&file, 100).unwrap(), b"root:x:0:0");
        assert_eq!(first_file(&file, 5), None);
        assert_eq!(first_file(&archive(tar::EntryType::Directory, b""), 100), None);
        assert_eq!(first_file(b"no tar at all", 100), None);
        assert_eq!(first_file(&file[..520], 100).unwrap_or_default(), b"root:x:0");
    }
}
