//! Redis, Valkey and KeyDB. Known, not supported yet: KeyDB's directory is `/etc/keydb/certs`, and an enforcing mode
//! closes the port that a health check uses.
//!
//! Source: Redis' documentation, "TLS".

use super::{
    Env, File, PlainHello, Preamble, SEPARATE_FILES, Spec, Wired,
    command::{LongOption, last, long_options, server_arguments},
    volatile_paths,
};
use crate::model::{Engine, Mode};

const PROGRAMS: &[&str] = &["redis-server", "valkey-server", "keydb-server"];
const TLS_PORT: u16 = 6380;
const PATHS: [(&str, &str); 3] = [
    ("tls-cert-file", "/etc/redis/certs/server.crt"),
    ("tls-key-file", "/etc/redis/certs/server.key"),
    ("tls-ca-cert-file", "/etc/redis/certs/coolify-ca.crt"),
];

pub struct Redis;

impl Spec for Redis {
    fn engine(&self) -> Engine {
        Engine::Redis
    }

    fn supported(&self) -> bool {
        false
    }

    fn certificate_directory(&self) -> &'static str {
        "/etc/redis/certs"
    }

    fn files(&self) -> &'static [File] {
        SEPARATE_FILES
    }

    fn flags(&self, mode: Mode) -> Vec<String> {
        let mut flags = vec!["--tls-port".to_owned(), TLS_PORT.to_string()];
        for (name, path) in PATHS {
            flags.extend([format!("--{name}"), path.to_owned()]);
        }
        flags.extend(["--tls-auth-clients", "optional"].map(str::to_owned));
        if mode.enforces() {
            flags.extend(["--port", "0"].map(str::to_owned));
        }
        flags
    }

    fn wired(&self, command: &[String], mode: Mode) -> Wired {
        let options = options(command);
        let elsewhere: Vec<_> = PATHS
            .iter()
            .filter_map(|(name, path)| {
                last(&options, name).filter(|option| option.value.as_deref() != Some(*path))
            })
            .map(|option| option.written.clone())
            .collect();
        if !elsewhere.is_empty() {
            return Wired::Foreign(elsewhere);
        }
        let tls_port = last(&options, "tls-port");
        if let Some(closed) = tls_port.filter(|option| option.value.as_deref() == Some("0")) {
            return Wired::Conflict(vec![closed.written.clone()]);
        }
        let missing = tls_port.is_none() || PATHS.iter().any(|(name, _)| last(&options, name).is_none());
        let open = last(&options, "port").is_none_or(|option| option.value.as_deref() != Some("0"));
        if missing || mode.enforces() && open { Wired::Absent } else { Wired::Ours }
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        number(&options(command), "tls-port").filter(|port| *port != 0).unwrap_or(TLS_PORT)
    }

    fn plaintext_port(&self, command: &[String], _env: &Env) -> u16 {
        // The last one may be our own `--port 0`: what the operator opened stands before it.
        let options = options(command);
        let ports = options.iter().rev().filter(|option| option.name == "port");
        ports
            .filter_map(|option| option.value.as_deref()?.parse().ok())
            .find(|port| *port != 0)
            .unwrap_or(6379)
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        last(&options(command), "dir")
            .and_then(|option| option.value.clone())
            .unwrap_or_else(|| "/data".to_owned())
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["redis", "valkey", "keydb"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!("/root/.rediscli_history", "/root/.valkeycli_history")
    }

    fn preamble(&self) -> Preamble {
        Preamble::Direct(PlainHello::RedisPing)
    }
}

fn options(command: &[String]) -> Vec<LongOption> {
    long_options(&server_arguments(PROGRAMS, command))
}

fn number(options: &[LongOption], name: &str) -> Option<u16> {
    last(options, name)?.value.as_deref()?.parse().ok()
}
