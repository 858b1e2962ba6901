//! One X.509 certificate and the facts in it that we act upon.

use std::{fmt, net::IpAddr, sync::Arc};

use time::OffsetDateTime;
use x509_parser::{
    extensions::{GeneralName, GeneralSubtree, ParsedExtension},
    prelude::{FromDer, X509Certificate, X509Version},
    public_key::PublicKey,
};

use super::{der, memory, memory::Fingerprint, name};
use crate::model::{San, Sans};

/// A certificate, parsed. Cheap to clone; equal if the DER is.
#[derive(Clone)]
pub struct Certificate {
    facts: Arc<Facts>,
}

/// Bytes that are not one whole certificate which we understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("not the DER of an X.509 certificate: {0}")]
    Malformed(String),
    #[error("bytes follow the certificate")]
    Trailing,
    #[error("its signature algorithm is given twice and differs (RFC 5280, section 4.1.1.2)")]
    TwoAlgorithms,
    #[error("extension {0} is malformed")]
    Extension(String),
    #[error("extension {0} occurs twice")]
    RepeatedExtension(String),
    #[error("it has a date that does not exist")]
    Date,
}

/// What kind of public key a certificate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    P256,
    P384,
    P521,
    Ed25519,
    /// Bits of the modulus.
    Rsa(usize),
    /// The algorithm, or the algorithm and the curve, as object identifiers.
    Other(String),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::P521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Other(oid) => write!(f, "algorithm {oid}"),
        }
    }
}

/// RFC 5280, section 4.2.1.10, as far as a server's certificate can run into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameConstraints {
    pub(super) permitted: Vec<Subtree>,
    pub(super) excluded: Vec<Subtree>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subtree {
    Dns(String),
    /// Address and mask, 4 + 4 or 16 + 16 bytes.
    Ip(Vec<u8>),
    /// The relative names, encoded, without the sequence around them.
    Directory(Vec<u8>),
    /// A kind of name that our leaves do not have.
    Else,
}

pub(super) struct Facts {
    der: Vec<u8>,
    pub(super) tbs: Vec<u8>,
    /// Content of the AlgorithmIdentifier.
    pub(super) signature_algorithm: Vec<u8>,
    pub(super) signature_oid: String,
    pub(super) signature: Vec<u8>,
    fingerprint: Fingerprint,
    subject: String,
    issuer: String,
    subject_raw: Vec<u8>,
    issuer_raw: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    serial: Vec<u8>,
    pub(super) version3: bool,
    pub(super) spki: Vec<u8>,
    /// SHA-256 of the one before.
    pub(super) key_fingerprint: Fingerprint,
    /// AlgorithmIdentifier of the public key, with tag and length.
    pub(super) key_algorithm: Vec<u8>,
    /// The public key's bits.
    pub(super) key_bits: Vec<u8>,
    pub(super) key_kind: KeyKind,
    pub(super) basic: Option<Basic>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) server_auth: Option<bool>,
    pub(super) constraints: Option<NameConstraints>,
    /// The value of that extension, as encoded.
    pub(super) constraints_der: Option<Vec<u8>>,
    /// Critical extensions that we do not know: whoever meets one must refuse (RFC 5280, section 4.2).
    pub(super) unknown_critical: Vec<String>,
    ski: Option<Vec<u8>>,
    pub(super) has_aki: bool,
    aki: Option<Vec<u8>>,
    sans: Sans,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Basic {
    pub(super) ca: bool,
    pub(super) path_len: Option<u32>,
    pub(super) critical: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyUsage {
    pub(super) digital_signature: bool,
    pub(super) cert_sign: bool,
}

impl Certificate {
    /// Parse one certificate.
    pub fn from_der(der: Vec<u8>) -> Result<Self, CertificateError> {
        let fingerprint = der::sha256(&der);
        memory::PARSED.with(|parsed| {
            parsed.try_recall(fingerprint, || Ok(Self { facts: Arc::new(Facts::parse(der, fingerprint)?) }))
        })
    }

    pub fn der(&self) -> &[u8] {
        &self.facts.der
    }

    /// One PEM block, `\n` at each line's end, the last one too.
    pub fn to_pem(&self) -> String {
        String::from_utf8_lossy(&der::to_pem("CERTIFICATE", self.der())).into_owned()
    }

    /// SHA-256 of the DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.facts.fingerprint
    }

    /// The fingerprint as 64 hexadecimal digits.
    pub fn fingerprint_hex(&self) -> String {
        der::hex(&self.facts.fingerprint)
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo), as 64 hexadecimal digits.
    pub fn key_fingerprint_hex(&self) -> String {
        der::hex(&self.facts.key_fingerprint)
    }

    /// For people: `CN=..., O=...`, in the order of the encoding; control characters are escaped.
    pub fn subject(&self) -> &str {
        &self.facts.subject
    }

    /// For people, as [`Self::subject`].
    pub fn issuer(&self) -> &str {
        &self.facts.issuer
    }

    /// The encoded name, with tag and length.
    pub fn subject_raw(&self) -> &[u8] {
        &self.facts.subject_raw
    }

    /// The encoded name, with tag and length.
    pub fn issuer_raw(&self) -> &[u8] {
        &self.facts.issuer_raw
    }

    /// The subject as OpenSSL's `X509_NAME_oneline` writes it, which MySQL and MariaDB compare; `None` where an attribute
    /// has no short name here.
    pub fn subject_oneline(&self) -> Option<String> {
        name::oneline(self.subject_raw())
    }

    /// The issuer likewise.
    pub fn issuer_oneline(&self) -> Option<String> {
        name::oneline(self.issuer_raw())
    }

    /// The subject by RFC 2253, the last attribute first, which MongoDB takes for a user's name.
    pub fn subject_rfc2253(&self) -> Option<String> {
        name::rfc2253(self.subject_raw())
    }

    pub fn not_before(&self) -> OffsetDateTime {
        self.facts.not_before
    }

    pub fn not_after(&self) -> OffsetDateTime {
        self.facts.not_after
    }

    /// The serial number's bytes as hexadecimal digits, without the byte that only makes it positive.
    pub fn serial_hex(&self) -> String {
        der::hex(&self.facts.serial)
    }

    /// The subject key identifier.
    pub fn ski(&self) -> Option<&[u8]> {
        self.facts.ski.as_deref()
    }

    /// The key identifier within the authority key identifier.
    pub fn aki(&self) -> Option<&[u8]> {
        self.facts.aki.as_deref()
    }

    /// The DNS names (lower case) and addresses of the subject alternative name.
    pub fn sans(&self) -> &Sans {
        &self.facts.sans
    }

    pub fn is_ca(&self) -> bool {
        self.facts.basic.is_some_and(|basic| basic.ca)
    }

    /// How many CA certificates may stand between this one and a leaf; `None`: any number.
    pub fn path_len(&self) -> Option<u32> {
        self.facts.basic.and_then(|basic| basic.path_len)
    }

    pub fn key_kind(&self) -> &KeyKind {
        &self.facts.key_kind
    }

    /// Whether it is its own issuer: same name, and signed by its own key where we can check that. Roots
    /// with an outdated signature algorithm count, as nobody relies on a root's own signature.
    pub fn self_signed(&self) -> bool {
        let same = self.subject_raw() == self.issuer_raw()
            && (self.aki().is_none() || self.ski().is_none() || self.aki() == self.ski());
        same && (self.facts.weak_signature() || self.signed_by(self))
    }

    /// Whether `issuer`'s key made this certificate's signature, by an algorithm that rustls accepts (so:
    /// no MD5, no SHA-1). Says nothing about names, dates or permissions.
    pub fn signed_by(&self, issuer: &Self) -> bool {
        // A CA and its cross-signed certificates have one key.
        let pair = (self.fingerprint(), issuer.facts.key_fingerprint);
        memory::SIGNED.with(|signed| signed.recall(pair, || self.verify_signature(&issuer.facts)))
    }

    fn verify_signature(&self, key: &Facts) -> bool {
        let Some((algorithm, _)) = der::element(&key.key_algorithm) else { return false };
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all.iter().any(
            |known| {
                known.public_key_alg_id().as_ref() == algorithm.content
                    && known.signature_alg_id().as_ref() == self.facts.signature_algorithm
                    && known.verify_signature(&key.key_bits, &self.facts.tbs, &self.facts.signature).is_ok()
            },
        )
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der() == other.der()
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), &self.fingerprint_hex()[..16])
    }
}

impl Facts {
    fn parse(der: Vec<u8>, fingerprint: Fingerprint) -> Result<Self, CertificateError> {
        let malformed = |why: &str| CertificateError::Malformed(why.to_owned());
        let (rest, parsed) = X509Certificate::from_der(&der)
            .map_err(|why| CertificateError::Malformed(printable(&why.to_string())))?;
        if !rest.is_empty() {
            return Err(CertificateError::Trailing);
        }
        let outer = der::element(&der).ok_or_else(|| malformed("no outer sequence"))?.0;
        let ([tbs, algorithm, signature], rest) =
            der::elements::<3>(outer.content).ok_or_else(|| malformed("no signature"))?;
        let ([_version, _serial, inner_algorithm], _) = if parsed.version == X509Version::V1 {
            // Its version is left out, for it is the default.
            let ([serial, algorithm], rest) =
                der::elements::<2>(tbs.content).ok_or_else(|| malformed("no algorithm"))?;
            ([serial, serial, algorithm], rest)
        } else {
            der::elements::<3>(tbs.content).ok_or_else(|| malformed("no algorithm"))?
        };
        // One certificate has one encoding: else two files that differ could be the same certificate, and the
        // fingerprint would name neither.
        let canonical = der::wrap(der::SEQUENCE, &[tbs.whole, algorithm.whole, signature.whole]);
        let tags = (tbs.tag, algorithm.tag, signature.tag);
        if !rest.is_empty()
            || *canonical != der
            || tags != (der::SEQUENCE, der::SEQUENCE, der::BIT_STRING)
            || signature.content.first() != Some(&0)
        {
            return Err(malformed("its outer structure is not DER"));
        }
        if inner_algorithm.whole != algorithm.whole {
            return Err(CertificateError::TwoAlgorithms);
        }
        let spki = der::element(parsed.subject_pki.raw).ok_or_else(|| malformed("no public key"))?.0;
        let (key_algorithm, _) = der::element(spki.content).ok_or_else(|| malformed("no key algorithm"))?;
        // A date beyond the calendar is given as the least one by the parser.
        let date = |date: x509_parser::time::ASN1Time| {
            OffsetDateTime::from_unix_timestamp(date.timestamp()).map_err(|_| CertificateError::Date)
        };
        let raw_serial = parsed.tbs_certificate.raw_serial();
        let mut facts = Self {
            fingerprint,
            tbs: tbs.whole.to_vec(),
            signature_algorithm: algorithm.content.to_vec(),
            signature_oid: parsed.signature_algorithm.algorithm.to_id_string(),
            signature: parsed.signature_value.data.to_vec(),
            subject: printable(&parsed.subject.to_string()),
            issuer: printable(&parsed.issuer.to_string()),
            subject_raw: parsed.subject.as_raw().to_vec(),
            issuer_raw: parsed.issuer.as_raw().to_vec(),
            not_before: date(parsed.validity.not_before)?,
            not_after: date(parsed.validity.not_after)?,
            serial: raw_serial
                .strip_prefix(&[0])
                .filter(|rest| !rest.is_empty())
                .unwrap_or(raw_serial)
                .to_vec(),
            version3: parsed.version == X509Version::V3,
            spki: parsed.subject_pki.raw.to_vec(),
            key_fingerprint: der::sha256(parsed.subject_pki.raw),
            key_algorithm: key_algorithm.whole.to_vec(),
            key_bits: parsed.subject_pki.subject_public_key.data.to_vec(),
            key_kind: key_kind(&parsed),
            basic: None,
            key_usage: None,
            server_auth: None,
            constraints: None,
            constraints_der: None,
            unknown_critical: Vec::new(),
            ski: None,
            has_aki: false,
            aki: None,
            sans: Sans::new(),
            der: Vec::new(),
        };
        let mut seen = std::collections::BTreeSet::new();
        for extension in parsed.tbs_certificate.extensions() {
            let oid = extension.oid.to_id_string();
            if !seen.insert(oid.clone()) {
                return Err(CertificateError::RepeatedExtension(oid));
            }
            if let ParsedExtension::NameConstraints(_) = extension.parsed_extension() {
                facts.constraints_der = Some(extension.value.to_vec());
            }
            facts.note(extension.parsed_extension(), extension.critical, oid)?;
        }
        drop(parsed);
        facts.der = der;
        Ok(facts)
    }

    fn note(
        &mut self,
        extension: &ParsedExtension<'_>,
        critical: bool,
        oid: String,
    ) -> Result<(), CertificateError> {
        match extension {
            ParsedExtension::ParseError { .. } => return Err(CertificateError::Extension(oid)),
            ParsedExtension::BasicConstraints(found) => {
                self.basic = Some(Basic { ca: found.ca, path_len: found.path_len_constraint, critical });
            }
            ParsedExtension::KeyUsage(found) => {
                self.key_usage = Some(KeyUsage {
                    digital_signature: found.digital_signature(),
                    cert_sign: found.key_cert_sign(),
                });
            }
            ParsedExtension::ExtendedKeyUsage(found) => {
                self.server_auth = Some(found.server_auth || found.any);
            }
            ParsedExtension::SubjectKeyIdentifier(found) => self.ski = Some(found.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(found) => {
                self.has_aki = true;
                self.aki = found.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectAlternativeName(found) => {
                for name in &found.general_names {
                    match name {
                        GeneralName::DNSName(name) => {
                            self.sans.insert(San::Dns(printable(&name.to_ascii_lowercase())));
                        }
                        GeneralName::IPAddress(bytes) => {
                            let address = address(bytes).ok_or(CertificateError::Extension(oid.clone()))?;
                            self.sans.insert(San::Ip(address));
                        }
                        GeneralName::Invalid(..) => return Err(CertificateError::Extension(oid)),
                        _ => {}
                    }
                }
            }
            ParsedExtension::NameConstraints(found) => {
                let subtrees = |list: &Option<Vec<GeneralSubtree<'_>>>| {
                    list.iter().flatten().map(|subtree| Subtree::from(&subtree.base)).collect()
                };
                self.constraints = Some(NameConstraints {
                    permitted: subtrees(&found.permitted_subtrees),
                    excluded: subtrees(&found.excluded_subtrees),
                });
            }
            // Without a policy in demand neither of these forbids anything (RFC 5280, section 6.1).
            ParsedExtension::CertificatePolicies(_) | ParsedExtension::NSCertType(_) => {}
            _ if critical => self.unknown_critical.push(oid),
            _ => {}
        }
        Ok(())
    }

    /// MD2, MD5 or SHA-1 inside the signature.
    pub(super) fn weak_signature(&self) -> bool {
        matches!(
            self.signature_oid.as_str(),
            "1.2.840.113549.1.1.2"
                | "1.2.840.113549.1.1.4"
                | "1.2.840.113549.1.1.5"
                | "1.2.840.10045.4.1"
                | "1.2.840.10040.4.3"
                | "1.3.14.3.2.29"
        )
    }
}

impl From<&GeneralName<'_>> for Subtree {
    fn from(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DNSName(name) => Self::Dns(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => Self::Ip(bytes.to_vec()),
            GeneralName::DirectoryName(name) => Self::Directory(
                der::element(name.as_raw()).map(|(name, _)| name.content.to_vec()).unwrap_or_default(),
            ),
            _ => Self::Else,
        }
    }
}

fn key_kind(parsed: &X509Certificate<'_>) -> KeyKind {
    let key = &parsed.subject_pki;
    let algorithm = key.algorithm.algorithm.to_id_string();
    match algorithm.as_str() {
        "1.2.840.10045.2.1" => {
            let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).unwrap_or_default().as_str() {
                "1.2.840.10045.3.1.7" => KeyKind::P256,
                "1.3.132.0.34" => KeyKind::P384,
                "1.3.132.0.35" => KeyKind::P521,
                curve => KeyKind::Other(format!("{algorithm} {curve}")),
            }
        }
        "1.3.101.112" => KeyKind::Ed25519,
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => KeyKind::Rsa(rsa.key_size()),
            _ => KeyKind::Other(algorithm),
        },
        _ => KeyKind::Other(algorithm),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// What comes out of a certificate goes into log lines: no line breaks, no terminal codes.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escaped = char.is_control().then(|| char.escape_default());
            let plain = escaped.is_none().then_some(char);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
