//! The host as the agent meets it: containers, volumes and networks as a Docker Engine has them, and whatever can befall
//! them. What the engine does by itself (finishing a stop, restarting what ended) goes on whoever dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dbssl::{
    host::docker::{DockerError, Event, EventKind, Failure},
    model::{ContainerId, Roots},
};
use futures_util::future::pending;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

use crate::{
    container::{Container, Containers, Status},
    image::Images,
    promises,
    server::Server,
};

/// One of the agent's lives; what an earlier one still wanted to do never happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(pub u64);

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Of a thousand calls, so many fail before they did anything, …
    pub fails: u16,
    /// … did it and their answer is lost, …
    pub lost: u16,
    /// … are the last of the agent that made them, …
    pub deadly: u16,
    /// … take seconds.
    pub slow: u16,
    /// Of a thousand events, so many get lost, or come twice.
    pub events: u16,
    /// Of a thousand changes of a file, so many are refused.
    pub disk: u16,
    /// Before so many of them a user replaces the trust bundle.
    pub drops: u16,
}

/// What happens as the agent asks for something, before it is done; it may be refused then. A question to a server is
/// answered before.
pub struct Upon {
    pub call: &'static str,
    /// The object's name, or nothing: whatever it is.
    pub object: &'static str,
    pub happens: Happening,
}

pub type Happening = Box<dyn FnOnce(&Shared) -> Result<(), DockerError> + Send>;

pub struct Machine {
    pub rng: fastrand::Rng,
    pub roots: Roots,
    pub images: Images,
    pub containers: Containers,
    pub volumes: BTreeSet<String>,
    pub networks: BTreeSet<String>,
    pub weather: Weather,
    /// Containers whose names end like that Docker refuses to remove.
    pub keeps: Option<&'static str>,
    /// A container of which Docker tells nothing.
    pub hangs: Option<&'static str>,
    pub upon: Option<Upon>,
    pub life: Life,
    /// Between one of the agent's lives and the next.
    pub dead: bool,
    pub daemon: bool,
    pub began: Instant,
    pub epoch: OffsetDateTime,
    /// What somebody added to the clock.
    pub skew: time::Duration,
    /// What the agent asked for that changes something outside its folders.
    pub effects: Vec<String>,
    pub broken: Vec<String>,
    pub steps: Option<Vec<String>>,
    pub truth: promises::Truth,
    made: u64,
    subscribers: Vec<mpsc::UnboundedSender<Result<Event, DockerError>>>,
    /// Since the daemon started.
    log: Vec<(OffsetDateTime, String, &'static str)>,
}

#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    machine: Mutex<Machine>,
    /// The agent has died.
    died: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

pub fn refused(call: &'static str, object: &str, status: u16, message: &str) -> DockerError {
    let failure = Failure::Refused { status, message: message.to_owned() };
    DockerError { call, object: object.to_owned(), failure }
}

pub fn gone(call: &'static str) -> DockerError {
    let failure = Failure::Unreachable("connection reset".to_owned());
    DockerError { call, object: "engine".to_owned(), failure }
}

impl Machine {
    pub fn new(seed: u64, roots: Roots, telling: bool) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            roots,
            images: Images::default(),
            containers: Containers::default(),
            volumes: BTreeSet::new(),
            networks: ["bridge", "app", "host"].map(str::to_owned).into(),
            weather: Weather::default(),
            keeps: None,
            hangs: None,
            upon: None,
            life: Life(0),
            dead: true,
            daemon: true,
            began: Instant::now(),
            epoch: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
            skew: time::Duration::ZERO,
            effects: Vec::new(),
            broken: Vec::new(),
            steps: telling.then(Vec::new),
            truth: promises::Truth::default(),
            made: 0,
            subscribers: Vec::new(),
            log: Vec::new(),
        }
    }

    pub fn now(&self) -> OffsetDateTime {
        self.epoch + self.skew + self.began.elapsed()
    }

    /// One of `of` times.
    pub fn chance(&mut self, of: u16, all: u16) -> bool {
        of > 0 && self.rng.u16(0..all) < of
    }

    pub fn packet_lost(&mut self) -> bool {
        self.chance(self.weather.fails, 1000)
    }

    pub fn tell(&mut self, step: impl FnOnce() -> String) {
        let at = self.began.elapsed();
        if let Some(steps) = &mut self.steps {
            steps.push(format!("{:>12.3} {}", at.as_secs_f64(), step()));
        }
    }

    pub fn breaks(&mut self, promise: impl FnOnce() -> String) {
        if self.broken.len() < 5 {
            let broken = promise();
            self.tell(|| format!("BROKEN: {broken}"));
            self.broken.push(broken);
        }
    }

    /// How many operations the agent has in its journal.
    pub fn under_way(&self) -> usize {
        std::fs::read_dir(self.roots.journal()).into_iter().flatten().count()
    }

    /// What the agent is doing with a database, by its journal.
    pub fn works_on(&self, name: &str) -> Option<&'static str> {
        let files = std::fs::read_dir(self.roots.journal()).into_iter().flatten().flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let own = texts.into_iter().find(|text| text.contains(&format!("\"name\":\"{name}\"")))?;
        Some(if own.contains("\"kind\":\"restart\"") { "restart" } else { "recreate" })
    }

    pub fn find(&self, id_or_name: &str) -> Option<&Container> {
        self.containers
            .get(id_or_name)
            .or_else(|| self.containers.values().find(|container| container.name == id_or_name))
    }

    fn get(&mut self, call: &'static str, id: &str) -> Result<&mut Container, DockerError> {
        self.containers.get_mut(id).ok_or_else(|| refused(call, id, 404, "No such container"))
    }

    pub fn server_at(&self, address: IpAddr) -> Option<&Server> {
        let mut running = self.containers.values().filter(|container| container.is_running());
        running.find(|container| IpAddr::V4(container.address) == address)?.server.as_ref()
    }

    pub fn event(&mut self, id: &str, action: &'static str) {
        let now = self.now();
        self.tell(|| format!("  event {action} {}", &id[..8]));
        self.log.push((now, id.to_owned(), action));
        let kind = match action {
            "destroy" => EventKind::Destroyed,
            "rename" => EventKind::Renamed,
            "kill" | "stop" => return,
            _ => EventKind::Other,
        };
        let event = Event { id: id.parse().unwrap(), kind };
        let times = if self.chance(self.weather.events, 1000) { self.rng.usize(0..3) } else { 1 };
        for _ in 0..times {
            self.subscribers.retain(|subscriber| subscriber.send(Ok(event.clone())).is_ok());
        }
    }

    pub fn subscribe(&mut self) -> mpsc::UnboundedReceiver<Result<Event, DockerError>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if self.daemon {
            self.subscribers.push(sender);
        } else {
            let _ = sender.send(Err(gone("events")));
        }
        receiver
    }

    /// As the real one answers it: what happened before the daemon started is not known.
    pub fn was_stopped(&self, id: &str, since: OffsetDateTime) -> bool {
        let (mut start_seen, mut stopped) = (false, false);
        for (at, _, action) in self.log.iter().filter(|(_, container, _)| container == id) {
            match *action {
                "start" => (start_seen, stopped) = (true, false),
                "kill" | "stop" if start_seen && *at >= since => stopped = true,
                _ => {}
            }
        }
        stopped
    }

    pub fn was_signalled(&self, id: &str, since: OffsetDateTime) -> bool {
        let when = since..=self.now();
        self.log.iter().any(|(at, of, action)| of == id && *action == "kill" && when.contains(at))
    }

    /// `POST /containers/create`. The image has a volume at `/data`.
    pub fn create(&mut self, name: &str, body: &Value) -> Result<String, DockerError> {
        if self.find(name).is_some() {
            return Err(refused("create", name, 409, "the name is in use"));
        }
        let image = body["Image"].as_str().unwrap_or_default();
        let Some(image) = self.images.find(image) else {
            return Err(refused("create", name, 404, &format!("No such image: {image}")));
        };
        self.made += 1;
        let id = format!("{:08x}{:056x}", self.made, self.rng.u64(..));
        let mut config = body.clone();
        let mut host_config = config["HostConfig"].take();
        let networking = config["NetworkingConfig"].take();
        let fields = config.as_object_mut().unwrap();
        fields.remove("HostConfig");
        fields.remove("NetworkingConfig");
        if config["Hostname"].as_str().is_none_or(str::is_empty) {
            config["Hostname"] = json!(id[..12]);
        }
        host_config["ContainerIDFile"] = json!("");
        let mut mounts = Vec::new();
        for bind in host_config["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            mounts.push(self.mount(bind));
        }
        if !mounts.iter().any(|mount| mount["Destination"] == "/data") {
            let name = format!("{:064x}", self.rng.u128(..));
            mounts.push(self.mount(&format!("{name}:/data")));
        }
        let mode = host_config["NetworkMode"].as_str().unwrap_or("default").to_owned();
        let primary = if mode == "default" { "bridge".to_owned() } else { mode };
        let mut networks = BTreeMap::from([(primary, json!({}))]);
        for (network, endpoint) in networking["EndpointsConfig"].as_object().into_iter().flatten() {
            networks.insert(network.clone(), endpoint.clone());
        }
        let container = Container::new(&id, name, image, [config, host_config], networks, mounts, self.now());
        self.containers.insert(container);
        self.event(&id, "create");
        Ok(id)
    }

    fn mount(&mut self, bind: &str) -> Value {
        let parts: Vec<_> = bind.split(':').collect();
        let (source, destination) = (parts[0], parts[1]);
        let options = parts.get(2).copied().unwrap_or_default();
        let writable = !options.split(',').any(|option| option == "ro");
        if source.starts_with('/') {
            // As Docker does if it is not there.
            std::fs::create_dir_all(source).unwrap();
            return json!({
                "Type": "bind", "Source": source, "Destination": destination, "Mode": options, "RW": writable,
                "Propagation": "rprivate",
            });
        }
        self.volumes.insert(source.to_owned());
        json!({
            "Type": "volume", "Name": source, "Source": format!("/volumes/{source}/_data"),
            "Destination": destination, "Driver": "local", "Mode": options, "RW": writable, "Propagation": "",
        })
    }

    pub fn rename(&mut self, id: &str, name: &str) -> Result<(), DockerError> {
        if let Some(other) = self.find(name) {
            let own = other.id == id;
            return if own { Ok(()) } else { Err(refused("rename", name, 409, "the name is in use")) };
        }
        name.clone_into(&mut self.get("rename", id)?.name);
        self.event(id, "rename");
        Ok(())
    }

    /// Docker is asked to remove it, and now and then cannot end what it begins.
    pub fn try_to_remove(&mut self, id: &str) -> Result<(), DockerError> {
        let keeps = self.keeps;
        let name = &self.get("remove", id)?.name;
        if keeps.is_some_and(|ending| name.ends_with(ending)) {
            return Err(refused("remove", id, 500, "permission denied"));
        }
        let fails = self.weather.fails;
        if self.chance(fails, 1000) {
            let container = self.get("remove", id)?;
            if !container.is_running() {
                container.status = Status::Dead;
                return Err(refused("remove", id, 500, "device or resource busy"));
            }
        }
        self.remove(id)
    }

    pub fn remove(&mut self, id: &str) -> Result<(), DockerError> {
        if self.get("remove", id)?.is_running() {
            return Err(refused("remove", id, 409, "it is running"));
        }
        self.containers.remove(id);
        self.event(id, "destroy");
        Ok(())
    }

    /// `docker container prune`
    pub fn prune(&mut self) {
        let down = self.containers.values().filter(|container| container.is_down());
        for id in down.map(|container| container.id.clone()).collect::<Vec<_>>() {
            let _ = self.remove(&id);
        }
    }

    pub fn set_policy(&mut self, id: &str, policy: &Value) -> Result<(), DockerError> {
        self.get("update", id)?.host_config["RestartPolicy"] = policy.clone();
        self.tell(|| format!("  policy of {}: {policy}", &id[..8]));
        self.event(id, "update");
        Ok(())
    }

    /// One that is stopped may be attached to a network that does not exist.
    pub fn connect(&mut self, id: &str, network: &str, endpoint: &Value) -> Result<(), DockerError> {
        let exists = self.networks.contains(network);
        let container = self.get("connect network", id)?;
        if container.on_host() {
            let why =
                "container sharing network namespace with another container or host cannot be connected";
            return Err(refused("connect network", network, 403, why));
        }
        if !exists && container.is_running() {
            return Err(refused("connect network", network, 404, "network not found"));
        }
        container.networks.insert(network.to_owned(), endpoint.clone());
        Ok(())
    }

    pub fn disconnect(&mut self, id: &str, network: &str) -> Result<(), DockerError> {
        match self.get("disconnect network", id)?.networks.remove(network) {
            Some(_) => Ok(()),
            None => Err(refused("disconnect network", network, 404, "not connected")),
        }
    }

    /// The process begins; `false`: it runs already.
    fn launch(&mut self, id: &str) -> Result<bool, DockerError> {
        let takes = Duration::from_millis(self.rng.u64(20..400));
        let now = self.now();
        let networks = self.networks.clone();
        self.made += 1;
        let made = u32::try_from(self.made).unwrap();
        let container = self.get("start", id)?;
        if container.is_running() {
            return Ok(false);
        }
        if container.status == Status::Dead {
            return Err(refused("start", id, 409, "container is marked for removal and cannot be started"));
        }
        if let Some(network) = container.networks.keys().find(|network| !networks.contains(*network)) {
            return Err(refused("start", id, 404, &format!("network {network} not found")));
        }
        if container.host_config["Devices"].as_array().is_some_and(|devices| !devices.is_empty()) {
            return Err(refused(
                "start",
                id,
                500,
                "error gathering device information: no such file or directory",
            ));
        }
        container.address = if container.on_host() {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::from_bits(u32::from_be_bytes([172, 18, 0, 0]) + made)
        };
        container.status = Status::Running;
        container.started = Some(now);
        container.starts += 1;
        container.stopped_by_hand = false;
        match Server::start(
            &container.words(),
            container.certificates().as_deref(),
            container.image.quirk,
            takes,
        ) {
            Ok(server) => container.server = Some(server),
            Err(code) => (container.server, container.code) = (None, code),
        }
        let (name, volume, side_car) = (container.name.clone(), container.data(), container.is_side_car());
        let shares = |other: &&Container| {
            let both = other.id != id && other.is_running() && other.data() == volume;
            both && !side_car && !other.is_side_car()
        };
        if let Some(other) = self.containers.values().find(shares).map(|other| other.name.clone()) {
            self.breaks(|| format!("{name} and {other} run on one volume"));
        }
        self.event(id, "start");
        Ok(true)
    }

    fn end(&mut self, id: &str, code: i64) {
        let Some(container) = self.containers.get_mut(id) else { return };
        (container.status, container.code, container.server) = (Status::Exited, code, None);
        self.event(id, "die");
    }
}

impl Shared {
    pub fn new(machine: Machine) -> Self {
        Self(Arc::new(Inner { machine: Mutex::new(machine), died: Notify::new() }))
    }

    pub fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.machine.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub async fn died(&self) {
        self.0.died.notified().await;
    }

    /// The agent of this life is dead from here on.
    pub fn kill(&self) {
        let mut machine = self.lock();
        if machine.dead {
            return;
        }
        machine.dead = true;
        machine.life.0 += 1;
        machine.tell(|| "the agent dies".to_owned());
        self.0.died.notify_one();
    }

    /// What is to happen upon this call, if anything.
    pub fn upon(&self, call: &str, object: &str) -> Result<(), DockerError> {
        let upon = self
            .lock()
            .upon
            .take_if(|upon| upon.call == call && (upon.object.is_empty() || upon.object == object));
        upon.map_or(Ok(()), |upon| (upon.happens)(self))
    }

    /// Whoever is dead does not come back.
    async fn alive(&self, life: Life) {
        if self.lock().life != life {
            pending::<()>().await;
        }
    }

    /// Time goes by, in which everything else goes on; the agent may not live to see its end.
    pub async fn yield_to_others(&self, life: Life, what: &str) {
        self.alive(life).await;
        let (takes, dies) = {
            let mut machine = self.lock();
            let weather = machine.weather;
            let slow = machine.chance(weather.slow, 1000);
            let takes = machine.rng.u64(if slow { 500..8000 } else { 0..6 });
            let dies = machine.chance(weather.deadly, 1000);
            (Duration::from_millis(takes), dies)
        };
        sleep(takes).await;
        self.alive(life).await;
        if dies {
            self.lock().tell(|| format!("  at {what}"));
            self.kill();
            pending::<()>().await;
        }
        promises::hold(&mut self.lock());
    }

    pub fn start(&self, id: &str) -> Result<(), DockerError> {
        let (launched, starts, failed) = {
            let mut machine = self.lock();
            let launched = machine.launch(id)?;
            let container = &machine.containers[id];
            (launched, container.starts, container.server.is_none())
        };
        if launched && failed {
            let (shared, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move {
                sleep(Duration::from_millis(30)).await;
                shared.ended(&id, starts, 1);
            });
        }
        Ok(())
    }

    /// Its process ends by itself.
    pub fn ended(&self, id: &str, starts: u64, code: i64) {
        let again = {
            let mut machine = self.lock();
            let runs = |container: &&mut Container| container.is_running() && container.starts == starts;
            let Some(container) = machine.containers.get_mut(id).filter(runs) else { return };
            let again = match container.policy() {
                "always" | "unless-stopped" => true,
                "on-failure" => code != 0,
                _ => false,
            };
            // Somebody has just told Docker to stop it.
            let again = again && !container.stopped_by_hand;
            machine.end(id, code);
            if again && let Some(container) = machine.containers.get_mut(id) {
                container.status = Status::Restarting;
            }
            again
        };
        if again {
            let (shared, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move {
                sleep(Duration::from_millis(100 << starts.min(9))).await;
                let waits = |container: &Container| {
                    container.status == Status::Restarting && container.starts == starts
                };
                let due = shared.lock().containers.get(&id).is_some_and(waits);
                if due
                    && shared.start(&id).is_err()
                    && let Some(container) = shared.lock().containers.get_mut(&id)
                {
                    container.status = Status::Exited;
                }
            });
        }
    }

    /// `docker stop`: done when Docker says so, and goes on without whoever asked for it.
    pub async fn stop(&self, id: &str) -> Result<(), DockerError> {
        let (starts, takes) = {
            let mut machine = self.lock();
            let takes = machine.rng.u64(10..300);
            let container = machine.get("stop", id)?;
            if !container.is_running() {
                if container.status == Status::Restarting {
                    (container.status, container.stopped_by_hand) = (Status::Exited, true);
                }
                return Ok(());
            }
            container.stopped_by_hand = true;
            let starts = container.starts;
            machine.event(id, "kill");
            (starts, Duration::from_millis(takes))
        };
        let (shared, id) = (self.clone(), id.to_owned());
        let stopping = tokio::spawn(async move {
            sleep(takes).await;
            {
                let mut machine = shared.lock();
                let runs = |container: &Container| container.is_running() && container.starts == starts;
                if machine.containers.get(&id).is_some_and(runs) {
                    machine.end(&id, 0);
                }
            }
            sleep(Duration::from_millis(100)).await;
            if shared.lock().containers.contains_key(&id) {
                shared.lock().event(&id, "stop");
            }
        });
        let _ = stopping.await;
        Ok(())
    }

    pub async fn restart(&self, id: &str) -> Result<(), DockerError> {
        self.lock().get("restart", id)?;
        let (shared, id) = (self.clone(), id.to_owned());
        let restarting = tokio::spawn(async move {
            shared.stop(&id).await?;
            shared.start(&id)
        });
        restarting.await.unwrap()
    }

    pub fn reload(&self, id: &str) -> Result<bool, DockerError> {
        let mut machine = self.lock();
        let container = machine.get("exec", id)?;
        let certificates = container.certificates();
        match &mut container.server {
            Some(server) if container.status == Status::Running => Ok(server.reload(certificates.as_deref())),
            _ => Err(refused("exec", id, 409, "it is not running")),
        }
    }

    /// The daemon is killed, and every container with it.
    pub fn daemon_dies(&self) {
        let mut machine = self.lock();
        machine.tell(|| "the daemon dies".to_owned());
        machine.daemon = false;
        machine.log.clear();
        for subscriber in std::mem::take(&mut machine.subscribers) {
            let _ = subscriber.send(Err(gone("events")));
        }
        for container in machine.containers.values_mut() {
            if matches!(container.status, Status::Running | Status::Restarting) {
                // Remembered by what the daemon finds when it comes back.
                (container.status, container.code, container.server) = (Status::Restarting, 137, None);
                container.starts += 1;
            }
        }
        drop(machine);
    }

    /// It comes back, and starts what its restart policies say.
    pub fn daemon_starts(&self) {
        let due: Vec<String> = {
            let mut machine = self.lock();
            machine.tell(|| "the daemon starts".to_owned());
            machine.daemon = true;
            let mut due = Vec::new();
            for container in machine.containers.values_mut() {
                let ran = container.status == Status::Restarting;
                if ran {
                    container.status = Status::Exited;
                }
                let starts = match container.policy() {
                    _ if matches!(container.status, Status::Created | Status::Dead) => false,
                    "always" => true,
                    "unless-stopped" => !container.stopped_by_hand,
                    "on-failure" => ran && container.code != 0,
                    _ => false,
                };
                if starts {
                    due.push(container.id.clone());
                }
            }
            due
        };
        for id in due {
            if let Err(error) = self.start(&id) {
                self.lock().tell(|| format!("  not started: {error}"));
            }
        }
    }
}

pub fn id_of(id: &str) -> ContainerId {
    id.parse().unwrap()
}
