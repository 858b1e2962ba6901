//! Which file a process sees where a single file is mounted: the one that has its name today, or one that had it once.
//!
//! Docker pins the mount of a single file to its inode. When the file is replaced (by `mv`, or removed and made again),
//! containers that run go on with the former one, and nobody tells them.
//!
//! It is read off `/proc/PID/mountinfo` (proc(5)): the kernel names there which file of which file system is mounted, by
//! the name that it has now, with `//deleted` behind it once it has none. The same is asked of our own view of the file,
//! and the two are compared. Neither needs a look into the container: `/proc/PID/root` is for those with
//! `CAP_SYS_PTRACE` alone, and Docker's archive API shows the file of that name, not what the process sees.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

/// What the kernel puts behind the name of a file that has none any more.
const DELETED: &[u8] = b"//deleted";
/// A container has some 30 mounts, a host with many containers thousands.
const LONGEST: u64 = 16 << 20;

/// A file as the kernel knows it: the file system's device, and the path within that file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    device: Vec<u8>,
    path: Vec<u8>,
}

/// What is mounted where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    id: Vec<u8>,
    origin: Origin,
    point: Vec<u8>,
}

/// The regular file that has the name `path` now.
pub fn origin(path: &Path) -> io::Result<Origin> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::open(path, flags, Mode::empty())?;
    if kind(&file)? != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    origin_of(&file)
}

/// Whether what the process has mounted at `destination` from the host is not at `source` any more: there is nothing,
/// or another folder. A file that was replaced has not moved: whoever edits one often does that. `None` if it cannot be
/// told.
pub fn has_moved(pid: i64, source: &Path, destination: &str) -> Option<bool> {
    moved_from(&read(&pid.to_string()).ok()?, destination.as_bytes(), &source_at(source)?)
}

/// What is at a path of the host now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Gone,
    Folder(Origin),
    Other,
}

fn source_at(path: &Path) -> Option<Source> {
    // As Docker looks for it: links are followed.
    let found = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Some(Source::Gone),
        Err(_) => return None,
    };
    Some(match kind(&found).ok()? {
        FileType::Directory => Source::Folder(origin_of(&found).ok()?),
        _ => Source::Other,
    })
}

fn moved_from(mounts: &[Mounted], destination: &[u8], source: &Source) -> Option<bool> {
    let there = mounts.iter().rev().find(|mount| mount.point == destination)?;
    Some(match source {
        Source::Gone => true,
        Source::Folder(now) => *now != there.origin,
        Source::Other => false,
    })
}

fn kind(file: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

fn origin_of(file: &OwnedFd) -> io::Result<Origin> {
    let number = file.as_raw_fd();
    // Without links in it, as the mounts are named.
    let path = fs::read_link(format!("/proc/self/fd/{number}"))?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let mounts = read("self")?;
    let mount = mounts.iter().find(|mount| id.is_some_and(|id| mount.id == id.as_bytes()));
    mount
        .and_then(|mount| below(mount, path.as_os_str().as_bytes()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the mount that it is on is not listed"))
}

/// Whether what the process has mounted at `destination` is another file than `current`; `None` if nothing is mounted
/// there, as with a process that is not the container's own (under Kata Containers it is the machine's).
pub fn is_stale(pid: i64, destination: &str, current: &Origin) -> io::Result<Option<bool>> {
    Ok(judge(&read(&pid.to_string())?, destination.as_bytes(), current))
}

fn judge(mounts: &[Mounted], destination: &[u8], current: &Origin) -> Option<bool> {
    // The last one lies on top.
    let there = mounts.iter().rev().find(|mount| mount.point == destination);
    // A link in the container may lead elsewhere; then the file itself tells.
    let former = [&current.path, DELETED].concat();
    let any = || {
        mounts.iter().rev().find(|mount| {
            mount.origin.device == current.device && [&current.path, &former].contains(&&mount.origin.path)
        })
    };
    there.or_else(any).map(|mount| mount.origin != *current)
}

fn read(process: &str) -> io::Result<Vec<Mounted>> {
    use std::io::Read;
    let mut text = Vec::new();
    fs::File::open(format!("/proc/{process}/mountinfo"))?.take(LONGEST).read_to_end(&mut text)?;
    Ok(all(&text))
}

fn all(text: &[u8]) -> Vec<Mounted> {
    text.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// For fuzzers: one line.
#[cfg(feature = "fuzzing")]
pub(crate) fn fields(line: &[u8]) -> Option<[Vec<u8>; 3]> {
    parse(line).map(|mounted| [mounted.origin.device, mounted.origin.path, mounted.point])
}

/// For fuzzers: the whole file.
#[cfg(feature = "fuzzing")]
pub(crate) fn is_stale_by(text: &[u8], destination: &[u8], device: &[u8], path: &[u8]) -> Option<bool> {
    judge(&all(text), destination, &Origin { device: device.to_vec(), path: path.to_vec() })
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime …`: id, parent, device, path within the file system, mount point.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = fields.next()?.to_vec();
    let device = fields.nth(1)?.to_vec();
    let (path, point) = (unescape(fields.next()?), unescape(fields.next()?));
    Some(Mounted { id, origin: Origin { device, path }, point })
}

/// Space, tab, newline and backslash are `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[3..] } else { behind };
    }
    plain
}

/// A path on a mount, as a path within the mount's file system.
fn below(mount: &Mounted, path: &[u8]) -> Option<Origin> {
    let rest = Path::new(OsStr::from_bytes(path)).strip_prefix(OsStr::from_bytes(&mount.point)).ok()?;
    let whole = Path::new(OsStr::from_bytes(&mount.origin.path)).join(rest);
    // Where the mount is that one file, nothing is left to be joined, but a slash is.
    let whole = if rest.as_os_str().is_empty() { mount.origin.path.clone() } else { bytes(&whole) };
    Some(Origin { device: mount.origin.device.clone(), path: whole })
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(text: &str) -> Vec<Mounted> {
        text.lines().filter_map(|line| parse(line.as_bytes())).collect()
    }

    fn current() -> Origin {
        Origin { device: b"254:0".to_vec(), path: b"/data/my ssl/ca.crt".to_vec() }
    }

    const POINT: &[u8] = b"/etc/ssl/certs/ca.crt";

    #[test]
    fn a_file_that_was_replaced_is_told_from_the_one_that_has_its_name() {
        for (root, expected) in [
            (r"254:0 /data/my\040ssl/ca.crt", Some(false)),
            (r"254:0 /data/my\040ssl/ca.crt//deleted", Some(true)),
            (r"254:0 /data/my\040ssl/ca.crt.bak", Some(true)),
            (r"254:1 /data/my\040ssl/ca.crt", Some(true)),
        ] {
            let text = format!(
                "312 268 0:50 / / rw - overlay o rw\n\
                 313 312 {root} /etc/ssl/certs/ca.crt ro,relatime - ext4 /dev/vda rw\n"
            );
            assert_eq!(judge(&mounts(&text), POINT, &current()), expected, "{root}");
        }
    }

    #[test]
    fn the_uppermost_mount_counts_and_where_nothing_is_mounted_nothing_is_said() {
        let stacked = "1 0 254:0 /old /etc/ssl/certs/ca.crt ro - ext4 x rw\n\
                       2 0 254:0 /data/my\\040ssl/ca.crt /etc/ssl/certs/ca.crt ro - ext4 x rw\n";
        assert_eq!(judge(&mounts(stacked), POINT, &current()), Some(false));
        assert_eq!(judge(&mounts("1 0 254:0 / / rw - ext4 x rw\n"), POINT, &current()), None);
        // The destination led over a link in the container.
        let linked = "1 0 254:0 /data/my\\040ssl/ca.crt//deleted /etc/pki/ca.crt ro - ext4 x rw\n";
        assert_eq!(judge(&mounts(linked), POINT, &current()), Some(true));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        assert_eq!(mounts("\n1\n1 2 3\n1 2 3:4 /a\n"), []);
        assert_eq!(unescape(br"a\040b\134c\9\04"), br"a b\c\9\04");
    }

    #[test]
    fn our_own_view_of_a_file_is_found_and_changes_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        assert!(origin(&path).is_err() && origin(folder.path()).is_err());
        fs::write(&path, "one").unwrap();
        let first = origin(&path).unwrap();
        assert!(first.path.ends_with(b"/ca.crt"), "{first:?}");
        assert_eq!(origin(&path).unwrap(), first);
        let other = folder.path().join("other.crt");
        fs::write(&other, "two").unwrap();
        assert_ne!(origin(&other).unwrap(), first);
        assert_eq!(origin(&other).unwrap().device, first.device);
    }

    #[test]
    fn a_folder_that_is_not_where_it_was_mounted_from_has_moved() {
        let current = Origin { device: b"254:0".to_vec(), path: b"/srv/pg".to_vec() };
        let text =
            |root: &str| format!("1 0 0:50 / / rw - overlay o rw\n2 1 254:0 {root} /data rw - ext4 x rw\n");
        for (root, source, moved) in [
            ("/srv/pg", Source::Folder(current.clone()), Some(false)),
            ("/srv/pg.away", Source::Folder(current.clone()), Some(true)),
            ("/srv/pg//deleted", Source::Folder(current), Some(true)),
            ("/srv/pg", Source::Gone, Some(true)),
            ("/srv/file//deleted", Source::Other, Some(false)),
        ] {
            assert_eq!(moved_from(&mounts(&text(root)), b"/data", &source), moved, "{root}");
        }
        assert_eq!(moved_from(&mounts(&text("/srv/pg")), b"/other", &Source::Gone), None);
    }

    #[test]
    fn what_is_at_a_path_is_told_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink("folder", path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        let Some(Source::Folder(found)) = source_at(&path("folder")) else { panic!("it is a folder") };
        assert!(found.path.ends_with(b"/folder"), "{found:?}");
        assert_eq!(source_at(&path("link")), Some(Source::Folder(found)));
        assert_eq!(source_at(&path("file")), Some(Source::Other));
        assert_eq!(source_at(&path("nothing")), Some(Source::Gone));
        assert_eq!(source_at(&path("file/below")), Some(Source::Gone));
    }
}
