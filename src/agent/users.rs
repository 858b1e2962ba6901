//! Whom each server runs as, remembered for as long as its process lives.
//!
//! Reading a container's files mounts them, and Docker fails to remove a container whose files are mounted at that
//! moment. When a container has just ended somebody is likely to remove it: then nothing may have to be read.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use time::OffsetDateTime;

use crate::model::{ContainerId, Engine, Owner, inspect::Inspect};

/// Ids inside the containers, by container.
#[derive(Debug, Default)]
pub struct Users(Mutex<HashMap<ContainerId, Known>>);

#[derive(Debug)]
struct Known {
    started_at: Option<OffsetDateTime>,
    engine: Engine,
    user: Owner,
}

impl Users {
    /// What was read since the container was last started.
    pub fn of(&self, inspect: &Inspect, engine: Engine) -> Option<Owner> {
        let known = self.lock();
        let known = known.get(inspect.id())?;
        (known.started_at == inspect.started_at() && known.engine == engine).then_some(known.user)
    }

    pub fn remember(&self, inspect: &Inspect, engine: Engine, user: Owner) {
        let known = Known { started_at: inspect.started_at(), engine, user };
        self.lock().insert(inspect.id().clone(), known);
    }

    /// Forgets all containers but those that `exist`.
    pub fn retain(&self, exist: impl Fn(&ContainerId) -> bool) {
        self.lock().retain(|id, _| exist(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(started_at: &str) -> Inspect {
        let raw = json!({ "Id": "a".repeat(64), "Name": "/db", "State": { "StartedAt": started_at } });
        Inspect::new(raw).unwrap()
    }

    #[test]
    fn it_is_known_until_the_next_start_and_for_this_engine_only() {
        let users = Users::default();
        let (first, second) = (container("2026-11-24T10:00:00.123Z"), container("2026-11-24T11:00:00Z"));
        let user = Owner { uid: 999, gid: 998 };
        assert_eq!(users.of(&first, Engine::Postgres), None);
        users.remember(&first, Engine::Postgres, user);
        assert_eq!(users.of(&first, Engine::Postgres), Some(user));
        assert_eq!(users.of(&first, Engine::Redis), None);
        assert_eq!(users.of(&second, Engine::Postgres), None);
        users.retain(|id| id != first.id());
        assert_eq!(users.of(&first, Engine::Postgres), None);
    }
}
