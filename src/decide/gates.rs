//! What must hold before a container may be recreated. Each refusal says what was found and what the
//! operator can do; nothing has been recorded or changed when one is given.

use std::fmt;

use crate::model::inspect::{Change, ChangeKind, Image, Inspect, Mount};

/// Why a container is not recreated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `--rm`: stopping it deletes it and its anonymous volumes.
    AutoRemove,
    ImageGone {
        id: String,
    },
    /// Another system owns the container and would fight over it.
    Orchestrated {
        by: &'static str,
        label: String,
    },
    DataNotMounted {
        directory: String,
    },
    /// The container's own layer holds changes that a new container would not have.
    OwnLayer {
        paths: Vec<String>,
    },
    /// Lives in another container's network, or takes that one's volumes or names.
    BorrowsFrom {
        field: &'static str,
        value: String,
    },
    Dependents {
        names: Vec<String>,
    },
    TargetTaken {
        target: String,
        by: String,
    },
    /// What the container has mounted from the host is no longer at its path there.
    SourceMoved {
        source: String,
        destination: String,
    },
    /// Without a network the result could not be proved.
    NoNetwork,
    Rootless,
    /// The command or its flags do not allow it; the engine says why.
    Command {
        why: String,
    },
}

impl Refusal {
    pub fn moved(mount: Mount) -> Self {
        Self::SourceMoved { source: mount.source, destination: mount.destination }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AutoRemove => f.write_str(
                "it was started with --rm, so stopping it would delete it and its anonymous volumes; start it without --rm",
            ),
            Self::ImageGone { id } => {
                write!(f, "its image {id} is no longer on this host, so it could not be created again; pull that image")
            }
            Self::Orchestrated { by, label } => write!(
                f,
                "it belongs to {by} (label {label}), which would fight over it; only standalone and Compose containers are managed"
            ),
            Self::DataNotMounted { directory } => write!(
                f,
                "its data directory {directory} is not on a volume or bind mount, so the data would be lost; mount a volume there"
            ),
            Self::OwnLayer { paths } => write!(
                f,
                "its own layer holds changes that a new container would not have: {}; move them to a volume or into the image",
                shorten(paths)
            ),
            Self::BorrowsFrom { field, value } => write!(
                f,
                "it depends on another container ({field} {value}); give it a network and volumes of its own"
            ),
            Self::Dependents { names } => write!(
                f,
                "other containers live in its network, process or IPC namespace, or take its volumes or links: {}; give them their own",
                shorten(names)
            ),
            Self::TargetTaken { target, by } => {
                write!(f, "the certificate path {target} in the container is already taken by {by}; free that path")
            }
            Self::SourceMoved { source, destination } => write!(
                f,
                "{source} on this host is gone, or is not what the container has mounted at {destination} since its start, and Docker would mount an empty folder; put it back"
            ),
            Self::NoNetwork => f.write_str("it has no network, so TLS could not be proved; attach it to a network"),
            Self::Rootless => f.write_str("rootless Docker is not supported yet: file owners cannot be set safely"),
            Self::Command { why } => f.write_str(why),
        }
    }
}

/// All that the gates look at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub inspect: &'a Inspect,
    /// The image by id; `None` if it is gone.
    pub image: Option<&'a Image>,
    pub changes: &'a [Change],
    /// Names of other containers that live off this one.
    pub dependents: &'a [String],
    pub rootless: bool,
    /// Mounts whose source on the host is no longer what the container has mounted.
    pub moved: &'a [Mount],
    /// Where the certificate directory is to be mounted, unless it is already.
    pub certificate_target: Option<&'a str>,
    pub data_directory: &'a str,
    /// The engine's own paths whose changes do not matter.
    pub volatile: &'a [&'a str],
}

/// Everything that stands against recreating the container, at once.
pub fn refusals(subject: Subject<'_>) -> Vec<Refusal> {
    let inspect = subject.inspect;
    let mut refusals = Vec::new();
    if subject.rootless {
        refusals.push(Refusal::Rootless);
    }
    if inspect.host_config()["AutoRemove"] == true {
        refusals.push(Refusal::AutoRemove);
    }
    if subject.image.is_none() {
        refusals.push(Refusal::ImageGone { id: inspect.image_id().to_owned() });
    }
    refusals.extend(orchestrated(inspect));
    refusals.extend(borrows(inspect));
    if inspect.network_mode() == "none"
        || (inspect.attachments().is_empty() && inspect.network_mode() != "host")
    {
        refusals.push(Refusal::NoNetwork);
    }
    if !subject.dependents.is_empty() {
        refusals.push(Refusal::Dependents { names: subject.dependents.to_vec() });
    }
    if let Some(target) = subject.certificate_target {
        let mounts = inspect.mounts();
        let taken = mounts.iter().find(|mount| mount.destination == target).map(|mount| {
            format!("{} {}", mount.kind, if mount.name.is_empty() { &mount.source } else { &mount.name })
        });
        // Docker could not make the folder that it is to be mounted at.
        let sealed = || {
            let above = mounts.iter().filter(|mount| within(target, &mount.destination));
            let above = above.max_by_key(|mount| mount.destination.len()).filter(|mount| !mount.writable);
            above.map(|mount| format!("a read-only mount at {}", mount.destination))
        };
        let tmpfs = || tmpfs_folders(inspect).any(|folder| folder == target).then(|| "a tmpfs".to_owned());
        if let Some(by) = taken.or_else(tmpfs).or_else(sealed) {
            refusals.push(Refusal::TargetTaken { target: target.to_owned(), by });
        }
    }
    refusals.extend(subject.moved.iter().cloned().map(Refusal::moved));
    let data = subject.data_directory;
    if !outlives(inspect, data) {
        refusals.push(Refusal::DataNotMounted { directory: data.to_owned() });
    }
    let paths = losses(subject.changes, inspect, subject.volatile);
    if !paths.is_empty() {
        refusals.push(Refusal::OwnLayer { paths });
    }
    refusals
}

/// Whether what is in the folder outlives the container: the innermost mount over it counts, and a tmpfs ends with
/// the process.
fn outlives(inspect: &Inspect, folder: &str) -> bool {
    let mounts = inspect.mounts();
    let lasting = mounts.iter().map(|mount| (mount.destination.as_str(), mount.kind != "tmpfs"));
    let over = lasting.chain(tmpfs_folders(inspect).map(|folder| (folder, false)));
    over.filter(|(root, _)| within(folder, root))
        .max_by_key(|(root, _)| root.len())
        .is_some_and(|(_, lasts)| lasts)
}

/// Where `--tmpfs` puts one: these are not among the mounts.
fn tmpfs_folders(inspect: &Inspect) -> impl Iterator<Item = &str> {
    let folders = inspect.host_config()["Tmpfs"].as_object();
    folders.into_iter().flatten().map(|(folder, _)| folder.trim_end_matches('/'))
}

/// Labels by which orchestrators mark what is theirs.
const ORCHESTRATORS: [(&str, &str); 6] = [
    ("com.docker.swarm.", "Docker Swarm"),
    ("io.kubernetes.", "Kubernetes"),
    ("com.amazonaws.ecs.", "Amazon ECS"),
    ("com.hashicorp.nomad.", "Nomad"),
    ("io.podman.", "Podman"),
    ("io.balena.", "balena"),
];

fn orchestrated(inspect: &Inspect) -> Option<Refusal> {
    inspect.labels().into_keys().find_map(|label| {
        let (_, by) = ORCHESTRATORS.iter().find(|(prefix, _)| label.starts_with(prefix))?;
        Some(Refusal::Orchestrated { by, label })
    })
}

fn borrows(inspect: &Inspect) -> Vec<Refusal> {
    let host_config = inspect.host_config();
    let mut found = Vec::new();
    for field in ["NetworkMode", "PidMode", "IpcMode", "UTSMode"] {
        let value = host_config[field].as_str().unwrap_or_default();
        if value.starts_with("container:") {
            found.push(Refusal::BorrowsFrom { field, value: value.to_owned() });
        }
    }
    for field in ["VolumesFrom", "Links"] {
        let values = host_config[field].as_array().into_iter().flatten().filter_map(|value| value.as_str());
        found.extend(values.map(|value| Refusal::BorrowsFrom { field, value: value.to_owned() }));
    }
    found
}

/// Whether `other` lives off the container: its network, processes, IPC, volumes or links.
pub fn depends_on(other: &Inspect, container: &Inspect) -> bool {
    let host_config = other.host_config();
    let takes = ["VolumesFrom", "Links"].iter().any(|field| {
        let mut values =
            host_config[field].as_array().into_iter().flatten().filter_map(|value| value.as_str());
        values.any(|value| value.split(':').next().is_some_and(|word| means(word, container)))
    });
    lives_in(other, container) || takes
}

/// Whether `other` lives in a namespace of the container's process, and so loses it with that process.
pub fn lives_in(other: &Inspect, container: &Inspect) -> bool {
    ["NetworkMode", "PidMode", "IpcMode"]
        .iter()
        .any(|field| other.host_config()[field].as_str().is_some_and(|mode| is_of(mode, container)))
}

/// Whether a mode, as of a network, is to live in the container's: `container:ID`.
pub fn is_of(mode: &str, container: &Inspect) -> bool {
    mode.strip_prefix("container:").is_some_and(|word| means(word, container))
}

/// Whether the word is the container's name, or the beginning of its id.
fn means(word: &str, container: &Inspect) -> bool {
    let word = word.trim_start_matches('/');
    word == container.name().as_str() || (word.len() >= 12 && container.id().as_str().starts_with(word))
}

/// Paths that every container changes by merely running.
const VOLATILE: [&str; 16] = [
    "/tmp",
    "/var/tmp",
    "/run",
    "/var/run",
    "/var/log",
    "/var/cache",
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/.dockerenv",
    "/root/.ash_history",
    "/root/.bash_history",
];

/// Where Compose puts secrets that do not come from a file: they live in the container's own layer and are
/// copied to its successor.
pub const SECRETS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// Paths whose changes would be lost with the container. Folders that only changed because something
/// below them did are not named, nor what Docker itself makes as a mount point.
fn losses(changes: &[Change], inspect: &Inspect, volatile: &[&str]) -> Vec<String> {
    let mounts = inspect.mounts();
    // `--tmpfs` is no mount to `inspect`, but its mount point is made all the same.
    let tmpfs = inspect.host_config()["Tmpfs"].as_object().into_iter().flat_map(|tmpfs| tmpfs.keys());
    let mounted: Vec<&str> =
        mounts.iter().map(|mount| mount.destination.as_str()).chain(tmpfs.map(String::as_str)).collect();
    let harmless = |path: &str| {
        VOLATILE.iter().chain(volatile).any(|root| within(path, root))
            || mounted.iter().any(|mount| within(path, mount) || within(mount, path))
    };
    // Docker lists a folder before what is in it, so its first child follows it.
    let mut paths: Vec<_> = changes.iter().collect();
    paths.sort_by(|left, right| left.path.cmp(&right.path));
    let mut lost = Vec::new();
    for (at, change) in paths.iter().enumerate() {
        let parent = paths[at + 1..]
            .iter()
            .take_while(|next| next.path.starts_with(&change.path))
            .any(|next| within(&next.path, &change.path));
        let only_parent = parent && change.kind == ChangeKind::Modified;
        if !only_parent && !harmless(&change.path) {
            lost.push(change.path.clone());
        }
    }
    lost
}

/// Whether `path` is `root` or lies below it.
pub fn within(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

fn shorten(items: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests;
