//! One writer at a time: advisory locks (`flock(2)`) that vanish with their holder, however it dies.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    thread,
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
        let file = open(roots)?;
        while !take(roots, &file, FlockOperation::NonBlockingLockExclusive)? {
            // Those who only ask share it among themselves, and let go of it at once: they keep nobody from starting.
            if !take(roots, &file, FlockOperation::NonBlockingLockShared)? {
                return Err(LockError::Held(roots.state.clone()));
            }
            thread::yield_now();
        }
        Ok(Self { _file: file })
    }
}

/// Whether somebody holds it now.
pub fn is_held(roots: &Roots) -> Result<bool, LockError> {
    Ok(!take(roots, &open(roots)?, FlockOperation::NonBlockingLockShared)?)
}

fn path(roots: &Roots) -> PathBuf {
    roots.state.join("lock")
}

fn open(roots: &Roots) -> Result<OwnedFd, LockError> {
    let create = || {
        fs::create_dir_all(&roots.state)?;
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path(roots))
    };
    create().map(OwnedFd::from).map_err(|source| LockError::File { path: path(roots), source })
}

/// `false`: somebody else has it.
fn take(roots: &Roots, file: &OwnedFd, how: FlockOperation) -> Result<bool, LockError> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(LockError::File { path: path(roots), source: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

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

    #[test]
    fn who_only_asks_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
        let started = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !started.load(Ordering::Relaxed) {
                    is_held(&roots).unwrap();
                }
            });
            let refused: Vec<_> = (0..2000).filter_map(|_| Lock::exclusive(&roots).err()).collect();
            started.store(true, Ordering::Relaxed);
            assert!(refused.is_empty(), "{refused:?}");
        });
    }
}
