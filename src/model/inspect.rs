//! What Docker says of one container, kept as the raw JSON it sent.
//!
//! Typed models drop fields that they do not know, and a container recreated from them would lose
//! those silently. So the JSON stays whole and these are views into it. Docker's answers are input:
//! a missing or odd field reads as absent, never as a panic.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{ContainerId, ContainerName};

/// The answer of `GET /containers/ID/json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspect {
    raw: Arc<Value>,
    id: ContainerId,
    name: ContainerName,
}

/// A container as Docker sees its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
    /// Being removed, or a word that this version does not know.
    Other,
}

/// A container's health check, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// One entry of `Mounts`: what is really mounted, wherever it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, …
    pub kind: String,
    /// The volume's name; empty for others.
    pub name: String,
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    pub writable: bool,
}

/// One network that the container is attached to.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment<'a> {
    pub network: &'a str,
    pub endpoint: &'a Value,
}

/// An answer that is not a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Docker's description of a container has no usable {field}: {why}")]
pub struct BadInspect {
    pub field: &'static str,
    pub why: String,
}

impl Inspect {
    pub fn new(raw: Value) -> Result<Self, BadInspect> {
        fn field<T: FromStr<Err: ToString>>(raw: &Value, name: &'static str) -> Result<T, BadInspect> {
            raw[name]
                .as_str()
                .unwrap_or_default()
                .parse()
                .map_err(|error: T::Err| BadInspect { field: name, why: error.to_string() })
        }
        let (id, name) = (field(&raw, "Id")?, field(&raw, "Name")?);
        Ok(Self { raw: Arc::new(raw), id, name })
    }

    pub fn raw(&self) -> &Value {
        &self.raw
    }

    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    pub fn name(&self) -> &ContainerName {
        &self.name
    }

    pub fn config(&self) -> &Value {
        &self.raw["Config"]
    }

    pub fn host_config(&self) -> &Value {
        &self.raw["HostConfig"]
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.config()["Labels"].as_object();
        labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.config()["Labels"][key].as_str()
    }

    /// The image by id, `sha256:…`.
    pub fn image_id(&self) -> &str {
        text(&self.raw["Image"])
    }

    /// The image as it was named at creation.
    pub fn image_name(&self) -> &str {
        text(&self.config()["Image"])
    }

    /// `None` when the container has none, be it cleared or absent.
    pub fn entrypoint(&self) -> Option<Vec<String>> {
        self.config()["Entrypoint"].as_array().map(|words| strings(words))
    }

    pub fn command(&self) -> Vec<String> {
        self.config()["Cmd"].as_array().map(|words| strings(words)).unwrap_or_default()
    }

    /// All that is run, as one list: the entrypoint, then the command.
    pub fn words(&self) -> Vec<String> {
        self.entrypoint().unwrap_or_default().into_iter().chain(self.command()).collect()
    }

    /// Environment; of a repeated key the last one counts, as it does in the container.
    pub fn environment(&self) -> BTreeMap<String, String> {
        environment(&self.config()["Env"])
    }

    pub fn user(&self) -> &str {
        text(&self.config()["User"])
    }

    /// The state as Docker says it, in its lists too.
    pub fn state_word(&self) -> &str {
        text(&self.raw["State"]["Status"])
    }

    pub fn state(&self) -> State {
        match self.state_word() {
            "created" => State::Created,
            "running" => State::Running,
            "paused" => State::Paused,
            "restarting" => State::Restarting,
            "exited" => State::Exited,
            "dead" => State::Dead,
            _ => State::Other,
        }
    }

    pub fn running(&self) -> bool {
        self.raw["State"]["Running"].as_bool().unwrap_or(false)
    }

    /// `Config.Healthcheck.Test`: `["CMD", word…]`, `["CMD-SHELL", script]`, `["NONE"]`; empty if there is none.
    pub fn healthcheck(&self) -> Vec<String> {
        self.config()["Healthcheck"]["Test"].as_array().map(|words| strings(words)).unwrap_or_default()
    }

    pub fn health(&self) -> Health {
        match text(&self.raw["State"]["Health"]["Status"]) {
            "starting" => Health::Starting,
            "healthy" => Health::Healthy,
            "unhealthy" => Health::Unhealthy,
            _ => Health::None,
        }
    }

    pub fn created_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(text(&self.raw["Created"]), &Rfc3339).ok()
    }

    pub fn started_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(text(&self.raw["State"]["StartedAt"]), &Rfc3339).ok()
    }

    /// The main process as the host sees it; 0 when it does not run.
    pub fn pid(&self) -> i64 {
        self.raw["State"]["Pid"].as_i64().unwrap_or(0)
    }

    pub fn exit_code(&self) -> i64 {
        self.raw["State"]["ExitCode"].as_i64().unwrap_or(0)
    }

    /// Commands being run in the container by `docker exec`, health checks among them.
    pub fn exec_ids(&self) -> Vec<String> {
        self.raw["ExecIDs"].as_array().map(|ids| strings(ids)).unwrap_or_default()
    }

    pub fn mounts(&self) -> Vec<Mount> {
        let mounts = self.raw["Mounts"].as_array();
        mounts
            .into_iter()
            .flatten()
            .map(|mount| Mount {
                kind: text(&mount["Type"]).to_owned(),
                name: text(&mount["Name"]).to_owned(),
                source: text(&mount["Source"]).to_owned(),
                destination: text(&mount["Destination"]).to_owned(),
                writable: mount["RW"].as_bool().unwrap_or(false),
            })
            .collect()
    }

    pub fn network_mode(&self) -> &str {
        text(&self.host_config()["NetworkMode"])
    }

    pub fn attachments(&self) -> Vec<Attachment<'_>> {
        let networks = self.raw["NetworkSettings"]["Networks"].as_object();
        networks.into_iter().flatten().map(|(network, endpoint)| Attachment { network, endpoint }).collect()
    }

    /// Every alias on every network, the container's short id included where Docker lists it.
    pub fn aliases(&self) -> Vec<String> {
        self.attachments()
            .iter()
            .filter_map(|attachment| attachment.endpoint["Aliases"].as_array())
            .flat_map(|aliases| strings(aliases))
            .collect()
    }

    /// The hostname if it looks like one that Docker made of a container's id: this one's or, after a recreation,
    /// the first one's.
    pub fn default_hostname(&self) -> Option<&str> {
        let hostname = self.config()["Hostname"].as_str()?;
        let made_up =
            hostname.len() == 12 && hostname.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        made_up.then_some(hostname)
    }

    /// Addresses that are fixed by configuration, which a new container would get again.
    pub fn fixed_addresses(&self) -> Vec<IpAddr> {
        self.attachments()
            .iter()
            .flat_map(|attachment| {
                let ipam = &attachment.endpoint["IPAMConfig"];
                [&ipam["IPv4Address"], &ipam["IPv6Address"]]
            })
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect()
    }

    /// Where the host reaches `port` of this container, best first: its own addresses, then what is
    /// published. With the host's network that is loopback.
    pub fn addresses(&self, port: u16) -> Vec<SocketAddr> {
        [self.own_addresses(port), self.published_addresses(port)].concat()
    }

    /// On its own networks, or loopback with the host's.
    pub fn own_addresses(&self, port: u16) -> Vec<SocketAddr> {
        if self.network_mode() == "host" {
            return vec![SocketAddr::from(([127, 0, 0, 1], port))];
        }
        let mut found = Vec::new();
        for attachment in self.attachments() {
            for field in ["IPAddress", "GlobalIPv6Address"] {
                if let Ok(address) = text(&attachment.endpoint[field]).parse::<IpAddr>() {
                    found.push(SocketAddr::new(address, port));
                }
            }
        }
        found
    }

    /// Where Docker forwards connections from.
    pub fn published_addresses(&self, port: u16) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        let published = self.raw["NetworkSettings"]["Ports"][format!("{port}/tcp")].as_array();
        for binding in published.into_iter().flatten() {
            let host_port = text(&binding["HostPort"]).parse::<u16>();
            let host_address = text(&binding["HostIp"]).parse::<IpAddr>();
            if let (Ok(host_port), Ok(address)) = (host_port, host_address) {
                let address = if address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address };
                found.push(SocketAddr::new(address, host_port));
            }
        }
        found
    }
}

/// What of an image matters to us: `GET /images/NAME/json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…`
    pub id: String,
    pub entrypoint: Option<Vec<String>>,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// `5432/tcp`, …
    pub exposed_ports: Vec<String>,
}

impl Image {
    pub fn new(raw: &Value) -> Self {
        let config = &raw["Config"];
        Self {
            id: text(&raw["Id"]).to_owned(),
            entrypoint: config["Entrypoint"].as_array().map(|words| strings(words)),
            command: config["Cmd"].as_array().map(|words| strings(words)).unwrap_or_default(),
            environment: environment(&config["Env"]),
            exposed_ports: config["ExposedPorts"]
                .as_object()
                .map(|ports| ports.keys().cloned().collect())
                .unwrap_or_default(),
        }
    }
}

/// One path that differs between a container's own layer and its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub kind: ChangeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(values: &[Value]) -> Vec<String> {
    values.iter().map(|value| text(value).to_owned()).collect()
}

fn environment(values: &Value) -> BTreeMap<String, String> {
    let entries = values.as_array();
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.as_str()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
