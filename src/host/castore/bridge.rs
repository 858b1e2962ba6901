//! Certificates by which clients of a former CA verify what its successor issues: each is the successor's root under
//! the signature of the former CA.
//!
//! One line leads from the leaf over all CAs that stepped down within the overlap, the last one first: alternatives
//! side by side make several clients fail.

use std::cell::LazyCell;

use time::{Duration, OffsetDateTime};

use super::{
    CaStore, CaStoreError, Line, Notice,
    index::{Entry, Index},
    offer::{sample, sample_names},
};
use crate::{
    host::{
        crash,
        files::{self, FileContent},
    },
    pki::{self, CaId, Certificate},
    shown::with_causes,
};

/// What is served behind the issuing CA's own line, and who verifies it.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    pub(super) certificates: Vec<Certificate>,
    /// The roots of which each alone is enough for a client, the issuing CA's first.
    pub(super) reached: Vec<Certificate>,
}

impl CaStore {
    /// Finds the bridges of the issuing CA, and makes those that are missing.
    pub(super) fn bridges(
        &self,
        index: &Index,
        issuing: &Line,
        overlap: Duration,
        now: OffsetDateTime,
        notices: &mut Vec<Notice>,
    ) -> Result<Bridges, CaStoreError> {
        let Some(root) = issuing.certificates.last() else { return Ok(Bridges::default()) };
        let served = LazyCell::new(|| sample(&issuing.ca, now));
        let mut bridges = Bridges { certificates: Vec::new(), reached: vec![root.clone()] };
        let mut top = root.clone();
        let former = index.former().into_iter();
        let overlapping = former.filter(|entry| entry.overlap_ends(overlap).is_some_and(|end| now < end));
        for entry in overlapping.filter(|entry| entry.id != *issuing.ca.id()) {
            let line = self.certificates(&entry.id)?;
            let Some((former_root, below)) = line.split_last() else { continue };
            if bridges.reached.contains(former_root) {
                continue;
            }
            let bridge = self.bridge(&top, entry, now).and_then(|bridge| {
                let more = std::iter::once(bridge).chain(below.iter().cloned());
                let candidate: Vec<_> = bridges.certificates.iter().cloned().chain(more).collect();
                leads_to(served.as_ref()?, &candidate, &[former_root, root], now).map(|()| candidate)
            });
            match bridge {
                Ok(candidate) => {
                    bridges.certificates = candidate;
                    bridges.reached.push(former_root.clone());
                    top = former_root.clone();
                }
                Err(why) => notices.push(Notice::NoBridge {
                    former: former_root.subject().to_owned(),
                    issuing: root.subject().to_owned(),
                    why,
                }),
            }
        }
        Ok(bridges)
    }

    /// `top` under the signature of the former CA `by`: kept, so that what is served stays the same.
    fn bridge(&self, top: &Certificate, by: &Entry, now: OffsetDateTime) -> Result<Certificate, String> {
        let path = self.folder.join(format!("{}-by-{}.crt", CaId::of(top), by.id));
        let kept = files::read(&path)
            .ok()
            .flatten()
            .and_then(|found| pki::read_pem(found.content.expose()).ok()?.into_iter().next());
        let signer = self.certificates(&by.id).map_err(|why| with_causes(&why))?;
        if let (Some(kept), Some(signer)) = (kept, signer.first())
            && kept.signed_by(signer)
            && kept.subject_raw() == top.subject_raw()
            && kept.key_fingerprint_hex() == top.key_fingerprint_hex()
            && now < kept.not_after()
        {
            return Ok(kept);
        }
        let line = self.load(&by.id, now, &mut Vec::new()).map_err(|why| with_causes(&why))?;
        let made = line.ca.cross_sign(top, now).map_err(|why| with_causes(&why))?;
        let text = made.to_pem();
        files::replace(&path, FileContent::Public(text.as_bytes()), 0o644, None)
            .map_err(|why| with_causes(&why))?;
        crash::point("ca-bridged");
        Ok(made)
    }
}

/// Whether clients that know only one of `roots` verify what is served with these bridges.
fn leads_to(
    served: &[Certificate],
    bridges: &[Certificate],
    roots: &[&Certificate],
    now: OffsetDateTime,
) -> Result<(), String> {
    let line = [served, bridges].concat();
    for root in roots {
        pki::check_chain(&line, std::slice::from_ref(*root), &sample_names(), now)
            .map_err(|why| why.to_string())?;
    }
    Ok(())
}
