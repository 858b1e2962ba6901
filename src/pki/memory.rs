//! What was found out before: the same few files and certificates are read anew at every look at the bundle and at every
//! database, and neither what is in them, nor whether a key belongs to a certificate or a signature, ever changes.

use std::{cell::RefCell, collections::HashMap, convert::Infallible, hash::Hash};

use super::{Certificate, ChainProblem};

/// SHA-256 of a certificate, or of a file, whole.
pub(super) type Fingerprint = [u8; 32];

/// More than are looked at in turn, and no more memory than a megabyte or two. What is thrown away is found out again.
const CERTIFICATES: usize = 512;
/// A file may hold many certificates.
const FILES: usize = 64;

thread_local! {
    pub(super) static PARSED: Memory<Fingerprint, Certificate> = Memory::of(CERTIFICATES);
    /// Of a certificate and an issuer's public key, whether it signed it.
    pub(super) static SIGNED: Memory<(Fingerprint, Fingerprint), bool> = Memory::of(CERTIFICATES);
    /// The certificates of a file of nothing else.
    pub(super) static READ: Memory<Fingerprint, Vec<Certificate>> = Memory::of(FILES);
    /// The certificates in a file of whatever kind.
    pub(super) static WITHIN: Memory<Fingerprint, Vec<Certificate>> = Memory::of(FILES);
    /// Of a certificate and the file of a private key, whether they belong together.
    pub(super) static BELONGS: Memory<(Fingerprint, Fingerprint), bool> = Memory::of(CERTIFICATES);
    /// Of what follows a leaf, and of roots, whether what is issued below the one verifies with each of the others.
    pub(super) static TRIED: Memory<(Vec<Fingerprint>, Vec<Fingerprint>), Result<(), ChainProblem>> =
        Memory::of(CERTIFICATES);
}

pub(super) struct Memory<K, V> {
    known: RefCell<HashMap<K, V>>,
    most: usize,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn of(most: usize) -> Self {
        Self { known: RefCell::default(), most }
    }

    /// What is remembered, or else what `find` finds, which is remembered then.
    pub(super) fn recall(&self, key: K, find: impl FnOnce() -> V) -> V {
        self.try_recall(key, || Ok::<_, Infallible>(find())).unwrap_or_else(|never| match never {})
    }

    /// As [`Self::recall`]; an error is not remembered.
    pub(super) fn try_recall<E>(&self, key: K, find: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        if let Some(known) = self.known.borrow().get(&key) {
            return Ok(known.clone());
        }
        let found = find()?;
        let mut known = self.known.borrow_mut();
        if known.len() >= self.most {
            known.clear();
        }
        known.insert(key, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_kept_and_no_more_than_so_many_are() {
        let memory = Memory::of(512);
        let find = |key, found: Result<bool, &'static str>| memory.try_recall(key, || found);
        assert_eq!(find((1, 2), Err("unreadable")), Err("unreadable"));
        assert_eq!(find((1, 2), Ok(true)), Ok(true));
        assert_eq!(find((1, 2), Ok(false)), Ok(true), "it was found before");
        assert_eq!(find((2, 1), Ok(false)), Ok(false));
        for number in 0..3 * 512 {
            assert_eq!(find((number, 0), Ok(true)), Ok(true));
            assert!(memory.known.borrow().len() <= 512);
        }
    }
}
