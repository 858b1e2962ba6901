//! The old container is gone, and no user removed it (a prune did, say): nobody wants a database to vanish. What is left
//! of it is kept, or it is built again from the record.

use tracing::warn;

use super::{
    SettleError, Settled, Verdict, announce, clear_away, is_dead, replaced::is_of_compose, start_again,
    stays_down,
};
use crate::{
    agent::{
        redeploy::{Abort, alone, dialect, layer_secrets},
        world::World,
    },
    decide::successor::{OPERATION_LABEL, rebuilt},
    host::{
        docker::{Docker, DockerError},
        journal::{Journal, Operation, Phase},
    },
    model::{
        ContainerId,
        inspect::{Image, Inspect, State},
    },
};

/// `old`: what Docker left of it. A successor that ended by itself, or that Docker removed by half, is no database.
pub(super) async fn without_the_old(
    world: &World,
    operation: &Operation,
    journal: &mut Journal,
    verdict: &Verdict,
    successor: &Inspect,
    old: Option<&Inspect>,
    why: String,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    let failed =
        is_dead(successor) || (matches!(verdict, Verdict::Failed(_)) && successor.state() == State::Exited);
    let settled = match recorded(docker, operation).await? {
        Ok(record) if failed => {
            announce(journal, Phase::RollBack);
            // They are in its layer alone by now.
            let secrets =
                if is_dead(successor) { Vec::new() } else { layer_secrets(docker, successor).await? };
            clear_away(world, operation, successor).await?;
            rebuild(docker, operation, record, secrets, why).await?
        }
        _ => keep(world, operation, successor, *verdict != Verdict::UserStopped, why).await?,
    };
    if let Some(old) = old
        && let Err(error) = docker.remove(old.id()).await
    {
        warn!(%error, container = %old.name(), "Docker cannot remove what is left of the former container: remove it");
    }
    Ok(settled)
}

/// The successor is gone as well.
pub(super) async fn without_either(
    world: &World,
    operation: &Operation,
    why: String,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    let what = match recorded(docker, operation).await? {
        Ok(record) => return rebuild(docker, operation, record, Vec::new(), why).await,
        Err(what) => what,
    };
    let of_compose = Inspect::new(operation.inspect.clone()).ok().filter(is_of_compose);
    if let Some(network) = missing_network(docker, of_compose.as_ref()).await? {
        return Ok(Settled::Abandoned { why: format!("it was removed with its network {network}") });
    }
    Err(SettleError::Missing { what, record: world.roots.journal().join(operation.file_name()) })
}

/// The successor is not proved, but the data needs somebody to serve it. `start`: unless its user stopped it.
async fn keep(
    world: &World,
    operation: &Operation,
    successor: &Inspect,
    start: bool,
    why: String,
) -> Result<Settled, SettleError> {
    let docker = &world.docker;
    warn!(why, container = %operation.name, "not proved, but the old container is gone: keeping the successor");
    if successor.state() == State::Created {
        furnish(docker, operation, successor.id()).await?;
    }
    if start && !successor.running() {
        if let Some(down) = stays_down(world, operation, successor).await? {
            return Ok(Settled::Abandoned { why: format!("{why}; {down}") });
        }
        start_again(docker, successor.id()).await?;
    }
    docker.set_restart_policy(successor.id(), operation.restart_policy()).await?;
    Ok(Settled::Kept { why })
}

/// All that the old container can be built again from, or what is missing: made anew, a volume would be an empty database.
async fn recorded(
    docker: &Docker,
    operation: &Operation,
) -> Result<Result<(Inspect, Image), String>, SettleError> {
    let Ok(old) = Inspect::new(operation.inspect.clone()) else {
        return Ok(Err("the recorded one cannot be read".into()));
    };
    let Some(image) = docker.image(old.image_id()).await? else {
        return Ok(Err(format!("the image {} is gone", old.image_id())));
    };
    for mount in old.mounts().into_iter().filter(|mount| mount.kind == "volume") {
        if !docker.volume_exists(&mount.name).await? {
            return Ok(Err(format!("the volume {} is gone", mount.name)));
        }
    }
    // Without one nobody reaches it.
    if let Some(network) = missing_network(docker, Some(&old)).await? {
        return Ok(Err(format!("the network {network} is gone")));
    }
    Ok(Ok((old, image)))
}

async fn missing_network(docker: &Docker, old: Option<&Inspect>) -> Result<Option<String>, DockerError> {
    for attachment in old.map(Inspect::attachments).unwrap_or_default() {
        if !docker.network_exists(attachment.network).await? {
            return Ok(Some(attachment.network.to_owned()));
        }
    }
    Ok(None)
}

/// `secrets`: archives for the folders of its own layer, as [`layer_secrets`] has them.
async fn rebuild(
    docker: &Docker,
    operation: &Operation,
    (old, image): (Inspect, Image),
    secrets: Vec<(String, Vec<u8>)>,
    why: String,
) -> Result<Settled, SettleError> {
    let begun = docker.inspect(operation.name.as_str()).await?;
    if begun.as_ref().is_some_and(|found| found.label(OPERATION_LABEL) != Some(operation.id.as_str())) {
        return Ok(Settled::Abandoned { why: "its user replaced it meanwhile".into() });
    }
    match alone(docker, operation, &old).await {
        Ok(()) => {}
        Err(Abort::Docker(error)) => return Err(error.into()),
        Err(taken) => {
            return Ok(Settled::Abandoned { why: format!("its user replaced it meanwhile: {taken}") });
        }
    }
    let again = rebuilt(&old, &image, &operation.id, dialect(docker, &old).await?);
    let id = match begun {
        // An earlier try came as far.
        Some(begun) => begun.id().clone(),
        None => docker.create(operation.name.as_str(), &again.body).await?,
    };
    furnish(docker, operation, &id).await?;
    for (folder, tar) in secrets {
        docker.put(&id, &folder, tar).await?;
    }
    start_again(docker, &id).await?;
    Ok(Settled::RolledBack { why: format!("{why}; the former container was gone, and was built again") })
}

/// Attaches a container that was made from the record, or whose making was cut off, to the networks it still lacks.
async fn furnish(docker: &Docker, operation: &Operation, id: &ContainerId) -> Result<(), SettleError> {
    let (Ok(old), Some(made)) = (Inspect::new(operation.inspect.clone()), docker.inspect(id.as_str()).await?)
    else {
        return Ok(());
    };
    let Some(image) = docker.image(old.image_id()).await? else { return Ok(()) };
    let attached: Vec<_> =
        made.attachments().iter().map(|attachment| attachment.network.to_owned()).collect();
    let wanted = rebuilt(&old, &image, &operation.id, dialect(docker, &old).await?).further_networks;
    for (network, endpoint) in wanted.iter().filter(|(network, _)| !attached.contains(network)) {
        docker.connect_network(network, id, endpoint).await?;
    }
    Ok(())
}
