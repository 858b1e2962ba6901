//! Redeploys that were rolled back, so that the same container is not interrupted again and again: one small
//! file for each, which `dbssl status` shows, too. Losing one costs one more try, nothing else.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::model::{ContainerId, ContainerName};

/// The last redeploy of a container, which did not come to its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    pub container: ContainerId,
    pub why: String,
    #[serde(with = "time::serde::timestamp")]
    pub at: OffsetDateTime,
    /// How often in a row, from 1.
    pub attempt: u32,
    /// The agent, or Docker, died in the middle: the redeploy itself may be all right.
    #[serde(default)]
    pub interrupted: bool,
}

/// The first pause after a rolled-back redeploy of the same container, in hours; doubled each time.
const FIRST_HOURS: i64 = 1;
const MOST_HOURS: i64 = 24;
/// Another container of the same name is not tried before this: a loop with whoever recreates it is worse.
const OTHER: time::Duration = time::Duration::minutes(1);

impl Setback {
    /// When the next try may begin, for the container of that name which is there now.
    pub fn retry_at(&self, container: &ContainerId) -> OffsetDateTime {
        if *container != self.container {
            return self.at + OTHER;
        }
        // One interruption is bad luck; more may be the redeploy's own doing.
        let failures = if self.interrupted { self.attempt.saturating_sub(1) } else { self.attempt };
        if failures == 0 {
            return self.at;
        }
        let doublings = failures.saturating_sub(1).min(10);
        self.at + time::Duration::hours((FIRST_HOURS << doublings).min(MOST_HOURS))
    }

    /// Until when nothing is tried; `None` if it may be tried now. One that lies ahead was written while the clock was
    /// wrong, and says nothing: it would hold everything up until then.
    pub fn holds_until(&self, container: &ContainerId, now: OffsetDateTime) -> Option<OffsetDateTime> {
        Some(self.retry_at(container)).filter(|retry_at| now < *retry_at && self.at <= now + OTHER)
    }
}

/// The setback of that name, if there is one that can be read.
pub fn read(state: &Path, name: &ContainerName) -> Option<Setback> {
    serde_json::from_slice(&fs::read(file(state, name)).ok()?).ok()
}

fn write(state: &Path, name: &ContainerName, setback: &Setback) -> io::Result<()> {
    let path = file(state, name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Torn by a crash it reads as absent.
    fs::write(&path, serde_json::to_vec(setback)?)
}

/// Records one more setback of this container.
pub fn add(
    state: &Path,
    name: &ContainerName,
    container: &ContainerId,
    why: String,
    interrupted: bool,
    now: OffsetDateTime,
) -> io::Result<Setback> {
    let before = read(state, name).filter(|before| before.container == *container);
    let attempt = before.map_or(1, |before| before.attempt.saturating_add(1));
    let setback = Setback { container: container.clone(), why, at: now, attempt, interrupted };
    write(state, name, &setback)?;
    Ok(setback)
}

pub fn clear(state: &Path, name: &ContainerName) {
    // Not being there is what is wanted.
    let _ = fs::remove_file(file(state, name));
}

fn file(state: &Path, name: &ContainerName) -> std::path::PathBuf {
    state.join("setbacks").join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_container_waits_longer_each_time_and_another_only_briefly() {
        let folder = tempfile::tempdir().unwrap();
        let (name, id): (ContainerName, ContainerId) =
            ("db".parse().unwrap(), "a".repeat(64).parse().unwrap());
        let at = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(read(folder.path(), &name), None);
        let mut setback =
            Setback { container: id.clone(), why: "no TLS".into(), at, attempt: 1, interrupted: false };
        write(folder.path(), &name, &setback).unwrap();
        assert_eq!(read(folder.path(), &name), Some(setback.clone()));
        assert_eq!(setback.retry_at(&id), at + time::Duration::HOUR);
        setback.interrupted = true;
        assert_eq!(setback.retry_at(&id), at);
        setback.interrupted = false;
        setback.attempt = 3;
        assert_eq!(setback.retry_at(&id), at + time::Duration::hours(4));
        setback.attempt = u32::MAX;
        assert_eq!(setback.retry_at(&id), at + time::Duration::hours(24));
        assert_eq!(setback.retry_at(&"b".repeat(64).parse().unwrap()), at + time::Duration::MINUTE);
        setback.attempt = 1;
        let (second, year) = (time::Duration::SECOND, time::Duration::days(365));
        assert_eq!(setback.holds_until(&id, at + second), Some(at + time::Duration::HOUR));
        assert_eq!(setback.holds_until(&id, at + time::Duration::HOUR), None);
        assert_eq!(setback.holds_until(&id, at + year), None, "the clock went forwards");
        assert_eq!(setback.holds_until(&id, at - year), None, "the clock went back");
        assert_eq!(setback.holds_until(&id, at - second), Some(at + time::Duration::HOUR), "a little");
        assert_eq!(add(folder.path(), &name, &id, "again".into(), false, at).unwrap().attempt, 2);
        assert_eq!(
            add(folder.path(), &name, &"b".repeat(64).parse().unwrap(), "other".into(), false, at)
                .unwrap()
                .attempt,
            1
        );
        clear(folder.path(), &name);
        assert_eq!(read(folder.path(), &name), None);
    }
}
