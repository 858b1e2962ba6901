//! One run over one application's container: see which trust bundle it has, bring it up to date, restart it if that was
//! asked for.
//!
//! Of a container that is not labelled one thing is looked at: whether it mounts the bundle as a single file, and sees
//! one that has been replaced. That is said, and nothing is done.

use std::{path::Path, time::Duration};

use time::OffsetDateTime;
use tokio::sync::Mutex;
use tracing::{Instrument, info, info_span, warn};

use super::world::World;
use crate::{
    decide::{
        client::{self, Client, Obstacle, Refused, Restart, Way, Withheld},
        matching,
        queue::backoff,
    },
    host::{
        bundle::TrustBundle,
        clock, crash,
        delivery::{self, Held, Place},
        docker::{DockerError, Listed},
        mountinfo,
        seen::{self, Seen, Target},
        stamp::{self, Stamp},
    },
    model::{
        ContainerId, ContainerName,
        inspect::{Inspect, State},
    },
    shown::with_causes,
};

/// Docker's own grace period: an application is no database.
const GRACE: i64 = 10;
/// Until an operation that has the container in hand, or another restart, is looked for again.
const SOON: Duration = Duration::from_secs(2);
/// Looks in a row at one start that failed, until it is left to a human.
const MOST_STARTS: u32 = 5;

/// What is remembered of a client between two runs. Losing it costs a log line, or one look, nothing else.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// As it was when nothing was left to do: while that is so, there is nothing to look at.
    settled: Option<Moment>,
    said: Option<String>,
    doubt: Option<String>,
    failures: u32,
    /// It is to be restarted, and another one was being.
    waits: bool,
    /// It did not come up again after our restart.
    down: u32,
}

/// Whatever changes what is to be done changes this.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    state: State,
    started_at: Option<OffsetDateTime>,
    bundle: Option<Stamp>,
}

/// How a container stands to the trust bundle.
#[derive(Clone, Debug)]
pub struct Look {
    /// What its operator asked for; `None`: nothing, so that it is not changed.
    pub client: Option<Client>,
    pub delivery: Delivery,
    /// Where it mounts the bundle as a single file and its process sees one that has been replaced.
    pub stale: Vec<String>,
    /// Whether it is to be restarted, by what is on record.
    pub restart: Restart,
}

impl Look {
    fn wants_restarts(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.restart)
            && !matches!(self.delivery, Delivery::Refused(_) | Delivery::NoBundle(_) | Delivery::NotAsked)
    }

    fn restart_for(&self, seen: &Seen, target: &Target) -> Restart {
        let tried = seen.restarted_for.as_ref() == Some(target);
        client::restart(&seen.certificates, &target.certificates, !self.stale.is_empty(), tried)
    }
}

/// Of the file that `dbssl.client` asks for.
#[derive(Clone, Debug)]
pub enum Delivery {
    NotAsked,
    /// There is no bundle that may be handed out now.
    NoBundle(Withheld),
    Refused(Refused),
    Mounted,
    Current,
    Due {
        place: Place,
        /// The certificates in what is there, if anything is.
        before: Option<Vec<String>>,
    },
}

/// The bundle as it may be handed out.
struct Bundle {
    bytes: Vec<u8>,
    target: Target,
}

/// Whether a container may have to do with the trust bundle, by its labels and the host paths that it mounts.
pub fn concerns<'a>(world: &World, labelled: bool, mut sources: impl Iterator<Item = &'a str>) -> bool {
    labelled || sources.any(|source| is_bundle(&world.roots.bundle(), source))
}

pub fn listed(world: &World, listed: &Listed) -> bool {
    let labelled = listed.labels.contains_key(crate::decide::labels::CLIENT);
    concerns(world, labelled, listed.mounts.iter().map(|(source, _)| source.as_str()))
}

pub fn inspected(world: &World, inspect: &Inspect) -> bool {
    let labelled = inspect.label(crate::decide::labels::CLIENT).is_some();
    concerns(world, labelled, inspect.mounts().iter().map(|mount| mount.source.as_str()))
}

/// Whether a path is the bundle's, with or without links in its folders. What file is there does not matter.
fn is_bundle(bundle: &Path, source: &str) -> bool {
    let source = Path::new(source);
    source == bundle
        || (source.file_name() == bundle.file_name()
            && match (source.parent().map(Path::canonicalize), bundle.parent().map(Path::canonicalize)) {
                (Some(Ok(one)), Some(Ok(other))) => one == other,
                _ => false,
            })
}

/// Looks at it, and changes nothing.
pub async fn look(world: &World, inspect: &Inspect) -> Result<Look, DockerError> {
    let bundle = bundle(world);
    let mut look = examine(world, inspect, bundle.as_ref().map_err(|why| *why)).await?;
    let on_record = seen::read(&world.roots.state, inspect.id())
        .filter(|seen| inspect.running() && Some(seen.started_at) == inspect.started_at());
    if let (Some(seen), Ok(bundle), true) = (&on_record, &bundle, look.wants_restarts()) {
        look.restart = look.restart_for(seen, &bundle.target);
    }
    Ok(look)
}

/// Runs once over the container; what is remembered, and when to run again unless poked. `restarts`: of all clients
/// one is restarted at a time.
pub async fn look_after(
    world: &World,
    id: &ContainerId,
    mut memory: Memory,
    restarts: &Mutex<()>,
) -> (Memory, Option<Duration>) {
    let inspect = match world.docker.inspect(id.as_str()).await {
        Ok(Some(inspect)) => inspect,
        Ok(None) => return (memory, None),
        Err(_) => {
            memory.failures += 1;
            let again = backoff(memory.failures);
            return (memory, Some(again));
        }
    };
    let span = info_span!("client", container = %inspect.name());
    let again = async {
        match run(world, &inspect, &mut memory, restarts).await {
            Ok(again) => again,
            // It went away meanwhile.
            Err(error) if error.not_found() => None,
            Err(error) => {
                memory.failures += 1;
                // It may just be stopping: what is wrong then means nothing.
                let lasts = memory.doubt.as_deref() == Some(&error.to_string());
                memory.doubt = Some(error.to_string());
                if lasts {
                    say(&mut memory, error.to_string(), |why| {
                        warn!(why, "it cannot be given the trust bundle now; it will be tried again");
                    });
                }
                Some(backoff(memory.failures))
            }
        }
    };
    let again = again.instrument(span).await;
    (memory, again)
}

async fn run(
    world: &World,
    inspect: &Inspect,
    memory: &mut Memory,
    restarts: &Mutex<()>,
) -> Result<Option<Duration>, DockerError> {
    let id = inspect.id();
    if world.is_in_hand(id) {
        return Ok(Some(SOON));
    }
    if memory.down > 0 && inspect.state() == State::Exited {
        return Ok(start_again(world, inspect, memory).await);
    }
    memory.down = 0;
    if std::mem::take(&mut memory.waits) && restarts.try_lock().is_err() {
        memory.waits = true;
        return Ok(Some(SOON));
    }
    let moment = Moment {
        state: inspect.state(),
        started_at: inspect.started_at(),
        bundle: stamp::of(&world.roots.bundle()),
    };
    if memory.settled.as_ref() == Some(&moment)
        || matches!(inspect.state(), State::Dead | State::Other)
        || matching::serves_an_operation(inspect.name())
        || !world.concerns(inspect)
    {
        return Ok(None);
    }
    let bundle = bundle(world);
    let look = examine(world, inspect, bundle.as_ref().map_err(|why| *why)).await?;
    if let Ok(bundle) = &bundle {
        let process = if look.wants_restarts() { process(world, inspect, &look, bundle) } else { None };
        if let Delivery::Due { place, before } = &look.delivery {
            deliver(world, inspect, place, before.is_some(), bundle).await?;
        }
        match process.map(|seen| (look.restart_for(&seen, &bundle.target), seen)) {
            None | Some((Restart::NotNeeded, _)) => {}
            Some((why @ Restart::InVain, _)) => {
                say(memory, why.to_string(), |why| warn!(why, "it is not restarted again"));
                memory.settled = Some(moment);
                return Ok(None);
            }
            Some((why, seen)) => {
                return restart(world, inspect, seen, &bundle.target, why, memory, restarts).await;
            }
        }
    }
    report(&look, inspect.name(), memory);
    (memory.failures, memory.doubt, memory.settled) = (0, None, Some(moment));
    Ok(None)
}

/// What a human should know, once.
fn report(look: &Look, name: &ContainerName, memory: &mut Memory) {
    let refused = match &look.delivery {
        Delivery::Refused(refused) => Some(refused.to_string()),
        // That does not pass by itself.
        Delivery::NoBundle(why @ Withheld::PrivateKey) => Some(why.to_string()),
        _ => None,
    };
    let stale = (!look.stale.is_empty()).then(|| stale_text(&look.stale, name));
    match (refused, stale) {
        (Some(why), _) => say(memory, why, |why| warn!(why, "it is not given the trust bundle")),
        (None, Some(why)) => say(memory, why, |why| warn!(why, "it does not see the CA of today")),
        (None, None) if matches!(look.delivery, Delivery::NoBundle(_)) => {}
        (None, None) => {
            if memory.said.take().is_some() {
                info!("it has the trust bundle of today");
            }
        }
    }
}

/// What is wrong with a single file that was replaced, and what to do.
pub fn stale_text(destinations: &[String], name: &ContainerName) -> String {
    format!(
        "the file that it mounts at {} was replaced by another after it started, and it still sees the former one: restart it (docker restart {name})",
        destinations.join(", ")
    )
}

/// The bundle on disk, if it may be handed out.
fn bundle(world: &World) -> Result<Bundle, Withheld> {
    let path = world.roots.bundle();
    let read = || {
        let (before, bytes) = (stamp::of(&path)?, TrustBundle::open(path.clone()).read().ok()??);
        let after = stamp::of(&path).filter(|after| *after == before)?;
        Some((bytes, after))
    };
    let (bytes, stamp) = read().ok_or(Withheld::NotInOrder)?;
    let certificates = client::certificates_of(&bytes, world.authority().roots.first())?;
    Ok(Bundle { bytes, target: Target { certificates, device: stamp.device, inode: stamp.inode } })
}

async fn examine(
    world: &World,
    inspect: &Inspect,
    bundle: Result<&Bundle, Withheld>,
) -> Result<Look, DockerError> {
    let stale = stale(world, inspect).await?;
    let client = client::asked(&matching::read(&world.settings.matches, inspect), &inspect.labels());
    let delivery = match (&client, bundle) {
        (None, _) => Delivery::NotAsked,
        (Some(client), bundle) => delivery(world, inspect, client, bundle).await?,
    };
    Ok(Look { client, delivery, stale, restart: Restart::NotNeeded })
}

async fn delivery(
    world: &World,
    inspect: &Inspect,
    client: &Client,
    bundle: Result<&Bundle, Withheld>,
) -> Result<Delivery, DockerError> {
    let ours = world.roots.bundle();
    let refused = |why| {
        let (path, bundle) = (client.path.clone(), ours.display().to_string());
        Delivery::Refused(Refused { why, path, bundle })
    };
    let way = |path: &str| client::way(inspect, path, |source| is_bundle(&ours, source));
    match way(&client.path) {
        Way::Mounted => return Ok(Delivery::Mounted),
        Way::Refused(why) => return Ok(refused(why)),
        Way::Deliver => {}
    }
    let bundle = match bundle {
        Ok(bundle) => bundle,
        Err(why) => return Ok(Delivery::NoBundle(why)),
    };
    let Some(place) = delivery::locate(&world.docker, inspect.id(), &client.path).await? else {
        return Ok(refused(Obstacle::Unfit));
    };
    // A link in the container's folders may lead into a mount.
    match way(&place.path()) {
        Way::Mounted => return Ok(Delivery::Mounted),
        Way::Refused(why) => return Ok(refused(why)),
        Way::Deliver => {}
    }
    Ok(match delivery::held(&world.docker, inspect.id(), &place).await? {
        Held::Unfit => refused(Obstacle::Unfit),
        Held::Nothing => Delivery::Due { place, before: None },
        Held::Something => Delivery::Due { place, before: Some(Vec::new()) },
        Held::File(content) if content == bundle.bytes => Delivery::Current,
        Held::File(content) => Delivery::Due { place, before: Some(client::certificates_in(&content)) },
    })
}

/// Where its process sees a file that was replaced.
async fn stale(world: &World, inspect: &Inspect) -> Result<Vec<String>, DockerError> {
    let bundle = world.roots.bundle();
    let mounts = inspect.mounts();
    let single: Vec<_> = mounts
        .into_iter()
        .filter(|mount| mount.kind == "bind" && is_bundle(&bundle, &mount.source))
        .map(|mount| mount.destination)
        .collect();
    if single.is_empty() || !inspect.running() || inspect.pid() <= 0 {
        return Ok(Vec::new());
    }
    // While there is no file, nobody can see it.
    let Ok(current) = mountinfo::origin(&bundle) else { return Ok(Vec::new()) };
    let is_stale =
        |point: &String| matches!(mountinfo::is_stale(inspect.pid(), point, &current), Ok(Some(true)));
    let found: Vec<_> = single.into_iter().filter(is_stale).collect();
    if found.is_empty() {
        return Ok(found);
    }
    // Was it that process all the time? The number of one that ended is given to another.
    let now = world.docker.inspect(inspect.id().as_str()).await?;
    let same = now.is_some_and(|now| now.pid() == inspect.pid() && now.started_at() == inspect.started_at());
    let unchanged = mountinfo::origin(&bundle).is_ok_and(|now| now == current);
    Ok(if same && unchanged { found } else { Vec::new() })
}

/// The record of the process that runs, of a container that is to be restarted for a new CA; made before anything is
/// delivered, so that nothing is forgotten if we are killed in between.
fn process(world: &World, inspect: &Inspect, look: &Look, bundle: &Bundle) -> Option<Seen> {
    let started_at = inspect.started_at().filter(|_| inspect.state() == State::Running)?;
    let known = seen::read(&world.roots.state, inspect.id());
    if let Some(known) = known.as_ref().filter(|known| known.started_at == started_at) {
        return Some(known.clone());
    }
    let before = match &look.delivery {
        Delivery::Due { before, .. } => before.clone(),
        _ => None,
    };
    let seen = Seen {
        started_at,
        // Where there was nothing, it was not the CA that changed.
        certificates: before.unwrap_or_else(|| bundle.target.certificates.clone()),
        restarted_for: known.and_then(|known| known.restarted_for),
    };
    match seen::write(&world.roots.state, inspect.id(), &seen) {
        Ok(()) => Some(seen),
        Err(error) => {
            warn!(error = %with_causes(&error), "without a record of what it has seen it is not restarted");
            None
        }
    }
}

async fn deliver(
    world: &World,
    inspect: &Inspect,
    place: &Place,
    replaces: bool,
    bundle: &Bundle,
) -> Result<(), DockerError> {
    let (docker, id) = (&world.docker, inspect.id());
    let staged = (inspect.state() == State::Running).then(|| client::staged(place.name()));
    delivery::deliver(docker, id, place, &bundle.bytes, staged.as_deref(), clock::now()).await?;
    if delivery::held(docker, id, &place.made()).await? != Held::File(bundle.bytes.clone()) {
        return Err(DockerError::unproved(
            "put",
            &place.path(),
            "what is there afterwards is something else",
        ));
    }
    let what = if replaces {
        "the trust bundle in it was brought up to date"
    } else {
        "the trust bundle was put into it"
    };
    crash::point(&format!("delivered {}", inspect.name()));
    info!(path = place.path(), certificates = bundle.target.certificates.len(), "{what}");
    Ok(())
}

async fn restart(
    world: &World,
    inspect: &Inspect,
    mut seen: Seen,
    target: &Target,
    why: Restart,
    memory: &mut Memory,
    restarts: &Mutex<()>,
) -> Result<Option<Duration>, DockerError> {
    let Ok(_turn) = restarts.try_lock() else {
        memory.waits = true;
        return Ok(Some(SOON));
    };
    let Some(_hand) = world.take_in_hand(inspect.id()) else { return Ok(Some(SOON)) };
    // Docker would start one that its user has stopped by now.
    let now = world.docker.inspect(inspect.id().as_str()).await?;
    let still = |now: &Inspect| now.state() == State::Running && now.started_at() == inspect.started_at();
    if world.is_stopping() || !now.as_ref().is_some_and(still) {
        return Ok(Some(SOON));
    }
    // First, so that it is not restarted again and again, whatever happens to us.
    seen.restarted_for = Some(target.clone());
    if let Err(error) = seen::write(&world.roots.state, inspect.id(), &seen) {
        say(memory, with_causes(&error), |why| warn!(why, "without a record of it, it is not restarted"));
        return Ok(None);
    }
    let grace = inspect.config()["StopTimeout"].as_i64().unwrap_or(GRACE);
    match world.docker.restart(inspect.id(), grace).await {
        Ok(()) => {
            info!(reason = %why, "restarted");
            (memory.failures, memory.doubt, memory.said) = (0, None, None);
            // Its start brings us back, and so does this.
            Ok(Some(SOON))
        }
        Err(error) => {
            let now = world.docker.inspect(inspect.id().as_str()).await?;
            if now.is_some_and(|now| now.state() == State::Exited && now.started_at() == inspect.started_at())
            {
                memory.down = 1;
                return Ok(Some(backoff(1)));
            }
            // Not even stopped: it may be tried again.
            seen.restarted_for = None;
            let _ = seen::write(&world.roots.state, inspect.id(), &seen);
            Err(error)
        }
    }
}

/// We stopped it, so we start it.
async fn start_again(world: &World, inspect: &Inspect, memory: &mut Memory) -> Option<Duration> {
    match world.docker.start(inspect.id()).await {
        Ok(()) => {
            info!("it is up again");
            (memory.down, memory.said) = (0, None);
            Some(SOON)
        }
        Err(error) => {
            memory.down += 1;
            let name = inspect.name();
            say(memory, error.to_string(), |why| {
                tracing::error!(
                    why,
                    "it was stopped to be restarted for the new CA, and does not start: mend the cause, then docker start {name}"
                );
            });
            (memory.down <= MOST_STARTS).then(|| backoff(memory.down))
        }
    }
}

fn say(memory: &mut Memory, text: String, tell: impl FnOnce(&str)) {
    if memory.said.as_deref() != Some(&text) {
        tell(&text);
        memory.said = Some(text);
    }
}
