//! The clients' own queue beside the databases': what a client has to wait for never holds a database up.
//!
//! It guarantees what the databases' does: one run per container at a time, a bounded number of them, and no poke is
//! lost. That something happened is a hint; the loop's list and its look at the trust bundle say what there is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::error;

use super::{
    client::{self, Memory},
    world::World,
};
use crate::{
    decide::queue::Queue,
    host::{
        seen,
        stamp::{self, Stamp},
    },
    model::ContainerId,
};

/// After a run that ended by a defect.
const AFTER_A_DEFECT: Duration = Duration::from_secs(300);

struct Ended {
    id: ContainerId,
    memory: Memory,
    again: Option<Duration>,
}

/// All containers that have to do with the trust bundle as its readers.
pub struct Clients {
    world: Arc<World>,
    queue: Queue<ContainerId, Instant>,
    memories: HashMap<ContainerId, Memory>,
    runs: JoinSet<Ended>,
    running: HashMap<tokio::task::Id, ContainerId>,
    restarts: Arc<Mutex<()>>,
    bundle: Option<Stamp>,
}

impl Clients {
    pub fn new(world: Arc<World>) -> Self {
        let queue = Queue::new(world.settings.docker.parallel);
        let bundle = stamp::of(&world.roots.bundle());
        Self {
            world,
            queue,
            memories: HashMap::new(),
            runs: JoinSet::new(),
            running: HashMap::new(),
            restarts: Arc::default(),
            bundle,
        }
    }

    /// Something happened to it.
    pub fn poke(&mut self, id: &ContainerId) {
        self.queue.poke(id.clone(), Instant::now());
    }

    /// Whether the bundle on disk is not the one of the last call.
    pub fn bundle_changed(&mut self) -> bool {
        let found = stamp::of(&self.world.roots.bundle());
        std::mem::replace(&mut self.bundle, found) != found
    }

    /// Those are all that there are.
    pub fn retain(&mut self, is_there: impl Fn(&ContainerId) -> bool) {
        let gone: Vec<_> = self.memories.keys().filter(|id| !is_there(id)).cloned().collect();
        for id in gone {
            self.queue.forget(&id);
            self.memories.remove(&id);
        }
        seen::retain(&self.world.roots.state, is_there);
    }

    /// Works off what is due, for ever; may be dropped at any moment and called again.
    pub async fn work(&mut self) {
        loop {
            self.start_due();
            let deadline = self.queue.next_deadline();
            tokio::select! {
                biased;
                Some(ended) = self.runs.join_next_with_id() => self.ended(ended),
                () = at(deadline) => {}
            }
        }
    }

    /// Lets what is under way come to its end.
    pub async fn finish(&mut self) {
        while self.runs.join_next().await.is_some() {}
    }

    pub fn under_way(&self) -> usize {
        self.runs.len()
    }

    fn start_due(&mut self) {
        for id in self.queue.take_due(Instant::now()) {
            let (world, restarts) = (Arc::clone(&self.world), Arc::clone(&self.restarts));
            let memory = self.memories.remove(&id).unwrap_or_default();
            let task = {
                let id = id.clone();
                self.runs.spawn(async move {
                    let (memory, again) = client::look_after(&world, &id, memory, &restarts).await;
                    Ended { id, memory, again }
                })
            };
            self.running.insert(task.id(), id);
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        match ended {
            Ok((task, Ended { id, memory, again })) => {
                self.running.remove(&task);
                self.queue.finished(&id, again.map(|again| Instant::now() + again));
                self.memories.insert(id, memory);
            }
            Err(failure) => {
                if let Some(id) = self.running.remove(&failure.id()) {
                    error!(container = id.short(), %failure, "a run over a client ended by a defect of dbssl: please report it");
                    self.queue.finished(&id, Some(Instant::now() + AFTER_A_DEFECT));
                }
            }
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
