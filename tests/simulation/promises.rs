//! What has to hold: at every moment, whoever dies, and once nothing has happened for a while.

use std::collections::{BTreeMap, BTreeSet};

use dbssl::{
    model::San,
    pki::{Certificate, certificates_within, read_pem},
};
use rustls_pki_types::CertificateDer;

use crate::{
    container::Container,
    machine::Machine,
    probe::{der, verified},
    server::Quirk,
};

/// What its users made and want of a database.
#[derive(Clone, Debug)]
pub struct Service {
    pub volume: String,
    /// The id of its image, once it was made.
    pub image: &'static str,
    pub quirk: Quirk,
    pub enabled: bool,
    pub mode: &'static str,
    pub network: &'static str,
    pub policy: &'static str,
    pub wants: Wants,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Running,
    Stopped,
    /// Somebody acted while the agent was at it, or Docker by itself: either is right.
    Either,
    /// Somebody removed it while the agent was at it: it may be there, or not.
    Anything,
}

impl Wants {
    /// After its user did what ends in `wanted`, perhaps in the middle of something that the agent does.
    pub fn then(self, wanted: Self, middle: bool) -> Self {
        match self {
            Self::Either | Self::Anything => self,
            Self::Running | Self::Stopped if middle => Self::Either,
            Self::Running | Self::Stopped => wanted,
        }
    }
}

/// What is known of the trust bundle and of what was held against it.
#[derive(Debug, Default)]
pub struct Truth {
    /// What a user wrote into it. Until the agent has seen it, the file is the user's alone.
    pub users: Option<Vec<u8>>,
    /// The root that a user put there last, if nobody asked for another CA since.
    pub dropped: Option<Certificate>,
    /// Nobody can have changed the bundle since it was read.
    pub known: bool,
    bundle: Vec<u8>,
    roots: Vec<CertificateDer<'static>>,
    judged: BTreeSet<[u8; 32]>,
}

fn name_in(leaf: &Certificate) -> Option<San> {
    leaf.sans().iter().find(|name| matches!(name, San::Dns(_))).cloned()
}

/// Whether readers find in the bundle what its user wrote, and not yet all that was added behind it: hidden at first.
fn is_alone(users: &[u8], bundle: &[u8]) -> bool {
    let added = bundle.strip_prefix(users);
    added.is_some_and(|added| added.is_empty() || added.windows(10).any(|text| text == b"#----BEGIN"))
}

/// At every moment: whatever is served verifies against the trust bundle on the disk.
pub fn hold(machine: &mut Machine) {
    if !machine.truth.known {
        let bundle = std::fs::read(machine.roots.bundle()).unwrap_or_default();
        if bundle != machine.truth.bundle {
            machine.truth.roots = der(&certificates_within(&bundle));
            machine.truth.judged.clear();
            machine.truth.bundle = bundle;
        }
        machine.truth.known = true;
    }
    if machine.truth.users.as_ref().is_some_and(|users| is_alone(users, &machine.truth.bundle)) {
        return;
    }
    machine.truth.users = None;
    let mut found = Vec::new();
    for container in machine.containers.values().filter(|container| container.is_running()) {
        let Some(server) = &container.server else { continue };
        let Some(leaf) = server.served.first().filter(|_| server.is_ready()) else { continue };
        if machine.truth.judged.contains(&leaf.fingerprint())
            || server.served == container.image.quirk.serves()
        {
            continue;
        }
        // Whether it has ended is another matter: nobody renews what while the agent is dead.
        let second = time::Duration::SECOND;
        let now = machine.now().clamp(leaf.not_before() + second, leaf.not_after() - second);
        let held = verified(&server.served, &machine.truth.roots, name_in(leaf).as_ref(), now);
        found.push((leaf.fingerprint(), held.map_err(|why| format!("{}: {why}", container.name))));
    }
    for (leaf, held) in found {
        match held {
            Ok(()) => {
                machine.truth.judged.insert(leaf);
            }
            Err(why) => {
                machine.breaks(|| format!("what is served does not verify against the bundle: {why}"));
            }
        }
    }
}

/// Once nothing has happened for a while: all that is not as it should be.
pub fn unsettled(machine: &Machine, services: &BTreeMap<String, Service>) -> Vec<String> {
    let mut wrong = Vec::new();
    for container in machine.containers.values() {
        if !services.contains_key(&container.name) && !container.is_side_car() {
            wrong.push(format!("a container {} is left", container.name));
        }
    }
    for network in &machine.networks {
        if network.starts_with("dbssl") {
            wrong.push(format!("a network {network} is left"));
        }
    }
    let journal = machine.under_way();
    if journal > 0 {
        wrong.push(format!("{journal} operations are in the journal"));
    }
    let bundle = certificates_within(&std::fs::read(machine.roots.bundle()).unwrap_or_default());
    if let Some(dropped) = machine.truth.dropped.as_ref().filter(|dropped| !bundle.contains(dropped)) {
        wrong.push(format!("the CA that a user dropped is lost: {}", dropped.subject()));
    }
    for (name, service) in services {
        wrong.append(&mut unsettled_one(machine, name, service));
    }
    wrong
}

/// The same of one database.
pub fn unsettled_one(machine: &Machine, name: &str, service: &Service) -> Vec<String> {
    match machine.find(name) {
        None if service.wants == Wants::Anything => Vec::new(),
        None => vec![format!("{name} is gone")],
        Some(container) => {
            let of = service_problems(machine, service, container);
            of.into_iter().map(|why| format!("{name}: {why}")).collect()
        }
    }
}

fn service_problems(machine: &Machine, service: &Service, container: &Container) -> Vec<String> {
    let mut wrong = Vec::new();
    if container.data() != service.volume {
        wrong.push(format!("it has the volume {} and not {}", container.data(), service.volume));
    }
    if container.image.id != service.image {
        wrong.push(format!("its image is {} and not {}", container.image.id, service.image));
    }
    if container.policy() != service.policy {
        wrong.push(format!("its restart policy is {} and not {}", container.policy(), service.policy));
    }
    if container.networks.keys().any(|network| network.starts_with("dbssl")) {
        wrong.push("the brake is on".to_owned());
    }
    match (service.wants, container.is_running()) {
        (Wants::Running, false) => wrong.push("it does not run".to_owned()),
        (Wants::Stopped, true) => wrong.push("it runs though its user stopped it".to_owned()),
        _ => {}
    }
    if !service.enabled && container.certificates().is_some() && service.quirk != Quirk::NoTls {
        wrong.push("it was wired, and is not ours".to_owned());
    }
    let Some(server) = container.server.as_ref().filter(|_| container.is_running()) else { return wrong };
    if !server.is_ready() {
        wrong.push("it is not ready".to_owned());
    }
    let tls = service.enabled && service.quirk.takes_tls();
    if !tls {
        if server.served != service.quirk.serves() || server.plaintext_port == 0 {
            wrong.push("it was changed, and should not have been".to_owned());
        }
        return wrong;
    }
    let enforces = !matches!(service.mode, "allow" | "prefer");
    if (server.plaintext_port == 0) != enforces {
        wrong.push(format!("its plaintext port is {} in mode {}", server.plaintext_port, service.mode));
    }
    if let Err(why) = served_well(machine, container, &server.served) {
        wrong.push(why);
    }
    wrong
}

/// What it serves is what lies in its directory, names it, is in time, and verifies.
fn served_well(machine: &Machine, container: &Container, served: &[Certificate]) -> Result<(), String> {
    let directory = container.certificates().ok_or("it has no certificates mounted")?;
    let file = std::fs::read(directory.join("server.crt")).map_err(|why| why.to_string())?;
    if read_pem(&file).map_err(|why| why.to_string())? != served {
        return Err("it serves something else than lies in its directory".to_owned());
    }
    let bundle = std::fs::read(machine.roots.bundle()).map_err(|why| why.to_string())?;
    let roots = der(&certificates_within(&bundle));
    let name = San::Dns(container.name.clone());
    verified(served, &roots, Some(&name), machine.now())
}
