//! The certificate that the probe shows where a server demands one.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, client::WantsClientCert, pki_types::pem::PemObject, sign::CertifiedKey,
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::Secret;

/// A client's certificate with its key, in memory only. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<SingleCertAndKey>);

/// A certificate or a key that cannot be shown to anybody.
#[derive(Debug, thiserror::Error)]
pub enum BadIdentity {
    #[error("read the key of the probe's certificate")]
    Key(#[source] rustls_pki_types::pem::Error),
    #[error("use the probe's certificate")]
    Unusable(#[source] rustls::Error),
}

impl Identity {
    /// `chain` in DER, leaf first; the key in PEM.
    pub fn new<'c>(chain: impl IntoIterator<Item = &'c [u8]>, key: &Secret) -> Result<Self, BadIdentity> {
        let chain = chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(BadIdentity::Key)?;
        let certified =
            CertifiedKey::from_der(chain, key, &super::provider()).map_err(BadIdentity::Unusable)?;
        Ok(Self(Arc::new(SingleCertAndKey::from(certified))))
    }

    /// Shows it where the server asks for one.
    pub(super) fn or_none(
        identity: Option<&Self>,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> ClientConfig {
        match identity {
            Some(Self(resolver)) => builder.with_client_cert_resolver(Arc::clone(resolver) as Arc<_>),
            None => builder.with_no_client_auth(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}
