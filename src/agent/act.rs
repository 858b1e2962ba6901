//! Carries out a plan: a match over its steps, each of them safe to repeat.

use std::time::Duration;

use tracing::{info, warn};

use super::{
    credential,
    enforce::{self, EnforceError},
    external::{self, PaperError},
    observe::{Subject, against_a_restart, directory, foreign_exec},
    prove::{self, Unproved},
    redeploy::{self, Job, RedeployError},
    settle::Settled,
    world::World,
};
use crate::{
    decide::{
        plan::{Directory, IssueReason, ServeReason, Step},
        successor::Wiring,
    },
    engine::Holds,
    host::{
        castore::{Audited, CaStore, CaStoreError},
        certdir::{CertDir, CertDirError, CertFile, Turn},
        clock, crash,
        docker::DockerError,
        files::FileContent,
    },
    model::{Redeploy, Secret, inspect::Inspect},
    pki::{Certificate, Leaf, LeafRequest, PkiError},
};

/// How long a reload may take to show: a busy server looks at its signals between two waits.
const RELOAD: Duration = Duration::from_secs(10);

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] PkiError),
    #[error(transparent)]
    Directory(#[from] CertDirError),
    #[error(transparent)]
    Paper(#[from] PaperError),
    #[error(transparent)]
    Store(#[from] CaStoreError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Redeploy(#[from] RedeployError),
    #[error("the redeploy was rolled back: {0}")]
    RolledBack(String),
    #[error("it was recreated and is not proved, but the former container is gone: {0}")]
    Kept(String),
    #[error("a command runs in it ({0}), so it is not restarted now")]
    Busy(String),
    #[error("a restart could do harm, so it is not restarted: {0}")]
    Harmful(String),
    #[error("THE DATABASE DOES NOT RUN: {0}")]
    Down(String),
    #[error("the redeploy cannot be finished, the database runs meanwhile: {0}")]
    Open(String),
    #[error("its user stopped, removed or replaced it meanwhile: {0}")]
    Abandoned(String),
    #[error(
        "it does not serve its certificate, a reload does not help ({why}), and a restart is not allowed now: dbssl.redeploy forbids it, or one has just failed; dbssl apply restarts it"
    )]
    RestartForbidden { why: String },
    #[error("it cannot be told whether the reload worked: {0}")]
    Unproved(#[from] Unproved),
    #[error("the restart failed: {0}")]
    Restart(RedeployError),
    #[error("restarted, and it still does not serve its certificate: {0}")]
    Restarted(Unproved),
    #[error("cannot make it refuse plaintext: {0}")]
    Enforce(EnforceError),
    #[error("cannot make it accept plaintext again: {0}")]
    Relax(EnforceError),
    #[error("cannot make it refuse clients without a certificate: {0}")]
    Demand(EnforceError),
    #[error("cannot make it accept clients without a certificate again: {0}")]
    Excuse(EnforceError),
    #[error("its image is gone")]
    NoImage,
}

/// Carries out the steps in their order; the first that fails ends it.
pub async fn act(
    world: &World,
    subject: &Subject,
    steps: &[Step],
    allowed: Redeploy,
) -> Result<(), ActError> {
    let mut chain = match &subject.observed.directory {
        Directory::Sound(chain) => chain.clone(),
        Directory::Missing | Directory::Damaged(_) => Vec::new(),
    };
    for step in steps {
        match step {
            Step::Issue(reason) => {
                chain = issue(world, subject, reason)?;
                info!(%reason, valid_until = %chain.first().map(Certificate::not_after).map_or_else(String::new, |end| end.date().to_string()), "certificate issued");
            }
            Step::Recreate => recreate(world, subject, chain.clone()).await?,
            Step::Serve(reason) => serve(world, subject, chain.clone(), reason, allowed).await?,
            Step::Enforce => {
                crash::point("enforce");
                enforce::enforce(world, subject).await.map_err(ActError::Enforce)?;
                info!(mode = %subject.observed.desired.mode, "plaintext is refused: proved");
            }
            Step::Relax => {
                enforce::relax(world, subject).await.map_err(ActError::Relax)?;
                info!(mode = %subject.observed.desired.mode, "plaintext is accepted again");
            }
            Step::Demand => {
                enforce::demand(world, subject).await.map_err(ActError::Demand)?;
                info!("clients without a certificate are refused: proved");
            }
            Step::Excuse => {
                enforce::excuse(world, subject).await.map_err(ActError::Excuse)?;
                info!("clients without a certificate are accepted again");
            }
        }
    }
    Ok(())
}

/// Sees to it that the certificate directory can be mounted now, by whoever starts the container, an agent running or
/// not; whether it had to be made.
pub fn prepare(world: &World, subject: &Subject) -> Result<bool, ActError> {
    let turn = CertDir::open(subject.certificates.clone()).turn()?;
    // The agent may have done it while this waited for its turn.
    let reason = match directory(subject) {
        Directory::Sound(_) => return Ok(false),
        Directory::Damaged(what) => IssueReason::Damaged(what),
        Directory::Missing => IssueReason::First,
    };
    issue_in(turn, world, subject, &reason)?;
    Ok(true)
}

/// Issues a certificate and swaps it into the directory; the chain as it will be served.
fn issue(world: &World, subject: &Subject, reason: &IssueReason) -> Result<Vec<Certificate>, ActError> {
    issue_in(CertDir::open(subject.certificates.clone()).turn()?, world, subject, reason)
}

fn issue_in(
    _turn: Turn,
    world: &World,
    subject: &Subject,
    reason: &IssueReason,
) -> Result<Vec<Certificate>, ActError> {
    let authority = world.authority();
    let settings = &world.settings.certificates;
    let request = LeafRequest {
        common_name: subject.inspect.name().as_str(),
        sans: &subject.observed.names,
        key_type: settings.key_type,
        lifetime: settings.leaf_lifetime.try_into().unwrap_or(time::Duration::days(90)),
    };
    for left_out in &subject.left_out {
        warn!(name = left_out.name, why = %left_out.why, "a name is left out of the certificate");
    }
    let now = clock::now();
    let (leaf, audited) = match external::leaf(&world.roots, &authority, subject, reason)? {
        Some(leaf) => (leaf, Audited::LeafReceived),
        None => (authority.issue(&request, now)?, Audited::LeafIssued),
    };
    let chain: Vec<_> = std::iter::once(&leaf.certificate).chain(&leaf.chain).cloned().collect();
    let store = CaStore::open(world.roots.ca_store());
    store.audit(audited, &leaf.certificate, now)?;
    let wanted = subject.spec.files(subject.demand.client_auth);
    let mut client = None;
    if wanted.iter().any(|file| file.holds.is_of_a_client()) {
        let issued = credential::issue(&authority, request.key_type, request.lifetime, now)?;
        store.audit(Audited::ProbeIssued, &issued.certificate, now)?;
        client = Some(issued);
    }
    let of = |holds: Holds| client.as_ref().filter(|_| holds.is_of_a_client()).unwrap_or(&leaf);
    let contents: Vec<_> =
        wanted.iter().map(|file| (file, content(file.holds, of(file.holds), &authority.roots))).collect();
    let files: Vec<_> = contents
        .iter()
        .map(|(file, content)| CertFile {
            name: file.name,
            content: FileContent::Secret(content),
            mode: file.mode,
        })
        .collect();
    let directory = CertDir::open(subject.certificates.clone());
    directory.write(&files, subject.owner)?;
    crash::point("leaf-swapped");
    directory.prune()?;
    if matches!(reason, IssueReason::Signed { .. }) {
        external::answered(world, subject.inspect.name())?;
    }
    Ok(chain)
}

/// `leaf` is the server's, or its clients' where the file is theirs.
fn content(holds: Holds, leaf: &Leaf, roots: &[Certificate]) -> Secret {
    let pem = |certificates: &[Certificate]| certificates.iter().map(Certificate::to_pem).collect::<String>();
    let chain = || leaf.certificate.to_pem() + &pem(&leaf.chain);
    Secret::new(match holds {
        Holds::Chain | Holds::ClientChain => chain().into_bytes(),
        Holds::Key | Holds::ClientKey => leaf.key.expose().to_vec(),
        Holds::ChainAndKey | Holds::ClientChainAndKey => [chain().as_bytes(), leaf.key.expose()].concat(),
        // MySQL's reload verifies the leaf alone against it (error 3888 else): so the rest of its chain, too.
        Holds::Ca => [pem(roots), pem(&leaf.chain)].concat().into_bytes(),
    })
}

async fn recreate(world: &World, subject: &Subject, chain: Vec<Certificate>) -> Result<(), ActError> {
    let data_directory = subject.data_directory();
    let job = Job {
        old: &subject.inspect,
        image: subject.image.as_ref().ok_or(ActError::NoImage)?,
        data_directory: &data_directory,
        wiring: Wiring {
            source: &subject.certificates,
            target: subject.spec.certificate_directory(&subject.inside.command),
            command: &subject.missing.command,
            healthcheck: subject.missing.healthcheck.as_deref(),
            mount: subject.missing.mount,
            selinux: world.engine.selinux,
        },
        expectation: &subject.expectation(chain),
    };
    match redeploy::recreate(world, job).await? {
        Settled::Committed { interruption } => {
            let interrupted_ms = interruption.map_or(0, |interruption| interruption.as_millis());
            info!(mode = %subject.observed.desired.mode, interrupted_ms, "recreated with TLS: proved");
            Ok(())
        }
        Settled::RolledBack { why } => Err(ActError::RolledBack(why)),
        Settled::Kept { why } => Err(ActError::Kept(why)),
        Settled::Abandoned { why } => Err(ActError::Abandoned(why)),
        Settled::Open { why } => Err(ActError::Open(why)),
        Settled::Down { why } => Err(ActError::Down(why)),
    }
}

/// Up the ladder: reload; if that proves nothing, restart.
async fn serve(
    world: &World,
    subject: &Subject,
    chain: Vec<Certificate>,
    reason: &ServeReason,
    allowed: Redeploy,
) -> Result<(), ActError> {
    let expectation = subject.expectation(chain);
    let id = subject.inspect.id();
    let why = match enforce::reload(world, subject).await {
        // It was not even asked: no reason to stop it.
        Err(EnforceError::Docker(error)) => return Err(error.into()),
        Err(error) => error.to_string(),
        Ok(()) => {
            crash::point("reloaded");
            match prove::until_proved(world, id, clock::now(), &expectation, RELOAD).await {
                Ok(()) => {
                    info!(%reason, "reloaded without a restart: proved");
                    return Ok(());
                }
                // Nothing was seen that is wrong, so a restart would be a guess at the database's expense.
                Err(unseen @ Unproved::Deadline { served_other: false, .. }) => return Err(unseen.into()),
                Err(unproved) => unproved.to_string(),
            }
        }
    };
    if allowed != Redeploy::Auto {
        return Err(ActError::RestartForbidden { why });
    }
    let against = against_a_restart(world, subject).await?;
    if !against.is_empty() {
        let against: Vec<_> = against.iter().map(ToString::to_string).collect();
        return Err(ActError::Harmful(against.join("; ")));
    }
    if !still_runs(world, &subject.inspect).await? {
        return Err(ActError::Abandoned("it was going down while it was reloaded".to_owned()));
    }
    redeploy::goes_on(world, &subject.inspect).await?;
    if let Some(command) = foreign_exec(world, &subject.inspect).await? {
        return Err(ActError::Busy(command));
    }
    warn!(%reason, why, "the reload proved nothing: restarting the database");
    let limit = world.settings.docker.ready_timeout;
    let data_directory = subject.data_directory();
    let settled = redeploy::restart(world, &subject.inspect, &data_directory).await;
    if let Settled::Abandoned { why } = settled.map_err(ActError::Restart)? {
        return Err(ActError::Abandoned(why));
    }
    prove::until_proved(world, id, clock::now(), &expectation, limit).await.map_err(ActError::Restarted)?;
    info!(%reason, "restarted: proved");
    Ok(())
}

/// Whether it still runs, and goes on to: a restart would start again what its user is stopping at this moment. Docker
/// learns last that a process has ended.
async fn still_runs(world: &World, seen: &Inspect) -> Result<bool, DockerError> {
    const LOOKS: u32 = 5;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let now = world.docker.inspect(seen.id().as_str()).await?;
        if !now.is_some_and(|now| now.running() && now.started_at() == seen.started_at()) {
            return Ok(false);
        }
    }
    Ok(true)
}
