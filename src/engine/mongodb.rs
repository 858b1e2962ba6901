//! MongoDB and Percona Server for MongoDB. Known, not supported yet.
//!
//! Source: MongoDB's manual, "mongod" (TLS options).

use super::{
    Env, File, Holds, PlainHello, Preamble, Spec, Wired,
    command::{LongOption, last, long_options, server_arguments},
    volatile_paths,
};
use crate::model::{Engine, Mode};

const PROGRAMS: &[&str] = &["mongod"];
const PATHS: [(&str, &str); 2] =
    [("tlsCertificateKeyFile", "/etc/mongo/certs/server.pem"), ("tlsCAFile", "/etc/mongo/certs/ca.pem")];

pub struct Mongodb;

impl Spec for Mongodb {
    fn engine(&self) -> Engine {
        Engine::Mongodb
    }

    fn supported(&self) -> bool {
        false
    }

    fn certificate_directory(&self) -> &'static str {
        "/etc/mongo/certs"
    }

    fn files(&self) -> &'static [File] {
        &[
            File { name: "server.pem", holds: Holds::ChainAndKey, mode: 0o600 },
            File { name: "ca.pem", holds: Holds::Ca, mode: 0o644 },
        ]
    }

    fn flags(&self, mode: Mode) -> Vec<String> {
        let mut flags = vec![format!("--tlsMode={}", tls_mode(mode))];
        flags.extend(PATHS.iter().map(|(name, path)| format!("--{name}={path}")));
        flags.push("--tlsAllowConnectionsWithoutCertificates".to_owned());
        flags
    }

    fn wired(&self, command: &[String], mode: Mode) -> Wired {
        let options = options(command);
        let of = |name: &str| last(&options, &name.to_ascii_lowercase());
        let tls = of("tlsMode");
        let value = tls.and_then(|option| option.value.as_deref()).unwrap_or_default();
        if let Some(off) = tls.filter(|_| value == "disabled") {
            return Wired::Conflict(vec![off.written.clone()]);
        }
        let elsewhere: Vec<_> = PATHS
            .iter()
            .filter_map(|(name, path)| of(name).filter(|option| option.value.as_deref() != Some(*path)))
            .map(|option| option.written.clone())
            .collect();
        if !elsewhere.is_empty() {
            return Wired::Foreign(elsewhere);
        }
        if tls.is_none() || PATHS.iter().any(|(name, _)| of(name).is_none()) {
            return Wired::Absent;
        }
        // Too weak a mode can be raised by the flag that comes last.
        if mode.enforces() && value != "requireTLS" { Wired::Absent } else { Wired::Ours }
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        last(&options(command), "port")
            .and_then(|option| option.value.as_deref()?.parse().ok())
            .unwrap_or(27017)
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        last(&options(command), "dbpath")
            .and_then(|option| option.value.clone())
            .unwrap_or_else(|| "/data/db".to_owned())
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["mongodb", "mongod"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!(
            "/root/.mongodb",
            "/root/.mongosh",
            "/root/.dbshell",
            "/data/db/.mongodb",
            "/data/db/.mongosh"
        )
    }

    fn preamble(&self) -> Preamble {
        Preamble::Direct(PlainHello::MongodbHello)
    }
}

const fn tls_mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Allow => "allowTLS",
        Mode::Prefer => "preferTLS",
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => "requireTLS",
    }
}

fn options(command: &[String]) -> Vec<LongOption> {
    long_options(&server_arguments(PROGRAMS, command))
}
