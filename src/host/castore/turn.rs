//! One process's turn at the store: whoever has it has read everything anew, and nobody else changes anything.

use std::os::fd::OwnedFd;

use time::OffsetDateTime;

use super::{
    Audited, Authority, CaState, CaStore, CaStoreError, Line, Notice, Origin, Rules, ending, index::Index,
    notice, offer, publish::is_whole, usable_roots,
};
use crate::{
    host::{
        bundle::{BundleError, TrustBundle},
        crash, files,
    },
    model::Roots,
    pki::{self, Ca, CaFlaw, CaProblem, Certificate},
};

pub(super) struct Turn<'a> {
    pub(super) store: CaStore,
    pub(super) bundle: TrustBundle,
    pub(super) index: Index,
    /// What came back signed, byte by byte.
    pub(super) signed: Vec<u8>,
    pub(super) roots: &'a Roots,
    pub(super) rules: &'a Rules<'a>,
    pub(super) now: OffsetDateTime,
    pub(super) notices: Vec<Notice>,
    _lock: OwnedFd,
}

/// How the issuing CA came to be the issuing CA.
#[derive(Clone, Copy)]
enum Entrance {
    /// It was before.
    None,
    Generated,
    Imported,
    Returned,
}

impl<'a> Turn<'a> {
    pub(super) fn take(
        roots: &'a Roots,
        rules: &'a Rules<'a>,
        now: OffsetDateTime,
    ) -> Result<Self, CaStoreError> {
        let store = CaStore::open(roots.ca_store());
        let lock = store.lock()?;
        let bundle = TrustBundle::open(roots.bundle());
        let mut index = match store.index()? {
            Some(index) => index,
            None => store.found_pairs(now)?,
        };
        let mut notices = Vec::new();
        store.complete_bundle(&bundle, &mut index, now, &mut notices)?;
        let signed = files::read(&roots.signed_ca()).ok().flatten();
        let signed = signed.map_or_else(Vec::new, |found| found.content.expose().to_vec());
        Ok(Self { store, bundle, index, signed, roots, rules, now, notices, _lock: lock })
    }

    /// Finds what has to be in force, puts it in force, and has the bundle hold what it has to.
    pub(super) fn establish(mut self) -> Result<Authority, CaStoreError> {
        // A user's CA first: only without one is a CA of our own needed. Whatever is wrong with the bundle
        // is an error only after our own CA is safe.
        let present = self.bundle.read();
        let front = match &present {
            Ok(Some(bytes)) => self.store.front(&self.index, bytes)?,
            _ => Vec::new(),
        };
        let present = self.complete(present, &front)?;
        let digest = offer::digest(self.roots, &front, &self.signed);
        let (issuing, entrance) = self.choose(present.is_ok(), &front, &digest)?;
        // What is not valid yet is judged once more when it is.
        self.index.judged = offer::valid_later(&front, &self.signed, self.now).is_none().then_some(digest);
        self.put_in_force(issuing, entrance, present?.as_deref(), &front)
    }

    /// Before anything else, what is served now has to verify: whoever replaced the file left out what it needs. What
    /// cannot be added to is an error later, when a CA of our own is safe.
    fn complete(
        &mut self,
        present: Result<Option<Vec<u8>>, BundleError>,
        front: &[u8],
    ) -> Result<Result<Option<Vec<u8>>, BundleError>, CaStoreError> {
        let Some(issuing) = self.index.issuing() else { return Ok(present) };
        let issuing = self.store.certificates(&issuing.id)?;
        let anchors = self.store.anchors(&self.index, &issuing)?;
        match present {
            // What it holds then is not read: somebody may have replaced it already, and that is another turn's.
            Ok(bytes) if is_whole(front) => self
                .store
                .publish(&self.bundle, &mut self.index, bytes.as_deref(), front, &anchors, self.now)
                .map(|held| Ok(Some(held))),
            present => Ok(present),
        }
    }

    /// A new CA of our own, in the place of whatever is in force.
    pub(super) fn regenerate(mut self) -> Result<Authority, CaStoreError> {
        let present = self.bundle.read()?;
        let mut front = match &present {
            Some(bytes) => self.store.front(&self.index, bytes)?,
            None => Vec::new(),
        };
        // A user's CA that issued has had its time: it stays in the bundle for as long as any former CA does. What else
        // the user put there goes on being trusted.
        let uploaded = pki::certificates_within(&front);
        let issued = self.index.issuing().map(|entry| self.store.certificates(&entry.id)).transpose()?;
        if issued.is_some_and(|line| line.last().is_some_and(|root| uploaded.contains(root))) {
            let known = self.store.known(&self.index)?;
            let others = uploaded.iter().filter(|one| !known.contains(one));
            front = others.map(Certificate::to_pem).collect::<String>().into_bytes();
        }
        self.index.judged = Some(offer::digest(self.roots, &front, &self.signed));
        self.bundle.addition(&front, &[])?;
        let fresh = self.generate()?;
        self.put_in_force(fresh, Entrance::Generated, present.as_deref(), &front)
    }

    /// Takes CAs out of the bundle whose overlap is over; whether there were any. Only when nothing that they signed is
    /// served any more.
    pub(super) fn retire(&mut self) -> Result<bool, CaStoreError> {
        let overlap = self.rules.overlap;
        let Some(issuing) = self.index.issuing() else { return Ok(false) };
        let root = self.store.certificates(&issuing.id)?.pop();
        let mut over = Vec::new();
        for entry in self.index.former() {
            if entry.overlap_ends(overlap).is_some_and(|end| end <= self.now) {
                over.push((entry.id.clone(), self.store.certificates(&entry.id)?));
            }
        }
        for (id, line) in &over {
            for entry in self.index.authorities.iter_mut().filter(|entry| entry.id == *id) {
                (entry.state, entry.since) = (CaState::Retired, Some(self.now));
            }
            if let Some(certificate) = line.first() {
                self.store.audit(Audited::CaRetired, certificate, self.now)?;
                if line.last() != root.as_ref() {
                    self.notices.push(Notice::Retired { subject: certificate.subject().to_owned() });
                }
            }
        }
        let needless = self.store.needless(self.roots, &self.index)?;
        self.index.external.retain(|id| !needless.contains(id));
        if !over.is_empty() || !needless.is_empty() {
            self.store.write_index(&self.index)?;
            crash::point("ca-retired");
        }
        Ok(!over.is_empty())
    }

    /// The CA that has to issue, and whether it is another one than before.
    fn choose(
        &mut self,
        readable: bool,
        front: &[u8],
        digest: &str,
    ) -> Result<(Line, Entrance), CaStoreError> {
        let id = self.index.issuing().map(|entry| entry.id.clone());
        let in_force = id.map(|id| self.store.load(&id, self.now, &mut self.notices));
        let judged = self.index.judged.as_deref() == Some(digest);
        // Of no use, since it expired or its key is lost: then what a user offers is just what is needed.
        let usable = matches!(in_force, Some(Ok(_)));
        if readable && !(judged && usable) {
            let issuing = in_force.as_ref().and_then(|line| line.as_ref().ok());
            if let Some((offered, known)) = self.offered(issuing, front)? {
                if issuing.is_some_and(|line| line.certificates == offered.certificates) {
                    return Ok((offered, Entrance::None));
                }
                return Ok((offered, if known { Entrance::Returned } else { Entrance::Imported }));
            }
        }
        let may_replace = readable && is_whole(front);
        let in_force = match in_force {
            // Nothing that it signed verifies any more, so that any other CA is better.
            Some(Err(CaStoreError::Load { problem: CaProblem::Flaw(CaFlaw::Expired(_)), .. }))
                if may_replace =>
            {
                None
            }
            // It is from a time when the clock was wrong. The one before it is not, or it is the clock that is wrong now.
            Some(Err(
                error @ CaStoreError::Load { problem: CaProblem::Flaw(CaFlaw::NotYetValid(_)), .. },
            )) => {
                return self.former().map(|line| (line, Entrance::Returned)).ok_or(error);
            }
            in_force => in_force.transpose()?,
        };
        match in_force {
            Some(line) if !(may_replace && self.is_due(&line)) => Ok((line, Entrance::None)),
            _ => Ok((self.generate()?, Entrance::Generated)),
        }
    }

    /// The last CA that stepped down and is of use.
    fn former(&mut self) -> Option<Line> {
        let former = self.index.former().into_iter();
        former.map(|entry| self.store.load(&entry.id, self.now, &mut self.notices)).find_map(Result::ok)
    }

    /// The CA that a user offers, and whether it is one that we had; `None` if what issues now shall go on.
    fn offered(
        &mut self,
        issuing: Option<&Line>,
        front: &[u8],
    ) -> Result<Option<(Line, bool)>, CaStoreError> {
        if let Some(line) = offer::with_key(self.roots, front, self.now, &mut self.notices) {
            let known = self.index.authorities.iter().any(|entry| entry.id == *line.ca.id());
            return Ok(Some((line, known)));
        }
        let uploaded = pki::certificates_within(front);
        if let Some(line) = self.store.signed(self.roots, &uploaded, self.now, &mut self.notices) {
            return Ok(Some((line, false)));
        }
        // Without a key beside it: a CA whose key we keep.
        let stays =
            issuing.and_then(|line| line.certificates.last()).is_some_and(|root| uploaded.contains(root));
        if uploaded.is_empty() || stays {
            return Ok(None);
        }
        for entry in self.index.authorities.iter().rev() {
            let root = self.store.certificates(&entry.id)?.pop();
            if root.is_some_and(|root| uploaded.contains(&root))
                && let Ok(line) = self.store.load(&entry.id, self.now, &mut self.notices)
            {
                return Ok(Some((line, true)));
            }
        }
        Ok(None)
    }

    /// Whether it is a CA of ours that has to be replaced now.
    fn is_due(&self, line: &Line) -> bool {
        ending::renewal_at(&self.index, line, self.rules).is_some_and(|at| at <= self.now)
    }

    fn generate(&self) -> Result<Line, CaStoreError> {
        let Rules { host_name, key_type, lifetime, .. } = *self.rules;
        let ca = Ca::generate(host_name, key_type, lifetime, self.now).map_err(CaStoreError::Generate)?;
        Ok(Line { certificates: vec![ca.certificate().clone()], ca })
    }

    fn put_in_force(
        mut self,
        issuing: Line,
        entrance: Entrance,
        present: Option<&[u8]>,
        front: &[u8],
    ) -> Result<Authority, CaStoreError> {
        let certificate = issuing.ca.certificate().clone();
        let former = self.index.issuing().map(|entry| self.store.certificates(&entry.id)).transpose()?;
        let former = former.and_then(|line| Some(line.first()?.subject().to_owned()));
        let subject = certificate.subject().to_owned();
        let entered = match entrance {
            Entrance::None => None,
            Entrance::Generated => {
                let notice = Notice::Generated { subject, former: former.clone() };
                Some((Origin::Generated, Audited::CaGenerated, notice))
            }
            Entrance::Imported => {
                let notice = Notice::Imported { subject, former: former.clone() };
                Some((Origin::Imported, Audited::CaImported, notice))
            }
            Entrance::Returned => {
                let notice = Notice::Returned { subject, former: former.clone() };
                Some((Origin::Imported, Audited::CaReturned, notice))
            }
        };
        if entered.is_some() {
            self.store.keep(&issuing)?;
            crash::point("ca-kept");
        }
        // The first CA of all is safe before anything can be wrong with the bundle. Any other one issues only when its
        // root is published: until then a file that lacks it is nobody's wish to go back.
        let first = self.index.issuing().is_none();
        if let (true, Some((origin, ..))) = (first, &entered) {
            self.index.put(issuing.ca.id(), *origin, self.now);
            self.store.write_index(&self.index)?;
        }
        let anchors = self.store.anchors(&self.index, &issuing.certificates)?;
        let held = self.store.publish(&self.bundle, &mut self.index, present, front, &anchors, self.now)?;
        let entered_now = entered.is_some();
        if entered_now {
            crash::point("ca-published");
        }
        if let Some((origin, audited, notice)) = entered {
            self.index.put(issuing.ca.id(), origin, self.now);
            self.store.audit(audited, &certificate, self.now)?;
            self.notices.push(notice);
        }
        self.store.write_index(&self.index)?;
        if entered_now {
            crash::point("ca-in-force");
            self.store.answered(self.roots)?;
        }
        self.authority(issuing, &anchors, front, &held)
    }

    fn authority(
        mut self,
        issuing: Line,
        anchors: &[Certificate],
        front: &[u8],
        held: &[u8],
    ) -> Result<Authority, CaStoreError> {
        let bridges =
            self.store.bridges(&self.index, &issuing, self.rules.overlap, self.now, &mut self.notices)?;
        let known = self.store.signed_for(&self.index, self.now)?;
        notice::judge(self.roots, front, held, &known, issuing.ca.certificate(), self.now, &mut self.notices);
        let ends = self.index.former().into_iter().filter_map(|entry| entry.overlap_ends(self.rules.overlap));
        let bridges_end = bridges.certificates.iter().map(Certificate::not_after);
        let (reminder, remind_at) = ending::reminder(self.roots, &self.index, &issuing, self.rules, self.now);
        self.notices.extend(reminder);
        if self.notices.iter().any(Notice::asks_for_a_signature) {
            self.store.request(self.roots, self.rules)?;
        }
        let renewal_at = ending::renewal_at(&self.index, &issuing, self.rules);
        let valid_later = offer::valid_later(front, &self.signed, self.now);
        let changes = ends
            .chain(bridges_end)
            .chain(renewal_at)
            .chain(remind_at)
            .chain(valid_later)
            .chain(bridges.again);
        let next = changes.filter(|at| *at > self.now).min();
        Ok(Authority {
            uploaded: self.store.uploaded(&self.index, self.now)?,
            roots: usable_roots(anchors, held, self.now),
            reached: bridges.reached,
            bridges: bridges.certificates,
            issuing: issuing.ca,
            notices: self.notices,
            found: self.now,
            next,
        })
    }
}
