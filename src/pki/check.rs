//! Our own verdict on certificates, strict on purpose.
//!
//! A handshake alone proves little: rustls and Java accept expired roots, rustls also roots that are no CA,
//! a violated path length and a wrong key identifier, while others refuse every one of these. So what a server
//! presents is checked here against all that any client known to us insists on.

use std::{fmt, net::IpAddr};

use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::{
    Certificate, KeyKind,
    certificate::{NameConstraints, Subtree},
    der,
};
use crate::model::{San, Sans};

/// What makes a certificate useless as a CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaFlaw {
    #[error("it is not a CA: basicConstraints says CA:FALSE or is missing; needed: CA:TRUE")]
    NotCa,
    #[error("its keyUsage lacks keyCertSign, so it may not sign certificates")]
    NoCertSign,
    #[error("it expired at {0}")]
    Expired(OffsetDateTime),
    #[error("it is valid from {0} only")]
    NotYetValid(OffsetDateTime),
    #[error("it is signed with MD5 or SHA-1, which clients refuse; needed: SHA-256 or better")]
    WeakSignature,
    #[error("its key is {0}; needed: RSA of 2048 bits or more, or ECDSA P-256 or P-384")]
    WeakKey(KeyKind),
    #[error("it has a critical extension that is unknown here ({0}), so every client may refuse it")]
    Critical(String),
    #[error("it is not encoded as a CA has to be (DER, RFC 5280), so that strict clients cannot read it")]
    Encoding,
}

/// What makes a CA fail with some clients only. The text names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaWarning {
    P521,
    Ed25519,
    NoKeyUsage,
    NoSki,
    NotCriticalBasicConstraints,
    PathLenZero,
}

impl fmt::Display for CaWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P521 => "its key is ECDSA P-521, which BoringSSL, Chrome, Cloudflare Workers and many builds of Go and Rust programs refuse",
            Self::Ed25519 => "its key is Ed25519: libpq fails with its default channel binding, and so do Java before 15 and OpenSSL before 1.1.1",
            Self::NoKeyUsage => "it has no keyUsage, which OpenSSL's -x509_strict and Python 3.13 refuse",
            Self::NoSki => "it has no subject key identifier, which OpenSSL's -x509_strict and Python 3.13 refuse",
            Self::NotCriticalBasicConstraints => "its basicConstraints is not critical, which OpenSSL's -x509_strict and Python 3.13 refuse",
            Self::PathLenZero => "its path length of 0 forbids it to cross-sign a successor, so its replacement will break clients that have only this one",
        })
    }
}

/// Whether a certificate can be a CA here at all, and which clients it will trouble.
///
/// Says nothing about who signed it.
pub fn check_ca(certificate: &Certificate, now: OffsetDateTime) -> Result<Vec<CaWarning>, CaFlaw> {
    let facts = certificate.facts();
    let Some(basic) = facts.basic.filter(|basic| basic.ca) else { return Err(CaFlaw::NotCa) };
    if facts.key_usage.is_some_and(|usage| !usage.cert_sign) {
        return Err(CaFlaw::NoCertSign);
    }
    if now > certificate.not_after() {
        return Err(CaFlaw::Expired(certificate.not_after()));
    }
    if now < certificate.not_before() {
        return Err(CaFlaw::NotYetValid(certificate.not_before()));
    }
    if facts.weak_signature() && !certificate.self_signed() {
        return Err(CaFlaw::WeakSignature);
    }
    if weak_key(&facts.key_kind) {
        return Err(CaFlaw::WeakKey(facts.key_kind.clone()));
    }
    if let Some(oid) = facts.unknown_critical.first() {
        return Err(CaFlaw::Critical(oid.clone()));
    }
    // Our parser passes over what others stumble on, such as a surplus element in an extension: OpenSSL then reads not
    // even the certificates that follow in the file.
    if rustls::RootCertStore::empty().add(CertificateDer::from(certificate.der())).is_err() {
        return Err(CaFlaw::Encoding);
    }
    Ok([
        (facts.key_kind == KeyKind::P521, CaWarning::P521),
        (facts.key_kind == KeyKind::Ed25519, CaWarning::Ed25519),
        (facts.key_usage.is_none(), CaWarning::NoKeyUsage),
        (certificate.ski().is_none(), CaWarning::NoSki),
        (!basic.critical, CaWarning::NotCriticalBasicConstraints),
        (basic.path_len == Some(0), CaWarning::PathLenZero),
    ]
    .into_iter()
    .filter_map(|(applies, warning)| applies.then_some(warning))
    .collect())
}

fn weak_key(kind: &KeyKind) -> bool {
    match kind {
        KeyKind::Rsa(bits) => *bits < 2048,
        KeyKind::Other(_) => true,
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Ed25519 => false,
    }
}

/// Java's `PKIXBuilderParameters` go no further if nobody told them to; rustls stops at six.
const MOST_BETWEEN: usize = 5;

/// Why a chain as served is not good enough. `at` counts from the leaf, which is 0; the root comes last.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainProblem {
    #[error("no certificate was presented")]
    Empty,
    #[error("certificate {at} of the chain is no X.509 version 3 certificate")]
    Version { at: usize },
    #[error("certificate {at} of the chain expired at {end}")]
    Expired { at: usize, end: OffsetDateTime },
    #[error("certificate {at} of the chain is valid from {from} only")]
    NotYetValid { at: usize, from: OffsetDateTime },
    #[error("certificate {at} of the chain has an unusable key ({kind})")]
    WeakKey { at: usize, kind: KeyKind },
    #[error("certificate {at} of the chain has a critical extension that is unknown here ({oid})")]
    Critical { at: usize, oid: String },
    #[error("the leaf is a CA")]
    LeafIsCa,
    #[error("the leaf's keyUsage lacks digitalSignature")]
    LeafKeyUsage,
    #[error("certificate {at} of the chain is not for servers: extendedKeyUsage without serverAuth")]
    NotForServers { at: usize },
    #[error("certificate {at} of the chain names the issuer {issuer:?}, but {above:?} follows it")]
    Order { at: usize, issuer: String, above: String },
    #[error("the signature of certificate {at} of the chain was not made by the key of the one above it")]
    Signature { at: usize },
    #[error("certificate {at} of the chain has no authority key identifier")]
    NoAki { at: usize },
    #[error(
        "certificate {at} of the chain has an authority key identifier that is not its issuer's subject key identifier"
    )]
    WrongAki { at: usize },
    #[error("the leaf has no subject key identifier")]
    NoSki,
    #[error("certificate {at} of the chain issued another but is not a CA")]
    NotCa { at: usize },
    #[error("certificate {at} of the chain issued another but its keyUsage lacks keyCertSign")]
    NoCertSign { at: usize },
    #[error(
        "certificate {at} of the chain allows fewer CAs below it than there are (path length {path_len})"
    )]
    PathLen { at: usize, path_len: u32 },
    #[error(
        "there are {found} certificates between the leaf and the root, and several clients accept no more than {MOST_BETWEEN}"
    )]
    Deep { found: usize },
    #[error("certificate {at} of the chain forbids a name of the leaf: {name}")]
    Constraint { at: usize, name: String },
    #[error("no trusted root has issued the chain; its last issuer is {issuer:?}")]
    NoRoot { issuer: String },
    #[error("the leaf does not name {0}")]
    Name(San),
}

/// Whether every client that trusts `roots` will accept what a server presented, leaf first.
///
/// All of `served` has to be one line in which each certificate is issued by the next; it may reach a root
/// before its end (a cross-signed CA lets old clients go on to the old root). `names` have to be in the leaf
/// all, by RFC 6125; an empty set checks no name, as the mode `verify-ca` does.
pub fn check_chain(
    served: &[Certificate],
    roots: &[Certificate],
    names: &Sans,
    now: OffsetDateTime,
) -> Result<(), ChainProblem> {
    let leaf = served.first().ok_or(ChainProblem::Empty)?;
    check_leaf(leaf)?;
    for (at, certificate) in served.iter().enumerate() {
        check_alone(certificate, at, now)?;
        if let Some(above) = served.get(at + 1) {
            check_link(certificate, above, at)?;
        }
    }
    anchor(served, roots, now)?;
    names.iter().find(|name| !covers(leaf, name)).map_or(Ok(()), |name| Err(ChainProblem::Name(name.clone())))
}

/// The first root by which some beginning of the chain is complete, or the most telling problem.
fn anchor(served: &[Certificate], roots: &[Certificate], now: OffsetDateTime) -> Result<(), ChainProblem> {
    let mut problem = None;
    for (at, certificate) in served.iter().enumerate() {
        for root in roots {
            let path: Vec<&Certificate> = if root == certificate {
                served[..=at].iter().collect()
            } else if root.subject_raw() == certificate.issuer_raw() {
                served[..=at].iter().chain([root]).collect()
            } else {
                continue;
            };
            match check_path(&path, now) {
                Ok(()) => return Ok(()),
                Err(found) => _ = problem.get_or_insert(found),
            }
        }
    }
    let issuer = served.last().map(|last| last.issuer().to_owned()).unwrap_or_default();
    Err(problem.unwrap_or(ChainProblem::NoRoot { issuer }))
}

/// A whole path, leaf to root, of which everything but the root was checked alone already.
fn check_path(path: &[&Certificate], now: OffsetDateTime) -> Result<(), ChainProblem> {
    for (at, pair) in path.windows(2).enumerate() {
        check_link(pair[0], pair[1], at)?;
    }
    if let Some((root, below)) = path.split_last() {
        check_alone(root, below.len(), now)?;
    }
    let Some((leaf, issuers)) = path.split_first() else { return Err(ChainProblem::Empty) };
    // The leaf alone, presented and trusted: nothing says that it may be an anchor.
    if issuers.is_empty() {
        return Err(ChainProblem::NotCa { at: 0 });
    }
    let between = issuers.len() - 1;
    if between > MOST_BETWEEN {
        return Err(ChainProblem::Deep { found: between });
    }
    for (below, issuer) in issuers.iter().enumerate() {
        let at = below + 1;
        let facts = issuer.facts();
        if !issuer.is_ca() {
            return Err(ChainProblem::NotCa { at });
        }
        if facts.key_usage.is_some_and(|usage| !usage.cert_sign) {
            return Err(ChainProblem::NoCertSign { at });
        }
        if facts.server_auth == Some(false) {
            return Err(ChainProblem::NotForServers { at });
        }
        if let Some(path_len) =
            issuer.path_len().filter(|most| usize::try_from(*most).is_ok_and(|most| most < below))
        {
            return Err(ChainProblem::PathLen { at, path_len });
        }
        if let Some(constraints) = &facts.constraints {
            forbidden_name(leaf, constraints)
                .map_or(Ok(()), |name| Err(ChainProblem::Constraint { at, name }))?;
        }
    }
    Ok(())
}

fn check_leaf(leaf: &Certificate) -> Result<(), ChainProblem> {
    let facts = leaf.facts();
    if leaf.is_ca() {
        return Err(ChainProblem::LeafIsCa);
    }
    if facts.key_usage.is_some_and(|usage| !usage.digital_signature) {
        return Err(ChainProblem::LeafKeyUsage);
    }
    // Not demanded by RFC 5280, but by Apple's and by Microsoft's verifiers.
    if facts.server_auth != Some(true) {
        return Err(ChainProblem::NotForServers { at: 0 });
    }
    if leaf.ski().is_none() {
        return Err(ChainProblem::NoSki);
    }
    Ok(())
}

fn check_alone(certificate: &Certificate, at: usize, now: OffsetDateTime) -> Result<(), ChainProblem> {
    let facts = certificate.facts();
    if !facts.version3 {
        return Err(ChainProblem::Version { at });
    }
    if now > certificate.not_after() {
        return Err(ChainProblem::Expired { at, end: certificate.not_after() });
    }
    if now < certificate.not_before() {
        return Err(ChainProblem::NotYetValid { at, from: certificate.not_before() });
    }
    if weak_key(&facts.key_kind) {
        return Err(ChainProblem::WeakKey { at, kind: facts.key_kind.clone() });
    }
    match facts.unknown_critical.first() {
        Some(oid) => Err(ChainProblem::Critical { at, oid: oid.clone() }),
        None => Ok(()),
    }
}

/// `above` issued `certificate`, which stands at `at`.
fn check_link(certificate: &Certificate, above: &Certificate, at: usize) -> Result<(), ChainProblem> {
    if certificate.issuer_raw() != above.subject_raw() {
        return Err(ChainProblem::Order {
            at,
            issuer: certificate.issuer().to_owned(),
            above: above.subject().to_owned(),
        });
    }
    match (certificate.aki(), above.ski()) {
        (None, _) => return Err(ChainProblem::NoAki { at }),
        (Some(aki), Some(ski)) if aki != ski => return Err(ChainProblem::WrongAki { at }),
        _ => {}
    }
    if certificate.signed_by(above) { Ok(()) } else { Err(ChainProblem::Signature { at }) }
}

/// Those of the names that the leaf is not for.
pub fn not_covered<'a>(leaf: &Certificate, names: &'a Sans) -> Vec<&'a San> {
    names.iter().filter(|name| !covers(leaf, name)).collect()
}

/// Whether one of the roots has signed something in the chain, or is in it: no more than that.
pub fn leads_to(chain: &[Certificate], roots: &[Certificate]) -> bool {
    chain.iter().any(|one| roots.iter().any(|root| one == root || one.signed_by(root)))
}

/// Whether the leaf is for this name. A wildcard stands for one whole label, the first (RFC 6125).
fn covers(leaf: &Certificate, name: &San) -> bool {
    let San::Dns(wanted) = name else { return leaf.sans().contains(name) };
    let wanted = wanted.to_ascii_lowercase();
    leaf.sans().iter().any(|held| match held {
        San::Ip(_) => false,
        San::Dns(held) => match held.strip_prefix("*.") {
            Some(domain) => {
                wanted.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == domain)
            }
            None => *held == wanted,
        },
    })
}

/// A name of the leaf that its issuer may not certify (RFC 5280, section 4.2.1.10).
fn forbidden_name(leaf: &Certificate, constraints: &NameConstraints) -> Option<String> {
    let subject = der::element(leaf.subject_raw()).map(|(name, _)| name.content).unwrap_or_default();
    let forbidden = |same_kind: &dyn Fn(&Subtree) -> bool, within: &dyn Fn(&Subtree) -> bool| {
        let mut permitted = constraints.permitted.iter().filter(|subtree| same_kind(subtree)).peekable();
        let outside = permitted.peek().is_some() && !permitted.any(within);
        outside || constraints.excluded.iter().any(within)
    };
    let name = leaf.sans().iter().find(|name| match name {
        San::Dns(name) => forbidden(
            &|tree| matches!(tree, Subtree::Dns(_)),
            &|tree| matches!(tree, Subtree::Dns(base) if within_domain(name, base)),
        ),
        San::Ip(address) => forbidden(
            &|tree| matches!(tree, Subtree::Ip(_)),
            &|tree| matches!(tree, Subtree::Ip(net) if within_network(*address, net)),
        ),
    });
    if let Some(name) = name {
        return Some(name.to_string());
    }
    let directory = |tree: &Subtree| matches!(tree, Subtree::Directory(_));
    let within = |tree: &Subtree| matches!(tree, Subtree::Directory(base) if subject.starts_with(base));
    (!subject.is_empty() && forbidden(&directory, &within)).then(|| leaf.subject().to_owned())
}

fn within_domain(name: &str, base: &str) -> bool {
    let base = base.strip_prefix('.').unwrap_or(base);
    base.is_empty() || name == base || name.strip_suffix(base).is_some_and(|front| front.ends_with('.'))
}

fn within_network(address: IpAddr, network: &[u8]) -> bool {
    let bytes: Vec<u8> = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    network.len() == 2 * bytes.len() && {
        let (base, mask) = network.split_at(bytes.len());
        bytes.iter().zip(base).zip(mask).all(|((byte, base), mask)| byte & mask == base & mask)
    }
}

/// When to renew: at two thirds of the certificate's life, less up to a twentieth of it that the container's
/// name decides, so that the databases of a host do not all renew at once and none of them changes its mind.
pub fn renewal_at(certificate: &Certificate, container: &str) -> OffsetDateTime {
    // FNV-1a: any fixed function will do, as long as it is the same in every version.
    let hash = container.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let life = (certificate.not_after() - certificate.not_before()).whole_seconds().max(0);
    let early = life / 20 * i64::try_from(hash % 1000).unwrap_or(0) / 1000;
    certificate
        .not_before()
        .checked_add(Duration::seconds(life / 3 * 2 - early))
        .unwrap_or(certificate.not_after())
}

/// Whether [`renewal_at`] has come.
pub fn renewal_due(certificate: &Certificate, container: &str, now: OffsetDateTime) -> bool {
    now >= renewal_at(certificate, container)
}
