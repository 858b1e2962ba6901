//! What every part of the agent works on: the engine, the settings, the CA.

use std::sync::{Arc, PoisonError, RwLock};

use crate::{
    config::Settings,
    host::{
        castore::Authority,
        docker::{Docker, EngineInfo},
    },
    model::{Roots, inspect::Inspect},
};

/// One host's Docker Engine, settings and CA.
#[derive(Debug)]
pub struct World {
    pub docker: Docker,
    pub engine: EngineInfo,
    pub settings: Settings,
    pub roots: Roots,
    authority: RwLock<Arc<Authority>>,
}

impl World {
    pub fn new(docker: Docker, engine: EngineInfo, settings: Settings, authority: Authority) -> Self {
        let roots = settings.roots.clone();
        Self { docker, engine, settings, roots, authority: RwLock::new(Arc::new(authority)) }
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
}
