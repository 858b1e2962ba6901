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
    fn only_a_regular_file_of_bounded_size_is_read() {
        let file = archive(tar::EntryType::Regular, b"root:x:0:0");
        assert_eq!(first_file(&file, 100).unwrap(), b"root:x:0:0");
        assert_eq!(first_file(&file, 5), None);
        assert_eq!(first_file(&archive(tar::EntryType::Directory, b""), 100), None);
        assert_eq!(first_file(b"no tar at all", 100), None);
        assert_eq!(first_file(&file[..520], 100).unwrap_or_default(), b"root:x:0");
    }
}
