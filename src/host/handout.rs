//! A folder with what one client is given: certificate, key, CA. Made for whoever runs this, and theirs alone to read.
//!
//! # Guarantees
//! - Every file is new (`O_EXCL`), or put in another's place at once where that was asked for. No link is followed.
//! - Unless that was asked for, nothing is overwritten; and if one file cannot be written, none of the others stays.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::files::{self, FileContent, FileError};

/// One file: its name, its content, its permission bits.
pub type Piece<'a> = (&'a str, FileContent<'a>, u32);

/// Why nothing was handed out.
#[derive(Debug, thiserror::Error)]
pub enum HandoutError {
    #[error("{} is there already; --force replaces it", .0.display())]
    Present(PathBuf),
    #[error("{0}: {source}", source = .0.source)]
    File(#[from] FileError),
}

/// Whether all of `names` can be written, as far as that can be told before. Makes the folder.
pub fn prepare(folder: &Path, names: &[&str], force: bool) -> Result<(), HandoutError> {
    files::make_folder(folder, 0o700)?;
    for path in names.iter().map(|name| folder.join(name)) {
        match std::fs::symlink_metadata(&path) {
            Ok(_) if !force => return Err(HandoutError::Present(path)),
            Ok(found) if found.is_dir() => return Err(HandoutError::Present(path)),
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::new("examine", &path, why).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes all of them.
pub fn write(folder: &Path, pieces: &[Piece<'_>], force: bool) -> Result<(), HandoutError> {
    let mut written: Vec<PathBuf> = Vec::new();
    for (name, content, mode) in pieces {
        let path = folder.join(name);
        let done = if force {
            files::replace(&path, *content, *mode, None)
        } else {
            files::create(&path, *content, *mode, None)
        };
        if let Err(why) = done {
            if !force {
                for path in &written {
                    let _ = std::fs::remove_file(path);
                }
            }
            return Err(if why.is_present() { HandoutError::Present(path) } else { why.into() });
        }
        written.push(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;
    use crate::model::Secret;

    const NAMES: [&str; 2] = ["client.key", "client.crt"];

    fn give(folder: &Path, key: &str, force: bool) -> Result<(), HandoutError> {
        prepare(folder, &NAMES, force)?;
        let key = Secret::new(key.as_bytes().to_vec());
        write(
            folder,
            &[
                (NAMES[0], FileContent::Secret(&key), 0o600),
                (NAMES[1], FileContent::Public(b"certificate"), 0o644),
            ],
            force,
        )
    }

    #[test]
    fn the_key_is_its_owners_alone_and_a_new_folder_too() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new");
        give(&folder, "key", false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!((mode(&folder.join(NAMES[0])), mode(&folder.join(NAMES[1]))), (0o600, 0o644));
    }

    #[test]
    fn nothing_is_overwritten_without_a_word() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path();
        let (elsewhere, key) = (folder.join("elsewhere"), folder.join(NAMES[0]));
        fs::write(&elsewhere, "mine").unwrap();
        symlink(&elsewhere, folder.join(NAMES[1])).unwrap();
        assert!(
            matches!(give(folder, "key", false), Err(HandoutError::Present(path)) if path.ends_with(NAMES[1]))
        );
        assert!(!key.exists());
        // Also if it came up behind our back.
        let pieces: [Piece<'_>; 2] =
            [(NAMES[0], FileContent::Public(b"key"), 0o600), (NAMES[1], FileContent::Public(b""), 0o644)];
        assert!(matches!(write(folder, &pieces, false), Err(HandoutError::Present(_))));
        assert!(!key.exists());
        give(folder, "first", true).unwrap();
        give(folder, "second", true).unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "second");
        // The link was replaced, and not what it led to.
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(folder.join(NAMES[1])).unwrap();
        fs::create_dir(folder.join(NAMES[1])).unwrap();
        assert!(matches!(give(folder, "third", true), Err(HandoutError::Present(_))));
    }
}
