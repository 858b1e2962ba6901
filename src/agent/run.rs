//! The daemon's loop: events, runs and deadlines meet here, and only here is the queue touched.
//!
//! # Guarantees
//! - Subscribe first, then list: nothing that happens in between is missed. When the stream ends, for whatever
//!   reason, the loop connects and lists again, for ever.
//! - One run per container at a time; what happens meanwhile becomes one more run.
//! - Nothing here waits for a container: looking, issuing and redeploying are runs of their own.
//! - A signal to stop lets the redeploys under way come to their end.

mod cas;
mod files;
mod questions;
mod repairs;
mod signed;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};

pub use self::cas::Stamps;
use self::{
    cas::{establish, tell_of, warnings},
    files::{changed, watch},
    questions::Questions,
    repairs::Repairs,
};
use super::{
    candidate, client,
    clients::Clients,
    reconcile::{Memory, reconcile},
    rollover::Rollover,
    sweep::is_left,
    world::World,
};
use crate::{
    config::Settings,
    decide::queue::{Queue, backoff},
    host::{
        castore::{Authority, CaStore, CaStoreError, Rules},
        clock,
        docker::{Docker, DockerError, Event, EventKind, Listed},
        journal, requests,
        stamp::Stamp,
        systemd::Notifier,
        watch::Watch,
    },
    model::{ContainerId, ContainerName},
    shown::with_causes,
};

/// While something takes long, the service manager is told this often that it goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long no database is looked after before those are settled that an earlier run left.
const LONGEST_RECOVERY: Duration = Duration::from_secs(120);
/// How long what is under way may keep the agent from ending.
const LONGEST_END: Duration = Duration::from_secs(15 * 60);

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
    let (authority, stamps) = authority(&settings, host_name)?;
    tokio::pin!(stop);
    let (docker, engine) = tokio::select! {
        biased;
        connected = with_watchdog(notifier, connect(socket, notifier)) => connected,
        () = &mut stop => return Ok(()),
    };
    let world = Arc::new(World::new(docker, engine, settings, authority));
    let watch = watch(&world);
    serve(world, stamps, host_name, watch, notifier, stop).await
}

/// The CA to begin with, and the files that say so.
pub fn authority(settings: &Settings, host_name: &str) -> Result<(Authority, Stamps), RunError> {
    // As they are before they are read: whatever changes from here on is looked at.
    let stamps = Stamps::of(&settings.roots);
    match establish(settings, host_name) {
        Ok(authority) => {
            authority.notices.iter().for_each(tell_of);
            let stamps = stamps.when_read(authority.found);
            Ok((authority, stamps))
        }
        Err(error) => match CaStore::recorded(
            &settings.roots,
            &Rules::new(&settings.certificates, host_name),
            clock::now(),
        ) {
            // Renewals must not wait for somebody to mend that file.
            Ok(Some(authority)) => {
                let error = with_causes(&error);
                error!(%error, "the CA cannot be brought in order: the one on record stays in force");
                Ok((authority, Stamps::default()))
            }
            _ => Err(error.into()),
        },
    }
}

/// All that [`run`] does once there is a CA and a Docker. Without a `watch` changes of files are seen at the slow list.
pub async fn serve(
    world: Arc<World>,
    stamps: Stamps,
    host_name: &str,
    watch: Option<Watch>,
    notifier: &Notifier,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    tokio::pin!(stop);
    let mut repairs = Repairs::default();
    if !recover(&world, &mut repairs, notifier, &mut stop).await {
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
    let mut agent = Agent::new(world, stamps, host_name.to_owned(), watch, repairs);
    let lost = agent.turn(notifier, stop).await;
    tell(notifier.stopping());
    agent.finish(notifier).await;
    lost
}

/// Settles what an earlier run left; whether to go on. A database may be down in the middle of it, so that a signal
/// to stop ends only what waits for Docker alone.
async fn recover(
    world: &Arc<World>,
    repairs: &mut Repairs,
    notifier: &Notifier,
    stop: impl Future<Output = ()>,
) -> bool {
    repairs.recover(world);
    tokio::select! {
        biased;
        settled = with_watchdog(notifier, timeout(LONGEST_RECOVERY, repairs.finish())) => {
            if settled.is_err() {
                warn!("what an earlier run left cannot be settled yet: that goes on beside the other databases");
            }
            true
        }
        () = stop => {
            world.stop();
            with_watchdog(notifier, repairs.finish()).await;
            false
        }
    }
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
            biased;
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
    /// May be ours, or may have to be released.
    ours: bool,
    /// Reads the trust bundle: labelled as a client, or mounts the file.
    client: bool,
    state: String,
}

struct Ended {
    name: ContainerName,
    ordered: bool,
    memory: Memory,
    /// What was in force when it began.
    authority: Arc<Authority>,
    again: Option<Duration>,
}

struct Agent {
    world: Arc<World>,
    host_name: String,
    queue: Queue<ContainerName, Instant>,
    memories: BTreeMap<ContainerName, Memory>,
    known: BTreeMap<ContainerId, Known>,
    /// The container that last had a name, as far as is known.
    by_name: BTreeMap<ContainerName, ContainerId>,
    runs: JoinSet<Ended>,
    questions: Questions,
    running: HashMap<tokio::task::Id, ContainerName>,
    /// Asked for by a human: to be done whatever the policy and earlier setbacks say.
    ordered: HashSet<ContainerName>,
    repairs: Repairs,
    clients: Clients,
    watch: Option<Watch>,
    stamps: Stamps,
    /// How often in a row the CA could not be brought in order: not, once, or more often.
    failures: u32,
    rollover: Rollover,
    /// What is wrong with the CAs and was said: once for as long as it lasts.
    said: HashSet<String>,
    /// When what somebody writes is to be looked at again.
    look_again: Option<Instant>,
    /// What came back signed for single databases, as it was seen last.
    signed: HashMap<ContainerName, Stamp>,
    signed_again: Option<Instant>,
}

impl Agent {
    fn new(
        world: Arc<World>,
        stamps: Stamps,
        host_name: String,
        watch: Option<Watch>,
        repairs: Repairs,
    ) -> Self {
        let parallel: NonZeroUsize = world.settings.docker.parallel;
        let said = warnings(&world.authority());
        let mut rollover = Rollover::default();
        rollover.reopen(std::iter::empty());
        Self {
            clients: Clients::new(Arc::clone(&world)),
            questions: Questions::new(Arc::clone(&world)),
            world,
            host_name,
            queue: Queue::new(parallel),
            memories: BTreeMap::new(),
            known: BTreeMap::new(),
            by_name: BTreeMap::new(),
            runs: JoinSet::new(),
            running: HashMap::new(),
            ordered: HashSet::new(),
            repairs,
            watch,
            stamps,
            failures: 0,
            rollover,
            said,
            look_again: None,
            signed: HashMap::new(),
            signed_again: None,
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
                        biased;
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
                biased;
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
            let look_again =
                self.look_again.into_iter().chain(self.signed_again).chain(self.next_change()).min();
            // In this order, so that a flood of events keeps nothing else waiting.
            tokio::select! {
                biased;
                () = at(next_watchdog) => {
                    tell(notifier.watchdog());
                    next_watchdog = watchdog.map(|interval| Instant::now() + interval);
                }
                Some(ended) = self.runs.join_next_with_id() => self.ended(ended),
                Some((id, known)) = self.questions.answer() => self.answered(id, known),
                () = self.clients.work() => {}
                () = at(deadline) => {}
                () = at(look_again) => self.check_files(),
                () = changed(self.watch.as_ref()) => self.check_files(),
                () = sleep_until(next_list) => {
                    next_list = Instant::now() + resync;
                    if let Err(error) = with_watchdog(notifier, self.list(false)).await {
                        return error.to_string();
                    }
                }
                event = events.next() => match event {
                    Some(Ok(event)) => self.heard(event),
                    Some(Err(error)) => return error.to_string(),
                    None => return "the stream of events ended".to_owned(),
                },
            }
        }
    }

    /// The truth: what there is. With `all` every container of ours is looked at, else those that changed.
    async fn list(&mut self, all: bool) -> Result<(), DockerError> {
        if all {
            self.rollover.listed(false);
        }
        self.check_files();
        let listed = self.world.docker.list(&self.world.settings.docker.only).await?;
        let now = Instant::now();
        let before = std::mem::take(&mut self.known);
        let names_before = std::mem::take(&mut self.by_name);
        let mut left = false;
        for listed in listed {
            let found = self.known_of(&listed);
            let changed = before
                .get(&listed.id)
                .is_none_or(|before| before.name != found.name || before.state != found.state);
            if found.ours && (all || changed) {
                self.poke(&found.name, now);
            }
            if found.client && (all || changed) {
                self.clients.poke(&listed.id);
            }
            left |= is_left(&listed);
            self.remember(listed.id, found);
        }
        // What could not be settled when it was tried, for Docker refused it, say, is tried again.
        if journal::has_any(&self.world.roots.journal()) {
            self.repairs.recover(&self.world);
        } else if left {
            self.repairs.sweep(&self.world);
        }
        for name in
            names_before.into_keys().filter(|name| !self.by_name.contains_key(name)).collect::<Vec<_>>()
        {
            self.forget(&name);
        }
        self.world.users.retain(|id| self.known.contains_key(id));
        self.clients.retain(|id| self.known.contains_key(id));
        if all {
            self.rollover.listed(true);
        }
        self.settle_rollover();
        self.check_signed();
        self.sweep_requests();
        Ok(())
    }

    /// Has it looked at; until then it is not known what it serves.
    fn poke(&mut self, name: &ContainerName, now: Instant) {
        self.rollover.doubt(name);
        self.queue.poke(name.clone(), now);
    }

    fn remember(&mut self, id: ContainerId, known: Known) {
        self.by_name.insert(known.name.clone(), id.clone());
        self.known.insert(id, known);
    }

    fn known_of(&self, listed: &Listed) -> Known {
        Known {
            name: listed.name.clone(),
            ours: candidate::listed(&self.world, listed),
            client: client::listed(&self.world, listed),
            state: listed.state.clone(),
        }
    }

    fn heard(&mut self, event: Event) {
        if event.kind == EventKind::Destroyed {
            self.questions.forget(&event.id);
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
                if known.client {
                    self.clients.poke(&event.id);
                }
                if let Some(name) = known.ours.then(|| known.name.clone()) {
                    self.poke(&name, Instant::now());
                }
            }
            _ => self.questions.ask(event.id),
        }
    }

    fn answered(&mut self, id: ContainerId, known: Option<Known>) {
        if let Some(known) = known {
            if known.ours {
                self.poke(&known.name, Instant::now());
            }
            if known.client {
                self.clients.poke(&id);
            }
            self.remember(id, known);
        }
    }

    fn start_due(&mut self) {
        for name in self.queue.take_due(Instant::now()) {
            let world = Arc::clone(&self.world);
            let memory = self.memories.remove(&name).unwrap_or_default();
            let authority = self.world.authority();
            let ordered = self.ordered.contains(&name);
            let task = {
                let name = name.clone();
                self.runs.spawn(async move {
                    let (memory, again) = reconcile(&world, &name, memory, ordered).await;
                    Ended { name, ordered, memory, authority, again }
                })
            };
            self.running.insert(task.id(), name);
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        match ended {
            Ok((task, Ended { name, ordered, memory, authority, again })) => {
                self.running.remove(&task);
                // Not what was asked for while the run was under way: that becomes the next one.
                if ordered && self.ordered.remove(&name) {
                    requests::done(&self.world.roots, &name);
                }
                self.queue.finished(&name, again.map(|again| Instant::now() + again));
                if self.by_name.contains_key(&name) {
                    let in_line = memory.in_line() && authority.serves_as(&self.world.authority());
                    self.rollover.seen(&name, in_line);
                    self.memories.insert(name, memory);
                }
                self.settle_rollover();
            }
            Err(failure) => {
                if let Some(name) = self.running.remove(&failure.id()) {
                    error!(container = %name, %failure, "a run ended by a defect of dbssl: please report it");
                    self.queue.finished(&name, Some(Instant::now() + Duration::from_secs(300)));
                    // Whatever it had begun is in the journal, and in nobody's hand any more.
                    self.repairs.recover(&self.world);
                }
            }
        }
    }

    fn forget(&mut self, name: &ContainerName) {
        self.queue.forget(name);
        self.memories.remove(name);
        self.rollover.forget(name);
        self.settle_rollover();
    }

    fn status(&self) -> String {
        let ours = self.known.values().filter(|known| known.ours).count();
        format!("{ours} containers looked after, {} being worked on", self.queue.running())
    }

    /// Lets what is under way come to its end. What waits for Docker alone is left to the journal.
    async fn finish(&mut self, notifier: &Notifier) {
        self.world.stop();
        let under_way = self.runs.len() + self.repairs.under_way() + self.clients.under_way();
        if under_way > 0 {
            info!(under_way, "stopping: waiting for what is under way");
        }
        let (runs, repairs, clients) = (&mut self.runs, &mut self.repairs, &mut self.clients);
        let all = async {
            while runs.join_next().await.is_some() {}
            repairs.finish().await;
            clients.finish().await;
        };
        if tokio::time::timeout(LONGEST_END, with_watchdog(notifier, all)).await.is_err() {
            warn!("stopping in the middle of a redeploy: the next start settles it");
        }
        info!("stopped");
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
