//! Sees two servers on one data directory, should there ever be two.
//!
//! Looks at the processes themselves, some fifty times a second: Docker's own word for what runs is late, and there
//! is none while Docker is down. So this works where the test sees all processes of the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use super::engine::processes;

/// Between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// The servers, and the entrypoint that is about to become one, as the kernel cuts their names.
const SERVERS: [&str; 6] = ["postgres", "mysqld", "mariadbd", "redis-server", "mongod", "docker-entrypoi"];

/// Watches from its beginning to its end.
pub struct Sentry {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Seen>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub looks: usize,
    /// Every volume that a server had, by name.
    pub volumes: BTreeSet<String>,
    /// Each sight of two containers that had servers on the same volume.
    pub offences: Vec<String>,
}

impl Seen {
    /// Whether it looked often, saw what it had to guard, and never two servers on one volume.
    pub fn assert_never_two<'v>(&self, guarded: impl IntoIterator<Item = &'v String>) {
        assert!(self.offences.is_empty(), "two servers on one volume:\n{}", self.offences.join("\n"));
        assert!(self.looks > 50, "the sentry slept: {} looks", self.looks);
        for volume in guarded {
            assert!(self.volumes.contains(volume), "the sentry is blind: no server was seen on {volume}");
        }
    }
}

/// A server process: which it is, and the mounts that it sees, the same for all of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Server {
    pid: u32,
    namespace: PathBuf,
}

impl Sentry {
    pub fn begin() -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || watch(&stopped));
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// What it saw until now; it goes off duty.
    pub fn end(mut self) -> Seen {
        drop(self.stop.take());
        self.thread.take().and_then(|thread| thread.join().ok()).expect("the sentry stays alive")
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(seen) = self.thread.take().and_then(|thread| thread.join().ok())
            && !seen.offences.is_empty()
        {
            eprintln!("--- two servers on one volume\n{}", seen.offences.join("\n"));
        }
    }
}

fn watch(stopped: &Receiver<()>) -> Seen {
    let mut seen = Seen::default();
    let mut known = BTreeMap::new();
    loop {
        look(&mut seen, &mut known);
        match stopped.recv_timeout(BETWEEN_LOOKS) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return seen,
        }
    }
}

/// `known`: the volumes of each container that is there, by one of its servers. They do not change while it runs, and
/// to ask for them costs more than all else.
fn look(seen: &mut Seen, known: &mut BTreeMap<Server, BTreeSet<String>>) {
    seen.looks += 1;
    let before = std::mem::take(known);
    let mut by_volume: BTreeMap<String, Server> = BTreeMap::new();
    let mut namespaces = BTreeSet::new();
    for server in processes().filter_map(server) {
        // All processes of a container have the same mounts.
        if !namespaces.insert(server.namespace.clone()) {
            continue;
        }
        let volumes = before.get(&server).cloned().unwrap_or_else(|| volumes(server.pid));
        known.insert(server.clone(), volumes.clone());
        for volume in volumes {
            seen.volumes.insert(volume.clone());
            let Some(other) = by_volume.insert(volume.clone(), server.clone()) else { continue };
            // That one was seen some time before this one: does it still live?
            if self::server(other.pid).as_ref() == Some(&other) {
                seen.offences.push(format!("{volume}: {} and {}", describe(other.pid), describe(server.pid)));
            }
        }
    }
}

/// `None` if it is something else, or has ended.
fn server(pid: u32) -> Option<Server> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if !SERVERS.contains(&name.trim_end()) {
        return None;
    }
    // A zombie has none any more.
    let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    Some(Server { pid, namespace })
}

/// The volumes that a process sees mounted, by name. It may see one twice: Docker mounts a container's volumes for
/// itself while it copies files, and a container that starts just then inherits that.
fn volumes(pid: u32) -> BTreeSet<String> {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| line.split(' ').nth(3));
    let volumes = roots.filter_map(|root| root.strip_suffix("/_data")?.rsplit_once("/volumes/"));
    volumes.map(|(_, name)| name.to_owned()).collect()
}

fn describe(pid: u32) -> String {
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let container = cgroups.lines().find_map(|line| line.rsplit_once('/')).map_or("", |(_, id)| id);
    format!(
        "{} (process {pid} of {})",
        words.replace('\0', " ").trim_end(),
        container.get(..12).unwrap_or("?")
    )
}
