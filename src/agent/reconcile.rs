//! One run over one container: observe, decide, apply, and look again until nothing is left to do.

use std::{path::PathBuf, time::Duration};

use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use super::{
    act::{ActError, act},
    enforce, external,
    observe::{Look, Subject, observe},
    prove::Unproved,
    redeploy::RedeployError,
    world::World,
};
use crate::{
    decide::{
        labels,
        plan::{IssueReason, Life, Plan, Step, Wait, Wiring, plan},
        queue::backoff,
    },
    engine,
    host::{certdir::CertDir, clock, docker::DockerError, journal::PARKED, setbacks},
    model::{
        ContainerId, ContainerName, Engine, Redeploy,
        inspect::{Inspect, State},
    },
    shown::with_causes,
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
    /// What is amiss with a certificate that somebody else signs.
    paper: external::Trouble,
    /// Failures in a row.
    failures: u32,
    /// Looks in a row that found it starting, and since when.
    starting: u32,
    starting_since: Option<Instant>,
    /// Whether it was last seen to serve nothing but what the CA in force issued.
    in_line: bool,
    /// When it was recreated, in the last hour.
    recreated: Vec<Instant>,
}

impl Memory {
    /// Whether nothing of a former CA is served.
    pub fn in_line(&self) -> bool {
        self.in_line
    }
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
    memory.in_line = false;
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
    let (mut authority, mut acted) = (world.authority(), 0);
    loop {
        let Some(inspect) = world.docker.inspect(name.as_str()).await? else {
            memory.in_line = true;
            return Ok(None);
        };
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
            memory.in_line = !inspect.running();
            return Ok(None);
        }
        let subject = match observe(world, inspect.clone()).await? {
            Look::NotOurs => {
                release(world, &inspect, memory).await?;
                memory.in_line = true;
                return Ok(None);
            }
            Look::Wrong(problems) => {
                say(memory, labels::in_one_line(&problems), |problems| {
                    warn!(problems, "its labels are wrong, so it is not touched: mend them");
                });
                memory.in_line = wired(world, &inspect).is_none();
                return Ok(None);
            }
            Look::Unsuitable(why) => {
                if !lasts(memory, &why) {
                    return Ok(Some(SECOND_LOOK));
                }
                say(memory, why, |why| warn!(why, "it is not touched"));
                memory.in_line = wired(world, &inspect).is_none();
                return Ok(None);
            }
            Look::Ours(subject) => subject,
        };
        let soon = external::see_to(world, &subject, &mut memory.paper);
        let allowed = if ordered { Redeploy::Auto } else { subject.observed.desired.redeploy };
        let now = clock::now();
        let plan = plan(&subject.observed, allowed, now);
        let steps = match plan {
            Plan::Act(steps) => steps,
            plan => {
                memory.in_line = in_line(&plan, &subject);
                let rest = rest(&plan, &subject, memory, now);
                return Ok(Some(soon.map_or(rest, |soon| soon.min(rest))));
            }
        };
        // Another CA has come into force meanwhile: that is for a round more.
        let now_in_force = world.authority();
        if !now_in_force.serves_as(&authority) {
            (authority, acted) = (now_in_force, 0);
        }
        if acted == ROUNDS {
            break;
        }
        acted += 1;
        (memory.starting, memory.starting_since) = (0, None);
        let held_until =
            setbacks::read(&world.roots.state, name).and_then(|setback| setback.holds_until(&id, now));
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
                tell_of_a_failed_start(&subject, &steps);
            }
            Err(error) => return Ok(Some(failed(world, name, &id, memory, &error, now))),
        }
    }
    say(memory, "what was done has not lasted: something else changes it, too".to_owned(), |why| {
        warn!(why, "find out what, and stop it");
    });
    memory.failures += 1;
    Ok(Some(backoff(memory.failures)))
}

/// Where Docker does not start it again by itself, its user has to: we do not know what else it ended for.
fn tell_of_a_failed_start(subject: &Subject, steps: &[Step]) {
    let mended =
        steps.iter().any(|step| matches!(step, Step::Issue(IssueReason::Damaged(_) | IssueReason::First)));
    let code = subject.inspect.exit_code();
    if mended && subject.inspect.state() == State::Exited && code != 0 {
        let name = subject.inspect.name();
        warn!(
            code,
            "it ended while its certificate files were damaged, which are mended now: docker start {name}"
        );
    }
}

/// What is said, if anything, where there is nothing to do now; and when to look again.
fn rest(plan: &Plan, subject: &Subject, memory: &mut Memory, now: OffsetDateTime) -> Duration {
    let starts = matches!(subject.observed.life, Life::Starting(_)) && matches!(plan, Plan::Foreign(_));
    if !starts && !matches!(plan, Plan::Wait { why: Wait::Life(Life::Starting(_)), .. }) {
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
        // Said when it answers, so that the end of its certificate is seen.
        Plan::Foreign(_)
            if starts && memory.starting_since.get_or_insert_with(Instant::now).elapsed() <= LONG_START =>
        {
            memory.starting += 1;
            starting_pause(memory.starting)
        }
        Plan::Foreign(_) => {
            say(memory, foreign(subject, plan), |plan| info!(plan, "it is left alone"));
            LONGEST
        }
        Plan::Act(_) | Plan::Wait { .. } | Plan::Refuse(_) | Plan::NotEnforced(_) => {
            if !lasts(memory, &plan.to_string()) {
                return SECOND_LOOK;
            }
            let what = match plan {
                Plan::Wait { why: Wait::Policy(_), .. } => "something is left for you to do",
                Plan::Wait { .. } => "look at its log (docker logs)",
                Plan::Refuse(_) => "it is not touched",
                _ => "look at it",
            };
            say(memory, plan.to_string(), |plan| warn!(plan, "{what}"));
            LONGEST
        }
    }
}

/// Whether nothing is served, or will be when it goes on, but what the CA in force issued.
fn in_line(plan: &Plan, subject: &Subject) -> bool {
    match plan {
        Plan::Settled { .. } | Plan::NotEnforced(_) | Plan::Foreign(_) => true,
        // Without our wiring nothing of ours is served. What is stopped begins with what lies in its directory.
        Plan::Wait { pending, .. } => {
            let stopped = matches!(subject.inspect.state(), State::Exited);
            subject.observed.wiring != Wiring::Present || stopped && pending.is_empty()
        }
        Plan::Refuse(_) => subject.observed.wiring != Wiring::Present,
        Plan::Act(_) => false,
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
    say(memory, "somebody made it anew again and again, without TLS".to_owned(), |why| {
        warn!(why, "it is not recreated for now: find out who does that (Compose, Coolify, an updater)");
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
    // That a file could not be written is half of it; why, is what somebody has to mend.
    let text = with_causes(error);
    let interrupted = was_interrupted(error);
    let stopped_it = interrupted
        || matches!(
            error,
            ActError::RolledBack(_)
                | ActError::Down(_)
                | ActError::Kept(_)
                | ActError::Open(_)
                | ActError::Restart(_)
                | ActError::Restarted(_)
                | ActError::Redeploy(RedeployError::Rehearsal(_) | RedeployError::ParkedNameTaken(_))
        );
    if !stopped_it {
        if lasts(memory, &text) {
            say(memory, text, |why| warn!(why, "not done; it will be tried again"));
        }
        // What the server refused three times it will refuse until somebody changes something.
        let waits_for_a_human = matches!(error, ActError::RestartForbidden { .. }) && memory.failures > 3;
        return if waits_for_a_human { LONGEST } else { backoff(memory.failures) };
    }
    let retry_at = match setbacks::add(&world.roots.state, name, id, text.clone(), interrupted, now) {
        Ok(setback) => setback.retry_at(id),
        Err(failure) => {
            warn!(%failure, "the setback cannot be recorded: after a restart of dbssl it is tried again at once");
            now + time::Duration::HOUR
        }
    };
    memory.said = Some(text.clone());
    if retry_at <= now {
        warn!(why = %text, "interrupted; it will be tried again");
        return until(retry_at, now);
    }
    error!(why = %text, next_try = %retry_at.replace_nanosecond(0).unwrap_or(retry_at), "not done; mend the cause, then run dbssl apply or wait");
    until(retry_at, now)
}

/// Whether Docker died in the middle: whatever was tried may be all right.
fn was_interrupted(error: &ActError) -> bool {
    match error {
        ActError::Redeploy(RedeployError::Interrupted(_)) => true,
        ActError::Restart(RedeployError::Docker(error)) | ActError::Restarted(Unproved::Docker(error)) => {
            error.engine_gone()
        }
        _ => false,
    }
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

/// A container that was ours, or of a name that was, and that is neither labelled nor matched in the config any more.
/// The rule in its `pg_hba.conf` would shut out everybody once it has no TLS: take it back. That is the only thing
/// that is ever done to it.
async fn release(world: &World, inspect: &Inspect, memory: &mut Memory) -> Result<(), DockerError> {
    let wired = wired(world, inspect);
    let directory = wired.clone().unwrap_or_else(|| world.roots.certificates(inspect.name()));
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
        .any(|listed| listed.id != *inspect.id() && listed.mounts.iter().any(|(source, _)| *source == path))
    {
        return Ok(());
    }
    external::forget(world, inspect.name());
    match enforce::release(world, inspect).await {
        Ok(true) => info!("no longer ours: took the rule of dbssl out of its pg_hba.conf"),
        Ok(false) => {}
        Err(error) => {
            warn!(%error, "no longer ours, and the rule of dbssl cannot be taken out of its pg_hba.conf: remove the block by hand");
            return Ok(());
        }
    }
    if wired.is_some() {
        // A label goes only with its container; an entry of the config goes without it.
        say(memory, "neither labelled nor matched in the config any more".to_owned(), |why| {
            warn!(
                why,
                "it goes on serving the certificate that it has, which is not renewed: recreate it without the mount and the flags of dbssl"
            );
        });
    } else if let Err(error) = CertDir::open(directory).remove() {
        warn!(error = %with_causes(&error), "its certificate directory cannot be removed");
    }
    Ok(())
}

/// The certificate directory that a container has mounted where its server reads it.
fn wired(world: &World, inspect: &Inspect) -> Option<PathBuf> {
    let command = inspect.words();
    let read_from = |path: &str| {
        Engine::ALL.into_iter().any(|engine| engine::spec(engine).certificate_directory(&command) == path)
    };
    let mounts = inspect.mounts().into_iter().filter(|mount| read_from(&mount.destination));
    mounts.map(|mount| PathBuf::from(mount.source)).find(|source| world.roots.is_certificates(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::docker::Failure;

    fn docker(failure: Failure) -> DockerError {
        DockerError { call: "start", object: "db".into(), failure }
    }

    #[test]
    fn only_what_dockers_death_ended_is_an_interruption() {
        let gone = || docker(Failure::Unreachable("connection refused".into()));
        let refused = || docker(Failure::Refused { status: 500, message: "no such file".into() });
        for interrupted in [
            ActError::Redeploy(RedeployError::Interrupted("no answer".into())),
            ActError::Restart(RedeployError::Docker(gone())),
            ActError::Restarted(Unproved::Docker(gone())),
        ] {
            assert!(was_interrupted(&interrupted), "{interrupted}");
        }
        for other in [
            ActError::RolledBack("the server offers no TLS".into()),
            ActError::Down("Docker is away".into()),
            // Before anything was begun: there is nothing to record.
            ActError::Docker(gone()),
            ActError::Redeploy(RedeployError::Docker(gone())),
            ActError::Restart(RedeployError::Docker(refused())),
            ActError::Restarted(Unproved::Stopped),
            ActError::Restarted(Unproved::Docker(refused())),
        ] {
            assert!(!was_interrupted(&other), "{other}");
        }
    }

    #[test]
    fn an_interrupted_redeploy_reads_as_one_that_was_rolled_back() {
        let why = "it was interrupted before it was proved";
        assert_eq!(
            ActError::Redeploy(RedeployError::Interrupted(why.into())).to_string(),
            ActError::RolledBack(why.into()).to_string()
        );
    }
}
