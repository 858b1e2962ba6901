//! The Docker Engine, and the only file that names `bollard`.
//!
//! What must not lose a field (inspect, create, connect) goes through `raw` as the JSON that Docker
//! speaks; the rest uses bollard's types.
//!
//! # Guarantees
//! - No call removes a volume: there is none here that could.
//! - Every call has a deadline, except the event stream.
//! - Repeats are harmless: stopping what is stopped and starting what runs succeed.

mod raw;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION,
    container::LogOutput,
    errors::Error as BollardError,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    models::{ChangeType, EventMessage, NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::{
        DownloadFromContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
        LogsOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
        RestartContainerOptionsBuilder, StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::model::{
    ContainerId, ContainerName,
    inspect::{Change, ChangeKind, Image, Inspect},
};

/// How long an ordinary call may take. A busy engine on a slow disk needs seconds, never minutes.
const CALL: Duration = Duration::from_secs(60);
/// What a stop may take beyond its own grace period.
const STOP_MARGIN: Duration = Duration::from_secs(60);
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

/// A call that Docker did not answer as hoped.
#[derive(Debug, thiserror::Error)]
#[error("docker {call} {object}: {failure}")]
pub struct DockerError {
    pub call: &'static str,
    pub object: String,
    pub failure: Failure,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{message} (status {status})")]
    Refused { status: u16, message: String },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("not reachable: {0}")]
    Unreachable(String),
    #[error("answer not understood: {0}")]
    Garbled(String),
}

impl DockerError {
    pub fn status(&self) -> Option<u16> {
        match self.failure {
            Failure::Refused { status, .. } => Some(status),
            _ => None,
        }
    }

    pub fn not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The engine itself cannot be spoken to, so nothing can be said about the object.
    pub fn engine_gone(&self) -> bool {
        matches!(self.failure, Failure::Unreachable(_) | Failure::Timeout(_))
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
    pub labels: BTreeMap<String, String>,
    pub state: String,
}

/// What a command in a container left behind. Output beyond the limit is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub code: i64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A command to run in a container.
#[derive(Clone, Debug)]
pub struct Exec<'a> {
    /// `uid`, `uid:gid` or a name; empty: the container's own user.
    pub user: &'a str,
    pub argv: &'a [String],
    pub stdin: Option<&'a [u8]>,
    /// Bytes kept of each stream.
    pub limit: usize,
    pub deadline: Duration,
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
        let version = (version.major_version, version.minor_version);
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

    /// Container events from `since` (seconds since 1970) on, which may lie a little in the past: the stream is
    /// only opened when it is first asked for an event. The stream ends when Docker does or an event cannot be read: both
    /// mean reconnect and list again.
    pub fn events(&self, since: i64) -> impl Stream<Item = Result<Event, DockerError>> + Send + use<> {
        let filters = HashMap::from([("type", vec!["container"]), ("event", ACTIONS.to_vec())]);
        let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
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

    /// Every container, running or not; with `label`, only those that carry it.
    pub async fn list(&self, label: Option<&str>) -> Result<Vec<Listed>, DockerError> {
        let mut options = ListContainersOptionsBuilder::default().all(true);
        if let Some(label) = label {
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

    /// Done when its process has ended after `since` (seconds since 1970), some time before Docker calls the
    /// container stopped. Only for haste: never done if that cannot be told.
    pub async fn process_ended(&self, id: &ContainerId, since: i64) {
        let filters = HashMap::from([("container", vec![id.as_str()]), ("event", vec!["die"])]);
        let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
        let mut events = Box::pin(self.client.events(Some(options)));
        if !matches!(events.next().await, Some(Ok(_))) {
            std::future::pending::<()>().await;
        }
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

    /// Creates an internal bridge network; an existing one of that name is success.
    pub async fn create_network(&self, name: &str) -> Result<(), DockerError> {
        if self.network_exists(name).await? {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".into()),
            internal: Some(true),
            ..NetworkCreateRequest::default()
        };
        bounded("create network", name, CALL, self.client.create_network(request)).await.map(drop)
    }

    pub async fn network_exists(&self, name: &str) -> Result<bool, DockerError> {
        match self.get("inspect network", name, &format!("/networks/{}", raw::encode(name))).await {
            Ok(_) => Ok(true),
            Err(error) if error.not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Names of the networks that begin with `prefix`.
    pub async fn networks(&self, prefix: &str) -> Result<Vec<String>, DockerError> {
        let answer = self.get("list networks", prefix, "/networks").await?;
        let names = answer.as_array().into_iter().flatten().filter_map(|network| network["Name"].as_str());
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// Removes a network; already gone is success.
    pub async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        match bounded("remove network", name, CALL, self.client.remove_network(name)).await {
            Err(error) if error.not_found() => Ok(()),
            answer => answer,
        }
    }

    /// Attaches a container to a network with the raw `EndpointConfig`.
    pub async fn connect_network(
        &self,
        network: &str,
        id: &ContainerId,
        endpoint: &Value,
    ) -> Result<(), DockerError> {
        let body = json!({ "Container": id.as_str(), "EndpointConfig": endpoint });
        let path = format!("/networks/{}/connect", raw::encode(network));
        self.post("connect network", network, &path, Some(&body)).await.map(drop)
    }

    /// Makes a stopped container impossible to start, by Compose, by the daemon or by hand: it is attached to a
    /// network that does not exist. Docker allows that of a stopped container (a Swarm network may come to this
    /// host later), and [`Self::disconnect_network`] undoes it.
    pub async fn brake(&self, id: &ContainerId, network: &str) -> Result<(), DockerError> {
        let nothing = json!({});
        match self.connect_network(network, id, &nothing).await {
            Err(error) if error.not_found() => {}
            answer => return answer,
        }
        // An engine that does not: then to one that is removed right afterwards.
        self.create_network(network).await?;
        self.connect_network(network, id, &nothing).await?;
        self.remove_network(network).await
    }

    /// Detaches a container from a network, also from one that is gone.
    pub async fn disconnect_network(&self, network: &str, id: &ContainerId) -> Result<(), DockerError> {
        let request = NetworkDisconnectRequest { container: id.to_string(), force: Some(true) };
        bounded("disconnect network", network, CALL, self.client.disconnect_network(network, request)).await
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

    /// The arguments of a command that `docker exec` runs in a container at this moment, if it still runs.
    pub async fn running_exec(&self, exec: &str) -> Result<Option<Vec<String>>, DockerError> {
        let answer = match self.get("inspect exec", exec, &format!("/exec/{}/json", raw::encode(exec))).await
        {
            Ok(answer) => answer,
            Err(error) if error.not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if answer["Running"] != true {
            return Ok(None);
        }
        let process = &answer["ProcessConfig"];
        let arguments = process["arguments"].as_array().into_iter().flatten();
        let words = std::iter::once(&process["entrypoint"]).chain(arguments);
        Ok(Some(words.filter_map(Value::as_str).map(str::to_owned).collect()))
    }

    /// Runs a command in the container and waits for its end.
    pub async fn exec(&self, id: &ContainerId, exec: Exec<'_>) -> Result<ExecOutput, DockerError> {
        let object = id.short().to_owned();
        bounded_by("exec", &object, exec.deadline, self.exec_unbounded(id, &exec)).await
    }

    async fn exec_unbounded(&self, id: &ContainerId, exec: &Exec<'_>) -> Result<ExecOutput, DockerError> {
        let object = id.short();
        let options = CreateExecOptions {
            attach_stdin: Some(exec.stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(exec.argv.to_vec()),
            user: (!exec.user.is_empty()).then(|| exec.user.to_owned()),
            ..CreateExecOptions::default()
        };
        let created = self
            .client
            .create_exec(id.as_str(), options)
            .await
            .map_err(|error| failed("exec", object, error))?;
        let started = self.client.start_exec(&created.id, None::<StartExecOptions>).await;
        let started = started.map_err(|error| failed("exec", object, error))?;
        let StartExecResults::Attached { mut output, mut input } = started else {
            return Err(garbled("exec", object, "a detached command"));
        };
        let stdin = exec.stdin.map(<[u8]>::to_vec);
        let feed = async move {
            if let Some(stdin) = stdin {
                // A command may end without reading all; its exit code says whether that is wrong.
                let _ = input.write_all(&stdin).await;
                let _ = input.flush().await;
                let _ = input.shutdown().await;
            }
            // Kept open until here: with a closed input some engines cut the output short.
            input
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read = async {
            while let Some(chunk) = output.next().await {
                match chunk.map_err(|error| failed("exec", object, error))? {
                    LogOutput::StdErr { message } => keep(&mut stderr, &message, exec.limit),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => {
                        keep(&mut stdout, &message, exec.limit);
                    }
                    LogOutput::StdIn { .. } => {}
                }
            }
            Ok::<_, DockerError>(())
        };
        let (_input, read) = tokio::join!(feed, read);
        read?;
        let ended =
            self.client.inspect_exec(&created.id).await.map_err(|error| failed("exec", object, error))?;
        Ok(ExecOutput { code: ended.exit_code.unwrap_or(-1), stdout, stderr })
    }

    /// A file or folder of the container as a tar stream, at most `limit` bytes; `None` if it is not there.
    /// Works on stopped containers too, and follows no symlink out of the container.
    pub async fn download(
        &self,
        id: &ContainerId,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, DockerError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream = Box::pin(self.client.download_from_container(id.as_str(), Some(options)));
        let read = async {
            let mut tar = Vec::new();
            while let Some(chunk) = stream.next().await {
                tar.extend_from_slice(&chunk.map_err(|error| failed("download", path, error))?);
                if tar.len() > limit {
                    return Err(garbled("download", path, &format!("more than {limit} bytes")));
                }
            }
            Ok(tar)
        };
        match bounded_by("download", path, CALL, read).await {
            Ok(tar) => Ok(Some(tar)),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Unpacks a tar archive into a folder of the container; owners and modes are the archive's.
    pub async fn upload(&self, id: &ContainerId, folder: &str, tar: Vec<u8>) -> Result<(), DockerError> {
        let options = UploadToContainerOptionsBuilder::default().path(folder).copy_uidgid("true").build();
        let body = bollard::body_full(Bytes::from(tar));
        bounded("upload", folder, CALL, self.client.upload_to_container(id.as_str(), Some(options), body))
            .await
    }

    /// The last lines that the container wrote, for a person who has to find out why it failed.
    pub async fn last_lines(&self, id: &ContainerId, lines: usize) -> Result<Vec<String>, DockerError> {
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let stream = self.client.logs(id.as_str(), Some(options)).take(lines.saturating_mul(4));
        let read = async {
            let chunks: Vec<_> = stream.collect().await;
            let mut text = String::new();
            for chunk in chunks {
                let chunk = chunk.map_err(|error| failed("logs", id.short(), error))?;
                text.push_str(&String::from_utf8_lossy(&chunk.into_bytes()));
            }
            Ok(text
                .lines()
                .rev()
                .take(lines)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect())
        };
        bounded_by("logs", id.short(), CALL, read).await
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

/// A stop's grace period as the API takes it.
fn seconds(grace: i64) -> i32 {
    i32::try_from(grace).unwrap_or(i32::MAX)
}

fn stop_limit(grace: i64) -> Duration {
    u64::try_from(grace).map_or(LONGEST_STOP, |grace| Duration::from_secs(grace) + STOP_MARGIN)
}

fn keep(kept: &mut Vec<u8>, more: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len());
    kept.extend_from_slice(&more[..more.len().min(room)]);
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

fn garbled(call: &'static str, object: &str, why: &str) -> DockerError {
    DockerError { call, object: object.to_owned(), failure: Failure::Garbled(why.to_owned()) }
}

fn failed(call: &'static str, object: &str, error: BollardError) -> DockerError {
    let failure = match error {
        BollardError::DockerResponseServerError { status_code, message } => {
            Failure::Refused { status: status_code, message }
        }
        BollardError::RequestTimeoutError => Failure::Timeout(CALL),
        BollardError::JsonDataError { message, .. } => Failure::Garbled(message),
        other => Failure::Unreachable(chain(&other)),
    };
    DockerError { call, object: object.to_owned(), failure }
}

/// An error and its sources in one line: bollard's own text often hides the reason in the source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
