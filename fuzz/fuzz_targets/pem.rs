//! What somebody puts into `coolify-ca.crt`.
//!
//! Bytes changed at random end in the base64 or in the first length of the DER. So half of the time one certificate is
//! taken out, an element of its DER is changed, and the lengths around it and the base64 are made right again.
#![no_main]

#[path = "pem/der.rs"]
mod der;

use std::sync::LazyLock;

use dbssl::{
    model::{San, Sans},
    pki::{Certificate, ReadProblem, certificates_within, check_ca, check_chain, extendable, read_pem},
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----\n";

/// One that is added to files.
static OTHER: LazyLock<Certificate> =
    LazyLock::new(|| read_pem(include_bytes!("../seeds/pem/p256")).expect("it is a certificate").remove(0));

/// Within the life of all certificates in the seeds.
const NOW: i64 = 1_800_000_000;

fuzz_target!(|file: &[u8]| {
    match read_pem(file) {
        Ok(certificates) => {
            assert!(!certificates.is_empty());
            certificates.iter().for_each(accepted);
            assert_eq!(certificates_within(file), certificates);
            // Parsing everything once more is dear: for one in sixteen.
            if certificates[0].fingerprint()[0].is_multiple_of(16) {
                let written: String = certificates.iter().map(Certificate::to_pem).collect();
                assert_eq!(read_pem(written.as_bytes()).as_ref(), Ok(&certificates));
                assert_eq!(extendable(file).as_ref(), Ok(&certificates));
                chain(&certificates);
            }
        }
        Err(problem) => {
            let line = problem.to_string();
            assert!(line.len() < 512, "{} bytes", line.len());
            assert!(!line.contains(char::is_control), "{line:?}");
            if let ReadProblem::Certificate(_, why) = problem {
                let line = why.to_string();
                assert!(line.len() < 2048 && !line.contains(char::is_control), "{line:?}");
            }
            // What may be added to is read to its end by those who read it.
            if let Ok(held) = extendable(file) {
                let more = [file, b"\n", OTHER.to_pem().as_bytes()].concat();
                assert_eq!(certificates_within(&more), [held, vec![OTHER.clone()]].concat());
            }
        }
    }
});

fn accepted(certificate: &Certificate) {
    let names = [certificate.subject_oneline(), certificate.issuer_oneline(), certificate.subject_rfc2253()];
    let shown = [certificate.subject(), certificate.issuer()];
    for text in names.iter().flatten().map(String::as_str).chain(shown) {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    assert_eq!(certificate.is_ca() || certificate.path_len().is_none(), true);
    if check_ca(certificate, OffsetDateTime::from_unix_timestamp(NOW).expect("a date")).is_ok() {
        let der = CertificateDer::from(certificate.der());
        RootCertStore::empty().add(der).expect("what is accepted as a CA is an anchor for rustls");
    }
}

/// The verdict on a chain has a reason that can be shown.
fn chain(served: &[Certificate]) {
    let names = Sans::from([San::Dns("db".to_owned())]);
    let now = OffsetDateTime::from_unix_timestamp(NOW).expect("a date");
    if let Err(problem) = check_chain(served, served, &names, now) {
        let line = problem.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(2) {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    match structured(&data[..size], seed / 2) {
        Some(changed) if changed.len() <= max_size => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
});

/// The file with one element of one certificate changed.
fn structured(file: &[u8], seed: u32) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file).ok()?;
    let begins: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let begin = *begins.get(seed as usize % begins.len().max(1))?;
    let body = &text[begin + BEGIN.len()..];
    let (base64, behind) = body.split_once(END)?;
    let changed = der::mutate(&der::from_base64(base64)?, seed)?;
    Some([&text[..begin], BEGIN, &der::to_base64(&changed), END, behind].concat().into_bytes())
}
