//! An application's container: whether it is to be given the trust bundle, whether that can be done, and when it is
//! restarted for it.

use std::{collections::BTreeMap, fmt};

use super::{
    gates::within,
    labels::{CLIENT, CLIENT_PATH, CLIENT_RESTART, Reading},
};
use crate::{
    model::inspect::{Change, Inspect},
    pki::{self, Certificate},
};

/// Where the bundle goes if its operator names no other place.
pub const PATH: &str = "/etc/ssl/certs/coolify-ca.crt";

/// What the operator of an application's container asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub path: String,
    /// It reads the file when it starts only.
    pub restart: bool,
}

/// Whether it asked for anything; not while any of its labels is wrong.
pub fn asked(reading: &Reading, labels: &BTreeMap<String, String>) -> Option<Client> {
    let is_true = |label: &str| labels.get(label).is_some_and(|value| value == "true");
    if matches!(reading, Reading::Wrong(_)) || !is_true(CLIENT) {
        return None;
    }
    let path = labels.get(CLIENT_PATH).map_or(PATH, String::as_str).to_owned();
    Some(Client { path, restart: is_true(CLIENT_RESTART) })
}

/// How the bundle gets to a path in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is put into the container's own file system.
    Deliver,
    /// Its user mounts it there.
    Mounted,
    Refused(Obstacle),
}

/// Why it is not put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    ReadOnly,
    /// Something else is mounted at the very path.
    Taken {
        by: String,
    },
    /// The path is in a mount, and that is not the container's own file system.
    Within {
        mount: String,
    },
    /// A part of the path is there and is no folder, or the path itself is one.
    Unfit,
}

/// What the kernel and Docker mount in every container.
const ALWAYS_MOUNTED: [&str; 6] =
    ["/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// How the bundle gets to `path`, which has no links in it as far as that is known. `is_bundle`: whether a path on the
/// host is the bundle's.
pub fn way(inspect: &Inspect, path: &str, is_bundle: impl Fn(&str) -> bool) -> Way {
    let mounts = inspect.mounts();
    let asked_for = mounts.iter().map(|mount| (mount.destination.as_str(), mount.source.as_str()));
    // `--tmpfs` is no mount to `inspect`.
    let tmpfs = inspect.host_config()["Tmpfs"].as_object().into_iter().flatten();
    let memory = tmpfs.map(|(folder, _)| (folder.as_str(), "tmpfs"));
    let always = ALWAYS_MOUNTED.into_iter().map(|point| (point, "Docker"));
    let over = asked_for
        .chain(memory)
        .chain(always)
        .map(|(point, source)| (point.trim_end_matches('/'), source))
        .filter(|(point, _)| within(path, point))
        .max_by_key(|(point, _)| point.len());
    match over {
        None if inspect.host_config()["ReadonlyRootfs"] == true => Way::Refused(Obstacle::ReadOnly),
        None => Way::Deliver,
        // Also in a folder that is mounted: what is there is what is on the host.
        Some((point, source)) if is_bundle(&format!("{source}{}", &path[point.len()..])) => Way::Mounted,
        Some((point, source)) if point == path => Way::Refused(Obstacle::Taken { by: source.to_owned() }),
        Some((point, _)) => Way::Refused(Obstacle::Within { mount: point.to_owned() }),
    }
}

/// What a file is called in its folder until it has its name.
pub fn staged(name: &str) -> String {
    format!(".{name}.dbssl")
}

/// The changes of a container's own layer but for those that delivering the bundle made: its successor is given it anew.
pub fn without_delivery(changes: Vec<Change>, client: &Client) -> Vec<Change> {
    let (folder, name) = client.path.rsplit_once('/').unwrap_or_default();
    let staged = format!("{folder}/{}", staged(name));
    changes
        .into_iter()
        .filter(|change| !within(&client.path, &change.path) && change.path != staged)
        .collect()
}

/// An obstacle with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Obstacle,
    /// In the container.
    pub path: String,
    /// On the host.
    pub bundle: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, path, bundle } = self;
        match why {
            Obstacle::ReadOnly => write!(f, "its root filesystem is read-only")?,
            Obstacle::Taken { by } => write!(f, "something else is mounted at {path} ({by})")?,
            Obstacle::Within { mount } => {
                write!(f, "{path} is in {mount}, which is mounted, and nothing is written to mounts")?;
            }
            Obstacle::Unfit => {
                return write!(
                    f,
                    "{path} is a folder, or leads through something that is none; set dbssl.client.path to the path of a file"
                );
            }
        }
        write!(f, "; mount the bundle there: -v {bundle}:{path}:ro")
    }
}

/// Why the bundle is handed out to nobody now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// Everybody who is given it could read the key, and so could whatever runs beside him.
    #[error(
        "coolify-ca.crt holds a private key, and is given to nobody while it does: take the PRIVATE KEY block out of that file, and consider the key known to others"
    )]
    PrivateKey,
    /// It is not whole, or lacks the CA that issues: somebody has just replaced it, and it is being put in order.
    #[error("the trust bundle is not in order, and is not handed out")]
    NotInOrder,
}

/// The certificates of a bundle that may be handed out, by fingerprint and in no order.
pub fn certificates_of(bundle: &[u8], issuing: Option<&Certificate>) -> Result<Vec<String>, Withheld> {
    // First: it is never just being put in order, a human has to do it.
    if pki::holds_private_key(bundle) {
        return Err(Withheld::PrivateKey);
    }
    let found = pki::extendable(bundle).map_err(|_| Withheld::NotInOrder)?;
    let whole = !found.is_empty() && issuing.is_none_or(|issuing| found.contains(issuing));
    if whole { Ok(fingerprints(&found)) } else { Err(Withheld::NotInOrder) }
}

/// The certificates that a process found in whatever was there.
pub fn certificates_in(file: &[u8]) -> Vec<String> {
    fingerprints(&pki::certificates_within(file))
}

fn fingerprints(certificates: &[Certificate]) -> Vec<String> {
    let mut prints: Vec<_> = certificates.iter().map(Certificate::fingerprint_hex).collect();
    prints.sort();
    prints.dedup();
    prints
}

/// Whether a container that asked for it is restarted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Its process has seen what there is.
    NotNeeded,
    CaChanged,
    /// It mounts a file that was replaced.
    FileReplaced,
    /// It was restarted for this very bundle, and is as before: once more would be a loop.
    InVain,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNeeded => "nothing has changed since it started",
            Self::CaChanged => "the CA changed, and it reads the bundle when it starts",
            Self::FileReplaced => "it mounts a file that was replaced by another",
            Self::InVain => {
                "it was restarted for this CA already and found another one again: see what puts it there when it starts"
            }
        })
    }
}

/// `found`: the certificates that its process found when it started, `now`: those that are there. `stale`: it has a file
/// mounted that has lost its name. `tried`: it was restarted for just this bundle.
pub fn restart(found: &[String], now: &[String], stale: bool, tried: bool) -> Restart {
    match (stale, found != now) {
        (false, false) => Restart::NotNeeded,
        _ if tried => Restart::InVain,
        (true, _) => Restart::FileReplaced,
        (false, true) => Restart::CaChanged,
    }
}

#[cfg(test)]
mod tests;
