//! Private keys: which kinds we make, and reading the ones that others made.

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    Certificate, der, memory,
    read::{self, Block},
};
use crate::model::{KeyType, Secret};

/// Whether a TLS client may encrypt to this key, which is what keyEncipherment permits.
pub(super) const fn is_rsa(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Rsa2048 | KeyType::Rsa3072)
}

pub(super) fn generate(key_type: KeyType) -> Result<Zeroizing<KeyPair>, rcgen::Error> {
    match key_type {
        KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072),
    }
    .map(Zeroizing::new)
}

/// Why a key file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error(
        "it holds no PEM private key; needed: one BEGIN PRIVATE KEY, BEGIN EC PRIVATE KEY or BEGIN RSA PRIVATE KEY block"
    )]
    Missing,
    #[error("it is cut off in the middle of a block")]
    HalfWritten,
    #[error("it holds {0} private keys; needed: exactly one")]
    Several(usize),
    #[error(
        "the key is encrypted with a passphrase, which nobody can enter here; decrypt it with: openssl pkey -in KEY -out NEW_KEY"
    )]
    Encrypted,
    #[error("it is an OpenSSH key; needed: PKCS#8, SEC 1 or PKCS#1 in PEM")]
    OpenSsh,
    #[error(
        "the key is damaged or of a kind that cannot sign certificates (usable: ECDSA P-256, P-384, P-521, RSA of 2048 to 8192 bits, Ed25519)"
    )]
    Unusable,
}

/// Whether the private key belongs to the certificate.
///
/// # Errors
/// If `key_pem` is not one usable private key.
pub fn key_matches(certificate: &Certificate, key_pem: &[u8]) -> Result<bool, KeyProblem> {
    let pair = (certificate.fingerprint(), der::sha256(key_pem));
    let find = || read_key(key_pem).map(|(key, _)| belongs(certificate, &key));
    memory::BELONGS.with(|belongs| belongs.try_recall(pair, find))
}

/// The same bits in the same kind of key: the algorithm identifier around them has several spellings.
pub(super) fn belongs(certificate: &Certificate, key: &KeyPair) -> bool {
    certificate.facts().key_bits == key.der_bytes()
}

pub(super) fn fingerprint_hex(key: &KeyPair) -> String {
    der::hex(&der::sha256(&key.subject_public_key_info()))
}

/// A key with its DER, whichever of the three containers it came in.
pub(super) fn read_key(
    pem: &[u8],
) -> Result<(Zeroizing<KeyPair>, Zeroizing<PrivateKeyDer<'static>>), KeyProblem> {
    let blocks = read::blocks(pem).map_err(|_| KeyProblem::HalfWritten)?;
    let keys: Vec<&Block<'_>> = blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY")).collect();
    let block = match keys.as_slice() {
        [] => return Err(KeyProblem::Missing),
        [only] => only,
        several => return Err(KeyProblem::Several(several.len())),
    };
    match block.label.as_str() {
        "ENCRYPTED PRIVATE KEY" => return Err(KeyProblem::Encrypted),
        "OPENSSH PRIVATE KEY" => return Err(KeyProblem::OpenSsh),
        // PKCS#1 and SEC 1 carry encryption in a header (RFC 1421).
        _ if block.lines.iter().any(|line| line.starts_with(b"Proc-Type:")) => {
            return Err(KeyProblem::Encrypted);
        }
        _ => {}
    }
    let normal = Zeroizing::new(block.to_pem());
    let der = PrivateKeyDer::from_pem_slice(&normal).map(Zeroizing::new).map_err(|_| KeyProblem::Unusable)?;
    let key = KeyPair::try_from(&*der).map(Zeroizing::new).map_err(|_| KeyProblem::Unusable)?;
    Ok((key, der))
}

/// Any key as PKCS#8 version 1, which every server reads (OpenSSL 3.0 refuses version 2).
/// `algorithm` is the AlgorithmIdentifier of the public key, with tag and length.
pub(super) fn to_pkcs8_pem(der: &PrivateKeyDer<'_>, algorithm: &[u8]) -> Secret {
    let pkcs8 = match der {
        PrivateKeyDer::Pkcs8(key) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
        other => {
            let inner = der::wrap(der::OCTET_STRING, &[other.secret_der()]);
            der::wrap(der::SEQUENCE, &[der::INTEGER_0, algorithm, &inner])
        }
    };
    pkcs8_pem(&pkcs8)
}

/// The one private key in a PEM file that may hold certificates as well, without them.
pub fn key_within(pem: &[u8]) -> Option<Secret> {
    let blocks = read::blocks(pem).ok()?;
    let mut keys = blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY"));
    keys.next().filter(|_| keys.next().is_none()).map(|block| Secret::new(block.to_pem()))
}

pub(super) fn pkcs8_pem(pkcs8: &[u8]) -> Secret {
    Secret::new(std::mem::take(&mut *der::to_pem("PRIVATE KEY", pkcs8)))
}
