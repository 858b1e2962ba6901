//! What somebody should know about the CAs in force and about what else is in `coolify-ca.crt`.

use std::{fmt, path::PathBuf};

use time::OffsetDateTime;

use crate::{
    model::Roots,
    pki::{self, CaFlaw, CaWarning, Certificate, ReadProblem},
};

/// Something about the CAs that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Generated { subject: String },
    Imported { subject: String, former: Option<String> },
    BundleCompleted { path: PathBuf },
    KeyTightened { path: PathBuf },
    TrustOnly { path: PathBuf, key: PathBuf, subject: String, issuing: String },
    NotARoot { path: PathBuf, subject: String },
    Unusable { path: PathBuf, subject: String, flaw: CaFlaw },
    Troubles { subject: String, warning: CaWarning },
    Refused { path: PathBuf, problem: ReadProblem },
    KeyRefused { key: PathBuf, why: String },
}

impl Notice {
    /// Whether a human has to act, or may want to: a matter for WARN.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Generated { .. } | Self::Imported { .. } | Self::BundleCompleted { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated { subject } => write!(f, "CA generated: {subject}"),
            Self::Imported { subject, former: None } => write!(f, "custom CA in force: {subject}"),
            Self::Imported { subject, former: Some(former) } => {
                write!(f, "custom CA in force: {subject}; {former} stays trusted")
            }
            Self::BundleCompleted { path } => {
                write!(f, "{} was gone or cut off; completed from the CA store", path.display())
            }
            Self::KeyTightened { path } => write!(
                f,
                "{} could be read by others than its owner; its mode is 0600 now, but consider the key known to them",
                path.display()
            ),
            Self::TrustOnly { path, key, subject, issuing } => write!(
                f,
                "{} holds the CA {subject} without its key, so it cannot issue: certificates are issued by {issuing}, which was added behind it; to issue under your CA put its key at {}",
                path.display(),
                key.display()
            ),
            Self::NotARoot { path, subject } => write!(
                f,
                "{} holds the intermediate {subject} without its root, and most clients trust only roots; put the root's certificate into the file too",
                path.display()
            ),
            Self::Unusable { path, subject, flaw } => {
                write!(f, "{} holds {subject}, which is of no use as a CA: {flaw}", path.display())
            }
            Self::Troubles { subject, warning } => {
                write!(f, "the CA {subject} fails with some clients: {warning}")
            }
            Self::Refused { path, problem } => {
                write!(
                    f,
                    "{} is not taken over: {problem}; our CA was added behind its content",
                    path.display()
                )
            }
            Self::KeyRefused { key, why } => write!(f, "{} is not taken over: {why}", key.display()),
        }
    }
}

/// Say what is in the bundle that is not ours, and what is to be done about it.
pub(super) fn judge(
    roots: &Roots,
    held: &[u8],
    known: &[Certificate],
    issuing: &Certificate,
    now: OffsetDateTime,
    notices: &mut Vec<Notice>,
) {
    let path = roots.bundle();
    if let Err(problem) = pki::read_pem(held) {
        notices.push(Notice::Refused { path: path.clone(), problem });
    }
    let certificates = pki::certificates_within(held);
    for certificate in &certificates {
        let subject = certificate.subject().to_owned();
        let verdict = pki::check_ca(certificate, now);
        if let Ok(warnings) = &verdict
            && (!known.contains(certificate) || certificate == issuing)
        {
            notices.extend(
                warnings
                    .iter()
                    .cloned()
                    .map(|warning| Notice::Troubles { subject: subject.clone(), warning }),
            );
        }
        if known.contains(certificate) {
            continue;
        }
        notices.push(match verdict {
            Err(flaw) => Notice::Unusable { path: path.clone(), subject, flaw },
            Ok(_) if certificate.self_signed() => Notice::TrustOnly {
                path: path.clone(),
                key: roots.custom_key(),
                subject,
                issuing: issuing.subject().to_owned(),
            },
            Ok(_) if certificates.iter().any(|above| above.subject_raw() == certificate.issuer_raw()) => {
                continue;
            }
            Ok(_) => Notice::NotARoot { path: path.clone(), subject },
        });
    }
}
