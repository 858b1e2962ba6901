//! The CA store: which CAs there are, which of them issues, and what `coolify-ca.crt` is meant to hold.
//!
//! ```text
//! ca/                0700
//!   store.json       which CA is issuing, trusted, retired
//!   <id>.crt         0644: the CA, then what stands above it up to its root
//!   <id>.key         0600: PKCS#8
//!   bundle.pem       0600: what coolify-ca.crt is meant to hold, written before it does
//!   audit.log        0600: one JSON line for every CA and leaf that came into being
//! ```
//!
//! # Guarantees
//!
//! - When [`CaStore::establish`] returns an [`Authority`], its issuing CA's root, and the root of every other CA
//!   that is not retired, is in the `coolify-ca.crt` on disk.
//! - A key is never overwritten, and a new CA is in force only when its key, its certificate and its place in
//!   the bundle are on the disk, in this order.
//! - What a user put into `coolify-ca.crt` is never changed. What we need there is added behind it; if that
//!   cannot be done so that clients find it, nothing is done and the error says what to do.
//! - A user's CA is taken over only with its key, and only when a leaf issued under it has passed
//!   [`pki::check_chain`].
//! - Two processes take turns (`flock`).
//!
//! # A crash
//!
//! A key without certificate is of no consequence. A pair that is not in `store.json` yet is found again if it
//! was the first one, and imported again if it was a user's. A bundle that is the beginning of `bundle.pem`, or
//! that is gone, is completed from it.
//!
//! Rollover has its place here: it adds an authority, moves states, and is the only one to retire.

mod notice;
mod offer;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

pub use notice::Notice;

use super::{
    bundle::{BundleError, TrustBundle},
    files::{self, FileContent, FileError},
};
use crate::{
    model::{Roots, San},
    pki::{self, Ca, CaId, CaProblem, Certificate, KeyType, PkiError, ReadProblem},
};

/// The folder `ca/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaStore {
    folder: PathBuf,
}

/// What is in force.
#[derive(Debug)]
pub struct Authority {
    pub issuing: Ca,
    /// Every usable root in the bundle, the issuing CA's first. Not every leaf verifies against each of them.
    pub roots: Vec<Certificate>,
    /// What a human should know or do; the text is the log line.
    pub notices: Vec<Notice>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaStoreError {
    #[error("lock the CA store {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {}: remove it, and it is made anew from the keys beside it", path.display())]
    Index {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("read {}: its version {version} is from a newer dbssl", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("read the certificate of the CA {id}: {} is missing", path.display())]
    NoCertificate { id: CaId, path: PathBuf },
    #[error("read the certificate of the CA {id} in {}", path.display())]
    Certificate {
        id: CaId,
        path: PathBuf,
        #[source]
        problem: ReadProblem,
    },
    #[error("load the CA {id}: its key {} is missing; put it back from a backup, or replace the CA", path.display())]
    NoKey { id: CaId, path: PathBuf },
    #[error("load the CA {id} from {}", path.display())]
    Load {
        id: CaId,
        path: PathBuf,
        #[source]
        problem: CaProblem,
    },
    #[error("keep the CA {id}: {} holds something else", path.display())]
    Clash { id: CaId, path: PathBuf },
    #[error("generate a CA")]
    Generate(#[source] PkiError),
    #[error("encode a record")]
    Encode(#[source] serde_json::Error),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// What came into being, for the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audited {
    CaGenerated,
    CaImported,
    LeafIssued,
}

const VERSION: u32 = 1;

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    version: u32,
    authorities: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: CaId,
    state: CaState,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum CaState {
    /// Signs every new leaf; exactly one.
    Issuing,
    /// In the bundle, as it may still have signed something that is served.
    Trusted,
    /// Known, no more.
    Retired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    Generated,
    Imported,
}

/// A CA and all certificates above it, the root last.
struct Line {
    ca: Ca,
    certificates: Vec<Certificate>,
}

impl CaStore {
    /// Touches nothing.
    pub fn open(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Bring the store and the bundle to where they have to be, whatever state they are in, and say what is in
    /// force. Run at start and whenever `coolify-ca.crt` or `coolify-ca.key` changed; changes nothing if
    /// nothing has to change.
    pub fn establish(
        roots: &Roots,
        host_name: &str,
        key_type: KeyType,
        ca_lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Authority, CaStoreError> {
        let store = Self::open(roots.ca_store());
        let bundle = TrustBundle::open(roots.bundle());
        files::make_folder(&store.folder, 0o700)?;
        files::set_folder_mode(&store.folder, 0o700)?;
        let _lock = store.lock()?;
        let mut notices = Vec::new();
        let mut index = match store.index()? {
            Some(index) => index,
            None => store.found_pairs(now)?,
        };
        store.complete_bundle(&bundle, &mut notices)?;

        // A user's CA first: only without one is a CA of our own needed. Whatever is wrong with the bundle
        // is an error only after our own CA is safe.
        let present = bundle.read();
        let offered = match &present {
            Ok(Some(bytes)) => offer::offered_ca(roots, bytes, now, &mut notices),
            _ => None,
        };
        let in_force = match index.issuing().map(|id| store.load(id, now, &mut notices)) {
            // Expired, say: then what a user offers is just what is needed.
            Some(Err(_)) if offered.is_some() => None,
            in_force => in_force.transpose()?,
        };
        let former = in_force.as_ref().map(|line| line.ca.certificate().subject().to_owned());
        let (issuing, changed) = match (in_force, offered) {
            (Some(line), None) => (line, false),
            (Some(line), Some(offer)) if line.certificates == offer.certificates => (line, false),
            (_, Some(offer)) => {
                store.keep(&offer)?;
                (offer, true)
            }
            (None, None) => {
                let ca =
                    Ca::generate(host_name, key_type, ca_lifetime, now).map_err(CaStoreError::Generate)?;
                let line = Line { certificates: vec![ca.certificate().clone()], ca };
                store.keep(&line)?;
                store.audit(Audited::CaGenerated, line.ca.certificate(), now)?;
                notices.push(Notice::Generated { subject: line.ca.certificate().subject().to_owned() });
                index.put(line.ca.id(), Origin::Generated);
                store.write_index(&index)?;
                (line, false)
            }
        };

        let anchors = store.anchors(&index, &issuing)?;
        let held = store.publish(&bundle, present?.as_deref(), &anchors)?;
        if changed {
            let certificate = issuing.ca.certificate();
            index.put(issuing.ca.id(), Origin::Imported);
            store.audit(Audited::CaImported, certificate, now)?;
            store.write_index(&index)?;
            notices.push(Notice::Imported { subject: certificate.subject().to_owned(), former });
        }
        notice::judge(roots, &held, &store.known(&index)?, issuing.ca.certificate(), now, &mut notices);
        Ok(Authority { roots: usable_roots(&anchors, &held, now), issuing: issuing.ca, notices })
    }

    /// What is in force, with the roots that `coolify-ca.crt` really holds now: what a client would trust. Changes
    /// nothing, not even what would have to be mended; `None` if there is no CA yet.
    pub fn current(roots: &Roots, now: OffsetDateTime) -> Result<Option<Authority>, CaStoreError> {
        let Some(mut authority) = Self::recorded(roots, now)? else { return Ok(None) };
        let held = TrustBundle::open(roots.bundle()).read()?.unwrap_or_default();
        let published = pki::certificates_within(&held);
        authority.roots.retain(|root| published.contains(root));
        authority.roots = usable_roots(&authority.roots, &held, now);
        Ok(Some(authority))
    }

    /// What is in force by the record alone, whatever became of `coolify-ca.crt`; `None` if there is no CA yet.
    pub fn recorded(roots: &Roots, now: OffsetDateTime) -> Result<Option<Authority>, CaStoreError> {
        let store = Self::open(roots.ca_store());
        let Some(index) = store.index()? else { return Ok(None) };
        let Some(id) = index.issuing() else { return Ok(None) };
        let mut notices = Vec::new();
        let line = store.load(id, now, &mut notices)?;
        Ok(Some(Authority { roots: store.anchors(&index, &line)?, issuing: line.ca, notices }))
    }

    /// Add one line to the audit record: no more than what is public in the certificate.
    pub fn audit(
        &self,
        what: Audited,
        certificate: &Certificate,
        now: OffsetDateTime,
    ) -> Result<(), CaStoreError> {
        let record = serde_json::json!({
            "time": now.format(&Rfc3339).unwrap_or_else(|_| now.unix_timestamp().to_string()),
            "what": what,
            "subject": certificate.subject(),
            "issuer": certificate.issuer(),
            "serial": certificate.serial_hex(),
            "sha256": certificate.fingerprint_hex(),
            "names": certificate.sans().iter().map(San::to_string).collect::<Vec<_>>(),
            "until": certificate.not_after().format(&Rfc3339).unwrap_or_default(),
        });
        let line = serde_json::to_string(&record).map_err(CaStoreError::Encode)? + "\n";
        let path = self.folder.join("audit.log");
        files::make_folder(&self.folder, 0o700)?;
        match files::create(&path, FileContent::Public(b""), 0o600, None) {
            Err(why) if !why.is_present() => return Err(why.into()),
            _ => {}
        }
        Ok(files::append(&path, line.as_bytes())?)
    }

    fn lock(&self) -> Result<OwnedFd, CaStoreError> {
        let path = self.folder.join(".lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .and_then(|file| rustix::fs::flock(&file, FlockOperation::LockExclusive).map(|()| file))
            .map_err(|why| CaStoreError::Lock { path, source: why.into() })
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join("store.json")
    }

    fn index(&self) -> Result<Option<Index>, CaStoreError> {
        let path = self.index_path();
        let Some(found) = files::read(&path)? else { return Ok(None) };
        let index: Index = serde_json::from_slice(found.content.expose())
            .map_err(|source| CaStoreError::Index { path: path.clone(), source })?;
        if index.version > VERSION {
            return Err(CaStoreError::Version { path, version: index.version });
        }
        Ok(Some(index))
    }

    fn write_index(&self, index: &Index) -> Result<(), CaStoreError> {
        let text = serde_json::to_string_pretty(index).map_err(CaStoreError::Encode)? + "\n";
        Ok(files::replace(&self.index_path(), FileContent::Public(text.as_bytes()), 0o600, None)?)
    }

    /// Without an index: the newest CA that has both key and certificate issues, the others stay trusted.
    fn found_pairs(&self, now: OffsetDateTime) -> Result<Index, CaStoreError> {
        let listed = |why| FileError::new("list the folder", &self.folder, why);
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(listed)? {
            let name = entry.map_err(listed)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".key")).map(str::parse::<CaId>);
            // A key without certificate has signed nothing that anybody could have seen.
            if let Some(Ok(id)) = id
                && self.certificate_path(&id).exists()
            {
                match self.load(&id, now, &mut Vec::new()) {
                    Ok(line) => lines.push(line),
                    // Its time is over.
                    Err(CaStoreError::Load { problem: CaProblem::Flaw(_), .. }) => {}
                    Err(why) => return Err(why),
                }
            }
        }
        lines.sort_by_key(|line| line.ca.certificate().not_before());
        let mut index = Index { version: VERSION, authorities: Vec::new() };
        for line in lines {
            index.put(line.ca.id(), Origin::Generated);
        }
        Ok(index)
    }

    fn certificate_path(&self, id: &CaId) -> PathBuf {
        self.folder.join(format!("{id}.crt"))
    }

    fn key_path(&self, id: &CaId) -> PathBuf {
        self.folder.join(format!("{id}.key"))
    }

    fn certificates(&self, id: &CaId) -> Result<Vec<Certificate>, CaStoreError> {
        let path = self.certificate_path(id);
        let Some(found) = files::read(&path)? else {
            return Err(CaStoreError::NoCertificate { id: id.clone(), path });
        };
        pki::read_pem(found.content.expose()).map_err(|problem| CaStoreError::Certificate {
            id: id.clone(),
            path,
            problem,
        })
    }

    fn load(&self, id: &CaId, now: OffsetDateTime, notices: &mut Vec<Notice>) -> Result<Line, CaStoreError> {
        let certificates = self.certificates(id)?;
        let path = self.key_path(id);
        let Some(found) = files::read(&path)? else {
            return Err(CaStoreError::NoKey { id: id.clone(), path });
        };
        if files::tighten(&path, 0o600)? {
            notices.push(Notice::KeyTightened { path: path.clone() });
        }
        let Some(certificate) = certificates.first() else {
            return Err(CaStoreError::NoCertificate { id: id.clone(), path: self.certificate_path(id) });
        };
        Ca::load(certificate, &found.content, now)
            .map(|ca| Line::new(ca, certificates))
            .map_err(|problem| CaStoreError::Load { id: id.clone(), path, problem })
    }

    /// Put a CA on the disk, its key first. What is there already has to be the same.
    fn keep(&self, line: &Line) -> Result<(), CaStoreError> {
        let id = line.ca.id();
        let clash = |path: &Path| CaStoreError::Clash { id: id.clone(), path: path.to_owned() };
        let path = self.key_path(id);
        match files::create(&path, FileContent::Secret(line.ca.key_pem()), 0o600, None) {
            Err(why) if why.is_present() => {
                let held = files::read(&path)?.ok_or_else(|| clash(&path))?;
                if pki::key_matches(line.ca.certificate(), held.content.expose()) != Ok(true) {
                    return Err(clash(&path));
                }
            }
            outcome => outcome?,
        }
        let path = self.certificate_path(id);
        let text: String = line.certificates.iter().map(Certificate::to_pem).collect();
        if path.exists() {
            // The same key under a renewed certificate. Leaves find their issuer by name and identifier.
            let held = self.certificates(id)?;
            let same = held.first().is_some_and(|held| {
                let new = line.ca.certificate();
                held.subject_raw() == new.subject_raw() && held.ski() == new.ski()
            });
            if !same {
                return Err(clash(&path));
            }
            if held == line.certificates {
                return Ok(());
            }
        }
        Ok(files::replace(&path, FileContent::Public(text.as_bytes()), 0o644, None)?)
    }

    fn bundle_path(&self) -> PathBuf {
        self.folder.join("bundle.pem")
    }

    /// Finish what a crash cut off, or bring back what was removed.
    fn complete_bundle(&self, bundle: &TrustBundle, notices: &mut Vec<Notice>) -> Result<(), CaStoreError> {
        let Some(recorded) = files::read(&self.bundle_path())? else { return Ok(()) };
        let recorded = recorded.content.expose();
        let completed = match bundle.read() {
            Ok(None) => bundle.create(recorded)?,
            Ok(Some(bytes)) => match recorded.strip_prefix(bytes.as_slice()) {
                Some(rest) => bundle.append(rest)?,
                None => false,
            },
            // Reported where it matters.
            Err(_) => false,
        };
        if completed {
            notices.push(Notice::BundleCompleted { path: bundle.path().to_owned() });
        }
        Ok(())
    }

    /// The roots that have to be in the bundle: the issuing CA's first, then those of all CAs not retired.
    fn anchors(&self, index: &Index, issuing: &Line) -> Result<Vec<Certificate>, CaStoreError> {
        let mut anchors: Vec<Certificate> = issuing.certificates.last().cloned().into_iter().collect();
        for entry in index.authorities.iter().filter(|entry| entry.state != CaState::Retired) {
            if let Some(root) = self.certificates(&entry.id)?.pop()
                && !anchors.contains(&root)
            {
                anchors.push(root);
            }
        }
        Ok(anchors)
    }

    /// Every certificate of a CA that is in the store.
    fn known(&self, index: &Index) -> Result<Vec<Certificate>, CaStoreError> {
        let lines = index.authorities.iter().map(|entry| self.certificates(&entry.id));
        lines.collect::<Result<Vec<_>, _>>().map(|lines| lines.concat())
    }

    /// Record what the bundle has to hold, then have it hold that; what it holds in the end.
    fn publish(
        &self,
        bundle: &TrustBundle,
        present: Option<&[u8]>,
        anchors: &[Certificate],
    ) -> Result<Vec<u8>, CaStoreError> {
        let start = present.unwrap_or_default();
        let addition = bundle.addition(start, anchors)?;
        let intended = [start, &addition].concat();
        let recorded = files::read(&self.bundle_path())?;
        if recorded.is_none_or(|recorded| recorded.content.expose() != intended) {
            files::replace(&self.bundle_path(), FileContent::Public(&intended), 0o600, None)?;
        }
        if present.is_some() {
            bundle.append(&addition)?;
        } else if !bundle.create(&intended)? {
            bundle.ensure(anchors)?;
        }
        Ok(intended)
    }
}

impl Index {
    fn issuing(&self) -> Option<&CaId> {
        self.authorities.iter().find(|entry| entry.state == CaState::Issuing).map(|entry| &entry.id)
    }

    /// Make this the issuing CA; the former one stays trusted.
    fn put(&mut self, id: &CaId, origin: Origin) {
        self.version = VERSION;
        for entry in &mut self.authorities {
            if entry.state == CaState::Issuing {
                entry.state = CaState::Trusted;
            }
        }
        match self.authorities.iter_mut().find(|entry| entry.id == *id) {
            Some(entry) => entry.state = CaState::Issuing,
            None => self.authorities.push(Entry { id: id.clone(), state: CaState::Issuing, origin }),
        }
    }
}

impl Line {
    fn new(ca: Ca, certificates: Vec<Certificate>) -> Self {
        let upper = certificates.get(1..certificates.len().saturating_sub(1)).unwrap_or_default().to_vec();
        let ca = if certificates.len() > 1 { ca.below(upper) } else { ca };
        Self { ca, certificates }
    }
}

fn usable_roots(anchors: &[Certificate], held: &[u8], now: OffsetDateTime) -> Vec<Certificate> {
    let mut roots = anchors.to_vec();
    for certificate in pki::certificates_within(held) {
        if certificate.self_signed()
            && pki::check_ca(&certificate, now).is_ok()
            && !roots.contains(&certificate)
        {
            roots.push(certificate);
        }
    }
    roots
}
