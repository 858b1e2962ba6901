//! The CA store: which CAs there are, which of them issues, and what `coolify-ca.crt` is meant to hold.
//!
//! ```text
//! ca/                0700
//!   store.json       which CA is issuing, trusted, retired
//!   <id>.crt         0644: the CA, then what stands above it up to its root
//!   <id>.key         0600: PKCS#8
//!   <a>-by-<b>.crt   0644: the root a under the signature of its predecessor b
//!   upload.pem       0600: what a user put into coolify-ca.crt, byte by byte; empty if nobody did
//!   accepted.pem     0600: the last upload that was of use
//!   bundle.pem       0600: what coolify-ca.crt is meant to hold, written before it does
//!   before.pem       0600: what it held when the last change in place began
//!   requested.key    0600: the key of a CA that somebody else is to sign
//!   external-<id>.crt 0644: a root whose key is elsewhere and that signed what a database serves
//!   audit.log        0600: one JSON line for every CA and leaf that came into being
//! ```
//!
//! # Guarantees
//!
//! - When [`CaStore::establish`] returns an [`Authority`], its issuing CA's root, and the root of every other CA
//!   that is not retired, is in the `coolify-ca.crt` on disk.
//! - A key is never overwritten, and a new CA is in force only when its key, its certificate and its place in
//!   the bundle are on the disk, in this order.
//! - What a user put into `coolify-ca.crt` is never changed. What we need there is added behind it, and taken away
//!   again when it is not needed any more; if that cannot be done so that clients find it, nothing is done and the
//!   error says what to do.
//! - What is issued under a new CA verifies for clients of each former one, until its overlap is over; where that
//!   cannot be had, a notice says so (see `castore/bridge.rs`).
//! - What a user offers is judged once, by content: a file that is written again as it was changes nothing.
//! - A user's CA is taken over only with its key, and only when a leaf issued under it has passed
//!   [`pki::check_chain`].
//! - A root that signed what a database serves stays in the bundle until that is served no more, whatever a user does.
//! - Two processes take turns (`flock`).
//!
//! # A crash
//!
//! A key without certificate is of no consequence. A pair that is not in `store.json` yet is found again if it
//! was the first one, and imported again if it was a user's. A bundle that is the beginning of `bundle.pem`, or
//! that is gone, is completed from it.
//!
//! # Where to start
//!
//! [`CaStore::establish`] finds out what is in force; `orders.rs` is what a human can have done; `publish.rs` is how
//! `coolify-ca.crt` comes to hold what it has to.

mod bridge;
mod ending;
mod external;
mod index;
mod notice;
mod offer;
mod orders;
mod publish;
mod records;
mod signing;
#[cfg(test)]
mod tests;
mod turn;
#[cfg(test)]
mod uploads;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

pub use external::Uploaded;
pub use index::{CaState, Origin};
pub use notice::Notice;
pub use orders::{ImportError, KnownCa};

use self::{index::Index, records::Records, turn::Turn};
use super::{
    bundle::{BundleError, TrustBundle},
    files::{self, FileContent, FileError},
};
use crate::{
    config::Certificates,
    model::{Roots, San},
    pki::{
        self, Ca, CaFlaw, CaId, CaProblem, Certificate, ClientRequest, KeyType, Leaf, LeafRequest, PkiError,
        ReadProblem,
    },
};

/// Which CAs there are.
const INDEX: &str = "store.json";

/// The folder `ca/`.
#[derive(Debug)]
pub struct CaStore {
    folder: PathBuf,
    records: Records,
}

/// What is in force.
#[derive(Debug)]
pub struct Authority {
    pub issuing: Ca,
    /// Every usable root in the bundle, the issuing CA's first. Not every leaf verifies against each of them.
    pub roots: Vec<Certificate>,
    /// The roots of which each alone is enough to verify what is served: the issuing CA's, and those of the CAs that
    /// stepped down within the overlap.
    pub reached: Vec<Certificate>,
    /// What a human should know or do; the text is the log line.
    pub notices: Vec<Notice>,
    /// When this was found out. Which CAs are within the overlap is another matter before that.
    pub found: OffsetDateTime,
    /// When this has to be looked at again: an overlap ends, a CA is to be renewed, or its user to be reminded of it; or
    /// what could not be written is tried again.
    pub next: Option<OffsetDateTime>,
    /// Who else signs, or can.
    pub uploaded: Uploaded,
    bridges: Vec<Certificate>,
}

impl Authority {
    /// What a server has to send after its leaf.
    pub fn chain(&self) -> Vec<Certificate> {
        [self.issuing.chain(), &self.bridges].concat()
    }

    /// Whether what is served under the one is what is served under the other.
    pub fn serves_as(&self, other: &Self) -> bool {
        self.issuing.certificate() == other.issuing.certificate()
            && self.bridges == other.bridges
            && self.uploaded == other.uploaded
    }

    /// Issue a server's certificate with all that has to follow it.
    pub fn issue(&self, request: &LeafRequest<'_>, now: OffsetDateTime) -> Result<Leaf, PkiError> {
        let leaf = self.issuing.issue(request, now)?;
        Ok(Leaf { chain: self.chain(), ..leaf })
    }

    /// Issue a client's certificate with all that has to follow it.
    pub fn issue_client(&self, request: &ClientRequest<'_>, now: OffsetDateTime) -> Result<Leaf, PkiError> {
        let leaf = self.issuing.issue_client(request, now)?;
        Ok(Leaf { chain: self.chain(), ..leaf })
    }
}

/// How CAs are made, and how they come and go.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub host_name: &'a str,
    pub key_type: KeyType,
    pub lifetime: Duration,
    /// How long before its end a CA of ours is replaced; at most a third of its life.
    pub renew_before: Duration,
    /// How long clients that know only a former CA are served.
    pub overlap: Duration,
}

impl<'a> Rules<'a> {
    pub fn new(settings: &Certificates, host_name: &'a str) -> Self {
        let whole = |duration: std::time::Duration| duration.try_into().unwrap_or(Duration::MAX);
        Self {
            host_name,
            key_type: settings.key_type,
            lifetime: whole(settings.ca_lifetime),
            renew_before: whole(settings.ca_renew_before),
            overlap: whole(settings.ca_overlap),
        }
    }
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
    #[error("load the CA {id}: its key {} is missing; put it back from a backup, or have another CA made: dbssl ca regenerate", path.display())]
    NoKey { id: CaId, path: PathBuf },
    #[error("load the CA {id} from {}, which can be replaced by dbssl ca import or dbssl ca regenerate", path.display())]
    Load {
        id: CaId,
        path: PathBuf,
        #[source]
        problem: CaProblem,
    },
    #[error("keep the CA {id}: {} holds something else", path.display())]
    Clash { id: CaId, path: PathBuf },
    #[error("{} is empty or cut off, and changed a moment ago: it may be just being written", .0.display())]
    Unfinished(PathBuf),
    #[error("the root that signed it is not in {} any more; put it there", .0.display())]
    NotPublished(PathBuf),
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
    /// One that was in force before is so again.
    CaReturned,
    CaRetired,
    LeafIssued,
    /// Somebody else signed it.
    LeafReceived,
    /// For a person, or for an application of theirs.
    ClientIssued,
    /// For the agent's own probe, or for the clients in a database's container.
    ProbeIssued,
}

/// A CA and all certificates above it, the root last.
struct Line {
    ca: Ca,
    certificates: Vec<Certificate>,
}

impl CaStore {
    /// Touches nothing.
    pub fn open(folder: PathBuf) -> Self {
        Self { folder, records: Records::default() }
    }

    /// Bring the store and the bundle to where they have to be, whatever state they are in, and say what is in
    /// force. Run at start, whenever `coolify-ca.crt` or `coolify-ca.key` changed, and at [`Authority::next`]; changes
    /// nothing if nothing has to change.
    pub fn establish(
        roots: &Roots,
        rules: &Rules<'_>,
        now: OffsetDateTime,
    ) -> Result<Authority, CaStoreError> {
        Turn::take(roots, rules, now)?.establish()
    }

    /// What is in force, with the roots that `coolify-ca.crt` really holds now: what a client would trust. Changes
    /// nothing, not even what would have to be mended; `None` if there is no CA yet.
    pub fn current(
        roots: &Roots,
        rules: &Rules<'_>,
        now: OffsetDateTime,
    ) -> Result<Option<Authority>, CaStoreError> {
        let Some(mut authority) = Self::recorded(roots, rules, now)? else { return Ok(None) };
        let held = TrustBundle::open(roots.bundle()).read()?.unwrap_or_default();
        let published = pki::certificates_within(&held);
        authority.roots.retain(|root| published.contains(root));
        authority.roots = usable_roots(&authority.roots, &held, now);
        let store = Self::open(roots.ca_store());
        let index = store.index()?.unwrap_or_default();
        let (front, known) = (store.front(&index, &held)?, store.signed_for(&index, now)?);
        let issuing = authority.issuing.certificate();
        notice::judge(roots, &front, &held, &known, issuing, now, &mut authority.notices);
        Ok(Some(authority))
    }

    /// Whether there is a CA, be it of use or not.
    pub fn exists(&self) -> Result<bool, CaStoreError> {
        Ok(self.index()?.is_some_and(|index| index.issuing().is_some()))
    }

    /// What is in force by the record alone, whatever became of `coolify-ca.crt`; `None` if there is no CA yet.
    pub fn recorded(
        roots: &Roots,
        rules: &Rules<'_>,
        now: OffsetDateTime,
    ) -> Result<Option<Authority>, CaStoreError> {
        let store = Self::open(roots.ca_store());
        let Some(index) = store.index()? else { return Ok(None) };
        let Some(entry) = index.issuing() else { return Ok(None) };
        let mut notices = Vec::new();
        let line = store.load(&entry.id, now, &mut notices)?;
        let bridges = store.bridges(&index, &line, rules.overlap, now, &mut notices)?;
        let (reminder, next) = ending::reminder(roots, &index, &line, rules, now);
        notices.extend(reminder);
        Ok(Some(Authority {
            uploaded: store.uploaded(&index, now)?,
            roots: store.anchors(&index, &line.certificates)?,
            reached: bridges.reached,
            bridges: bridges.certificates,
            issuing: line.ca,
            notices,
            found: now,
            next,
        }))
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
        match files::append(&path, line.as_bytes()) {
            Err(why) if why.is_missing() => {}
            written => return Ok(written?),
        }
        files::make_folder(&self.folder, 0o700)?;
        match files::create(&path, FileContent::Public(b""), 0o600, None) {
            Err(why) if !why.is_present() => return Err(why.into()),
            _ => {}
        }
        Ok(files::append(&path, line.as_bytes())?)
    }

    fn lock(&self) -> Result<OwnedFd, CaStoreError> {
        files::have_folder(&self.folder, 0o700)?;
        let path = self.folder.join(".lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .and_then(|file| rustix::fs::flock(&file, FlockOperation::LockExclusive).map(|()| file))
            .map_err(|why| CaStoreError::Lock { path, source: why.into() })?;
        // What was read before our turn may have been written since.
        self.records.forget();
        Ok(file)
    }

    fn index(&self) -> Result<Option<Index>, CaStoreError> {
        let path = self.folder.join(INDEX);
        let Some(text) = self.recorded_bytes(INDEX)? else { return Ok(None) };
        let index: Index = serde_json::from_slice(&text)
            .map_err(|source| CaStoreError::Index { path: path.clone(), source })?;
        if index.newer_than_we_are() {
            return Err(CaStoreError::Version { path, version: index.version });
        }
        Ok(Some(index))
    }

    fn write_index(&self, index: &Index) -> Result<(), CaStoreError> {
        let text = serde_json::to_string_pretty(index).map_err(CaStoreError::Encode)? + "\n";
        self.record(INDEX, text.as_bytes())
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
        let mut index = Index::default();
        for line in lines {
            index.put(line.ca.id(), Origin::Generated, now);
        }
        Ok(index)
    }

    fn certificate_path(&self, id: &CaId) -> PathBuf {
        self.folder.join(format!("{id}.crt"))
    }

    fn key_path(&self, id: &CaId) -> PathBuf {
        self.folder.join(format!("{id}.key"))
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
        let ca = Ca::load(certificate, &found.content, now);
        // With what stands above it, it ends as well.
        let over = certificates.iter().map(Certificate::not_after).find(|end| *end < now);
        let ca = ca.and_then(|ca| over.map_or(Ok(ca), |end| Err(CaProblem::Flaw(CaFlaw::Expired(end)))));
        ca.map(|ca| Line::new(ca, certificates)).map_err(|problem| CaStoreError::Load {
            id: id.clone(),
            path,
            problem,
        })
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
        self.keep_certificates(id, &text)
    }

    /// As [`Self::known`], without the roots that somebody else has the key of and below which we have no CA now.
    fn signed_for(&self, index: &Index, now: OffsetDateTime) -> Result<Vec<Certificate>, CaStoreError> {
        let mut known = Vec::new();
        for entry in &index.authorities {
            let mut line = self.certificates(&entry.id)?;
            let is_over = |ca: &Certificate| entry.state == CaState::Retired || ca.not_after() <= now;
            if line.len() > 1 && line.first().is_some_and(is_over) {
                line.pop();
            }
            known.append(&mut line);
        }
        Ok(known)
    }

    /// Every certificate of a CA that is in the store.
    fn known(&self, index: &Index) -> Result<Vec<Certificate>, CaStoreError> {
        let lines = index.authorities.iter().map(|entry| self.certificates(&entry.id));
        lines.collect::<Result<Vec<_>, _>>().map(|lines| lines.concat())
    }
}

impl Line {
    fn new(ca: Ca, certificates: Vec<Certificate>) -> Self {
        let upper = certificates.get(1..certificates.len().saturating_sub(1)).unwrap_or_default().to_vec();
        let ca = match certificates.last() {
            Some(root) if certificates.len() > 1 => ca.below(upper, root.not_after()),
            _ => ca,
        };
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
