//! What a redeploy left that Docker did not remove when it was told to, or that a crash left: rehearsals, and successors
//! that failed. Neither has a name that anybody else uses, and neither runs.

use tracing::{debug, warn};

use super::world::World;
use crate::{
    decide::successor::OPERATION_LABEL,
    host::docker::{DockerError, Listed},
    model::inspect::{Inspect, State},
};

/// In the place of an operation's id.
pub const REHEARSAL: &str = "rehearsal";
/// Behind the name of the database.
pub const REHEARSED: &str = ".dbssl-rehearsal";
pub const FAILED: &str = ".dbssl-failed-";

/// Whether its name says that it may be one of these.
pub fn is_left(listed: &Listed) -> bool {
    let name = listed.name.as_str();
    name.ends_with(REHEARSED) || name.contains(FAILED)
}

/// Removes them. What cannot be removed now is come upon again by the next list.
pub async fn sweep(world: &World) {
    if let Err(error) = remove_all(world).await {
        warn!(%error, "cannot clear up what an earlier redeploy left: it is tried again");
    }
}

async fn remove_all(world: &World) -> Result<(), DockerError> {
    let listed = world.docker.list(OPERATION_LABEL).await?;
    for left in listed.iter().filter(|listed| is_left(listed)) {
        let of = left.name.as_str().split(".dbssl-").next().unwrap_or_default();
        let database = world.docker.inspect(of).await?;
        // A rehearsal under way is whose it is.
        if database.is_some_and(|database| world.is_in_hand(database.id())) {
            continue;
        }
        let found = world.docker.inspect(left.id.as_str()).await?;
        if let Some(found) =
            found.filter(|found| world.concerns(found) && (is_rehearsal(found) || failed(found)))
        {
            world.docker.remove(found.id()).await?;
            debug!(container = %found.name(), "cleared up");
        }
    }
    Ok(())
}

/// A container that was made to rehearse and never ran. Docker calls it dead if it was killed while it removed it.
pub fn is_rehearsal(found: &Inspect) -> bool {
    matches!(found.state(), State::Created | State::Dead) && found.label(OPERATION_LABEL) == Some(REHEARSAL)
}

fn failed(found: &Inspect) -> bool {
    found.name().as_str().contains(FAILED) && found.label(OPERATION_LABEL).is_some() && !found.running()
}
