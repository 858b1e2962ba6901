//! Making CAs and leaves, to the profile that every client we know accepts.
//!
//! | | CA | leaf |
//! |---|---|---|
//! | subject | `dbssl CA <host> <8 hex digits of its key id>` | the container's name, at most 64 characters |
//! | basicConstraints | critical, CA:TRUE, no pathlen (0 would forbid to cross-sign its successor) | critical, CA:FALSE |
//! | keyUsage | critical: keyCertSign, cRLSign | critical: digitalSignature, with RSA keyEncipherment too |
//! | extendedKeyUsage | none | serverAuth (a client's: [`super::ClientRequest`]) |
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
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
    SigningKey,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{Certificate, CertificateError, KeyProblem, KeyType, check, check::CaFlaw, der, key};
use crate::model::{San, Sans, Secret};

/// How far back validity begins: clocks of clients differ, and MongoDB refuses a certificate whose time
/// has not come. At most a tenth of the life: two thirds of it must not lie in the past already.
const BACKDATED: Duration = Duration::hours(1);
/// A CA outlives every leaf, and cannot be made anew without its clients: a clock that was ahead when it was made, and is
/// set right, must not leave them with one that is not valid yet.
const CA_BACKDATED: Duration = Duration::days(366);

/// id-ce-nameConstraints (RFC 5280, section 4.2.1.10).
const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];

/// The longest common name (RFC 5280, appendix A.1, ub-common-name), in characters.
pub(super) const COMMON_NAME: usize = 64;

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
    #[error(
        "issue a client's certificate for the user {0:?}: allowed are 1 to 64 characters, none of them a control character"
    )]
    User(String),
    #[error("use the key of a certificate request")]
    Key(#[source] KeyProblem),
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
    /// Where there is a root above it.
    root_ends: Option<OffsetDateTime>,
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

/// A server's or a client's certificate with its key.
pub struct Leaf {
    pub certificate: Certificate,
    /// PKCS#8, PEM.
    pub key: Secret,
    /// What has to be sent after the leaf, in this order; empty if a root issued it.
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

        let mut params = params(lifetime, None, now)?;
        params.not_before = now.checked_sub(CA_BACKDATED.min(lifetime / 10)).unwrap_or(params.not_before);
        params.distinguished_name.push(DnType::CommonName, ca_name(host_name, &key_id));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
        let issued = params.self_signed(&*key).map_err(PkiError::Encode)?;
        let certificate = Certificate::from_der(issued.der().to_vec()).map_err(PkiError::ReadBack)?;
        if !certificate.signed_by(&certificate) {
            return Err(PkiError::Signature);
        }
        let key_pem = key::pkcs8_pem(key.serialized_der());
        Ok(Self { id: CaId::of(&certificate), certificate, key, key_pem, chain: Vec::new(), root_ends: None })
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
        Ok(Self { certificate: certificate.clone(), id, key, key_pem, chain: Vec::new(), root_ends: None })
    }

    /// For an intermediate: what stands between it and its root (neither of them included), nearest first, and the end of
    /// that root. Nothing that it issues outlives any of them.
    #[must_use]
    pub fn below(mut self, upper: Vec<Certificate>, root_ends: OffsetDateTime) -> Self {
        self.root_ends = Some(root_ends);
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
        let mut params = params(request.lifetime, self.end(), now)?;
        let name: String = request.common_name.chars().take(COMMON_NAME).collect();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = alternative_names(request.sans)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue_leaf(params, request.key_type)
    }

    /// No certificate below outlives this.
    pub(super) fn end(&self) -> Option<OffsetDateTime> {
        let chain = self.chain.iter().map(Certificate::not_after);
        chain.chain([self.certificate.not_after()]).chain(self.root_ends).min()
    }

    /// With a new key, and with all that leaves have in common.
    pub(super) fn issue_leaf(
        &self,
        mut params: CertificateParams,
        key_type: KeyType,
    ) -> Result<Leaf, PkiError> {
        let key = key::generate(key_type).map_err(|why| PkiError::Generate(key_type, why))?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = leaf_usages(key_type);
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id(&key));
        params.use_authority_key_identifier_extension = true;
        let certificate = self.sign(&params, &*key)?;
        Ok(Leaf { certificate, key: key::pkcs8_pem(key.serialized_der()), chain: self.chain.clone() })
    }

    /// Vouch for another CA: its subject, public key, key identifier, path length and name constraints under our
    /// signature. Clients that trust only this CA then verify what the other one issued. Needs nothing of the other
    /// one's key. Ends with whichever of the two ends first.
    pub fn cross_sign(&self, other: &Certificate, now: OffsetDateTime) -> Result<Certificate, PkiError> {
        let facts = other.facts();
        let lifetime = other.not_after() - now;
        let end = self.chain.iter().map(Certificate::not_after).chain([self.certificate.not_after()]).min();
        let mut params = params(lifetime, end, now)?;
        // As long ago as both of them.
        params.not_before = params.not_before.min(other.not_before().max(self.certificate.not_before()));
        params.is_ca = IsCa::Ca(match facts.basic.and_then(|basic| basic.path_len) {
            Some(length) => BasicConstraints::Constrained(u8::try_from(length).unwrap_or(u8::MAX)),
            None => BasicConstraints::Unconstrained,
        });
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // What a CA without an identifier of its own gives its leaves, see `sign`.
        let id = other.ski().map_or_else(|| facts.key_fingerprint[..20].to_vec(), <[u8]>::to_vec);
        params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        params.use_authority_key_identifier_extension = true;
        if let Some(constraints) = &facts.constraints_der {
            let mut extension = CustomExtension::from_oid_content(&NAME_CONSTRAINTS, constraints.clone());
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
        // Its own public key stands in for the other one, which takes its place when it is signed.
        self.sign_as(&params, &*self.key, Some(other))
    }

    fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<Certificate, PkiError> {
        self.sign_as(params, public_key, None)
    }

    fn sign_as(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
        subject: Option<&Certificate>,
    ) -> Result<Certificate, PkiError> {
        let mut upper = CertificateParams::default();
        upper.distinguished_name = rcgen::DistinguishedName::new();
        // A CA without an identifier of its own gives its leaves the one that it would have.
        let id = self.certificate.ski().map_or_else(|| key_id(&self.key), <[u8]>::to_vec);
        upper.key_identifier_method = KeyIdMethod::PreSpecified(id);
        let key = UnderName {
            key: &self.key,
            issuer: self.certificate.subject_raw(),
            subject,
            signed: RefCell::default(),
        };
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
    /// Whose name and public key it gets, if not those that rcgen was given.
    subject: Option<&'a Certificate>,
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
        // version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, and the rest (RFC 5280,
        // section 4.1).
        let spliced = der::element(to_be_signed)
            .and_then(|(outer, _)| der::elements::<7>(outer.content))
            .map(|([version, serial, signature, _, validity, subject, public_key], rest)| {
                let (subject, public_key) = self.subject.map_or((subject.whole, public_key.whole), |other| {
                    (other.subject_raw(), &other.facts().spki)
                });
                let parts = [
                    version.whole,
                    serial.whole,
                    signature.whole,
                    self.issuer,
                    validity.whole,
                    subject,
                    public_key,
                ];
                der::wrap(der::SEQUENCE, &[&parts[..], &[rest]].concat()).to_vec()
            })
            .ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let signature = self.key.sign(&spliced)?;
        self.signed.replace(Some(spliced));
        Ok(signature)
    }
}

/// What CAs and leaves have in common.
pub(super) fn params(
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

/// The common name of a CA of ours: its own, as it holds a part of its key identifier.
pub(super) fn ca_name(host_name: &str, key_id: &[u8]) -> String {
    let short = &der::hex(key_id)[..8];
    let room = COMMON_NAME - "dbssl CA  ".len() - short.len();
    let host: String = host_name.chars().filter(|char| !char.is_control()).take(room).collect();
    format!("dbssl CA {host} {short}")
}

/// The first 160 bits of the public key's SHA-256 (RFC 7093, section 2, method 1 over the whole
/// SubjectPublicKeyInfo).
pub(super) fn key_id(key: &KeyPair) -> Vec<u8> {
    der::sha256(&key.subject_public_key_info())[..20].to_vec()
}

/// What a leaf's key may be used for.
pub(super) fn leaf_usages(key_type: KeyType) -> Vec<KeyUsagePurpose> {
    let encipherment = key::is_rsa(key_type).then_some(KeyUsagePurpose::KeyEncipherment);
    std::iter::once(KeyUsagePurpose::DigitalSignature).chain(encipherment).collect()
}

pub(super) fn alternative_names(sans: &Sans) -> Result<Vec<SanType>, PkiError> {
    sans.iter().map(alternative_name).collect()
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
