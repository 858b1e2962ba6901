//! What every part of the agent works on: the engine, the settings, the CA.

use std::sync::{Arc, PoisonError, RwLock};

use crate::{
    config::Settings,
    host::{
        castore::Authority,
        docker::{Docker, EngineInfo},
    },
    model::Roots,
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

    /// The CA that issues and the roots that clients are given, as of now.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_authority(&self, authority: Authority) {
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authority);
    }
}
