//! What comes back signed for single databases, in the daemon's loop.

use tokio::time::Instant;
use tracing::warn;

use super::Agent;
use crate::host::{
    clock, csr,
    stamp::{self, QUIET},
};

impl Agent {
    /// Has each database looked at for which something came, changed or went.
    pub(super) fn check_signed(&mut self) {
        // What is there is not known before the first list.
        if self.by_name.is_empty() {
            return;
        }
        self.signed_again = None;
        let (roots, now) = (self.world.roots.clone(), clock::now());
        let found = csr::answers(&roots);
        let gone: Vec<_> =
            self.signed.keys().filter(|name| found.iter().all(|(one, _)| one != *name)).cloned().collect();
        for name in gone {
            self.signed.remove(&name);
            self.look_at_signed(&name);
        }
        for (name, stamp) in found {
            if self.signed.get(&name) == Some(&stamp) {
                continue;
            }
            if let Some(rest) = stamp::rest(stamp.changed, now, QUIET) {
                // When all have had theirs.
                self.signed_again = self.signed_again.max(Some(Instant::now() + rest));
                continue;
            }
            self.signed.insert(name.clone(), stamp);
            if !self.look_at_signed(&name) && !roots.certificates(&name).exists() {
                warn!(
                    file = %roots.signed().join(format!("{name}.crt")).display(),
                    "a signed certificate for no database: none of that name is looked after; name it as the request in csr/ is named"
                );
            }
        }
    }

    /// Whether it is one of ours.
    fn look_at_signed(&mut self, name: &crate::model::ContainerName) -> bool {
        let ours = self.by_name.get(name).and_then(|id| self.known.get(id)).is_some_and(|known| known.ours);
        if ours {
            self.poke(name, Instant::now());
        }
        ours
    }

    /// Takes back the requests of databases that are gone for good: neither a container nor a directory is left of them.
    pub(super) fn sweep_requests(&self) {
        let roots = &self.world.roots;
        let is_there = |name: &_| self.by_name.contains_key(name) || roots.certificates(name).exists();
        if let Err(error) = csr::sweep(roots, is_there) {
            warn!(%error, "requests for certificates of databases that are gone cannot be removed");
        }
    }
}
