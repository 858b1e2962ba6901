//! `store.json`: which CAs there are, and which part each of them plays.

use time::{Duration, OffsetDateTime};

use crate::pki::CaId;

const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    pub(super) version: u32,
    pub(super) authorities: Vec<Entry>,
    /// SHA-256 of the upload and the key beside it that were judged last: what did not change is not judged again.
    #[serde(default)]
    pub(super) judged: Option<String>,
    /// `coolify-ca.crt` is being changed in place to what `bundle.pem` holds.
    #[serde(default)]
    pub(super) rewriting: bool,
    /// Roots whose keys are elsewhere and that signed what a database serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) external: Vec<CaId>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) id: CaId,
    pub(super) state: CaState,
    pub(super) origin: Origin,
    /// Since when it has been in this state.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) since: Option<OffsetDateTime>,
    /// When everything that is served had been seen to be issued by it.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) proved: Option<OffsetDateTime>,
}

/// The part that a CA plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaState {
    /// Signs every new leaf; exactly one.
    Issuing,
    /// In the bundle, as it may still have signed something that is served.
    Trusted,
    /// Known, no more.
    Retired,
}

/// Where a CA comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Generated,
    Imported,
}

impl Index {
    pub(super) fn newer_than_we_are(&self) -> bool {
        self.version > VERSION
    }

    pub(super) fn issuing(&self) -> Option<&Entry> {
        self.authorities.iter().find(|entry| entry.state == CaState::Issuing)
    }

    /// Make this the issuing CA; the former one stays trusted.
    pub(super) fn put(&mut self, id: &CaId, origin: Origin, now: OffsetDateTime) {
        self.version = VERSION;
        for entry in &mut self.authorities {
            if entry.state == CaState::Issuing && entry.id != *id {
                (entry.state, entry.since) = (CaState::Trusted, Some(now));
            }
        }
        if !self.authorities.iter().any(|entry| entry.id == *id) {
            let (id, state) = (id.clone(), CaState::Trusted);
            self.authorities.push(Entry { id, state, origin, since: None, proved: None });
        }
        for entry in self.authorities.iter_mut().filter(|entry| entry.id == *id) {
            if entry.state != CaState::Issuing {
                (entry.state, entry.since, entry.proved) = (CaState::Issuing, Some(now), None);
            }
        }
    }

    /// The CAs that stepped down, the last one first.
    pub(super) fn former(&self) -> Vec<&Entry> {
        let mut former: Vec<_> =
            self.authorities.iter().filter(|entry| entry.state == CaState::Trusted).collect();
        former.sort_by_key(|entry| std::cmp::Reverse(entry.since));
        former
    }
}

impl Entry {
    /// When clients that know only this one need not be served any more; `None`: never, or it did not step down.
    pub(super) fn overlap_ends(&self, overlap: Duration) -> Option<OffsetDateTime> {
        if self.state != CaState::Trusted {
            return None;
        }
        // One from before there were dates stepped down long ago.
        Some(self.since.map_or(OffsetDateTime::UNIX_EPOCH, |since| since.saturating_add(overlap)))
    }
}
