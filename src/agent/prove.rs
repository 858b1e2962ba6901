//! The proof: what a client that connects now is served, held against what was just issued.
//!
//! A proof is three things at once (a handshake alone is not one): a client's own verification over the
//! wire, our strict check of the chain as served, and the served leaf being the one in the directory.

use std::{net::SocketAddr, time::Duration};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::world::World;
use crate::{
    decide::plan::Serving,
    engine::Spec,
    host::{
        clock,
        docker::DockerError,
        probe::{self, Plain, Served, Target},
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
    let mut was_down = false;
    loop {
        let inspect = world.docker.inspect(id.as_str()).await?.ok_or(Unproved::Removed)?;
        let down = !inspect.running() && !matches!(inspect.state(), State::Created | State::Restarting);
        if down && was_down {
            return Err(ended(world, &inspect, since).await?);
        }
        if down {
            // It may be in the gap of a `docker restart`.
            was_down = true;
            tokio::time::sleep(DOWN_FOR_GOOD).await;
            continue;
        }
        was_down = false;
        let seen = look(world, &inspect, expectation.spec, expectation.port, &expectation.names).await;
        let Some(last) = unproved(&seen, expectation) else { return Ok(()) };
        if matches!(seen, Serving::Starting(_)) {
            // A database that recovers after a crash speaks, and says that it is at it: that is no failure.
            end = (Instant::now() + limit).min(start + LONGEST_RECOVERY.max(limit));
        }
        if Instant::now() + pause >= end {
            let served_other = match &seen {
                Serving::Unreachable(_) | Serving::Starting(_) | Serving::NotLooked => false,
                Serving::Tls { chain, .. } => *chain != expectation.chain,
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
        Serving::Tls { chain, .. } if *chain != expectation.chain => {
            Some("it serves another certificate than the one that was issued".to_owned())
        }
        Serving::Tls { verified, .. } => verified.clone().err(),
    }
}

/// One look: the handshake, a verifying client's handshake, and the strict check of the chain.
pub async fn look(
    world: &World,
    inspect: &Inspect,
    spec: &'static dyn Spec,
    port: u16,
    names: &Sans,
) -> Serving {
    let limit = world.settings.docker.probe_timeout;
    let target = target(inspect, spec, port, names);
    let chain = match probe::handshake(&target, limit).await {
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
    let roots = world.authority().roots.clone();
    if let Err(problem) = check_chain(chain, &roots, names, now) {
        return Ok(Err(problem.to_string()));
    }
    let anchors: Vec<_> = roots.iter().map(|root| CertificateDer::from(root.der())).collect();
    let verified = probe::verifies(target, &anchors, now, world.settings.docker.probe_timeout).await;
    match verified {
        Ok(_) => Ok(Ok(())),
        Err(
            error
            @ (probe::Unproved::Rejected(_) | probe::Unproved::BadName(_) | probe::Unproved::BadRoot(_)),
        ) => Ok(Err(error.to_string())),
        // The handshake before this one went well: the server is going down, or is overloaded.
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a client from outside gets in without TLS.
pub async fn plaintext(world: &World, inspect: &Inspect, spec: &'static dyn Spec, port: u16) -> Plain {
    probe::plaintext(&target(inspect, spec, port, &Sans::new()), world.settings.docker.probe_timeout).await
}

fn target(inspect: &Inspect, spec: &'static dyn Spec, port: u16, names: &Sans) -> Target {
    Target {
        addresses: addresses(inspect, port),
        preamble: spec.preamble(),
        name: shown_name(inspect, names),
    }
}

fn addresses(inspect: &Inspect, port: u16) -> Vec<SocketAddr> {
    inspect.addresses(port)
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
    let secrets: Vec<String> = inspect.environment().into_values().filter(|value| value.len() >= 4).collect();
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
