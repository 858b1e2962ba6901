//! Certificates by which clients of a former CA verify what its successor issues: each is the successor's root under
//! the signature of the former CA.
//!
//! One line leads from the leaf over all CAs that stepped down within the overlap, the last one first: alternatives
//! side by side make several clients fail.

use time::{Duration, OffsetDateTime};

use super::{
    CaStore, CaStoreError, Line, Notice,
    index::{Entry, Index},
};
use crate::{
    host::{
        crash,
        files::{self, FileContent},
    },
    pki::{self, CaId, Certificate, Trial},
    shown::with_causes,
};

/// What is served behind the issuing CA's own line, and who verifies it.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    pub(super) certificates: Vec<Certificate>,
    /// The roots of which each alone is enough for a client, the issuing CA's first.
    pub(super) reached: Vec<Certificate>,
    /// When what could not be written is to be tried again.
    pub(super) again: Option<OffsetDateTime>,
}

/// A full disk gets room again, and no file tells of it.
const AFTER_A_FAILURE: Duration = Duration::MINUTE;

/// Why there is no bridge.
enum NoBridge {
    /// It could not be written, which may be otherwise in a while.
    Unwritten(String),
    Refused(String),
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
        let trial = Trial::of(&issuing.ca, now);
        let mut bridges = Bridges { reached: vec![root.clone()], ..Bridges::default() };
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
                trial.verifies(&candidate, &[former_root, root]).map_err(NoBridge::Refused)?;
                Ok(candidate)
            });
            match bridge {
                Ok(candidate) => {
                    bridges.certificates = candidate;
                    bridges.reached.push(former_root.clone());
                    top = former_root.clone();
                }
                Err(failure) => {
                    let why = match failure {
                        NoBridge::Refused(why) => why,
                        NoBridge::Unwritten(why) => {
                            bridges.again = Some(now + AFTER_A_FAILURE);
                            why
                        }
                    };
                    notices.push(Notice::NoBridge {
                        former: former_root.subject().to_owned(),
                        issuing: root.subject().to_owned(),
                        why,
                    });
                }
            }
        }
        Ok(bridges)
    }

    /// `top` under the signature of the former CA `by`: kept, so that what is served stays the same.
    fn bridge(&self, top: &Certificate, by: &Entry, now: OffsetDateTime) -> Result<Certificate, NoBridge> {
        let path = self.folder.join(format!("{}-by-{}.crt", CaId::of(top), by.id));
        let kept = files::read(&path)
            .ok()
            .flatten()
            .and_then(|found| pki::read_pem(found.content.expose()).ok()?.into_iter().next());
        let refused = |why: &dyn std::error::Error| NoBridge::Refused(with_causes(why));
        let signer = self.certificates(&by.id).map_err(|why| refused(&why))?;
        if let (Some(kept), Some(signer)) = (kept, signer.first())
            && kept.signed_by(signer)
            && kept.subject_raw() == top.subject_raw()
            && kept.key_fingerprint_hex() == top.key_fingerprint_hex()
            && now < kept.not_after()
        {
            return Ok(kept);
        }
        let line = self.load(&by.id, now, &mut Vec::new()).map_err(|why| refused(&why))?;
        let made = line.ca.cross_sign(top, now).map_err(|why| refused(&why))?;
        let text = made.to_pem();
        files::replace(&path, FileContent::Public(text.as_bytes()), 0o644, None)
            .map_err(|why| NoBridge::Unwritten(with_causes(&why)))?;
        crash::point("ca-bridged");
        Ok(made)
    }
}
