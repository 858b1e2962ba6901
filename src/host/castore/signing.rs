//! A CA whose key is elsewhere can have us issue below it: a request goes out, and what comes back signed is put into
//! service.
//!
//! ```text
//! csr/dbssl-ca.csr      what is to be signed
//! csr/dbssl-ca.ext      with these extensions
//! signed/dbssl-ca.crt   what came back: the certificate, and what stands between it and its root
//! ```

use std::path::PathBuf;

use super::{CaStore, CaStoreError, Line, Notice, Rules, offer};
use crate::{
    host::files::{self, FileContent},
    model::Roots,
    pki::{self, CaId, Certificate},
};

/// What a CA needs to have, in the words of OpenSSL's configuration files.
const EXTENSIONS: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";

/// The request to be signed.
pub(super) fn request_path(roots: &Roots) -> PathBuf {
    roots.requests_to_sign().join("dbssl-ca.csr")
}

/// What has to be run where the CA's key is.
pub(super) fn command(roots: &Roots) -> String {
    let request = request_path(roots);
    format!(
        "openssl x509 -req -sha256 -days 1825 -CA CA.crt -CAkey CA.key -CAcreateserial -in {} -extfile {} -out {}",
        request.display(),
        request.with_extension("ext").display(),
        roots.signed_ca().display()
    )
}

impl CaStore {
    fn pending_key(&self) -> PathBuf {
        self.folder.join("requested.key")
    }

    /// Have a request lie there.
    pub(super) fn request(&self, roots: &Roots, rules: &Rules<'_>) -> Result<(), CaStoreError> {
        let path = request_path(roots);
        let pending = files::read(&self.pending_key())?;
        if path.exists() && pending.is_some() {
            return Ok(());
        }
        for folder in [roots.requests_to_sign(), roots.signed()] {
            files::make_folder(&folder, 0o755)?;
        }
        // The request may have been carried away, and what is signed there is for this key.
        let key = if let Some(found) = pending {
            found.content
        } else {
            let key = pki::new_key(rules.key_type).map_err(CaStoreError::Generate)?;
            files::replace(&self.pending_key(), FileContent::Secret(&key), 0o600, None)?;
            key
        };
        let request = pki::request_sub_ca(rules.host_name, &key).map_err(CaStoreError::Generate)?;
        let extensions = path.with_extension("ext");
        files::replace(&extensions, FileContent::Public(EXTENSIONS.as_bytes()), 0o644, None)?;
        Ok(files::replace(&path, FileContent::Public(request.as_bytes()), 0o644, None)?)
    }

    /// The CA that came back signed, below a root that a user put into the bundle.
    pub(super) fn signed(
        &self,
        roots: &Roots,
        uploaded: &[Certificate],
        now: time::OffsetDateTime,
        notices: &mut Vec<Notice>,
    ) -> Option<Line> {
        let path = roots.signed_ca();
        let taken = self.read_signed(roots, uploaded, now);
        match taken {
            Ok(line) => line,
            Err(why) => {
                notices.push(Notice::SignedRefused { path, why });
                None
            }
        }
    }

    fn read_signed(
        &self,
        roots: &Roots,
        uploaded: &[Certificate],
        now: time::OffsetDateTime,
    ) -> Result<Option<Line>, String> {
        let path = roots.signed_ca();
        let read = |path: &PathBuf| files::read(path).map_err(|why| format!("{why}: {}", why.source));
        let Some(answer) = read(&path)? else { return Ok(None) };
        let answer = pki::read_pem(answer.content.expose()).map_err(|why| why.to_string())?;
        // A new certificate for the key of a CA that came back before is an answer, too; that one itself is none.
        let before = answer.first().map(CaId::of).filter(|id| self.key_path(id).exists());
        let key = before.as_ref().map_or_else(|| self.pending_key(), |id| self.key_path(id));
        let Some(key) = read(&key)? else { return Ok(None) };
        if before.is_some_and(|id| self.certificates(&id).is_ok_and(|held| held.first() == answer.first())) {
            return Ok(None);
        }
        let all: Vec<_> = answer.iter().chain(uploaded).cloned().collect();
        let line = offer::checked(&all, &key.content, now)?;
        match line.certificates.last() {
            Some(root) if uploaded.contains(root) => Ok(Some(line)),
            root => Err(format!(
                "its root {} is not in {}; put it there, so that clients trust it",
                root.map_or("", Certificate::subject),
                roots.bundle().display()
            )),
        }
    }

    /// What was asked for is in force.
    pub(super) fn answered(&self, roots: &Roots) -> Result<(), CaStoreError> {
        for path in [self.pending_key(), request_path(roots), request_path(roots).with_extension("ext")] {
            files::remove_if_present(&path)?;
        }
        Ok(())
    }
}
