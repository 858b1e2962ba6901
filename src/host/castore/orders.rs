//! What a human, or the agent in time, can have done with the CAs. Each takes its turn at the store, works with the
//! agent running or not, and leaves `coolify-ca.crt` as the agent will find it right.

use time::{Duration, OffsetDateTime};

use super::{Authority, CaState, CaStore, CaStoreError, Origin, Rules, index::Index, offer, turn::Turn};
use crate::{
    host::{
        bundle::BundleError,
        files::{self, FileContent, FileError},
    },
    model::{Roots, Secret},
    pki::{self, CaId, Certificate},
};

/// One CA that the store knows.
#[derive(Clone, Debug)]
pub struct KnownCa {
    pub id: CaId,
    pub state: CaState,
    pub origin: Origin,
    /// Since when it has been in this state.
    pub since: Option<OffsetDateTime>,
    /// When all that is served had been seen to be issued by it.
    pub proved: Option<OffsetDateTime>,
    /// Until when clients that know only this former CA are served.
    pub overlap_ends: Option<OffsetDateTime>,
    /// The CA, then what stands above it up to its root.
    pub certificates: Vec<Certificate>,
}

/// Why a file is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the certificate file is refused: {0}")]
    Certificate(pki::ReadProblem),
    #[error("the certificate file is refused: {subject} is of no use as a CA: {flaw}")]
    Flaw { subject: String, flaw: pki::CaFlaw },
    #[error(
        "the certificate file is refused: it holds no root (a certificate that signed itself), and clients trust only roots"
    )]
    NoRoot,
    #[error("the key is refused: {0}")]
    Key(String),
    #[error(transparent)]
    Store(#[from] CaStoreError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl CaStore {
    /// A new CA of our own in the place of the one in force, which stays trusted for the overlap.
    pub fn regenerate(
        roots: &Roots,
        rules: &Rules<'_>,
        now: OffsetDateTime,
    ) -> Result<Authority, CaStoreError> {
        Turn::take(roots, rules, now)?.regenerate()
    }

    /// Put a CA into `coolify-ca.crt`, and its key beside it, as its user could by hand; all that clients need besides
    /// is never missing.
    pub fn import(
        roots: &Roots,
        rules: &Rules<'_>,
        upload: &[u8],
        key: Option<&Secret>,
        now: OffsetDateTime,
    ) -> Result<Authority, ImportError> {
        let certificates = pki::read_pem(upload).map_err(ImportError::Certificate)?;
        if let Some(key) = key {
            offer::check(&certificates, key, now).map_err(ImportError::Key)?;
        } else {
            let root = certificates.iter().find(|one| one.self_signed()).ok_or(ImportError::NoRoot)?;
            let subject = root.subject().to_owned();
            pki::check_ca(root, now).map_err(|flaw| ImportError::Flaw { subject, flaw })?;
        }
        let mut turn = Turn::take(roots, rules, now)?;
        if let Some(key) = key {
            files::make_folder(&roots.data, 0o755)?;
            files::replace(&roots.custom_key(), FileContent::Secret(key), 0o600, None)?;
        }
        turn.put_in_front(upload)?;
        // Somebody asks for it, whatever it was thought of before.
        turn.index.judged = None;
        Ok(turn.establish()?)
    }

    /// Put the last `coolify-ca.crt` that was of use in the place of whatever is there now; the authority, and where
    /// what could not be written over was moved.
    pub fn restore(
        roots: &Roots,
        rules: &Rules<'_>,
        now: OffsetDateTime,
    ) -> Result<(Authority, Option<std::path::PathBuf>), CaStoreError> {
        let mut turn = Turn::take(roots, rules, now)?;
        let moved = match turn.bundle.read() {
            Ok(_) => None,
            Err(BundleError::Folder(path)) if std::fs::remove_dir(&path).is_ok() => None,
            // A link, a pipe, something huge.
            Err(_) => {
                let path = roots.bundle();
                let aside = path.with_extension(format!("crt.refused-{}", now.unix_timestamp()));
                std::fs::rename(&path, &aside).map_err(|why| FileError::new("move away", &path, why))?;
                Some(aside)
            }
        };
        let accepted = turn.store.accepted()?;
        turn.put_in_front(&accepted)?;
        turn.index.judged = Some(offer::digest(roots, &accepted, &turn.signed));
        Ok((turn.establish()?, moved))
    }

    /// Takes CAs whose overlap is over out of `coolify-ca.crt`, and roots of others that signed nothing that is there.
    /// Only when nothing that they signed is served any more.
    pub fn retire(roots: &Roots, rules: &Rules<'_>, now: OffsetDateTime) -> Result<Authority, CaStoreError> {
        let mut turn = Turn::take(roots, rules, now)?;
        turn.retire()?;
        turn.establish()
    }

    /// Whether there are CAs, or roots, to be taken out by [`Self::retire`]. None, if another CA than `issuing`, under
    /// which all is proved, has come into force.
    pub fn may_retire(
        roots: &Roots,
        overlap: Duration,
        issuing: &CaId,
        now: OffsetDateTime,
    ) -> Result<bool, CaStoreError> {
        let store = Self::open(roots.ca_store());
        let index = store.index()?.unwrap_or_default();
        if index.issuing().is_none_or(|entry| entry.id != *issuing) {
            return Ok(false);
        }
        if !store.needless(roots, &index)?.is_empty() {
            return Ok(true);
        }
        Ok(index.former().into_iter().any(|entry| entry.overlap_ends(overlap).is_some_and(|end| end <= now)))
    }

    /// All that is served was seen to be issued by the CA in force; whether that is news.
    pub fn proved(roots: &Roots, id: &CaId, now: OffsetDateTime) -> Result<bool, CaStoreError> {
        let store = Self::open(roots.ca_store());
        let open = |index: Option<Index>| {
            let mut index = index?;
            let entry =
                index.authorities.iter_mut().find(|entry| entry.id == *id && entry.proved.is_none())?;
            entry.proved = Some(now);
            Some(index)
        };
        // It is asked again and again.
        if open(store.index()?).is_none() {
            return Ok(false);
        }
        let _lock = store.lock()?;
        let Some(index) = open(store.index()?) else { return Ok(false) };
        store.write_index(&index)?;
        Ok(true)
    }

    /// Every CA that the store knows, in the order in which it came to know them.
    pub fn all(roots: &Roots, overlap: Duration) -> Result<Vec<KnownCa>, CaStoreError> {
        let store = Self::open(roots.ca_store());
        let index = store.index()?.unwrap_or_default();
        let known = index.authorities.iter().map(|entry| {
            Ok(KnownCa {
                id: entry.id.clone(),
                state: entry.state,
                origin: entry.origin,
                since: entry.since,
                proved: entry.proved,
                overlap_ends: entry.overlap_ends(overlap),
                certificates: store.certificates(&entry.id)?,
            })
        });
        known.collect()
    }

    /// The audit record: a JSON object for every CA and leaf that came into being, in this order.
    pub fn history(roots: &Roots) -> Result<Vec<serde_json::Value>, CaStoreError> {
        let path = roots.ca_store().join("audit.log");
        let found = files::read_long(&path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&found)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}

impl Turn<'_> {
    /// Have `upload` in front in the bundle, with all that clients need behind it.
    fn put_in_front(&mut self, upload: &[u8]) -> Result<(), CaStoreError> {
        let present = self.bundle.read()?;
        let issuing = self.index.issuing().map(|entry| self.store.certificates(&entry.id)).transpose()?;
        let anchors = self.store.anchors(&self.index, &issuing.unwrap_or_default())?;
        if !(upload.is_empty() && anchors.is_empty()) {
            self.store.publish(
                &self.bundle,
                &mut self.index,
                present.as_deref(),
                upload,
                &anchors,
                self.now,
            )?;
        }
        Ok(())
    }
}
