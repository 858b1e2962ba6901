//! The client's certificate that the agent shows to a database which demands one. It is issued when it is first needed,
//! lives for a day, and is in memory only.

use std::sync::{Mutex, PoisonError};

use time::{Duration, OffsetDateTime};
use tracing::warn;

use super::world::World;
use crate::{
    host::{
        castore::{Audited, Authority, CaStore, CaStoreError},
        clock,
        probe::{BadIdentity, Identity},
    },
    model::KeyType,
    pki::{Certificate, ClientRequest, Leaf, PkiError},
    shown::with_causes,
};

/// The name in it: nobody should call a database's user so.
pub const PROBE: &str = "dbssl-probe";

const LIFETIME: Duration = Duration::DAY;

/// The one that is in use.
#[derive(Debug, Default)]
pub struct Credential(Mutex<Option<(Certificate, Identity)>>);

/// For the probe, or for the clients within a database's container.
pub fn issue(
    authority: &Authority,
    key_type: KeyType,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<Leaf, PkiError> {
    authority.issue_client(&ClientRequest { user: PROBE, organization: None, key_type, lifetime }, now)
}

/// What the probe shows, by the CA in force; `None`, and a warning, if there can be none now.
pub fn identity(world: &World) -> Option<Identity> {
    let (authority, now) = (world.authority(), clock::now());
    let mut held = world.credential.0.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = |(leaf, _): &&(Certificate, Identity)| {
        leaf.signed_by(authority.issuing.certificate()) && now + LIFETIME / 3 < leaf.not_after()
    };
    if let Some((_, identity)) = held.as_ref().filter(fresh) {
        return Some(identity.clone());
    }
    match made(world, &authority, now) {
        Ok((leaf, identity)) => {
            *held = Some((leaf, identity.clone()));
            Some(identity)
        }
        Err(error) => {
            warn!(error = %with_causes(&error), "the probe has no certificate, so a database that demands one cannot be proved");
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum NoCredential {
    #[error("{0}")]
    Issue(#[from] PkiError),
    #[error("{0}")]
    Record(#[from] CaStoreError),
    #[error("{0}")]
    Use(#[from] BadIdentity),
}

fn made(
    world: &World,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<(Certificate, Identity), NoCredential> {
    let leaf = issue(authority, world.settings.certificates.key_type, LIFETIME, now)?;
    CaStore::open(world.roots.ca_store()).audit(Audited::ProbeIssued, &leaf.certificate, now)?;
    let chain = std::iter::once(&leaf.certificate).chain(&leaf.chain).map(Certificate::der);
    let identity = Identity::new(chain, &leaf.key)?;
    Ok((leaf.certificate, identity))
}
