//! PostgreSQL: clients refused by a managed block in the `pg_hba.conf` in force.

use super::{EnforceError, Inside, run, tell, view};
use crate::{
    agent::{observe, world::World},
    engine::{
        Order,
        pg_hba::{self, Block, NotUnderstood},
        postgres::exec::{self, Hba},
        spec,
    },
    model::{Engine, inspect::Inspect},
};

/// What the file in force has of ours.
pub(super) struct State {
    /// `None`: damaged, or out of date.
    pub block: Option<Block>,
    /// Whether it demands certificates, be it whole or not.
    pub demands: bool,
    /// Why it cannot demand them.
    pub cannot_demand: Option<NotUnderstood>,
}

impl State {
    fn of(hba: &Hba) -> Self {
        let both = Block { plaintext: true, certificates: true };
        Self {
            block: pg_hba::block(&hba.content),
            demands: pg_hba::demands_certificates(&hba.content),
            cannot_demand: pg_hba::with_block(&hba.content, both).err(),
        }
    }
}

pub(super) async fn state(world: &World, inside: &Inside) -> Result<State, EnforceError> {
    Ok(State::of(&read(world, inside).await?))
}

/// Puts the block at the top of the file that this makes of its state, or takes it out, and reloads. What the rest of the
/// file says is its owner's affair.
pub(super) async fn set(
    world: &World,
    inside: &Inside,
    block: impl FnOnce(&State) -> Block,
) -> Result<(), EnforceError> {
    let hba = read(world, inside).await?;
    let wanted = pg_hba::with_block(&hba.content, block(&State::of(&hba)))?;
    write(world, inside, &hba, wanted).await
}

/// Takes the block out of a container that is ours no more; whether there was one.
pub async fn release(world: &World, inspect: &Inspect) -> Result<bool, EnforceError> {
    let Some(inside) = observe::inside(world, inspect).await? else { return Ok(false) };
    let hba = read(world, &inside).await?;
    let Some(without) = pg_hba::without_block(&hba.content) else { return Ok(false) };
    write(world, &inside, &hba, Some(without)).await?;
    Ok(true)
}

async fn read(world: &World, inside: &Inside) -> Result<Hba, EnforceError> {
    let output = run(world, inside, exec::read_hba(&inside.command, &inside.environment)).await?;
    Ok(exec::parse_hba(view(&output))?)
}

async fn write(
    world: &World,
    inside: &Inside,
    hba: &Hba,
    wanted: Option<Vec<u8>>,
) -> Result<(), EnforceError> {
    if let Some(wanted) = wanted {
        // What is longer could not be read again, and so not be taken out.
        if wanted.len() > exec::HBA_LIMIT {
            return Err(EnforceError::TooLong);
        }
        let output = run(world, inside, exec::write_hba(hba, &wanted)).await?;
        exec::parse_written(view(&output))?;
    }
    // Also when the file was right already: it may never have been loaded.
    tell(world, spec(Engine::Postgres), inside, Order::Reload).await
}
