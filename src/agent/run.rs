//! The daemon's loop: events, runs and deadlines meet here, and only here is the queue touched.
//!
//! # Guarantees
//! - Subscribe first, then list: nothing that happens in between is missed. When the stream ends, for whatever
//!   reason, the loop connects and lists again, for ever.
//! - One run per container at a time; what happens meanwhile becomes one more run.
//! - Nothing here waits for a container: looking, issuing and redeploying are runs of their own.
//! - A signal to stop lets the redeploys under way come to their end.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};

use super::{
    reconcile::{Memory, reconcile},
    settle,
    world::World,
};
use crate::{
    config::Settings,
    decide::queue::{Queue, backoff},
    host::{
        castore::{Authority, CaStore, CaStoreError},
        clock,
        docker::{Docker, DockerError, Event, EventKind, Listed},
        requests,
        systemd::Notifier,
        watch::Watch,
    },
    model::{ContainerId, ContainerName},
};

/// The prefix of every label that is ours.
const LABELS: &str = "dbssl.";
/// While something takes long, the service manager is told this often that it goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what is under way may keep the agent from ending.
const LONGEST_END: Duration = Duration::from_secs(15 * 60);
/// After a file changed, until it is read.
const QUIET: Duration = Duration::from_millis(100);

/// Why the daemon cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Ca(#[from] CaStoreError),
    #[error("the Docker Engine has changed: {0}")]
    Engine(DockerError),
}

/// Runs until `stop` is done. Docker need not be there yet, nor stay there.
pub async fn run(
    settings: Settings,
    socket: &std::path::Path,
    host_name: &str,
    notifier: &Notifier,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let authority = match establish(&settings, host_name) {
        Ok(authority) => authority,
        Err(error) => match CaStore::recorded(&settings.roots, clock::now()) {
            // Renewals must not wait for somebody to mend that file.
            Ok(Some(authority)) => {
                error!(%error, "the CA cannot be brought in order: the one on record stays in force");
                authority
            }
            _ => return Err(error.into()),
        },
    };
    tokio::pin!(stop);
    let (docker, engine) = tokio::select! {
        connected = with_watchdog(notifier, connect(socket, notifier)) => connected,
        () = &mut stop => return Ok(()),
    };
    let world = Arc::new(World::new(docker, engine, settings, authority));
    if !recover(&world, notifier, &mut stop).await {
        return Ok(());
    }
    // Whoever asked an agent that is gone has seen it fail.
    requests::clear(&world.roots);
    tell(notifier.ready());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        ca = world.authority().issuing.certificate().subject(),
        "dbssl is ready"
    );
    let mut agent = Agent::new(world, host_name.to_owned());
    let lost = agent.turn(notifier, stop).await;
    tell(notifier.stopping());
    agent.finish(notifier).await;
    lost
}

/// Settles what an earlier run left; whether to go on. A database may be down in the middle of it, so that a signal
/// to stop ends only what waits for Docker alone.
async fn recover(world: &World, notifier: &Notifier, stop: impl Future<Output = ()>) -> bool {
    let recovery = with_watchdog(notifier, settle::recover(world));
    tokio::pin!(recovery);
    tokio::select! {
        () = &mut recovery => true,
        () = stop => {
            world.stop();
            recovery.await;
            false
        }
    }
}

/// Establishes the CA and says what a human should know about it.
fn establish(settings: &Settings, host_name: &str) -> Result<Authority, CaStoreError> {
    let authority = CaStore::establish(
        &settings.roots,
        host_name,
        settings.certificates.key_type,
        settings.certificates.ca_lifetime.try_into().unwrap_or(time::Duration::days(3650)),
        clock::now(),
    )?;
    for notice in &authority.notices {
        if notice.is_warning() {
            warn!("{notice}");
        } else {
            info!("{notice}");
        }
    }
    Ok(authority)
}

/// Connects, for as long as it takes. The service manager must not wait for Docker: it may be started after us.
async fn connect(socket: &std::path::Path, notifier: &Notifier) -> (Docker, crate::host::docker::EngineInfo) {
    let mut attempt = 0;
    loop {
        let connected = async {
            let docker = Docker::connect(socket).await?;
            let engine = docker.info().await?;
            Ok::<_, DockerError>((docker, engine))
        };
        match connected.await {
            Ok(connected) => return connected,
            Err(error) => {
                attempt += 1;
                if attempt == 1 {
                    warn!(%error, "waiting for Docker");
                    tell(notifier.ready());
                    tell(notifier.status("waiting for Docker"));
                }
                tokio::time::sleep(backoff(attempt).min(Duration::from_secs(10))).await;
            }
        }
    }
}

async fn with_watchdog<T>(notifier: &Notifier, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let interval = notifier.watchdog_interval().unwrap_or(PATIENCE).min(PATIENCE);
    loop {
        tell(notifier.watchdog());
        tell(notifier.extend_timeout(PATIENCE * 2));
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// The service manager not listening is no reason to stop.
fn tell(told: Result<(), crate::host::systemd::Error>) {
    if let Err(error) = told {
        debug!(%error, "the service manager was not told");
    }
}

/// What the loop knows of a container.
#[derive(Clone, Debug)]
struct Known {
    name: ContainerName,
    /// Carries a label of ours, or may have to be released.
    ours: bool,
    state: String,
}

struct Ended {
    name: ContainerName,
    ordered: bool,
    memory: Memory,
    again: Option<Duration>,
}

struct Agent {
    world: Arc<World>,
    host_name: String,
    queue: Queue<ContainerName, Instant>,
    memories: HashMap<ContainerName, Memory>,
    known: HashMap<ContainerId, Known>,
    /// The container that last had a name, as far as is known.
    by_name: HashMap<ContainerName, ContainerId>,
    runs: JoinSet<Ended>,
    /// Containers that an event named and whose name has to be asked for.
    questions: JoinSet<(ContainerId, Option<Known>)>,
    running: HashMap<tokio::task::Id, ContainerName>,
    /// Asked for by a human: to be done whatever the policy and earlier setbacks say.
    ordered: HashSet<ContainerName>,
    repairs: JoinSet<()>,
    watch: Option<Watch>,
    bundle_stamp: Option<Stamp>,
}

/// Changes when the trust bundle may have changed: device, inode, length, time of change in nanoseconds.
type Stamp = (u64, u64, u64, i128);

impl Agent {
    fn new(world: Arc<World>, host_name: String) -> Self {
        let parallel: NonZeroUsize = world.settings.docker.parallel;
        let bundle_stamp = stamp(&world);
        let watch = watch(&world);
        Self {
            world,
            host_name,
            queue: Queue::new(parallel),
            memories: HashMap::new(),
            known: HashMap::new(),
            by_name: HashMap::new(),
            runs: JoinSet::new(),
            questions: JoinSet::new(),
            running: HashMap::new(),
            ordered: HashSet::new(),
            repairs: JoinSet::new(),
            watch,
            bundle_stamp,
        }
    }

    /// Sessions with Docker, one after the other, until `stop` is done.
    async fn turn(&mut self, notifier: &Notifier, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        tokio::pin!(stop);
        let mut attempt = 0;
        loop {
            let events = self.world.docker.events(clock::now(), &self.world.settings.docker.only);
            match with_watchdog(notifier, self.list(true)).await {
                Ok(()) => {
                    if attempt > 0 {
                        info!("Docker is back");
                    }
                    attempt = 0;
                    tokio::select! {
                        why = self.session(events, notifier) => warn!(why, "lost Docker: connecting again"),
                        () = &mut stop => return Ok(()),
                    }
                }
                // The engine was replaced by one that does not speak this version of the API any more.
                Err(error) if error.status() == Some(400) => return Err(RunError::Engine(error)),
                Err(error) => {
                    if attempt == 0 {
                        warn!(%error, "cannot list the containers: trying again");
                    }
                }
            }
            attempt += 1;
            let wait = backoff(attempt).min(Duration::from_secs(10));
            tokio::select! {
                () = with_watchdog(notifier, tokio::time::sleep(wait)) => {}
                () = &mut stop => return Ok(()),
            }
        }
    }

    /// Works off events, runs and deadlines until the stream of events ends; why it did.
    async fn session(
        &mut self,
        events: impl Stream<Item = Result<Event, DockerError>>,
        notifier: &Notifier,
    ) -> String {
        tokio::pin!(events);
        let resync = self.world.settings.docker.resync;
        let mut next_list = Instant::now() + resync;
        let watchdog = notifier.watchdog_interval();
        let mut next_watchdog = watchdog.map(|_| Instant::now());
        let mut told = None;
        loop {
            self.start_due();
            let status = self.status();
            if told.as_ref() != Some(&status) {
                tell(notifier.status(&status));
                told = Some(status);
            }
            let deadline = self.queue.next_deadline();
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.heard(event),
                    Some(Err(error)) => return error.to_string(),
                    None => return "the stream of events ended".to_owned(),
                },
                Some(ended) = self.runs.join_next_with_id() => self.ended(ended),
                Some(answer) = self.questions.join_next() => self.answered(answer),
                () = at(deadline) => {}
                () = changed(self.watch.as_ref()) => {
                    // Whoever writes may not have done yet; more changes meanwhile are one.
                    tokio::time::sleep(QUIET).await;
                    self.check_files();
                }
                () = sleep_until(next_list) => {
                    next_list = Instant::now() + resync;
                    if let Err(error) = with_watchdog(notifier, self.list(false)).await {
                        return error.to_string();
                    }
                }
                () = at(next_watchdog) => {
                    tell(notifier.watchdog());
                    next_watchdog = watchdog.map(|interval| Instant::now() + interval);
                }
            }
        }
    }

    /// The truth: what there is. With `all` every container of ours is looked at, else those that changed.
    async fn list(&mut self, all: bool) -> Result<(), DockerError> {
        self.check_files();
        let listed = self.world.docker.list(&self.world.settings.docker.only).await?;
        let now = Instant::now();
        let before = std::mem::take(&mut self.known);
        let names_before = std::mem::take(&mut self.by_name);
        for listed in listed {
            let found = self.known_of(&listed);
            let changed = before
                .get(&listed.id)
                .is_none_or(|before| before.name != found.name || before.state != found.state);
            if found.ours && (all || changed) {
                self.queue.poke(found.name.clone(), now);
            }
            self.remember(listed.id, found);
        }
        for name in
            names_before.into_keys().filter(|name| !self.by_name.contains_key(name)).collect::<Vec<_>>()
        {
            self.forget(&name);
        }
        Ok(())
    }

    fn remember(&mut self, id: ContainerId, known: Known) {
        self.by_name.insert(known.name.clone(), id.clone());
        self.known.insert(id, known);
    }

    fn known_of(&self, listed: &Listed) -> Known {
        Known {
            name: listed.name.clone(),
            ours: self.concerns(&listed.name, listed.labels.keys().any(|label| label.starts_with(LABELS))),
            state: listed.state.clone(),
        }
    }

    /// A container without labels concerns us only if one of its name was ours.
    fn concerns(&self, name: &ContainerName, labelled: bool) -> bool {
        labelled || self.world.roots.certificates(name).exists()
    }

    fn heard(&mut self, event: Event) {
        if event.kind == EventKind::Destroyed {
            if let Some(known) = self.known.remove(&event.id)
                && self.by_name.get(&known.name) == Some(&event.id)
            {
                self.by_name.remove(&known.name);
                self.forget(&known.name);
            }
            return;
        }
        match self.known.get(&event.id) {
            Some(known) if event.kind == EventKind::Other => {
                if known.ours {
                    self.queue.poke(known.name.clone(), Instant::now());
                }
            }
            _ => {
                let world = Arc::clone(&self.world);
                self.questions.spawn(async move {
                    let found = world.docker.inspect(event.id.as_str()).await.ok().flatten();
                    let found = found.filter(|found| world.concerns(found));
                    let known = found.map(|found| Known {
                        name: found.name().clone(),
                        ours: found.labels().keys().any(|label| label.starts_with(LABELS)),
                        // Differs from any state, so that the next list looks again.
                        state: String::new(),
                    });
                    (event.id, known)
                });
            }
        }
    }

    fn answered(&mut self, answer: Result<(ContainerId, Option<Known>), tokio::task::JoinError>) {
        // A question that failed is asked again by the next list.
        if let Ok((id, Some(mut known))) = answer {
            known.ours = self.concerns(&known.name, known.ours);
            if known.ours {
                self.queue.poke(known.name.clone(), Instant::now());
            }
            self.remember(id, known);
        }
    }

    fn start_due(&mut self) {
        for name in self.queue.take_due(Instant::now()) {
            let world = Arc::clone(&self.world);
            let memory = self.memories.remove(&name).unwrap_or_default();
            let ordered = self.ordered.contains(&name);
            let task = {
                let name = name.clone();
                self.runs.spawn(async move {
                    let (memory, again) = reconcile(&world, &name, memory, ordered).await;
                    Ended { name, ordered, memory, again }
                })
            };
            self.running.insert(task.id(), name);
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        match ended {
            Ok((task, Ended { name, ordered, memory, again })) => {
                self.running.remove(&task);
                // Not what was asked for while the run was under way: that becomes the next one.
                if ordered && self.ordered.remove(&name) {
                    requests::done(&self.world.roots, &name);
                }
                self.queue.finished(&name, again.map(|again| Instant::now() + again));
                if self.by_name.contains_key(&name) {
                    self.memories.insert(name, memory);
                }
            }
            Err(failure) => {
                if let Some(name) = self.running.remove(&failure.id()) {
                    error!(container = %name, %failure, "a run ended by a defect of dbssl: please report it");
                    self.queue.finished(&name, Some(Instant::now() + Duration::from_secs(300)));
                    // Whatever it had begun is in the journal, and in nobody's hand any more.
                    let world = Arc::clone(&self.world);
                    self.repairs.spawn(async move { settle::recover(&world).await });
                }
            }
        }
    }

    fn forget(&mut self, name: &ContainerName) {
        self.queue.forget(name);
        self.memories.remove(name);
    }

    /// Looks at the files that others write for us.
    fn check_files(&mut self) {
        self.check_bundle();
        let now = Instant::now();
        for name in requests::all(&self.world.roots) {
            if self.ordered.insert(name.clone()) {
                self.queue.poke(name, now);
            }
        }
    }

    /// Somebody may have replaced the trust bundle: then our CA has to go into it again, and every database
    /// has to be looked at.
    fn check_bundle(&mut self) {
        let found = stamp(&self.world);
        if found.is_some() && found == self.bundle_stamp {
            return;
        }
        match establish(&self.world.settings, &self.host_name) {
            Ok(authority) => {
                let changed = authority.issuing.certificate() != self.world.authority().issuing.certificate();
                self.world.set_authority(authority);
                if changed {
                    let now = Instant::now();
                    for known in self.known.values().filter(|known| known.ours) {
                        self.queue.poke(known.name.clone(), now);
                    }
                }
            }
            Err(error) => error!(%error, "the CA cannot be brought in order; the former one stays in force"),
        }
        self.bundle_stamp = stamp(&self.world);
    }

    fn status(&self) -> String {
        let ours = self.known.values().filter(|known| known.ours).count();
        format!("{ours} containers with labels of dbssl, {} being worked on", self.queue.running())
    }

    /// Lets what is under way come to its end. What waits for Docker alone is left to the journal.
    async fn finish(&mut self, notifier: &Notifier) {
        self.world.stop();
        let under_way = self.runs.len() + self.repairs.len();
        if under_way > 0 {
            info!(under_way, "stopping: waiting for what is under way");
        }
        let (runs, repairs) = (&mut self.runs, &mut self.repairs);
        let all = async {
            while runs.join_next().await.is_some() {}
            while repairs.join_next().await.is_some() {}
        };
        if tokio::time::timeout(LONGEST_END, with_watchdog(notifier, all)).await.is_err() {
            warn!("stopping in the middle of a redeploy: the next start settles it");
        }
        info!("stopped");
    }
}

/// Watches the trust bundle's folder and its parent, and what `dbssl apply` asks for.
fn watch(world: &World) -> Option<Watch> {
    let data = &world.roots.data;
    let folders = requests::folder(&world.roots).map(|requests| {
        [Some(data.clone()), data.parent().map(Into::into), Some(requests)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    match folders.map(|folders| Watch::folders(&folders)) {
        Ok(Ok(watch)) => Some(watch),
        Ok(Err(error)) => {
            warn!(%error, "changes of files are seen at the slow list only");
            None
        }
        Err(error) => {
            warn!(%error, "changes of files are seen at the slow list only");
            None
        }
    }
}

async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn stamp(world: &World) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(world.roots.bundle()).ok()?;
    let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
    Some((found.dev(), found.ino(), found.len(), changed))
}
