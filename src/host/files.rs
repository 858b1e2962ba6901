//! Files that must never be half-written, and never readable by the wrong user, not even for a moment.
//!
//! # Guarantees
//!
//! - [`create`] is the only place where a secret reaches the disk. The file is new (`O_EXCL`), no link is
//!   followed (`O_NOFOLLOW`), and its owner and mode are set while it is still empty.
//! - What [`create`] and [`replace`] return from is on the disk, its name included (fsync of file and folder).
//! - Whoever reads a file written by [`replace`] sees the old content or the new one.
//! - [`read`] returns regular files only, follows no link in the last component, never blocks on a pipe, and
//!   reads no more than [`LIMIT`].

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::crash;
use crate::model::{Owner, Secret};

/// No file of ours is longer. A bundle with all of Mozilla's roots has a quarter of it.
pub const LIMIT: u64 = 1024 * 1024;

/// What could not be done, and to which file.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct FileError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { operation, path: path.to_owned(), source: source.into() }
    }

    /// Whether the object was not there.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the object was there already.
    pub fn is_present(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// Bytes to write, with what may be done with them.
#[derive(Clone, Copy)]
pub enum FileContent<'a> {
    Public(&'a [u8]),
    Secret(&'a Secret),
}

impl FileContent<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Public(bytes) => bytes,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

/// A file that was read. The content is kept like a secret, as it may be one.
pub struct Found {
    pub content: Secret,
    pub owner: Owner,
    /// The permission bits, `0o7777`.
    pub mode: u32,
}

/// Write a new file. `owner`: as given, or whoever runs this.
///
/// # Errors
/// If anything of that name is there ([`FileError::is_present`]); after any other failure no file is left.
pub fn create(
    path: &Path,
    content: FileContent<'_>,
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    create_only(path, content, mode, owner)?;
    sync_folder_of(path)
}

/// As [`create`], for a caller that syncs the folder itself when it has written all of its files.
pub(crate) fn create_only(
    path: &Path,
    content: FileContent<'_>,
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    // 0600 until the owner is right: a wider mode would be the old owner's for a moment.
    crash::disk(path).map_err(|why| FileError::new("create", path, why))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|why| FileError::new("create", path, why))?;
    fill(file, content, mode, owner).map_err(|why| {
        let _ = std::fs::remove_file(path);
        FileError::new("write", path, why)
    })
}

fn fill(file: OwnedFd, content: FileContent<'_>, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    if let Some(owner) = owner {
        rustix::fs::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    let mut file = File::from(file);
    file.write_all(content.bytes())?;
    file.sync_all()
}

/// Put a file in the place of whatever file or link has that name, at once. Only for folders that nobody else
/// writes to, and by one writer at a time: what was left over by a crash is cleared away first.
pub fn replace(
    path: &Path,
    content: FileContent<'_>,
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    let new = create_beside(path, content, mode, owner)?;
    crash::disk(path)
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|why| FileError::new("rename a new file to", path, why))?;
    sync_folder_of(path)
}

/// A new file [`beside`] the one of that name; its path.
fn create_beside(
    path: &Path,
    content: FileContent<'_>,
    mode: u32,
    owner: Option<Owner>,
) -> Result<PathBuf, FileError> {
    let new = beside(path);
    match create_only(&new, content, mode, owner) {
        // Left over by a crash.
        Err(why) if why.is_present() => {
            remove_if_present(&new)?;
            create_only(&new, content, mode, owner)?;
        }
        created => created?,
    }
    Ok(new)
}

/// `NAME` -> `.NAME.new`, in the same folder, so that a rename stays within one file system.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

pub(crate) fn remove_if_present(path: &Path) -> Result<(), FileError> {
    crash::removal();
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, why)),
        _ => Ok(()),
    }
}

/// Read a file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Found>, FileError> {
    read_from(rustix::fs::CWD, path, path)
}

/// Read a record of ours that grows without end; `None` if there is none.
pub fn read_long(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match open_regular(path, OFlags::RDONLY) {
        Err(why) if why.is_missing() => Ok(None),
        Err(why) => Err(why),
        Ok(file) => {
            let mut bytes = Vec::new();
            File::from(file).read_to_end(&mut bytes).map_err(|why| FileError::new("read", path, why))?;
            Ok(Some(bytes))
        }
    }
}

/// As [`read`], by a name within an open folder; `shown` is for the error.
pub(crate) fn read_from(folder: impl AsFd, name: &Path, shown: &Path) -> Result<Option<Found>, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(refused(shown, "it is a symbolic link; needed: a regular file")),
        Err(why) => return Err(FileError::new("open", shown, why)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|why| FileError::new("examine", shown, why))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(refused(shown, "it is a folder; needed: a regular file")),
        _ => return Err(refused(shown, "it is not a regular file")),
    }
    let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if length > LIMIT {
        return Err(refused(shown, "it is longer than 1 MiB"));
    }
    // Room for all, so that no copy of a key is left behind when the buffer grows.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 4096);
    File::from(file)
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|why| FileError::new("read", shown, why))?;
    if bytes.len() as u64 > LIMIT {
        return Err(refused(shown, "it is longer than 1 MiB"));
    }
    Ok(Some(Found {
        content: Secret::new(bytes),
        owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
        mode: stat.st_mode & 0o7777,
    }))
}

fn refused(path: &Path, why: &'static str) -> FileError {
    FileError::new("read", path, io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Take rights away from a regular file; whether there were too many.
pub(crate) fn tighten(path: &Path, most: u32) -> Result<bool, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|why| FileError::new("open", path, why))?;
    let stat = rustix::fs::fstat(&file).map_err(|why| FileError::new("examine", path, why))?;
    let mode = stat.st_mode & 0o7777;
    if mode & !most == 0 {
        return Ok(false);
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & most))
        .map_err(|why| FileError::new("restrict the mode of", path, why))?;
    Ok(true)
}

/// Have a folder there that has this mode. Missing parents become 0755.
pub(crate) fn have_folder(path: &Path, mode: u32) -> Result<(), FileError> {
    set_mode(&open_or_make_folder(path, mode)?, path, mode)
}

/// Open a folder, which is made with this mode if there is none.
pub(crate) fn open_or_make_folder(path: &Path, mode: u32) -> Result<OwnedFd, FileError> {
    match open_folder(path) {
        Err(why) if why.is_missing() => make_folder(path, mode).and_then(|()| open_folder(path)),
        opened => opened,
    }
}

/// Make a folder with this mode; one that is there is left as it is. Missing parents become 0755.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<(), FileError> {
    let make = || crash::disk(path).and_then(|()| std::fs::create_dir(path));
    let mut made = make();
    if let (Err(why), Some(parent)) = (&made, path.parent())
        && why.kind() == io::ErrorKind::NotFound
        && !parent.as_os_str().is_empty()
    {
        make_folder(parent, 0o755)?;
        made = make();
    }
    match made {
        Ok(()) => set_folder_mode(path, mode).and_then(|()| sync_folder_of(path)),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(why) => Err(FileError::new("make the folder", path, why)),
    }
}

pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|why| FileError::new("open the folder", path, why))
}

/// The mode as given, whatever the umask was.
pub(crate) fn set_folder_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    set_mode(&open_folder(path)?, path, mode)
}

fn set_mode(folder: &OwnedFd, path: &Path, mode: u32) -> Result<(), FileError> {
    rustix::fs::fchmod(folder, Mode::from_raw_mode(mode))
        .map_err(|why| FileError::new("set the mode of the folder", path, why))
}

/// Make the names within a folder last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), FileError> {
    rustix::fs::fsync(open_folder(path)?).map_err(|why| FileError::new("sync the folder", path, why))
}

pub(crate) fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Add bytes to the end of a regular file with one write, which no reader sees half of within a page, and only if all of
/// them fit: otherwise the file is cut back to what it was. The file keeps its inode.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    append_to(open_regular(path, OFlags::WRONLY | OFlags::APPEND)?, path, bytes)
}

/// As [`append`], to a file that was opened for that; `path` is for the error.
pub(crate) fn append_to(file: impl AsFd, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |why: Errno| FileError::new("append to", path, why);
    crash::disk(path).map_err(|why| FileError::new("append to", path, why))?;
    let before = rustix::fs::fstat(&file).map_err(failed)?;
    let length = u64::try_from(before.st_size).unwrap_or(0);
    let outcome = match rustix::io::write(&file, bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(written) => {
            // A full disk. Only our own tail is cut, and only if nobody wrote behind it.
            let after = rustix::fs::fstat(&file).map_err(failed)?;
            if u64::try_from(after.st_size).ok() == Some(length + written as u64) {
                rustix::fs::ftruncate(&file, length).map_err(failed)?;
            }
            Err(FileError::new("append to", path, io::Error::from(io::ErrorKind::WriteZero)))
        }
        Err(why) => Err(failed(why)),
    };
    outcome.and_then(|()| rustix::fs::fsync(&file).map_err(failed))
}

/// Open a regular file that is there; no link is followed.
pub(crate) fn open_regular(path: &Path, access: OFlags) -> Result<OwnedFd, FileError> {
    let failed = |why: Errno| FileError::new("open", path, why);
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let found = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
        Ok(file)
    } else {
        Err(refused(path, "it is not a regular file"))
    }
}

/// Give a complete new file its name, unless the name is taken: then `false`.
pub(crate) fn publish(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, FileError> {
    let new = create_beside(path, FileContent::Public(bytes), mode, None)?;
    crash::disk(path).map_err(|why| FileError::new("name a new file", path, why))?;
    let linked = rustix::fs::linkat(rustix::fs::CWD, &new, rustix::fs::CWD, path, AtFlags::empty());
    remove_if_present(&new)?;
    match linked {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(Errno::EXIST) => Ok(false),
        Err(why) => Err(FileError::new("name a new file", path, why)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_secret_is_created_with_its_mode_and_never_over_anything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = Secret::new(b"secret".to_vec());
        create(&path, FileContent::Secret(&key), 0o600, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(create(&path, FileContent::Secret(&key), 0o600, None).unwrap_err().is_present());

        // Neither through a link that leads somewhere, nor through one that leads nowhere.
        let target = folder.path().join("target");
        let link = folder.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(create(&link, FileContent::Secret(&key), 0o600, None).unwrap_err().is_present());
        assert!(!target.exists());
    }

    #[test]
    fn replacing_exchanges_a_link_and_not_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "theirs").unwrap();
        let path = folder.path().join("file");
        symlink(&target, &path).unwrap();
        std::fs::write(beside(&path), "left over by a crash").unwrap();
        replace(&path, FileContent::Public(b"ours"), 0o640, None).unwrap();
        assert_eq!((mode(&path), std::fs::read(&path).unwrap()), (0o640, b"ours".to_vec()));
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
        assert!(!beside(&path).exists());
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(read(&at("none")).unwrap().is_none());
        std::fs::write(at("file"), "text").unwrap();
        symlink(at("file"), at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        File::create(at("huge")).unwrap().set_len(LIMIT + 1).unwrap();
        assert_eq!(read(&at("file")).unwrap().unwrap().content.expose(), b"text");
        for name in ["link", "folder", "pipe", "huge"] {
            assert!(read(&at(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn appending_keeps_the_inode_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(append(&path, b"x").unwrap_err().is_missing());
        std::fs::write(&path, "a").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        append(&path, b"b").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"ab");
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        symlink(&path, folder.path().join("link")).unwrap();
        assert!(append(&folder.path().join("link"), b"c").is_err());
    }

    #[test]
    fn publishing_never_takes_a_name_that_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(publish(&path, b"first", 0o644).unwrap());
        assert!(!publish(&path, b"second", 0o644).unwrap());
        assert_eq!((mode(&path), std::fs::read(&path).unwrap()), (0o644, b"first".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn tightening_takes_away_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        for (before, changed, after) in [(0o644, true, 0o600), (0o600, false, 0o600), (0o400, false, 0o400)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).unwrap();
            assert_eq!((tighten(&path, 0o600).unwrap(), mode(&path)), (changed, after));
        }
    }
}
