//! Puts a successor in a running database's place: rehearse, record, stop, park, start, prove, commit.
//!
//! # Guarantees
//! - Until the old container is stopped nothing of it has changed but its restart policy.
//! - Whatever fails, [`super::settle`] ends the operation: with the successor proved and in its place, or
//!   with the old container running as before.
//! - Two containers never run on one data directory: the successor is only started when the old one is
//!   down and braked, and neither has a restart policy until the end. Who shared it before is no matter of ours.
//! - No volume is ever removed.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tracing::warn;

use super::{
    prove::{self, Expectation, Unproved},
    settle::{self, Settled, Verdict},
    sweep::{REHEARSAL, REHEARSED, is_rehearsal},
    world::World,
};
use crate::{
    decide::{
        compare::{Difference, differences},
        gates::{self, SECRETS},
        successor::{Dialect, OPERATION_LABEL, Successor, Wiring, rehearsal, successor},
    },
    host::{
        archive, clock, crash,
        docker::{Docker, DockerError, Listed, NEVER_KILL},
        journal::{BRAKE_PREFIX, Journal, JournalError, Kind, Operation, Phase},
    },
    model::{
        ContainerId, ContainerName,
        inspect::{Image, Inspect, Mount, State},
    },
};

/// The most that is carried from one container's own layer to the next: Compose's secrets.
const LARGEST_SECRETS: usize = 8 << 20;

/// One container to be recreated.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub old: &'a Inspect,
    pub image: &'a Image,
    pub wiring: Wiring<'a>,
    /// In the container.
    pub data_directory: &'a str,
    /// What the successor has to serve.
    pub expectation: &'a Expectation,
}

/// Why nothing was begun, or what was begun says nothing of the redeploy itself.
#[derive(Debug, thiserror::Error)]
pub enum RedeployError {
    #[error(
        "Docker would not make the same container again ({0}), so nothing was changed; dbssl export prints what to put into your Compose file"
    )]
    Rehearsal(String),
    #[error("another operation works on this container")]
    InHand,
    #[error("it is no longer as it was seen")]
    Changed,
    #[error("it was sent a signal a moment ago, and may be about to end")]
    Signalled,
    #[error("a container named {0} is left from earlier: look what it is, and remove or rename it")]
    ParkedNameTaken(String),
    /// Docker died in the middle: the redeploy itself may be all right.
    #[error("the redeploy was rolled back: {0}")]
    Interrupted(String),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why an attempt ends before its proof.
#[derive(Debug, thiserror::Error)]
pub(super) enum Abort {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the successor differs from what was asked: {0}")]
    Differs(String),
    #[error("{0}")]
    Unproved(String),
    #[error("the old container could not be kept down: somebody else started it, or released its brake")]
    OldRuns,
    /// Another container runs on the same data.
    #[error("the container {0} runs on the same data")]
    DataTaken(ContainerName),
    /// Stopped by a user: their word counts.
    #[error("stopped by its user meanwhile")]
    UserStopped,
    #[error("removed by its user meanwhile")]
    UserRemoved,
}

/// Recreates the container and sees the operation through to its end.
pub async fn recreate(world: &World, job: Job<'_>) -> Result<Settled, RedeployError> {
    let docker = &world.docker;
    let _in_hand = world.take_in_hand(job.old.id()).ok_or(RedeployError::InHand)?;
    let dialect = dialect(docker, job.old).await?;
    let mut operation = operation(docker, Kind::Recreate, job.old, job.data_directory).await?;
    if docker.inspect(&operation.parked_name()).await?.is_some() {
        return Err(RedeployError::ParkedNameTaken(operation.parked_name()));
    }
    let successor = successor(job.old, job.image, &job.wiring, &operation.id, dialect);
    rehearse(docker, job.old, &successor).await?;
    let secrets = layer_secrets(docker, job.old).await?;
    goes_on(world, job.old).await?;
    // What was seen is some time ago, and of the process that ran then. The last question before the journal says that
    // it has begun.
    let same = |now: &Inspect| {
        now.started_at() == job.old.started_at()
            && now.name() == job.old.name()
            && differences(job.old.raw(), now).is_empty()
    };
    let now = docker.inspect(job.old.id().as_str()).await?;
    if !now.is_some_and(|now| now.state() == State::Running && same(&now)) {
        return Err(RedeployError::Changed);
    }

    let mut journal = Journal::begin(&world.roots.journal(), &operation)?;
    let begun = Instant::now();
    let verdict = match attempt(world, &mut operation, &mut journal, &job, &successor, secrets).await {
        Ok(()) => Verdict::Proved,
        Err(Abort::UserStopped) => Verdict::UserStopped,
        Err(Abort::UserRemoved) => Verdict::UserRemoved,
        Err(Abort::Docker(error)) if error.engine_gone() => Verdict::Unknown,
        Err(abort) => Verdict::Failed(abort.to_string()),
    };
    let interruption = begun.elapsed();
    let docker_died = verdict == Verdict::Unknown;
    let ended = settle::until_settled(world, operation, journal, verdict).await;
    match ended.settled {
        Settled::Committed { .. } => Ok(Settled::Committed { interruption: Some(interruption) }),
        Settled::RolledBack { why } if docker_died || ended.docker_died => {
            Err(RedeployError::Interrupted(why))
        }
        other => Ok(other),
    }
}

/// A restart of the same container, recorded so that a crash in the middle leaves it running.
pub async fn restart(world: &World, old: &Inspect, data_directory: &str) -> Result<Settled, RedeployError> {
    let _in_hand = world.take_in_hand(old.id()).ok_or(RedeployError::InHand)?;
    let operation = operation(&world.docker, Kind::Restart, old, data_directory).await?;
    let mut journal = Journal::begin(&world.roots.journal(), &operation)?;
    let restarted = match journal.phase(Phase::Stop) {
        Ok(()) => world.docker.restart(old.id(), grace(old, world)).await.map_err(RedeployError::from),
        Err(error) => Err(error.into()),
    };
    crash::point("restarted");
    // Also when Docker says that it is done: it must run, and the journal must go.
    let ended = settle::until_settled(world, operation, journal, Verdict::Unknown).await;
    match ended.settled {
        // Docker's refusal may be for the very same reason.
        abandoned @ Settled::Abandoned { .. } => Ok(abandoned),
        settled => restarted.map(|()| settled),
    }
}

/// Refuses while somebody may be stopping it: it would be started again against its user's word.
pub async fn goes_on(world: &World, container: &Inspect) -> Result<(), RedeployError> {
    if signalled(world, container).await? { Err(RedeployError::Signalled) } else { Ok(()) }
}

/// Whether somebody may be stopping it. Any signal counts, also one that it does not end for: that costs as long a wait as
/// a stop may take, an hour at most.
async fn signalled(world: &World, container: &Inspect) -> Result<bool, DockerError> {
    const LONGEST: i64 = 3600;
    let takes = match grace(container, world) {
        NEVER_KILL => LONGEST,
        grace => grace.min(LONGEST),
    };
    let now = clock::now();
    let since = now - time::Duration::seconds(takes);
    // Unless the clock went backwards: then it was started in what is the future now.
    let started = container.started_at().filter(|started| *started <= now);
    let since = started.map_or(since, |started| started.max(since));
    world.docker.was_signalled(container.id(), since).await
}

async fn operation(
    docker: &Docker,
    kind: Kind,
    old: &Inspect,
    data_directory: &str,
) -> Result<Operation, DockerError> {
    let begun = clock::now();
    let sharers = match data_mount(old, data_directory) {
        Some(data) => sharers(docker, old, &data).await?,
        None => Vec::new(),
    };
    Ok(Operation {
        id: new_operation_id(),
        kind,
        name: old.name().clone(),
        old: old.id().clone(),
        begun,
        data_directory: data_directory.to_owned(),
        sharers,
        made: None,
        inspect: old.raw().clone(),
    })
}

/// Whoever else runs on the data. What is stopped may be anything, another database for that data too, and what we made is
/// a database.
async fn sharers(
    docker: &Docker,
    old: &Inspect,
    data: &(String, String),
) -> Result<Vec<ContainerId>, DockerError> {
    let shares = |listed: &Listed| {
        listed.id != *old.id()
            && matches!(listed.state.as_str(), "running" | "restarting" | "paused")
            && !listed.labels.contains_key(OPERATION_LABEL)
            && listed.mounts.contains(data)
    };
    Ok(docker.list("").await?.into_iter().filter(shares).map(|listed| listed.id).collect())
}

async fn attempt(
    world: &World,
    operation: &mut Operation,
    journal: &mut Journal,
    job: &Job<'_>,
    successor: &Successor,
    secrets: Vec<(String, Vec<u8>)>,
) -> Result<(), Abort> {
    let docker = &world.docker;
    let old = job.old.id();
    journal.phase(Phase::PolicyOff)?;
    docker.set_restart_policy(old, &no_restarts()).await?;
    journal.phase(Phase::Park)?;
    docker.rename(old, &operation.parked_name()).await?;
    // From here on it is not told what its user does from what we do.
    if signalled(world, job.old).await? {
        return Err(Abort::UserStopped);
    }
    journal.phase(Phase::Stop)?;
    docker.stop(old, grace(job.old, world)).await?;
    if brakes(job.old) {
        // Before there is a successor: whoever starts either of them by its name starts one alone.
        journal.phase(Phase::Brake)?;
        docker.brake(old, &operation.brake()).await?;
    }
    // Not before the old one has ended: beside a running database Compose would take it for a replica too many.
    journal.phase(Phase::Create)?;
    let new = docker.create(operation.name.as_str(), &successor.body).await?;
    operation.made = Some(new.clone());
    journal.phase(Phase::Furnish)?;
    for (network, endpoint) in &successor.further_networks {
        docker.connect_network(network, &new, endpoint).await?;
    }
    for (folder, tar) in secrets {
        docker.put(&new, &folder, tar).await?;
    }
    let (found, parked) = tokio::join!(docker.inspect(new.as_str()), docker.inspect(old.as_str()));
    let found = found?.ok_or_else(|| Abort::Unproved("the successor is gone".to_owned()))?;
    let differences = differences(&successor.expected, &found);
    if !differences.is_empty() {
        return Err(Abort::Differs(list(&differences)));
    }
    if parked?.is_some_and(|parked| !held(&parked)) {
        return Err(Abort::OldRuns);
    }
    alone(docker, operation, &found).await?;
    journal.phase(Phase::Start)?;
    docker.start(&new).await?;
    journal.phase(Phase::Prove)?;
    prove_successor(world, &new, operation.begun, job.old, job.expectation).await
}

/// Nothing else may run on the data that `container` is about to be started on. A container that shared the volume
/// before the operation began is its owner's affair (a side-car that takes backups), also when Docker has restarted it
/// since then; another one that was started since took the database's place, unless it can only read.
pub(super) async fn alone(docker: &Docker, operation: &Operation, container: &Inspect) -> Result<(), Abort> {
    let Some(data) = data_mount(container, &operation.data_directory) else { return Ok(()) };
    let is_data = |mount: &Mount| (&mount.source, &mount.destination) == (&data.0, &data.1);
    for listed in docker.list("").await? {
        let other = listed.id != *container.id() && listed.state == "running";
        if !other || !listed.mounts.contains(&data) || operation.sharers.contains(&listed.id) {
            continue;
        }
        let Some(other) = docker.inspect(listed.id.as_str()).await? else { continue };
        let writes = other.mounts().iter().any(|mount| is_data(mount) && mount.writable);
        if writes && other.started_at().is_some_and(|started| started >= operation.begun) {
            return Err(Abort::DataTaken(listed.name));
        }
    }
    Ok(())
}

/// The innermost mount over the data directory: its path on the host and in the container.
fn data_mount(container: &Inspect, data_directory: &str) -> Option<(String, String)> {
    let over = container.mounts().into_iter().filter(|mount| {
        let rest = data_directory.strip_prefix(&mount.destination);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let data = over.max_by_key(|mount| mount.destination.len())?;
    Some((data.source, data.destination))
}

/// Waits for the proof, and sees to it that the old container stays down where no brake holds it.
pub(super) async fn prove_successor(
    world: &World,
    new: &ContainerId,
    since: OffsetDateTime,
    old: &Inspect,
    expectation: &Expectation,
) -> Result<(), Abort> {
    let proved = async {
        match prove::until_proved(world, new, since, expectation, world.settings.docker.ready_timeout).await {
            Ok(()) => Ok(()),
            Err(Unproved::Stopped) => Err(Abort::UserStopped),
            Err(Unproved::Removed) => Err(Abort::UserRemoved),
            Err(Unproved::Docker(error)) => Err(Abort::Docker(error)),
            Err(unproved) => Err(Abort::Unproved(unproved.to_string())),
        }
    };
    if brakes(old) {
        return proved.await;
    }
    tokio::select! {
        biased;
        proved = proved => proved,
        () = runs_again(&world.docker, old.id()) => {
            warn!("somebody started the parked container: stopping it at once");
            world.docker.stop(old.id(), 0).await?;
            Err(Abort::OldRuns)
        }
    }
}

/// Ends when the container runs. Asked for in short steps, and only while an unbraked one is parked.
async fn runs_again(docker: &Docker, id: &ContainerId) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if docker.inspect(id.as_str()).await.is_ok_and(|found| found.is_some_and(|found| found.running())) {
            return;
        }
    }
}

/// Creates the successor under a throw-away name, compares, removes it. The old one serves meanwhile.
async fn rehearse(docker: &Docker, old: &Inspect, successor: &Successor) -> Result<(), RedeployError> {
    let mut rehearsal = rehearsal(successor);
    rehearsal.body["Labels"][OPERATION_LABEL] = REHEARSAL.into();
    rehearsal.expected["Config"]["Labels"][OPERATION_LABEL] = REHEARSAL.into();
    let name = format!("{}{REHEARSED}", old.name());
    if let Some(left) = docker.inspect(&name).await?
        && is_rehearsal(&left)
    {
        docker.remove(left.id()).await?;
    }
    let id = docker.create(&name, &rehearsal.body).await?;
    let compared = async {
        for (network, endpoint) in &rehearsal.further_networks {
            docker.connect_network(network, &id, endpoint).await?;
        }
        docker.inspect(id.as_str()).await
    };
    let compared = compared.await;
    let removed = docker.remove(&id).await;
    let found = compared?.ok_or_else(|| RedeployError::Rehearsal("it was removed at once".to_owned()))?;
    removed?;
    let differences = differences(&rehearsal.expected, &found);
    if differences.is_empty() { Ok(()) } else { Err(RedeployError::Rehearsal(list(&differences))) }
}

/// Secrets that Compose copied into the container's own layer, as archives for their parent folders. Those that
/// come from a file are mounts, and come along by themselves.
pub(super) async fn layer_secrets(
    docker: &Docker,
    old: &Inspect,
) -> Result<Vec<(String, Vec<u8>)>, DockerError> {
    for folder in SECRETS {
        let Some(tar) = docker.download(old.id(), folder, LARGEST_SECRETS).await? else { continue };
        let parent = folder.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let mounts = old.mounts();
        let mounted = |path: &str| {
            // One folder by two names: /var/run leads to /run.
            let real = |path: &str| path.strip_prefix("/var").unwrap_or(path).to_owned();
            let path = real(&format!("{parent}/{path}"));
            mounts.iter().any(|mount| gates::within(&path, &real(&mount.destination)))
        };
        return Ok(archive::without(&tar, mounted).map(|tar| (parent.to_owned(), tar)).into_iter().collect());
    }
    Ok(Vec::new())
}

pub(super) async fn dialect(docker: &Docker, old: &Inspect) -> Result<Dialect, DockerError> {
    let named = docker.image(old.image_name()).await?;
    Ok(Dialect {
        settings_by_network: docker.creates_with_networks(),
        image_name_holds: named.is_some_and(|named| named.id == old.image_id()),
    })
}

/// Whether the parked container is down, and stays so.
fn held(parked: &Inspect) -> bool {
    let braked =
        || parked.attachments().iter().any(|attachment| attachment.network.starts_with(BRAKE_PREFIX));
    !parked.running() && (!brakes(parked) || braked())
}

/// Whether a network can hold the container back: not with the host's or none.
pub(super) fn brakes(container: &Inspect) -> bool {
    !matches!(container.network_mode(), "host" | "none")
}

pub(super) fn no_restarts() -> serde_json::Value {
    serde_json::json!({ "Name": "no", "MaximumRetryCount": 0 })
}

/// Seconds until Docker kills what does not stop: the container's own if longer than the config's.
pub(super) fn grace(container: &Inspect, world: &World) -> i64 {
    let configured = i64::try_from(world.settings.docker.stop_grace.as_secs()).unwrap_or(i64::MAX);
    match container.config()["StopTimeout"].as_i64() {
        Some(never) if never < 0 => NEVER_KILL,
        Some(own) => own.max(configured),
        None => configured,
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Unique among this host's operations; not a secret.
fn new_operation_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
