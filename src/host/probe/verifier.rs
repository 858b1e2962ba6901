//! What the probing client believes about certificates.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use super::{Identity, Unproved};
use crate::model::San;

/// Takes any certificate whose key the server has.
pub(super) fn anything(
    provider: &Arc<CryptoProvider>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Anything(Arc::clone(provider)));
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = Identity::or_none(identity, builder);
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Tls(#[from] Error),
    #[error(transparent)]
    Roots(#[from] VerifierBuilderError),
}

/// Verifies as clients do, against just these roots.
pub(super) fn strict(
    provider: &Arc<CryptoProvider>,
    roots: &[CertificateDer<'_>],
    now: OffsetDateTime,
    checks_name: bool,
    identity: Option<&Identity>,
) -> Result<ClientConfig, Unusable> {
    let verifier = Arc::new(trusting(provider, roots, checks_name)?);
    let clock = Arc::new(At(unix(now)));
    let builder = ClientConfig::builder_with_details(Arc::clone(provider), clock)
        .with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = Identity::or_none(identity, builder);
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Whether a client that trusts just these roots accepts the chain, leaf first, for that name, or for whatever name; else
/// what it says.
pub fn accepts(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    name: Option<&San>,
    now: OffsetDateTime,
) -> Result<(), String> {
    let Some((leaf, above)) = chain.split_first() else { return Err("there is no certificate".to_owned()) };
    let verifier = trusting(&super::provider(), roots, name.is_some()).map_err(|why| why.to_string())?;
    let name = match name {
        Some(name) => {
            super::server_name(name).ok_or_else(|| Unproved::BadName(name.to_string()).to_string())?
        }
        None => ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    let verdict = verifier.verify_server_cert(leaf, above, &name, &[], unix(now));
    verdict.map(|_| ()).map_err(|why| why.to_string())
}

fn trusting(
    provider: &Arc<CryptoProvider>,
    roots: &[CertificateDer<'_>],
    checks_name: bool,
) -> Result<Strict, Unusable> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into_owned())?;
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build()?;
    Ok(Strict { verifier, checks_name })
}

fn unix(now: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or(0)))
}

#[derive(Debug)]
struct At(UnixTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl Anything {
    /// A certificate that rustls cannot parse (version 1, say) is still the certificate that is served, and somebody
    /// may want to know. Only a signature that is wrong makes it worthless.
    fn lenient(result: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
        match result {
            Err(Error::InvalidCertificate(CertificateError::BadEncoding | CertificateError::Other(_))) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            result => result,
        }
    }
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        Self::lenient(verify_tls12_signature(message, certificate, signed, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        Self::lenient(verify_tls13_signature(message, certificate, signed, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Strict {
    verifier: Arc<WebPkiServerVerifier>,
    checks_name: bool,
}

impl ServerCertVerifier for Strict {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
