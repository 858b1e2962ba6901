//! A database's own certificate that somebody else signs: what comes back, judged, and for how long it may be served.
//!
//! The root that signed it is one that a user put into `coolify-ca.crt` without its key. Nothing here is remembered:
//! a certificate in the directory that such a root vouches for, and that no CA of ours issued, is an external one.

use std::fmt;

use time::{Duration, OffsetDateTime};

use super::plan::minute;
use crate::{
    model::{Sans, Secret},
    pki::{
        Certificate, certificates_within, check_chain, key_matches, key_within, leads_to, not_covered,
        read_pem, renewal_at,
    },
};

/// How long before its end an external certificate gives way to one of ours; at most a tenth of its life.
const MARGIN: Duration = Duration::days(3);

/// What others' signatures have to do with one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Whether a CA is in force whose key is elsewhere, and none below it of ours.
    pub asked: bool,
    /// What came back signed and is good, leaf first: to be put into the directory.
    pub answer: Option<Vec<Certificate>>,
    /// What lies in the directory, if it is external.
    pub held: Option<Held>,
    /// Why what came back is of no use, or why nothing can be asked for.
    pub refused: Option<String>,
    /// Whether what lies beside an external certificate is of a former CA of ours.
    pub stale: bool,
}

/// An external certificate that lies in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub signer: String,
    /// When another is asked for.
    pub renew_at: OffsetDateTime,
    /// When it gives way to one of ours.
    pub falls_back_at: OffsetDateTime,
    /// Why it may not go on being served.
    pub problem: Option<String>,
}

/// How far it is with the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is served, and nothing is awaited.
    Signed,
    /// It is served, and its successor is awaited.
    Renewal,
    /// One of ours is served until it comes.
    Awaited,
    /// What came back is of no use.
    Refused,
}

impl External {
    /// Whether a request has to lie there.
    pub fn is_wanted(&self, now: OffsetDateTime) -> bool {
        self.asked && self.held.as_ref().is_none_or(|held| held.problem.is_some() || now >= held.renew_at)
    }

    /// `None` where nobody else has anything to do with the database's certificate.
    pub fn standing(&self, now: OffsetDateTime) -> Option<Standing> {
        match &self.held {
            _ if self.refused.is_some() => Some(Standing::Refused),
            Some(held) if held.problem.is_none() && self.is_wanted(now) => Some(Standing::Renewal),
            Some(held) if held.problem.is_none() => Some(Standing::Signed),
            _ => self.asked.then_some(Standing::Awaited),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signed => "signed",
            Self::Renewal => "renewal awaited",
            Self::Awaited => "awaited",
            Self::Refused => "refused",
        })
    }
}

/// Of a chain that one of `roots` vouches for.
pub fn held(
    chain: &[Certificate],
    roots: &[Certificate],
    names: &Sans,
    container: &str,
    now: OffsetDateTime,
) -> Option<Held> {
    let leaf = chain.first()?;
    let (renew_at, falls_back_at) = deadlines(chain, roots, container)?;
    let signer = chain.last().map_or_else(String::new, |last| last.issuer().to_owned());
    let problem = if now >= falls_back_at {
        Some(format!("it ends on {}, and no other has come", minute(leaf.not_after())))
    } else {
        unnamed(leaf, names)
            .or_else(|| check_chain(chain, roots, names, now).err().map(|why| why.to_string()))
    };
    Some(Held { signer, renew_at, falls_back_at, problem })
}

/// What came back signed as it is to be served, leaf first and without the root, or the reason why it is of no use.
/// `bundle`: all that is in `coolify-ca.crt`, where intermediates are looked for, too.
pub fn judge(
    pem: &[u8],
    key: &Secret,
    roots: &[Certificate],
    bundle: &[Certificate],
    names: &Sans,
    container: &str,
    now: OffsetDateTime,
) -> Result<Vec<Certificate>, String> {
    let found = read_pem(pem).map_err(|why| why.to_string())?;
    let of_the_key = |one: &&Certificate| key_matches(one, key.expose()) == Ok(true);
    let Some(leaf) = found.iter().find(of_the_key) else {
        return Err(format!(
            "it belongs to another key than the request that lies there now: its certificate is {}; sign that request, as it is",
            found
                .first()
                .map_or_else(|| "missing".to_owned(), |one| format!("{} by {}", one.subject(), one.issuer()))
        ));
    };
    let chain = line(leaf, &found, roots, bundle)?;
    if let Some(why) = unnamed(leaf, names) {
        return Err(format!("{why}; needed: every name in the request's .ext file"));
    }
    check_chain(&chain, roots, names, now).map_err(|why| {
        format!("clients would refuse it: {why}; needed: the extensions in the request's .ext file")
    })?;
    match deadlines(&chain, roots, container) {
        Some((_, falls_back_at)) if now < falls_back_at => Ok(chain),
        _ => Err(format!("it ends on {} already; needed: a longer life", minute(leaf.not_after()))),
    }
}

/// What of a directory's files can go on being served, with its key, whatever else is wrong with the directory: that
/// key is nowhere else, and nobody here can sign another. `roots` and `bundle` as for [`judge`].
pub fn kept(
    files: &[Secret],
    roots: &[Certificate],
    bundle: &[Certificate],
    names: &Sans,
    container: &str,
    now: OffsetDateTime,
) -> Option<(Vec<Certificate>, Secret)> {
    // Of all files: what one of them has lost of the chain, another may have.
    let certificates: String = files
        .iter()
        .flat_map(|file| certificates_within(file.expose()))
        .map(|certificate| certificate.to_pem())
        .collect();
    files.iter().filter_map(|file| key_within(file.expose())).find_map(|key| {
        let chain = judge(certificates.as_bytes(), &key, roots, bundle, names, container, now).ok()?;
        Some((chain, key))
    })
}

/// From the leaf up to what a root has signed.
fn line(
    leaf: &Certificate,
    found: &[Certificate],
    roots: &[Certificate],
    bundle: &[Certificate],
) -> Result<Vec<Certificate>, String> {
    let mut line = vec![leaf.clone()];
    while let Some(last) = line.last() {
        if leads_to(std::slice::from_ref(last), roots) {
            return Ok(line);
        }
        let stranger = |root: &Certificate| {
            format!(
                "its root {} is not one that was put into coolify-ca.crt; allowed: {}",
                root.subject(),
                subjects(roots)
            )
        };
        if last.self_signed() {
            return Err(stranger(last));
        }
        let mut above = found.iter().chain(bundle).filter(|above| !line.contains(above));
        match above.find(|above| last.issuer_raw() == above.subject_raw() && last.signed_by(above)) {
            Some(root) if root.self_signed() => return Err(stranger(root)),
            Some(above) => line.push(above.clone()),
            None => {
                return Err(format!(
                    "the issuer {} of {} is neither in it nor in coolify-ca.crt; needed: all certificates up to a root in coolify-ca.crt ({})",
                    last.issuer(),
                    last.subject(),
                    subjects(roots)
                ));
            }
        }
    }
    Err("it is empty".to_owned())
}

fn subjects(roots: &[Certificate]) -> String {
    roots.iter().map(Certificate::subject).collect::<Vec<_>>().join("; ")
}

/// The names that a leaf lacks, as a reason.
fn unnamed(leaf: &Certificate, names: &Sans) -> Option<String> {
    let lacking: Vec<_> = not_covered(leaf, names).iter().map(ToString::to_string).collect();
    (!lacking.is_empty()).then(|| format!("it does not name {}", lacking.join(", ")))
}

/// When another is asked for, and when ours takes over: by the first end of all that a client verifies.
fn deadlines(
    chain: &[Certificate],
    roots: &[Certificate],
    container: &str,
) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let leaf = chain.first()?;
    let above = roots.iter().filter(|root| leads_to(chain, std::slice::from_ref(*root)));
    let roots_end = above.map(Certificate::not_after).max()?;
    let end = chain.iter().map(Certificate::not_after).chain([roots_end]).min()?;
    let life = end - leaf.not_before();
    let renew_at = renewal_at(leaf, container).min(end - life / 3);
    Some((renew_at, end - MARGIN.min(life / 10)))
}

#[cfg(test)]
mod tests;
