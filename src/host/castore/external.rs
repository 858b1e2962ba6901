//! Roots whose keys are elsewhere: what is signed by them, and for how long they have to stay in the bundle.

use std::path::PathBuf;

use time::OffsetDateTime;

use super::{Authority, CaStore, CaStoreError, index::Index};
use crate::{
    host::{
        bundle::TrustBundle,
        certdir::CertDir,
        files::{self, FileContent},
    },
    model::Roots,
    pki::{self, CaId, Certificate},
};

/// The roots that a user put into the bundle, and the CAs that we have the keys of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Every usable root of the user's.
    pub roots: Vec<Certificate>,
    /// Those of them that have nobody here to sign for them: neither they nor a CA below them.
    pub keyless: Vec<Certificate>,
    /// Every CA that has ever issued here.
    ours: Vec<Certificate>,
}

impl Uploaded {
    /// Whether somebody else, below one of the user's roots, signed this; leaf first.
    pub fn signed(&self, chain: &[Certificate]) -> bool {
        let Some(leaf) = chain.first() else { return false };
        !self.ours.iter().any(|ours| leaf.signed_by(ours)) && pki::leads_to(chain, &self.roots)
    }
}

impl Authority {
    /// The roots of which each alone has to be enough to verify this chain.
    pub fn verifiers(&self, chain: &[Certificate]) -> Vec<Certificate> {
        if !self.uploaded.signed(chain) {
            return self.reached.clone();
        }
        let leads = |root: &&Certificate| pki::leads_to(chain, std::slice::from_ref(*root));
        self.uploaded.roots.iter().filter(leads).cloned().collect()
    }
}

impl CaStore {
    /// Has the root that this chain leads to stay in the bundle, whatever its user does with it, until nothing of it is
    /// served any more. To be done before the chain is served.
    ///
    /// # Errors
    /// If no such root is in the bundle now.
    pub fn lean_on(roots: &Roots, chain: &[Certificate]) -> Result<(), CaStoreError> {
        let store = Self::open(roots.ca_store());
        let is_kept =
            |index: &Index| store.leaned_on(index).map(|leaned_on| pki::leads_to(chain, &leaned_on));
        if is_kept(&store.index()?.unwrap_or_default())? {
            return Ok(());
        }
        let _lock = store.lock()?;
        let mut index = store.index()?.unwrap_or_default();
        if is_kept(&index)? {
            return Ok(());
        }
        let held = TrustBundle::open(roots.bundle()).read()?.unwrap_or_default();
        let leads =
            |root: &Certificate| root.self_signed() && pki::leads_to(chain, std::slice::from_ref(root));
        let root = pki::certificates_within(&held).into_iter().find(leads);
        let root = root.ok_or_else(|| CaStoreError::NotPublished(roots.bundle()))?;
        let id = CaId::of(&root);
        files::replace(
            &store.external_path(&id),
            FileContent::Public(root.to_pem().as_bytes()),
            0o644,
            None,
        )?;
        if !index.external.contains(&id) {
            index.external.push(id);
        }
        store.write_index(&index)
    }

    fn external_path(&self, id: &CaId) -> PathBuf {
        self.folder.join(format!("external-{id}.crt"))
    }

    /// The roots of others that signed what is served.
    pub(super) fn leaned_on(&self, index: &Index) -> Result<Vec<Certificate>, CaStoreError> {
        let mut roots = Vec::new();
        for id in &index.external {
            let found = files::read(&self.external_path(id))?;
            roots.extend(found.iter().flat_map(|found| pki::certificates_within(found.content.expose())));
        }
        Ok(roots)
    }

    /// Those that nothing in any certificate directory leads to.
    pub(super) fn needless(&self, roots: &Roots, index: &Index) -> Result<Vec<CaId>, CaStoreError> {
        if index.external.is_empty() {
            return Ok(Vec::new());
        }
        let held: Vec<_> = CertDir::all(&roots.databases())
            .iter()
            .flat_map(CertDir::contents)
            .flat_map(|file| pki::certificates_within(file.expose()))
            .filter(|one| !one.self_signed())
            .collect();
        let is_needed = |root: &Certificate| held.iter().any(|one| one.signed_by(root));
        let needed: Vec<_> =
            self.leaned_on(index)?.iter().filter(|root| is_needed(root)).map(CaId::of).collect();
        Ok(index.external.iter().filter(|id| !needed.contains(id)).cloned().collect())
    }

    /// By the last upload that was of use: one that is not changes nothing.
    pub(super) fn uploaded(&self, index: &Index, now: OffsetDateTime) -> Result<Uploaded, CaStoreError> {
        let (mut roots, known) = (pki::certificates_within(&self.accepted()?), self.signed_for(index, now)?);
        roots.retain(|root| root.self_signed() && pki::check_ca(root, now).is_ok());
        let keyless = roots.iter().filter(|root| !known.contains(root)).cloned().collect();
        let mut ours = Vec::new();
        for entry in &index.authorities {
            ours.extend(self.certificates(&entry.id)?.into_iter().next());
        }
        Ok(Uploaded { roots, keyless, ours })
    }
}
