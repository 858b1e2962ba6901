//! What is known of each kind of database, as data: paths, flags, ports, wire preambles and the scripts to run inside
//! its container. One file per engine; adding one touches its file, [`spec`] and [`mod@detect`].
//!
//! Nothing here opens a file or a socket: values in, values out. Where to start reading: [`Spec`], then [`postgres`].

pub mod client_cert;
mod command;
pub mod detect;
pub mod healthcheck;
pub mod mariadb;
pub mod mongodb;
pub mod mysql;
#[cfg(test)]
mod orders;
pub mod pg_hba;
pub mod postgres;
pub mod redis;
pub mod script;
#[cfg(test)]
mod shells;
pub mod url;

use std::{collections::BTreeMap, fmt};

use crate::model::{ClientAuth, Engine, Mode};

pub use command::shell_word;
pub use detect::detect;
pub use healthcheck::Check;
pub use script::ExecScript;

/// A container's environment, or an image's.
pub type Env = BTreeMap<String, String>;

/// What a server is to insist on towards its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub mode: Mode,
    pub client_auth: ClientAuth,
}

impl Demand {
    /// Every combination.
    pub fn all() -> impl Iterator<Item = Self> {
        Mode::ALL.into_iter().flat_map(|mode| ClientAuth::ALL.map(|client_auth| Self { mode, client_auth }))
    }

    pub fn requires_certificates(self) -> bool {
        self.client_auth == ClientAuth::Required
    }

    /// Whether some client is let in under the one and not under the other.
    pub fn differs_from(self, other: Self) -> bool {
        self.mode.enforces() != other.mode.enforces()
            || self.requires_certificates() != other.requires_certificates()
    }
}

impl From<Mode> for Demand {
    fn from(mode: Mode) -> Self {
        Self { mode, client_auth: ClientAuth::None }
    }
}

/// All that dbssl knows of one engine.
///
/// `command` is always what the container runs, as a list: the entrypoint followed by the command, or the command
/// alone. Both give the same answers.
pub trait Spec: Sync {
    fn engine(&self) -> Engine;

    /// Where the certificate directory is mounted in the container.
    fn certificate_directory(&self, command: &[String]) -> &'static str;

    /// The files in the certificate directory of a server that asks its clients for this.
    fn files(&self, client_auth: ClientAuth) -> &'static [File];

    /// The flags that are appended to the command of a server with this certificate directory.
    fn flags(&self, directory: &str, demand: Demand) -> Vec<String>;

    /// What the command already says about TLS.
    fn wired(&self, command: &[String], demand: Demand) -> Wired;

    /// Whether the flags are there, for whichever demand.
    fn is_wired(&self, command: &[String]) -> bool {
        Demand::all().any(|demand| self.wired(command, demand) == Wired::Ours)
    }

    /// `Config.Cmd` with the flags for this demand. Those that dbssl appended for another one are taken out.
    fn wire(&self, launch: Launch<'_>, demand: Demand) -> Vec<String> {
        let directory = self.certificate_directory(&launch.words());
        let mut command = command::without_tails(launch.command, |demand| self.flags(directory, demand));
        command.extend(self.flags(directory, demand));
        command
    }

    /// How a server of this kind is made to turn away clients that have no certificate.
    fn certificates(&self) -> Certificates;

    /// Whether no handshake comes about without a client's certificate under this command.
    fn demands_certificates(&self, _command: &[String]) -> bool {
        false
    }

    /// Whether [`Spec::flags`] can be appended to what the container runs, so that they reach the server.
    fn command_shape(&self, image: Launch<'_>, container: Launch<'_>) -> Shape {
        command::shape(self.server_programs(), image, container)
    }

    /// File names of the server's program, as they occur in commands.
    fn server_programs(&self) -> &'static [&'static str];

    /// The port that serves TLS, in the container.
    fn port(&self, command: &[String], env: &Env) -> u16;

    /// The port that would serve plaintext in the container: [`Spec::port`] unless the engine has one of its own for it.
    fn plaintext_port(&self, command: &[String], env: &Env) -> u16 {
        self.port(command, env)
    }

    /// The directory in the container that must be on a mount, or its data would be lost with the container.
    fn data_directory(&self, command: &[String], env: &Env) -> String;

    /// User names to look up in the image's `/etc/passwd`, the likeliest first: who must be able to read the key.
    fn server_users(&self) -> &'static [&'static str];

    /// Paths in the container's own layer that come and go with the process: changes at or below them lose nothing.
    /// Directories above a mount also show up as changed; those are the caller's to ignore.
    fn volatile_paths(&self) -> &'static [&'static str];

    /// Whether the server makes certificates for itself, and a leaf of this subject and issuer (RFC 4514) is one.
    fn makes_itself(&self, _subject: &str, _issuer: &str) -> bool {
        false
    }

    /// What becomes of the health check `test` (`Config.Healthcheck.Test`) under this demand.
    fn healthcheck(&self, _test: &[String], _command: &[String], _env: &Env, _demand: Demand) -> Check {
        Check::Works
    }

    /// Whether the health check may be one that was adapted: these name a file of the certificate directory.
    fn is_adapted(&self, test: &[String], command: &[String]) -> bool {
        let files = format!("{}/", self.certificate_directory(command));
        test.iter().any(|word| word.contains(&files))
    }

    /// The option, if one does, that makes the server one of several which speak to each other: they must turn to TLS
    /// together.
    fn one_of_several(&self, _command: &[String]) -> Option<String> {
        None
    }

    /// What it takes to refuse plaintext.
    fn enforcement(&self) -> Enforcement {
        Enforcement::Flags
    }

    /// How the running server is given an order, or asked; `None` where there is no such way.
    fn order(&self, order: Order, command: &[String], env: &Env) -> Option<ExecScript>;

    /// What is said on the wire before TLS.
    fn preamble(&self) -> Preamble;
}

/// All that is known of `engine`.
pub fn spec(engine: Engine) -> &'static dyn Spec {
    match engine {
        Engine::Postgres => &postgres::Postgres,
        Engine::Mysql => &mysql::Mysql,
        Engine::Mariadb => &mariadb::Mariadb,
        Engine::Redis => &redis::Redis,
        Engine::Mongodb => &mongodb::Mongodb,
    }
}

/// One file of a certificate directory. They all belong to the server's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub name: &'static str,
    pub holds: Holds,
    /// Permission bits. PostgreSQL refuses a key that its group or others may read.
    pub mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The leaf, then the rest of its chain (PEM).
    Chain,
    /// The leaf's key (PEM, PKCS#8).
    Key,
    /// The leaf, the rest of its chain and the leaf's key in one file (PEM).
    ChainAndKey,
    /// The database's own copy of the CA (PEM).
    Ca,
    /// What clients within the container show who have nothing but its files: a certificate, then the rest of its chain
    /// (PEM).
    ClientChain,
    /// The key of that (PEM, PKCS#8).
    ClientKey,
    /// Both in one file (PEM).
    ClientChainAndKey,
}

impl Holds {
    pub const fn is_of_a_client(self) -> bool {
        matches!(self, Self::ClientChain | Self::ClientKey | Self::ClientChainAndKey)
    }
}

/// `server.crt`, `server.key` and `coolify-ca.crt`: Coolify's names, which every engine but MongoDB uses.
const SEPARATE_FILES: &[File] = &[
    File { name: "server.crt", holds: Holds::Chain, mode: 0o644 },
    File { name: "server.key", holds: Holds::Key, mode: 0o600 },
    File { name: "coolify-ca.crt", holds: Holds::Ca, mode: 0o644 },
];

/// The same, and a client's certificate beside them: `redis-cli` has no way in but the port that demands one. It is one of
/// its own, so that a server's certificate never is a client's.
const SEPARATE_FILES_AND_CLIENT: &[File] = &[
    SEPARATE_FILES[0],
    SEPARATE_FILES[1],
    SEPARATE_FILES[2],
    File { name: "client.crt", holds: Holds::ClientChain, mode: 0o644 },
    File { name: "client.key", holds: Holds::ClientKey, mode: 0o600 },
];

/// What every container may write to without anybody missing it afterwards.
macro_rules! volatile_paths {
    ($($more:literal),* $(,)?) => {
        &[
            "/tmp", "/var/tmp", "/run", "/var/run", "/dev", "/proc", "/sys", "/.dockerenv", "/sbin/docker-init", "/usr/sbin/docker-init",
            "/root/.bash_history", "/root/.ash_history", "/root/.lesshst", "/root/.viminfo",
            $($more),*
        ]
    };
}
use volatile_paths;

/// What a command says about TLS, whoever wrote it. Of a setting that is given twice the last one counts, as it does
/// for the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wired {
    /// TLS is on, at our paths: no flag is missing.
    Ours,
    /// Nothing that contradicts ours, and not all of it: the flags can be appended.
    Absent,
    /// TLS is on with a certificate from elsewhere: somebody else's, to be left alone. Names the flags that say so.
    Foreign(Vec<String>),
    /// The user's own flags contradict ours. Names them.
    Conflict(Vec<String>),
}

/// What Docker was told to run: `Config.Entrypoint` and `Config.Cmd`, of an image or of a container.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub entrypoint: &'a [String],
    pub command: &'a [String],
}

impl Launch<'_> {
    /// All that is run, as one list.
    pub fn words(&self) -> Vec<String> {
        self.entrypoint.iter().chain(self.command).cloned().collect()
    }
}

/// Whether flags can be appended to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Appendable,
    ByHand(Obstacle),
}

/// Why flags appended to a command might not reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    EntrypointCleared,
    EntrypointReplaced {
        by: String,
    },
    ShellString {
        shell: String,
    },
    UnknownProgram {
        program: String,
    },
    EmptyCommand,
    /// The command only prints something, or is not the server as a server.
    NotAServer {
        argument: String,
    },
    /// Whatever follows is no flag any more.
    EndOfFlags,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntrypointCleared => f.write_str("the image's entrypoint is cleared"),
            Self::EntrypointReplaced { by } => write!(f, "the image's entrypoint is replaced by {by:?}"),
            Self::ShellString { shell } => write!(f, "the command is a string for the shell {shell:?}"),
            Self::UnknownProgram { program } => {
                write!(f, "the command starts {program:?}, which is not the server")
            }
            Self::EmptyCommand => f.write_str("the command is empty"),
            Self::NotAServer { argument } => write!(f, "{argument:?} does not start a server"),
            Self::EndOfFlags => f.write_str("the command holds \"--\", behind which flags are not read"),
        }
    }
}

/// What is said on the wire before TLS, and how the same server is asked for plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// The client asks for TLS with eight bytes, the server answers with one.
    PostgresSslRequest,
    /// The server greets, the client answers with a cut-off login that asks for TLS.
    MysqlGreeting,
    /// TLS from the first byte on. In plaintext the server would answer this.
    Direct(PlainHello),
}

/// The harmless first request of a protocol that knows no negotiation of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHello {
    RedisPing,
    MongodbHello,
}

/// What it takes to make a server refuse plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// A block of rules in PostgreSQL's `pg_hba.conf`: see [`pg_hba`].
    Rules,
    /// The flags do it.
    Flags,
}

/// How servers of a kind turn away clients without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// By rules in `pg_hba.conf`.
    Rules,
    /// By the flags.
    Flags,
    /// Only of one account or another; the text says what to do.
    PerAccount(&'static str),
}

/// What a running server is told or asked, by a client in its own container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take up the files in the certificate directory. Answered as [`script::parse_done`] reads it.
    Reload,
    /// Refuse plaintext, as the flags say, though somebody told the running server otherwise. Answered likewise.
    RefusePlaintext,
    /// Do you refuse plaintext? Answered as [`script::parse_answer`] reads it.
    RefusesPlaintext,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_its_own_spec_and_a_complete_set_of_files() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            assert_eq!(spec.engine(), engine);
            assert!(spec.certificate_directory(&[]).starts_with('/'));
            assert!(!spec.server_users().is_empty() && !spec.server_programs().is_empty());
            for asked in ClientAuth::ALL {
                let files = spec.files(asked);
                let holds: Vec<_> = files.iter().map(|file| file.holds).collect();
                assert!(holds.contains(&Holds::Ca));
                assert!(
                    holds.contains(&Holds::ChainAndKey)
                        || holds.contains(&Holds::Chain) && holds.contains(&Holds::Key)
                );
                for file in files {
                    let secret = matches!(
                        file.holds,
                        Holds::Key | Holds::ChainAndKey | Holds::ClientKey | Holds::ClientChainAndKey
                    );
                    assert_eq!(file.mode, if secret { 0o600 } else { 0o644 }, "{}", file.name);
                    assert!(!file.name.contains('/'));
                }
                // Who has the socket needs none; nobody has one who is not asked for it.
                let client = holds.iter().any(|holds| holds.is_of_a_client());
                let needed = asked == ClientAuth::Required && spec.certificates() == Certificates::Flags;
                assert_eq!(client, needed, "{engine} {asked}");
            }
        }
    }

    #[test]
    fn each_engine_recognises_its_own_flags_in_every_mode() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            for demand in Demand::all() {
                let plain = [spec.server_programs()[0].to_owned()];
                assert_eq!(spec.wired(&plain, demand), Wired::Absent, "{engine} {demand:?}");
                let wired = spec.wire(Launch { entrypoint: &[], command: &plain }, demand);
                assert_eq!(spec.wired(&wired, demand), Wired::Ours, "{engine} {demand:?}");
                // Done once more, it is the same: a redeploy that is repeated must not loop.
                assert_eq!(spec.wire(Launch { entrypoint: &[], command: &wired }, demand), wired);
                let demands = demand.requires_certificates() && spec.certificates() == Certificates::Flags;
                assert_eq!(spec.demands_certificates(&wired), demands, "{engine} {demand:?}");
                assert!(!spec.demands_certificates(&plain), "{engine}");
            }
        }
    }

    #[test]
    fn flags_for_another_demand_are_taken_out_again() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            let plain = [spec.server_programs()[0].to_owned()];
            let directory = spec.certificate_directory(&plain);
            let wire = |command: &[String], demand| spec.wire(Launch { entrypoint: &[], command }, demand);
            for from in Demand::all() {
                let wired = wire(&plain, from);
                for to in Demand::all() {
                    assert_eq!(wire(&wired, to), wire(&plain, to), "{engine} {from:?} {to:?}");
                    // Its operator has said nothing that could contradict.
                    assert!(matches!(spec.wired(&wired, to), Wired::Ours | Wired::Absent), "{engine} {to:?}");
                    if from.differs_from(to) && spec.flags(directory, from) != spec.flags(directory, to) {
                        let kept =
                            spec.certificates() == Certificates::Rules && to.client_auth == ClientAuth::None;
                        assert_eq!(
                            spec.wired(&wired, to) == Wired::Absent,
                            !kept,
                            "{engine} {from:?} {to:?}"
                        );
                    }
                }
            }
        }
    }

    /// A stop of the database for a server that only asks, and does not insist, would be for nothing.
    #[test]
    fn a_server_that_goes_on_asking_is_not_stopped_for_that() {
        let asks = |mode, client_auth| Demand { mode, client_auth };
        for engine in Engine::ALL {
            let spec = spec(engine);
            let plain = [spec.server_programs()[0].to_owned()];
            for mode in Mode::ALL {
                let wired =
                    spec.wire(Launch { entrypoint: &[], command: &plain }, asks(mode, ClientAuth::Optional));
                assert_eq!(spec.wired(&wired, asks(mode, ClientAuth::None)), Wired::Ours, "{engine} {mode}");
            }
        }
    }

    #[test]
    fn flags_for_another_mode_are_taken_out_again() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            let plain = [spec.server_programs()[0].to_owned()];
            let wire = |command: &[String], mode| spec.wire(Launch { entrypoint: &[], command }, mode);
            for (from, to) in [(Mode::VerifyFull, Mode::Allow), (Mode::Prefer, Mode::Require)] {
                let (from, to) = (Demand::from(from), Demand::from(to));
                let wired = wire(&plain, from);
                assert_eq!(wire(&wired, to), wire(&plain, to), "{engine}");
                let differs = spec.enforcement() == Enforcement::Flags;
                assert_eq!(spec.wired(&wired, to) == Wired::Absent, differs, "{engine}");
            }
        }
    }

    #[test]
    fn flags_name_only_files_that_the_certificate_directory_holds() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            let directory = spec.certificate_directory(&[]);
            let within = format!("{directory}/");
            for flag in Demand::all().flat_map(|demand| spec.flags(directory, demand)) {
                if let Some((_, name)) = flag.split_once(&within) {
                    assert!(spec.files(ClientAuth::None).iter().any(|file| file.name == name), "{flag}");
                }
            }
        }
    }

    #[test]
    fn a_health_check_that_was_adapted_is_known_by_its_options() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        for (engine, server, client) in [
            (Engine::Mariadb, "mariadbd", "mariadb -h 127.0.0.1 -e 'SELECT 1'"),
            (Engine::Redis, "redis-server", "redis-cli ping"),
            (Engine::Redis, "keydb-server", "keydb-cli ping"),
            (Engine::Mongodb, "mongod", "mongosh --eval 'db.stats()'"),
        ] {
            let (spec, command) = (spec(engine), list(&[server]));
            for test in [list(&["CMD-SHELL", client]), list(&[&["CMD"], &*words(client)].concat())] {
                let Check::Adapted(adapted) =
                    spec.healthcheck(&test, &command, &Env::new(), Mode::Require.into())
                else {
                    panic!("{engine}: {test:?} has to be adapted")
                };
                assert!(spec.is_adapted(&adapted, &command), "{adapted:?}");
                assert!(!spec.is_adapted(&test, &command), "{test:?}");
            }
        }
        assert!(!spec(Engine::Redis).is_adapted(&[], &[]));
    }

    #[test]
    fn every_engine_can_be_told_to_reload() {
        let command = [String::new()];
        for engine in Engine::ALL {
            let script = spec(engine).order(Order::Reload, &command, &Env::new());
            assert!(script.is_some_and(|script| script.argv[..2] == ["/bin/sh", "-c"]), "{engine}");
        }
    }
}
