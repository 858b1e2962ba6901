//! The store's own files: nobody else writes them while we have the turn, so each is read once.

use std::{cell::RefCell, collections::HashMap};

use super::{CaStore, CaStoreError};
use crate::{
    host::files::{self, FileContent},
    pki::{self, CaId, Certificate},
};

/// What was read before.
#[derive(Debug, Default)]
pub(super) struct Records {
    lines: RefCell<HashMap<CaId, Vec<Certificate>>>,
    texts: RefCell<HashMap<&'static str, Option<Vec<u8>>>>,
}

impl Records {
    pub(super) fn forget(&self) {
        self.lines.borrow_mut().clear();
        self.texts.borrow_mut().clear();
    }
}

impl CaStore {
    /// What is in the file of that name; `None` if there is none.
    pub(super) fn recorded_bytes(&self, name: &'static str) -> Result<Option<Vec<u8>>, CaStoreError> {
        if let Some(recorded) = self.records.texts.borrow().get(name) {
            return Ok(recorded.clone());
        }
        let recorded = files::read(&self.folder.join(name))?.map(|found| found.content.expose().to_vec());
        self.records.texts.borrow_mut().insert(name, recorded.clone());
        Ok(recorded)
    }

    /// Writes it only if it holds something else.
    pub(super) fn record(&self, name: &'static str, bytes: &[u8]) -> Result<(), CaStoreError> {
        if self.recorded_bytes(name)?.is_none_or(|recorded| recorded != bytes) {
            self.records.texts.borrow_mut().remove(name);
            files::replace(&self.folder.join(name), FileContent::Public(bytes), 0o600, None)?;
            self.records.texts.borrow_mut().insert(name, Some(bytes.to_vec()));
        }
        Ok(())
    }

    /// The certificate of a CA, then what stands above it up to its root.
    pub(super) fn certificates(&self, id: &CaId) -> Result<Vec<Certificate>, CaStoreError> {
        if let Some(line) = self.records.lines.borrow().get(id) {
            return Ok(line.clone());
        }
        let path = self.certificate_path(id);
        let Some(found) = files::read(&path)? else {
            return Err(CaStoreError::NoCertificate { id: id.clone(), path });
        };
        let line = pki::read_pem(found.content.expose()).map_err(|problem| CaStoreError::Certificate {
            id: id.clone(),
            path,
            problem,
        })?;
        self.records.lines.borrow_mut().insert(id.clone(), line.clone());
        Ok(line)
    }

    /// As PEM.
    pub(super) fn keep_certificates(&self, id: &CaId, line: &str) -> Result<(), CaStoreError> {
        self.records.lines.borrow_mut().remove(id);
        Ok(files::replace(&self.certificate_path(id), FileContent::Public(line.as_bytes()), 0o644, None)?)
    }
}
