//! What is known of each kind of database, as data: paths, flags, ports, wire preambles and the scripts to run inside
//! its container. One file per engine; adding one touches its file, [`spec`] and [`mod@detect`].
//!
//! Nothing here opens a file or a socket: values in, values out. Where to start reading: [`Spec`], then [`postgres`].

mod command;
pub mod detect;
pub mod mariadb;
pub mod mongodb;
pub mod mysql;
pub mod pg_hba;
pub mod postgres;
pub mod redis;

use std::{collections::BTreeMap, fmt};

use crate::model::{Engine, Mode};

pub use detect::detect;

/// A container's environment, or an image's.
pub type Env = BTreeMap<String, String>;

/// All that dbssl knows of one engine.
///
/// `command` is always what the container runs, as a list: the entrypoint followed by the command, or the command
/// alone. Both give the same answers.
pub trait Spec: Sync {
    fn engine(&self) -> Engine;

    /// Whether this version of dbssl gives this engine TLS. What is known of the others is already here.
    fn supported(&self) -> bool;

    /// Where the certificate directory is mounted in the container.
    fn certificate_directory(&self) -> &'static str;

    /// The files in the certificate directory.
    fn files(&self) -> &'static [File];

    /// The flags that are appended to the server's command.
    fn flags(&self, mode: Mode) -> Vec<String>;

    /// What the command already says about TLS.
    fn wired(&self, command: &[String], mode: Mode) -> Wired;

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
}

/// `server.crt`, `server.key` and `coolify-ca.crt`: Coolify's names, which every engine but MongoDB uses.
const SEPARATE_FILES: &[File] = &[
    File { name: "server.crt", holds: Holds::Chain, mode: 0o644 },
    File { name: "server.key", holds: Holds::Key, mode: 0o600 },
    File { name: "coolify-ca.crt", holds: Holds::Ca, mode: 0o644 },
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

/// A script to run inside a container by `exec`, as the database's user.
///
/// It is POSIX sh and known to work in dash and in busybox. Whatever comes from outside is a positional parameter or
/// standard input, never part of the script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecScript {
    pub argv: Vec<String>,
    /// The script knows how many bytes these are: it does not need the end of the stream.
    pub stdin: Option<Vec<u8>>,
    /// More bytes than this on standard output or on standard error are no answer of ours: stop reading.
    pub output_limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_its_own_spec_and_a_complete_set_of_files() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            assert_eq!(spec.engine(), engine);
            assert!(spec.certificate_directory().starts_with('/'));
            assert!(!spec.server_users().is_empty() && !spec.server_programs().is_empty());
            let holds: Vec<_> = spec.files().iter().map(|file| file.holds).collect();
            assert!(holds.contains(&Holds::Ca));
            assert!(
                holds.contains(&Holds::ChainAndKey)
                    || holds.contains(&Holds::Chain) && holds.contains(&Holds::Key)
            );
            for file in spec.files() {
                let secret = matches!(file.holds, Holds::Key | Holds::ChainAndKey);
                assert_eq!(file.mode, if secret { 0o600 } else { 0o644 }, "{}", file.name);
                assert!(!file.name.contains('/'));
            }
        }
    }

    #[test]
    fn each_engine_recognises_its_own_flags_in_every_mode() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            for mode in Mode::ALL {
                let mut command = vec![spec.server_programs()[0].to_owned()];
                assert_eq!(spec.wired(&command, mode), Wired::Absent, "{engine} {mode}");
                command.extend(spec.flags(mode));
                assert_eq!(spec.wired(&command, mode), Wired::Ours, "{engine} {mode}");
                // Appended once more, they still are: a redeploy that is repeated must not loop.
                command.extend(spec.flags(mode));
                assert_eq!(spec.wired(&command, mode), Wired::Ours, "{engine} {mode}");
            }
        }
    }

    #[test]
    fn flags_name_only_files_that_the_certificate_directory_holds() {
        for engine in Engine::ALL {
            let spec = spec(engine);
            let directory = format!("{}/", spec.certificate_directory());
            for flag in spec.flags(Mode::VerifyFull) {
                if let Some((_, name)) = flag.split_once(&directory) {
                    assert!(spec.files().iter().any(|file| file.name == name), "{flag}");
                }
            }
        }
    }

    #[test]
    fn only_postgresql_is_supported_yet() {
        let supported: Vec<_> = Engine::ALL.into_iter().filter(|engine| spec(*engine).supported()).collect();
        assert_eq!(supported, [Engine::Postgres]);
    }
}
