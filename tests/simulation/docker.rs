//! The fake engine's side towards the agent.

use std::time::Duration;

use async_trait::async_trait;
use dbssl::{
    host::docker::{
        Containers, DockerError, EngineInfo, Event, Exec, ExecOutput, Failure, Inside, Listed, Networks, Node,
    },
    model::{
        ContainerId,
        inspect::{Change, Image, Inspect},
    },
};
use futures_util::{StreamExt, stream::BoxStream};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    container::Container,
    machine::{Life, Machine, Shared, gone, id_of, refused},
};

/// How long the agent waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct FakeDocker {
    pub machine: Shared,
    pub life: Life,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Failed(u16),
    /// It is done, and nobody hears of it.
    Lost,
}

impl FakeDocker {
    /// A call that changes nothing.
    async fn ask<T>(
        &self,
        call: &'static str,
        answer: impl FnOnce(&mut Machine) -> Result<T, DockerError>,
    ) -> Result<T, DockerError> {
        self.before(call).await?;
        answer(&mut self.machine.lock())
    }

    /// A call that changes something.
    async fn change<T>(
        &self,
        call: &'static str,
        object: &str,
        effect: impl AsyncFnOnce(&Shared) -> Result<T, DockerError>,
    ) -> Result<T, DockerError> {
        let fate = self.before(call).await?;
        {
            let mut machine = self.machine.lock();
            let what = format!("{call} {}", object.get(..8).filter(|_| object.len() == 64).unwrap_or(object));
            machine.tell(|| format!("  {what}"));
            machine.effects.push(what);
        }
        self.machine.upon(call, object)?;
        let done = effect(&self.machine).await;
        self.machine.yield_to_others(self.life, call).await;
        match done {
            Ok(_) if fate == Fate::Lost => Err(gone(call)),
            done => done,
        }
    }

    async fn before(&self, call: &'static str) -> Result<Fate, DockerError> {
        self.machine.yield_to_others(self.life, call).await;
        let mut machine = self.machine.lock();
        if !machine.daemon {
            return Err(gone(call));
        }
        let weather = machine.weather;
        let fate = if machine.chance(weather.fails, 1000) {
            Fate::Failed(if machine.rng.bool() { 500 } else { 0 })
        } else if machine.chance(weather.lost, 1000) {
            Fate::Lost
        } else {
            Fate::Done
        };
        match fate {
            Fate::Failed(0) => Err(gone(call)),
            Fate::Failed(status) => Err(refused(call, "engine", status, "out of luck")),
            fate => Ok(fate),
        }
    }
}

/// What a list of containers says of one, if it has the label (`key`, `key=value`, or none at all).
fn listed(container: &Container, label: &str) -> Option<Listed> {
    let labels = &container.config["Labels"];
    let carries = match label.split_once('=') {
        Some((key, value)) => labels[key] == value,
        None => label.is_empty() || labels.get(label).is_some(),
    };
    if !carries {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Listed {
        id: id_of(&container.id),
        name: container.name.parse().unwrap(),
        image: text(&container.config["Image"]),
        labels: labels.as_object()?.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        state: container.status.word().to_owned(),
        mounts: container.mounts.iter().map(|at| (text(&at["Source"]), text(&at["Destination"]))).collect(),
        network_mode: text(&container.host_config["NetworkMode"]),
    })
}

#[async_trait]
impl Containers for FakeDocker {
    fn creates_with_networks(&self) -> bool {
        false
    }

    async fn info(&self) -> Result<EngineInfo, DockerError> {
        self.ask("info", |_| Ok(EngineInfo { host_name: "sim".to_owned(), ..EngineInfo::default() })).await
    }

    fn events(&self, _: OffsetDateTime, _: &str) -> BoxStream<'static, Result<Event, DockerError>> {
        let events = self.machine.lock().subscribe();
        let stream = futures_util::stream::unfold(events, async |mut events| {
            let event = events.recv().await?;
            Some((event, events))
        });
        stream.boxed()
    }

    async fn list(&self, label: &str) -> Result<Vec<Listed>, DockerError> {
        self.ask("list", |machine| {
            Ok(machine.containers.values().filter_map(|container| listed(container, label)).collect())
        })
        .await
    }

    async fn inspect(&self, container: &str) -> Result<Option<Inspect>, DockerError> {
        let hangs = |machine: &Machine| {
            machine.hangs.is_some_and(|name| machine.find(container).is_some_and(|found| found.name == name))
        };
        if hangs(&self.machine.lock()) {
            sleep(PATIENCE).await;
            let failure = Failure::Timeout(PATIENCE);
            return Err(DockerError { call: "inspect", object: container.to_owned(), failure });
        }
        let inspect = |machine: &mut Machine| Ok(machine.find(container).map(Container::inspect));
        self.ask("inspect", inspect).await
    }

    async fn image(&self, image: &str) -> Result<Option<Image>, DockerError> {
        let described = |known: crate::image::Image| {
            Image::new(&json!({
                "Id": known.id,
                "Config": {
                    "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["redis-server"],
                    "ExposedPorts": { "6379/tcp": {} }, "Volumes": { "/data": {} },
                },
            }))
        };
        self.ask("inspect image", |machine| Ok(machine.images.find(image).map(described))).await
    }

    async fn create(&self, name: &str, body: &Value) -> Result<ContainerId, DockerError> {
        let id = self.change("create", name, async |shared| shared.lock().create(name, body)).await?;
        Ok(id_of(&id))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), DockerError> {
        self.change("start", id.as_str(), async |shared| shared.start(id.as_str())).await
    }

    async fn stop(&self, id: &ContainerId, _: i64) -> Result<(), DockerError> {
        self.change("stop", id.as_str(), async |shared| shared.stop(id.as_str()).await).await
    }

    async fn was_stopped(
        &self,
        id: &ContainerId,
        since: OffsetDateTime,
        _: OffsetDateTime,
    ) -> Result<bool, DockerError> {
        self.ask("events", |machine| Ok(machine.was_stopped(id.as_str(), since))).await
    }

    async fn was_signalled(&self, id: &ContainerId, since: OffsetDateTime) -> Result<bool, DockerError> {
        self.ask("events", |machine| Ok(machine.was_signalled(id.as_str(), since))).await
    }

    async fn restart(&self, id: &ContainerId, _: i64) -> Result<(), DockerError> {
        self.change("restart", id.as_str(), async |shared| shared.restart(id.as_str()).await).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), DockerError> {
        self.change("rename", name, async |shared| shared.lock().rename(id.as_str(), name)).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), DockerError> {
        let removed =
            self.change("remove", id.as_str(), async |shared| shared.lock().try_to_remove(id.as_str())).await;
        match removed {
            Err(error) if error.not_found() => Ok(()),
            removed => removed,
        }
    }

    async fn set_restart_policy(&self, id: &ContainerId, policy: &Value) -> Result<(), DockerError> {
        self.change("update", id.as_str(), async |shared| shared.lock().set_policy(id.as_str(), policy)).await
    }

    async fn changes(&self, _: &ContainerId) -> Result<Vec<Change>, DockerError> {
        self.ask("changes", |_| Ok(Vec::new())).await
    }
}

#[async_trait]
impl Inside for FakeDocker {
    async fn running_exec(&self, _: &str) -> Result<Option<Vec<String>>, DockerError> {
        self.ask("inspect exec", |_| Ok(None)).await
    }

    async fn exec(&self, id: &ContainerId, exec: Exec<'_>) -> Result<ExecOutput, DockerError> {
        // The parameters of our script come behind `sh -c TEXT dbssl`.
        let order = exec.argv.get(4).cloned().unwrap_or_default();
        self.change("exec", id.as_str(), async |shared| {
            let done = order == "reload" && shared.reload(id.as_str())?;
            let stdout = if done { b"dbssl done\n".to_vec() } else { Vec::new() };
            Ok(ExecOutput { code: i64::from(!done), stdout, stderr: Vec::new() })
        })
        .await
    }

    async fn download(&self, id: &ContainerId, path: &str, _: usize) -> Result<Option<Vec<u8>>, DockerError> {
        let known = |machine: &mut Machine| {
            machine.find(id.as_str()).ok_or_else(|| refused("download", path, 404, "No such container"))?;
            Ok((path == "/etc/passwd").then(passwd))
        };
        self.ask("download", known).await
    }

    async fn stat(&self, _: &ContainerId, _: &str) -> Result<Option<Node>, DockerError> {
        self.ask("stat", |_| Ok(None)).await
    }

    async fn put(&self, id: &ContainerId, _: &str, _: Vec<u8>) -> Result<(), DockerError> {
        self.change("put", id.as_str(), async |_| Ok(())).await
    }

    async fn last_lines(&self, _: &ContainerId, _: usize) -> Result<Vec<String>, DockerError> {
        self.ask("logs", |_| Ok(vec!["Failed to configure TLS".to_owned()])).await
    }
}

#[async_trait]
impl Networks for FakeDocker {
    async fn create_network(&self, name: &str) -> Result<(), DockerError> {
        self.change("create network", name, async |shared| {
            shared.lock().networks.insert(name.to_owned());
            Ok(())
        })
        .await
    }

    async fn network_exists(&self, name: &str) -> Result<bool, DockerError> {
        self.ask("inspect network", |machine| Ok(machine.networks.contains(name))).await
    }

    async fn volume_exists(&self, name: &str) -> Result<bool, DockerError> {
        self.ask("inspect volume", |machine| Ok(machine.volumes.contains(name))).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        self.change("remove network", name, async |shared| {
            shared.lock().networks.remove(name);
            Ok(())
        })
        .await
    }

    async fn connect_network(
        &self,
        network: &str,
        id: &ContainerId,
        endpoint: &Value,
    ) -> Result<(), DockerError> {
        let connect = async |shared: &Shared| shared.lock().connect(id.as_str(), network, endpoint);
        self.change("connect network", network, connect).await
    }

    async fn brake(&self, id: &ContainerId, network: &str) -> Result<(), DockerError> {
        self.connect_network(network, id, &json!({})).await
    }

    async fn disconnect_network(&self, network: &str, id: &ContainerId) -> Result<(), DockerError> {
        let disconnect = async |shared: &Shared| shared.lock().disconnect(id.as_str(), network);
        self.change("disconnect network", network, disconnect).await
    }
}

/// An archive with one file.
fn passwd() -> Vec<u8> {
    // Whoever runs this may not be able to give files away.
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let (uid, gid) = if uid == 0 { (999, 999) } else { (uid, gid) };
    let content = format!("root:x:0:0::/root:/bin/sh\nredis:x:{uid}:{gid}::/data:/bin/sh\n");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "passwd", content.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}
