//! The engine behind a socket, spoken to through `bollard`, which only this folder names.
//!
//! What must not lose a field (inspect, create, connect) goes through `raw` as the JSON that Docker
//! speaks; the rest uses bollard's types.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    API_DEFAULT_VERSION,
    errors::Error as BollardError,
    models::EventMessage,
    query_parameters::{
        EventsOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
        RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt, future::ready, stream::BoxStream};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    Containers, DockerError, EngineInfo, Event, EventKind, Failure, Listed,
    error::{failed, garbled},
    raw,
    rows::{ChangeRow, ListedRow},
};
use crate::{
    host::clock,
    model::{
        ContainerId,
        inspect::{Change, Image, Inspect},
    },
};

/// How long an ordinary call may take. A busy engine on a slow disk needs seconds, never minutes.
pub(super) const CALL: Duration = Duration::from_secs(60);
/// What a stop may take beyond its own grace period.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// The newest API version that the raw calls speak. From 1.52 on inspect does not show a MAC address that was asked
/// for any more, and the successor would silently get another.
const NEWEST: (usize, usize) = (1, 51);
/// The longest we wait for a stop that never kills.
const LONGEST_STOP: Duration = Duration::from_secs(24 * 3600);

/// Events after which a container may need us. Health checks and `docker exec` make many others.
const ACTIONS: [&str; 9] =
    ["create", "start", "die", "destroy", "rename", "unpause", "pause", "health_status", "update"];

/// A connection to one Docker Engine.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(super) client: bollard::Docker,
    socket: PathBuf,
    /// The negotiated API version as `(major, minor)`.
    version: (usize, usize),
}

#[async_trait]
impl Containers for Connection {
    fn creates_with_networks(&self) -> bool {
        self.version >= (1, 44)
    }

    async fn info(&self) -> Result<EngineInfo, DockerError> {
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

    fn events(&self, since: OffsetDateTime, label: &str) -> BoxStream<'static, Result<Event, DockerError>> {
        let mut filters = HashMap::from([("type", vec!["container"]), ("event", ACTIONS.to_vec())]);
        if !label.is_empty() {
            filters.insert("label", vec![label]);
        }
        let options = EventsOptionsBuilder::default().since(&timestamp(since)).filters(&filters).build();
        let events = self.client.events(Some(options)).map(|event| match event {
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
        });
        Box::pin(events)
    }

    async fn list(&self, label: &str) -> Result<Vec<Listed>, DockerError> {
        let mut path = "/containers/json?all=true".to_owned();
        if !label.is_empty() {
            path += &format!("&filters={}", raw::encode(&json!({ "label": [label] }).to_string()));
        }
        let rows: Option<Vec<ListedRow>> = self.raw("list", "containers", "GET", &path, None).await?;
        Ok(rows.unwrap_or_default().into_iter().filter_map(ListedRow::listed).collect())
    }

    async fn inspect(&self, container: &str) -> Result<Option<Inspect>, DockerError> {
        let path = format!("/containers/{}/json", raw::encode(container));
        match self.get("inspect", container, &path).await {
            Ok(answer) => Inspect::new(answer)
                .map(Some)
                .map_err(|error| garbled("inspect", container, &error.to_string())),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn image(&self, image: &str) -> Result<Option<Image>, DockerError> {
        match self.get("inspect image", image, &format!("/images/{}/json", raw::encode_path(image))).await {
            Ok(answer) => Ok(Some(Image::new(&answer))),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, name: &str, body: &Value) -> Result<ContainerId, DockerError> {
        let path = format!("/containers/create?name={}", raw::encode(name));
        let answer = self.post("create", name, &path, Some(body)).await?;
        answer["Id"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .map_err(|_| garbled("create", name, "no container id in it"))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.post("start", id.short(), &format!("/containers/{id}/start"), None).await.map(drop)
    }

    async fn stop(&self, id: &ContainerId, grace: i64) -> Result<(), DockerError> {
        let options = StopContainerOptionsBuilder::default().t(seconds(grace)).build();
        let limit = stop_limit(grace);
        let client = self.client.clone().with_timeout(limit);
        bounded("stop", id.short(), limit, client.stop_container(id.as_str(), Some(options))).await
    }

    async fn was_stopped(
        &self,
        id: &ContainerId,
        since: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<bool, DockerError> {
        let since = since.unix_timestamp_nanos();
        // All that Docker remembers.
        let mut events = self.past(id, &["start", "kill", "stop"], "1", until);
        let stopped = async {
            let (mut start_seen, mut stopped) = (false, false);
            while let Some(event) = events.next().await {
                let at = event.time_nano.map_or(i128::MAX, i128::from);
                match event.action.as_deref() {
                    Some("start") => (start_seen, stopped) = (true, false),
                    _ if start_seen && at >= since => stopped = true,
                    _ => {}
                }
            }
            Ok(stopped)
        };
        bounded_by("events", id.short(), CALL, stopped).await
    }

    async fn was_signalled(&self, id: &ContainerId, since: OffsetDateTime) -> Result<bool, DockerError> {
        let mut events = self.past(id, &["kill"], &timestamp(since), clock::now());
        let signalled = async { Ok(events.next().await.is_some()) };
        bounded_by("events", id.short(), CALL, signalled).await
    }

    async fn restart(&self, id: &ContainerId, grace: i64) -> Result<(), DockerError> {
        let options = RestartContainerOptionsBuilder::default().t(seconds(grace)).build();
        let limit = stop_limit(grace);
        let client = self.client.clone().with_timeout(limit);
        bounded("restart", id.short(), limit, client.restart_container(id.as_str(), Some(options))).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), DockerError> {
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

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::default().v(false).force(false).build();
        match bounded("remove", id.short(), CALL, self.client.remove_container(id.as_str(), Some(options)))
            .await
        {
            Err(error) if error.not_found() => Ok(()),
            answer => answer,
        }
    }

    async fn set_restart_policy(&self, id: &ContainerId, policy: &Value) -> Result<(), DockerError> {
        let body = json!({ "RestartPolicy": policy });
        self.post("update", id.short(), &format!("/containers/{id}/update"), Some(&body)).await.map(drop)
    }

    async fn changes(&self, id: &ContainerId) -> Result<Vec<Change>, DockerError> {
        let path = format!("/containers/{id}/changes");
        let rows: Option<Vec<ChangeRow>> = self.raw("changes", id.short(), "GET", &path, None).await?;
        Ok(rows.unwrap_or_default().into_iter().map(ChangeRow::change).collect())
    }
}

impl Connection {
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

    /// What Docker remembers of a container's events, up to one that cannot be read.
    fn past(
        &self,
        id: &ContainerId,
        events: &[&str],
        since: &str,
        until: OffsetDateTime,
    ) -> BoxStream<'static, EventMessage> {
        let filters = HashMap::from([("container", vec![id.as_str()]), ("event", events.to_vec())]);
        let options =
            EventsOptionsBuilder::default().since(since).until(&timestamp(until)).filters(&filters).build();
        self.client.events(Some(options)).scan((), |(), event| ready(event.ok())).boxed()
    }

    pub(super) async fn get(
        &self,
        call: &'static str,
        object: &str,
        path: &str,
    ) -> Result<Value, DockerError> {
        self.raw(call, object, "GET", path, None).await
    }

    pub(super) async fn post(
        &self,
        call: &'static str,
        object: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, DockerError> {
        self.raw(call, object, "POST", path, body).await
    }

    async fn raw<T: DeserializeOwned>(
        &self,
        call: &'static str,
        object: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, DockerError> {
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

pub(super) async fn bounded<T>(
    call: &'static str,
    object: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, DockerError> {
    let answer = async { answer.await.map_err(|error| failed(call, object, error)) };
    bounded_by(call, object, limit, answer).await
}

pub(super) async fn bounded_by<T>(
    call: &'static str,
    object: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(DockerError { call, object: object.to_owned(), failure: Failure::Timeout(limit) })
    })
}
