//! Somebody put another container in the database's place while ours was parked, or may be about to.

use super::{SettleError, Settled};
use crate::{
    agent::{redeploy::grace, world::World},
    decide::{names::COMPOSE_SERVICE, successor::OPERATION_LABEL},
    host::{
        docker::Docker,
        journal::{BRAKE_PREFIX, Operation},
    },
    model::inspect::Inspect,
};

const PROJECT: &str = "com.docker.compose.project";
/// Which of a service's replicas it is.
const NUMBER: &str = "com.docker.compose.container-number";
/// `True` on what `docker compose run` made.
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// Whether Compose made it: then Compose may be at making another one.
pub(super) fn is_of_compose(old: &Inspect) -> bool {
    old.label(PROJECT).is_some() && old.label(COMPOSE_SERVICE).is_some()
}

/// What Compose made in the place of `old` since the operation began. Neither a command that somebody runs in a
/// container of the same service, nor another replica of it, nor what was there before.
pub(super) async fn replacement(
    docker: &Docker,
    operation: &Operation,
    old: &Inspect,
) -> Result<Option<Inspect>, SettleError> {
    let project = format!("{PROJECT}={}", old.label(PROJECT).unwrap_or_default());
    for listed in docker.list(&project).await? {
        let same = |label| listed.labels.get(label).map(String::as_str) == old.label(label);
        let one_off = listed.labels.get(ONE_OFF).is_some_and(|value| value == "True");
        if listed.id == *old.id() || !same(COMPOSE_SERVICE) || !same(NUMBER) || one_off {
            continue;
        }
        let Some(found) = docker.inspect(listed.id.as_str()).await? else {
            return Err(SettleError::NameInFlux(listed.name.to_string()));
        };
        if found.created_at().is_some_and(|created| created >= operation.begun) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What somebody made of the successor, with all its labels, and under its name.
pub(super) async fn copied(docker: &Docker, operation: &Operation) -> Result<Option<Inspect>, SettleError> {
    let found = docker.inspect(operation.name.as_str()).await?;
    Ok(found.filter(|found| is_labelled(operation, found) && !is_successor(operation, found)))
}

fn is_labelled(operation: &Operation, found: &Inspect) -> bool {
    found.label(OPERATION_LABEL) == Some(operation.id.as_str())
}

/// By its label alone where it is not known what was made.
fn is_successor(operation: &Operation, found: &Inspect) -> bool {
    is_labelled(operation, found) && operation.made.as_ref().is_none_or(|made| made == found.id())
}

/// The old container cannot have its name back.
pub(super) async fn name_taken(
    world: &World,
    operation: &Operation,
    old: &Inspect,
) -> Result<Settled, SettleError> {
    match world.docker.inspect(operation.name.as_str()).await? {
        // Docker reserves a name before there is a container, and our own late successor is not somebody else's.
        None => Err(SettleError::NameInFlux(operation.name.to_string())),
        Some(other) if is_successor(operation, &other) => {
            Err(SettleError::NameInFlux(operation.name.to_string()))
        }
        Some(other) => replaced(world, old, &other).await,
    }
}

/// Theirs serves now; ours must not run beside it, and is kept if it has any mount that the other has not.
pub(super) async fn replaced(world: &World, old: &Inspect, other: &Inspect) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    // It may have got its parked name and not been stopped yet.
    docker.stop(old.id(), grace(old, world)).await?;
    let data = |inspect: &Inspect| {
        let mounts = inspect.mounts().into_iter().filter(|mount| mount.writable);
        mounts.map(|mount| (mount.source, mount.destination)).collect::<Vec<_>>()
    };
    let theirs = data(other);
    if data(old).iter().all(|mount| theirs.contains(mount)) {
        docker.remove(old.id()).await?;
        return Ok(Settled::Abandoned {
            why: format!("its user replaced it meanwhile by the container {} on the same data", other.name()),
        });
    }
    // The brake stays on if it is, and the restart policy off: part of the data may be the same.
    let attachments = old.attachments();
    let brake = attachments.iter().find(|attachment| attachment.network.starts_with(BRAKE_PREFIX));
    let brake = brake.map_or_else(String::new, |brake| {
        format!(
            "; before it can be started: docker network disconnect --force {} {}",
            brake.network,
            old.name()
        )
    });
    Ok(Settled::Abandoned {
        why: format!(
            "its user put the container {} in its place, with other mounts; the former one is kept as {}, stopped{brake}",
            other.name(),
            old.name()
        ),
    })
}
