//! The questions behind one handle, so that whoever asks need not know whether there is a network.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{Plain, Served, Target, Unproved, admits, handshake, plaintext, verifies};

/// Whoever asks a database as its clients do.
#[derive(Clone, Debug)]
pub struct Probe(Arc<dyn Asks>);

impl Probe {
    pub fn new(asks: impl Asks + 'static) -> Self {
        Self(Arc::new(asks))
    }
}

impl Default for Probe {
    /// Over the network.
    fn default() -> Self {
        Self::new(Network)
    }
}

impl Deref for Probe {
    type Target = dyn Asks;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// The questions: each is the function of the same name.
#[async_trait]
pub trait Asks: fmt::Debug + Send + Sync {
    async fn handshake(&self, target: &Target, deadline: Duration) -> Served;

    async fn verifies(
        &self,
        target: &Target,
        roots: &[CertificateDer<'_>],
        now: OffsetDateTime,
        deadline: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, Unproved>;

    async fn plaintext(&self, target: &Target, deadline: Duration) -> Plain;

    async fn admits(&self, target: &Target, deadline: Duration) -> Plain;
}

#[derive(Debug)]
struct Network;

#[async_trait]
impl Asks for Network {
    async fn handshake(&self, target: &Target, deadline: Duration) -> Served {
        handshake(target, deadline).await
    }

    async fn verifies(
        &self,
        target: &Target,
        roots: &[CertificateDer<'_>],
        now: OffsetDateTime,
        deadline: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, Unproved> {
        verifies(target, roots, now, deadline).await
    }

    async fn plaintext(&self, target: &Target, deadline: Duration) -> Plain {
        plaintext(target, deadline).await
    }

    async fn admits(&self, target: &Target, deadline: Duration) -> Plain {
        admits(target, deadline).await
    }
}
