//! Signatures that were checked before: the same few certificates are read anew at every look, and whether the key of
//! the one signed the other never changes.

use std::{cell::RefCell, collections::HashMap};

/// SHA-256 of a certificate, whole.
type Fingerprint = [u8; 32];

/// More than a host with a thousand databases has at a time. What is thrown away is checked again.
const MOST: usize = 4096;

thread_local! {
    static VERDICTS: RefCell<HashMap<(Fingerprint, Fingerprint), bool>> = RefCell::default();
}

/// What `check` said of this certificate and this issuer, or says now.
pub(super) fn remembered(
    certificate: Fingerprint,
    issuer: Fingerprint,
    check: impl FnOnce() -> bool,
) -> bool {
    if let Some(verdict) = VERDICTS.with_borrow(|known| known.get(&(certificate, issuer)).copied()) {
        return verdict;
    }
    let verdict = check();
    VERDICTS.with_borrow_mut(|known| {
        if known.len() >= MOST {
            known.clear();
        }
        known.insert((certificate, issuer), verdict);
    });
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_is_checked_once_and_no_more_than_so_many_are_kept() {
        let one = |number: usize| {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&number.to_be_bytes());
            fingerprint
        };
        for verdict in [true, false] {
            let (certificate, issuer) = (one(usize::from(verdict)), one(7));
            assert_eq!(remembered(certificate, issuer, || verdict), verdict);
            assert_eq!(remembered(certificate, issuer, || unreachable!()), verdict);
            assert_eq!(
                remembered(issuer, certificate, || !verdict),
                !verdict,
                "it is not the other way round"
            );
        }
        for number in 0..3 * MOST {
            remembered(one(number), one(8), || true);
            assert!(VERDICTS.with_borrow(HashMap::len) <= MOST);
        }
    }
}
