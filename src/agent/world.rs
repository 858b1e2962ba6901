//! What every part of the agent works on: the engine, the settings, the CA.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{credential::Credential, users::Users};
use crate::{
    config::Settings,
    host::{
        castore::{Authority, Rules},
        docker::{Docker, DockerError, EngineInfo},
        probe::Probe,
    },
    model::{ContainerId, Roots, inspect::Inspect},
};

/// One host's Docker Engine, settings and CA.
#[derive(Debug)]
pub struct World {
    pub docker: Docker,
    pub probe: Probe,
    pub engine: EngineInfo,
    pub settings: Settings,
    pub roots: Roots,
    pub users: Users,
    pub credential: Credential,
    authority: RwLock<Arc<Authority>>,
    in_hand: Mutex<HashSet<ContainerId>>,
    over: Mutex<HashSet<String>>,
    stopping: AtomicBool,
}

/// A container that an operation works on, until this is dropped.
#[derive(Debug)]
pub struct InHand<'a> {
    world: &'a World,
    id: ContainerId,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.world.in_hand.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl World {
    pub fn new(docker: Docker, engine: EngineInfo, settings: Settings, authority: Authority) -> Self {
        let roots = settings.roots.clone();
        Self {
            docker,
            probe: Probe::default(),
            engine,
            settings,
            roots,
            users: Users::default(),
            credential: Credential::default(),
            authority: RwLock::new(Arc::new(authority)),
            in_hand: Mutex::default(),
            over: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether Docker answers, and hangs on one container alone: on whatever was asked about then.
    pub async fn hangs_on_one(&self, error: &DockerError) -> bool {
        error.timed_out() && self.docker.info().await.is_ok()
    }

    /// Takes the container in hand, by its id, since an operation renames it; `None` if another operation has it.
    pub fn take_in_hand(&self, id: &ContainerId) -> Option<InHand<'_>> {
        let fresh = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        fresh.then(|| InHand { world: self, id: id.clone() })
    }

    pub fn is_in_hand(&self, id: &ContainerId) -> bool {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// The operation is settled though its file is still in the journal, which would not let go of it.
    pub fn is_over(&self, operation: &str) -> bool {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).contains(operation)
    }

    pub fn over(&self, operation: String) {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).insert(operation);
    }

    /// The agent is to end: what waits for Docker alone is left to the journal.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether the container exists for this agent (`docker.only`).
    pub fn concerns(&self, inspect: &Inspect) -> bool {
        let only = &self.settings.docker.only;
        match only.split_once('=') {
            Some((label, value)) => inspect.label(label) == Some(value),
            None => only.is_empty() || inspect.label(only).is_some(),
        }
    }

    /// The CA that issues and the roots that clients are given, as of now.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_authority(&self, authority: Authority) {
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authority);
    }

    /// By which CAs are made, and come and go.
    pub fn rules<'a>(&self, host_name: &'a str) -> Rules<'a> {
        Rules::new(&self.settings.certificates, host_name)
    }
}
