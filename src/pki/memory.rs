//! What was found out before: the same few certificates are read anew at every look at the bundle and at every database,
//! and neither what is in one nor whether the key of another signed it ever changes.

use std::{cell::RefCell, collections::HashMap, hash::Hash};

use super::Certificate;

/// SHA-256 of a certificate, whole.
pub(super) type Fingerprint = [u8; 32];

/// More than are looked at in turn, and no more memory than a megabyte or two. What is thrown away is found out again.
const MOST: usize = 512;

thread_local! {
    pub(super) static PARSED: Memory<Fingerprint, Certificate> = Memory::default();
    /// Of a certificate and an issuer, whether its key signed it.
    pub(super) static SIGNED: Memory<(Fingerprint, Fingerprint), bool> = Memory::default();
}

pub(super) struct Memory<K, V>(RefCell<HashMap<K, V>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.0.borrow().get(key).cloned()
    }

    pub(super) fn keep(&self, key: K, value: V) {
        let mut known = self.0.borrow_mut();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_no_more_than_so_many_are_kept() {
        let memory = Memory::default();
        memory.keep((1, 2), true);
        memory.keep((3, 4), false);
        assert_eq!([(1, 2), (2, 1), (3, 4)].map(|key| memory.get(&key)), [Some(true), None, Some(false)]);
        for number in 0..3 * MOST {
            memory.keep((number, 0), true);
            assert_eq!(memory.get(&(number, 0)), Some(true));
            assert!(memory.0.borrow().len() <= MOST);
        }
    }
}
