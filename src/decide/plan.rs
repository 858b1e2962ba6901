//! What to do with one database, and why: an ordered list of checks over what was observed.
//!
//! The plan is the dry run. It prints itself; `dbssl plan`, the log and the tests all use that text.

use std::{collections::BTreeSet, fmt};

use time::OffsetDateTime;

use super::gates::Refusal;
use crate::{
    model::{Desired, Redeploy, Sans},
    pki::{Certificate, renewal_at},
};

/// What was seen of a database that is ours.
#[derive(Clone, Debug)]
pub struct Observed {
    pub desired: Desired,
    /// The container's name, which fixes the jitter of its renewal.
    pub container: String,
    /// What the certificate has to name.
    pub names: Sans,
    /// The root (or intermediate) that issues now.
    pub issuer: Certificate,
    pub wiring: Wiring,
    pub directory: Directory,
    pub life: Life,
    /// What a client that connects now is served; only looked at when the database is [`Life::Ready`].
    pub serving: Serving,
    pub plaintext: Plaintext,
}

/// Whether the container is made to serve TLS from its certificate directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wiring {
    Present,
    /// Can be added; the gates have nothing against it.
    Missing,
    /// Cannot be added, for all these reasons.
    Refused(Vec<Refusal>),
    /// Somebody else configured TLS: theirs. Names what says so.
    Foreign(Vec<String>),
}

/// What the certificate directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    Missing,
    Damaged(Vec<String>),
    /// Leaf first. Files, owner, modes and key are right.
    Sound(Vec<Certificate>),
}

/// Where the container stands in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// `docker run` and Compose create first and start then: never touched in between.
    Created,
    /// Stopped, paused or on its way: nothing to connect to.
    Down(&'static str),
    /// Runs, and is not ready to be judged or touched yet.
    Starting(String),
    /// A command runs in it, perhaps a backup: not to be stopped now.
    Busy(String),
    Ready,
}

/// What a handshake showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    NotLooked,
    Unreachable(String),
    /// It answers, and has no TLS.
    Plaintext,
    /// Leaf first, and whether a client of the mode accepts it.
    Tls {
        chain: Vec<Certificate>,
        verified: Result<(), String>,
    },
    Failed(String),
}

/// Whether the server takes connections without TLS from outside, and whether it is told not to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plaintext {
    NotLooked,
    Accepted,
    /// `ours`: by what dbssl wrote.
    Refused {
        ours: bool,
    },
    /// Could not be found out or cannot be arranged.
    Unknown(String),
}

/// Why a certificate is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueReason {
    First,
    Damaged(Vec<String>),
    OtherIssuer { found: String },
    Names { added: BTreeSet<String>, dropped: BTreeSet<String> },
    Due { since: OffsetDateTime },
}

/// Why the database has to be made to serve what is in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeReason {
    /// A new certificate lies there.
    Issued,
    /// It serves another certificate than the one that lies there.
    ServesOther,
    ServesPlaintext,
    Broken(String),
    Unverified(String),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Issue a certificate and swap it into the directory.
    Issue(IssueReason),
    /// Recreate the container with the wiring.
    Recreate,
    /// Make the running server take up what is in the directory: reload, and restart if that proves nothing.
    Serve(ServeReason),
    /// Make the server refuse plaintext.
    Enforce,
    /// Take back what made it refuse plaintext.
    Relax,
}

/// Why nothing is done although not all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    Life(Life),
    /// `dbssl.redeploy` forbids it.
    Policy(Redeploy),
    Unreachable(String),
}

/// The outcome of looking at one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All is as it should be; look again when the certificate is due.
    Settled {
        renew_at: OffsetDateTime,
    },
    /// To be done now, in this order.
    Act(Vec<Step>),
    /// Something would have to be done, and not now.
    Wait {
        pending: Vec<Step>,
        why: Wait,
    },
    Refuse(Vec<Refusal>),
    /// TLS that somebody else configured.
    Foreign(Vec<String>),
    /// It works, but plaintext from outside is not refused and cannot be.
    NotEnforced(String),
}

/// Decides. `allowed`: what the operator lets us do now; `dbssl apply` raises `manual` to `auto`.
pub fn plan(observed: &Observed, allowed: Redeploy, now: OffsetDateTime) -> Plan {
    match &observed.wiring {
        Wiring::Foreign(flags) => return Plan::Foreign(flags.clone()),
        Wiring::Refused(refusals) => return Plan::Refuse(refusals.clone()),
        Wiring::Present | Wiring::Missing => {}
    }
    if observed.life == Life::Created {
        return Plan::Wait { pending: Vec::new(), why: Wait::Life(Life::Created) };
    }
    let issue = issue_reason(observed, now);
    let mut steps: Vec<Step> = issue.into_iter().map(Step::Issue).collect();
    if observed.wiring == Wiring::Missing {
        steps.push(Step::Recreate);
        return match (&observed.life, allowed) {
            (_, Redeploy::Reload | Redeploy::Manual) => {
                Plan::Wait { pending: steps, why: Wait::Policy(allowed) }
            }
            (Life::Ready, Redeploy::Auto) => Plan::Act(steps),
            (life, Redeploy::Auto) => Plan::Wait { pending: steps, why: Wait::Life(life.clone()) },
        };
    }
    if !matches!(observed.life, Life::Ready | Life::Busy(_)) {
        // The directory is mended even so: a database that restarts over and over for want of its key
        // gets it this way.
        return match (steps.is_empty(), allowed) {
            (true, _) => Plan::Wait { pending: steps, why: Wait::Life(observed.life.clone()) },
            (false, Redeploy::Manual) => Plan::Wait { pending: steps, why: Wait::Policy(allowed) },
            (false, Redeploy::Auto | Redeploy::Reload) => Plan::Act(steps),
        };
    }
    if steps.is_empty() {
        match &observed.serving {
            Serving::Unreachable(why) => {
                return Plan::Wait { pending: steps, why: Wait::Unreachable(why.clone()) };
            }
            Serving::NotLooked => return unseen("what it serves has not been seen"),
            serving => steps.extend(serve_reason(serving, &observed.directory).map(Step::Serve)),
        }
    } else {
        steps.push(Step::Serve(ServeReason::Issued));
    }
    match (observed.desired.mode.enforces(), &observed.plaintext) {
        // Last, when TLS is proved: else nobody could get in.
        (true, Plaintext::Accepted | Plaintext::Refused { ours: false }) => steps.push(Step::Enforce),
        // First, for the same reason: TLS may be past mending.
        (false, Plaintext::Refused { ours: true }) => steps.insert(0, Step::Relax),
        _ => {}
    }
    if !steps.is_empty() {
        return if allowed == Redeploy::Manual {
            Plan::Wait { pending: steps, why: Wait::Policy(allowed) }
        } else {
            Plan::Act(steps)
        };
    }
    match (&observed.directory, &observed.plaintext) {
        (_, Plaintext::Unknown(why)) if observed.desired.mode.enforces() => Plan::NotEnforced(why.clone()),
        (_, Plaintext::NotLooked) if observed.desired.mode.enforces() => {
            unseen("whether it refuses plaintext has not been seen")
        }
        (Directory::Sound(chain), _) => match chain.first() {
            Some(leaf) => Plan::Settled { renew_at: renewal_at(leaf, &observed.container) },
            None => Plan::Act(vec![Step::Issue(IssueReason::First), Step::Serve(ServeReason::Issued)]),
        },
        // Anything else has given a reason to issue above.
        _ => Plan::Settled { renew_at: now },
    }
}

/// All is well only when it was seen: look again soon.
fn unseen(what: &str) -> Plan {
    Plan::Wait { pending: Vec::new(), why: Wait::Life(Life::Starting(what.to_owned())) }
}

/// The first reason to issue, in order of how plainly the certificate is of no use.
fn issue_reason(observed: &Observed, now: OffsetDateTime) -> Option<IssueReason> {
    let chain = match &observed.directory {
        Directory::Missing => return Some(IssueReason::First),
        Directory::Damaged(what) => return Some(IssueReason::Damaged(what.clone())),
        Directory::Sound(chain) => chain,
    };
    let Some(leaf) = chain.first() else { return Some(IssueReason::First) };
    if !leaf.signed_by(&observed.issuer) {
        return Some(IssueReason::OtherIssuer { found: leaf.issuer().to_owned() });
    }
    if *leaf.sans() != observed.names {
        let only = |these: &Sans, those: &Sans| these.difference(those).map(ToString::to_string).collect();
        return Some(IssueReason::Names {
            added: only(&observed.names, leaf.sans()),
            dropped: only(leaf.sans(), &observed.names),
        });
    }
    let due = renewal_at(leaf, &observed.container);
    (now >= due).then_some(IssueReason::Due { since: due })
}

fn serve_reason(serving: &Serving, directory: &Directory) -> Option<ServeReason> {
    match serving {
        Serving::NotLooked | Serving::Unreachable(_) => None,
        Serving::Plaintext => Some(ServeReason::ServesPlaintext),
        Serving::Failed(why) => Some(ServeReason::Broken(why.clone())),
        Serving::Tls { chain, verified } => {
            if !matches!(directory, Directory::Sound(held) if held == chain) {
                return Some(ServeReason::ServesOther);
            }
            verified.as_ref().err().map(|why| ServeReason::Unverified(why.clone()))
        }
    }
}

impl fmt::Display for IssueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        match self {
            Self::First => f.write_str("it has none yet"),
            Self::Damaged(what) => write!(f, "the certificate directory is damaged: {}", what.join("; ")),
            Self::OtherIssuer { found } => write!(f, "it was issued by another CA ({found})"),
            Self::Names { added, dropped } => {
                f.write_str("its names changed:")?;
                if !added.is_empty() {
                    write!(f, " now also {}", list(added))?;
                }
                if !dropped.is_empty() {
                    write!(f, "{} no longer {}", if added.is_empty() { "" } else { "," }, list(dropped))?;
                }
                Ok(())
            }
            Self::Due { since } => {
                write!(f, "two thirds of its life have passed (due since {})", minute(*since))
            }
        }
    }
}

impl fmt::Display for ServeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issued => f.write_str("a new certificate was issued"),
            Self::ServesOther => f.write_str("it serves another certificate than the one in its directory"),
            Self::ServesPlaintext => f.write_str("it is wired for TLS and does not offer it"),
            Self::Broken(why) => write!(f, "its TLS is broken: {why}"),
            Self::Unverified(why) => write!(f, "what it serves does not verify: {why}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issue(reason) => write!(f, "issue a certificate: {reason}"),
            Self::Recreate => f.write_str("recreate the container with TLS: its wiring is missing"),
            Self::Serve(reason) => write!(f, "reload the server: {reason}"),
            Self::Enforce => f.write_str("refuse plaintext: the mode demands it"),
            Self::Relax => f.write_str("accept plaintext again: the mode allows it"),
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("it is being created"),
            Self::Down(state) => write!(f, "it is {state}"),
            Self::Starting(why) => write!(f, "it is not ready yet: {why}"),
            Self::Busy(command) => write!(f, "a command runs in it ({command})"),
            Self::Ready => f.write_str("it is ready"),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Life(life) => life.fmt(f),
            Self::Policy(policy) => write!(f, "dbssl.redeploy={policy} leaves it to you: run dbssl apply"),
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |steps: &[Step]| steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        match self {
            Self::Settled { renew_at } => write!(f, "nothing to do; renewal {}", minute(*renew_at)),
            Self::Act(steps) => f.write_str(&list(steps)),
            Self::Wait { pending, why } if pending.is_empty() => write!(f, "nothing to do while {why}"),
            Self::Wait { pending, why } => write!(f, "{}; waiting, since {why}", list(pending)),
            Self::Refuse(refusals) => {
                let reasons: Vec<_> = refusals.iter().map(ToString::to_string).collect();
                write!(f, "nothing, since {}", reasons.join("; "))
            }
            Self::Foreign(flags) => {
                write!(f, "nothing: somebody else configured its TLS ({})", flags.join(" "))
            }
            Self::NotEnforced(why) => write!(f, "nothing; plaintext is not refused: {why}"),
        }
    }
}

/// A point in time for people, to the minute, UTC.
fn minute(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}
