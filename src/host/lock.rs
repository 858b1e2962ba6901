//! One writer at a time: advisory locks (`flock(2)`) that vanish with their holder, however it dies.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

use rustix::fs::{FlockOperation, flock};

use crate::model::Roots;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another dbssl works with {} already: stop it first; two agents on one host need a state-dir and a docker.only of their own", .0.display())]
    Held(PathBuf),
    #[error("cannot lock {}", path.display())]
    File { path: PathBuf, source: io::Error },
}

impl Lock {
    /// Of whoever changes containers: the agent, or `dbssl apply` while no agent runs.
    pub fn exclusive(roots: &Roots) -> Result<Self, LockError> {
        let path = roots.state.join("lock");
        let fail = |source| LockError::File { path: path.clone(), source };
        fs::create_dir_all(&roots.state).map_err(fail)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file.into() }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(roots.state.clone())),
            Err(error) => Err(fail(error.into())),
        }
    }
}

/// Whether somebody holds it now.
pub fn is_held(roots: &Roots) -> Result<bool, LockError> {
    match Lock::exclusive(roots) {
        Ok(_lock) => Ok(false),
        Err(LockError::Held(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
        let first = Lock::exclusive(&roots).unwrap();
        assert!(matches!(Lock::exclusive(&roots), Err(LockError::Held(_))));
        assert!(is_held(&roots).unwrap());
        drop(first);
        assert!(!is_held(&roots).unwrap());
        Lock::exclusive(&roots).unwrap();
    }
}
