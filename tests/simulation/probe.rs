//! The databases as their clients meet them. What is served is verified for real, over no wire.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use dbssl::{
    host::probe::{Asks, Plain, Served, Target, Unproved, accepts},
    model::San,
    pki::Certificate,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    machine::{Life, Machine, Shared},
    server::Server,
};

#[derive(Clone, Debug)]
pub struct FakeProbe {
    pub machine: Shared,
    pub life: Life,
}

/// Whoever listens on one of the target's addresses, if anybody does.
fn listening<'a>(machine: &'a Machine, target: &Target) -> Option<(&'a Server, SocketAddr)> {
    target.addresses.iter().find_map(|address| Some((machine.server_at(address.ip())?, *address)))
}

impl FakeProbe {
    /// Some time goes by, and now and then there is no answer in time.
    async fn lost(&self) -> bool {
        self.machine.yield_to_others(self.life, "probe").await;
        self.machine.lock().packet_lost()
    }

    fn served(&self, target: &Target) -> Result<Vec<Certificate>, String> {
        let machine = self.machine.lock();
        let (server, address) = listening(&machine, target).ok_or("no route to host")?;
        if !server.is_ready() || server.tls_port != Some(address.port()) {
            return Err("connection refused".to_owned());
        }
        Ok(server.served.clone())
    }
}

#[async_trait]
impl Asks for FakeProbe {
    async fn handshake(&self, target: &Target, _: Duration) -> Served {
        if self.lost().await {
            return Served::NotReady("no answer in time".to_owned());
        }
        let served = match self.served(target) {
            Ok(chain) => Served::Tls { chain: der(&chain), ready: true },
            Err(why) => Served::Unreachable(why),
        };
        let _ = self.machine.upon("handshake", "");
        served
    }

    async fn verifies(
        &self,
        target: &Target,
        roots: &[CertificateDer<'_>],
        now: OffsetDateTime,
        _: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, Unproved> {
        if self.lost().await {
            return Err(Unproved::NotReady("no answer in time".to_owned()));
        }
        let chain = self.served(target).map_err(Unproved::Unreachable)?;
        match verified(&chain, roots, target.name.as_ref(), now) {
            Ok(()) => Ok(der(&chain)),
            Err(why) => Err(Unproved::Rejected(why)),
        }
    }

    async fn plaintext(&self, target: &Target, _: Duration) -> Plain {
        if self.lost().await {
            return Plain::NotReady("no answer in time".to_owned());
        }
        let machine = self.machine.lock();
        match listening(&machine, target) {
            None => Plain::Unreachable("no route to host".to_owned()),
            Some((server, address)) if server.is_ready() && server.plaintext_port == address.port() => {
                Plain::Accepted
            }
            Some(_) => Plain::Refused,
        }
    }

    async fn admits(&self, _: &Target, _: Duration) -> Plain {
        Plain::Accepted
    }
}

pub fn der(certificates: &[Certificate]) -> Vec<CertificateDer<'static>> {
    certificates.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect()
}

/// As a client does it that trusts just these roots: one of them is enough.
pub fn verified(
    chain: &[Certificate],
    roots: &[CertificateDer<'_>],
    name: Option<&San>,
    now: OffsetDateTime,
) -> Result<(), String> {
    let name = name.ok_or("no name to verify")?;
    let mut why = "there is no root".to_owned();
    for root in roots {
        match verified_by(chain, root, name, now) {
            Ok(()) => return Ok(()),
            Err(refused) => why = refused,
        }
    }
    Err(why)
}

fn verified_by(
    chain: &[Certificate],
    root: &CertificateDer<'_>,
    name: &San,
    now: OffsetDateTime,
) -> Result<(), String> {
    let mut question = name.to_string().into_bytes();
    for one in chain.iter().map(Certificate::der).chain([root.as_ref()]) {
        question.extend_from_slice(one);
    }
    let within = |(from, to): &(OffsetDateTime, OffsetDateTime)| (*from..=*to).contains(&now);
    if ACCEPTED.with_borrow(|known| known.get(&question).is_some_and(within)) {
        return Ok(());
    }
    accepts(&der(chain), std::slice::from_ref(root), Some(name), now)?;
    let from = chain.iter().map(Certificate::not_before).max().unwrap_or(now);
    let to = chain.iter().map(Certificate::not_after).min().unwrap_or(now);
    ACCEPTED.with_borrow_mut(|known| {
        if known.len() >= 1000 {
            known.clear();
        }
        known.insert(question, (from, to));
    });
    Ok(())
}

thread_local! {
    /// What was accepted, and from when to when all of it is valid: each chain is looked at many times.
    static ACCEPTED: RefCell<HashMap<Vec<u8>, (OffsetDateTime, OffsetDateTime)>> = RefCell::default();
}
