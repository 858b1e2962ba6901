//! A CA that a user brings: `coolify-ca.crt` with `coolify-ca.key` beside it.

use time::OffsetDateTime;

use super::{Line, Notice};
use crate::{
    host::files,
    model::{Roots, Secret},
    pki::{self, Ca, CaProblem, Certificate, Trial},
};

/// What an upload, the key beside it and a signed CA are told by: changes if any byte of them does.
pub(super) fn digest(roots: &Roots, upload: &[u8], signed: &[u8]) -> String {
    let key = files::read(&roots.custom_key()).ok().flatten();
    let key = key.as_ref().map_or(&[][..], |found| found.content.expose());
    pki::digest_hex(&[upload, key, signed])
}

/// When something of an upload, or of a signed CA, becomes valid that is not yet: whoever made it may have a clock that
/// is ahead of ours.
pub(super) fn valid_later(upload: &[u8], signed: &[u8], now: OffsetDateTime) -> Option<OffsetDateTime> {
    let all = [upload, signed].into_iter().flat_map(pki::certificates_within);
    all.map(|one| one.not_before()).filter(|begin| *begin > now).min()
}

/// The CA that a user offers: a certificate in `coolify-ca.crt` whose key is `coolify-ca.key`.
pub(super) fn with_key(
    roots: &Roots,
    bytes: &[u8],
    now: OffsetDateTime,
    notices: &mut Vec<Notice>,
) -> Option<Line> {
    // A file with anything but certificates in it is added to, but not taken over.
    let certificates = pki::read_pem(bytes).ok()?;
    let path = roots.custom_key();
    let mut refuse = |why: String| {
        notices.push(Notice::KeyRefused { key: path.clone(), why });
        None
    };
    let key = match files::read(&path) {
        Ok(None) => return None,
        Ok(Some(key)) => key.content,
        Err(why) => return refuse(format!("{why}: {}", why.source)),
    };
    let line = match checked(&certificates, &key, now) {
        Ok(line) => line,
        Err(why) => return refuse(why),
    };
    match files::tighten(&path, 0o600) {
        Ok(true) => notices.push(Notice::KeyTightened { path }),
        Ok(false) => {}
        Err(why) => return refuse(format!("{why}: {}", why.source)),
    }
    Some(line)
}

/// Whether these certificates and this key are a CA that can be taken over; else why not.
pub(super) fn check(certificates: &[Certificate], key: &Secret, now: OffsetDateTime) -> Result<(), String> {
    checked(certificates, key, now).map(|_| ())
}

/// The CA that this key belongs to, with all that stands above it, tried out.
pub(super) fn checked(
    certificates: &[Certificate],
    key: &Secret,
    now: OffsetDateTime,
) -> Result<Line, String> {
    let line = line_of(certificates, key, now)?;
    Trial::of(&line.ca, now).verifies(&[], line.certificates.last().as_slice())?;
    Ok(line)
}

/// The certificate that the key belongs to, and those above it.
fn line_of(certificates: &[Certificate], key: &Secret, now: OffsetDateTime) -> Result<Line, String> {
    let said = |problem: CaProblem| match &problem {
        CaProblem::Flaw(flaw) => format!("{problem}: {flaw}"),
        CaProblem::Key(why) => format!("{problem}: {why}"),
        CaProblem::KeyOfAnother { .. } => problem.to_string(),
    };
    let mut first = None;
    // A CA may be in the file twice, as a root and cross-signed by another: the root serves more clients.
    let (selfmade, below): (Vec<_>, Vec<_>) = certificates.iter().partition(|one| one.self_signed());
    for certificate in selfmade.into_iter().chain(below) {
        match Ca::load(certificate, key, now) {
            Ok(ca) => {
                let mut line = vec![certificate.clone()];
                while let Some(last) = line.last().filter(|last| !last.self_signed()) {
                    let above = certificates
                        .iter()
                        .find(|above| last.issuer_raw() == above.subject_raw() && last.signed_by(above))
                        .filter(|above| !line.contains(above));
                    match above {
                        Some(above) => line.push(above.clone()),
                        None => {
                            return Err(format!(
                                "its certificate is an intermediate, and its issuer {} is not in the file; needed: all certificates up to the root",
                                last.issuer()
                            ));
                        }
                    }
                }
                return Ok(Line::new(ca, line));
            }
            // What is wrong with the right certificate tells more than that the others are not the right one.
            Err(problem @ CaProblem::KeyOfAnother { .. }) => _ = first.get_or_insert(problem),
            Err(problem) => return Err(said(problem)),
        }
    }
    Err(first.map(said).unwrap_or_default())
}
