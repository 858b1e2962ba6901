//! The words that all of dbssl shares, as types that only exist when they are valid.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use zeroize::Zeroizing;

pub mod inspect;
pub mod pattern;
pub mod word;

pub use word::UnknownWord;

/// A kind of database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Postgres,
    Mysql,
    Mariadb,
    /// Redis, Valkey and KeyDB: one protocol, one set of flags.
    Redis,
    Mongodb,
}

impl Engine {
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Mysql, Self::Mariadb, Self::Redis, Self::Mongodb];

    /// The word of `dbssl.engine`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::Mongodb => "mongodb",
        }
    }
}

/// What the operator asked the server and its clients to insist on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Allow,
    Prefer,
    Require,
    VerifyCa,
    #[default]
    VerifyFull,
}

impl Mode {
    pub const ALL: [Self; 5] = [Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The word of `dbssl.mode`, which is libpq's `sslmode` too.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether the server has to refuse plaintext from outside its container.
    pub const fn enforces(self) -> bool {
        matches!(self, Self::Require | Self::VerifyCa | Self::VerifyFull)
    }
}

/// How far dbssl may go to make a change effective (`dbssl.redeploy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Redeploy {
    /// Reload, restart or recreate, whatever is needed.
    #[default]
    Auto,
    /// Never stop the database: report what is pending.
    Reload,
    /// Certificates are renewed by a reload; anything else is for `dbssl apply`.
    Manual,
}

impl Redeploy {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Reload, Self::Manual];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Reload => "reload",
            Self::Manual => "manual",
        }
    }
}

/// What to do with a health check that TLS would break (`dbssl.healthcheck`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Healthcheck {
    #[default]
    Adapt,
    Keep,
}

impl Healthcheck {
    pub const ALL: [Self; 2] = [Self::Adapt, Self::Keep];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Adapt => "adapt",
            Self::Keep => "keep",
        }
    }
}

/// What a server asks of its clients (`dbssl.client-auth`), the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// No certificate.
    #[default]
    None,
    /// One may be presented, and then has to be right.
    Optional,
    /// Nobody gets in by TLS without one.
    Required,
}

impl ClientAuth {
    pub const ALL: [Self; 3] = [Self::None, Self::Optional, Self::Required];

    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// The kinds of key that we make, and that every tested client accepts. P-521 and Ed25519 are left out on
/// purpose: many clients refuse the first, and libpq's channel binding fails under a CA with the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    #[default]
    P256,
    P384,
    Rsa2048,
    Rsa3072,
}

impl KeyType {
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::Rsa2048, Self::Rsa3072];

    pub const fn word(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
        }
    }
}

macro_rules! words {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(found: &str) -> Result<Self, UnknownWord> {
                Self::ALL
                    .into_iter()
                    .find(|word| word.word() == found)
                    .ok_or_else(|| UnknownWord::new(found, &Self::ALL.map(Self::word)))
            }
        }
    )+};
}
words!(Engine, Mode, Redeploy, Healthcheck, ClientAuth, KeyType);

/// A container's name as Docker allows it (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`, without the leading slash):
/// always safe as one component of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let mut bytes = text.bytes();
        let valid = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
            && text.len() <= 200;
        if valid { Ok(Self(text.to_owned())) } else { Err(BadName(text.chars().take(200).collect())) }
    }
}

impl TryFrom<String> for ContainerName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a container's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "found container name {0:?}, allowed: a letter or digit, then letters, digits, '_', '.', '-', at most 200"
)]
pub struct BadName(pub String);

/// A container's full id: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as `docker ps` shows them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for ContainerId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadId(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a container's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found container id {0:?}, allowed: 64 hexadecimal digits")]
pub struct BadId(pub String);

/// One subject alternative name: a DNS name or an address (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum San {
    Dns(String),
    Ip(IpAddr),
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// The names that one leaf carries; ordered, so that equal sets issue equal certificates.
pub type Sans = BTreeSet<San>;

/// More names of its operator's than this make a certificate that some clients refuse to read.
pub const MOST_NAMES: usize = 100;

/// What was said of one container, as far as something was: by an entry of the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub mode: Option<Mode>,
    pub engine: Option<Engine>,
    pub names: Option<Sans>,
    pub redeploy: Option<Redeploy>,
    pub healthcheck: Option<Healthcheck>,
    pub client_auth: Option<ClientAuth>,
}

/// What one container's operator asked for, by labels or in the config: exists only if every label was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    pub mode: Mode,
    /// Given by its operator; `None` means: detect it.
    pub engine: Option<Engine>,
    /// Extra names for the certificate, `dbssl.names`.
    pub names: Sans,
    pub redeploy: Redeploy,
    pub healthcheck: Healthcheck,
    pub client_auth: ClientAuth,
}

/// The user and group ids that a file in a certificate directory must have, as the host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Bytes that must never be shown: no `Debug`, no `Display`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Where dbssl keeps what: both are settings, so that nothing in the code names an absolute place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/data/coolify/ssl`: the trust bundle lives here and users may replace it.
    pub data: PathBuf,
    /// `/var/lib/dbssl`: the CA store, certificate directories, the journal.
    pub state: PathBuf,
}

impl Roots {
    /// The trust bundle.
    pub fn bundle(&self) -> PathBuf {
        self.data.join("coolify-ca.crt")
    }

    /// The key of a custom CA, if its owner brings one.
    pub fn custom_key(&self) -> PathBuf {
        self.data.join("coolify-ca.key")
    }

    pub fn ca_store(&self) -> PathBuf {
        self.state.join("ca")
    }

    /// Requests for certificates that others are to sign.
    pub fn requests_to_sign(&self) -> PathBuf {
        self.state.join("csr")
    }

    /// What they signed.
    pub fn signed(&self) -> PathBuf {
        self.state.join("signed")
    }

    /// The CA of ours that somebody else signed.
    pub fn signed_ca(&self) -> PathBuf {
        self.signed().join("dbssl-ca.crt")
    }

    /// The keys of the requests for single databases.
    pub fn requested(&self) -> PathBuf {
        self.state.join("requested")
    }

    /// Where the certificate directories are.
    pub fn databases(&self) -> PathBuf {
        self.state.join("databases")
    }

    /// The certificate directory of a container.
    pub fn certificates(&self, name: &ContainerName) -> PathBuf {
        self.databases().join(name.as_str())
    }

    /// Whether `path` is the certificate directory of some container.
    pub fn is_certificates(&self, path: &Path) -> bool {
        path.parent() == Some(&self.databases())
    }

    pub fn journal(&self) -> PathBuf {
        self.state.join("journal")
    }

    /// Whether `path` lies below the state folder.
    pub fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.state)
    }
}
