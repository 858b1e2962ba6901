//! Brings an operation to its end, whatever happened: after its last step, after a failure, after a crash.
//!
//! There is one way to the end, and it starts from what is there, not from what was planned: the old
//! container by its id, the successor by its label. The journal only says whether the proof had been given.
//!
//! | proved | successor | old | end |
//! |---|---|---|---|
//! | yes | there | any | commit: the successor gets the restart policy, the old one goes |
//! | after a crash: unknown | runs | any | prove it now, then as one of the others |
//! | no | any | there | roll back: the successor goes, the old one comes back and runs |
//! | no | there | gone | commit: it is all that is left, and the data is in its volumes |
//! | any | gone | gone | after a crash: build the old one again from the record; else its user removed it |

use std::time::Duration;

use tracing::{error, info, warn};

use super::{
    observe::{Look, observe},
    prove::Expectation,
    redeploy::{Abort, brakes, dialect, grace, no_restarts, prove_successor},
    world::World,
};
use crate::{
    decide::{
        plan::Directory,
        successor::{OPERATION_LABEL, rebuilt},
    },
    host::{
        docker::{Docker, DockerError},
        journal::{BRAKE_PREFIX, Journal, JournalError, Kind, Operation, Phase, Unfinished, unfinished},
    },
    model::{
        ContainerId,
        inspect::{Inspect, State},
    },
};

/// What is known of the outcome when settling begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Proved,
    Failed(String),
    /// A user stopped or removed the successor: bring back what was, but start nothing.
    UserStopped,
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
    /// Its user stopped, removed or replaced it meanwhile: nothing is left of the operation.
    Abandoned { why: String },
    /// The old container is in place but does not run: a human must look.
    Down { why: String },
}

/// First pause when Docker does not answer, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Settles, for as long as it takes: with Docker away there is nothing else to be done for this container.
pub async fn until_settled(
    world: &World,
    operation: Operation,
    mut journal: Journal,
    verdict: Verdict,
) -> Settled {
    let mut verdict = verdict;
    let mut pause = PAUSES.0;
    loop {
        match settle(world, &operation, &mut journal, &verdict).await {
            Ok(settled) => {
                if let Err(error) = journal.end() {
                    error!(%error, "the finished operation stays in the journal; it will be looked at again at the next start");
                }
                return settled;
            }
            Err(error) => {
                let engine_gone = matches!(&error, SettleError::Docker(error) if error.engine_gone());
                if engine_gone && verdict == Verdict::UserStopped {
                    // It was the engine that stopped it, not its user.
                    verdict = Verdict::Unknown;
                }
                warn!(%error, operation = operation.id, retry_in = ?pause, "cannot finish the redeploy yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

/// Settles everything that an earlier run of the agent left behind. Before anything else at start-up.
pub async fn recover(world: &World) -> Result<(), DockerError> {
    let left = match unfinished(&world.roots.journal()) {
        Ok(left) => left,
        Err(error) => {
            error!(%error, "the journal cannot be read: repair it, then restart dbssl");
            return Ok(());
        }
    };
    for Unfinished { operation, phase, journal } in left {
        let (name, id) = (operation.name.clone(), operation.id.clone());
        info!(container = %name, operation = id, phase = phase.word(), "found an unfinished redeploy: settling it");
        let verdict = match phase {
            Phase::Commit | Phase::RemoveOld => Verdict::Proved,
            Phase::RollBack => Verdict::Failed("it was being rolled back when the agent ended".into()),
            _ => Verdict::Unknown,
        };
        let settled = until_settled(world, operation, journal, verdict).await;
        match settled {
            Settled::Down { why } => {
                error!(container = %name, operation = id, why, "the database does not run");
            }
            settled => {
                info!(container = %name, operation = id, outcome = ?settled, "the unfinished redeploy is settled");
            }
        }
    }
    sweep(world).await
}

/// Removes what a crash outside of any recorded operation left: rehearsals and brakes.
async fn sweep(world: &World) -> Result<(), DockerError> {
    let docker = &world.docker;
    let label = format!("{OPERATION_LABEL}={}", super::redeploy::REHEARSAL);
    for listed in docker.list(&label).await? {
        if let Some(found) = docker.inspect(listed.id.as_str()).await?
            && super::redeploy::is_rehearsal(&found)
            && world.concerns(&found)
        {
            docker.remove(found.id()).await?;
        }
    }
    for network in docker.networks(BRAKE_PREFIX).await? {
        docker.remove_network(&network).await?;
    }
    Ok(())
}

async fn settle(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    verdict: &Verdict,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    let old = docker.inspect(operation.old.as_str()).await?;
    if operation.kind == Kind::Restart {
        return restarted(docker, old).await;
    }
    let successor = successor(docker, operation).await?;
    let (mut proved, mut why, start_old) = match verdict {
        Verdict::Proved => (true, String::new(), true),
        Verdict::Failed(why) => (false, why.clone(), true),
        Verdict::UserStopped => (false, "stopped by its user meanwhile".to_owned(), false),
        Verdict::Unknown => (false, "it was interrupted before it was proved".to_owned(), true),
    };
    if *verdict == Verdict::Unknown
        && let (Some(successor), Some(old)) = (&successor, &old)
        && successor.running()
        && !old.running()
    {
        journal.phase(Phase::Prove)?;
        match expectation(world, successor).await? {
            Some(expectation) => match prove_successor(world, successor.id(), old, &expectation).await {
                Ok(()) => proved = true,
                Err(Abort::Docker(error)) => return Err(error.into()),
                Err(unproved) => why = unproved.to_string(),
            },
            None => why = "its certificate directory is not usable".into(),
        }
    }
    match (successor, old) {
        (Some(successor), None) => {
            if !proved {
                warn!(
                    why,
                    "the successor is not proved, but the old container is gone: keeping the successor"
                );
            }
            commit(world, operation, journal, &successor, None).await
        }
        (Some(successor), Some(old)) if proved => {
            commit(world, operation, journal, &successor, Some(&old)).await
        }
        (successor, Some(old)) => {
            roll_back(world, operation, journal, successor.as_ref(), &old, why, start_old).await
        }
        (None, None) if *verdict == Verdict::Unknown => rebuild(docker, operation).await,
        (None, None) => {
            release_brake(docker, operation, None).await?;
            Ok(Settled::Abandoned { why: "it was removed by its user meanwhile".into() })
        }
    }
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

async fn restarted(docker: &Docker, old: Option<Inspect>) -> Result<Settled, SettleError> {
    let Some(old) = old else {
        return Ok(Settled::Abandoned { why: "it was removed by its user meanwhile".into() });
    };
    docker.start(old.id()).await?;
    Ok(Settled::Committed { interruption: None })
}

async fn commit(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    successor: &Inspect,
    old: Option<&Inspect>,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    journal.phase(Phase::Commit)?;
    docker.set_restart_policy(successor.id(), operation.restart_policy()).await?;
    if let Some(old) = old.filter(|old| old.running()) {
        // Only where no brake is possible: two must not run on one directory.
        docker.stop(old.id(), grace(old, world)).await?;
    }
    // It runs already, unless Docker itself was restarted meanwhile.
    docker.start(successor.id()).await?;
    journal.phase(Phase::RemoveOld)?;
    if let Some(old) = old {
        docker.remove(old.id()).await?;
    }
    docker.remove_network(&operation.brake()).await?;
    Ok(Settled::Committed { interruption: None })
}

async fn roll_back(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    successor: Option<&Inspect>,
    old: &Inspect,
    why: String,
    start_old: bool,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    journal.phase(Phase::RollBack)?;
    if let Some(successor) = successor {
        docker.set_restart_policy(successor.id(), &no_restarts()).await?;
        docker.stop(successor.id(), grace(successor, world)).await?;
        docker.remove(successor.id()).await?;
    }
    if old.name().as_str() == operation.parked_name() {
        match docker.rename(old.id(), operation.name.as_str()).await {
            Err(error) if error.status() == Some(409) => {
                return replaced(docker, operation, old).await;
            }
            renamed => renamed?,
        }
    }
    release_brake(docker, operation, Some(old)).await?;
    docker.set_restart_policy(old.id(), operation.restart_policy()).await?;
    if !start_old {
        return Ok(Settled::Abandoned { why });
    }
    match docker.start(old.id()).await {
        Ok(()) => {}
        Err(error) if error.engine_gone() => return Err(error.into()),
        Err(error) => {
            return Ok(Settled::Down {
                why: format!("{why}; and the old container does not start: {error}"),
            });
        }
    }
    Ok(Settled::RolledBack { why })
}

/// Somebody made another container of that name while ours was parked. It serves now; ours must not run
/// beside it, and is kept if it holds anything that the other does not.
async fn replaced(docker: &Docker, operation: &Operation, old: &Inspect) -> Result<Settled, SettleError> {
    let other = docker.inspect(operation.name.as_str()).await?;
    let volumes = |inspect: &Inspect| {
        let mounts = inspect.mounts().into_iter().filter(|mount| mount.writable);
        mounts.map(|mount| (mount.source, mount.destination)).collect::<Vec<_>>()
    };
    let same_data = other.as_ref().is_some_and(|other| {
        let theirs = volumes(other);
        volumes(old).iter().all(|mount| theirs.contains(mount))
    });
    if same_data {
        docker.remove(old.id()).await?;
        docker.remove_network(&operation.brake()).await?;
        return Ok(Settled::Abandoned {
            why: "its user replaced it meanwhile by another container on the same data".into(),
        });
    }
    release_brake(docker, operation, Some(old)).await?;
    docker.set_restart_policy(old.id(), operation.restart_policy()).await?;
    Ok(Settled::Down {
        why: format!(
            "another container took the name {} meanwhile, and it does not use the same data; the former one is kept, stopped, as {}",
            operation.name,
            old.name()
        ),
    })
}

/// Both are gone, and it was not their user who saw it: nobody wants a database to vanish.
async fn rebuild(docker: &Docker, operation: &Operation) -> Result<Settled, SettleError> {
    let Ok(old) = Inspect::new(operation.inspect.clone()) else {
        return Ok(Settled::Down { why: "the recorded container cannot be read".into() });
    };
    if docker.inspect(operation.name.as_str()).await?.is_some() {
        return Ok(Settled::Abandoned { why: "its user replaced it meanwhile".into() });
    }
    let Some(image) = docker.image(old.image_id()).await? else {
        return Ok(Settled::Down { why: format!("it was removed, and so was its image {}", old.image_id()) });
    };
    let again = rebuilt(&old, &image, &operation.id, dialect(docker, &old).await?);
    let id = docker.create(operation.name.as_str(), &again.body).await?;
    for (network, endpoint) in &again.further_networks {
        docker.connect_network(network, &id, endpoint).await?;
    }
    docker.start(&id).await?;
    Ok(Settled::RolledBack { why: "both containers were gone: built it again from the record".into() })
}

/// Takes the brake off the old container, in whatever state the brake is.
async fn release_brake(
    docker: &Docker,
    operation: &Operation,
    old: Option<&Inspect>,
) -> Result<(), SettleError> {
    if let Some(old) = old.filter(|old| brakes(old)) {
        let networks = old.attachments().into_iter().map(|attachment| attachment.network.to_owned());
        for network in networks.filter(|network| network.starts_with(BRAKE_PREFIX)) {
            docker.disconnect_network(&network, old.id()).await?;
        }
    }
    docker.remove_network(&operation.brake()).await?;
    Ok(())
}

/// The successor, by its label: a user may have renamed it.
async fn successor(docker: &Docker, operation: &Operation) -> Result<Option<Inspect>, DockerError> {
    let label = format!("{OPERATION_LABEL}={}", operation.id);
    let listed = docker.list(&label).await?;
    let Some(id) = listed.into_iter().map(|listed| listed.id).find(|id: &ContainerId| *id != operation.old)
    else {
        return Ok(None);
    };
    let found = docker.inspect(id.as_str()).await?;
    // One that is being removed counts as gone.
    Ok(found.filter(|found| found.state() != State::Dead))
}
