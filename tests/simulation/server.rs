//! A database in a container: a Redis as far as the agent can tell.

use std::{path::Path, sync::LazyLock, time::Duration};

use dbssl::{
    model::KeyType,
    pki::{Ca, Certificate, key_matches, read_pem},
};
use time::OffsetDateTime;
use tokio::time::Instant;

/// What an image's server does otherwise than it should. It never changes for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quirk {
    None,
    /// It was built without TLS: with TLS options it does not start.
    NoTls,
    /// It says that it has read its files again, and serves what it served.
    Deaf,
    /// It says that it cannot.
    Refuses,
    /// It takes its time to start.
    Slow,
    /// Its own configuration turns TLS on, with a certificate from elsewhere.
    OwnTls,
}

impl Quirk {
    pub const ALL: [Self; 6] = [Self::None, Self::NoTls, Self::Deaf, Self::Refuses, Self::Slow, Self::OwnTls];

    /// Whether it can be given TLS: not where it cannot do it, or does it already.
    pub fn takes_tls(self) -> bool {
        !matches!(self, Self::NoTls | Self::OwnTls)
    }

    /// What it serves of itself.
    pub fn serves(self) -> &'static [Certificate] {
        if self == Self::OwnTls { elsewhere() } else { &[] }
    }
}

/// A certificate that is not the agent's.
fn elsewhere() -> &'static [Certificate] {
    static CHAIN: LazyLock<[Certificate; 1]> = LazyLock::new(|| {
        let begins = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let ca = Ca::generate("elsewhere", KeyType::P256, time::Duration::days(3650), begins).unwrap();
        [ca.certificate().clone()]
    });
    &*CHAIN
}

/// A process that runs.
#[derive(Clone, Debug)]
pub struct Server {
    pub ready_at: Instant,
    pub tls_port: Option<u16>,
    /// 0: closed.
    pub plaintext_port: u16,
    pub served: Vec<Certificate>,
    quirk: Quirk,
}

/// What its command asks for.
struct Options {
    tls_port: Option<u16>,
    plaintext_port: u16,
}

fn options(command: &[String]) -> Options {
    let value = |name: &str| {
        let mut found = command.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].as_str());
        found.next_back().and_then(|value| value.parse().ok())
    };
    Options {
        tls_port: value("--tls-port").filter(|port| *port != 0),
        plaintext_port: value("--port").unwrap_or(6379),
    }
}

impl Server {
    /// Starts it with what it finds in its certificate directory on the host; or its exit code.
    pub fn start(
        command: &[String],
        certificates: Option<&Path>,
        quirk: Quirk,
        takes: Duration,
    ) -> Result<Self, i64> {
        let Options { mut tls_port, plaintext_port } = options(command);
        let mut served = Vec::new();
        if tls_port.is_none() && quirk == Quirk::OwnTls {
            (tls_port, served) = (Some(6380), elsewhere().to_vec());
        } else if tls_port.is_some() {
            if quirk == Quirk::NoTls {
                return Err(1);
            }
            served = certificates.and_then(load).ok_or(1)?;
        }
        let takes = if quirk == Quirk::Slow { takes + Duration::from_secs(20) } else { takes };
        Ok(Self { ready_at: Instant::now() + takes, tls_port, plaintext_port, served, quirk })
    }

    pub fn is_ready(&self) -> bool {
        Instant::now() >= self.ready_at
    }

    /// `CONFIG SET tls-cert-file …`: whether it says that it has done it.
    pub fn reload(&mut self, certificates: Option<&Path>) -> bool {
        match self.quirk {
            Quirk::Deaf => true,
            Quirk::Refuses => false,
            Quirk::None | Quirk::NoTls | Quirk::Slow | Quirk::OwnTls => match certificates.and_then(load) {
                Some(served) => {
                    self.served = served;
                    true
                }
                None => false,
            },
        }
    }
}

/// The chain, if all files are there and belong together.
fn load(directory: &Path) -> Option<Vec<Certificate>> {
    let read = |name: &str| std::fs::read(directory.join(name)).ok();
    let chain = read_pem(&read("server.crt")?).ok()?;
    read_pem(&read("coolify-ca.crt")?).ok()?;
    let matches = key_matches(chain.first()?, &read("server.key")?);
    matches.is_ok_and(|matches| matches).then_some(chain)
}
