//! The few pieces of DER (X.690) that have to be taken apart and put together by hand, and PEM (RFC 7468).

use rustls::{
    SupportedCipherSuite, crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, crypto::hash::Hash,
};
use zeroize::Zeroizing;

/// One element: tag, length and content as they stand in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// With tag and length.
    pub(super) whole: &'a [u8],
    pub(super) content: &'a [u8],
}

/// The first element of `input` and what follows it; `None` if `input` does not begin with a whole element
/// of definite length with a one-byte tag, which is all that X.509 uses.
pub(super) fn element(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = &input[..input.len() - rest.len()];
    Some((Element { tag, whole, content }, rest))
}

/// The first `N` elements of `input` and what follows them.
pub(super) fn elements<const N: usize>(mut input: &[u8]) -> Option<([Element<'_>; N], &[u8])> {
    let mut found = [Element { tag: 0, whole: &[], content: &[] }; N];
    for slot in &mut found {
        let (next, rest) = element(input)?;
        *slot = next;
        input = rest;
    }
    Some((found, input))
}

pub(super) const INTEGER_0: &[u8] = &[0x02, 0x01, 0x00];
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;

/// `parts` one after the other as the content of an element. Wiped when dropped, as it may hold a key.
pub(super) fn wrap(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(length + 10));
    out.push(tag);
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(0));
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
        out.extend_from_slice(bytes);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// `der` as one PEM block with `\n` line ends.
pub(super) fn to_pem(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Never grows, so that no copy of a key is left behind in freed memory.
    let mut out = Zeroizing::new(Vec::with_capacity(der.len() * 2 + label.len() * 2 + 64));
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for digit in 0..4 {
                let index = (bits >> (18 - 6 * digit)) & 0x3f;
                out.push(if digit > group.len() { b'=' } else { ALPHABET[index as usize] });
            }
        }
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    out
}

/// rustls keeps its digests behind its cipher suites; taken from there, SHA-256 needs no further package.
static SHA256: &dyn Hash = match &TLS13_AES_128_GCM_SHA256 {
    SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
    // Evaluated by the compiler: it would be a build error.
    SupportedCipherSuite::Tls12(_) => panic!("a TLS 1.3 suite is a TLS 1.3 suite"),
};

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(SHA256.hash(bytes).as_ref());
    digest
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_is_wrapped_comes_apart_again() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let wrapped = wrap(OCTET_STRING, &[&content]);
            let (found, rest) = element(&wrapped).unwrap();
            assert_eq!((found.tag, found.content, rest.len()), (OCTET_STRING, content.as_slice(), 0));
            assert_eq!(element(&wrapped[..wrapped.len() - 1]), None);
        }
        for broken in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x1f, 1, 1],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert_eq!(element(broken), None);
        }
    }

    #[test]
    fn pem_pads_and_breaks_lines() {
        let pem = |der: &[u8]| String::from_utf8(to_pem("X", der).to_vec()).unwrap();
        assert_eq!(pem(b"Man"), "-----BEGIN X-----\nTWFu\n-----END X-----\n");
        assert_eq!(pem(b"Ma"), "-----BEGIN X-----\nTWE=\n-----END X-----\n");
        assert_eq!(pem(b"M"), "-----BEGIN X-----\nTQ==\n-----END X-----\n");
        assert_eq!(pem(&[0; 49]).lines().map(str::len).collect::<Vec<_>>(), [17, 64, 4, 15]);
    }
}
