//! A file put into a container's own file system, so that whoever reads it there sees the former one or the new one.
//!
//! # Why so
//!
//! - **Docker's archive API, not `/proc/PID/root`.** Docker unpacks an archive within the container's root (`chroot`), so
//!   that no link in a hostile container leads out of it, whatever the storage driver, and also into one that does not
//!   run. The other way needs `CAP_SYS_PTRACE` and Linux 5.6, and trusts that the process is the container's own: under
//!   Kata Containers it is the virtual machine's, whose root is this host's.
//!   (A container that puts a link in place of a folder at this very moment can have the file written to where the link
//!   leads, which is within the container's root and its writable mounts: where it can write itself.)
//! - **Not under its own name.** Docker removes what has the name, makes an empty file, and copies into it
//!   (`createTarFile` in `moby/pkg/archive`): a reader would find nothing, or half of it. Where a process may read, the
//!   content gets a name of its own first.
//! - **`mv` in the container gives it its name**, which is one `rename(2)`: a reader finds the former file or the new one
//!   and never none.
//! - **Without a `mv` in the image, a hard link** does, from a second archive: Docker removes the former name right
//!   before it makes the link, so that for some microseconds a reader finds no file, and never half of one. The other
//!   name stays; it is another name of the same content, and the next delivery uses it again.

use std::time::Duration;

use time::OffsetDateTime;

use super::{
    archive,
    docker::{Docker, DockerError, Exec, ExecOutput, Node},
    files,
};
use crate::model::ContainerId;

/// A `mv` of one name takes milliseconds; one that hangs must not hold us.
const MOVE: Duration = Duration::from_secs(20);

/// Where a path in a container leads, without links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The innermost folder that is there, absolute.
    folder: String,
    /// Folders below it that have to be made.
    missing: Vec<String>,
    name: String,
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Nothing,
    File(Vec<u8>),
    /// A link, or a file that is too long to be a bundle.
    Something,
    /// Not to be replaced by a file: a folder or a device.
    Unfit,
}

impl Place {
    pub fn path(&self) -> String {
        join(&self.folder, &self.inner(&self.name))
    }

    /// The same once its folders are there.
    #[must_use]
    pub fn made(&self) -> Self {
        let folder = self.missing.iter().fold(self.folder.clone(), |folder, part| join(&folder, part));
        Self { folder, missing: Vec::new(), name: self.name.clone() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name in the place's folder, as an archive for `self.folder` has it.
    fn inner(&self, name: &str) -> String {
        let parts: Vec<_> = self.missing.iter().map(String::as_str).chain([name]).collect();
        parts.join("/")
    }
}

/// Follows the links of the path's folders; `None` if one of its parts is there and is no folder.
pub async fn locate(docker: &Docker, id: &ContainerId, path: &str) -> Result<Option<Place>, DockerError> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut place = Place { folder: "/".to_owned(), missing: Vec::new(), name: name.to_owned() };
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        if !place.missing.is_empty() {
            place.missing.push(part.to_owned());
            continue;
        }
        let next = join(&place.folder, part);
        place.folder = match docker.stat(id, &next).await? {
            None => {
                place.missing.push(part.to_owned());
                continue;
            }
            Some(Node::Folder) => next,
            Some(Node::Link { target })
                if target.starts_with('/') && docker.stat(id, &target).await? == Some(Node::Folder) =>
            {
                target
            }
            Some(_) => return Ok(None),
        };
    }
    Ok(Some(place))
}

pub async fn held(docker: &Docker, id: &ContainerId, place: &Place) -> Result<Held, DockerError> {
    if !place.missing.is_empty() {
        return Ok(Held::Nothing);
    }
    let path = place.path();
    match docker.stat(id, &path).await? {
        None => Ok(Held::Nothing),
        Some(Node::File { length }) if length <= files::LIMIT => {
            let limit = usize::try_from(files::LIMIT).unwrap_or(usize::MAX);
            let content = archive::read_file(docker, id, &path, limit).await?;
            Ok(content.map_or(Held::Something, Held::File))
        }
        Some(Node::File { .. } | Node::Link { .. }) => Ok(Held::Something),
        Some(Node::Folder | Node::Other) => Ok(Held::Unfit),
    }
}

/// Puts a file of that content there, 0644 and root's, and the folders that are missing, 0755. `staged`: what it is
/// called in its folder until it has its name, where processes of the container may read it meanwhile.
pub async fn deliver(
    docker: &Docker,
    id: &ContainerId,
    place: &Place,
    content: &[u8],
    staged: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), DockerError> {
    let name = place.inner(&place.name);
    let Some(staged) = staged.map(|staged| place.inner(staged)) else {
        return docker.put(id, &place.folder, with_file(place, &name, content, now)).await;
    };
    docker.put(id, &place.folder, with_file(place, &staged, content, now)).await?;
    // Over a link to a folder `mv` would go into that folder.
    let plain = !matches!(docker.stat(id, &place.path()).await?, Some(Node::Link { .. } | Node::Folder));
    if plain && moved(docker, id, &join(&place.folder, &staged), &place.path()).await {
        return Ok(());
    }
    docker.put(id, &place.folder, with_link(&name, &staged, now)).await
}

/// Whether the container has a `mv`, and it did that. Whether it told the truth is seen by whoever reads the file.
async fn moved(docker: &Docker, id: &ContainerId, from: &str, to: &str) -> bool {
    let argv = ["mv", "-f", from, to].map(str::to_owned);
    let exec = Exec { user: "0:0", argv: &argv, stdin: None, limit: 0, deadline: MOVE };
    matches!(docker.exec(id, exec).await, Ok(ExecOutput { code: 0, .. }))
}

fn with_file(place: &Place, name: &str, content: &[u8], now: OffsetDateTime) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folder = String::new();
    for part in &place.missing {
        folder.push_str(part);
        folder.push('/');
        append(&mut archive, tar::EntryType::Directory, 0o755, &folder, &[], now);
    }
    append(&mut archive, tar::EntryType::Regular, 0o644, name, content, now);
    archive.into_inner().unwrap_or_default()
}

fn with_link(name: &str, target: &str, now: OffsetDateTime) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = header(tar::EntryType::Link, 0o644, 0, now);
    // Into memory nothing fails.
    let _ = archive.append_link(&mut header, name, target);
    archive.into_inner().unwrap_or_default()
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    mode: u32,
    name: &str,
    content: &[u8],
    now: OffsetDateTime,
) {
    let mut header = header(kind, mode, content.len() as u64, now);
    // Into memory nothing fails.
    let _ = archive.append_data(&mut header, name, content);
}

fn header(kind: tar::EntryType, mode: u32, size: u64, now: OffsetDateTime) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(u64::try_from(now.unix_timestamp()).unwrap_or(0));
    header
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn place(missing: &[&str]) -> Place {
        Place {
            folder: "/etc".to_owned(),
            missing: missing.iter().map(|&part| part.to_owned()).collect(),
            name: "ca.crt".to_owned(),
        }
    }

    #[test]
    fn a_place_is_a_path() {
        assert_eq!(place(&[]).path(), "/etc/ca.crt");
        assert_eq!(place(&["ssl", "certs"]).path(), "/etc/ssl/certs/ca.crt");
        assert_eq!(place(&["ssl"]).made(), Place { folder: "/etc/ssl".to_owned(), ..place(&[]) });
        let top = Place { folder: "/".to_owned(), ..place(&[]) };
        assert_eq!(top.path(), "/ca.crt");
    }

    #[test]
    fn the_archive_holds_the_missing_folders_and_the_file_and_all_is_root_s() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(5);
        let place = place(&["ssl", "certs"]);
        let tar = with_file(&place, &place.inner(".ca.crt.dbssl"), b"content", now);
        let mut archive = tar::Archive::new(tar.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                let (path, header) = (entry.path().unwrap().to_str().unwrap().to_owned(), entry.header());
                assert_eq!(
                    (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                    (0, 0, 5)
                );
                (path, header.mode().unwrap(), content)
            })
            .collect();
        let expected =
            [("ssl/", 0o755, ""), ("ssl/certs/", 0o755, ""), ("ssl/certs/.ca.crt.dbssl", 0o644, "content")];
        assert_eq!(found, expected.map(|(path, mode, content)| (path.to_owned(), mode, content.to_owned())));
    }

    #[test]
    fn the_link_leads_to_the_staged_file() {
        let tar = with_link("ssl/ca.crt", "ssl/.ca.crt.dbssl", OffsetDateTime::UNIX_EPOCH);
        let mut archive = tar::Archive::new(tar.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().entry_type(), tar::EntryType::Link);
        assert_eq!(entry.path().unwrap().to_str(), Some("ssl/ca.crt"));
        assert_eq!(entry.link_name().unwrap().unwrap().to_str(), Some("ssl/.ca.crt.dbssl"));
    }
}
