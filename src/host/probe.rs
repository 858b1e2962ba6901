//! Talking to a database as its clients do, without credentials: which certificate it serves, whether that verifies,
//! and whether it refuses plaintext.
//!
//! # Guarantees
//! - Every call ends by its deadline, whatever the server does: answers never, slowly, endlessly or nonsense. The one
//!   addition is [`GOODBYE`] for taking leave.
//! - At most [`LIMIT`] bytes are read from one connection.
//! - No credential and no data is sent: only what a client says before it logs in. To a server that demands one, the
//!   certificate of a target's [`Identity`] is shown.
//!
//! # What the server's log and counters show of it
//! PostgreSQL logs nothing at its default settings when a client leaves before it authenticates, after a close_notify
//! or a plain end of the stream (`auth.c`: "Only log error if client didn't disconnect"). It does log one FATAL line
//! when `pg_hba.conf` rejects, as [`plaintext`] hopes for, and when a user or a database named `postgres` does not exist
//! where no password is asked for; with `log_connections` one line per probe. MariaDB logs one line for the login that
//! is refused, and MySQL may warn that a plugin is deprecated which it offers to users that it does not know. MySQL
//! counts a client that leaves during
//! the handshake towards `max_connect_errors` and then blocks its address; so there the login is carried through to its
//! refusal.
//!
//! # Caveats
//! [`handshake`] believes any certificate: it reads, it proves nothing. A proof is [`verifies`] for each root, and the
//! strict check of the chain as served, and that its leaf is the one just issued.

mod asks;
mod identity;
mod mysql;
mod postgres;
mod verifier;

use std::{
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

pub use asks::{Asks, Probe};
pub use identity::{BadIdentity, Identity};
use rustls::{ClientConfig, InvalidMessage, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Join, Take},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
pub use verifier::accepts;

use crate::{
    engine::{PlainHello, Preamble},
    model::San,
};

/// The most that is read from one connection. A handshake takes 3 to 10 KiB.
pub const LIMIT: u64 = 256 << 10;

/// How long the server may take to end a connection that we have ended.
pub const GOODBYE: Duration = Duration::from_millis(500);

/// Where a database listens and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its own, tried in this order until one gives an answer.
    pub addresses: Vec<SocketAddr>,
    /// Where Docker forwards to it: tried where its own lead nowhere, and not where nothing listens on them. Docker's
    /// proxy takes in whoever comes, and hangs up.
    pub published: Vec<SocketAddr>,
    pub preamble: Preamble,
    /// The name to ask for (SNI) and to check. `None`: any name is right.
    pub name: Option<San>,
    /// What is shown to a server that asks for a certificate.
    pub identity: Option<Identity>,
}

/// What a server serves to a client that believes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    Unreachable(String),
    /// Something listens, and does not do its work (yet).
    NotReady(String),
    /// The server says that it has no TLS.
    Plaintext,
    Tls {
        /// As sent, leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// Whether the server takes sessions. PostgreSQL shakes hands before it does.
        ready: bool,
    },
    /// TLS is offered, and no handshake comes about.
    Failed(String),
}

/// How a server takes a client without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    Refused,
    Accepted,
    NotReady(String),
    Unreachable(String),
    /// An answer that says neither.
    Unclear(String),
}

/// Why a verifying client would not have been served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the server is not ready: {0}")]
    NotReady(String),
    #[error("the server does not offer TLS")]
    Plaintext,
    #[error("the TLS handshake failed: {0}")]
    Failed(String),
    /// The handshake came as far as the certificate.
    #[error("the certificate is rejected: {0}")]
    Rejected(String),
    #[error("a root cannot be used: {0}")]
    BadRoot(String),
    #[error("{0:?} is not a name that a certificate can be checked for")]
    BadName(String),
}

/// Which certificates the server serves. Any are taken; that the server has the leaf's key is checked.
pub async fn handshake(target: &Target, deadline: Duration) -> Served {
    let provider = provider();
    let config = match verifier::anything(&provider, target.identity.as_ref()) {
        Ok(config) => Arc::new(config),
        Err(error) => return Served::Failed(error.to_string()),
    };
    let preamble = target.preamble;
    let shaken = first_answer(target, deadline, |address, until| {
        let config = Arc::clone(&config);
        let name = sni(target, address);
        async move {
            let mut stream = open_tls(address, preamble, config, name, until).await?;
            let chain = peer_chain(&stream);
            let ready = match preamble {
                Preamble::PostgresSslRequest => {
                    timeout_at(until, postgres::takes_sessions(&mut stream)).await.unwrap_or(false)
                }
                Preamble::MysqlGreeting => {
                    let _ = timeout_at(until, mysql::log_in(&mut stream, mysql::AFTER_TLS)).await;
                    true
                }
                // TLS 1.3 is done for the client before the server has looked at the client's certificate, or lack of it.
                Preamble::Direct(hello) => match timeout_at(until, say_hello(&mut stream, hello)).await {
                    Ok(Ok(Plain::Refused)) => {
                        return Err(Obstacle::Failed(
                                "it ends the connection after the handshake: it may want a certificate of its clients"
                                    .to_owned(),
                            ));
                    }
                    answer => matches!(answer, Ok(Ok(Plain::Accepted))),
                },
            };
            close(stream).await;
            Ok((chain, ready))
        }
    });
    match shaken.await {
        Ok((chain, ready)) => Served::Tls { chain, ready },
        Err(Obstacle::Unreachable(why) | Obstacle::Deaf(why)) => Served::Unreachable(why),
        Err(Obstacle::NotReady(why)) => Served::NotReady(why),
        Err(Obstacle::Plaintext) => Served::Plaintext,
        Err(Obstacle::Failed(why) | Obstacle::Rejected(why)) => Served::Failed(why),
    }
}

/// A handshake as a client does it that trusts just these roots (DER), at the time `now`, and that insists on the
/// target's name if there is one. Gives the chain as served.
pub async fn verifies(
    target: &Target,
    roots: &[CertificateDer<'_>],
    now: OffsetDateTime,
    deadline: Duration,
) -> Result<Vec<CertificateDer<'static>>, Unproved> {
    if let Some(name) = &target.name
        && server_name(name).is_none()
    {
        return Err(Unproved::BadName(name.to_string()));
    }
    let checks_name = target.name.is_some();
    let config = verifier::strict(&provider(), roots, now, checks_name, target.identity.as_ref())
        .map_err(|error| Unproved::BadRoot(error.to_string()))?;
    let config = Arc::new(config);
    let preamble = target.preamble;
    let shaken = first_answer(target, deadline, |address, until| {
        let config = Arc::clone(&config);
        let name = sni(target, address);
        async move {
            let mut stream = open_tls(address, preamble, config, name, until).await?;
            let chain = peer_chain(&stream);
            if preamble == Preamble::MysqlGreeting {
                let _ = timeout_at(until, mysql::log_in(&mut stream, mysql::AFTER_TLS)).await;
            }
            close(stream).await;
            Ok(chain)
        }
    });
    shaken.await.map_err(|obstacle| match obstacle {
        Obstacle::Unreachable(why) | Obstacle::Deaf(why) => Unproved::Unreachable(why),
        Obstacle::NotReady(why) => Unproved::NotReady(why),
        Obstacle::Plaintext => Unproved::Plaintext,
        Obstacle::Failed(why) => Unproved::Failed(why),
        Obstacle::Rejected(why) => Unproved::Rejected(why),
    })
}

/// Whether the server takes clients that do not use TLS. For a protocol without negotiation the target is the
/// plaintext port.
///
/// PostgreSQL is asked as user `postgres` for the database `postgres`: a `pg_hba.conf` can say otherwise for others.
/// A MariaDB that asks for a password first leaves it [`Plain::Unclear`].
pub async fn plaintext(target: &Target, deadline: Duration) -> Plain {
    let preamble = target.preamble;
    let asked = first_answer(target, deadline, |address, until| async move {
        let mut stream = match (connect(address, until).await, preamble) {
            (Ok(stream), _) => stream,
            (Err(error), Preamble::Direct(_)) if error.kind() == ErrorKind::ConnectionRefused => {
                return Ok(Plain::Refused);
            }
            (Err(error), _) => return Err(unreachable(address, &error)),
        };
        let plain = match preamble {
            Preamble::PostgresSslRequest => in_time(until, postgres::plaintext(&mut stream)).await?,
            Preamble::MysqlGreeting => in_time(until, mysql::plaintext(&mut stream)).await?,
            Preamble::Direct(hello) => in_time(until, say_hello(&mut stream, hello)).await?,
        };
        close(stream).await;
        Ok(plain)
    });
    verdict(asked.await)
}

fn verdict(asked: Result<Plain, Obstacle>) -> Plain {
    match asked {
        Ok(plain) => plain,
        Err(Obstacle::Unreachable(why) | Obstacle::Deaf(why)) => Plain::Unreachable(why),
        Err(Obstacle::NotReady(why)) => Plain::NotReady(why),
        Err(Obstacle::Plaintext) => Plain::Accepted,
        Err(Obstacle::Failed(why) | Obstacle::Rejected(why)) => Plain::Unclear(why),
    }
}

/// Whether the server takes clients that use TLS and, if the target has no identity, have no certificate. The server's
/// own certificate is believed.
///
/// PostgreSQL is asked as in [`plaintext`]. MySQL and MariaDB are asked nothing: of them an account decides.
pub async fn admits(target: &Target, deadline: Duration) -> Plain {
    let preamble = target.preamble;
    let config = match verifier::anything(&provider(), target.identity.as_ref()) {
        Ok(config) => Arc::new(config),
        Err(error) => return Plain::Unclear(error.to_string()),
    };
    let asked = first_answer(target, deadline, |address, until| {
        let config = Arc::clone(&config);
        let name = sni(target, address);
        async move {
            let mut stream = match open_tls(address, preamble, config, name, until).await {
                // TLS 1.2 turns away within the handshake.
                Err(Obstacle::Failed(_)) if matches!(preamble, Preamble::Direct(_)) => {
                    return Ok(Plain::Refused);
                }
                opened => opened?,
            };
            let plain = match preamble {
                Preamble::PostgresSslRequest => in_time(until, postgres::plaintext(&mut stream)).await?,
                Preamble::MysqlGreeting => Plain::Accepted,
                Preamble::Direct(hello) => in_time(until, say_hello(&mut stream, hello)).await?,
            };
            close(stream).await;
            Ok(plain)
        }
    });
    verdict(asked.await)
}

/// What stood in the way of one attempt.
#[derive(Debug)]
enum Obstacle {
    Unreachable(String),
    /// There is a machine, and nothing listens on the port.
    Deaf(String),
    NotReady(String),
    Plaintext,
    Failed(String),
    Rejected(String),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::NotReady(lost(&error))
    }
}

/// One attempt after the other, until one is neither unreachable nor unready. Each gets its share of the time that is
/// left, so that an address that swallows packets does not use up the others' time.
async fn first_answer<T, F>(
    target: &Target,
    deadline: Duration,
    attempt: impl Fn(SocketAddr, Instant) -> F,
) -> Result<T, Obstacle>
where
    F: Future<Output = Result<T, Obstacle>>,
{
    let end = Instant::now() + deadline;
    let mut obstacle = Obstacle::Unreachable("it has no address".to_owned());
    let all = [target.addresses.as_slice(), &target.published].concat();
    for (at, address) in all.iter().enumerate() {
        if at >= target.addresses.len() && matches!(obstacle, Obstacle::Deaf(_)) {
            break;
        }
        let left = u32::try_from(all.len() - at).unwrap_or(u32::MAX);
        let now = Instant::now();
        match attempt(*address, now + end.saturating_duration_since(now) / left).await {
            Err(Obstacle::Unreachable(why)) => {
                // Others say more than that this address leads nowhere.
                if matches!(obstacle, Obstacle::Unreachable(_)) {
                    obstacle = Obstacle::Unreachable(why);
                }
            }
            Err(Obstacle::Deaf(why)) => {
                if !matches!(obstacle, Obstacle::NotReady(_)) {
                    obstacle = Obstacle::Deaf(why);
                }
            }
            Err(Obstacle::NotReady(why)) => obstacle = Obstacle::NotReady(why),
            answer => return answer,
        }
    }
    Err(obstacle)
}

/// A connection that ends after [`LIMIT`] bytes, as if the server had closed it.
type Stream = Join<Take<OwnedReadHalf>, OwnedWriteHalf>;

async fn connect(address: SocketAddr, until: Instant) -> io::Result<Stream> {
    let stream = timeout_at(until, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "no answer in time")))?;
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    Ok(tokio::io::join(read.take(LIMIT), write))
}

async fn open_tls(
    address: SocketAddr,
    preamble: Preamble,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    until: Instant,
) -> Result<TlsStream<Stream>, Obstacle> {
    let mut stream = connect(address, until).await.map_err(|error| unreachable(address, &error))?;
    match preamble {
        Preamble::PostgresSslRequest => in_time(until, postgres::ask_for_tls(&mut stream)).await?,
        Preamble::MysqlGreeting => in_time(until, mysql::ask_for_tls(&mut stream)).await?,
        Preamble::Direct(_) => {}
    }
    let connecting = async {
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| handshake_obstacle(&error))
    };
    in_time(until, connecting).await
}

fn handshake_obstacle(error: &io::Error) -> Obstacle {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Obstacle::Rejected(why.to_string()),
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Obstacle::Failed("the server's answer is not TLS".to_owned())
        }
        Some(why) => Obstacle::Failed(why.to_string()),
        None => Obstacle::Failed(lost(error)),
    }
}

fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

async fn in_time<T>(until: Instant, work: impl Future<Output = Result<T, Obstacle>>) -> Result<T, Obstacle> {
    timeout_at(until, work).await.unwrap_or_else(|_| {
        Err(Obstacle::NotReady("it accepts connections, but does not answer in time".to_owned()))
    })
}

fn unreachable(address: SocketAddr, error: &io::Error) -> Obstacle {
    let why = format!("{address}: {error}");
    if error.kind() == ErrorKind::ConnectionRefused {
        Obstacle::Deaf(why)
    } else {
        Obstacle::Unreachable(why)
    }
}

fn lost(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the server ended the connection".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A fixed provider: no default of the process is looked at or set.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn peer_chain(stream: &TlsStream<Stream>) -> Vec<CertificateDer<'static>> {
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    chain.iter().map(|certificate| certificate.clone().into_owned()).collect()
}

fn server_name(name: &San) -> Option<ServerName<'static>> {
    match name {
        San::Dns(name) => ServerName::try_from(name.clone()).ok(),
        San::Ip(address) => Some(ServerName::from(*address)),
    }
}

/// An address as a name means: no SNI.
fn sni(target: &Target, address: SocketAddr) -> ServerName<'static> {
    target.name.as_ref().and_then(server_name).unwrap_or_else(|| ServerName::from(address.ip()))
}

/// Says goodbye (close_notify, then the end of the stream) and lets the server do so too: unread bytes would turn
/// the end into a reset, which servers log.
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let goodbye = async {
        stream.shutdown().await?;
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

/// The first question of a protocol without negotiation.
async fn say_hello(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: PlainHello,
) -> Result<Plain, Obstacle> {
    /// OP_MSG (2013) with the document `{hello: 1, $db: "admin"}`.
    const MONGODB_HELLO: &[u8] = b"\x34\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
        \x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    let (question, length) = match hello {
        PlainHello::RedisPing => (&b"PING\r\n"[..], 5),
        PlainHello::MongodbHello => (MONGODB_HELLO, 16),
    };
    let mut answer = vec![0; length];
    let asked = async {
        stream.write_all(question).await?;
        stream.read_exact(&mut answer).await
    };
    match asked.await {
        // A TLS port takes the question for a broken handshake and leaves; one that demands a certificate says so, and
        // leaves.
        Err(error)
            if is_alert(&error)
                || matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
        {
            return Ok(Plain::Refused);
        }
        asked => asked?,
    };
    Ok(match hello {
        PlainHello::RedisPing if answer == *b"-LOAD" => {
            return Err(Obstacle::NotReady("it reads its data from disk".to_owned()));
        }
        PlainHello::RedisPing if matches!(answer[0], b'+' | b'-') => Plain::Accepted,
        PlainHello::MongodbHello if answer[12..] == 2013_u32.to_le_bytes() => Plain::Accepted,
        // A TLS alert: record type 21, version 3.x.
        _ if answer.starts_with(&[21, 3]) => Plain::Refused,
        _ => Plain::Unclear(format!("it answered {}", Shown(&answer))),
    })
}

#[cfg(feature = "fuzzing")]
pub(crate) const EXCHANGES: [&str; 8] = [
    "postgres: ask for TLS",
    "postgres: sessions",
    "postgres: plaintext",
    "mysql: ask for TLS",
    "mysql: plaintext",
    "mysql: log in",
    "hello: redis",
    "hello: mongodb",
];

/// For fuzzers: one of [`EXCHANGES`] with any stream.
#[cfg(feature = "fuzzing")]
pub(crate) async fn exchange(which: &str, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Plain {
    let goes_on = |answer: Result<(), Obstacle>| answer.map(|()| Plain::Refused);
    verdict(match which {
        "postgres: ask for TLS" => goes_on(postgres::ask_for_tls(stream).await),
        "postgres: sessions" => {
            let takes = postgres::takes_sessions(stream).await;
            Ok(if takes { Plain::Accepted } else { Plain::Unclear(String::new()) })
        }
        "postgres: plaintext" => postgres::plaintext(stream).await,
        "mysql: ask for TLS" => goes_on(mysql::ask_for_tls(stream).await),
        "mysql: plaintext" => mysql::plaintext(stream).await,
        "mysql: log in" => mysql::log_in(stream, mysql::AFTER_TLS).await,
        "hello: redis" => say_hello(stream, PlainHello::RedisPing).await,
        _ => say_hello(stream, PlainHello::MongodbHello).await,
    })
}

/// A few bytes from outside, made harmless.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0[..self.0.len().min(80)].escape_ascii())
    }
}

/// Text from outside as one line that is safe to log.
fn harmless(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(1024)]);
    let text = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    text.take(200).collect()
}

#[cfg(test)]
mod tests;
