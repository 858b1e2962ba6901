//! One database's certificate in the hands of somebody else: what came back signed, and what is to be signed.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{observe::Subject, world::World};
use crate::{
    decide::{
        external::{External, Standing, held, judge, kept},
        plan::{Directory, IssueReason, Wiring, minute},
    },
    engine::Holds,
    host::{
        castore::{Authority, CaStore, CaStoreError},
        certdir::CertDir,
        clock,
        csr::Paper,
        files::FileError,
        probe,
    },
    model::{ContainerName, Roots, Sans, Secret},
    pki::{self, Certificate, Leaf, PkiError},
    shown::with_causes,
};

/// Why a request could not be put there, or taken back.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] CaStoreError),
    #[error("make a certificate request")]
    Request(#[from] PkiError),
    #[error("the key of the certificate that was signed for {0} is gone")]
    NoKey(ContainerName),
}

/// Reads what lies there; changes nothing.
pub(super) fn read(roots: &Roots, authority: &Authority, subject: &Subject) -> External {
    let now = clock::now();
    let (name, names) = (subject.inspect.name(), &subject.observed.names);
    let (uploaded, container) = (&authority.uploaded, name.as_str());
    let lies_there = match &subject.observed.directory {
        Directory::Sound(chain) => chain.clone(),
        Directory::Damaged(_) => spared(authority, subject).map_or_else(Vec::new, |(chain, _)| chain),
        Directory::Missing => Vec::new(),
    };
    let mut external = External {
        asked: !uploaded.keyless.is_empty(),
        held: uploaded
            .signed(&lies_there)
            .then(|| held(&lies_there, &uploaded.roots, names, container, now))
            .flatten(),
        ..External::default()
    };
    external.stale = external.held.is_some() && is_stale(subject, authority);
    match Paper::of(roots, name) {
        None if external.asked => {
            external.asked = false;
            external.refused = Some(format!(
                "a database called {container} cannot have a certificate of its own signed elsewhere: csr/{container}.csr is the request for a CA; allowed: any other name"
            ));
        }
        Some(paper) if !uploaded.roots.is_empty() => {
            match answer(&paper, authority, &external, names, container, &lies_there, now) {
                Ok(answer) => external.answer = answer,
                Err(why) => {
                    external.refused =
                        Some(format!("{} is not put into service: {why}", paper.answer.display()));
                }
            }
        }
        _ => {}
    }
    external
}

/// What somebody else signed in a directory that is damaged, with its key, if both are good: the harm is in something
/// else, such as an owner or a mode.
fn spared(authority: &Authority, subject: &Subject) -> Option<(Vec<Certificate>, Secret)> {
    let files = CertDir::open(subject.certificates.clone()).contents();
    let (uploaded, names) = (&authority.uploaded, &subject.observed.names);
    let container = subject.inspect.name().as_str();
    kept(&files, &uploaded.roots, &authority.roots, names, container, clock::now())
        .filter(|(chain, _)| uploaded.signed(chain))
}

/// Whether this is in the certificate directory, in whatever state that is: nobody but us put it there.
pub(super) fn lies_there(subject: &Subject, certificate: &Certificate) -> bool {
    let files = CertDir::open(subject.certificates.clone()).contents();
    files.iter().any(|file| pki::certificates_within(file.expose()).contains(certificate))
}

/// Whether the roots in the directory are without that of the CA in force: what lies there was issued before it came.
fn is_stale(subject: &Subject, authority: &Authority) -> bool {
    let has_roots = subject.spec.files(subject.demand.client_auth).iter().any(|file| file.holds == Holds::Ca);
    let root = authority.roots.first();
    let holds =
        |file: Secret| root.is_some_and(|root| pki::certificates_within(file.expose()).contains(root));
    has_roots && !CertDir::open(subject.certificates.clone()).contents().into_iter().any(holds)
}

/// What came back, if it is news.
fn answer(
    paper: &Paper,
    authority: &Authority,
    external: &External,
    names: &Sans,
    container: &str,
    lies_there: &[Certificate],
    now: OffsetDateTime,
) -> Result<Option<Vec<Certificate>>, String> {
    let unread = |why: FileError| format!("{why}: {}", why.source);
    let Some(found) = paper.answer(now).map_err(unread)? else { return Ok(None) };
    let pem = found.content.expose();
    let is_served = |one: &Certificate| lies_there.first() == Some(one);
    if pki::certificates_within(pem).iter().any(is_served) || paper.is_outdated() {
        return Ok(None);
    }
    let Some(pending) = paper.pending().map_err(unread)? else {
        // A request that is about to be made is none that this could answer.
        return match &external.held {
            Some(held) if external.asked && !external.is_wanted(now) => Err(format!(
                "no request lies there that it could answer; the next one is made on {}",
                held.renew_at.date()
            )),
            _ => Ok(None),
        };
    };
    let (roots, bundle) = (&authority.uploaded.roots, &authority.roots);
    let chain = judge(pem, &pending.key, roots, bundle, names, container, now)?;
    let der = |one: &Certificate| CertificateDer::from(one.der().to_vec());
    let served: Vec<_> = chain.iter().map(der).collect();
    for root in roots.iter().filter(|root| pki::leads_to(&chain, std::slice::from_ref(*root))) {
        probe::accepts(&served, &[der(root)], None, now)
            .map_err(|why| format!("clients would refuse it: {why}"))?;
    }
    Ok(Some(chain))
}

/// Has a request lie there if one is wanted, and none if not. To be repeated at each look.
fn keep(world: &World, subject: &Subject) -> Result<(), PaperError> {
    let Some(paper) = Paper::of(&world.roots, subject.inspect.name()) else { return Ok(()) };
    let (external, now) = (&subject.observed.external, clock::now());
    if let (Some(held), Directory::Sound(chain)) = (&external.held, &subject.observed.directory)
        && held.problem.is_none()
    {
        CaStore::lean_on(&world.roots, chain)?;
    }
    let ours = matches!(subject.observed.wiring, Wiring::Present | Wiring::Missing);
    let pending = paper.pending()?;
    if external.answer.is_some() {
        return Ok(());
    }
    if !ours || !external.is_wanted(now) {
        return pending.map_or(Ok(()), |_| Ok(paper.withdraw()?));
    }
    let (names, key_type) = (&subject.observed.names, world.settings.certificates.key_type);
    let extensions = pki::leaf_extensions(names, key_type);
    let purpose = format!("{key_type} {}", pki::digest_hex(&[extensions.as_bytes()]));
    let pending = pending.filter(|pending| pending.purpose == purpose);
    if pending.as_ref().is_some_and(|pending| pending.is_whole) {
        return Ok(());
    }
    let fresh = if pending.is_none() { Some(pki::new_key(key_type)?) } else { None };
    let Some(key) = fresh.as_ref().or(pending.as_ref().map(|pending| &pending.key)) else { return Ok(()) };
    let request = pki::request_leaf(subject.inspect.name().as_str(), names, key_type, key)?;
    paper.ask(&world.roots, &purpose, fresh.as_ref(), &request, &extensions)?;
    tell(world, external, &paper.command());
    Ok(())
}

fn tell(world: &World, external: &External, command: &str) {
    let ca =
        world.authority().uploaded.keyless.first().map_or_else(String::new, |ca| ca.subject().to_owned());
    if let Some(held) = &external.held {
        warn!(
            ca,
            command,
            "its certificate is external and another is needed: run this where the CA's key is; from {} on it gets one of our CA until that comes",
            minute(held.falls_back_at)
        );
    } else {
        info!(
            ca,
            command,
            "it can have an external certificate: run this where the CA's key is; until that comes it has one of our CA"
        );
    }
}

/// What somebody should know of it, in words; `None` where nobody else has anything to do with it.
pub fn told(world: &World, name: &ContainerName, external: &External) -> Option<(Standing, String)> {
    let standing = external.standing(clock::now())?;
    let command = Paper::of(&world.roots, name).map_or_else(String::new, |paper| paper.command());
    let held = external.held.as_ref();
    let signed = held.map_or_else(String::new, |held| format!("signed by {}", held.signer));
    let text = match standing {
        Standing::Signed => signed,
        Standing::Renewal => format!(
            "{signed}; from {} on one of our CA is served, unless another comes: {command}",
            held.map_or_else(String::new, |held| minute(held.falls_back_at))
        ),
        Standing::Awaited => format!("one of our CA is served until a signed one comes: {command}"),
        Standing::Refused => external.refused.clone().unwrap_or_default(),
    };
    Some((standing, text))
}

/// What is to be put into the directory, if it is somebody else's: what came back, with its key, or what lies there
/// already.
pub(super) fn leaf(
    roots: &Roots,
    authority: &Authority,
    subject: &Subject,
    reason: &IssueReason,
) -> Result<Option<Leaf>, PaperError> {
    let (external, name) = (&subject.observed.external, subject.inspect.name());
    let (chain, key) = match (reason, &external.answer, &subject.observed.directory) {
        (IssueReason::Signed { .. }, Some(answer), _) => {
            let paper = Paper::of(roots, name);
            (
                answer.clone(),
                paper.map(|paper| paper.pending()).transpose()?.flatten().map(|pending| pending.key),
            )
        }
        (IssueReason::Beside, _, Directory::Sound(chain)) => {
            let files = CertDir::open(subject.certificates.clone()).contents();
            (chain.clone(), files.iter().find_map(|file| of_leaf(chain, pki::key_within(file.expose())?)))
        }
        (IssueReason::Damaged(_), ..) => match spared(authority, subject) {
            Some((chain, key)) => {
                info!("its external certificate and its key are whole: they are put there again");
                (chain, Some(key))
            }
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let key = key.and_then(|key| of_leaf(&chain, key)).ok_or_else(|| PaperError::NoKey(name.clone()))?;
    let Some((certificate, above)) = chain.split_first() else { return Ok(None) };
    // Before it is served anywhere.
    CaStore::lean_on(roots, &chain)?;
    Ok(Some(Leaf { certificate: certificate.clone(), key, chain: above.to_vec() }))
}

/// The key, if it is that of this chain's leaf.
fn of_leaf(chain: &[Certificate], key: Secret) -> Option<Secret> {
    (pki::key_matches(chain.first()?, key.expose()) == Ok(true)).then_some(key)
}

/// What was asked for is in the directory.
pub(super) fn answered(world: &World, name: &ContainerName) -> Result<(), PaperError> {
    Paper::of(&world.roots, name).map_or(Ok(()), |paper| Ok(paper.withdraw()?))
}

/// The database is none of ours any more.
pub(super) fn forget(world: &World, name: &ContainerName) {
    if let Some(Err(error)) = Paper::of(&world.roots, name).map(|paper| paper.forget()) {
        warn!(%error, "its request for an external certificate cannot be taken back");
    }
}

/// A trouble with what others sign, said once if it lasts: what is seen while it is being written means nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    seen: Option<(String, Instant)>,
    said: bool,
}

impl Trouble {
    /// How long a trouble has to last.
    const LASTS: Duration = Duration::from_secs(1);

    /// What is seen now; when to look again, if that is soon.
    fn seen(&mut self, trouble: Option<String>, now: Instant) -> Option<Duration> {
        let Some(text) = trouble else {
            *self = Self::default();
            return None;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == text => *since,
            _ => {
                (self.seen, self.said) = (Some((text.clone(), now)), false);
                now
            }
        };
        if self.said {
            return None;
        }
        if now.duration_since(since) < Self::LASTS {
            return Some(Self::LASTS);
        }
        warn!(why = text, "a certificate that is signed elsewhere is amiss");
        self.said = true;
        None
    }
}

/// [`keep`], and whatever is amiss is said; when to look again, if that is soon.
pub(super) fn see_to(world: &World, subject: &Subject, trouble: &mut Trouble) -> Option<Duration> {
    let amiss = match keep(world, subject) {
        Ok(()) => subject.observed.external.refused.clone(),
        Err(error) => Some(with_causes(&error)),
    };
    trouble.seen(amiss, Instant::now())
}

#[cfg(test)]
mod tests;
