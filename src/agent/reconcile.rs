//! One run over one container: observe, decide, apply, and look again until nothing is left to do.

use std::{path::Path, time::Duration};

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
    host::{
        certdir::CertDir,
        clock,
        docker::DockerError,
        setbacks::{self, Setback},
    },
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
    /// Failures in a row.
    failures: u32,
    /// Looks in a row that found it starting.
    starting: u32,
}

/// When to look again, at the latest. The certificate's own deadline comes by the wall clock, which is looked
/// at again at least this often: long timers sleep through suspends and changes of the clock.
const LONGEST: Duration = Duration::from_secs(3600);
/// Rounds of one run: wiring first, then what is seen only with it. More would be a loop.
const ROUNDS: u32 = 3;

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
                say(&mut memory, error.to_string(), |why| warn!(why, "cannot look after it now"));
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
        let id = inspect.id().clone();
        if matches!(inspect.state(), State::Created | State::Dead | State::Other) || !world.concerns(&inspect)
        {
            // Between the two calls of `docker run`, or a rehearsal of ours (its start brings us back); being removed;
            // or not ours.
            return Ok(None);
        }
        let subject = match observe(world, inspect.clone()).await? {
            Look::NotOurs => {
                release(world, &inspect).await;
                return Ok(None);
            }
            Look::Wrong(problems) => {
                let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                say(memory, problems, |problems| {
                    warn!(problems, "its labels are wrong, so it is not touched: mend them");
                });
                return Ok(None);
            }
            Look::Unsuitable(_) if outdated(world, &inspect).await? => return Ok(Some(LONGEST)),
            Look::Unsuitable(why) => {
                say(memory, why, |why| warn!(why, "it is not touched"));
                return Ok(None);
            }
            Look::Ours(subject) => subject,
        };
        let allowed = if ordered { Redeploy::Auto } else { subject.observed.desired.redeploy };
        let now = clock::now();
        let plan = plan(&subject.observed, allowed, now);
        if !matches!(plan, Plan::Wait { why: Wait::Life(Life::Starting(_)), .. }) {
            memory.starting = 0;
        }
        let steps = match plan {
            Plan::Act(steps) => steps,
            Plan::Settled { renew_at } => {
                if memory.said.take().is_some() {
                    info!("all is well");
                }
                memory.failures = 0;
                return Ok(Some(until(renew_at, now)));
            }
            Plan::Wait { why: Wait::Life(Life::Starting(_)), .. } => {
                // No event tells that a port has begun to answer: look again, less and less often.
                memory.ready = None;
                memory.starting += 1;
                return Ok(Some(starting_pause(memory.starting)));
            }
            Plan::Wait { why: Wait::Life(Life::Busy(_)), .. } => return Ok(Some(Duration::from_secs(5))),
            // Its next event brings us back.
            Plan::Wait { why: Wait::Life(_), .. } => {
                memory.ready = None;
                return Ok(Some(LONGEST));
            }
            Plan::Wait { .. } | Plan::Refuse(_) | Plan::NotEnforced(_) => {
                if outdated(world, &inspect).await? {
                    return Ok(Some(LONGEST));
                }
                say(memory, plan.to_string(), |plan| warn!(plan, "a human must look"));
                return Ok(Some(LONGEST));
            }
            Plan::Foreign(_) => {
                let text = foreign(&subject, &plan);
                say(memory, text, |plan| info!(plan, "it is left alone"));
                return Ok(Some(LONGEST));
            }
        };
        let held_until = setbacks::read(&world.roots.state, name)
            .map(|setback| setback.retry_at(&id))
            .filter(|retry_at| now < *retry_at);
        if steps.contains(&Step::Recreate) && !ordered {
            if let Some(retry_at) = held_until {
                return Ok(Some(until(retry_at, now)));
            }
            if let Some(rest) = settling(world, memory, &id) {
                return Ok(Some(rest));
            }
        }
        // After a restart that proved nothing: reloads only, until its time has come.
        let allowed =
            if held_until.is_some() && allowed == Redeploy::Auto { Redeploy::Reload } else { allowed };
        match act(world, &subject, &steps, allowed).await {
            Ok(()) => {
                if held_until.is_none() {
                    setbacks::clear(&world.roots.state, name);
                }
                (memory.failures, memory.said) = (0, None);
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

/// Whether its user stopped, removed or replaced it while it was being looked at. What was seen then means nothing,
/// and the event of it brings us back.
async fn outdated(world: &World, seen: &Inspect) -> Result<bool, DockerError> {
    let now = world.docker.inspect(seen.name().as_str()).await?;
    let started_at = |inspect: &Inspect| inspect.raw()["State"]["StartedAt"].clone();
    Ok(now.is_none_or(|now| {
        now.id() != seen.id() || now.state() != seen.state() || started_at(&now) != started_at(seen)
    }))
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
            | ActError::Unproved(_)
            | ActError::Redeploy(RedeployError::Rehearsal(_))
    );
    if !stopped_it {
        say(memory, error.to_string(), |why| warn!(why, "not done; it will be tried again"));
        return backoff(memory.failures);
    }
    let attempt = setbacks::read(&world.roots.state, name)
        .filter(|setback| setback.container == *id)
        .map_or(1, |setback| setback.attempt.saturating_add(1));
    let setback = Setback { container: id.clone(), why: error.to_string(), at: now, attempt };
    if let Err(error) = setbacks::write(&world.roots.state, name, &setback) {
        warn!(%error, "the setback cannot be recorded: after a restart of dbssl it is tried again at once");
    }
    let retry_at = setback.retry_at(id);
    error!(why = %error, next_try = %retry_at.replace_nanosecond(0).unwrap_or(retry_at), "not done; mend the cause, then run dbssl apply or wait");
    memory.said = Some(error.to_string());
    until(retry_at, now)
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
async fn release(world: &World, inspect: &Inspect) {
    let directory = world.roots.certificates(inspect.name());
    let mounted = inspect.mounts().iter().any(|mount| directory.as_path() == Path::new(&mount.source));
    if !directory.exists() || !inspect.running() || mounted {
        return;
    }
    match enforce::release(world, inspect).await {
        Ok(true) => info!("no longer labelled: took the rule of dbssl out of its pg_hba.conf"),
        Ok(false) => {}
        Err(error) => {
            warn!(%error, "no longer labelled, and the rule of dbssl cannot be taken out of its pg_hba.conf: remove the block by hand");
            return;
        }
    }
    if let Err(error) = CertDir::open(directory).remove() {
        warn!(%error, "its certificate directory cannot be removed");
    }
}
