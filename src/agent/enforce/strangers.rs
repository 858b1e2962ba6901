//! Clients that come by TLS and have no certificate: whether they get in, and how a PostgreSQL is made to refuse them.
//! What the others do follows from their command.

use tokio::time::Instant;

use super::{BETWEEN_LOOKS, EnforceError, TAKES_EFFECT, rules};
use crate::{
    agent::{observe::Subject, prove, world::World},
    decide::plan::Strangers,
    engine::{Certificates, pg_hba::Block},
    host::probe::Plain,
};

pub(super) async fn by_rules(
    world: &World,
    subject: &Subject,
    state: &Result<rules::State, EnforceError>,
) -> Strangers {
    let wanted = subject.demand.requires_certificates();
    let state = match state {
        Ok(state) if !wanted && state.demands => return Strangers::RefusedWithoutNeed,
        _ if !wanted => return Strangers::NotLooked,
        Ok(state) => state,
        Err(why) => return Strangers::Unknown(format!("pg_hba.conf cannot be managed: {why}")),
    };
    if let Some(why) = state.cannot_demand.as_ref().filter(|_| !state.demands) {
        return Strangers::Unknown(why.to_string());
    }
    match prove::admits(world, subject, false).await {
        Plain::Refused => Strangers::Refused { ours: state.block.is_some_and(|block| block.certificates) },
        Plain::Accepted => Strangers::Accepted,
        Plain::NotReady(_) | Plain::Unreachable(_) => Strangers::NotLooked,
        Plain::Unclear(why) => Strangers::Unknown(format!("the server's answer is unclear: {why}")),
    }
}

pub(super) async fn by_flags(world: &World, subject: &Subject) -> Strangers {
    let looks = subject.spec.certificates() == Certificates::Flags && subject.demand.requires_certificates();
    if !looks {
        return Strangers::NotLooked;
    }
    match prove::admits(world, subject, false).await {
        Plain::Refused => Strangers::Refused { ours: true },
        Plain::NotReady(_) | Plain::Unreachable(_) => Strangers::NotLooked,
        Plain::Accepted => Strangers::Unknown(
            "its command says so, and somebody told the running server otherwise: restart it".to_owned(),
        ),
        Plain::Unclear(why) => Strangers::Unknown(format!("the server's answer is unclear: {why}")),
    }
}

/// Makes the server refuse clients without a certificate, and sees one refused, and one with a certificate let in as
/// before. Else the rule is taken back: it might shut out everybody.
pub async fn demand(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    if subject.spec.certificates() != Certificates::Rules {
        return Err(EnforceError::NoWay(subject.spec.engine()));
    }
    let before = prove::admits(world, subject, true).await;
    let plaintext = subject.observed.desired.mode.enforces();
    rules::set(world, &subject.inside, |_| Block { plaintext, certificates: true }).await?;
    let end = Instant::now() + TAKES_EFFECT;
    loop {
        let without = prove::admits(world, subject, false).await;
        let with = prove::admits(world, subject, true).await;
        if without == Plain::Refused && (with == Plain::Accepted || with == before) {
            return Ok(());
        }
        if Instant::now() >= end {
            rules::set(world, &subject.inside, |_| Block { plaintext, certificates: false }).await?;
            return Err(EnforceError::NotProved(format!("without {without:?}, with {with:?}")));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Takes back what made the server refuse clients without a certificate.
pub async fn excuse(world: &World, subject: &Subject) -> Result<(), EnforceError> {
    let plaintext = subject.observed.desired.mode.enforces();
    rules::set(world, &subject.inside, |_| Block { plaintext, certificates: false }).await
}
