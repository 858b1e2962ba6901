//! The config file: text to settings, or everything that is wrong with it.
//!
//! Every key is optional. An unknown key is an error, since a typo would otherwise be a default that
//! nobody asked for. All problems of a file are told at once, each with its line.

mod matches;

pub use matches::{ImagePattern, LabelPattern, Match, image_parts};

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use toml::de::{DeTable, DeValue};

use crate::{
    model::{KeyType, Roots, Sans, word::normalised},
    san,
    shown::Shown,
};

/// All settings, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub roots: Roots,
    /// Names and addresses of this host that every certificate carries as well.
    pub host_names: Sans,
    pub certificates: Certificates,
    pub docker: Docker,
    pub log: Log,
    /// Settings of containers without labels. The first entry that matches a container counts.
    pub matches: Vec<Match>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    pub key_type: KeyType,
    /// How long a database's certificate is valid; always shorter than `ca_lifetime`.
    pub leaf_lifetime: Duration,
    pub ca_lifetime: Duration,
    /// How long before its end a CA of ours is replaced.
    pub ca_renew_before: Duration,
    /// How long clients that know only a former CA are served.
    pub ca_overlap: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// `unix://` and an absolute path.
    pub socket: String,
    /// How long a database has to be ready before it is touched.
    pub settle: Duration,
    /// How long a new container may take until it is proved; then the old one comes back.
    pub ready_timeout: Duration,
    /// How long a database may take to stop before Docker kills it; a longer one of its own counts.
    pub stop_grace: Duration,
    /// How often all containers are listed even without an event.
    pub resync: Duration,
    /// How many containers are worked on at the same time.
    pub parallel: NonZeroUsize,
    /// How long one TLS handshake with a database may take.
    pub probe_timeout: Duration,
    /// Only containers with this label exist for this agent: `key` or `key=value`, as Docker filters. Empty: all.
    pub only: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub level: Level,
    pub format: Format,
}

/// The least that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            roots: Roots { data: "/data/coolify/ssl".into(), state: "/var/lib/dbssl".into() },
            host_names: Sans::new(),
            certificates: Certificates::default(),
            docker: Docker::default(),
            log: Log::default(),
            matches: Vec::new(),
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            key_type: KeyType::default(),
            leaf_lifetime: days(90),
            ca_lifetime: days(3650),
            ca_renew_before: days(365),
            ca_overlap: days(7),
        }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            socket: "unix:///var/run/docker.sock".to_owned(),
            settle: Duration::from_secs(2),
            ready_timeout: Duration::from_secs(120),
            stop_grace: Duration::from_secs(60),
            resync: Duration::from_secs(60),
            parallel: NonZeroUsize::MIN.saturating_add(3),
            probe_timeout: Duration::from_secs(5),
            only: String::new(),
        }
    }
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Settings, LoadError> {
    let text =
        fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|problems| LoadError::Invalid { path: path.to_owned(), problems })
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the config {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// One line for each problem.
    #[error("{}", lines(path, problems))]
    Invalid { path: PathBuf, problems: Vec<Problem> },
}

impl LoadError {
    /// Whether there is no file: fine at the default place, an error where somebody asked for one.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn lines(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<_> =
        problems.iter().map(|p| format!("{}:{}: {}", path.display(), p.line, p.what)).collect();
    lines.join("\n")
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The text of a config file to settings, or all of its problems in the order of their lines.
pub fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What is behind a syntax error cannot be told from what it garbles.
        let problem = |error: &toml::de::Error| Problem {
            line: line_at(text, error.span().map_or(0, |span| span.start)),
            what: format!("not TOML: {}", error.message()),
        };
        let mut problems: Vec<_> = errors.iter().map(problem).collect();
        problems.sort();
        return Err(problems);
    }
    let mut reader = Reader::new(text, document.into_inner());
    let settings = read(&mut reader);
    reader.finish(settings)
}

/// Every key, in the order of the shipped sample; with its table: `docker.settle`.
pub fn keys() -> Vec<String> {
    let mut reader = Reader::new("", DeTable::new());
    read(&mut reader);
    reader.known.iter().map(|&(table, key)| full(table, key)).collect()
}

/// Where dbssl keeps what, checked: also for folders that come from the command line.
pub fn roots(data: &Path, state: &Path) -> Result<Roots, BadRoots> {
    for path in [data, state] {
        if !path.is_absolute() {
            return Err(BadRoots::Relative(path.to_owned()));
        }
        let odd = path.components().any(|part| part == Component::ParentDir) || path.parent().is_none();
        if odd || path.to_str().is_none_or(|text| text.contains(char::is_control)) {
            return Err(BadRoots::Odd(path.to_owned()));
        }
    }
    if state.to_string_lossy().contains([':', ',']) {
        return Err(BadRoots::Separator(state.to_owned()));
    }
    if state.starts_with(data) || data.starts_with(state) {
        return Err(BadRoots::Nested { data: data.to_owned(), state: state.to_owned() });
    }
    Ok(Roots { data: data.to_owned(), state: state.to_owned() })
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    #[error("found {}, allowed: an absolute path", Shown(&.0.to_string_lossy()))]
    Relative(PathBuf),
    #[error(
        "found {}, allowed: the path of a folder, without '..' and control characters",
        Shown(&.0.to_string_lossy())
    )]
    Odd(PathBuf),
    #[error(
        "found {}, allowed: a path without ':' and ',', which separate the parts of a Docker mount",
        Shown(&.0.to_string_lossy())
    )]
    Separator(PathBuf),
    #[error(
        "data-dir {} and state-dir {} must be two folders, neither below the other: Coolify changes owner and \
         mode of all that is in data-dir, and a database then refuses its key",
        Shown(&data.to_string_lossy()),
        Shown(&state.to_string_lossy())
    )]
    Nested { data: PathBuf, state: PathBuf },
}

/// The one list of the keys: what is read here is known, all else is not.
fn read(reader: &mut Reader<'_>) -> Settings {
    let default = Settings::default();
    let data = reader.take("", "data-dir", default.roots.data, |value| string(value).map(PathBuf::from));
    let state = reader.take("", "state-dir", default.roots.state, |value| string(value).map(PathBuf::from));
    let roots = match roots(&data, &state) {
        Ok(roots) => roots,
        Err(error) => {
            let at = if matches!(&error, BadRoots::Relative(path) | BadRoots::Odd(path) if *path == data) {
                "data-dir"
            } else if reader.seen.contains_key(&("", "state-dir")) {
                "state-dir"
            } else {
                "data-dir"
            };
            reader.problem_at("", at, &error.to_string());
            Roots { data, state }
        }
    };
    let host_names = reader.take("", "host-names", default.host_names, names);

    let Certificates { key_type, leaf_lifetime, ca_lifetime, ca_renew_before, ca_overlap } =
        default.certificates;
    let certificates = Certificates {
        key_type: reader.take("certificates", "key-type", key_type, read_key_type),
        leaf_lifetime: reader.take("certificates", "leaf-lifetime", leaf_lifetime, |value| {
            // Past 825 days Apple's clients refuse a certificate, whoever signed it.
            duration(value, MINUTE..=days(825))
        }),
        // X.509 can say no more than the year 9999.
        ca_lifetime: reader
            .take("certificates", "ca-lifetime", ca_lifetime, |value| duration(value, MINUTE..=days(36_500))),
        ca_renew_before: reader.take("certificates", "ca-renew-before", ca_renew_before, |value| {
            duration(value, SECOND..=days(3650))
        }),
        ca_overlap: reader
            .take("certificates", "ca-overlap", ca_overlap, |value| duration(value, SECOND..=days(365))),
    };
    if certificates.leaf_lifetime >= certificates.ca_lifetime {
        let key = ["leaf-lifetime", "ca-lifetime"]
            .into_iter()
            .find(|&key| reader.seen.contains_key(&("certificates", key)))
            .unwrap_or("leaf-lifetime");
        let (leaf, ca) = (certificates.leaf_lifetime, certificates.ca_lifetime);
        reader.problem_at(
            "certificates",
            key,
            &format!("leaf-lifetime ({}) must be shorter than ca-lifetime ({})", text_of(leaf), text_of(ca)),
        );
    }

    let docker = default.docker;
    let docker = Docker {
        socket: reader.take("docker", "socket", docker.socket, socket),
        settle: reader.take("docker", "settle", docker.settle, |v| duration(v, Duration::ZERO..=HOUR)),
        ready_timeout: reader
            .take("docker", "ready-timeout", docker.ready_timeout, |v| duration(v, SECOND..=DAY)),
        stop_grace: reader.take("docker", "stop-grace", docker.stop_grace, |v| duration(v, MINUTE..=DAY)),
        resync: reader.take("docker", "resync", docker.resync, |v| duration(v, SECOND..=DAY)),
        parallel: reader.take("docker", "parallel", docker.parallel, parallel),
        probe_timeout: reader
            .take("docker", "probe-timeout", docker.probe_timeout, |v| duration(v, SECOND..=MINUTE * 10)),
        only: reader.take("docker", "only", docker.only, string),
    };

    let log = Log {
        level: reader.take("log", "level", default.log.level, |value| word(value, &Level::ALL)),
        format: reader.take("log", "format", default.log.format, |value| word(value, &Format::ALL)),
    };
    let matches = matches::read(reader);
    Settings { roots, host_names, certificates, docker, log, matches }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = days(1);

type Key = (&'static str, &'static str);

/// Gives out values by key and remembers which were asked for.
struct Reader<'t> {
    text: &'t str,
    /// By table (empty: none) and key; with the key's place in the text.
    left: BTreeMap<(String, String), (usize, DeValue<'t>)>,
    known: Vec<Key>,
    seen: BTreeMap<Key, usize>,
    problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str, document: DeTable<'t>) -> Self {
        let mut left = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, value) in document {
            let (at, name) = (name.span().start, name.into_inner().into_owned());
            match value.into_inner() {
                DeValue::Table(table) if Self::TABLES.contains(&name.as_str()) => {
                    for (key, value) in table {
                        let (at, key) = (key.span().start, key.into_inner().into_owned());
                        left.insert((name.clone(), key), (at, value.into_inner()));
                    }
                }
                value if Self::TABLES.contains(&name.as_str()) => problems.push(Problem {
                    line: line_at(text, at),
                    what: format!("{name}: found {}, allowed: a table, [{name}]", kind(&value)),
                }),
                value => _ = left.insert((String::new(), name), (at, value)),
            }
        }
        Self { text, left, known: Vec::new(), seen: BTreeMap::new(), problems }
    }

    const TABLES: [&'static str; 3] = ["certificates", "docker", "log"];

    fn take<T>(
        &mut self,
        table: &'static str,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> T {
        self.known.push((table, key));
        let Some((at, value)) = self.left.remove(&(table.to_owned(), key.to_owned())) else { return default };
        self.seen.insert((table, key), at);
        read(&value).unwrap_or_else(|what| {
            self.problem_at(table, key, &what);
            default
        })
    }

    fn problem_at(&mut self, table: &'static str, key: &'static str, what: &str) {
        let at = self.seen.get(&(table, key)).copied().unwrap_or(0);
        self.problem(at, format!("{}: {what}", full(table, key)));
    }

    fn problem(&mut self, at: usize, what: String) {
        self.problems.push(Problem { line: line_at(self.text, at), what });
    }

    fn finish(mut self, settings: Settings) -> Result<Settings, Vec<Problem>> {
        for ((table, key), (at, value)) in std::mem::take(&mut self.left) {
            self.problem(at, self.unknown(&table, &key, &value));
        }
        self.problems.sort();
        if self.problems.is_empty() { Ok(settings) } else { Err(self.problems) }
    }

    fn unknown(&self, table: &str, key: &str, value: &DeValue<'_>) -> String {
        let is_table = match value {
            DeValue::Table(_) => true,
            DeValue::Array(list) => list.iter().any(|one| one.get_ref().is_table()),
            _ => false,
        };
        format!(
            "unknown key {}: did you mean {}?",
            Shown(&full(table, key)),
            self.nearest(table, key, is_table)
        )
    }

    /// The known key that is most like this one, the one in the same table if several are.
    fn nearest(&self, table: &str, key: &str, is_table: bool) -> String {
        let key = normalised(key);
        if is_table && table.is_empty() {
            let tables = Self::TABLES.map(|name| (name, format!("[{name}]")));
            let list = (matches::TABLE, format!("[[{}]]", matches::TABLE));
            let near = tables.into_iter().chain([list]);
            let near = near.min_by_key(|(name, _)| strsim::osa_distance(name, &key));
            return near.map(|(_, written)| written).unwrap_or_default();
        }
        let distance = |&&(known_table, known): &&Key| {
            let elsewhere = known_table != table;
            let by_name = strsim::osa_distance(known, &key);
            let by_all = strsim::osa_distance(&full(known_table, known), &key);
            (by_name.min(by_all), elsewhere)
        };
        self.known.iter().min_by_key(distance).map(|&(table, key)| full(table, key)).unwrap_or_default()
    }
}

fn full(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// What was found, for a message: text as it is, else the kind of value.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => Shown(text).to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        other => format!("a value of type {}", other.type_str()),
    }
}

fn string(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("found {}, allowed: text in quotes", kind(value)))
}

fn duration(value: &DeValue<'_>, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let range = format!("{} to {}", text_of(*allowed.start()), text_of(*allowed.end()));
    let refused =
        || format!("found {}, allowed: a duration such as \"90s\", \"12h\" or \"7d\", {range}", kind(value));
    let text = value.as_str().ok_or_else(refused)?;
    let duration = humantime::parse_duration(text).map_err(|_| refused())?;
    if allowed.contains(&duration) { Ok(duration) } else { Err(refused()) }
}

/// A duration as the config writes it, in the largest unit that is exact.
fn text_of(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match [(86_400, "d"), (3600, "h"), (60, "m")]
        .iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
    {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

fn parallel(value: &DeValue<'_>) -> Result<NonZeroUsize, String> {
    let number =
        value.as_integer().filter(|number| number.radix() == 10).and_then(|n| n.as_str().parse().ok());
    number
        .filter(|number: &NonZeroUsize| number.get() <= 64)
        .ok_or_else(|| format!("found {}, allowed: a number, 1 to 64", kind(value)))
}

fn socket(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let path = text.strip_prefix("unix://").map(Path::new);
    if path.is_some_and(Path::is_absolute) && !text.contains(char::is_control) {
        Ok(text)
    } else {
        Err(format!("found {}, allowed: unix:// and an absolute path: Docker on this host", kind(value)))
    }
}

fn names(value: &DeValue<'_>) -> Result<Sans, String> {
    let refused =
        || format!("found {}, allowed: a list of texts: [\"db.example.com\", \"10.0.0.5\"]", kind(value));
    let mut wrong = Vec::new();
    let mut names = Sans::new();
    for text in value.as_array().ok_or_else(refused)? {
        let text = text.get_ref().as_str().ok_or_else(refused)?;
        match san::parse(text) {
            Ok(name) => _ = names.insert(name),
            Err(why) => wrong.push(format!("{} {why}", Shown(text))),
        }
    }
    if wrong.is_empty() {
        Ok(names)
    } else {
        Err(format!("{}; allowed: DNS names and IP addresses", wrong.join("; ")))
    }
}

fn read_key_type(value: &DeValue<'_>) -> Result<KeyType, String> {
    word(value, &KeyType::ALL).map_err(|refused| {
        let asked = value.as_str().unwrap_or_default().to_lowercase().replace(['-', '_'], "");
        let why = match asked.as_str() {
            "p521" | "secp521r1" => "many clients refuse P-521",
            "ed25519" | "ed448" => "libpq's channel binding fails with Edwards keys",
            "rsa1024" | "rsa512" => "clients refuse RSA below 2048 bits",
            "rsa4096" | "rsa8192" => "larger RSA keys slow down each connection for no gain over rsa3072",
            _ => return refused,
        };
        format!("{refused}: {why}")
    })
}

trait Word: Copy {
    fn word(self) -> &'static str;
}

impl Word for KeyType {
    fn word(self) -> &'static str {
        Self::word(self)
    }
}

fn word<T: Word>(value: &DeValue<'_>, all: &[T]) -> Result<T, String> {
    let found = value.as_str().and_then(|found| all.iter().find(|one| one.word() == found));
    found.copied().ok_or_else(|| {
        let allowed: Vec<_> = all.iter().map(|one| format!("\"{}\"", one.word())).collect();
        format!("found {}, allowed: {}", kind(value), allowed.join(", "))
    })
}

macro_rules! words {
    ($($type:ty { $($variant:ident = $word:literal),+ })+) => {$(
        impl $type {
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// As the config writes it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Word for $type {
            fn word(self) -> &'static str {
                Self::word(self)
            }
        }
    )+};
}
words! {
    Level { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
    Format { Text = "text", Json = "json" }
}
