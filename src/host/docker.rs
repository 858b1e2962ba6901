//! The Docker Engine, and the only file that names `bollard`.
//!
//! What must not lose a field (inspect, create, connect) goes through `raw` as the JSON that Docker
//! speaks; the rest uses bollard's types.
//!
//! # Guarantees
//! - No call removes a volume: there is none here that could.
//! - Every call has a deadline, except the event stream.
//! - Repeats are harmless: stopping what is stopped and starting what runs succeed.

mod error;
mod inside;
mod network;
mod raw;

pub use error::{DockerError, Failure};
pub use inside::{Exec, ExecOutput};

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION,
    errors::Error as BollardError,
    models::{ChangeType, EventMessage},
    query_parameters::{
        EventsOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use self::error::{failed, garbled};
use crate::model::{
    ContainerId, ContainerName,
    inspect::{Change, ChangeKind, Image, Inspect},
};

/// How long an ordinary call may take. A busy engine on a slow disk needs seconds, never minutes.
const CALL: Duration = Duration::from_secs(60);
/// What a stop may take beyond its own grace period.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// The newest API version that the raw calls speak. From 1.52 on inspect does not show a MAC address that was asked
/// for any more, and the successor would silently get another.
const NEWEST: (usize, usize) = (1, 51);
/// A grace period of "never kill", in seconds: Docker takes a signed 32-bit number.
pub const NEVER_KILL: i64 = -1;
/// The longest we wait for a stop that never kills.
const LONGEST_STOP: Duration = Duration::from_secs(24 * 3600);

/// Events after which a container may need us. Health checks and `docker exec` make many others.
const ACTIONS: [&str; 9] =
    ["create", "start", "die", "destroy", "rename", "unpause", "pause", "health_status", "update"];

/// A connection to one Docker Engine.
#[derive(Clone, Debug)]
pub struct Docker {
    client: bollard::Docker,
    socket: PathBuf,
    /// The negotiated API version as `(major, minor)`.
    version: (usize, usize),
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
    pub labels: BTreeMap<String, String>,
    pub state: String,
    /// What is mounted where, writable or not: host path and path in the container.
    pub mounts: Vec<(String, String)>,
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

impl Docker {
    /// Connects and agrees on an API version: old engines refuse what newer clients ask for.
    pub async fn connect(socket: &Path) -> Result<Self, DockerError> {
        let object = socket.display().to_string();
        let path = socket.to_str().ok_or_else(|| DockerError {
            call: "connect",
            object: object.clone(),
            failure: Failure::Unreachable("the socket's path is not UTF-8".into()),
        })?;
        let client = bollard::Docker::connect_with_unix(path, CALL.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| failed("connect", &object, error))?;
        let client = bounded("connect", &object, CALL, client.negotiate_version()).await?;
        let version = client.client_version();
        let version = (version.major_version, version.minor_version).min(NEWEST);
        Ok(Self { client, socket: socket.to_owned(), version })
    }

    /// Whether a container can be created with several networks at once (API 1.44).
    pub fn creates_with_networks(&self) -> bool {
        self.version >= (1, 44)
    }

    pub async fn info(&self) -> Result<EngineInfo, DockerError> {
        let info = self.get("info", "engine", "/info").await?;
        let options: Vec<&str> =
            info["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let has = |name: &str| {
            options.iter().any(|option| option.split(',').any(|part| part == format!("name={name}")))
        };
        let remap = has("userns")
            .then(|| info["DockerRootDir"].as_str()?.rsplit('/').next()?.split_once('.'))
            .flatten()
            .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        Ok(EngineInfo {
            host_name: info["Name"].as_str().unwrap_or_default().to_owned(),
            selinux: has("selinux"),
            rootless: has("rootless"),
            remap,
            swarm_active: info["Swarm"]["LocalNodeState"] == "active",
        })
    }

    /// Events of the containers that carry `label` (`key` or `key=value`; empty: of all), from `since` on, which may lie
    /// a little in the past: the stream is only opened when it is first asked for an event. The stream ends when
    /// Docker does or an event cannot be read: both mean reconnect and list again.
    pub fn events(
        &self,
        since: OffsetDateTime,
        label: &str,
    ) -> impl Stream<Item = Result<Event, DockerError>> + Send + use<> {
        let mut filters = HashMap::from([("type", vec!["container"]), ("event", ACTIONS.to_vec())]);
        if !label.is_empty() {
            filters.insert("label", vec![label]);
        }
        let options = EventsOptionsBuilder::default().since(&timestamp(since)).filters(&filters).build();
        self.client.events(Some(options)).map(|event| match event {
            Ok(EventMessage { action: Some(action), actor: Some(actor), .. }) => {
                let id = actor.id.unwrap_or_default();
                let id = id.parse().map_err(|error| DockerError {
                    call: "events",
                    object: "container".into(),
                    failure: Failure::Garbled(format!("{error}")),
                })?;
                let kind = match action.as_str() {
                    "destroy" => EventKind::Destroyed,
                    "rename" => EventKind::Renamed,
                    _ => EventKind::Other,
                };
                Ok(Event { id, kind })
            }
            Ok(_) => Err(DockerError {
                call: "events",
                object: "container".into(),
                failure: Failure::Garbled("an event without action or actor".into()),
            }),
            Err(error) => Err(failed("events", "container", error)),
        })
    }

    /// Every container, running or not; with a `label` (`key` or `key=value`), only those that carry it.
    pub async fn list(&self, label: &str) -> Result<Vec<Listed>, DockerError> {
        let mut options = ListContainersOptionsBuilder::default().all(true);
        if !label.is_empty() {
            options = options.filters(&HashMap::from([("label", vec![label])]));
        }
        let rows =
            bounded("list", "containers", CALL, self.client.list_containers(Some(options.build()))).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some(Listed {
                    id: row.id?.parse().ok()?,
                    // A linked container has further names with a second slash in them.
                    name: row.names?.iter().find_map(|name| name.parse().ok())?,
                    labels: row.labels.unwrap_or_default().into_iter().collect(),
                    state: row.state.map(|state| state.to_string()).unwrap_or_default(),
                    mounts: row
                        .mounts
                        .unwrap_or_default()
                        .into_iter()
                        .map(|mount| {
                            (mount.source.unwrap_or_default(), mount.destination.unwrap_or_default())
                        })
                        .collect(),
                })
            })
            .collect())
    }

    /// The container by id or name; `None` if there is none.
    pub async fn inspect(&self, container: &str) -> Result<Option<Inspect>, DockerError> {
        let path = format!("/containers/{}/json", raw::encode(container));
        match self.get("inspect", container, &path).await {
            Ok(answer) => Inspect::new(answer)
                .map(Some)
                .map_err(|error| garbled("inspect", container, &error.to_string())),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The image by id or name; `None` if it is gone.
    pub async fn image(&self, image: &str) -> Result<Option<Image>, DockerError> {
        match self.get("inspect image", image, &format!("/images/{}/json", raw::encode_path(image))).await {
            Ok(answer) => Ok(Some(Image::new(&answer))),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a container from the raw body of `POST /containers/create`.
    pub async fn create(&self, name: &str, body: &Value) -> Result<ContainerId, DockerError> {
        let path = format!("/containers/create?name={}", raw::encode(name));
        let answer = self.post("create", name, &path, Some(body)).await?;
        answer["Id"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .map_err(|_| garbled("create", name, "no container id in it"))
    }

    /// Starts it; already running is success.
    pub async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.post("start", id.short(), &format!("/containers/{id}/start"), None).await.map(drop)
    }

    /// Stops it with a grace period in seconds ([`NEVER_KILL`]: wait for as long as it takes);
    /// already stopped is success. Docker finishes the stop even if we die meanwhile.
    pub async fn stop(&self, id: &ContainerId, grace: i64) -> Result<(), DockerError> {
        let options = StopContainerOptionsBuilder::default().t(seconds(grace)).build();
        let limit = stop_limit(grace);
        let client = self.client.clone().with_timeout(limit);
        bounded("stop", id.short(), limit, client.stop_container(id.as_str(), Some(options))).await
    }

    /// Done when its process has ended after `since`, some time before Docker calls the container stopped. Only for
    /// haste: never done if that cannot be told.
    pub async fn process_ended(&self, id: &ContainerId, since: OffsetDateTime) {
        let filters = HashMap::from([("container", vec![id.as_str()]), ("event", vec!["die"])]);
        let options = EventsOptionsBuilder::default().since(&timestamp(since)).filters(&filters).build();
        let mut events = Box::pin(self.client.events(Some(options)));
        if !matches!(events.next().await, Some(Ok(_))) {
            std::future::pending::<()>().await;
        }
    }

    /// Whether somebody asked for its end (`docker stop`, `docker kill`, Compose) between the two.
    pub async fn was_stopped(
        &self,
        id: &ContainerId,
        since: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<bool, DockerError> {
        let filters = HashMap::from([("container", vec![id.as_str()]), ("event", vec!["kill", "stop"])]);
        let options = EventsOptionsBuilder::default()
            .since(&timestamp(since))
            .until(&timestamp(until))
            .filters(&filters)
            .build();
        let mut events = Box::pin(self.client.events(Some(options)));
        let first = async { Ok(matches!(events.next().await, Some(Ok(_)))) };
        bounded_by("events", id.short(), CALL, first).await
    }

    pub async fn restart(&self, id: &ContainerId, grace: i64) -> Result<(), DockerError> {
        let options = RestartContainerOptionsBuilder::default().t(seconds(grace)).build();
        let limit = stop_limit(grace);
        let client = self.client.clone().with_timeout(limit);
        bounded("restart", id.short(), limit, client.restart_container(id.as_str(), Some(options))).await
    }

    /// Renames it. Its own name is success, a name that another container has is status 409.
    pub async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), DockerError> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        let answer = bounded("rename", name, CALL, self.client.rename_container(id.as_str(), options)).await;
        match answer {
            // "Renaming a container with the same name as its current name"
            Err(error) if error.status() == Some(400) => match self.inspect(id.as_str()).await? {
                Some(found) if found.name().as_str() == name => Ok(()),
                _ => Err(error),
            },
            answer => answer,
        }
    }

    /// Removes a container that does not run. Never its volumes; already gone is success.
    pub async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::default().v(false).force(false).build();
        match bounded("remove", id.short(), CALL, self.client.remove_container(id.as_str(), Some(options)))
            .await
        {
            Err(error) if error.not_found() => Ok(()),
            answer => answer,
        }
    }

    /// Sets the restart policy, in Docker's own JSON (`{"Name": "always", "MaximumRetryCount": 0}`).
    pub async fn set_restart_policy(&self, id: &ContainerId, policy: &Value) -> Result<(), DockerError> {
        let body = json!({ "RestartPolicy": policy });
        self.post("update", id.short(), &format!("/containers/{id}/update"), Some(&body)).await.map(drop)
    }

    /// What differs between the container's own layer and its image.
    pub async fn changes(&self, id: &ContainerId) -> Result<Vec<Change>, DockerError> {
        let answer = bounded("changes", id.short(), CALL, self.client.container_changes(id.as_str())).await?;
        Ok(answer
            .unwrap_or_default()
            .into_iter()
            .map(|change| Change {
                path: change.path,
                kind: match change.kind {
                    ChangeType::_0 => ChangeKind::Modified,
                    ChangeType::_1 => ChangeKind::Added,
                    ChangeType::_2 => ChangeKind::Deleted,
                },
            })
            .collect())
    }

    async fn get(&self, call: &'static str, object: &str, path: &str) -> Result<Value, DockerError> {
        self.raw(call, object, "GET", path, None).await
    }

    async fn post(
        &self,
        call: &'static str,
        object: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, DockerError> {
        self.raw(call, object, "POST", path, body).await
    }

    async fn raw(
        &self,
        call: &'static str,
        object: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, DockerError> {
        let path = format!("/v{}.{}{path}", self.version.0, self.version.1);
        let answer = timeout(CALL, raw::call(&self.socket, method, &path, body)).await;
        let answer = answer.unwrap_or(Err(Failure::Timeout(CALL)));
        answer.map_err(|failure| DockerError { call, object: object.to_owned(), failure })
    }
}

/// A point in time as the API takes it: seconds since 1970, and nanoseconds.
fn timestamp(time: OffsetDateTime) -> String {
    format!("{}.{:09}", time.unix_timestamp(), time.nanosecond())
}

/// A stop's grace period as the API takes it.
fn seconds(grace: i64) -> i32 {
    i32::try_from(grace).unwrap_or(i32::MAX)
}

fn stop_limit(grace: i64) -> Duration {
    u64::try_from(grace).map_or(LONGEST_STOP, |grace| Duration::from_secs(grace) + STOP_MARGIN)
}

async fn bounded<T>(
    call: &'static str,
    object: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, DockerError> {
    let answer = async { answer.await.map_err(|error| failed(call, object, error)) };
    bounded_by(call, object, limit, answer).await
}

async fn bounded_by<T>(
    call: &'static str,
    object: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(DockerError { call, object: object.to_owned(), failure: Failure::Timeout(limit) })
    })
}
