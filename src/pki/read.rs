//! Reading what a user dropped: certificates out of a file that may hold anything.
//!
//! Parsers of PEM are lenient by habit: for a file with a byte order mark, for DER, for PKCS#7 and for
//! `TRUSTED CERTIFICATE` rustls-pki-types gives no certificates *and no error*. So the blocks are found
//! here, every one of them has to be accounted for, and at least one has to be a certificate.

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{Certificate, CertificateError, der, memory};

/// Why a file is not a list of PEM certificates. Each text says what was found and what is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadProblem {
    #[error("the file is empty; needed: one or more PEM certificates")]
    Empty,
    #[error(
        "the file is cut off within a {0} block; write it again, whole (best: to another name, then rename it)"
    )]
    HalfWritten(String),
    #[error("the file has an end line without its begin line before it; it is damaged or was joined wrongly")]
    Unbalanced,
    #[error("two PEM blocks run into each other on one line; put a line break between them")]
    Glued,
    #[error(
        "the file is one certificate in DER; needed: PEM; convert it with: openssl x509 -inform DER -in FILE -out NEW_FILE"
    )]
    Der,
    #[error(
        "the file is PKCS#12 (.p12, .pfx); needed: PEM; convert it with: openssl pkcs12 -in FILE -nokeys -cacerts -out NEW_FILE"
    )]
    Pkcs12,
    #[error(
        "the file is PKCS#7 in DER; needed: PEM certificates; convert it with: openssl pkcs7 -inform DER -in FILE -print_certs -out NEW_FILE"
    )]
    Pkcs7Der,
    #[error(
        "the file is PKCS#7; needed: PEM certificates; convert it with: openssl pkcs7 -in FILE -print_certs -out NEW_FILE"
    )]
    Pkcs7Pem,
    #[error("the file is UTF-16 text; needed: PEM in ASCII or UTF-8; save it with another encoding")]
    Utf16,
    #[error("the file is binary and of an unknown kind; needed: one or more PEM certificates")]
    Binary,
    #[error("the file has no BEGIN CERTIFICATE line; needed: one or more PEM certificates")]
    NoCertificate,
    #[error(
        "the file holds a TRUSTED CERTIFICATE, which only OpenSSL reads; convert it with: openssl x509 -in FILE -out NEW_FILE"
    )]
    Trusted,
    #[error(
        "the file holds a private key, and this file is copied to applications; remove the {0} block and consider that key known to others"
    )]
    PrivateKey(String),
    #[error("the file holds a certificate request; needed: the certificate that a CA made of it")]
    Request,
    #[error("the file holds a {0} block; needed: nothing but CERTIFICATE blocks")]
    OtherBlock(String),
    #[error("the base64 of certificate number {0} is damaged")]
    Base64(usize),
    #[error("certificate number {0} is unreadable")]
    Certificate(usize, #[source] CertificateError),
}

/// All certificates of a PEM file in their order, or the reason why the file as a whole is refused.
///
/// Text around the blocks, CRLF line ends and a UTF-8 byte order mark are fine.
pub fn read_pem(bytes: &[u8]) -> Result<Vec<Certificate>, ReadProblem> {
    memory::READ.with(|read| read.try_recall(der::sha256(bytes), || parse_pem(bytes)))
}

fn parse_pem(bytes: &[u8]) -> Result<Vec<Certificate>, ReadProblem> {
    if let Some(problem) = no_text(bytes) {
        return Err(problem);
    }
    let text = without_mark(bytes);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ReadProblem::Empty);
    }
    // A private key is reported before anything else that may be wrong: it is the one that does harm.
    if let Some(label) = private_key_label(text) {
        return Err(ReadProblem::PrivateKey(label));
    }
    let blocks = blocks(text)?;
    if blocks.is_empty() {
        return Err(ReadProblem::NoCertificate);
    }
    blocks.iter().enumerate().map(|(index, block)| block.certificate(index + 1)).collect()
}

/// Every certificate that can be read in `bytes`, whatever else they hold: for finding out what a file
/// already has, never for deciding what to trust.
pub fn certificates_within(bytes: &[u8]) -> Vec<Certificate> {
    let find = || {
        let (blocks, _) = scan(without_mark(bytes));
        blocks.iter().filter_map(|block| block.certificate(0).ok()).collect()
    };
    memory::WITHIN.with(|within| within.recall(der::sha256(bytes), find))
}

/// The certificates of a file to whose end another may be added so that readers of PEM find it: it is text, its
/// blocks are whole, and no certificate is damaged. Blocks of other kinds are passed over, as readers do.
pub fn extendable(bytes: &[u8]) -> Result<Vec<Certificate>, ReadProblem> {
    if let Some(problem) = no_text(bytes) {
        return Err(problem);
    }
    let blocks = blocks(bytes)?;
    let certificates = blocks.iter().enumerate().filter(|(_, block)| block.label == "CERTIFICATE");
    certificates.map(|(index, block)| block.certificate(index + 1)).collect()
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes)
}

/// Why there can be no PEM in it.
fn no_text(bytes: &[u8]) -> Option<ReadProblem> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Some(ReadProblem::Utf16);
    }
    binary(without_mark(bytes))
}

/// What it is if it is DER, or else no text at all.
fn binary(bytes: &[u8]) -> Option<ReadProblem> {
    const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    // A sequence begins with '0', which text may do as well; a length of two bytes follows in any of these.
    if bytes.starts_with(&[0x30, 0x82])
        || bytes.starts_with(&[0x30, 0x81])
        || bytes.starts_with(&[0x30, 0x80])
    {
        let content = bytes.get(2 + usize::from(bytes[1] & 0x7f)..).unwrap_or(&[]);
        return Some(if content.starts_with(&[0x02, 0x01, 0x03]) {
            ReadProblem::Pkcs12
        } else if content.starts_with(SIGNED_DATA) {
            ReadProblem::Pkcs7Der
        } else if Certificate::from_der(bytes.to_vec()).is_ok() {
            ReadProblem::Der
        } else {
            ReadProblem::Binary
        });
    }
    bytes.contains(&0).then_some(ReadProblem::Binary)
}

/// Whether a block of a private key begins anywhere in it, whole or not, whatever else is there: such a file is for no
/// eyes but its owner's.
pub fn holds_private_key(bytes: &[u8]) -> bool {
    private_key_label(bytes).is_some()
}

fn private_key_label(text: &[u8]) -> Option<String> {
    lines(text).find_map(|line| {
        let line = String::from_utf8_lossy(line);
        line.split("-----BEGIN ").skip(1).find_map(|after| {
            let label = after.split('-').next().unwrap_or_default().trim();
            label.ends_with("PRIVATE KEY").then(|| shown(label))
        })
    })
}

/// One PEM block: `lines` are between its begin and end lines.
pub(super) struct Block<'a> {
    pub(super) label: String,
    pub(super) lines: Vec<&'a [u8]>,
}

impl Block<'_> {
    /// Written anew without whatever surrounds it; the result may be a secret.
    pub(super) fn to_pem(&self) -> Vec<u8> {
        let length: usize = self.lines.iter().map(|line| line.len() + 1).sum();
        let mut out = Vec::with_capacity(length + 2 * self.label.len() + 64);
        out.extend_from_slice(format!("-----BEGIN {}-----\n", self.label).as_bytes());
        for line in &self.lines {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.extend_from_slice(format!("-----END {}-----\n", self.label).as_bytes());
        out
    }

    fn certificate(&self, number: usize) -> Result<Certificate, ReadProblem> {
        match self.label.as_str() {
            "CERTIFICATE" => {}
            "TRUSTED CERTIFICATE" => return Err(ReadProblem::Trusted),
            "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => return Err(ReadProblem::Pkcs7Pem),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => return Err(ReadProblem::Request),
            other => return Err(ReadProblem::OtherBlock(shown(other))),
        }
        let der = CertificateDer::from_pem_slice(&self.to_pem()).map_err(|_| ReadProblem::Base64(number))?;
        Certificate::from_der(der.to_vec()).map_err(|why| match binary(&der) {
            // A PKCS#7 under the label of a certificate is what some Windows tools write.
            Some(ReadProblem::Pkcs7Der) => ReadProblem::Pkcs7Pem,
            Some(ReadProblem::Pkcs12) => ReadProblem::Pkcs12,
            _ => ReadProblem::Certificate(number, why),
        })
    }
}

/// All blocks of a text, or the reason why they are not whole.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, ReadProblem> {
    let (blocks, problem) = scan(without_mark(text));
    problem.map_or(Ok(blocks), Err)
}

/// The whole blocks of a text and the first thing that is wrong between them.
fn scan(text: &[u8]) -> (Vec<Block<'_>>, Option<ReadProblem>) {
    let mut whole = Vec::new();
    let mut problem = None;
    let mut open: Option<Block<'_>> = None;
    for line in lines(text) {
        let marker = line.starts_with(b"-----");
        let label = |kind: &[u8]| {
            let label = line.strip_prefix(kind)?.strip_suffix(b"-----")?;
            Some(String::from_utf8_lossy(label).into_owned()).filter(|label| !label.contains("-----"))
        };
        if !marker {
            if let Some(block) = &mut open {
                block.lines.push(line);
            }
        } else if let Some(label) = label(b"-----BEGIN ") {
            if let Some(block) = open.replace(Block { label, lines: Vec::new() }) {
                problem.get_or_insert(ReadProblem::HalfWritten(shown(&block.label)));
            }
        } else if let Some(label) = label(b"-----END ") {
            match open.take() {
                Some(block) if block.label == label => whole.push(block),
                Some(block) => _ = problem.get_or_insert(ReadProblem::HalfWritten(shown(&block.label))),
                None => _ = problem.get_or_insert(ReadProblem::Unbalanced),
            }
        } else if line.windows(11).skip(5).any(|part| part == b"-----BEGIN ") {
            // Whatever the first half closes is lost together with what the second half opens.
            open = None;
            problem.get_or_insert(ReadProblem::Glued);
        } else if line.starts_with(b"-----BEGIN") || line.starts_with(b"-----END") || open.is_some() {
            let label = open.take().map_or_else(|| "CERTIFICATE".to_owned(), |block| block.label);
            problem.get_or_insert(ReadProblem::HalfWritten(shown(&label)));
        }
    }
    if let Some(block) = open {
        problem.get_or_insert(ReadProblem::HalfWritten(shown(&block.label)));
    }
    (whole, problem)
}

/// A label is what somebody wrote: in a message it is short, and it is one line.
fn shown(label: &str) -> String {
    label.chars().filter(|char| !char.is_control()).take(40).collect()
}

/// Lines by LF, CRLF or CR, without blanks at their end. Blanks before a marker stay and hide it, as they do
/// from OpenSSL and Go.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'\n' | b'\r'))
        .map(<[u8]>::trim_ascii_end)
        .filter(|line| !line.is_empty())
}
