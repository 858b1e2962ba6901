//! Files of a container, as Docker's archive API hands them out. What a container's files say is input.

use std::io::Read;

use super::docker::{Docker, DockerError};
use crate::model::ContainerId;

/// Why a container's file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("there is none")]
    Missing,
    #[error("it is a symbolic link, which is not followed")]
    Link,
    #[error("it is no regular file")]
    Kind,
    #[error("it is longer than {0} bytes")]
    Long(usize),
    #[error("Docker's answer is no archive")]
    Answer,
}

/// The content of one regular file in the container, running or not, of at most `limit` bytes.
pub async fn read_file(
    docker: &Docker,
    id: &ContainerId,
    path: &str,
    limit: usize,
) -> Result<Result<Vec<u8>, Unread>, DockerError> {
    // Headers and padding come on top of the content.
    const FRAME: usize = 16 << 10;
    let tar = docker.download(id, path, limit + FRAME).await?;
    Ok(tar.ok_or(Unread::Missing).and_then(|tar| first_file(&tar, limit)))
}

pub(crate) fn first_file(tar: &[u8], limit: usize) -> Result<Vec<u8>, Unread> {
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().map_err(|_| Unread::Answer)?;
    let entry = entries.next().and_then(Result::ok).ok_or(Unread::Answer)?;
    match entry.header().entry_type() {
        tar::EntryType::Regular if entry.size() > limit as u64 => return Err(Unread::Long(limit)),
        tar::EntryType::Regular => {}
        tar::EntryType::Symlink | tar::EntryType::Link => return Err(Unread::Link),
        _ => return Err(Unread::Kind),
    }
    let mut content = Vec::new();
    entry.take(limit as u64).read_to_end(&mut content).map_err(|_| Unread::Answer)?;
    Ok(content)
}

/// The same archive without the entries that `left_out` names by their paths in it; `None` if that leaves no file, or if
/// it is no archive.
pub fn without(tar: &[u8], left_out: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let mut rest = tar::Builder::new(Vec::new());
    let mut files = 0;
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let path = entry.path().ok()?.to_str()?.trim_end_matches('/').to_owned();
        if left_out(&path) {
            continue;
        }
        // Docker writes none; a few bytes of one stand for any number of zeros.
        if entry.header().entry_type() == tar::EntryType::GNUSparse {
            return None;
        }
        files += usize::from(!entry.header().entry_type().is_dir());
        // Headers are taken over as they are; a name too long for one comes in an entry of its own before it.
        let mut header = entry.header().clone();
        // The field may be filled in without the entry being a link, and a link has no content whatever its header says.
        let is_link = matches!(header.entry_type(), tar::EntryType::Link | tar::EntryType::Symlink);
        match entry.link_name().ok()?.filter(|_| is_link) {
            Some(target) => {
                header.set_size(0);
                rest.append_link(&mut header, &path, target).ok()?;
            }
            None => rest.append_data(&mut header, &path, &mut entry).ok()?,
        }
    }
    if files == 0 { None } else { rest.into_inner().ok() }
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
        assert_eq!(first_file(&file, 5), Err(Unread::Long(5)));
        assert_eq!(first_file(&archive(tar::EntryType::Directory, b""), 100), Err(Unread::Kind));
        assert_eq!(first_file(&archive(tar::EntryType::Fifo, b""), 100), Err(Unread::Kind));
        assert_eq!(first_file(&archive(tar::EntryType::Symlink, b""), 100), Err(Unread::Link));
        assert_eq!(first_file(b"no tar at all", 100), Err(Unread::Answer));
        assert_eq!(first_file(&file[..520], 100).unwrap_or_default(), b"root:x:0");
    }

    #[test]
    fn entries_are_left_out_by_their_paths_and_the_rest_stays_as_it_was() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        builder.append_data(&mut header, "secrets/", &b""[..]).unwrap();
        let long = format!("secrets/{}", "x".repeat(150));
        for name in ["secrets/mounted", "secrets/copied", &long] {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o440);
            header.set_uid(999);
            builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let listed = |tar: &[u8]| -> Vec<_> {
            let mut archive = tar::Archive::new(tar);
            let entries = archive.entries().unwrap().map(Result::unwrap);
            entries
                .map(|mut entry| {
                    let mut content = String::new();
                    entry.read_to_string(&mut content).unwrap();
                    let path = entry.path().unwrap().to_str().unwrap().to_owned();
                    (path, entry.header().mode().unwrap(), entry.header().uid().unwrap(), content)
                })
                .collect()
        };
        let mut expected = listed(&tar);
        expected.remove(1);
        let rest = without(&tar, |path| path == "secrets/mounted").unwrap();
        let mut found = listed(&rest);
        found[0].0 = "secrets/".into();
        assert_eq!(found, expected);
        assert_eq!(without(&tar, |path| path.starts_with("secrets/")), None);
        assert_eq!(without(b"", |_| false), None);
    }

    /// Found by fuzzing: such a file lost its content, and what came behind it was garbage.
    #[test]
    fn a_file_with_the_name_of_a_link_in_its_header_stays_a_file() {
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["one", "two"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o440);
            header.set_link_name("elsewhere").unwrap();
            builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let rest = without(&tar, |path| path == "two").unwrap();
        assert_eq!(first_file(&rest, 100).unwrap(), b"abc");
        assert_eq!(without(&tar, |_| false).unwrap(), tar);
    }

    /// A header of 512 bytes that stands for a terabyte of zeros.
    #[test]
    fn nothing_is_blown_up() {
        let mut header = tar::Header::new_gnu();
        header.set_path("secrets/huge").unwrap();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        header.set_mode(0o644);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(1 << 40);
        gnu.sparse[0].set_length(0);
        gnu.set_real_size(1 << 40);
        header.set_cksum();
        let tar = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let mut archive = tar::Archive::new(tar.as_slice());
        assert_eq!(archive.entries().unwrap().next().unwrap().unwrap().size(), 1 << 40, "it is understood");
        assert_eq!(without(&tar, |_| false), None);
        assert_eq!(first_file(&tar, 1 << 20), Err(Unread::Kind));
    }
}
