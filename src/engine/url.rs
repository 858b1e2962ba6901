//! What a client is given to connect with: a URL, a DSN or a command, as each driver takes it.
//!
//! Guarantees:
//! - A line never asks for less than the mode, unless the client cannot do it at all, and then a note says so.
//! - The password is in it only if [`Target::show_password`] is set, and never in a note.
//!
//! Every client has its own words for the same five modes, and some lack one. A mode that a client lacks becomes the
//! next stronger one it has ([`effective`]). Sources: each driver's manual, and where that is silent its source; named
//! in the file of its engine.

pub mod account;
mod mariadb;
mod mongodb;
mod mysql;
mod postgres;
mod quote;
mod redis;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, str::FromStr};

use self::account::{Account, Password};
use crate::model::{Engine, Mode, UnknownWord};

/// Stands where the password belongs: nobody's password, and the same in every URL, DSN and shell.
pub const PLACEHOLDER: &str = "PASSWORD";

/// A family of clients that take the same string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Libpq,
    Jdbc,
    Node,
    Python,
    Go,
    Cli,
}

impl Driver {
    pub const ALL: [Self; 6] = [Self::Libpq, Self::Jdbc, Self::Node, Self::Python, Self::Go, Self::Cli];

    /// The word of `--driver`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Libpq => "libpq",
            Self::Jdbc => "jdbc",
            Self::Node => "node",
            Self::Python => "python",
            Self::Go => "go",
            Self::Cli => "cli",
        }
    }

    /// What is meant where none is named. Only PostgreSQL has a URL that most of its clients share.
    pub const fn usual(engine: Engine) -> Self {
        match engine {
            Engine::Postgres => Self::Libpq,
            Engine::Mysql | Engine::Mariadb | Engine::Redis | Engine::Mongodb => Self::Cli,
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Driver {
    type Err = UnknownWord;

    fn from_str(found: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|driver| driver.word() == found)
            .ok_or_else(|| UnknownWord::new(found, &Self::ALL.map(Self::word)))
    }
}

/// Where a client connects to, and as whom.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub driver: Driver,
    /// What was asked for.
    pub mode: Mode,
    /// The name (or address) that the certificate has to carry, without brackets.
    pub host: &'a str,
    /// Connect here instead, and check for `host` all the same. Only where [`takes_address`] says so.
    pub address: Option<IpAddr>,
    pub port: u16,
    /// The trust bundle's path, where the client is.
    pub ca: &'a str,
    pub account: &'a Account,
    pub show_password: bool,
}

/// What to use as it is, and what to know or to do besides.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// One line; holds the password if that was asked for.
    pub line: String,
    /// Sentences, without the password.
    pub notes: Vec<String>,
}

/// No such client of this engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {driver} driver for {engine}{instead}; it has: {}", words(*.engine))]
pub struct NoSuchDriver {
    pub engine: Engine,
    pub driver: Driver,
    instead: &'static str,
}

fn words(engine: Engine) -> String {
    let known =
        Driver::ALL.into_iter().filter(|driver| effective(engine, *driver, Mode::VerifyFull).is_some());
    known.map(Driver::word).collect::<Vec<_>>().join(", ")
}

/// The text for one client.
pub fn text(engine: Engine, target: &Target<'_>) -> Result<Text, NoSuchDriver> {
    let Some(mode) = effective(engine, target.driver, target.mode) else {
        let instead = match (engine, target.driver) {
            (Engine::Mongodb, Driver::Jdbc) => {
                " (MongoDB's driver for Java is not JDBC: give it mongodb://…/?tls=true, and the CA in a trust store \
                 that -Djavax.net.ssl.trustStore names)"
            }
            _ => "",
        };
        return Err(NoSuchDriver { engine, driver: target.driver, instead });
    };
    let mut text = match engine {
        Engine::Postgres => postgres::text(target, mode),
        Engine::Mysql => mysql::text(target, mode),
        Engine::Mariadb => mariadb::text(target, mode),
        Engine::Redis => redis::text(target, mode),
        Engine::Mongodb => mongodb::text(target, mode),
    };
    let client = client(engine, target.driver);
    if mode > target.mode {
        text.notes.push(format!("{client} has no mode {}: this is {mode}, which demands more", target.mode));
    } else if mode < target.mode {
        text.notes.push(format!(
            "{client} does not check the name in a certificate: this is {mode}, which demands less than {}",
            target.mode
        ));
    }
    text.notes.extend(target.account.notes.iter().cloned());
    if text.line.contains(PLACEHOLDER) {
        text.notes.push(match (&target.account.password, target.show_password) {
            (Password::Unknown(why), _) => format!("put the password in place of {PLACEHOLDER}: {why}"),
            (_, false) => format!("put the password in place of {PLACEHOLDER}, or add --show-password"),
            // A password that happens to hold the word.
            (_, true) => return Ok(text),
        });
    } else if let (Password::Unknown(why), true) = (&target.account.password, target.show_password) {
        text.notes.push(format!("it asks for the password: {why}"));
    }
    Ok(text)
}

/// What a client really does where `mode` is asked for; `None` if the engine has no such client.
///
/// Each row is the list of modes that a client can be told to keep by its string alone.
pub fn effective(engine: Engine, driver: Driver, mode: Mode) -> Option<Mode> {
    use Mode::{Allow, Prefer, Require, VerifyCa, VerifyFull};
    let has: &[Mode] = match (engine, driver) {
        (Engine::Postgres, Driver::Node) => &[Require, VerifyCa, VerifyFull],
        (Engine::Postgres, _) => &[Allow, Prefer, Require, VerifyCa, VerifyFull],
        (_, Driver::Libpq) | (Engine::Mongodb, Driver::Jdbc) => return None,
        (Engine::Mysql, Driver::Jdbc | Driver::Cli) => &[Prefer, Require, VerifyCa, VerifyFull],
        (Engine::Mysql | Engine::Mariadb, Driver::Go) => &[Prefer, Require, VerifyFull],
        (Engine::Mariadb | Engine::Redis, Driver::Node) => &[VerifyFull],
        // MariaDB's client looks at the name wherever it is given a CA, from 11.4 on.
        (Engine::Redis | Engine::Mongodb, Driver::Go) | (Engine::Mariadb, Driver::Cli) => {
            &[Require, VerifyFull]
        }
        // It has no option by which the name would be checked.
        (Engine::Redis, Driver::Cli) => &[Require, VerifyCa],
        (Engine::Mysql | Engine::Mariadb | Engine::Redis | Engine::Mongodb, _) => {
            &[Require, VerifyCa, VerifyFull]
        }
    };
    has.iter().copied().find(|known| *known >= mode).or_else(|| has.last().copied())
}

/// Whether a client can connect to one address and check the certificate for another name.
pub const fn takes_address(engine: Engine, driver: Driver) -> bool {
    matches!((engine, driver), (Engine::Postgres, Driver::Libpq | Driver::Python | Driver::Cli))
}

/// The client that the text is for, by its own name.
pub const fn client(engine: Engine, driver: Driver) -> &'static str {
    match (engine, driver) {
        (Engine::Postgres, Driver::Jdbc) => "pgjdbc",
        (Engine::Postgres, Driver::Node) => "node-postgres",
        (Engine::Postgres, Driver::Python) => "psycopg",
        (Engine::Postgres, Driver::Go) => "pgx",
        (Engine::Postgres, Driver::Cli) => "psql",
        (_, Driver::Libpq) => "libpq",
        (Engine::Mysql, Driver::Jdbc) => "MySQL Connector/J",
        (Engine::Mysql, Driver::Node) => "mysql2",
        (Engine::Mysql | Engine::Mariadb, Driver::Python) => "PyMySQL",
        (Engine::Mysql | Engine::Mariadb, Driver::Go) => "Go-MySQL-Driver",
        (Engine::Mysql, Driver::Cli) => "mysql",
        (Engine::Mariadb, Driver::Jdbc) => "MariaDB Connector/J",
        (Engine::Mariadb, Driver::Node) => "MariaDB Connector/Node.js",
        (Engine::Mariadb, Driver::Cli) => "mariadb",
        (Engine::Redis, Driver::Jdbc) => "Lettuce",
        (Engine::Redis, Driver::Node) => "a Redis client for Node.js",
        (Engine::Redis, Driver::Python) => "redis-py",
        (Engine::Redis, Driver::Go) => "go-redis",
        (Engine::Redis, Driver::Cli) => "redis-cli",
        (Engine::Mongodb, Driver::Jdbc) => "MongoDB's driver for Java",
        (Engine::Mongodb, Driver::Node) => "MongoDB's driver for Node.js",
        (Engine::Mongodb, Driver::Python) => "PyMongo",
        (Engine::Mongodb, Driver::Go) => "MongoDB's driver for Go",
        (Engine::Mongodb, Driver::Cli) => "mongosh",
    }
}

const fn verifies(mode: Mode) -> bool {
    matches!(mode, Mode::VerifyCa | Mode::VerifyFull)
}

impl Target<'_> {
    /// The password as it is to be written, before any quoting; `None` if there is none.
    fn password(&self) -> Option<String> {
        match &self.account.password {
            Password::None => None,
            Password::Known(secret) if self.show_password => {
                Some(String::from_utf8_lossy(secret.expose()).into_owned())
            }
            Password::Known(_) | Password::Unknown(_) => Some(PLACEHOLDER.to_owned()),
        }
    }

    /// For a command: the password if it is known and to be shown. Otherwise the command asks for it.
    fn shown_password(&self) -> Option<String> {
        match &self.account.password {
            Password::Known(_) if self.show_password => self.password(),
            _ => None,
        }
    }

    /// Whether a command has to ask for the password.
    fn asks(&self) -> bool {
        self.shown_password().is_none() && !matches!(self.account.password, Password::None)
    }

    /// `user:password@`, percent-encoded, or nothing.
    fn userinfo(&self) -> String {
        let user = self.account.user.as_deref().map(quote::percent).unwrap_or_default();
        match self.password() {
            Some(password) => format!("{user}:{}@", quote::percent(&password)),
            None if user.is_empty() => user,
            None => format!("{user}@"),
        }
    }

    /// `host:port` of a URL.
    fn authority(&self) -> String {
        format!("{}:{}", quote::url_host(self.host), self.port)
    }

    /// The database's name of a URL, percent-encoded.
    fn database(&self) -> String {
        self.account.database.as_deref().map(quote::percent).unwrap_or_default()
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl Text {
    fn new(line: String) -> Self {
        Self { line, notes: Vec::new() }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn note_if(self, condition: bool, note: impl FnOnce() -> String) -> Self {
        if condition { self.note(note()) } else { self }
    }
}

/// Node.js takes a CA of its own from this file; its drivers' strings cannot hold a path.
fn node_trusts(ca: &str) -> String {
    format!("set NODE_EXTRA_CA_CERTS={ca} in the application's environment")
}

/// As in crypto/x509, `loadSystemRoots`.
fn go_trusts(ca: &str) -> String {
    format!(
        "set SSL_CERT_FILE={ca} in the application's environment, or give the CA to the driver in a tls.Config"
    )
}

/// Java reads no PEM file as a trust store.
fn java_store(ca: &str) -> String {
    format!("{}.p12", ca.strip_suffix(".crt").unwrap_or(ca))
}

fn java_imports(ca: &str) -> String {
    format!(
        "make the trust store: keytool -importcert -noprompt -alias dbssl -file {ca} -keystore {} -storetype PKCS12 \
         -storepass changeit (it takes the file's first certificate: while there are several, import each)",
        java_store(ca)
    )
}
