//! What to do with one database, and why: an ordered list of checks over what was observed.
//!
//! The plan is the dry run. It prints itself; `dbssl plan`, the log and the tests all use that text.

use std::{collections::BTreeSet, fmt};

use time::OffsetDateTime;

use super::{external::External, gates::Refusal};
use crate::{
    model::{ClientAuth, Desired, Redeploy, Sans},
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
    /// What has to follow the leaf.
    pub upper: Vec<Certificate>,
    /// What a CA has to do with it whose key is elsewhere.
    pub external: External,
    pub wiring: Wiring,
    pub directory: Directory,
    pub life: Life,
    /// What a client that connects now is served; only looked at when the database is [`Life::Ready`].
    pub serving: Serving,
    pub plaintext: Plaintext,
    pub strangers: Strangers,
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
    /// It answers that it is not ready: it recovers, or shuts down.
    Starting(String),
    /// It answers, and has no TLS.
    Plaintext,
    /// Leaf first, and whether a client of the mode accepts it.
    Tls {
        chain: Vec<Certificate>,
        verified: Result<(), String>,
    },
    Failed(String),
}

/// Whether what is served is what lies in the directory. Roots behind it do no harm: OpenSSL adds them by itself where
/// the server was given a CA file and its leaf alone.
pub fn serves(served: &[Certificate], held: &[Certificate]) -> bool {
    served.strip_prefix(held).is_some_and(|more| more.iter().all(Certificate::self_signed))
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

/// Whether the server takes clients who come by TLS and have no certificate; only looked at where they are to be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strangers {
    NotLooked,
    Accepted,
    /// `ours`: by what dbssl wrote.
    Refused {
        ours: bool,
    },
    /// By what dbssl wrote, and nobody asks for that any more.
    RefusedWithoutNeed,
    /// Could not be found out or cannot be arranged.
    Unknown(String),
}

/// Whom the server lets in although its operator wants him refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lenience {
    Plaintext(String),
    Strangers(String),
}

/// Why a certificate is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueReason {
    First,
    Damaged(Vec<String>),
    OtherIssuer {
        found: String,
    },
    /// It came back signed by somebody else.
    Signed {
        by: String,
    },
    /// What somebody else signed cannot be served any longer; another of its kind has not come.
    FallsBack {
        from: String,
        why: String,
    },
    /// Of what somebody else signed: what lies beside it is of a former CA of ours.
    Beside,
    /// What has to follow the leaf is not what it was: a former CA's overlap began or ended.
    OtherChain,
    Names {
        added: BTreeSet<String>,
        dropped: BTreeSet<String>,
    },
    /// What is served is what lies in the directory, and clients do not accept it.
    Unverified(String),
    Due {
        since: OffsetDateTime,
    },
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
    /// Make the server refuse clients that have no certificate.
    Demand,
    /// Take back what made it refuse them.
    Excuse,
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
    /// It works, but somebody from outside is not refused and cannot be.
    NotEnforced(Lenience),
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
        return if steps.is_empty() {
            Plan::Wait { pending: steps, why: Wait::Life(observed.life.clone()) }
        } else {
            Plan::Act(steps)
        };
    }
    if steps.is_empty() {
        match &observed.serving {
            Serving::Unreachable(why) | Serving::Starting(why) => {
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
    let demands = observed.desired.client_auth == ClientAuth::Required;
    match &observed.strangers {
        Strangers::Accepted | Strangers::Refused { ours: false } if demands => steps.push(Step::Demand),
        // That takes back everything.
        Strangers::RefusedWithoutNeed if steps.first() == Some(&Step::Relax) => {}
        Strangers::RefusedWithoutNeed => steps.insert(0, Step::Excuse),
        _ => {}
    }
    if !steps.is_empty() {
        let mut allowed_steps = steps.clone();
        if allowed == Redeploy::Manual {
            // It stops nothing, and nobody must be needed for a certificate not to end, or for a CA to be replaced.
            allowed_steps.retain(|step| matches!(step, Step::Issue(_) | Step::Serve(_)));
        }
        return if allowed_steps.is_empty() {
            Plan::Wait { pending: steps, why: Wait::Policy(allowed) }
        } else {
            Plan::Act(allowed_steps)
        };
    }
    match (&observed.directory, &observed.plaintext) {
        (_, Plaintext::Unknown(why)) if observed.desired.mode.enforces() => {
            Plan::NotEnforced(Lenience::Plaintext(why.clone()))
        }
        (_, Plaintext::NotLooked) if observed.desired.mode.enforces() => {
            unseen("whether it refuses plaintext has not been seen")
        }
        _ if demands && observed.strangers == Strangers::NotLooked => {
            unseen("whether it refuses clients without a certificate has not been seen")
        }
        _ if demands && let Strangers::Unknown(why) = &observed.strangers => {
            Plan::NotEnforced(Lenience::Strangers(why.clone()))
        }
        (Directory::Sound(chain), _) => match (chain.first(), &observed.external.held) {
            (_, Some(held)) => {
                let next = if now < held.renew_at { held.renew_at } else { held.falls_back_at };
                Plan::Settled { renew_at: next }
            }
            (Some(leaf), None) => Plan::Settled { renew_at: renewal_at(leaf, &observed.container) },
            (None, None) => {
                Plan::Act(vec![Step::Issue(IssueReason::First), Step::Serve(ServeReason::Issued)])
            }
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
    let external = &observed.external;
    if let Some(last) = external.answer.as_ref().and_then(|answer| answer.last()) {
        return Some(IssueReason::Signed { by: last.issuer().to_owned() });
    }
    let chain = match &observed.directory {
        Directory::Missing => return Some(IssueReason::First),
        Directory::Damaged(what) => return Some(IssueReason::Damaged(what.clone())),
        Directory::Sound(chain) => chain,
    };
    let Some(leaf) = chain.first() else { return Some(IssueReason::First) };
    if let Some(held) = &external.held {
        if let Some(why) = &held.problem {
            return Some(IssueReason::FallsBack { from: held.signer.clone(), why: why.clone() });
        }
        // Nobody is asked for another any more: it is our turn.
        let due = (!external.asked && now >= held.renew_at).then_some(held.renew_at);
        return unverified(observed, chain)
            .or(due.map(|since| IssueReason::Due { since }))
            .or(external.stale.then_some(IssueReason::Beside));
    }
    if !leaf.signed_by(&observed.issuer) {
        return Some(IssueReason::OtherIssuer { found: leaf.issuer().to_owned() });
    }
    if chain[1..] != observed.upper {
        return Some(IssueReason::OtherChain);
    }
    if *leaf.sans() != observed.names {
        let only = |these: &Sans, those: &Sans| these.difference(those).map(ToString::to_string).collect();
        return Some(IssueReason::Names {
            added: only(&observed.names, leaf.sans()),
            dropped: only(leaf.sans(), &observed.names),
        });
    }
    if now < leaf.not_before() {
        // The clock was ahead when it was issued.
        let why = format!("it is valid only from {} on", minute(leaf.not_before()));
        return Some(IssueReason::Unverified(why));
    }
    let due = renewal_at(leaf, &observed.container);
    unverified(observed, chain).or((now >= due).then_some(IssueReason::Due { since: due }))
}

fn unverified(observed: &Observed, held: &[Certificate]) -> Option<IssueReason> {
    match &observed.serving {
        Serving::Tls { chain, verified: Err(why) } if serves(chain, held) => {
            Some(IssueReason::Unverified(why.clone()))
        }
        _ => None,
    }
}

fn serve_reason(serving: &Serving, directory: &Directory) -> Option<ServeReason> {
    match serving {
        Serving::NotLooked | Serving::Unreachable(_) | Serving::Starting(_) => None,
        Serving::Plaintext => Some(ServeReason::ServesPlaintext),
        Serving::Failed(why) => Some(ServeReason::Broken(why.clone())),
        Serving::Tls { chain, .. } => {
            // What is served as it should be, and does not verify, is a reason to issue, not to serve.
            let other = !matches!(directory, Directory::Sound(held) if serves(chain, held));
            other.then_some(ServeReason::ServesOther)
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
            Self::Signed { by } => write!(f, "it came back signed by {by}"),
            Self::FallsBack { from, why } => {
                write!(f, "the one that {from} signed can be served no longer: {why}")
            }
            Self::Beside => f.write_str("it stays, and what lies beside it is of a former CA"),
            Self::OtherChain => f.write_str("the chain behind it has changed: a former CA comes or goes"),
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
            Self::Unverified(why) => write!(f, "clients do not accept what it serves: {why}"),
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
            Self::Demand => f.write_str("refuse clients without a certificate: dbssl.client-auth demands it"),
            Self::Excuse => f.write_str("accept clients without a certificate again"),
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
            Self::NotEnforced(Lenience::Plaintext(why)) => {
                write!(f, "nothing; plaintext is not refused: {why}")
            }
            Self::NotEnforced(Lenience::Strangers(why)) => {
                write!(f, "nothing; clients without a certificate are not refused: {why}")
            }
        }
    }
}

/// A point in time for people, to the minute, UTC.
pub fn minute(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}
