//! The Docker Engine: what it can be asked and told.
//!
//! [`Containers`], [`Inside`] and [`Networks`] say what every engine does, and `connection` is the one that speaks to a
//! real one. The simulation (`tests/simulation`) has another.
//!
//! # Guarantees
//! - No call removes a volume: there is none here that could.
//! - Every call has a deadline, except the event stream.
//! - Repeats are harmless: stopping what is stopped and starting what runs succeed.

mod connection;
mod error;
mod inside;
mod network;
mod raw;
mod rows;

pub use error::{DockerError, Failure};
pub use inside::{Exec, ExecOutput, Inside, Node};
pub use network::Networks;

use std::{collections::BTreeMap, fmt, ops::Deref, path::Path, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::Value;
use time::OffsetDateTime;

use self::connection::Connection;
use crate::model::{
    ContainerId, ContainerName,
    inspect::{Change, Image, Inspect},
};

/// A grace period of "never kill", in seconds: Docker takes a signed 32-bit number.
pub const NEVER_KILL: i64 = -1;

/// One Docker Engine.
#[derive(Clone, Debug)]
pub struct Docker(Arc<dyn Containers>);

impl Docker {
    /// The engine behind a socket of this host.
    pub async fn connect(socket: &Path) -> Result<Self, DockerError> {
        Ok(Self::new(Connection::connect(socket).await?))
    }

    pub fn new(engine: impl Containers + 'static) -> Self {
        Self(Arc::new(engine))
    }
}

impl Deref for Docker {
    type Target = dyn Containers;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// A hint that something happened to a container. Only the id can be trusted: labels overwrite the
/// other attributes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: ContainerId,
    pub kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The container is gone for good.
    Destroyed,
    Renamed,
    Other,
}

/// One row of `docker ps --all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: ContainerId,
    pub name: ContainerName,
    /// As its user named it, or by its id once that name means another image.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub state: String,
    /// What is mounted where, writable or not: host path and path in the container.
    pub mounts: Vec<(String, String)>,
    /// In Docker's own words: `bridge`, `host`, `container:ID`, a network's name.
    pub network_mode: String,
}

/// What the engine says of itself that changes what we do.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EngineInfo {
    /// The host's name, for the CA's subject.
    pub host_name: String,
    pub selinux: bool,
    pub rootless: bool,
    /// First host uid and gid of the containers' user namespace.
    pub remap: Option<(u32, u32)>,
    pub swarm_active: bool,
}

/// Containers as wholes.
#[async_trait]
pub trait Containers: Inside + Networks + fmt::Debug + Send + Sync {
    /// Whether a container can be created with several networks at once (API 1.44).
    fn creates_with_networks(&self) -> bool;

    async fn info(&self) -> Result<EngineInfo, DockerError>;

    /// Events of the containers that carry `label` (`key` or `key=value`; empty: of all), from `since` on, which may lie
    /// a little in the past: the stream is only opened when it is first asked for an event. The stream ends when
    /// Docker does or an event cannot be read: both mean reconnect and list again.
    fn events(&self, since: OffsetDateTime, label: &str) -> BoxStream<'static, Result<Event, DockerError>>;

    /// Every container, running or not; with a `label` (`key` or `key=value`), only those that carry it.
    async fn list(&self, label: &str) -> Result<Vec<Listed>, DockerError>;

    /// The container by id or name; `None` if there is none.
    async fn inspect(&self, container: &str) -> Result<Option<Inspect>, DockerError>;

    /// The image by id or name; `None` if it is gone.
    async fn image(&self, image: &str) -> Result<Option<Image>, DockerError>;

    /// Creates a container from the raw body of `POST /containers/create`.
    async fn create(&self, name: &str, body: &Value) -> Result<ContainerId, DockerError>;

    /// Starts it; already running is success.
    async fn start(&self, id: &ContainerId) -> Result<(), DockerError>;

    /// Stops it with a grace period in seconds ([`NEVER_KILL`]: wait for as long as it takes);
    /// already stopped is success. Docker finishes the stop even if we die meanwhile.
    async fn stop(&self, id: &ContainerId, grace: i64) -> Result<(), DockerError>;

    /// Whether somebody asked for its end (`docker stop`, `docker kill`, Compose) between the two. A daemon that finds
    /// it running after the one before was killed stops it, too, and that is nobody's word: its events do not reach
    /// back to the container's start, by which the two are told apart.
    async fn was_stopped(
        &self,
        id: &ContainerId,
        since: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<bool, DockerError>;

    /// Whether it was sent a signal since then, by `docker stop` or otherwise. One that runs on may be about to end.
    async fn was_signalled(&self, id: &ContainerId, since: OffsetDateTime) -> Result<bool, DockerError>;

    async fn restart(&self, id: &ContainerId, grace: i64) -> Result<(), DockerError>;

    /// Renames it. Its own name is success, a name that another container has is status 409.
    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), DockerError>;

    /// Removes a container that does not run. Never its volumes; already gone is success.
    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError>;

    /// Sets the restart policy, in Docker's own JSON (`{"Name": "always", "MaximumRetryCount": 0}`).
    async fn set_restart_policy(&self, id: &ContainerId, policy: &Value) -> Result<(), DockerError>;

    /// What differs between the container's own layer and its image.
    async fn changes(&self, id: &ContainerId) -> Result<Vec<Change>, DockerError>;
}
