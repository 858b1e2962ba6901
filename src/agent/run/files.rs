//! The files that others write for us, in the daemon's loop.

use tokio::time::Instant;
use tracing::warn;

use super::Agent;
use crate::{
    agent::world::World,
    host::{requests, watch::Watch},
};

impl Agent {
    /// Looks at the files that others write for us, and at the clock, by which CAs come and go.
    pub(super) fn check_files(&mut self) {
        // What somebody is still writing is nobody's to deliver.
        if self.check_cas() {
            self.deliver_bundle();
        }
        self.check_signed();
        if let Some(watch) = &mut self.watch {
            watch.refresh();
        }
        let now = Instant::now();
        for name in requests::all(&self.world.roots) {
            if self.ordered.insert(name.clone()) {
                self.queue.poke(name, now);
            }
        }
    }

    /// Whoever reads the trust bundle has to be looked at when it changed.
    fn deliver_bundle(&mut self) {
        if self.clients.bundle_changed() {
            for (id, _) in self.known.iter().filter(|(_, known)| known.client) {
                self.clients.poke(id);
            }
        }
    }
}

/// Watches the trust bundle's folder, what comes back signed, and what `dbssl apply` asks for.
pub(super) fn watch(world: &World) -> Option<Watch> {
    let folders = requests::folder(&world.roots)
        .map(|requests| vec![world.roots.data.clone(), world.roots.signed(), requests]);
    let error = match folders.map(Watch::folders) {
        Ok(Ok(watch)) => return Some(watch),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    warn!(
        error,
        "files cannot be watched: their changes are seen with each list of all containers only (docker.resync)"
    );
    None
}

pub(super) async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
