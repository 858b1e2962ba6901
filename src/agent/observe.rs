//! Looks at one container: what its operator wants, what is there, what it serves. Changes nothing.

use std::path::PathBuf;

use super::{
    enforce::{self, Inside},
    prove::{self, Expectation},
    world::World,
};
use crate::{
    decide::{
        gates::{self, Refusal},
        labels::{self, LabelProblem, Reading},
        names::{LeftOut, NameSources, Names, certificate_names},
        plan::{Directory, Life, Observed, Plaintext, Serving, Wiring},
        server_user::{NoUser, on_host, server_user},
    },
    engine::{self, Launch, Shape, Spec, Wired},
    host::{
        archive,
        certdir::{CertDir, Held},
        docker::DockerError,
    },
    model::{
        Desired, Engine, Owner, Sans,
        inspect::{Health, Image, Inspect, State},
    },
    pki::{Certificate, key_matches, read_pem},
};

/// The label by which Compose names the service of a container, which is a DNS name on its networks.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// `/etc/passwd` of an image has some 1 KiB.
const LARGEST_PASSWD: usize = 1 << 20;

/// What a container is to us.
#[derive(Debug)]
pub enum Look {
    /// Not labelled, or switched off.
    NotOurs,
    /// Labelled, and the labels are wrong.
    Wrong(Vec<LabelProblem>),
    /// Labelled, and nothing can be done with it.
    Unsuitable(String),
    Ours(Box<Subject>),
}

/// A database that is ours, with all that was seen of it.
#[derive(Debug)]
pub struct Subject {
    pub inspect: Inspect,
    pub image: Option<Image>,
    pub spec: &'static dyn Spec,
    pub inside: Inside,
    pub port: u16,
    pub certificates: PathBuf,
    /// Whose the key file has to be, as the host sees it.
    pub owner: Owner,
    /// Flags to append and whether the directory has to be mounted; only while the wiring is missing.
    pub missing_flags: Vec<String>,
    pub missing_mount: bool,
    pub left_out: Vec<LeftOut>,
    pub observed: Observed,
}

impl Subject {
    /// What it has to serve with `chain`, leaf first, in its directory.
    pub fn expectation(&self, chain: Vec<Certificate>) -> Expectation {
        Expectation { spec: self.spec, port: self.port, names: self.observed.names.clone(), chain }
    }
}

impl std::fmt::Debug for dyn Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.engine().fmt(f)
    }
}

/// Looks at the container as `inspect` found it.
pub async fn observe(world: &World, inspect: Inspect) -> Result<Look, DockerError> {
    if !world.concerns(&inspect) {
        return Ok(Look::NotOurs);
    }
    let desired = match labels::read(&inspect.labels()) {
        Reading::NotOurs | Reading::Disabled => return Ok(Look::NotOurs),
        Reading::Wrong(problems) => return Ok(Look::Wrong(problems)),
        Reading::Enabled(desired) => desired,
    };
    let image = world.docker.image(inspect.image_id()).await?;
    let Some(engine) = desired.engine.or_else(|| detect(&inspect, image.as_ref())) else {
        return Ok(Look::Unsuitable(
            "cannot tell which database this is: set the label dbssl.engine to postgres, mysql, mariadb, redis or mongodb"
                .to_owned(),
        ));
    };
    let spec = engine::spec(engine);
    if !spec.supported() {
        return Ok(Look::Unsuitable(format!(
            "{engine} is not supported by this version: it is left as it is"
        )));
    }
    let remap = world.engine.remap.filter(|_| inspect.host_config()["UsernsMode"] != "host");
    let user = user(world, &inspect, spec).await?;
    let (user, owner) = match user.and_then(|user| Ok((user, on_host(user, remap)?))) {
        Ok(both) => both,
        Err(error) => return Ok(Look::Unsuitable(error.to_string())),
    };
    let inside = Inside {
        id: inspect.id().clone(),
        command: command(&inspect),
        environment: inspect.environment(),
        user,
    };
    let port = spec.port(&inside.command, &inside.environment);
    let names = names(world, &inspect, &desired);
    let wiring = wiring(world, &inspect, &desired, spec, &inside.command, image.as_ref());
    let certificates = wiring.certificates.clone();
    let mut subject = Subject {
        port,
        certificates,
        owner,
        inside,
        missing_flags: wiring.flags,
        missing_mount: wiring.mount,
        left_out: names.left_out,
        observed: Observed {
            container: inspect.name().to_string(),
            names: names.sans,
            issuer: world.authority().issuing.certificate().clone(),
            wiring: wiring.state,
            directory: Directory::Missing,
            life: life(&inspect),
            serving: Serving::NotLooked,
            plaintext: Plaintext::NotLooked,
            desired,
        },
        inspect,
        image,
        spec,
    };
    subject.observed.directory = directory(&subject);
    look_closer(world, &mut subject).await?;
    Ok(Look::Ours(Box::new(subject)))
}

/// How to run commands in a container that may not be ours any more; `None` if it is no PostgreSQL.
pub async fn inside(world: &World, inspect: &Inspect) -> Result<Option<Inside>, DockerError> {
    let image = world.docker.image(inspect.image_id()).await?;
    if detect(inspect, image.as_ref()) != Some(Engine::Postgres) {
        return Ok(None);
    }
    let user = user(world, inspect, engine::spec(Engine::Postgres)).await?;
    Ok(user.ok().map(|user| Inside {
        id: inspect.id().clone(),
        command: command(inspect),
        environment: inspect.environment(),
        user,
    }))
}

/// Whom the server runs as, inside the container.
async fn user(
    world: &World,
    inspect: &Inspect,
    spec: &dyn Spec,
) -> Result<Result<Owner, NoUser>, DockerError> {
    let passwd = archive::read_file(&world.docker, inspect.id(), "/etc/passwd", LARGEST_PASSWD).await?;
    let passwd = String::from_utf8_lossy(&passwd.unwrap_or_default()).into_owned();
    Ok(server_user(inspect.user(), &passwd, spec.server_users()))
}

fn command(inspect: &Inspect) -> Vec<String> {
    inspect.entrypoint().unwrap_or_default().into_iter().chain(inspect.command()).collect()
}

fn detect(inspect: &Inspect, image: Option<&Image>) -> Option<Engine> {
    let nothing = Image::default();
    let image = image.unwrap_or(&nothing);
    engine::detect(inspect.image_name(), &command(inspect), &image.environment, &image.exposed_ports)
}

fn names(world: &World, inspect: &Inspect, desired: &Desired) -> Names {
    let aliases = inspect.aliases();
    certificate_names(&NameSources {
        container: inspect.name().as_str(),
        compose_service: inspect.label(COMPOSE_SERVICE),
        aliases: aliases.iter().map(String::as_str).collect(),
        made_up: [inspect.id().short()].into_iter().chain(inspect.default_hostname()).collect(),
        addresses: inspect.fixed_addresses(),
        host_names: Some(&world.settings.host_names),
        asked: Some(&desired.names),
    })
}

struct FoundWiring {
    state: Wiring,
    certificates: PathBuf,
    flags: Vec<String>,
    mount: bool,
}

/// What of the wiring is there. Whoever wrote it: a user may have put it into the Compose file.
fn wiring(
    world: &World,
    inspect: &Inspect,
    desired: &Desired,
    spec: &dyn Spec,
    command: &[String],
    image: Option<&Image>,
) -> FoundWiring {
    let target = spec.certificate_directory();
    let mounts = inspect.mounts();
    let at_target = mounts.iter().find(|mount| mount.destination == target);
    let below = mounts.iter().find(|mount| mount.destination.starts_with(&format!("{target}/")));
    let ours = at_target.filter(|mount| mount.kind == "bind" && world.roots.owns(mount.source.as_ref()));
    let certificates =
        ours.map_or_else(|| world.roots.certificates(inspect.name()), |mount| PathBuf::from(&mount.source));
    let found = |state, flags, mount| FoundWiring { state, certificates: certificates.clone(), flags, mount };

    let foreign_mount = (at_target.is_some() && ours.is_none()) || below.is_some();
    match spec.wired(command, desired.mode) {
        Wired::Foreign(flags) => found(Wiring::Foreign(flags), Vec::new(), false),
        Wired::Ours if foreign_mount => {
            found(Wiring::Foreign(vec![format!("a mount of its own at {target}")]), Vec::new(), false)
        }
        Wired::Ours if ours.is_some() => found(Wiring::Present, Vec::new(), false),
        Wired::Ours => found(Wiring::Missing, Vec::new(), true),
        Wired::Conflict(flags) => {
            let why = format!("its own flags contradict TLS by dbssl: {}; remove them", flags.join(" "));
            found(Wiring::Refused(vec![Refusal::Command { why }]), Vec::new(), false)
        }
        Wired::Absent => {
            let flags = spec.flags(desired.mode);
            match shape(inspect, spec, image) {
                Shape::Appendable => found(Wiring::Missing, flags, ours.is_none()),
                Shape::ByHand(obstacle) => {
                    let why = format!(
                        "flags cannot be appended to its command, since {obstacle}; add them there by hand: {} (and mount {} at {target}, read-only)",
                        flags.join(" "),
                        certificates.display()
                    );
                    found(Wiring::Refused(vec![Refusal::Command { why }]), Vec::new(), false)
                }
            }
        }
    }
}

fn shape(inspect: &Inspect, spec: &dyn Spec, image: Option<&Image>) -> Shape {
    let entrypoint = inspect.entrypoint().unwrap_or_default();
    let command = inspect.command();
    let container = Launch { entrypoint: &entrypoint, command: &command };
    match image {
        Some(image) => {
            let entrypoint = image.entrypoint.clone().unwrap_or_default();
            spec.command_shape(Launch { entrypoint: &entrypoint, command: &image.command }, container)
        }
        // The gates refuse a container whose image is gone.
        None => Shape::Appendable,
    }
}

/// The certificate directory, judged: whole files, the right owner and modes, a key that belongs to the leaf.
fn directory(subject: &Subject) -> Directory {
    let wanted: Vec<_> = subject.spec.files().iter().map(|file| (file.name, file.mode)).collect();
    let files = match CertDir::open(subject.certificates.clone()).read(&wanted, subject.owner) {
        Held::Missing => return Directory::Missing,
        Held::Damaged(what) => return Directory::Damaged(what),
        Held::Sound { files } => files,
    };
    let holding = |holds: &[engine::Holds]| {
        let file = subject.spec.files().iter().find(|file| holds.contains(&file.holds))?;
        files.get(file.name)
    };
    let chain = holding(&[engine::Holds::Chain, engine::Holds::ChainAndKey]);
    let key = holding(&[engine::Holds::Key, engine::Holds::ChainAndKey]);
    let (Some(chain), Some(key)) = (chain, key) else {
        return Directory::Damaged(vec!["a file is missing".to_owned()]);
    };
    let chain = match read_pem(chain.expose()) {
        Ok(chain) => chain,
        Err(error) => return Directory::Damaged(vec![format!("the certificate cannot be read: {error}")]),
    };
    match chain.first().map(|leaf| key_matches(leaf, key.expose())) {
        Some(Ok(true)) => Directory::Sound(chain),
        Some(Ok(false)) => Directory::Damaged(vec!["the key belongs to another certificate".to_owned()]),
        Some(Err(error)) => Directory::Damaged(vec![format!("the key cannot be read: {error}")]),
        None => Directory::Damaged(vec!["the certificate file is empty".to_owned()]),
    }
}

fn life(inspect: &Inspect) -> Life {
    match inspect.state() {
        State::Created => Life::Created,
        State::Paused => Life::Down("paused"),
        State::Restarting => Life::Down("restarting"),
        State::Exited => Life::Down("stopped"),
        State::Dead | State::Other => Life::Down("on its way out"),
        State::Running => match inspect.health() {
            Health::Starting => Life::Starting("its health check has not passed yet".to_owned()),
            Health::Unhealthy => Life::Starting("its health check fails".to_owned()),
            Health::None | Health::Healthy => Life::Ready,
        },
    }
}

/// Asks the running container itself: its handshake, and before a recreation everything that could be lost.
async fn look_closer(world: &World, subject: &mut Subject) -> Result<(), DockerError> {
    let wired = subject.observed.wiring == Wiring::Present;
    if !subject.inspect.running() || (!wired && subject.observed.life != Life::Ready) {
        return Ok(());
    }
    let names = if wired { subject.observed.names.clone() } else { Sans::new() };
    let serving = prove::look(world, &subject.inspect, subject.spec, subject.port, &names).await;
    if let Serving::Unreachable(why) = &serving
        && subject.observed.life == Life::Ready
    {
        subject.observed.life = Life::Starting(why.clone());
    }
    match (&subject.observed.wiring, &serving) {
        (Wiring::Missing, Serving::Tls { .. }) => {
            let what = "its own configuration file turns TLS on".to_owned();
            subject.observed.wiring = Wiring::Foreign(vec![what]);
        }
        (Wiring::Missing, _) if subject.observed.life == Life::Ready => {
            before_recreation(world, subject).await?;
        }
        (Wiring::Present, Serving::Tls { .. }) => {
            subject.observed.plaintext = enforce::plaintext(world, subject).await;
        }
        _ => {}
    }
    subject.observed.serving = serving;
    Ok(())
}

async fn before_recreation(world: &World, subject: &mut Subject) -> Result<(), DockerError> {
    let inspect = &subject.inspect;
    let changes = world.docker.changes(inspect.id()).await?;
    let dependents = dependents(world, inspect).await?;
    let data_directory = subject.spec.data_directory(&subject.inside.command, &subject.inside.environment);
    let refusals = gates::refusals(gates::Subject {
        inspect,
        image: subject.image.as_ref(),
        changes: &changes,
        dependents: &dependents,
        rootless: world.engine.rootless,
        certificate_target: subject.missing_mount.then(|| subject.spec.certificate_directory()),
        data_directory: &data_directory,
        volatile: subject.spec.volatile_paths(),
    });
    if !refusals.is_empty() {
        subject.observed.wiring = Wiring::Refused(refusals);
    } else if let Some(command) = foreign_exec(world, inspect).await? {
        subject.observed.life = Life::Busy(command);
    }
    Ok(())
}

/// Names of the containers that live off this one. One look at each container: only before a recreation.
async fn dependents(world: &World, inspect: &Inspect) -> Result<Vec<String>, DockerError> {
    let mut found = Vec::new();
    for listed in world.docker.list("").await? {
        if listed.id != *inspect.id()
            && let Some(other) = world.docker.inspect(listed.id.as_str()).await?
            && gates::depends_on(&other, inspect)
        {
            found.push(other.name().to_string());
        }
    }
    Ok(found)
}

/// A command that somebody runs in the container right now and that is not its health check. Only the
/// program's name: arguments may hold passwords.
async fn foreign_exec(world: &World, inspect: &Inspect) -> Result<Option<String>, DockerError> {
    let check: Vec<&str> = inspect.config()["Healthcheck"]["Test"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|word| word.as_str())
        .collect();
    for exec in inspect.exec_ids() {
        if let Some(words) = world.docker.running_exec(&exec).await? {
            // Test is ["CMD", words…] or ["CMD-SHELL", script], which the shell gets as its last word.
            let is_check = words.last().map(String::as_str) == check.last().copied() && check.len() > 1;
            if !is_check {
                return Ok(Some(words.first().cloned().unwrap_or_default()));
            }
        }
    }
    Ok(None)
}
