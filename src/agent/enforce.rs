//! What a running server is told from inside its container: to reload, and whom to refuse.

mod rules;
mod strangers;

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{observe::Subject, prove, world::World};
use crate::{
    decide::plan::{Plaintext, Strangers},
    engine::{
        Enforcement, ExecScript, Order, Spec,
        pg_hba::{Block, NotUnderstood},
        postgres::exec::HBA_LIMIT,
        script::{Answer, ExecOutput, ScriptError, parse_answer, parse_done},
    },
    host::{
        docker::{self, DockerError, Exec},
        probe::Plain,
    },
    model::{ContainerId, Engine, Owner, Secret},
};

pub use rules::release;
pub use strangers::{demand, excuse};

/// A script of a few lines; a busy host may still need seconds to start it.
const SCRIPT: Duration = Duration::from_secs(30);
/// Between an order and the first connection that feels it.
const TAKES_EFFECT: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

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
    NoEffect(Plaintext),
    #[error(
        "a client without a certificate is not refused, or one with a certificate is: {0}; the rule is taken back"
    )]
    NotProved(String),
    #[error("{0}")]
    Rules(#[from] NotUnderstood),
    #[error("pg_hba.conf would become longer than {HBA_LIMIT} bytes")]
    TooLong,
    #[error("{0} cannot be told so")]
    NoWay(Engine),
}

/// Who gets in that should not, and whether it is our doing if he does not: without TLS, and without a certificate.
pub async fn admission(world: &World, subject: &Subject) -> (Plaintext, Strangers) {
    match subject.spec.enforcement() {
        Enforcement::Rules => {
            let state = rules::state(world, &subject.inside).await;
            (by_rules(world, subject, &state).await, strangers::by_rules(world, subject, &state).await)
        }
        Enforcement::Flags => {
            let plaintext = match &subject.shortfall {
                Some(_) => Plaintext::NotLooked,
                None => by_flags(world, subject).await,
            };
            (plaintext, strangers::by_flags(world, subject).await)
        }
    }
}

async fn by_rules(world: &World, subject: &Subject, state: &Result<rules::State, EnforceError>) -> Plaintext {
    let seen = prove::plaintext(world, subject).await;
    let ours = match (&seen, state) {
        (_, Ok(state)) => state.block.is_some_and(|block| block.plaintext),
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
        Plain::Unclear(why) => unclear(&why),
    }
}

/// The wire says it, or the server when it is asked.
async fn by_flags(world: &World, subject: &Subject) -> Plaintext {
    let seen = prove::plaintext(world, subject).await;
    let enforces = subject.observed.desired.mode.enforces();
    let refused = Plaintext::Refused { ours: enforces };
    match seen {
        Plain::Refused => refused,
        Plain::Accepted => Plaintext::Accepted,
        Plain::NotReady(_) | Plain::Unreachable(_) => Plaintext::NotLooked,
        Plain::Unclear(why) => match ask(world, subject).await {
            None => unclear(&why),
            Some(Ok(Answer::Yes)) => refused,
            Some(Ok(Answer::AsItsCommandSays)) if enforces => refused,
            Some(Ok(Answer::No | Answer::AsItsCommandSays)) => Plaintext::Accepted,
            Some(Err(why)) => {
                Plaintext::Unknown(format!("the server cannot be asked whether it refuses plaintext: {why}"))
            }
        },
    }
}

fn unclear(why: &str) -> Plaintext {
    Plaintext::Unknown(format!("the server's answer to plaintext is unclear: {why}"))
}

/// Makes the server refuse plaintext, and sees it refused.
pub async fn enforce(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    match subject.spec.enforcement() {
        Enforcement::Rules => {
            // Whoever had to have a certificate until now has to until somebody says otherwise.
            let block = |state: &rules::State| Block { plaintext: true, certificates: state.demands };
            rules::set(world, &subject.inside, block).await?;
        }
        Enforcement::Flags => tell(world, subject.spec, &subject.inside, Order::RefusePlaintext).await?,
    }
    let end = Instant::now() + TAKES_EFFECT;
    loop {
        match admission(world, subject).await.0 {
            Plaintext::Refused { .. } => return Ok(()),
            seen if Instant::now() >= end => return Err(EnforceError::NoEffect(seen)),
            _ => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Takes back what made the server refuse plaintext.
pub async fn relax(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    match subject.spec.enforcement() {
        Enforcement::Rules => rules::set(world, &subject.inside, |_| Block::default()).await,
        Enforcement::Flags => Err(EnforceError::NoWay(subject.spec.engine())),
    }
}

/// Makes the server take up the files in its directory.
pub async fn reload(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    tell(world, subject.spec, &subject.inside, Order::Reload).await
}

async fn tell(world: &World, spec: &dyn Spec, inside: &Inside, order: Order) -> Result<(), EnforceError> {
    let script = spec.order(order, &inside.command, &inside.environment);
    let output = run(world, inside, script.ok_or(EnforceError::NoWay(spec.engine()))?).await?;
    Ok(parse_done(view(&output))?)
}

/// `None` if there is no way to ask.
async fn ask(world: &World, subject: &Subject) -> Option<Result<Answer, EnforceError>> {
    let inside = &subject.inside;
    let script = subject.spec.order(Order::RefusesPlaintext, &inside.command, &inside.environment)?;
    let asked = async { Ok(parse_answer(view(&run(world, inside, script).await?))?) };
    Some(asked.await)
}

async fn run(world: &World, inside: &Inside, script: ExecScript) -> Result<docker::ExecOutput, DockerError> {
    let user = format!("{}:{}", inside.user.uid, inside.user.gid);
    let exec = Exec {
        user: &user,
        argv: &script.argv,
        stdin: script.stdin.as_ref().map(Secret::expose),
        limit: script.output_limit + 1,
        deadline: SCRIPT,
    };
    world.docker.exec(&inside.id, exec).await
}

fn view(output: &docker::ExecOutput) -> ExecOutput<'_> {
    ExecOutput { exit_code: output.code, stdout: &output.stdout, stderr: &output.stderr }
}
