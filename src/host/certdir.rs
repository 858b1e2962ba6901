//! One container's certificate directory, which the container has mounted read-only.
//!
//! ```text
//! NAME/                       0755, the same inode for good: it is what Docker has mounted
//!   ..000007/                 one generation: all files of one leaf
//!     server.crt server.key
//!   ..data -> ..000007        exchanged by one rename
//!   server.crt -> ..data/server.crt
//!   server.key -> ..data/server.key
//! ```
//!
//! # Guarantees
//!
//! - A reader that opens `..data` once, or that opens files while no write is going on, sees the files of one
//!   generation. The only thing that changes for a reader is one rename.
//! - A generation is complete and on the disk before `..data` leads to it, and is never changed after.
//! - Nothing that `..data` leads to, or led to, is removed before [`CertDir::prune`].
//! - Links are relative, so they hold at whatever path the container has the folder.
//! - [`CertDir::read`] follows no link but the two kinds above, and reports every deviation of owner and mode.
//!
//! # Assumptions
//!
//! One writer at a time ([`CertDir::turn`]); nobody but root writes to the folder.
//!
//! # A crash
//!
//! Before the rename: the old generation is in force, and the unfinished one is swept by the next prune. After
//! it: the new one is in force. A first write that was cut off reads as missing or damaged, and is written anew.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    crash,
    files::{self, FileContent, FileError},
};
use crate::model::{Owner, Secret};

const DATA: &str = "..data";

/// The certificate directory of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertDir {
    path: PathBuf,
}

/// The right to write to a directory.
#[derive(Debug)]
pub struct Turn {
    _folder: OwnedFd,
}

/// One file to write.
#[derive(Clone, Copy)]
pub struct CertFile<'a> {
    pub name: &'a str,
    pub content: FileContent<'a>,
    pub mode: u32,
}

/// What the directory holds.
pub enum Held {
    Missing,
    /// All that is wrong, in words; the answer is to write it anew.
    Damaged(Vec<String>),
    Sound {
        /// By name; kept like secrets, as one of them is.
        files: BTreeMap<String, Secret>,
    },
}

/// Why the directory could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CertDirError {
    #[error("{0:?} cannot be the name of a file in a certificate directory")]
    Name(String),
    #[error("{} is not what a certificate directory has there; move it away", .0.display())]
    Foreign(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

impl CertDir {
    /// Touches nothing; [`Self::write`] makes the folder.
    pub fn open(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every certificate directory in `folder`.
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| Self::open(entry.path())).filter(|found| found.path.is_dir()).collect()
    }

    /// The bytes of every file in force, whatever they and their owners and modes are worth.
    pub fn contents(&self) -> Vec<Secret> {
        let Ok(Some(generation)) = self.in_force() else { return Vec::new() };
        let files = std::fs::read_dir(self.path.join(generation)).into_iter().flatten().flatten();
        files.filter_map(|file| Some(files::read(&file.path()).ok()??.content)).collect()
    }

    /// Waits until nobody else writes, and keeps it so until the answer is dropped, or its holder dies (`flock(2)`).
    /// Makes the folder, and nothing in it.
    pub fn turn(&self) -> Result<Turn, CertDirError> {
        let folder = files::open_or_make_folder(&self.path, 0o755)?;
        match flock(&folder, FlockOperation::LockExclusive) {
            Ok(()) => Ok(Turn { _folder: folder }),
            Err(why) => Err(FileError::new("lock the folder", &self.path, why).into()),
        }
    }

    /// Put a new generation in force that consists of exactly these files, each of this owner.
    pub fn write(&self, files: &[CertFile<'_>], owner: Owner) -> Result<(), CertDirError> {
        check_names(files)?;
        files::have_folder(&self.path, 0o755)?;
        let generation = self.write_generation(files, owner)?;
        // The links first: on the first write they lead nowhere until all of them do at once.
        for file in files {
            self.link(file.name, &Path::new(DATA).join(file.name))?;
        }
        self.link(DATA, Path::new(&generation))?;
        files::sync_folder(&self.path)?;
        Ok(())
    }

    fn write_generation(&self, files: &[CertFile<'_>], owner: Owner) -> Result<String, CertDirError> {
        let mut number = self.generations()?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
        let (name, folder) = loop {
            number = number.wrapping_add(1);
            let name = format!("..{number:06}");
            let folder = self.path.join(&name);
            match crash::disk(&folder).and_then(|()| std::fs::create_dir(&folder)) {
                Ok(()) => break (name, folder),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                Err(why) => return Err(FileError::new("make the folder", &folder, why).into()),
            }
        };
        let filled = (|| {
            files::set_folder_mode(&folder, 0o755)?;
            for file in files {
                files::create_only(&folder.join(file.name), file.content, file.mode, Some(owner))?;
            }
            files::sync_folder(&folder)?;
            files::sync_folder(&self.path)
        })();
        match filled {
            Ok(()) => Ok(name),
            Err(why) => {
                // It is tried again and again: what is left each time would fill the disk for good.
                let _ = std::fs::remove_dir_all(&folder);
                Err(why.into())
            }
        }
    }

    /// Have `name` lead to `target`, at once if it is something else now. A folder is never put aside.
    fn link(&self, name: &str, target: &Path) -> Result<(), CertDirError> {
        let path = self.path.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => return Err(CertDirError::Foreign(path)),
            Ok(found) if found.is_symlink() && std::fs::read_link(&path).is_ok_and(|now| now == target) => {
                return Ok(());
            }
            _ => {}
        }
        let new = files::beside(&path);
        files::remove_if_present(&new)?;
        symlink(target, &new).map_err(|why| FileError::new("make the link", &new, why))?;
        crash::disk(&path)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|why| FileError::new("rename a new link to", &path, why).into())
    }

    /// Read what is in force, and hold it against what ought to be: these names with these modes, all of
    /// this owner.
    pub fn read(&self, want: &[(&str, u32)], owner: Owner) -> Held {
        match self.current() {
            Ok(None) => Held::Missing,
            Ok(Some(generation)) => self.read_generation(&generation, want, owner),
            Err(why) => Held::Damaged(vec![why]),
        }
    }

    /// The name of the generation in force, where its server can get at it.
    fn current(&self) -> Result<Option<String>, String> {
        match self.folder_mode()? {
            None => Ok(None),
            Some(mode) if mode & 0o7777 != 0o755 => Err(mode_differs(&self.path, mode, 0o755)),
            Some(_) => self.generation(),
        }
    }

    fn folder_mode(&self) -> Result<Option<u32>, String> {
        match std::fs::symlink_metadata(&self.path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(format!("{}: {why}", self.path.display())),
            Ok(found) if !found.is_dir() => Err(format!("{} is no folder", self.path.display())),
            Ok(found) => Ok(Some(found.mode())),
        }
    }

    /// The name of the generation in force.
    fn in_force(&self) -> Result<Option<String>, String> {
        if self.folder_mode()?.is_none() { Ok(None) } else { self.generation() }
    }

    /// As [`Self::in_force`], of a folder that is there.
    fn generation(&self) -> Result<Option<String>, String> {
        match std::fs::read_link(self.path.join(DATA)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(format!("{DATA} is not a link")),
            Ok(target) => match target.to_str().filter(|name| generation_number(name).is_some()) {
                Some(name) => Ok(Some(name.to_owned())),
                None => Err(format!("{DATA} leads to {}, which is no generation", target.display())),
            },
        }
    }

    fn read_generation(&self, generation: &str, want: &[(&str, u32)], owner: Owner) -> Held {
        let folder_path = self.path.join(generation);
        let folder = match files::open_folder(&folder_path) {
            Ok(folder) => folder,
            Err(why) => return Held::Damaged(vec![format!("{why}: {}", why.source)]),
        };
        let mut reasons = Vec::new();
        let mut found = BTreeMap::new();
        match rustix::fs::fstat(&folder) {
            Ok(stat) if stat.st_mode & 0o7777 == 0o755 => {}
            Ok(stat) => reasons.push(mode_differs(&folder_path, stat.st_mode, 0o755)),
            Err(why) => reasons.push(format!("{}: {why}", folder_path.display())),
        }
        for (name, mode) in want {
            let shown = folder_path.join(name);
            if std::fs::read_link(self.path.join(name)).ok() != Some(Path::new(DATA).join(name)) {
                reasons.push(format!("{name} is not the link to {DATA}/{name}"));
            }
            match files::read_from(&folder, Path::new(name), &shown) {
                Ok(None) => reasons.push(format!("{} is missing", shown.display())),
                Err(why) => reasons.push(format!("{why}: {}", why.source)),
                Ok(Some(file)) => {
                    if file.mode != *mode {
                        reasons.push(mode_differs(&shown, file.mode, *mode));
                    }
                    if file.owner != owner {
                        reasons.push(format!(
                            "{} belongs to {}:{}; needed: {}:{}",
                            shown.display(),
                            file.owner.uid,
                            file.owner.gid,
                            owner.uid,
                            owner.gid
                        ));
                    }
                    found.insert((*name).to_owned(), file.content);
                }
            }
        }
        if reasons.is_empty() { Held::Sound { files: found } } else { Held::Damaged(reasons) }
    }

    /// Remove all generations but the one in force, and links to files that it does not have. To be called
    /// when it is proved that the server has read the new files.
    pub fn prune(&self) -> Result<(), CertDirError> {
        let Ok(Some(current)) = self.current() else { return Ok(()) };
        for (_, name) in self.generations()? {
            let path = self.path.join(&name);
            if name != current {
                crash::removal();
                std::fs::remove_dir_all(&path)
                    .map_err(|why| FileError::new("remove the folder", &path, why))?;
            }
        }
        for name in self.entries()? {
            let path = self.path.join(&name);
            let ours = std::fs::read_link(&path).is_ok_and(|target| target == Path::new(DATA).join(&name));
            let left_over = name.starts_with('.') && path.extension().is_some_and(|end| end == "new");
            if left_over || ours && !self.path.join(&current).join(&name).exists() {
                files::remove_if_present(&path)?;
            }
        }
        files::sync_folder(&self.path)?;
        Ok(())
    }

    /// Remove the directory with all that is in it.
    pub fn remove(self) -> Result<(), CertDirError> {
        crash::removal();
        match std::fs::remove_dir_all(&self.path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(why) => Err(FileError::new("remove the folder", &self.path, why).into()),
            Ok(()) => Ok(files::sync_folder_of(&self.path)?),
        }
    }

    fn entries(&self) -> Result<Vec<String>, FileError> {
        let listed = |why| FileError::new("list the folder", &self.path, why);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(listed)? {
            names.extend(entry.map_err(listed)?.file_name().into_string());
        }
        Ok(names)
    }

    fn generations(&self) -> Result<Vec<(u64, String)>, FileError> {
        let names = self.entries()?.into_iter();
        Ok(names.filter_map(|name| generation_number(&name).map(|number| (number, name))).collect())
    }
}

fn generation_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("..")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn mode_differs(path: &Path, found: u32, needed: u32) -> String {
    format!("{} has mode {:04o}; needed: {needed:04o}", path.display(), found & 0o7777)
}

/// Plain names, each once: nothing that could leave the folder or be taken for our own entries.
fn check_names(files: &[CertFile<'_>]) -> Result<(), CertDirError> {
    for (index, file) in files.iter().enumerate() {
        let plain = file.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let repeated = files[..index].iter().any(|earlier| earlier.name == file.name);
        if !plain || repeated || file.name.is_empty() || file.name.starts_with('.') {
            return Err(CertDirError::Name(file.name.chars().take(80).collect()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn me() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    const WANT: &[(&str, u32)] = &[("server.crt", 0o644), ("server.key", 0o600)];

    fn write(dir: &CertDir, text: &str) -> Result<(), CertDirError> {
        let key = Secret::new(text.as_bytes().to_vec());
        let files = [
            CertFile { name: "server.crt", content: FileContent::Public(text.as_bytes()), mode: 0o644 },
            CertFile { name: "server.key", content: FileContent::Secret(&key), mode: 0o600 },
        ];
        dir.write(&files, me())
    }

    #[test]
    fn one_writer_s_turn_ends_before_the_next_begins() {
        let folder = tempfile::tempdir().unwrap();
        let dir = CertDir::open(folder.path().join("databases/db"));
        let turn = dir.turn().unwrap();
        let other = files::open_folder(dir.path()).unwrap();
        let is_free = || flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok();
        assert!(!is_free());
        // It holds nobody up who reads, and is no certificate.
        assert!(matches!(dir.read(WANT, me()), Held::Missing));
        drop(turn);
        assert!(is_free());
    }

    fn sound(dir: &CertDir) -> String {
        match dir.read(WANT, me()) {
            Held::Sound { files } => {
                let text = |name: &str| String::from_utf8(files[name].expose().to_vec()).unwrap();
                assert_eq!(text("server.crt"), text("server.key"));
                text("server.crt")
            }
            Held::Missing => panic!("missing"),
            Held::Damaged(reasons) => panic!("{reasons:?}"),
        }
    }

    fn damage(dir: &CertDir) -> String {
        match dir.read(WANT, me()) {
            Held::Damaged(reasons) => reasons.join("; "),
            Held::Missing => panic!("missing"),
            Held::Sound { .. } => panic!("sound"),
        }
    }

    type Harm<'a> = &'a dyn Fn(&str);

    fn fresh() -> (tempfile::TempDir, CertDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = CertDir::open(folder.path().join("databases/db"));
        (folder, dir)
    }

    #[test]
    fn generations_follow_each_other_and_the_folder_stays() {
        let (_folder, dir) = fresh();
        assert!(matches!(dir.read(WANT, me()), Held::Missing));
        write(&dir, "one").unwrap();
        let inode = fs::metadata(dir.path()).unwrap().ino();
        assert_eq!(sound(&dir), "one");
        write(&dir, "two").unwrap();
        assert_eq!(sound(&dir), "two");
        assert_eq!(fs::read_to_string(dir.path().join("..000001/server.key")).unwrap(), "one");
        dir.prune().unwrap();
        assert_eq!(sound(&dir), "two");
        assert!(!dir.path().join("..000001").exists());
        assert_eq!(fs::metadata(dir.path()).unwrap().ino(), inode);
        for name in [DATA, "server.crt", "server.key"] {
            assert!(fs::read_link(dir.path().join(name)).unwrap().is_relative());
        }
        dir.clone().remove().unwrap();
        assert!(!dir.path().exists());
        dir.remove().unwrap();
    }

    #[test]
    fn what_a_generation_does_not_have_loses_its_link() {
        let (_folder, dir) = fresh();
        write(&dir, "one").unwrap();
        let only = [CertFile { name: "server.pem", content: FileContent::Public(b"x"), mode: 0o644 }];
        dir.write(&only, me()).unwrap();
        fs::write(dir.path().join("..data.new"), "").unwrap();
        dir.prune().unwrap();
        let mut names = dir.entries().unwrap();
        names.sort();
        assert_eq!(names, ["..000002", DATA, "server.pem"]);
    }

    #[test]
    fn a_reader_never_sees_two_generations() {
        let (_folder, dir) = fresh();
        write(&dir, "0").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = std::collections::BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    // As a server may: go through `..data` once, then read both.
                    let at = fs::read_link(dir.path().join(DATA)).unwrap();
                    let one = |name: &str| fs::read_to_string(dir.path().join(&at).join(name)).unwrap();
                    let pair = (one("server.crt"), one("server.key"));
                    assert_eq!(pair.0, pair.1);
                    // And the links always lead to a whole file.
                    assert!(!fs::read_to_string(dir.path().join("server.key")).unwrap().is_empty());
                    seen.insert(pair.0);
                }
                seen.len()
            });
            for number in 1..60 {
                write(&dir, &number.to_string()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 1);
        });
    }

    #[test]
    fn what_is_in_it_can_be_had_whatever_its_modes() {
        let (_folder, dir) = fresh();
        assert!(dir.contents().is_empty());
        write(&dir, "good").unwrap();
        let now = fs::read_link(dir.path().join(DATA)).unwrap();
        for name in [Path::new("."), &now, &now.join("server.key")] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
            assert!(dir.contents().iter().any(|file| file.expose() == b"good"), "{}", name.display());
        }
    }

    #[test]
    fn every_damage_is_seen_and_writing_mends_it() {
        let (folder, dir) = fresh();
        let at = |name: &str| dir.path().join(name);
        let mode =
            |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "outside").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let harms: [(&str, Harm<'_>); 12] = [
            ("mode 0640; needed: 0600", &|now| mode(&format!("{now}/server.key"), 0o640)),
            ("mode 0700; needed: 0755", &|now| mode(now, 0o700)),
            ("mode 0700; needed: 0755", &|_| mode(".", 0o700)),
            ("server.key is missing", &|now| fs::remove_file(at(now).join("server.key")).unwrap()),
            ("server.key is not the link", &|_| fs::remove_file(at("server.key")).unwrap()),
            ("server.key is not the link", &|_| {
                fs::remove_file(at("server.key")).unwrap();
                fs::write(at("server.key"), "x").unwrap();
            }),
            ("symbolic link", &|now| {
                fs::remove_file(at(now).join("server.key")).unwrap();
                symlink(&outside, at(now).join("server.key")).unwrap();
            }),
            ("it is a folder", &|now| {
                fs::remove_file(at(now).join("server.key")).unwrap();
                fs::create_dir(at(now).join("server.key")).unwrap();
            }),
            ("longer than 1 MiB", &|now| {
                fs::File::options()
                    .write(true)
                    .open(at(now).join("server.crt"))
                    .unwrap()
                    .set_len(files::LIMIT + 1)
                    .unwrap();
            }),
            ("which is no generation", &|_| {
                fs::remove_file(at(DATA)).unwrap();
                symlink(folder.path(), at(DATA)).unwrap();
            }),
            ("which is no generation", &|_| {
                fs::remove_file(at(DATA)).unwrap();
                symlink("..", at(DATA)).unwrap();
            }),
            ("open the folder", &|now| fs::remove_dir_all(at(now)).unwrap()),
        ];
        for (expected, harm) in harms {
            write(&dir, "good").unwrap();
            let now = fs::read_link(at(DATA)).unwrap();
            harm(now.to_str().unwrap());
            let found = damage(&dir);
            assert!(found.contains(expected), "expected {expected:?}, found {found:?}");
            write(&dir, "mended").unwrap();
            assert_eq!(sound(&dir), "mended");
        }
        let other = Owner { uid: me().uid + 1, gid: me().gid };
        assert!(matches!(dir.read(WANT, other), Held::Damaged(reasons) if reasons.len() == 2));
    }

    #[test]
    fn a_write_cut_off_anywhere_leaves_the_old_generation_or_none() {
        // What a crash leaves at each point: a generation without all files, all files but no links, a link
        // not yet renamed.
        let (_folder, dir) = fresh();
        fs::create_dir_all(dir.path().join("..000001")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(dir.read(WANT, me()), Held::Missing));
        write(&dir, "one").unwrap();
        fs::create_dir(dir.path().join("..000003")).unwrap();
        fs::write(dir.path().join("..000003/server.crt"), "half").unwrap();
        symlink("..000003", dir.path().join("...data.new")).unwrap();
        assert_eq!(sound(&dir), "one");
        write(&dir, "two").unwrap();
        assert_eq!(sound(&dir), "two");
        dir.prune().unwrap();
        assert_eq!(dir.generations().unwrap().len(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_however_often_it_is_tried() {
        let (_folder, dir) = fresh();
        write(&dir, "one").unwrap();
        // A name that no file system takes stands for a disk that has no room for the second file.
        let long = "x".repeat(300);
        let files = ["server.crt", &long].map(|name| CertFile {
            name,
            content: FileContent::Public(b"two"),
            mode: 0o644,
        });
        for _ in 0..3 {
            assert!(matches!(dir.write(&files, me()), Err(CertDirError::File(_))));
        }
        assert_eq!((sound(&dir).as_str(), dir.generations().unwrap().len()), ("one", 1));
    }

    #[test]
    fn names_stay_within_the_folder() {
        let (_folder, dir) = fresh();
        for name in ["", ".", "..", "..data", ".x", "a/b", "../x", "a\0b", "a b"] {
            let files = [CertFile { name, content: FileContent::Public(b""), mode: 0o644 }];
            assert!(matches!(dir.write(&files, me()), Err(CertDirError::Name(_))), "{name:?}");
        }
        let twice = [CertFile { name: "a", content: FileContent::Public(b""), mode: 0o644 }; 2];
        assert!(matches!(dir.write(&twice, me()), Err(CertDirError::Name(_))));
        assert!(!dir.path().exists());
    }
}
