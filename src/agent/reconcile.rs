//! One run over one container: observe, decide, apply, and look again until nothing is left to do.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use super::{
    act::{ActError, act},
    enforce,
    observe::{Look, Subject, observe},
    redeploy::RedeployError,
    world::World,
};
use crate::{
    decide::{
        plan::{Life, Plan, Step, Wait, plan},
        queue::backoff,
    },
    host::{certdir::CertDir, clock, docker::DockerError, journal::PARKED, setbacks},
    model::{
        ContainerId, ContainerName, Redeploy,
        inspect::{Inspect, State},
    },
};

/// What is remembered of a container between two runs. Losing it costs a log line, nothing else.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Since when this container has been seen ready without a break.
    ready: Option<(ContainerId, Instant)>,
    /// The last thing that was said of it, so that it is said once.
    said: Option<String>,
    /// The last trouble that was seen, and is said if it lasts; for as long as the container runs without a restart.
    doubt: Option<String>,
    running_since: Option<OffsetDateTime>,
    /// Failures in a row.
    failures: u32,
    /// Looks in a row that found it starting, and since when.
    starting: u32,
    starting_since: Option<Instant>,
    /// When it was recreated, in the last hour.
    recreated: Vec<Instant>,
}

/// When to look again, at the latest. The certificate's own deadline comes by the wall clock, which is looked
/// at again at least this often: long timers sleep through suspends and changes of the clock.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a trouble has to last to be worth a word.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Rounds of one run: wiring first, then what is seen only with it. More would be a loop.
const ROUNDS: u32 = 3;
/// Recreations of one name in an hour, all of them proved, until somebody who undoes them is to be looked for.
const MOST_RECREATIONS: usize = 6;
/// How long a database may be starting until somebody is told.
const LONG_START: Duration = Duration::from_secs(600);

/// Runs once over the container of that name; what is remembered, and when to run again unless poked.
/// `ordered`: at a human's word, so that `dbssl.redeploy=manual` and earlier setbacks do not hold it back.
pub async fn reconcile(
    world: &World,
    name: &ContainerName,
    mut memory: Memory,
    ordered: bool,
) -> (Memory, Option<Duration>) {
    let span = info_span!("database", container = %name);
    let again = async {
        if ordered {
            setbacks::clear(&world.roots.state, name);
            memory.said = None;
        }
        match rounds(world, name, &mut memory, ordered).await {
            Ok(again) => again,
            Err(error) => {
                memory.failures += 1;
                if lasts(&mut memory, &error.to_string()) {
                    say(&mut memory, error.to_string(), |why| warn!(why, "cannot look after it now"));
                }
                Some(backoff(memory.failures))
            }
        }
    };
    let again = again.instrument(span).await;
    (memory, again)
}

async fn rounds(
    world: &World,
    name: &ContainerName,
    memory: &mut Memory,
    ordered: bool,
) -> Result<Option<Duration>, DockerError> {
    for _ in 0..ROUNDS {
        let Some(inspect) = world.docker.inspect(name.as_str()).await? else { return Ok(None) };
        if memory.running_since != inspect.started_at() {
            (memory.running_since, memory.doubt) = (inspect.started_at(), None);
        }
        let id = inspect.id().clone();
        if world.is_in_hand(&id) || name.as_str().ends_with(PARKED) {
            // An operation has it under another name.
            return Ok(Some(Duration::from_secs(2)).filter(|_| world.is_in_hand(&id)));
        }
        if matches!(inspect.state(), State::Created | State::Dead | State::Other) || !world.concerns(&inspect)
        {
            // Between the two calls of `docker run`, or a rehearsal of ours (its start brings us back); being removed;
            // or not ours.
            return Ok(None);
        }
        let subject = match observe(world, inspect.clone()).await? {
            Look::NotOurs => {
                release(world, &inspect).await?;
                return Ok(None);
            }
            Look::Wrong(problems) => {
                let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                say(memory, problems, |problems| {
                    warn!(problems, "its labels are wrong, so it is not touched: mend them");
                });
                return Ok(None);
            }
            Look::Unsuitable(why) => {
                if !lasts(memory, &why) {
                    return Ok(Some(SECOND_LOOK));
                }
                say(memory, why, |why| warn!(why, "it is not touched"));
                return Ok(None);
            }
            Look::Ours(subject) => subject,
        };
        let allowed = if ordered { Redeploy::Auto } else { subject.observed.desired.redeploy };
        let now = clock::now();
        let plan = plan(&subject.observed, allowed, now);
        let steps = match plan {
            Plan::Act(steps) => steps,
            plan => return Ok(Some(rest(&plan, &subject, memory, now))),
        };
        (memory.starting, memory.starting_since) = (0, None);
        let held_until = setbacks::read(&world.roots.state, name)
            .map(|setback| setback.retry_at(&id))
            .filter(|retry_at| now < *retry_at);
        if steps.contains(&Step::Recreate)
            && !ordered
            && let Some(rest) = held_back(world, memory, &id, held_until.map(|retry_at| until(retry_at, now)))
        {
            return Ok(Some(rest));
        }
        // After a restart that proved nothing: reloads only, until its time has come.
        let allowed =
            if held_until.is_some() && allowed == Redeploy::Auto { Redeploy::Reload } else { allowed };
        match act(world, &subject, &steps, allowed).await {
            Ok(()) => {
                if steps.contains(&Step::Recreate) {
                    memory.recreated.push(Instant::now());
                }
                if held_until.is_none() {
                    setbacks::clear(&world.roots.state, name);
                }
                (memory.failures, memory.said, memory.doubt) = (0, None, None);
            }
            Err(error) => return Ok(Some(failed(world, name, &id, memory, &error, now))),
        }
    }
    say(memory, "what was done has not lasted: something else changes it, too".to_owned(), |why| {
        warn!(why, "a human must look");
    });
    memory.failures += 1;
    Ok(Some(backoff(memory.failures)))
}

/// What is said, if anything, where there is nothing to do now; and when to look again.
fn rest(plan: &Plan, subject: &Subject, memory: &mut Memory, now: OffsetDateTime) -> Duration {
    if !matches!(plan, Plan::Wait { why: Wait::Life(Life::Starting(_)), .. }) {
        (memory.starting, memory.starting_since) = (0, None);
    }
    match plan {
        Plan::Settled { renew_at } => {
            if memory.said.take().is_some() {
                info!("all is well");
            }
            (memory.failures, memory.doubt) = (0, None);
            until(*renew_at, now)
        }
        Plan::Wait { why: Wait::Life(Life::Starting(why)), .. } => {
            // No event tells that a port has begun to answer: look again, less and less often.
            memory.ready = None;
            memory.starting += 1;
            if memory.starting_since.get_or_insert_with(Instant::now).elapsed() > LONG_START {
                say(memory, why.clone(), |why| {
                    warn!(why, "it has not become ready for a long time: look why");
                });
            }
            starting_pause(memory.starting)
        }
        Plan::Wait { why: Wait::Life(Life::Busy(_)), .. } => Duration::from_secs(5),
        // Its next event brings us back.
        Plan::Wait { why: Wait::Life(_), .. } => {
            memory.ready = None;
            LONGEST
        }
        Plan::Foreign(_) => {
            say(memory, foreign(subject, plan), |plan| info!(plan, "it is left alone"));
            LONGEST
        }
        Plan::Act(_) | Plan::Wait { .. } | Plan::Refuse(_) | Plan::NotEnforced(_) => {
            if !lasts(memory, &plan.to_string()) {
                return SECOND_LOOK;
            }
            say(memory, plan.to_string(), |plan| warn!(plan, "a human must look"));
            LONGEST
        }
    }
}

/// How long a recreation has to wait for, if it has: after a setback, until the container has settled, or because
/// somebody undoes it again and again.
fn held_back(
    world: &World,
    memory: &mut Memory,
    id: &ContainerId,
    setback: Option<Duration>,
) -> Option<Duration> {
    if setback.is_some() {
        return setback;
    }
    if let Some(rest) = settling(world, memory, id) {
        return Some(rest);
    }
    memory.recreated.retain(|at| at.elapsed() < LONGEST);
    if memory.recreated.len() < MOST_RECREATIONS {
        return None;
    }
    say(memory, "somebody takes the wiring away again and again".to_owned(), |why| {
        warn!(why, "it is not recreated again for now: find out who recreates the container");
    });
    Some(LONGEST)
}

/// How long the container still has to be left in peace after it became ready: whoever started it may be
/// waiting for it (`docker compose up --wait`).
fn settling(world: &World, memory: &mut Memory, id: &ContainerId) -> Option<Duration> {
    let now = Instant::now();
    let since = match &memory.ready {
        Some((ready, since)) if ready == id => *since,
        _ => {
            memory.ready = Some((id.clone(), now));
            now
        }
    };
    (since + world.settings.docker.settle).checked_duration_since(now).filter(|rest| !rest.is_zero())
}

fn failed(
    world: &World,
    name: &ContainerName,
    id: &ContainerId,
    memory: &mut Memory,
    error: &ActError,
    now: OffsetDateTime,
) -> Duration {
    memory.failures += 1;
    memory.ready = None;
    let stopped_it = matches!(
        error,
        ActError::RolledBack(_)
            | ActError::Down(_)
            | ActError::Kept(_)
            | ActError::Restart(_)
            | ActError::Restarted(_)
            | ActError::Redeploy(RedeployError::Rehearsal(_) | RedeployError::ParkedNameTaken(_))
    );
    if !stopped_it {
        if lasts(memory, &error.to_string()) {
            say(memory, error.to_string(), |why| warn!(why, "not done; it will be tried again"));
        }
        return backoff(memory.failures);
    }
    let retry_at = match setbacks::add(&world.roots.state, name, id, error.to_string(), false, now) {
        Ok(setback) => setback.retry_at(id),
        Err(failure) => {
            warn!(%failure, "the setback cannot be recorded: after a restart of dbssl it is tried again at once");
            now + time::Duration::HOUR
        }
    };
    error!(why = %error, next_try = %retry_at.replace_nanosecond(0).unwrap_or(retry_at), "not done; mend the cause, then run dbssl apply or wait");
    memory.said = Some(error.to_string());
    until(retry_at, now)
}

/// Whether a trouble was there at the look before this one, too. Its user may be stopping or removing the container at
/// this moment, and what is seen then means nothing.
fn lasts(memory: &mut Memory, trouble: &str) -> bool {
    let seen_before =
        [&memory.said, &memory.doubt].into_iter().any(|before| before.as_deref() == Some(trouble));
    memory.doubt = Some(trouble.to_owned());
    seen_before
}

/// Says a thing once, until something else is to be said.
fn say(memory: &mut Memory, text: String, tell: impl FnOnce(&str)) {
    if memory.said.as_deref() != Some(&text) {
        tell(&text);
        memory.said = Some(text);
    }
}

fn until(when: OffsetDateTime, now: OffsetDateTime) -> Duration {
    Duration::try_from(when - now).unwrap_or_default().clamp(Duration::from_secs(1), LONGEST)
}

/// 250 ms at first, up to 4 s.
fn starting_pause(looks: u32) -> Duration {
    Duration::from_millis(250 << (looks / 8).min(4))
}

/// TLS of somebody else, with its end if it could be seen.
fn foreign(subject: &Subject, plan: &Plan) -> String {
    match &subject.observed.serving {
        crate::decide::plan::Serving::Tls { chain, .. } => match chain.first() {
            Some(leaf) => format!("{plan}; its certificate is valid until {}", leaf.not_after().date()),
            None => plan.to_string(),
        },
        _ => plan.to_string(),
    }
}

/// A container of a name that was ours and is no longer labelled. The rule in its `pg_hba.conf` would shut
/// out everybody now that it has no TLS: take it back. That is the only thing that is ever done to it.
async fn release(world: &World, inspect: &Inspect) -> Result<(), DockerError> {
    let directory = world.roots.certificates(inspect.name());
    if !directory.exists() || !inspect.running() {
        return Ok(());
    }
    // Another container may have been ours under this name, and still use the directory.
    let path = directory.to_string_lossy();
    if world
        .docker
        .list("")
        .await?
        .iter()
        .any(|listed| listed.mounts.iter().any(|(source, _)| *source == path))
    {
        return Ok(());
    }
    match enforce::release(world, inspect).await {
        Ok(true) => info!("no longer labelled: took the rule of dbssl out of its pg_hba.conf"),
        Ok(false) => {}
        Err(error) => {
            warn!(%error, "no longer labelled, and the rule of dbssl cannot be taken out of its pg_hba.conf: remove the block by hand");
            return Ok(());
        }
    }
    if let Err(error) = CertDir::open(directory).remove() {
        warn!(%error, "its certificate directory cannot be removed");
    }
    Ok(())
}
