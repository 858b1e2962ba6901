//! Brings an operation to its end, whatever happened: after its last step, after a failure, after a crash.
//!
//! There is one way to the end, and it starts from what is there, not from what was planned: the old
//! container by its id, the successor by its label. The journal only says what may have been begun.
//!
//! | proved | successor | old | end |
//! |---|---|---|---|
//! | yes | there | any | commit: the successor gets the restart policy, the old one goes |
//! | after a crash: unknown | runs | there | prove it now, then as one of the others |
//! | no | any | there | roll back: the successor goes, the old one comes back and runs |
//! | no | ended by itself | gone | build the old one again from the record |
//! | no | there | gone | keep it, unproved: it is all that is left, and the data is in its volumes |
//! | no | gone | gone | build the old one again from the record, unless its user removed it |
//!
//! A user's own `docker stop` or `docker rm` in the middle is their word: nothing is started against it.

mod gone;
mod replaced;

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::{
    gone::{without_either, without_the_old},
    replaced::{copied, is_of_compose, name_taken, replaced, replacement},
};
use super::{
    observe::{Look, observe},
    prove::Expectation,
    redeploy::{Abort, alone, brakes, grace, no_restarts, prove_successor},
    sweep::{FAILED, sweep},
    world::World,
};
use crate::{
    decide::{plan::Directory, successor::OPERATION_LABEL},
    host::{
        clock, crash,
        docker::{Docker, DockerError},
        journal::{BRAKE_PREFIX, Journal, Kind, Operation, Phase, Unfinished, unfinished},
        setbacks,
    },
    model::{
        ContainerId,
        inspect::{Inspect, State},
    },
    shown::with_causes,
};

/// What is known of the outcome when settling begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Proved,
    Failed(String),
    /// A user stopped the successor: bring back what was, but start nothing.
    UserStopped,
    /// A user, or Compose, removed the successor.
    UserRemoved,
    /// The agent or Docker died in the middle.
    Unknown,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The successor is proved and in place; the interruption, from before the stop to the proof, is
    /// known if it was watched.
    Committed { interruption: Option<Duration> },
    /// The old container is back.
    RolledBack { why: String },
    /// The successor is not proved, and there is nothing to go back to.
    Kept { why: String },
    /// Its user stopped, removed or replaced it meanwhile.
    Abandoned { why: String },
    /// Docker refuses to finish it. The database runs meanwhile.
    Open { why: String },
    /// The database does not run: a human must look.
    Down { why: String },
}

/// How an operation ended, and whether Docker was away meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub settled: Settled,
    /// Since the verdict. What led to the verdict may have been Docker's going away, too.
    pub docker_died: bool,
}

/// First pause when something does not go, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// Refusals by Docker in a row until a human is called: some ten minutes.
const TRIES: u32 = 45;
/// How long a container that was started again has to stay up to count as running.
const STAYS_UP: Duration = Duration::from_secs(2);
/// How long another container on the data is waited for.
const LONGEST_BACKUP: Duration = Duration::from_secs(10 * 60);
/// How long Compose has to show what it removed a container for.
const COMPOSE_GOES_ON: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error("the name {0} is taken by a container that is being made or removed")]
    NameInFlux(String),
    #[error("the container was started and ended again with exit code {0}")]
    EndedAgain(i64),
    /// Only a human can bring it back.
    #[error("both containers were removed meanwhile, and {what}; if nobody wants the database back, remove {}", record.display())]
    Missing { what: String, record: PathBuf },
}

/// Settles, for as long as it takes: with Docker away there is nothing else to be done for this container. What
/// cannot be settled stays in the journal for the next start.
pub async fn until_settled(world: &World, operation: Operation, journal: Journal, verdict: Verdict) -> Ended {
    let (mut journal, mut verdict) = (journal, verdict);
    let (mut pause, mut tries, mut docker_died) = (PAUSES.0, 0, false);
    loop {
        let error = match settle(world, &operation, &mut journal, &verdict).await {
            Ok(settled) => {
                if let Err(error) = journal.end() {
                    error!(%error, "the finished operation stays in the journal; it is removed with the next list of all containers, or taken up again at the next start");
                    world.over(operation.id);
                }
                return Ended { settled, docker_died };
            }
            Err(error) => error,
        };
        let engine_gone = match &error {
            SettleError::Docker(error) => error.engine_gone() && !world.hangs_on_one(error).await,
            _ => false,
        };
        if engine_gone && matches!(verdict, Verdict::UserStopped | Verdict::UserRemoved) {
            // It was the engine that ended it, not its user.
            verdict = Verdict::Unknown;
        }
        if verdict == Verdict::Unknown && matches!(error, SettleError::EndedAgain(_)) {
            verdict = Verdict::Failed(error.to_string());
        }
        docker_died |= engine_gone;
        tries += match error {
            SettleError::Missing { .. } => TRIES,
            _ => u32::from(!engine_gone),
        };
        if tries >= TRIES || (engine_gone && world.is_stopping()) {
            let why = format!(
                "cannot finish now, it is tried again when Docker is back, within the hour, and at the next start of dbssl: {error}; the former container is called {} or {}, and its data is in its volumes",
                operation.parked_name(),
                operation.name
            );
            let runs = runs(&world.docker, &operation).await;
            let settled = if runs { Settled::Open { why } } else { Settled::Down { why } };
            return Ended { settled, docker_died };
        }
        warn!(%error, container = %operation.name, operation = operation.id, retry_in = ?pause, "cannot finish the redeploy yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Whether one of the two containers is seen to run.
async fn runs(docker: &Docker, operation: &Operation) -> bool {
    let (old, successor) =
        tokio::join!(docker.inspect(operation.old.as_str()), successor(docker, operation, false));
    [old, successor]
        .into_iter()
        .any(|found| found.is_ok_and(|found| found.is_some_and(|found| found.running())))
}

/// Settles everything that an earlier run of the agent, or an operation of this one, left behind. Before anything else
/// at start-up.
pub async fn recover(world: &World) {
    match unfinished(&world.roots.journal()) {
        Ok(left) => drop(join_all(left.into_iter().map(|left| recover_one(world, left))).await),
        Err(error) => {
            error!(error = %with_causes(&error), "the journal cannot be read: repair it, then restart dbssl");
        }
    }
    sweep(world).await;
}

async fn recover_one(world: &World, left: Unfinished) {
    let Unfinished { operation, phase, journal } = left;
    let Some(_in_hand) = world.take_in_hand(&operation.old) else { return };
    if world.is_over(&operation.id) {
        if let Err(error) = journal.end() {
            error!(%error, "the finished operation still stays in the journal");
        }
        return;
    }
    let (name, id, old) = (operation.name.clone(), operation.id.clone(), operation.old.clone());
    info!(container = %name, operation = id, phase = phase.word(), "found an unfinished redeploy: settling it");
    let verdict = match phase {
        Phase::Commit | Phase::RemoveOld => Verdict::Proved,
        Phase::RollBack => Verdict::Failed("it was being rolled back when the agent ended".into()),
        _ => Verdict::Unknown,
    };
    let Ended { settled, .. } = until_settled(world, operation, journal, verdict).await;
    match &settled {
        Settled::Down { why } => error!(container = %name, operation = id, why, "THE DATABASE DOES NOT RUN"),
        Settled::Open { why } => {
            error!(container = %name, operation = id, why, "the redeploy stays unfinished");
        }
        settled => {
            info!(container = %name, operation = id, outcome = ?settled, "the unfinished redeploy is settled");
        }
    }
    // Should the redeploy itself be what ends the agent, it must not be repeated at once.
    if let Settled::RolledBack { why } | Settled::Down { why } | Settled::Kept { why } = settled
        && let Err(error) = setbacks::add(&world.roots.state, &name, &old, why, true, clock::now())
    {
        warn!(%error, "the setback cannot be recorded");
    }
}

/// Announces a phase while settling: to bring a database back matters more than to write it down.
fn announce(journal: &mut Journal, phase: Phase) {
    if let Err(error) = journal.phase(phase) {
        warn!(error = %with_causes(&error), "the journal cannot be written");
    }
}

/// One try.
async fn settle(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    verdict: &Verdict,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    let old = docker.inspect(operation.old.as_str()).await?;
    if operation.kind == Kind::Restart {
        return restarted(world, operation, old).await;
    }
    if *verdict == Verdict::Unknown && !journal.has_announced(Phase::PolicyOff) {
        return Ok(Settled::Abandoned { why: "nothing had been done yet".into() });
    }
    // Tools that make a container anew copy its labels.
    let by_its_user = matches!(verdict, Verdict::UserStopped | Verdict::UserRemoved);
    if let (true, Some(old)) = (by_its_user, &old)
        && let Some(copy) = copied(docker, operation).await?
    {
        // What it copied is the policy of one that is being tried.
        docker.set_restart_policy(copy.id(), operation.restart_policy()).await?;
        return replaced(world, old, &copy).await;
    }
    let successor = successor(docker, operation, by_its_user).await?;
    let (mut proved, mut why) = match verdict {
        Verdict::Proved => (true, String::new()),
        Verdict::Failed(why) => (false, why.clone()),
        Verdict::UserStopped => (false, "stopped by its user meanwhile".to_owned()),
        Verdict::UserRemoved => (false, "removed by its user meanwhile".to_owned()),
        Verdict::Unknown => (false, "it was interrupted before it was proved".to_owned()),
    };
    if *verdict == Verdict::Unknown
        && let (Some(successor), Some(old)) = (&successor, &old)
        && successor.running()
        && !old.running()
    {
        announce(journal, Phase::Prove);
        match expectation(world, successor).await? {
            Some(expectation) => {
                match prove_successor(world, successor.id(), clock::now(), old, &expectation).await {
                    Ok(()) => proved = true,
                    Err(Abort::Docker(error)) => return Err(error.into()),
                    Err(unproved) => why = unproved.to_string(),
                }
            }
            None => why = "its certificate directory is not usable".into(),
        }
    }
    match (successor, old) {
        (Some(successor), old) if proved => {
            let unseen = *verdict == Verdict::Unknown || !journal.has_announced(Phase::Prove);
            commit(world, operation, journal, &successor, old.as_ref(), unseen).await
        }
        // There is no way back to what Docker removed by half.
        (Some(successor), old) if old.as_ref().is_none_or(is_dead) => {
            without_the_old(world, operation, journal, verdict, &successor, old.as_ref(), why).await
        }
        (None, Some(old)) if *verdict == Verdict::UserRemoved && !is_dead(&old) => {
            removed(world, operation, journal, &old).await
        }
        (successor, Some(old)) if !is_dead(&old) => {
            let start = *verdict != Verdict::UserStopped;
            roll_back(world, operation, journal, successor.as_ref(), &old, why, start).await
        }
        _ if matches!(verdict, Verdict::UserStopped | Verdict::UserRemoved) => Ok(Settled::Abandoned { why }),
        _ => without_either(world, operation, why).await,
    }
}

fn is_dead(found: &Inspect) -> bool {
    found.state() == State::Dead
}

/// What a successor found after a crash has to serve: what lies in its directory.
async fn expectation(world: &World, successor: &Inspect) -> Result<Option<Expectation>, DockerError> {
    match observe(world, successor.clone()).await? {
        Look::Ours(subject) => Ok(match &subject.observed.directory {
            Directory::Sound(chain) => Some(subject.expectation(chain.clone())),
            Directory::Missing | Directory::Damaged(_) => None,
        }),
        Look::NotOurs | Look::Wrong(_) | Look::Unsuitable(_) => Ok(None),
    }
}

async fn restarted(
    world: &World,
    operation: &Operation,
    old: Option<Inspect>,
) -> Result<Settled, SettleError> {
    let Some(old) = old else {
        return Ok(Settled::Abandoned { why: "it was removed by its user meanwhile".into() });
    };
    if !old.running()
        && let Some(why) = stays_down(world, operation, &old).await?
    {
        return Ok(Settled::Abandoned { why });
    }
    world.docker.start(old.id()).await?;
    Ok(Settled::Committed { interruption: None })
}

/// Whether nobody may start the container, since another one runs on its data by now, and why: not even after a reboot
/// may it run beside that one. What takes a backup ends, and is waited for. Only asked of one that does not run.
async fn stays_down(
    world: &World,
    operation: &Operation,
    container: &Inspect,
) -> Result<Option<String>, SettleError> {
    let (docker, since) = (&world.docker, Instant::now());
    let mut waits = false;
    let taken = loop {
        let taken = match alone(docker, operation, container).await {
            Ok(()) => return Ok(None),
            Err(Abort::Docker(error)) => return Err(error.into()),
            Err(taken) => taken,
        };
        if since.elapsed() >= LONGEST_BACKUP || world.is_stopping() {
            break taken;
        }
        if !waits {
            warn!(container = %operation.name, why = %taken, "it cannot be started beside that: waiting for the other one to end");
            waits = true;
        }
        tokio::time::sleep(PAUSES.1).await;
    };
    docker.set_restart_policy(container.id(), &no_restarts()).await?;
    error!(container = %operation.name, why = %taken, "it is kept, stopped and with the restart policy no: look which of the two is to run");
    Ok(Some(format!("it is kept, stopped, since {taken}")))
}

/// `unseen`: it may never have been started.
async fn commit(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    successor: &Inspect,
    old: Option<&Inspect>,
    unseen: bool,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    announce(journal, Phase::Commit);
    docker.set_restart_policy(successor.id(), operation.restart_policy()).await?;
    crash::point("policy-back");
    if let Some(old) = old.filter(|old| old.running()) {
        // Only where no brake is possible: two must not run on one directory.
        docker.stop(old.id(), 0).await?;
    }
    let mut down = None;
    if has_ended(docker, successor.id(), operation.begun, unseen).await? {
        down = stays_down(world, operation, successor).await?;
        if down.is_none() {
            docker.start(successor.id()).await?;
        }
    }
    announce(journal, Phase::RemoveOld);
    if let Some(old) = old {
        docker.remove(old.id()).await?;
    }
    crash::point("old-removed");
    Ok(match down {
        Some(why) => Settled::Abandoned { why },
        None => Settled::Committed { interruption: None },
    })
}

/// Whether it has ended since the proof, and at nobody's word: by its own fault, or as Docker died, perhaps with the agent.
/// It had no restart policy, which would have brought it back. `unseen`: or whether it does not run at all.
async fn has_ended(
    docker: &Docker,
    id: &ContainerId,
    since: OffsetDateTime,
    unseen: bool,
) -> Result<bool, DockerError> {
    let found = docker.inspect(id.as_str()).await?;
    let ended = found.is_some_and(|found| found.state() == State::Exited || (unseen && !found.running()));
    Ok(ended && !docker.was_stopped(id, since, clock::now()).await?)
}

async fn roll_back(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    successor: Option<&Inspect>,
    old: &Inspect,
    why: String,
    start: bool,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    announce(journal, Phase::RollBack);
    if let Some(successor) = successor {
        clear_away(world, operation, successor).await?;
    }
    crash::point("successor-gone");
    if old.running() && journal.has_announced(Phase::Stop) {
        // Docker may still be at the stop that we, or an earlier run, asked for: see it through, or it would come
        // after the start.
        docker.stop(old.id(), grace(old, world)).await?;
    }
    if old.name().as_str() == operation.parked_name() {
        match docker.rename(old.id(), operation.name.as_str()).await {
            Err(error) if error.status() == Some(409) => return name_taken(world, operation, old).await,
            renamed => renamed?,
        }
    }
    crash::point("old-named");
    release_brake(docker, old).await?;
    crash::point("old-unbraked");
    if !start {
        docker.set_restart_policy(old.id(), operation.restart_policy()).await?;
        return Ok(Settled::Abandoned { why });
    }
    // It may never have been stopped.
    let now = docker.inspect(old.id().as_str()).await?;
    if !now.is_some_and(|now| now.running())
        && let Some(down) = stays_down(world, operation, old).await?
    {
        return Ok(Settled::Abandoned { why: format!("{why}; {down}") });
    }
    docker.set_restart_policy(old.id(), operation.restart_policy()).await?;
    start_again(docker, old.id()).await?;
    Ok(Settled::RolledBack { why })
}

/// Starts it, and sees whether it stays up, or ends at its user's word.
async fn start_again(docker: &Docker, id: &ContainerId) -> Result<(), SettleError> {
    let since = clock::now();
    docker.start(id).await?;
    crash::point("old-started");
    tokio::time::sleep(STAYS_UP).await;
    match docker.inspect(id.as_str()).await? {
        Some(started) if !started.running() && started.state() != State::Restarting => {
            if docker.was_stopped(id, since, clock::now()).await? {
                return Ok(());
            }
            Err(SettleError::EndedAgain(started.exit_code()))
        }
        _ => Ok(()),
    }
}

/// Stops and removes a successor. One that Docker cannot remove gets out of the way of the name.
async fn clear_away(world: &World, operation: &Operation, successor: &Inspect) -> Result<(), SettleError> {
    let docker = &world.docker;
    if successor.state() != State::Dead {
        docker.set_restart_policy(successor.id(), &no_restarts()).await?;
        docker.stop(successor.id(), grace(successor, world)).await?;
    }
    match docker.remove(successor.id()).await {
        Err(error) if !error.engine_gone() => {
            // Somebody may start it meanwhile: out of the way it would run on, and its data would be nobody else's.
            let runs = async || {
                let found = docker.inspect(successor.id().as_str()).await?;
                Ok::<_, DockerError>(found.is_some_and(|found| found.running()))
            };
            if runs().await? {
                return Err(error.into());
            }
            warn!(%error, "the successor cannot be removed now: it is renamed, and removed later");
            let aside = format!("{}{FAILED}{}", operation.name, operation.id);
            if successor.name().as_str() != aside {
                docker.rename(successor.id(), &aside).await?;
            }
            // Compose starts every container of a service.
            let braked = if brakes(successor) {
                docker.brake(successor.id(), &operation.brake()).await
            } else {
                Ok(())
            };
            if runs().await? {
                return Err(error.into());
            }
            if let Err(error) = braked {
                warn!(%error, container = %operation.name, "it could be started beside the database: remove it");
            }
            Ok(())
        }
        removed => Ok(removed?),
    }
}

/// The successor was removed by somebody else. Whoever runs plain Docker means the database; Compose may only have
/// found one container too many, and the database has to come back.
async fn removed(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    old: &Inspect,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    let why = "removed by its user meanwhile".to_owned();
    if !is_of_compose(old) {
        docker.remove(old.id()).await?;
        return Ok(Settled::Abandoned { why });
    }
    tokio::time::sleep(COMPOSE_GOES_ON).await;
    match replacement(docker, operation, old).await? {
        Some(replacement) => replaced(world, old, &replacement).await,
        None => roll_back(world, operation, journal, None, old, why, true).await,
    }
}

/// Takes the brake off the old container.
async fn release_brake(docker: &Docker, old: &Inspect) -> Result<(), SettleError> {
    // As it is now: the brake may have come after the last look.
    let Some(old) = docker.inspect(old.id().as_str()).await?.filter(brakes) else { return Ok(()) };
    let networks = old.attachments().into_iter().map(|attachment| attachment.network.to_owned());
    for network in networks.filter(|network| network.starts_with(BRAKE_PREFIX)) {
        docker.disconnect_network(&network, old.id()).await?;
    }
    Ok(())
}

/// The successor, by its label: a user may have renamed it. `itself`: nothing else that carries it.
async fn successor(
    docker: &Docker,
    operation: &Operation,
    itself: bool,
) -> Result<Option<Inspect>, DockerError> {
    let listed = docker.list(&format!("{OPERATION_LABEL}={}", operation.id)).await?;
    let mut ids: Vec<_> =
        listed.into_iter().map(|listed| listed.id).filter(|id| *id != operation.old).collect();
    if let Some(made) = operation.made.as_ref().filter(|made| itself || ids.contains(made)) {
        ids.retain(|id| id == made);
    }
    let Some(id) = ids.first() else { return Ok(None) };
    docker.inspect(id.as_str()).await
}
