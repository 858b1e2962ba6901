//! Certificates and certificate authorities as values: read, issue, check.
//!
//! This layer is pure. `now` is an argument; no clock, file, socket or environment is touched, and
//! randomness (keys, serial numbers) is its only input from outside. Nothing outside of this folder names
//! rcgen.
//!
//! # Guarantees
//!
//! - A [`Certificate`] exists only if its DER was parsed to the last byte and every extension that we act
//!   upon was understood.
//! - A [`Ca`] exists only if its key belongs to its certificate and the certificate may sign now.
//! - A [`Leaf`] has been through the same signature check as a served chain before it is returned. Its issuer
//!   name equals its CA's subject byte for byte, its authority key identifier the CA's subject key
//!   identifier, and it does not outlive any certificate above it.
//! - [`check_chain`] is at least as strict as the strictest client known to us (OpenSSL's `-x509_strict`,
//!   which Python 3.13 turns on by default).
//! - A private key is shown by nothing here but [`crate::model::Secret::expose`]: no `Debug`, no error text.
//!
//! # Where to start
//!
//! [`read_pem`] for what a user dropped, [`Ca`] for issuing, [`check_chain`] for what a server presented.

mod certificate;
mod check;
mod client;
mod der;
mod issue;
mod key;
mod memory;
mod name;
mod read;
mod request;
#[cfg(test)]
pub(crate) mod tests;
mod trial;

pub use certificate::{Certificate, CertificateError, KeyKind};
pub use check::{
    CaFlaw, CaWarning, ChainProblem, check_ca, check_chain, leads_to, not_covered, renewal_at, renewal_due,
};
pub use client::ClientRequest;
pub use issue::{BadCaId, Ca, CaId, CaProblem, Leaf, LeafRequest, PkiError};
pub use key::{KeyProblem, key_matches, key_within};

pub use crate::model::KeyType;
pub use request::{leaf_extensions, new_key, request_leaf, request_sub_ca};
pub use trial::Trial;

pub use read::{ReadProblem, certificates_within, extendable, holds_private_key, read_pem};

/// SHA-256 of all parts, each with its length in front, in hexadecimal digits.
pub fn digest_hex(parts: &[&[u8]]) -> String {
    let lengths: Vec<_> = parts.iter().map(|part| part.len().to_be_bytes()).collect();
    let bytes: Vec<&[u8]> =
        lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], part]).collect();
    der::hex(&der::sha256(&zeroize::Zeroizing::new(bytes.concat())))
}

/// `now` for tests: a date within every certificate that they make.
#[cfg(test)]
pub(crate) fn test_now() -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
}
