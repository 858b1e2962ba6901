//! What `coolify-ca.crt` has to hold, and how it comes to hold that.
//!
//! In front stands what a user uploaded, byte by byte, if anybody did; behind it the roots that clients need besides.
//! What is intended is recorded first, so that a change that is cut off is recognised and finished.

use time::OffsetDateTime;

use super::{CaState, CaStore, CaStoreError, Index, Notice};
use crate::{
    host::{bundle::TrustBundle, crash, stamp},
    pki::{self, Certificate},
};

/// What a user's file is called in the store.
const UPLOAD: &str = "upload.pem";
/// The last upload that was of use; empty if our own CA was in force without one.
const ACCEPTED: &str = "accepted.pem";
/// What `coolify-ca.crt` is meant to hold.
const BUNDLE: &str = "bundle.pem";
/// What it held when the last change in place began.
const BEFORE: &str = "before.pem";

impl CaStore {
    /// Finish what a crash cut off, or bring back what was removed.
    pub(super) fn complete_bundle(
        &self,
        bundle: &TrustBundle,
        index: &mut Index,
        now: OffsetDateTime,
        notices: &mut Vec<Notice>,
    ) -> Result<(), CaStoreError> {
        let Some(recorded) = self.recorded_bytes(BUNDLE)? else { return Ok(()) };
        let completed = match bundle.read() {
            Ok(None) => bundle.create(&recorded)?,
            Ok(Some(bytes)) => {
                let cut_off = index.rewriting && bytes != recorded && {
                    let before = self.recorded_bytes(BEFORE)?.unwrap_or_default();
                    TrustBundle::is_on_the_way(&bytes, &before, &recorded)
                };
                if cut_off {
                    self.record(BEFORE, &bytes)?;
                    bundle.rewrite(&bytes, &recorded)?;
                    true
                } else if TrustBundle::is_half_added(&bytes, &recorded) {
                    bundle.extend(&bytes, &recorded)?;
                    true
                } else {
                    // Whole certificates may be what somebody wants it to be; a part of one is not.
                    let cut = pki::extendable(&bytes).map_or(true, |held| held.is_empty());
                    let beginning = cut && bytes != recorded && recorded.starts_with(&bytes);
                    if beginning && is_young(bundle, now) {
                        return Err(CaStoreError::Unfinished(bundle.path().to_owned()));
                    }
                    if beginning {
                        bundle.extend(&bytes, &recorded)?;
                    }
                    beginning
                }
            }
            // Reported where it matters.
            Err(_) => false,
        };
        if index.rewriting {
            index.rewriting = false;
            self.write_index(index)?;
        }
        if completed {
            notices.push(Notice::BundleCompleted { path: bundle.path().to_owned() });
        }
        Ok(())
    }

    /// The part of the file that its user put there: all but what was added behind it.
    pub(super) fn front(&self, index: &Index, file: &[u8]) -> Result<Vec<u8>, CaStoreError> {
        let front = self.recorded_bytes(UPLOAD)?.unwrap_or_default();
        let recorded = self.recorded_bytes(BUNDLE)?.unwrap_or_default();
        if file == recorded {
            return Ok(front);
        }
        // Somebody may have written in front of what was added, or while it was. What a user had in front is added only
        // if it is ours as well.
        let known = self.known(index)?;
        let all_ours = pki::certificates_within(&front).iter().all(|one| known.contains(one));
        let whole = if all_ours { recorded.as_slice() } else { &[] };
        for added in [whole, recorded.strip_prefix(front.as_slice()).unwrap_or_default()] {
            let above =
                file.strip_suffix(added).filter(|above| !added.is_empty() && !above.trim_ascii().is_empty());
            if let Some(above) = above.filter(|above| is_whole(above)) {
                return Ok(above.to_vec());
            }
        }
        if let Some(rest) = file.strip_prefix(front.as_slice()) {
            let known = [known, self.leaned_on(index)?].concat();
            let ours = pki::extendable(rest).is_ok_and(|held| {
                let text: usize = held.iter().map(|one| one.to_pem().len()).sum();
                rest.len() <= text + 1 && held.iter().all(|one| known.contains(one))
            });
            // Without an upload all is ours, unless it lacks what it would have been given: then somebody goes back to
            // a former state.
            let issuing = index.issuing().map(|entry| self.certificates(&entry.id)).transpose()?;
            let root = issuing.as_ref().and_then(|line| line.last());
            let complete = root.is_some_and(|root| pki::certificates_within(file).contains(root));
            if ours && (!front.is_empty() || complete) {
                return Ok(front);
            }
        }
        // Somebody who writes in several pieces may have written over the beginning of what was added meanwhile.
        let common = file.iter().rev().zip(recorded.iter().rev()).take_while(|(one, two)| one == two).count();
        let (above, tail) = file.split_at(file.len() - common);
        let torn = pki::extendable(file).is_err() && !tail.is_empty() && !above.is_empty();
        Ok(if torn && pki::extendable(above).is_ok() { above.to_vec() } else { file.to_vec() })
    }

    /// The roots that have to be in the bundle: the issuing CA's first, then those of all CAs not retired, then those of
    /// others that signed what is served.
    pub(super) fn anchors(
        &self,
        index: &Index,
        issuing: &[Certificate],
    ) -> Result<Vec<Certificate>, CaStoreError> {
        let mut anchors: Vec<Certificate> = issuing.last().cloned().into_iter().collect();
        for entry in index.authorities.iter().filter(|entry| entry.state != CaState::Retired) {
            if let Some(root) = self.certificates(&entry.id)?.pop()
                && !anchors.contains(&root)
            {
                anchors.push(root);
            }
        }
        for root in self.leaned_on(index)? {
            if !anchors.contains(&root) {
                anchors.push(root);
            }
        }
        Ok(anchors)
    }

    /// Record what the bundle has to hold, then have it hold that; what it holds in the end. `present`: what it holds
    /// now; `front`: what a user put there.
    pub(super) fn publish(
        &self,
        bundle: &TrustBundle,
        index: &mut Index,
        present: Option<&[u8]>,
        front: &[u8],
        anchors: &[Certificate],
        now: OffsetDateTime,
    ) -> Result<Vec<u8>, CaStoreError> {
        let intended = intended(bundle, present.unwrap_or_default(), front, anchors)?;
        self.record(UPLOAD, front)?;
        if front.is_empty() || is_of_use(front, now) {
            self.record(ACCEPTED, front)?;
        }
        self.record(BUNDLE, &intended)?;
        if present.is_some_and(|present| present != intended) {
            crash::point("bundle-recorded");
        }
        match present {
            None if bundle.create(&intended)? => {}
            None => _ = bundle.ensure(anchors)?,
            Some(present) if intended.starts_with(present) => bundle.rewrite(present, &intended)?,
            Some(present) => {
                self.record(BEFORE, present)?;
                index.rewriting = true;
                self.write_index(index)?;
                bundle.rewrite(present, &intended)?;
                crash::point("bundle-rewritten");
                index.rewriting = false;
                self.write_index(index)?;
            }
        }
        Ok(intended)
    }

    /// The last upload that was of use.
    pub(super) fn accepted(&self) -> Result<Vec<u8>, CaStoreError> {
        Ok(self.recorded_bytes(ACCEPTED)?.unwrap_or_default())
    }
}

/// Whether it changed a moment ago: what is cut off now may be what somebody is writing. `now` is when the turn was asked
/// for; it may have been waited for since.
fn is_young(bundle: &TrustBundle, now: OffsetDateTime) -> bool {
    const YOUNG: i128 = 900_000_000;
    const WAITED: i128 = 60_000_000_000;
    stamp::of(bundle.path())
        .is_some_and(|stamp| (-WAITED..YOUNG).contains(&(now.unix_timestamp_nanos() - stamp.changed)))
}

/// What was added stays where it is for as long as it is needed, and what is new comes behind it.
fn intended(
    bundle: &TrustBundle,
    present: &[u8],
    front: &[u8],
    anchors: &[Certificate],
) -> Result<Vec<u8>, CaStoreError> {
    let added = present.strip_prefix(front).map(pki::certificates_within).unwrap_or_default();
    let mut wanted: Vec<Certificate> = Vec::new();
    for one in added.iter().filter(|one| anchors.contains(one)).chain(anchors) {
        if !wanted.contains(one) {
            wanted.push(one.clone());
        }
    }
    Ok([front, &bundle.addition(front, &wanted)?].concat())
}

/// Whether it is a file that somebody could have meant to put there: of certificates, with a root in force.
fn is_of_use(upload: &[u8], now: OffsetDateTime) -> bool {
    let usable = |one: &Certificate| one.self_signed() && pki::check_ca(one, now).is_ok();
    pki::read_pem(upload).is_ok_and(|held| held.iter().any(usable))
}

/// Whether more can be added to it.
pub(super) fn is_whole(front: &[u8]) -> bool {
    pki::extendable(front).is_ok()
}
