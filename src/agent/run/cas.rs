//! The CAs in the daemon's loop: what others write, and the clock, decide which one is in force.

use std::{collections::HashSet, time::Duration};

use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Agent;
use crate::{
    config::Settings,
    host::{
        castore::{Authority, CaStore, CaStoreError, Notice, Rules},
        clock,
        stamp::{self, QUIET, Stamp},
    },
    model::Roots,
};

/// After a file could not be read as it is, until it is read again.
const ONCE_MORE: Duration = Duration::from_secs(1);
/// After it could not be brought in order: a full disk gets room again, and no file tells of it.
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);

/// Changes when the trust bundle, the key beside it, a signed CA, or the record of the CAs may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps([Option<Stamp>; 4]);

/// Establishes the CA.
pub(super) fn establish(settings: &Settings, host_name: &str) -> Result<Authority, CaStoreError> {
    let rules = Rules::new(&settings.certificates, host_name);
    CaStore::establish(&settings.roots, &rules, clock::now())
}

pub(super) fn tell_of(notice: &Notice) {
    if notice.is_warning() {
        warn!("{notice}");
    } else {
        info!("{notice}");
    }
}

impl Agent {
    /// Somebody may have replaced the trust bundle, brought a CA, or had one made by `dbssl ca`; or an overlap is over.
    ///
    /// `false` while somebody may still be writing.
    pub(super) fn check_cas(&mut self) -> bool {
        let found = Stamps::of(&self.world.roots);
        // Set back, the clock makes a CA that had its time a former one again.
        let set_back = clock::now() < self.world.authority().found;
        let due = set_back || self.next_change().is_some_and(|at| at <= Instant::now());
        if found == self.stamps && !due && self.look_again.is_none_or(|at| Instant::now() < at) {
            return self.look_again.is_none() || self.failures > 1;
        }
        self.look_again = None;
        if let Some(rest) = found.rest(clock::now()) {
            self.look_again = Some(Instant::now() + rest);
            return false;
        }
        match establish(&self.world.settings, &self.host_name) {
            Ok(authority) => {
                self.failures = 0;
                self.take_up(authority, due);
            }
            // It may be half-written: read once more before a word is said.
            Err(_) if self.failures == 0 => {
                self.failures = 1;
                self.look_again = Some(Instant::now() + ONCE_MORE);
            }
            Err(error) => {
                self.failures = 2;
                let text = format!("{:#}", anyhow::Error::from(error));
                if self.said.insert(text.clone()) {
                    error!(error = text, "the CA cannot be brought in order; the former one stays in force");
                }
                self.look_again = Some(Instant::now() + AFTER_A_FAILURE);
            }
        }
        // As it was before it was read: what others, and we, did meanwhile is looked at once more.
        self.stamps = found;
        self.failures != 1
    }

    /// Puts in force what the store says, and has every database looked at if it makes a difference to them.
    fn take_up(&mut self, authority: Authority, due: bool) {
        let before = self.world.authority();
        let changed = !authority.serves_as(&before);
        let warnings = warnings(&authority);
        for notice in &authority.notices {
            if !self.said.contains(&notice.to_string()) {
                tell_of(notice);
            }
        }
        self.said = warnings;
        self.world.set_authority(authority);
        if changed {
            let ours: Vec<_> =
                self.known.values().filter(|known| known.ours).map(|known| known.name.clone()).collect();
            for name in &ours {
                self.queue.poke(name.clone(), Instant::now());
            }
            self.rollover.reopen(ours.into_iter());
        } else if due {
            self.rollover.reopen(std::iter::empty());
        }
        self.settle_rollover();
    }

    pub(super) fn settle_rollover(&mut self) {
        if let Some(authority) = self.rollover.settle(&self.world, &self.host_name) {
            self.take_up(authority, false);
        }
    }

    /// When the CAs have to be looked at by the clock. Long timers sleep through changes of it: the slow list looks, too.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let left = self.world.authority().next? - clock::now();
        Some(Instant::now() + Duration::try_from(left).unwrap_or_default().min(Duration::from_secs(3600)))
    }
}

impl Stamps {
    pub(super) fn of(roots: &Roots) -> Self {
        let files =
            [roots.bundle(), roots.custom_key(), roots.signed_ca(), roots.ca_store().join("store.json")];
        Self(files.map(|path| stamp::of(&path)))
    }

    /// As they count for whoever has just read the files: not at all, if one may still have been being written then.
    pub(super) fn when_read(self, now: OffsetDateTime) -> Self {
        if self.rest(now).is_none() { self } else { Self::default() }
    }

    /// How long a file of a user's has still to be left alone. What is served does not verify against it until then.
    fn rest(&self, now: OffsetDateTime) -> Option<Duration> {
        stamp::rest(self.0[..3].iter().flatten().map(|stamp| stamp.changed).max()?, now, QUIET)
    }
}

/// What is wrong with the CAs for as long as nobody mends it.
pub(super) fn warnings(authority: &Authority) -> HashSet<String> {
    authority.notices.iter().filter(|notice| notice.is_warning()).map(Notice::to_string).collect()
}
