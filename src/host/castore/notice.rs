//! What somebody should know about the CAs in force and about what else is in `coolify-ca.crt`.

use std::{fmt, path::PathBuf};

use time::OffsetDateTime;

use super::signing;
use crate::{
    model::Roots,
    pki::{self, CaFlaw, CaWarning, Certificate, ReadProblem},
};

/// Something about the CAs that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Generated {
        subject: String,
        former: Option<String>,
    },
    Imported {
        subject: String,
        former: Option<String>,
    },
    /// A CA that we had before.
    Returned {
        subject: String,
        former: Option<String>,
    },
    Retired {
        subject: String,
    },
    /// Clients that know only the former CA cannot be served.
    NoBridge {
        former: String,
        issuing: String,
        why: String,
    },
    EndsSoon {
        subject: String,
        end: OffsetDateTime,
        /// Whole ones that are left.
        days: i64,
        /// What to run where the key of the CA above it is.
        command: Option<String>,
    },
    BundleCompleted {
        path: PathBuf,
    },
    KeyTightened {
        path: PathBuf,
    },
    TrustOnly {
        path: PathBuf,
        key: PathBuf,
        subject: String,
        issuing: String,
        /// What to run where its key is.
        command: String,
    },
    SignedRefused {
        path: PathBuf,
        why: String,
    },
    NotARoot {
        path: PathBuf,
        subject: String,
    },
    Unusable {
        path: PathBuf,
        subject: String,
        flaw: CaFlaw,
    },
    Troubles {
        subject: String,
        warning: CaWarning,
    },
    Refused {
        path: PathBuf,
        problem: ReadProblem,
    },
    KeyRefused {
        key: PathBuf,
        why: String,
    },
}

impl Notice {
    /// Whether somebody who has the key of a CA is to sign one for us.
    pub(super) fn asks_for_a_signature(&self) -> bool {
        matches!(self, Self::TrustOnly { .. } | Self::EndsSoon { command: Some(_), .. })
    }

    /// Whether a human has to act, or may want to: a matter for WARN.
    pub fn is_warning(&self) -> bool {
        !matches!(
            self,
            Self::Generated { .. }
                | Self::Imported { .. }
                | Self::Returned { .. }
                | Self::Retired { .. }
                | Self::BundleCompleted { .. }
        )
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated { subject, former } => stays(f, "CA generated", subject, former.as_ref()),
            Self::Imported { subject, former } => stays(f, "custom CA in force", subject, former.as_ref()),
            Self::Returned { subject, former } => stays(f, "CA in force again", subject, former.as_ref()),
            Self::Retired { subject } => {
                write!(f, "the overlap is over: {subject} is not in the bundle any more")
            }
            Self::NoBridge { former, issuing, why } => write!(
                f,
                "clients that know only {former} cannot verify what {issuing} issues, since it cannot be vouched for ({why}); give them the new coolify-ca.crt"
            ),
            Self::EndsSoon { subject, end, days, command } => {
                write!(
                    f,
                    "the custom CA {subject} ends on {}, in {days} days, and only its owner can renew it: put its successor into coolify-ca.crt, with its key",
                    end.date()
                )?;
                command.iter().try_for_each(|command| {
                    write!(
                        f,
                        ", or have another CA signed; run where the key of the CA above it is: {command}"
                    )
                })
            }
            Self::BundleCompleted { path } => {
                write!(f, "{} was gone or cut off; completed from the CA store", path.display())
            }
            Self::KeyTightened { path } => write!(
                f,
                "{} could be read by others than its owner; its mode is 0600 now, but consider the key known to them",
                path.display()
            ),
            Self::TrustOnly { path, key, subject, issuing, command } => write!(
                f,
                "{} holds the CA {subject} without its key, so it cannot issue: certificates are issued by {issuing}, which was added behind it; to issue under your CA put its key at {}, or keep the key where it is and run there: {command}",
                path.display(),
                key.display()
            ),
            Self::SignedRefused { path, why } => {
                write!(f, "{} is not put into service: {why}", path.display())
            }
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

fn stays(f: &mut fmt::Formatter<'_>, what: &str, subject: &str, former: Option<&String>) -> fmt::Result {
    match former {
        Some(former) => write!(f, "{what}: {subject}; {former} stays trusted"),
        None => write!(f, "{what}: {subject}"),
    }
}

/// Say what is in the bundle that is not ours, and what is to be done about it. `front`: what a user put there.
pub(super) fn judge(
    roots: &Roots,
    front: &[u8],
    held: &[u8],
    known: &[Certificate],
    issuing: &Certificate,
    now: OffsetDateTime,
    notices: &mut Vec<Notice>,
) {
    let path = roots.bundle();
    if let Some(problem) = pki::read_pem(front).err().filter(|_| !front.is_empty()) {
        // What else is in it is of no interest before that is mended.
        return notices.push(Notice::Refused { path, problem });
    }
    let (certificates, uploaded) = (pki::certificates_within(held), pki::certificates_within(front));
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
            // It is there only for what it signed and is still served.
            Ok(_) if !uploaded.contains(certificate) => continue,
            Ok(_) if certificate.self_signed() => Notice::TrustOnly {
                path: path.clone(),
                key: roots.custom_key(),
                subject,
                issuing: issuing.subject().to_owned(),
                command: signing::command(roots),
            },
            Ok(_) if certificates.iter().any(|above| above.subject_raw() == certificate.issuer_raw()) => {
                continue;
            }
            Ok(_) => Notice::NotARoot { path: path.clone(), subject },
        });
    }
}
