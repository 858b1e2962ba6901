//! MySQL and Percona Server. Known, not supported yet.
//!
//! Sources: MySQL's manual, "Server Command Options" and "Using Encrypted Connections".

use super::{
    Env, File, Preamble, SEPARATE_FILES, Spec, Wired,
    command::{LongOption, last, long_options, server_arguments},
    volatile_paths,
};
use crate::model::{Engine, Mode};

const PROGRAMS: &[&str] = &["mysqld"];
pub(super) const DIRECTORY: &str = "/etc/mysql/certs";
const PATHS: [(&str, &str); 3] = [
    ("ssl-cert", "/etc/mysql/certs/server.crt"),
    ("ssl-key", "/etc/mysql/certs/server.key"),
    ("ssl-ca", "/etc/mysql/certs/coolify-ca.crt"),
];

pub struct Mysql;

impl Spec for Mysql {
    fn engine(&self) -> Engine {
        Engine::Mysql
    }

    fn supported(&self) -> bool {
        false
    }

    fn certificate_directory(&self) -> &'static str {
        DIRECTORY
    }

    fn files(&self) -> &'static [File] {
        SEPARATE_FILES
    }

    fn flags(&self, mode: Mode) -> Vec<String> {
        flags(mode)
    }

    fn wired(&self, command: &[String], mode: Mode) -> Wired {
        wired(&options(PROGRAMS, command), mode)
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        port(&options(PROGRAMS, command))
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        data_directory(&options(PROGRAMS, command))
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["mysql"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!("/root/.mysql_history", "/var/lib/mysql-files")
    }

    fn preamble(&self) -> Preamble {
        Preamble::MysqlGreeting
    }
}

pub(super) fn options(programs: &[&str], command: &[String]) -> Vec<LongOption> {
    long_options(&server_arguments(programs, command))
}

pub(super) fn flags(mode: Mode) -> Vec<String> {
    let paths = PATHS.iter().map(|(name, path)| format!("--{name}={path}"));
    paths.chain(mode.enforces().then(|| "--require-secure-transport=ON".to_owned())).collect()
}

pub(super) fn wired(options: &[LongOption], mode: Mode) -> Wired {
    let disabled = [last(options, "skip-ssl"), last(options, "ssl").filter(|ssl| is_off(ssl))];
    if let Some(off) = disabled.into_iter().flatten().next() {
        return Wired::Conflict(vec![off.written.clone()]);
    }
    let elsewhere: Vec<_> = PATHS
        .iter()
        .filter_map(|(name, path)| {
            last(options, name).filter(|option| option.value.as_deref() != Some(*path))
        })
        .map(|option| option.written.clone())
        .collect();
    if !elsewhere.is_empty() {
        return Wired::Foreign(elsewhere);
    }
    let secure = last(options, "require-secure-transport");
    match secure {
        Some(secure) if mode.enforces() && is_off(secure) => Wired::Conflict(vec![secure.written.clone()]),
        _ if PATHS.iter().any(|(name, _)| last(options, name).is_none()) => Wired::Absent,
        None if mode.enforces() => Wired::Absent,
        _ => Wired::Ours,
    }
}

fn is_off(option: &LongOption) -> bool {
    let off = |value: &str| ["off", "0", "false"].iter().any(|word| value.eq_ignore_ascii_case(word));
    option.value.as_deref().is_some_and(off)
}

pub(super) fn port(options: &[LongOption]) -> u16 {
    last(options, "port").and_then(|option| option.value.as_deref()?.parse().ok()).unwrap_or(3306)
}

pub(super) fn data_directory(options: &[LongOption]) -> String {
    last(options, "datadir")
        .and_then(|option| option.value.clone())
        .unwrap_or_else(|| "/var/lib/mysql".to_owned())
}
