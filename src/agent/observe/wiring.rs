//! What of the wiring a container has, and what its successor would get: flags, mount, health check.

use std::path::PathBuf;

use super::Inside;
use crate::{
    agent::world::World,
    decide::{gates::Refusal, plan::Wiring},
    engine::{Certificates, Check, Demand, Launch, Shape, Spec, Wired},
    model::{
        ClientAuth, Desired, Healthcheck, Mode,
        inspect::{Image, Inspect},
    },
};

/// What a successor gets. Where nothing is missing: what the container has.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// `Config.Cmd`.
    pub command: Vec<String>,
    /// `Config.Healthcheck.Test`, if it has to be another.
    pub healthcheck: Option<Vec<String>>,
    pub mount: bool,
}

pub(super) struct Found {
    pub state: Wiring,
    pub certificates: PathBuf,
    pub missing: Missing,
    /// See [`super::Subject::demand`].
    pub demand: Demand,
    /// See [`super::Subject::shortfall`].
    pub shortfall: Option<String>,
    /// See [`super::Subject::open_to_strangers`].
    pub open_to_strangers: Option<String>,
}

/// Whoever wrote what is there: a user may have put it into the Compose file.
pub(super) fn find(
    world: &World,
    inspect: &Inspect,
    desired: &Desired,
    spec: &dyn Spec,
    inside: &Inside,
    image: Option<&Image>,
) -> Found {
    let command = &inside.command;
    let target = spec.certificate_directory(command);
    let mounts = inspect.mounts();
    let at_target = mounts.iter().find(|mount| mount.destination == target);
    let below = mounts.iter().find(|mount| mount.destination.starts_with(&format!("{target}/")));
    let ours = at_target.filter(|mount| mount.kind == "bind" && world.roots.owns(mount.source.as_ref()));
    let certificates =
        ours.map_or_else(|| world.roots.certificates(inspect.name()), |mount| PathBuf::from(&mount.source));
    let strict = strictness(inspect, desired, spec, inside);
    let (entrypoint, own_command) = (inspect.entrypoint().unwrap_or_default(), inspect.command());
    let launch = Launch { entrypoint: &entrypoint, command: &own_command };
    let found = |state, command: &[String], mount| Found {
        state,
        certificates: certificates.clone(),
        missing: Missing { command: command.to_vec(), healthcheck: strict.adapted.clone(), mount },
        demand: strict.demand,
        shortfall: strict.shortfall.clone(),
        open_to_strangers: strict.open_to_strangers.clone(),
    };
    let as_it_is = |state| found(state, &own_command, false);
    let refused = |why| as_it_is(Wiring::Refused(vec![Refusal::Command { why }]));

    let foreign_mount = (at_target.is_some() && ours.is_none()) || below.is_some();
    match spec.wired(command, strict.demand) {
        Wired::Foreign(flags) => as_it_is(Wiring::Foreign(flags)),
        // Coolify's flags are ours to the letter, perhaps for another mode; the files are its own.
        Wired::Ours | Wired::Absent if foreign_mount && spec.is_wired(command) => {
            as_it_is(Wiring::Foreign(vec![format!("a mount of its own at {target}")]))
        }
        Wired::Ours if ours.is_some() => as_it_is(Wiring::Present),
        Wired::Ours => found(Wiring::Missing, &own_command, true),
        Wired::Conflict(flags) => {
            refused(format!("its own flags contradict TLS by dbssl: {}; remove them", flags.join(" ")))
        }
        Wired::Absent => match shape(launch, spec, image) {
            Shape::Appendable => found(Wiring::Missing, &spec.wire(launch, strict.demand), ours.is_none()),
            Shape::ByHand(obstacle) => refused(format!(
                "flags cannot be appended to its command, since {obstacle}; add them there by hand: {} (and mount {} at {target}, read-only)",
                spec.flags(target, strict.demand).join(" "),
                certificates.display()
            )),
        },
    }
}

/// What may be demanded without harm to anything that works now.
struct Strictness {
    /// What flags and rules are for: a container that becomes unhealthy is worse than one that is not strict.
    demand: Demand,
    adapted: Option<Vec<String>>,
    shortfall: Option<String>,
    open_to_strangers: Option<String>,
}

fn strictness(inspect: &Inspect, desired: &Desired, spec: &dyn Spec, inside: &Inside) -> Strictness {
    let (mode, client_auth) = (desired.mode, desired.client_auth);
    let asked_only = Demand { mode, client_auth: client_auth.min(ClientAuth::Optional) };
    let wanted = Demand { mode, client_auth };
    let as_it_is = |demand| Strictness { demand, adapted: None, shortfall: None, open_to_strangers: None };
    // Whoever lets plaintext in lets everybody in: that is one lenience, and told once.
    let lenient = |mode, why: String| Strictness {
        shortfall: desired.mode.enforces().then_some(why),
        ..as_it_is(Demand { mode, ..asked_only })
    };
    let (demand, open_to_strangers) = match spec.certificates() {
        Certificates::PerAccount(what_to_do) if wanted.requires_certificates() => {
            (asked_only, Some(what_to_do.to_owned()))
        }
        _ => (wanted, None),
    };
    // With rules, the flags do not tell what has been demanded so far.
    let by_rules = demand.requires_certificates() && spec.certificates() == Certificates::Rules;
    let is_wired = spec.wired(&inside.command, demand) == Wired::Ours;
    if is_wired && !by_rules {
        return Strictness { open_to_strangers, ..as_it_is(demand) };
    }
    if let Some(option) = spec.one_of_several(&inside.command).filter(|_| !is_wired) {
        // TLS is offered, and nothing else changes: not even how it speaks to the others.
        let why = format!("{option} makes it one of several servers, which would no longer reach each other");
        return lenient(Mode::Allow, why);
    }
    let check =
        |demand| spec.healthcheck(&inspect.healthcheck(), &inside.command, &inside.environment, demand);
    match judged(check(demand), desired.healthcheck) {
        Ok(adapted) => Strictness { adapted, open_to_strangers, ..as_it_is(demand) },
        Err(why) if by_rules => {
            let why = format!("its health check would fail without a certificate, since {why}");
            Strictness { open_to_strangers: Some(why), ..as_it_is(asked_only) }
        }
        Err(why) => {
            lenient(Mode::Prefer, format!("its health check would fail without plaintext, since {why}"))
        }
    }
}

/// The check in its new words, if there are any; or why it would fail.
fn judged(check: Check, healthcheck: Healthcheck) -> Result<Option<Vec<String>>, String> {
    match (check, healthcheck) {
        // Of one that is not known its operator may say so.
        (Check::Works, _) | (Check::Unknown(_), Healthcheck::Keep) => Ok(None),
        (Check::Adapted(test), Healthcheck::Adapt) => Ok(Some(test)),
        (Check::Adapted(_), Healthcheck::Keep) => {
            Err("dbssl.healthcheck=keep forbids to adapt it".to_owned())
        }
        (Check::Unknown(why), Healthcheck::Adapt) => {
            Err(format!("{why}; if it works with TLS, say so by dbssl.healthcheck=keep"))
        }
    }
}

fn shape(container: Launch<'_>, spec: &dyn Spec, image: Option<&Image>) -> Shape {
    match image {
        Some(image) => {
            let entrypoint = image.entrypoint.clone().unwrap_or_default();
            spec.command_shape(Launch { entrypoint: &entrypoint, command: &image.command }, container)
        }
        // The gates refuse a container whose image is gone.
        None => Shape::Appendable,
    }
}
