//! Plaintext refused or accepted, for PostgreSQL by a managed block in the `pg_hba.conf` in force.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    observe::{self, Subject},
    prove,
    world::World,
};
use crate::{
    decide::plan::Plaintext,
    engine::{
        ExecScript, pg_hba,
        postgres::exec::{self, ExecOutput, Hba, ScriptError},
    },
    host::{
        docker::{self, DockerError, Exec},
        probe::Plain,
    },
    model::{ContainerId, Owner, inspect::Inspect},
};

/// A script of a few lines; a busy host may still need seconds to start it.
const SCRIPT: Duration = Duration::from_secs(30);
/// Between a SIGHUP and the first connection that feels it.
const TAKES_EFFECT: Duration = Duration::from_secs(10);

/// What it takes to run a command in a database's container.
#[derive(Clone, Debug)]
pub struct Inside {
    pub id: ContainerId,
    /// Entrypoint and command in one.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// The server's user as the container sees it.
    pub user: Owner,
}

#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error("{0}")]
    Script(#[from] ScriptError),
    #[error("the server still answers otherwise: {0:?}")]
    NoEffect(Plain),
}

/// Whether plaintext gets in, and whether that is our doing.
pub async fn plaintext(world: &World, subject: &Subject) -> Plaintext {
    let seen = prove::plaintext(world, &subject.inspect, subject.spec, subject.port).await;
    let ours = match (&seen, read(world, &subject.inside).await) {
        (_, Ok(hba)) => pg_hba::has_block(&hba.content),
        // A mode that allows plaintext needs no file of ours to be right.
        (Plain::Refused | Plain::Accepted, Err(why)) if subject.observed.desired.mode.enforces() => {
            return Plaintext::Unknown(format!("pg_hba.conf cannot be managed: {why}"));
        }
        (_, Err(_)) => false,
    };
    match seen {
        Plain::Refused => Plaintext::Refused { ours },
        Plain::Accepted => Plaintext::Accepted,
        Plain::NotReady(_) | Plain::Unreachable(_) => Plaintext::NotLooked,
        Plain::Unclear(why) => {
            Plaintext::Unknown(format!("the server's answer to plaintext is unclear: {why}"))
        }
    }
}

/// Takes the block out of a container that is ours no more; whether there was one.
pub async fn release(world: &World, inspect: &Inspect) -> Result<bool, EnforceError> {
    let Some(inside) = observe::inside(world, inspect).await? else { return Ok(false) };
    let hba = read(world, &inside).await?;
    if !pg_hba::has_block(&hba.content) {
        return Ok(false);
    }
    write(world, &inside, &hba, pg_hba::without_block(&hba.content)).await?;
    Ok(true)
}

/// Puts the block at the top of the file, reloads, and sees plaintext refused.
pub async fn enforce(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    let hba = read(world, &subject.inside).await?;
    write(world, &subject.inside, &hba, pg_hba::with_block(&hba.content)).await?;
    takes_effect(world, subject, |seen| *seen == Plain::Refused).await
}

/// Takes the block out of the file and reloads. What the rest of the file says is its owner's affair.
pub async fn relax(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    let hba = read(world, &subject.inside).await?;
    write(world, &subject.inside, &hba, pg_hba::without_block(&hba.content)).await
}

/// SIGHUP from inside: `docker kill` would mark the container as stopped by hand.
pub async fn reload(world: &World, inside: &Inside) -> Result<(), EnforceError> {
    let output = run(world, inside, exec::reload(&inside.command, &inside.environment)).await?;
    exec::parse_reloaded(view(&output))?;
    Ok(())
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
        let output = run(world, inside, exec::write_hba(hba, &wanted)).await?;
        exec::parse_written(view(&output))?;
    }
    // Also when the file was right already: it may never have been loaded.
    reload(world, inside).await
}

async fn takes_effect(
    world: &World,
    subject: &Subject,
    wanted: impl Fn(&Plain) -> bool,
) -> Result<(), EnforceError> {
    let end = Instant::now() + TAKES_EFFECT;
    loop {
        let seen = prove::plaintext(world, &subject.inspect, subject.spec, subject.port).await;
        if wanted(&seen) {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(EnforceError::NoEffect(seen));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn run(world: &World, inside: &Inside, script: ExecScript) -> Result<docker::ExecOutput, DockerError> {
    let user = format!("{}:{}", inside.user.uid, inside.user.gid);
    let exec = Exec {
        user: &user,
        argv: &script.argv,
        stdin: script.stdin.as_deref(),
        limit: script.output_limit + 1,
        deadline: SCRIPT,
    };
    world.docker.exec(&inside.id, exec).await
}

fn view(output: &docker::ExecOutput) -> ExecOutput<'_> {
    ExecOutput { exit_code: output.code, stdout: &output.stdout, stderr: &output.stderr }
}
