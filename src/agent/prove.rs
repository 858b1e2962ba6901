//! The proof: what a client that connects now is served, held against what was just issued.
//!
//! A proof is three things at once (a handshake alone is not one): a client's own verification over the
//! wire, our strict check of the chain as served, and the served leaf being the one in the directory.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{credential, observe::Subject, world::World};
use crate::{
    decide::plan::{Serving, serves},
    engine::Spec,
    host::{
        clock,
        docker::DockerError,
        probe::{Plain, Served, Target, Unproved as Denied},
    },
    model::{
        ContainerId, San, Sans,
        inspect::{Inspect, State},
    },
    pki::{Certificate, check_chain},
};

/// What a database has to serve.
#[derive(Clone)]
pub struct Expectation {
    pub spec: &'static dyn Spec,
    pub port: u16,
    /// Everything that the certificate has to name.
    pub names: Sans,
    /// Leaf first: what lies in the certificate directory.
    pub chain: Vec<Certificate>,
    /// Whether the probe needs a certificate of its own.
    pub presents: bool,
}

impl std::fmt::Debug for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expectation")
            .field("engine", &self.spec.engine())
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// Somebody asked Docker for its end.
    #[error("it was stopped")]
    Stopped,
    #[error("it ended with exit code {code}; its last words: {words}")]
    Exited { code: i64, words: String },
    #[error("it was removed")]
    Removed,
    /// Nobody asked for its end: a prune takes what is down.
    #[error("it ended, and was removed")]
    Pruned,
    /// `served_other`: something else than what is expected was seen, not nothing.
    #[error("no proof within {} s: {last}", limit.as_secs())]
    Deadline { limit: Duration, last: String, served_other: bool },
    #[error(transparent)]
    Docker(#[from] DockerError),
}

/// Lines of a failed container's log that are worth a log line of ours.
const LAST_WORDS: usize = 3;
/// Pause between two looks: short at first, when every look is an interruption to be ended.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long a container has to be down until it counts as ended.
const DOWN_FOR_GOOD: Duration = Duration::from_millis(1500);
/// How often one that somebody stopped is looked at, until it counts as stopped.
const LOOKS_AT_STOPPED: u32 = 6;
/// How long a database that says that it is starting is waited for.
const LONGEST_RECOVERY: Duration = Duration::from_secs(3600);

/// Looks until the database serves what is expected, or it is plain that it will not. `since`: when it was
/// started, or taken up.
pub async fn until_proved(
    world: &World,
    id: &ContainerId,
    since: OffsetDateTime,
    expectation: &Expectation,
    limit: Duration,
) -> Result<(), Unproved> {
    let start = Instant::now();
    let mut end = start + limit;
    let mut pause = PAUSES.0;
    let mut looks_down = 0;
    loop {
        let Some(inspect) = world.docker.inspect(id.as_str()).await? else {
            let stopped = world.docker.was_stopped(id, since, clock::now()).await?;
            return Err(if stopped { Unproved::Removed } else { Unproved::Pruned });
        };
        let down = !inspect.running() && !matches!(inspect.state(), State::Created | State::Restarting);
        if down {
            if looks_down > 0 {
                let why = ended(world, &inspect, since).await?;
                // Nobody waits for one that its user stopped, and a restart can take its time.
                if !matches!(why, Unproved::Stopped) || looks_down == LOOKS_AT_STOPPED {
                    return Err(why);
                }
            }
            // It may be in the gap of a `docker restart`.
            looks_down += 1;
            tokio::time::sleep(DOWN_FOR_GOOD).await;
            continue;
        }
        looks_down = 0;
        let sight = Sight {
            spec: expectation.spec,
            port: expectation.port,
            names: &expectation.names,
            presents: expectation.presents,
        };
        let seen = look(world, &inspect, sight).await;
        let Some(last) = unproved(&seen, expectation) else { return Ok(()) };
        if matches!(seen, Serving::Starting(_)) {
            // A database that recovers after a crash speaks, and says that it is at it: that is no failure.
            end = (Instant::now() + limit).min(start + LONGEST_RECOVERY.max(limit));
        }
        if Instant::now() + pause >= end {
            let served_other = match &seen {
                Serving::Unreachable(_) | Serving::Starting(_) | Serving::NotLooked => false,
                Serving::Tls { chain, .. } => !serves(chain, &expectation.chain),
                Serving::Plaintext | Serving::Failed(_) => true,
            };
            return Err(Unproved::Deadline { limit: start.elapsed(), last, served_other });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

/// What keeps `seen` from being the proof; `None` if it is one.
fn unproved(seen: &Serving, expectation: &Expectation) -> Option<String> {
    match seen {
        Serving::NotLooked => Some("it was not looked at".to_owned()),
        Serving::Unreachable(why) => Some(format!("it cannot be reached: {why}")),
        Serving::Starting(why) => Some(format!("it is still starting: {why}")),
        Serving::Plaintext => Some("the server offers no TLS".to_owned()),
        Serving::Failed(why) => Some(format!("the TLS handshake failed: {why}")),
        Serving::Tls { chain, .. } if !serves(chain, &expectation.chain) => {
            Some("it serves another certificate than the one that was issued".to_owned())
        }
        Serving::Tls { verified, .. } => verified.clone().err(),
    }
}

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    pub spec: &'static dyn Spec,
    pub port: u16,
    pub names: &'a Sans,
    /// Whether the probe shows a certificate of its own: without need it does not, as a server that trusts another CA
    /// would turn it away.
    pub presents: bool,
}

/// One look: the handshake, a verifying client's handshake, and the strict check of the chain.
pub async fn look(world: &World, inspect: &Inspect, sight: Sight<'_>) -> Serving {
    let limit = world.settings.docker.probe_timeout;
    let (names, identity) = (sight.names, sight.presents.then(|| credential::identity(world)).flatten());
    let target = Target { identity, ..target(inspect, sight.spec, sight.port, names) };
    let chain = match world.probe.handshake(&target, limit).await {
        Served::Unreachable(why) => return Serving::Unreachable(why),
        Served::NotReady(why) => return Serving::Starting(why),
        Served::Plaintext => return Serving::Plaintext,
        Served::Failed(why) => return Serving::Failed(why),
        Served::Tls { ready: false, .. } => return Serving::Starting("it takes no sessions yet".to_owned()),
        Served::Tls { chain, ready: true } => chain,
    };
    let chain: Result<Vec<_>, _> = chain.into_iter().map(|der| Certificate::from_der(der.to_vec())).collect();
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => return Serving::Failed(format!("it serves something that is no certificate: {error}")),
    };
    match verify(world, &target, &chain, names, clock::now()).await {
        Ok(verified) => Serving::Tls { chain, verified },
        Err(why) => Serving::Unreachable(why),
    }
}

/// Whether a verifying client takes what is served; the outer error is that it got nowhere.
async fn verify(
    world: &World,
    target: &Target,
    chain: &[Certificate],
    names: &Sans,
    now: OffsetDateTime,
) -> Result<Result<(), String>, String> {
    let authority = world.authority();
    // Each root alone has to be enough: a client may know just one of them.
    for root in &authority.verifiers(chain) {
        if let Err(problem) = check_chain(chain, std::slice::from_ref(root), names, now) {
            return Ok(Err(problem.to_string()));
        }
        let anchor = CertificateDer::from(root.der());
        match world.probe.verifies(target, &[anchor], now, world.settings.docker.probe_timeout).await {
            Ok(_) => {}
            Err(error @ (Denied::Rejected(_) | Denied::BadName(_) | Denied::BadRoot(_))) => {
                return Ok(Err(error.to_string()));
            }
            // The handshake before this one went well: the server is going down, or is overloaded.
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Ok(()))
}

/// Whether a client from outside gets in without TLS.
pub async fn plaintext(world: &World, subject: &Subject) -> Plain {
    let target = target(&subject.inspect, subject.spec, subject.plaintext_port, &Sans::new());
    world.probe.plaintext(&target, world.settings.docker.probe_timeout).await
}

/// Whether a client from outside gets in by TLS, with a certificate of ours or without any.
pub async fn admits(world: &World, subject: &Subject, presents: bool) -> Plain {
    let identity = presents.then(|| credential::identity(world)).flatten();
    if presents && identity.is_none() {
        return Plain::Unclear("the probe has no certificate".to_owned());
    }
    let target =
        Target { identity, ..target(&subject.inspect, subject.spec, subject.port, &subject.observed.names) };
    world.probe.admits(&target, world.settings.docker.probe_timeout).await
}

fn target(inspect: &Inspect, spec: &'static dyn Spec, port: u16, names: &Sans) -> Target {
    Target {
        addresses: inspect.own_addresses(port),
        published: inspect.published_addresses(port),
        preamble: spec.preamble(),
        name: shown_name(inspect, names),
        identity: None,
    }
}

/// The name to verify over the wire: the container's own if the certificate has it. All names are checked in
/// the chain itself.
fn shown_name(inspect: &Inspect, names: &Sans) -> Option<San> {
    let own = San::Dns(inspect.name().as_str().to_ascii_lowercase());
    if names.contains(&own) { Some(own) } else { names.iter().next().cloned() }
}

/// Why a container that ended did so, in its own words, without what may be a password.
async fn ended(world: &World, inspect: &Inspect, since: OffsetDateTime) -> Result<Unproved, DockerError> {
    if world.docker.was_stopped(inspect.id(), since, clock::now()).await? {
        return Ok(Unproved::Stopped);
    }
    let code = inspect.exit_code();
    let lines = world.docker.last_lines(inspect.id(), LAST_WORDS).await.unwrap_or_default();
    let command = inspect.command();
    let behind = |option: &String| option.contains("pass") || option.contains("auth");
    let of_command = command.windows(2).filter(|pair| behind(&pair[0])).map(|pair| pair[1].clone());
    let of_environment = inspect.environment().into_values();
    let secrets: Vec<String> = of_environment.chain(of_command).filter(|value| value.len() >= 4).collect();
    let words = lines.iter().map(|line| presentable(line, &secrets)).collect::<Vec<_>>().join(" | ");
    Ok(Unproved::Exited { code, words: if words.is_empty() { "none".to_owned() } else { words } })
}

/// A line of somebody else's log: cut, without control characters, and without any value of the environment.
fn presentable(line: &str, secrets: &[String]) -> String {
    const LONGEST: usize = 200;
    let mut line = line.to_owned();
    for secret in secrets {
        line = line.replace(secret.as_str(), "***");
    }
    line.chars().filter(|char| !char.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_hold_no_secret_and_no_control_character() {
        let line = format!("\u{1b}[31mFATAL: password hunter2 refused\r{}", "x".repeat(300));
        let shown = presentable(&line, &["hunter2".to_owned()]);
        assert!(shown.starts_with("[31mFATAL: password *** refusedxxx"), "{shown}");
        assert_eq!(shown.chars().count(), 200);
    }
}
