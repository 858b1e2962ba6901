//! A container as a Docker Engine has it.

use std::{cell::OnceCell, collections::BTreeMap, net::Ipv4Addr, ops::Deref, path::PathBuf};

use dbssl::model::inspect::Inspect;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{image::Image, server::Server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Restarting,
    Exited,
    /// Removed by half: it can only be removed.
    Dead,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: Image,
    pub config: Value,
    pub host_config: Value,
    pub networks: BTreeMap<String, Value>,
    pub mounts: Vec<Value>,
    pub status: Status,
    pub code: i64,
    pub created: OffsetDateTime,
    pub started: Option<OffsetDateTime>,
    /// How often it was started: what was meant for an earlier process does not meet a later one.
    pub starts: u64,
    pub stopped_by_hand: bool,
    pub server: Option<Server>,
    pub address: Ipv4Addr,
    /// What an inspection says of it, until it is changed.
    shown: OnceCell<Inspect>,
}

/// All there are, by id.
#[derive(Debug, Default)]
pub struct Containers(BTreeMap<String, Container>);

impl Containers {
    pub fn insert(&mut self, container: Container) {
        self.0.insert(container.id.clone(), container);
    }

    pub fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// To be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Container> {
        let container = self.0.get_mut(id)?;
        container.shown.take();
        Some(container)
    }

    /// To be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Container> {
        for container in self.0.values_mut() {
            container.shown.take();
        }
        self.0.values_mut()
    }
}

impl Deref for Containers {
    type Target = BTreeMap<String, Container>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Container {
    /// Not started yet.
    pub fn new(
        id: &str,
        name: &str,
        image: Image,
        [config, host_config]: [Value; 2],
        networks: BTreeMap<String, Value>,
        mounts: Vec<Value>,
        created: OffsetDateTime,
    ) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            image,
            config,
            host_config,
            networks,
            mounts,
            status: Status::Created,
            code: 0,
            created,
            started: None,
            starts: 0,
            stopped_by_hand: false,
            server: None,
            address: Ipv4Addr::UNSPECIFIED,
            shown: OnceCell::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.status == Status::Running
    }

    /// What a prune takes.
    pub fn is_down(&self) -> bool {
        matches!(self.status, Status::Created | Status::Exited | Status::Dead)
    }

    /// It shares a volume with a database, as a backup does.
    pub fn is_side_car(&self) -> bool {
        self.config["Labels"].get("side-car").is_some()
    }

    pub fn words(&self) -> Vec<String> {
        let of = |field: &str| self.config[field].as_array().cloned().unwrap_or_default();
        let words = [of("Entrypoint"), of("Cmd")].concat();
        words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The volume that holds its data.
    pub fn data(&self) -> String {
        let data = self.mounts.iter().find(|mount| mount["Destination"] == "/data").unwrap();
        data["Name"].as_str().unwrap_or_default().to_owned()
    }

    pub fn certificates(&self) -> Option<PathBuf> {
        let mount = self.mounts.iter().find(|mount| mount["Destination"] == "/etc/redis/certs")?;
        Some(PathBuf::from(mount["Source"].as_str()?))
    }

    /// Whether its network is the host's.
    pub fn on_host(&self) -> bool {
        self.host_config["NetworkMode"] == "host"
    }

    pub fn policy(&self) -> &str {
        self.host_config["RestartPolicy"]["Name"].as_str().unwrap_or_default()
    }

    pub fn inspect(&self) -> Inspect {
        self.shown.get_or_init(|| Inspect::new(self.answer()).unwrap()).clone()
    }

    fn answer(&self) -> Value {
        let of = |field: &str| self.config[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let words = [of("Entrypoint"), of("Cmd")].concat();
        let started =
            self.started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.format(&Rfc3339).unwrap());
        let networks: serde_json::Map<_, _> = self
            .networks
            .iter()
            .map(|(network, endpoint)| {
                let mut shown = endpoint.clone();
                shown["NetworkID"] = json!(format!("{network:a<64}"));
                let address = (self.is_running() && !self.on_host()).then(|| self.address.to_string());
                shown["IPAddress"] = Value::String(address.unwrap_or_default());
                if !matches!(network.as_str(), "bridge" | "host") {
                    let mut aliases = endpoint["Aliases"].as_array().cloned().unwrap_or_default();
                    aliases.push(json!(self.id[..12]));
                    shown["Aliases"] = json!(aliases);
                }
                (network.clone(), shown)
            })
            .collect();
        let mut shown = json!({
            "Id": self.id,
            "Name": format!("/{}", self.name),
            "Created": self.created.format(&Rfc3339).unwrap(),
            "Image": self.image.id,
            "Path": words.first(),
            "Args": words.get(1..),
            "State": {
                "Status": self.status.word(), "Running": matches!(self.status, Status::Running | Status::Restarting),
                "Restarting": self.status == Status::Restarting, "Paused": false, "Pid": 0,
                "ExitCode": self.code, "StartedAt": started,
            },
            "NetworkSettings": { "Ports": {} },
            "ExecIDs": null,
        });
        // As they are: the macro would go through all of them.
        shown["Config"] = self.config.clone();
        shown["HostConfig"] = self.host_config.clone();
        shown["Mounts"] = Value::Array(self.mounts.clone());
        shown["NetworkSettings"]["Networks"] = Value::Object(networks);
        shown
    }
}
