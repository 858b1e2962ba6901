//! Making CAs and leaves, to the profile that every client we know accepts.
//!
//! | | CA | leaf |
//! |---|---|---|
//! | subject | `dbssl CA <host> <8 hex digits of its key id>` | the container's name, at most 64 characters |
//! | basicConstraints | critical, CA:TRUE, no pathlen (0 would forbid to cross-sign its successor) | critical, CA:FALSE |
//! | keyUsage | critical: keyCertSign, cRLSign | critical: digitalSignature, with RSA keyEncipherment too |
//! | extendedKeyUsage | none | serverAuth |
//! | key identifiers | its own | its own and its issuer's |
//! | serial number | 128 random bits | 128 random bits |
//! | validity | one hour ago, for the lifetime asked for | the same, but never past an issuer's end |
//!
//! rcgen keeps a name as a map from attribute to value, so of the subject `DC=corp, DC=example` of an imported
//! CA one half is lost, and every leaf that is issued under it fails to verify. Therefore rcgen builds the
//! certificate under an empty issuer name, the CA's encoded subject is put in its place, and only then is it
//! signed.

use std::{cell::RefCell, fmt, str::FromStr};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{Certificate, CertificateError, KeyProblem, KeyType, check, check::CaFlaw, der, key};
use crate::model::{San, Sans, Secret};

/// How far back validity begins: clocks of clients differ, and MongoDB refuses a certificate whose time
/// has not come. At most a tenth of the life: two thirds of it must not lie in the past already.
const BACKDATED: Duration = Duration::hours(1);

/// The longest common name (RFC 5280, appendix A.1, ub-common-name), in characters.
const COMMON_NAME: usize = 64;

/// A short name for a CA: the first 8 hexadecimal digits of its public key's SHA-256, which in CAs that we
/// make are those of the subject key identifier too. Safe as a part of a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CaId(String);

impl CaId {
    /// The id that a CA with this certificate has.
    pub fn of(certificate: &Certificate) -> Self {
        Self(certificate.key_fingerprint_hex()[..8].to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CaId {
    type Err = BadCaId;

    fn from_str(text: &str) -> Result<Self, BadCaId> {
        let valid = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Self(text.to_owned())) } else { Err(BadCaId(text.chars().take(40).collect())) }
    }
}

impl TryFrom<String> for CaId {
    type Error = BadCaId;

    fn try_from(text: String) -> Result<Self, BadCaId> {
        text.parse()
    }
}

impl From<CaId> for String {
    fn from(id: CaId) -> Self {
        id.0
    }
}

impl fmt::Display for CaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not the id of a CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found CA id {0:?}, allowed: 8 lower-case hexadecimal digits")]
pub struct BadCaId(pub String);

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("make a key of type {0}")]
    Generate(KeyType, #[source] rcgen::Error),
    #[error("draw a serial number: the system gave no random bytes")]
    Random,
    #[error("issue a certificate that ends at {end}: that is not after {now}")]
    Lifetime { end: OffsetDateTime, now: OffsetDateTime },
    #[error("issue a certificate with a lifetime of {0}: that leaves the calendar")]
    Calendar(Duration),
    #[error("issue a certificate for no name at all")]
    NoNames,
    #[error("issue a certificate for {0:?}: a DNS name is ASCII and not empty")]
    Name(String),
    #[error("encode a certificate")]
    Encode(#[source] rcgen::Error),
    #[error("put the issuer's name into a certificate: its encoding is not as expected")]
    Splice,
    #[error("read back the certificate just made")]
    ReadBack(#[source] CertificateError),
    #[error("verify the certificate just made: its signature is wrong")]
    Signature,
}

/// Why a certificate with a key cannot be a CA here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaProblem {
    #[error("the certificate cannot be used")]
    Flaw(#[source] CaFlaw),
    #[error("the key cannot be used")]
    Key(#[source] KeyProblem),
    #[error(
        "the key belongs to another certificate: SHA-256 of the certificate's public key is {certificate}, of the key's {key}"
    )]
    KeyOfAnother { certificate: String, key: String },
}

/// A certificate authority that can issue: its certificate and its key.
pub struct Ca {
    certificate: Certificate,
    id: CaId,
    key: Zeroizing<KeyPair>,
    key_pem: Secret,
    chain: Vec<Certificate>,
}

/// What to issue.
#[derive(Clone, Copy, Debug)]
pub struct LeafRequest<'a> {
    /// For people only; names for verification are in `sans`. Cut to 64 characters.
    pub common_name: &'a str,
    pub sans: &'a Sans,
    pub key_type: KeyType,
    pub lifetime: Duration,
}

/// A server's certificate with its key.
pub struct Leaf {
    pub certificate: Certificate,
    /// PKCS#8, PEM.
    pub key: Secret,
    /// What a server has to send after the leaf, in this order; empty if a root issued it.
    pub chain: Vec<Certificate>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("id", &self.id)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Ca {
    /// Make a root. Its subject is its own: no two keys share one.
    pub fn generate(
        host_name: &str,
        key_type: KeyType,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        let key = key::generate(key_type).map_err(|why| PkiError::Generate(key_type, why))?;
        let key_id = key_id(&key);
        let short = &der::hex(&key_id)[..8];
        let room = COMMON_NAME - "dbssl CA  ".len() - short.len();
        let host: String = host_name.chars().filter(|char| !char.is_control()).take(room).collect();

        let mut params = params(lifetime, None, now)?;
        params.distinguished_name.push(DnType::CommonName, format!("dbssl CA {host} {short}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
        let issued = params.self_signed(&*key).map_err(PkiError::Encode)?;
        let certificate = Certificate::from_der(issued.der().to_vec()).map_err(PkiError::ReadBack)?;
        if !certificate.signed_by(&certificate) {
            return Err(PkiError::Signature);
        }
        let key_pem = key::pkcs8_pem(key.serialized_der());
        Ok(Self { id: CaId::of(&certificate), certificate, key, key_pem, chain: Vec::new() })
    }

    /// Take up a CA from its parts, ours or a user's. The key may be PKCS#8, SEC 1 or PKCS#1.
    pub fn load(certificate: &Certificate, key_pem: &Secret, now: OffsetDateTime) -> Result<Self, CaProblem> {
        let (key, der) = key::read_key(key_pem.expose()).map_err(CaProblem::Key)?;
        if !key::belongs(certificate, &key) {
            return Err(CaProblem::KeyOfAnother {
                certificate: certificate.key_fingerprint_hex(),
                key: key::fingerprint_hex(&key),
            });
        }
        check::check_ca(certificate, now).map_err(CaProblem::Flaw)?;
        let key_pem = key::to_pkcs8_pem(&der, &certificate.facts().key_algorithm);
        let id = CaId::of(certificate);
        Ok(Self { certificate: certificate.clone(), id, key, key_pem, chain: Vec::new() })
    }

    /// For an intermediate: what stands between it and its root (neither of them included), nearest first.
    #[must_use]
    pub fn below(mut self, upper: Vec<Certificate>) -> Self {
        self.chain = std::iter::once(self.certificate.clone()).chain(upper).collect();
        self
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub fn id(&self) -> &CaId {
        &self.id
    }

    /// PKCS#8, PEM.
    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// What its leaves have to be followed by; empty for a root.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// Issue a server's certificate with a new key.
    pub fn issue(&self, request: &LeafRequest<'_>, now: OffsetDateTime) -> Result<Leaf, PkiError> {
        if request.sans.is_empty() {
            return Err(PkiError::NoNames);
        }
        let key = key::generate(request.key_type).map_err(|why| PkiError::Generate(request.key_type, why))?;
        let end = self.chain.iter().map(Certificate::not_after).chain([self.certificate.not_after()]).min();
        let mut params = params(request.lifetime, end, now)?;
        let name: String = request.common_name.chars().take(COMMON_NAME).collect();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = request.sans.iter().map(alternative_name).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if key::is_rsa(request.key_type) {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id(&key));
        params.use_authority_key_identifier_extension = true;
        let certificate = self.sign(&params, &*key)?;
        Ok(Leaf { certificate, key: key::pkcs8_pem(key.serialized_der()), chain: self.chain.clone() })
    }

    fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<Certificate, PkiError> {
        let mut upper = CertificateParams::default();
        upper.distinguished_name = rcgen::DistinguishedName::new();
        // A CA without an identifier of its own gives its leaves the one that it would have.
        let id = self.certificate.ski().map_or_else(|| key_id(&self.key), <[u8]>::to_vec);
        upper.key_identifier_method = KeyIdMethod::PreSpecified(id);
        let key =
            UnderName { key: &self.key, issuer: self.certificate.subject_raw(), signed: RefCell::default() };
        let built =
            params.signed_by(public_key, &Issuer::from_params(&upper, &key)).map_err(PkiError::Encode)?;
        let signed = key.signed.take().ok_or(PkiError::Splice)?;
        // What rcgen returns has the empty name under a signature over the right one: only its algorithm and
        // its signature are taken.
        let outer = der::element(built.der()).ok_or(PkiError::Splice)?.0;
        let ([_, algorithm, signature], _) = der::elements::<3>(outer.content).ok_or(PkiError::Splice)?;
        let whole = der::wrap(der::SEQUENCE, &[&signed, algorithm.whole, signature.whole]);
        let certificate = Certificate::from_der(whole.to_vec()).map_err(PkiError::ReadBack)?;
        if certificate.issuer_raw() == self.certificate.subject_raw()
            && certificate.signed_by(&self.certificate)
        {
            Ok(certificate)
        } else {
            Err(PkiError::Signature)
        }
    }
}

/// A key that, asked to sign a certificate, first gives it the issuer name that it ought to have.
struct UnderName<'a> {
    key: &'a KeyPair,
    /// The encoded name, with tag and length.
    issuer: &'a [u8],
    /// What was signed in the end.
    signed: RefCell<Option<Vec<u8>>>,
}

impl PublicKeyData for UnderName<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for UnderName<'_> {
    fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // version, serialNumber, signature, issuer, and the rest (RFC 5280, section 4.1).
        let spliced = der::element(to_be_signed)
            .and_then(|(outer, _)| der::elements::<4>(outer.content))
            .map(|([version, serial, signature, _], rest)| {
                der::wrap(der::SEQUENCE, &[version.whole, serial.whole, signature.whole, self.issuer, rest])
                    .to_vec()
            })
            .ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let signature = self.key.sign(&spliced)?;
        self.signed.replace(Some(spliced));
        Ok(signature)
    }
}

/// What CAs and leaves have in common.
fn params(
    lifetime: Duration,
    end: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<CertificateParams, PkiError> {
    let calendar = PkiError::Calendar(lifetime);
    let not_before = now.checked_sub(BACKDATED.min(lifetime / 10));
    let not_after = now.checked_add(lifetime);
    let (Some(not_before), Some(not_after)) = (not_before, not_after) else { return Err(calendar) };
    let not_after = end.map_or(not_after, |end| end.min(not_after));
    if not_after <= now {
        return Err(PkiError::Lifetime { end: not_after, now });
    }
    let mut serial = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut serial)
        .map_err(|_| PkiError::Random)?;

    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = not_before;
    params.not_after = not_after;
    Ok(params)
}

/// The first 160 bits of the public key's SHA-256 (RFC 7093, section 2, method 1 over the whole
/// SubjectPublicKeyInfo).
fn key_id(key: &KeyPair) -> Vec<u8> {
    der::sha256(&key.subject_public_key_info())[..20].to_vec()
}

fn alternative_name(name: &San) -> Result<SanType, PkiError> {
    match name {
        San::Ip(address) => Ok(SanType::IpAddress(*address)),
        San::Dns(name) => match name.as_str().try_into() {
            Ok(text) if !name.is_empty() => Ok(SanType::DnsName(text)),
            _ => Err(PkiError::Name(name.chars().take(80).collect())),
        },
    }
}
