//! The container that takes a database's place: the old one's configuration plus the wiring.
//!
//! Works on the raw JSON of `inspect`, so that a field which this version does not know is carried
//! along. What may differ from the old container is stated once, in [`Successor::expected`];
//! [`super::compare`] holds the created container against it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{labels::IMAGE, matching};
use crate::model::inspect::{Attachment, Image, Inspect};

/// The label by which a redeploy finds its successor again, whatever its name.
pub const OPERATION_LABEL: &str = "dbssl.operation";
/// Labels by which Compose finds its containers. A throw-away container must not carry them: Compose
/// would take it for a replica and remove the running database instead.
const COMPOSE_LABELS: &str = "com.docker.compose.";
/// A device that there is not: Docker makes a container that asks for it, and cannot start it. Under one path in the
/// container it would be passed over if that is privileged.
const NO_DEVICE: [&str; 2] = ["/dev/dbssl-rehearsal", "/dev/dbssl-never-started"];

/// What has to be added to a container so that it can serve TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring<'a> {
    /// The certificate directory on the host.
    pub source: &'a Path,
    /// Where the engine finds it in the container.
    pub target: &'a str,
    /// `Config.Cmd` with the server's flags.
    pub command: &'a [String],
    /// `Config.Healthcheck.Test`, if it has to be another.
    pub healthcheck: Option<&'a [String]>,
    /// The directory is not mounted yet.
    pub mount: bool,
    /// Relabel the directory for containers (`z`): shared, never private.
    pub selinux: bool,
}

/// A container to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct Successor {
    /// Body of `POST /containers/create`.
    pub body: Value,
    /// Networks to attach after creation, with their raw `EndpointConfig`.
    pub further_networks: Vec<(String, Value)>,
    /// What `inspect` must then say, in so far as it is compared.
    pub expected: Value,
}

/// How Docker will be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Since API 1.44 all networks can be given at creation, and a MAC address belongs to one of them.
    pub settings_by_network: bool,
    /// The name under which the image was asked for still means the same image.
    pub image_name_holds: bool,
}

/// Derives the successor of `old` under the wiring.
pub fn successor(
    old: &Inspect,
    image: &Image,
    wiring: &Wiring<'_>,
    operation: &str,
    dialect: Dialect,
) -> Successor {
    let mut expected = old.raw().clone();
    wire(&mut expected, old, wiring);
    expected["Config"]["Labels"][OPERATION_LABEL] = json!(operation);
    if !dialect.image_name_holds {
        image_by_id(&mut expected, old);
    }
    // Until it is proved, nothing but us starts it: not the daemon, not after a reboot.
    expected["HostConfig"]["RestartPolicy"] = json!({ "Name": "no", "MaximumRetryCount": 0 });
    asked(expected, old, image, dialect)
}

/// The old container itself, to be created again because it is gone. Its restart policy is kept.
pub fn rebuilt(old: &Inspect, image: &Image, operation: &str, dialect: Dialect) -> Successor {
    let mut expected = old.raw().clone();
    name_anonymous_volumes(&mut expected, old);
    expected["Config"]["Labels"][OPERATION_LABEL] = json!(operation);
    if !dialect.image_name_holds {
        image_by_id(&mut expected, old);
    }
    asked(expected, old, image, dialect)
}

/// The name is kept as a label: by it the config may have matched the container, and the engine was told.
fn image_by_id(expected: &mut Value, old: &Inspect) {
    expected["Config"]["Labels"][IMAGE] = json!(matching::image(old));
    expected["Config"]["Image"] = json!(old.image_id());
}

/// Turns what `inspect` shall say into what has to be asked for.
fn asked(mut expected: Value, old: &Inspect, image: &Image, dialect: Dialect) -> Successor {
    let mut body = expected["Config"].clone();
    if old.entrypoint().is_none() && image.entrypoint.is_some() {
        // Cleared by its user: null would bring the image's back.
        body["Entrypoint"] = json!([""]);
    }
    body["HostConfig"] = expected["HostConfig"].clone();
    // A path on the machine of whoever ran `docker run --cidfile`.
    body["HostConfig"]["ContainerIDFile"] = json!("");
    if old.host_config()["UTSMode"] == "host" {
        // Its name is the host's: Docker refuses one of its own, though it shows the id there.
        body["Hostname"] = json!("");
    }

    let (mut at_creation, mut further_networks) = (Map::new(), Vec::new());
    for (network, mut endpoint) in endpoints(old) {
        let primary = is_primary(old, &network);
        if primary {
            // The mode may name it by its id, which Docker would take for one network more.
            if old.network_mode() != "default" {
                expected["HostConfig"]["NetworkMode"] = json!(network);
                body["HostConfig"]["NetworkMode"] = json!(network);
            }
            let address = &old.config()["MacAddress"];
            if dialect.settings_by_network && address.as_str().is_some_and(|address| !address.is_empty()) {
                endpoint["MacAddress"] = address.clone();
                body["MacAddress"] = json!("");
            }
        }
        if primary && endpoint == json!({}) && network == "bridge" {
            // The default bridge takes no settings; the mode attaches it.
        } else if primary || dialect.settings_by_network {
            at_creation.insert(network, endpoint);
        } else {
            further_networks.push((network, endpoint));
        }
    }
    if !at_creation.is_empty() {
        body["NetworkingConfig"] = json!({ "EndpointsConfig": at_creation });
    }
    Successor { body, further_networks, expected }
}

/// The same container to try whether Docker will make of it what we expect: invisible to Compose, and nobody can start
/// it beside the database, as `docker start $(docker ps -aq)` would.
pub fn rehearsal(successor: &Successor) -> Successor {
    let mut rehearsal = successor.clone();
    for labels in [&mut rehearsal.body["Labels"], &mut rehearsal.expected["Config"]["Labels"]] {
        if let Some(labels) = labels.as_object_mut() {
            labels.retain(|key, _| !key.starts_with(COMPOSE_LABELS) && key != OPERATION_LABEL);
        }
    }
    let [outside, inside] = NO_DEVICE;
    let device = json!({ "PathOnHost": outside, "PathInContainer": inside, "CgroupPermissions": "r" });
    for asked in [&mut rehearsal.body, &mut rehearsal.expected] {
        match &mut asked["HostConfig"]["Devices"] {
            Value::Array(devices) => devices.push(device.clone()),
            none => *none = json!([device]),
        }
    }
    rehearsal
}

fn wire(expected: &mut Value, old: &Inspect, wiring: &Wiring<'_>) {
    name_anonymous_volumes(expected, old);
    expected["Config"]["Cmd"] = json!(wiring.command);
    if let Some(test) = wiring.healthcheck {
        expected["Config"]["Healthcheck"]["Test"] = json!(test);
    }
    // What Docker runs in the end: the entrypoint's own words, then the command.
    let entrypoint = old.entrypoint().unwrap_or_default();
    let words: Vec<_> = entrypoint.iter().chain(wiring.command).collect();
    expected["Path"] = json!(words.first());
    expected["Args"] = json!(words.get(1..).unwrap_or_default());
    if wiring.mount {
        // `Binds` rather than `Mounts`: should the directory ever be missing, Docker makes an empty
        // one and the database's own restarts pick up the files once they are back, where `Mounts`
        // would leave it down for good. Only `Binds` knows `z`, too.
        let options = if wiring.selinux { "ro,z" } else { "ro" };
        let bind = format!("{}:{}:{options}", wiring.source.display(), wiring.target);
        push(&mut expected["HostConfig"]["Binds"], json!(bind));
        push(
            &mut expected["Mounts"],
            json!({
                "Type": "bind",
                "Source": wiring.source.display().to_string(),
                "Destination": wiring.target,
                "Mode": options,
                "RW": false,
                "Propagation": "rprivate",
            }),
        );
    }
}

/// A volume without a name in the configuration is a new and empty one in the next container: mount
/// the old one by its name.
fn name_anonymous_volumes(expected: &mut Value, old: &Inspect) {
    let host_config = &mut expected["HostConfig"];
    for mount in old.mounts().into_iter().filter(|mount| mount.kind == "volume" && !mount.name.is_empty()) {
        if is_named(host_config, &mount.name, &mount.destination) {
            continue;
        }
        // `--mount type=volume,target=…` without a source keeps its entry and its options.
        let entries = host_config["Mounts"].as_array_mut();
        let entry = entries.into_iter().flatten().find(|entry| targets(entry, &mount.destination));
        if let Some(entry) = entry {
            entry["Source"] = json!(mount.name);
            continue;
        }
        let options = if mount.writable { "" } else { ":ro" };
        push(&mut host_config["Binds"], json!(format!("{}:{}{options}", mount.name, mount.destination)));
    }
}

fn is_named(host_config: &Value, volume: &str, destination: &str) -> bool {
    let bound = host_config["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut mounted = host_config["Mounts"].as_array().into_iter().flatten();
    bound.into_iter().any(|bind| {
        let mut parts = bind.split(':');
        parts.next() == Some(volume) && parts.next().is_some_and(|path| same_path(path, destination))
    }) || mounted.any(|mount| mount["Source"] == volume && targets(mount, destination))
}

fn targets(mount: &Value, destination: &str) -> bool {
    mount["Target"].as_str().is_some_and(|target| same_path(target, destination))
}

/// `-v name:/data/` is mounted at `/data`.
fn same_path(asked: &str, destination: &str) -> bool {
    let parts = |path: &'_ str| {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect::<Vec<_>>()
    };
    parts(asked) == parts(destination)
}

/// Every network of the old container with what was configured for it, without what Docker made up.
pub(super) fn endpoints(old: &Inspect) -> Vec<(String, Value)> {
    if matches!(old.network_mode(), "host" | "none") {
        return Vec::new();
    }
    let attachments = old.attachments();
    attachments
        .iter()
        .filter(|attachment| !is_echo(attachment, &attachments))
        .map(|attachment| (attachment.network.to_owned(), configured(attachment.endpoint, old)))
        .collect()
}

/// Docker lists the same attachment twice if `--network` named the network by its id: once by that, once by its name.
fn is_echo(attachment: &Attachment<'_>, attachments: &[Attachment<'_>]) -> bool {
    let id = |attachment: &Attachment<'_>| {
        attachment.endpoint["NetworkID"].as_str().unwrap_or_default().to_owned()
    };
    let own = id(attachment);
    own.starts_with(attachment.network)
        && attachments.iter().any(|other| other.network != attachment.network && id(other) == own)
}

fn configured(endpoint: &Value, old: &Inspect) -> Value {
    let mut kept = Map::new();
    for field in ["IPAMConfig", "Links", "DriverOpts", "GwPriority"] {
        let value = &endpoint[field];
        if !value.is_null() && *value != json!({}) && *value != json!([]) && *value != json!(0) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    let aliases: Vec<_> = endpoint["Aliases"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|alias| alias.as_str() != Some(old.id().short()))
        .cloned()
        .collect();
    if !aliases.is_empty() {
        kept.insert("Aliases".to_owned(), Value::Array(aliases));
    }
    Value::Object(kept)
}

/// The network that `NetworkMode` names, by name or by the beginning of its id.
fn is_primary(old: &Inspect, network: &str) -> bool {
    let mode = if old.network_mode() == "default" { "bridge" } else { old.network_mode() };
    let networks = endpoints(old);
    if networks.iter().any(|(name, _)| name == mode) {
        return mode == network;
    }
    let id = old.raw()["NetworkSettings"]["Networks"][network]["NetworkID"].as_str().unwrap_or_default();
    !mode.is_empty() && id.starts_with(mode)
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = Value::Array(vec![item]),
    }
}

#[cfg(test)]
mod tests;
