//! Looks at one container: what its operator wants, what is there, what it serves. Changes nothing.

mod directory;
mod wiring;

use std::path::PathBuf;

pub(super) use directory::directory;

pub use self::wiring::Missing;
use super::{
    enforce::{self, Inside},
    external,
    prove::{self, Expectation, Sight},
    world::World,
};
use crate::{
    decide::{
        client,
        external::External,
        gates::{self, Refusal},
        labels::{LabelProblem, Reading},
        matching,
        names::{LeftOut, certificate_names},
        plan::{Directory, Life, Observed, Plaintext, Serving, Strangers, Wiring},
        server_user::{NoUser, on_host, server_user},
    },
    engine::{self, Demand, Preamble, Spec},
    host::{
        archive,
        docker::{DockerError, Listed},
        mountinfo,
        probe::Plain,
        process,
    },
    model::{
        Engine, Owner, Sans,
        inspect::{Health, Image, Inspect, Mount, State},
    },
    pki::Certificate,
};

/// `/etc/passwd` of an image has some 1 KiB.
const LARGEST_PASSWD: usize = 1 << 20;

/// What a container is to us.
#[derive(Debug)]
pub enum Look {
    /// Neither labelled nor matched in the config, or switched off.
    NotOurs,
    /// Its labels are wrong.
    Wrong(Vec<LabelProblem>),
    /// Asked for, and nothing can be done with it.
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
    /// Where it would serve plaintext.
    pub plaintext_port: u16,
    pub missing: Missing,
    /// What its flags and rules are for: what was asked for, less what is not possible.
    pub demand: Demand,
    /// Why plaintext cannot be refused although the mode demands it.
    pub shortfall: Option<String>,
    /// Why clients without a certificate cannot be refused although they are to be.
    pub open_to_strangers: Option<String>,
    pub left_out: Vec<LeftOut>,
    pub observed: Observed,
}

impl Subject {
    /// What it has to serve with `chain`, leaf first, in its directory.
    pub fn expectation(&self, chain: Vec<Certificate>) -> Expectation {
        Expectation {
            spec: self.spec,
            port: self.port,
            names: self.observed.names.clone(),
            chain,
            presents: self.demand.requires_certificates()
                || self.spec.demands_certificates(&self.missing.command),
        }
    }

    /// In the container.
    pub fn data_directory(&self) -> String {
        self.spec.data_directory(&self.inside.command, &self.inside.environment)
    }

    /// Whether the probe needs a certificate for the container as it is.
    fn wants_certificate(&self) -> bool {
        let wired = self.observed.wiring == Wiring::Present;
        wired && self.demand.requires_certificates() || self.spec.demands_certificates(&self.inside.command)
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
    let desired = match matching::read(&world.settings.matches, &inspect) {
        Reading::NotOurs | Reading::Disabled => return Ok(Look::NotOurs),
        Reading::Wrong(problems) => return Ok(Look::Wrong(problems)),
        Reading::Enabled(desired) => desired,
    };
    let image = world.docker.image(inspect.image_id()).await?;
    let Some(engine) = desired.engine.or_else(|| detect(&inspect, image.as_ref())) else {
        return Ok(Look::Unsuitable(
            "cannot tell which database this is: set dbssl.engine, or engine where the config matches it, to postgres, mysql, mariadb, redis or mongodb"
                .to_owned(),
        ));
    };
    let spec = engine::spec(engine);
    let remap = world.engine.remap.filter(|_| inspect.host_config()["UsernsMode"] != "host");
    let user = user(world, &inspect, spec).await?;
    let (user, owner) = match user.and_then(|user| Ok((user, on_host(user, remap)?))) {
        Ok(both) => both,
        Err(error) => return Ok(Look::Unsuitable(error.to_string())),
    };
    let inside = Inside {
        id: inspect.id().clone(),
        command: inspect.words(),
        environment: inspect.environment(),
        user,
    };
    let port = spec.port(&inside.command, &inside.environment);
    let names = certificate_names(&inspect, &desired.names, &world.settings.host_names);
    let wiring = wiring::find(world, &inspect, &desired, spec, &inside, image.as_ref());
    let authority = world.authority();
    let mut subject = Subject {
        port,
        plaintext_port: spec.plaintext_port(&inside.command, &inside.environment),
        certificates: wiring.certificates,
        owner,
        inside,
        missing: wiring.missing,
        demand: wiring.demand,
        shortfall: wiring.shortfall,
        open_to_strangers: wiring.open_to_strangers,
        left_out: names.left_out,
        observed: Observed {
            container: inspect.name().to_string(),
            names: names.sans,
            issuer: authority.issuing.certificate().clone(),
            upper: authority.chain(),
            external: External::default(),
            directory: Directory::Missing,
            life: life(&inspect, &wiring.state),
            wiring: wiring.state,
            serving: Serving::NotLooked,
            plaintext: Plaintext::NotLooked,
            strangers: Strangers::NotLooked,
            desired,
        },
        inspect,
        image,
        spec,
    };
    subject.observed.directory = directory(&subject);
    subject.observed.external = external::read(&world.roots, &authority, &subject);
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
        command: inspect.words(),
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
    if let Some(known) = world.users.of(inspect, spec.engine()) {
        return Ok(Ok(known));
    }
    let passwd = archive::read_file(&world.docker, inspect.id(), "/etc/passwd", LARGEST_PASSWD).await?;
    let text = passwd.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let user = server_user(inspect.user(), &text, spec.server_users());
    // Not that a user is missing in what could not be read.
    let user = user.map_err(|no_user| match &passwd {
        Ok(_) => no_user,
        Err(why) => NoUser { why: format!("/etc/passwd in the container cannot be read: {why}") },
    });
    if let Ok(user) = user {
        world.users.remember(inspect, spec.engine(), user);
    }
    Ok(user)
}

/// Which database it is, as far as that can be told.
pub fn detect(inspect: &Inspect, image: Option<&Image>) -> Option<Engine> {
    let nothing = Image::default();
    let image = image.unwrap_or(&nothing);
    engine::detect(matching::image(inspect), &inspect.words(), &image.environment, &image.exposed_ports)
}

/// A health check counts before a recreation only: of a wired database, what it serves is seen directly, and an
/// unhealthy one needs its new certificate as well.
fn life(inspect: &Inspect, wiring: &Wiring) -> Life {
    match inspect.state() {
        State::Running if *wiring == Wiring::Present => Life::Ready,
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
    if !wired && initialises(&subject.inspect) {
        subject.observed.life = Life::Starting("its entrypoint is at work".to_owned());
        return Ok(());
    }
    let names = if wired { subject.observed.names.clone() } else { Sans::new() };
    let sight = Sight {
        spec: subject.spec,
        port: subject.port,
        names: &names,
        presents: subject.wants_certificate(),
    };
    let mut serving = prove::look(world, &subject.inspect, sight).await;
    let mut plain = None;
    if !wired && subject.plaintext_port != subject.port && matches!(serving, Serving::Unreachable(_)) {
        // TLS would have a port of its own: what listens now is the other one.
        let plain = plain.insert(prove::plaintext(world, subject).await);
        serving = match plain {
            Plain::Unreachable(why) => Serving::Unreachable(why.clone()),
            Plain::NotReady(why) => Serving::Starting(why.clone()),
            Plain::Refused => Serving::Unreachable(format!(
                "nothing listens on its ports {} and {} (one that only its configuration file names is not seen: name it in the command)",
                subject.port, subject.plaintext_port
            )),
            // It may have opened both ports since the one for TLS was asked.
            Plain::Accepted | Plain::Unclear(_) => match prove::look(world, &subject.inspect, sight).await {
                Serving::Unreachable(_) => Serving::Plaintext,
                seen => seen,
            },
        };
    }
    if let Serving::Unreachable(why) | Serving::Starting(why) = &serving
        && subject.observed.life == Life::Ready
    {
        subject.observed.life = Life::Starting(why.clone());
    }
    match (&subject.observed.wiring, &serving) {
        (Wiring::Missing, Serving::Tls { chain, .. }) if !is_ours(world, subject, chain) => {
            let what = "its own configuration file turns TLS on".to_owned();
            subject.observed.wiring = Wiring::Foreign(vec![what]);
        }
        // One that cannot be reached at all would be waited for without end, and its refusal never told.
        (Wiring::Missing, _) if subject.inspect.addresses(subject.port).is_empty() => {
            before_recreation(world, subject).await?;
        }
        (Wiring::Missing, _) if subject.observed.life == Life::Ready => {
            // While it recovers or shuts down PostgreSQL says that it has no TLS before it says that it is not ready.
            let plain = match plain {
                Some(seen) => seen,
                None => prove::plaintext(world, subject).await,
            };
            let serves_tls = matches!(serving, Serving::Tls { .. });
            match plain {
                Plain::NotReady(why) | Plain::Unreachable(why) => subject.observed.life = Life::Starting(why),
                // Neither: it listens elsewhere, as MongoDB does while it initialises.
                Plain::Refused if !serves_tls && matches!(subject.spec.preamble(), Preamble::Direct(_)) => {
                    subject.observed.life = Life::Starting("it answers neither TLS nor plaintext".to_owned());
                }
                _ => before_recreation(world, subject).await?,
            }
        }
        (Wiring::Present, Serving::Tls { .. }) => {
            let (plaintext, strangers) = enforce::admission(world, subject).await;
            subject.observed.plaintext = match &subject.shortfall {
                Some(why) => Plaintext::Unknown(why.clone()),
                None => plaintext,
            };
            let why = subject.open_to_strangers.as_ref().or(subject.shortfall.as_ref());
            subject.observed.strangers = match why {
                Some(why) if strangers != Strangers::RefusedWithoutNeed => Strangers::Unknown(why.clone()),
                _ => strangers,
            };
        }
        _ => {}
    }
    subject.observed.serving = serving;
    Ok(())
}

/// On the host's network loopback is all there is, and a temporary server of the first start listens there: it is told
/// by the entrypoint's still being the container's main process.
fn initialises(inspect: &Inspect) -> bool {
    inspect.network_mode() == "host"
        && process::program(inspect.pid()).is_some_and(|program| program.starts_with("docker-entrypoi"))
}

/// A certificate that nobody would miss: of our CA (the flags are for another mode, then), or made by the server for
/// itself.
fn is_ours(world: &World, subject: &Subject, chain: &[Certificate]) -> bool {
    let Some(leaf) = chain.first() else { return false };
    subject.spec.makes_itself(leaf.subject(), leaf.issuer())
        || world.authority().roots.iter().any(|root| leaf.signed_by(root))
        || external::lies_there(subject, leaf)
}

async fn before_recreation(world: &World, subject: &mut Subject) -> Result<(), DockerError> {
    let inspect = &subject.inspect;
    let mut changes = world.docker.changes(inspect.id()).await?;
    if let Some(client) = client::asked(&matching::read(&world.settings.matches, inspect), &inspect.labels())
    {
        changes = client::without_delivery(changes, &client);
    }
    let listed = world.docker.list("").await?;
    let dependents = others(world, inspect, &listed, gates::depends_on, false).await?;
    let data_directory = subject.data_directory();
    let refusals = gates::refusals(gates::Subject {
        inspect,
        image: subject.image.as_ref(),
        changes: &changes,
        dependents: &dependents,
        rootless: world.engine.rootless,
        moved: &moved(inspect),
        certificate_target: subject
            .missing
            .mount
            .then(|| subject.spec.certificate_directory(&subject.inside.command)),
        data_directory: &data_directory,
        volatile: subject.spec.volatile_paths(),
    });
    if !refusals.is_empty() {
        subject.observed.wiring = Wiring::Refused(refusals);
    } else if let Some(command) = foreign_exec(world, inspect).await? {
        subject.observed.life = Life::Busy(command);
    }
    // A container that was renamed keeps the directory that it has mounted; the newcomer of its name gets another.
    let path = subject.certificates.to_string_lossy().into_owned();
    let in_use = |listed: &Listed| listed.mounts.iter().any(|(source, _)| *source == path);
    if listed.iter().any(|listed| listed.id != *subject.inspect.id() && in_use(listed)) {
        subject.certificates.set_file_name(format!(
            "{}-{}",
            subject.inspect.name(),
            subject.inspect.id().short()
        ));
        subject.observed.directory = directory(subject);
        subject.observed.external = external::read(&world.roots, &world.authority(), subject);
    }
    Ok(())
}

/// What stands against a restart of the same container: it mounts its folders anew, and whoever lives in its network is
/// cut off from then on.
pub(super) async fn against_a_restart(world: &World, subject: &Subject) -> Result<Vec<Refusal>, DockerError> {
    let inspect = &subject.inspect;
    let mut moved = moved(inspect);
    // One that was lost and made again is what a restart is for.
    let certificates = subject.spec.certificate_directory(&subject.inside.command);
    moved.retain(|mount| mount.destination != certificates);
    let mut listed = world.docker.list("").await?;
    listed.retain(|listed| matches!(listed.state.as_str(), "running" | "paused"));
    // A hang may last for weeks, and a certificate ends.
    let names = others(world, inspect, &listed, gates::lives_in, true).await?;
    let gone = moved.into_iter().map(Refusal::moved);
    Ok(gone.chain((!names.is_empty()).then_some(Refusal::Dependents { names })).collect())
}

/// Mounts from the host whose path there leads somewhere else by now. Docker looks at the path again when it starts a
/// container, and where there is nothing it makes an empty folder.
fn moved(inspect: &Inspect) -> Vec<Mount> {
    let mut mounts = inspect.mounts();
    mounts.retain(|mount| {
        mount.kind == "bind"
            && mountinfo::has_moved(inspect.pid(), mount.source.as_ref(), &mount.destination) == Some(true)
    });
    mounts
}

/// Names of the other containers that live off this one in such a way. One look at each, and only before it is stopped:
/// Docker's list tells whose network a container has, and not whose processes, IPC, volumes or links. `urgent`: of one on
/// which Docker hangs that list has to do.
async fn others(
    world: &World,
    inspect: &Inspect,
    listed: &[Listed],
    live_off: fn(&Inspect, &Inspect) -> bool,
    urgent: bool,
) -> Result<Vec<String>, DockerError> {
    let mut found = Vec::new();
    for other in listed.iter().filter(|other| other.id != *inspect.id()) {
        let lives_off = match world.docker.inspect(other.id.as_str()).await {
            Ok(seen) => seen.is_some_and(|seen| live_off(&seen, inspect)),
            Err(error) if urgent && world.hangs_on_one(&error).await => {
                gates::is_of(&other.network_mode, inspect)
            }
            Err(error) => return Err(error),
        };
        if lives_off {
            found.push(other.name.to_string());
        }
    }
    Ok(found)
}

/// A command that somebody runs in the container right now and that is not its health check. Only the
/// program's name: arguments may hold passwords.
pub(super) async fn foreign_exec(world: &World, inspect: &Inspect) -> Result<Option<String>, DockerError> {
    let check = inspect.healthcheck();
    for exec in inspect.exec_ids() {
        if let Some(words) = world.docker.running_exec(&exec).await? {
            // Test is ["CMD", words…] or ["CMD-SHELL", script], which the shell gets as its last word.
            let is_check = words.last() == check.last() && check.len() > 1;
            if !is_check {
                return Ok(Some(words.first().cloned().unwrap_or_default()));
            }
        }
    }
    Ok(None)
}
