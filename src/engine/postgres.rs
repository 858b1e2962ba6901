//! PostgreSQL and what is built on it (PostGIS, pgvector, TimescaleDB, …).
//!
//! Sources: the manual's pages "postgres" (command line), "Secure TCP/IP Connections with SSL", "File Locations"; and
//! `postmaster.c`, `guc.c` where the manual is silent. How `pg_hba.conf` is read, written and put in force:
//! [`exec`] and [`super::pg_hba`].

pub mod exec;

use std::borrow::Cow;

use super::{
    Certificates, Check, Demand, Enforcement, Env, ExecScript, File, Order, Preamble, SEPARATE_FILES, Spec,
    Wired,
    command::server_arguments,
    healthcheck::{Client, Need, Trouble},
    volatile_paths,
};
use crate::model::{ClientAuth, Engine};

const DIRECTORY: &str = "/var/lib/postgresql/certs";
const CERTIFICATE: &str = "/var/lib/postgresql/certs/server.crt";
const KEY: &str = "/var/lib/postgresql/certs/server.key";
const CA: &str = "/var/lib/postgresql/certs/coolify-ca.crt";
const PROGRAMS: &[&str] = &["postgres", "postmaster"];
/// `pg_isready` takes a refusal for a sign of life.
const CLIENT: Client<'_> =
    Client { programs: &["psql", "pg_isready"], options: &[], ports: None, done_by: &[], beyond_us: &[] };
const DATA_DIRECTORY: &str = "/var/lib/postgresql/data";

pub struct Postgres;

impl Spec for Postgres {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn certificate_directory(&self, _command: &[String]) -> &'static str {
        DIRECTORY
    }

    fn files(&self, _client_auth: ClientAuth) -> &'static [File] {
        SEPARATE_FILES
    }

    /// The same in every mode: whoever is refused is so by `pg_hba.conf`, not by a flag. Certificates are asked for
    /// wherever there is a CA to check them against, and the rules of `pg_hba.conf` can demand them only there.
    fn flags(&self, _directory: &str, demand: Demand) -> Vec<String> {
        let mut settings =
            vec!["ssl=on".to_owned(), format!("ssl_cert_file={CERTIFICATE}"), format!("ssl_key_file={KEY}")];
        if demand.client_auth != ClientAuth::None {
            settings.push(format!("ssl_ca_file={CA}"));
        }
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
    }

    fn wired(&self, command: &[String], demand: Demand) -> Wired {
        let settings = settings_in(command);
        let ca = last(&settings, "ssl_ca_file").filter(|_| demand.client_auth != ClientAuth::None);
        if let Some(ca) = ca.filter(|setting| clean_path(&setting.value) != CA) {
            return Wired::Conflict(vec![ca.written.clone()]);
        }
        let ssl = last(&settings, "ssl");
        let files = [(last(&settings, "ssl_cert_file"), CERTIFICATE), (last(&settings, "ssl_key_file"), KEY)];
        let is_on = ssl.map(|setting| boolean(&setting.value));
        let elsewhere: Vec<_> = files
            .iter()
            .filter_map(|(setting, ours)| setting.filter(|setting| clean_path(&setting.value) != *ours))
            .map(|setting| setting.written.clone())
            .collect();
        let at_ours = files.iter().filter(|(setting, _)| setting.is_some()).count() - elsewhere.len();
        let named = || ssl.iter().map(|setting| setting.written.clone()).chain(elsewhere.clone()).collect();
        match (is_on, elsewhere.len(), at_ours) {
            (Some(Some(true)), 0, 2) if ca.is_none() && demand.client_auth != ClientAuth::None => {
                Wired::Absent
            }
            (Some(Some(true)), 0, 2) => Wired::Ours,
            // Certificates from postgresql.conf, or from server.crt in the data directory.
            (Some(Some(true)), _, 0) => Wired::Foreign(named()),
            (Some(Some(true)) | None, 0, _) => Wired::Absent,
            _ => Wired::Conflict(named()),
        }
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], env: &Env) -> u16 {
        let port = |text: &str| text.trim().parse().ok().filter(|port| *port != 0);
        last(&settings_in(command), "port")
            .and_then(|setting| port(&setting.value))
            .or_else(|| env.get("PGPORT").and_then(|text| port(text)))
            .unwrap_or(5432)
    }

    fn data_directory(&self, command: &[String], env: &Env) -> String {
        last(&settings_in(command), "data_directory")
            .map_or_else(|| configuration_directory(command, env), |setting| setting.value.clone())
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["postgres"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!(
            "/var/lib/postgresql/.psql_history",
            "/var/lib/postgresql/.bash_history",
            "/var/lib/postgresql/.ash_history",
            "/root/.psql_history",
        )
    }

    fn certificates(&self) -> Certificates {
        Certificates::Rules
    }

    /// `psql` over TCP would need a certificate; over the socket it needs none.
    fn healthcheck(&self, test: &[String], _command: &[String], _env: &Env, demand: Demand) -> Check {
        if !demand.requires_certificates() {
            return Check::Works;
        }
        CLIENT.adapt_by(test, &need).unwrap_or_else(|trouble| Check::Unknown(trouble.why(&CLIENT)))
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Rules
    }

    fn order(&self, order: Order, command: &[String], env: &Env) -> Option<ExecScript> {
        (order == Order::Reload).then(|| exec::reload(command, env))
    }

    fn preamble(&self) -> Preamble {
        Preamble::PostgresSslRequest
    }
}

fn need(program: &str, arguments: &[&str]) -> Result<Need, Trouble> {
    // A connection string names its host in a word of its own, or within one.
    let names_a_host = |word: &&&str| {
        word.starts_with("--host") || word.starts_with("-h") || word.contains("://") || word.contains("host")
    };
    match arguments.iter().find(names_a_host) {
        Some(word) if program == "psql" => Err(Trouble::beyond_us(program, word)),
        _ => Ok(Need::Nothing),
    }
}

/// Where `postgresql.conf` and `pg_hba.conf` are unless the command says otherwise: `-D`, else `PGDATA`. The setting
/// `data_directory` moves the data only.
pub fn configuration_directory(command: &[String], env: &Env) -> String {
    last(&settings_in(command), OPTION_D)
        .map(|setting| setting.value.clone())
        .or_else(|| env.get("PGDATA").filter(|path| !path.is_empty()).cloned())
        .unwrap_or_else(|| DATA_DIRECTORY.to_owned())
}

/// `-D`, under a name that no setting can have.
const OPTION_D: &str = "-D";

#[derive(Debug, PartialEq, Eq)]
struct Setting {
    /// In lower case, with underscores.
    name: String,
    value: String,
    /// As it stands in the command, for people.
    written: String,
}

/// The settings in a command, in their order. Read as `postmaster.c` does with getopt: options may be bundled, a
/// value may follow at once or as the next argument, `--name=value` is `-c name=value`, and in names dashes are
/// underscores and the case is of no account.
fn settings(arguments: &[Cow<'_, str>]) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut rest = arguments;
    while let [argument, more @ ..] = rest {
        rest = more;
        if argument == "--" {
            break;
        }
        let Some(letters) = argument.strip_prefix('-') else { continue };
        for (at, letter) in letters.char_indices() {
            let name = match letter {
                'l' => {
                    settings.push(Setting {
                        name: "ssl".to_owned(),
                        value: "on".to_owned(),
                        written: argument.to_string(),
                    });
                    continue;
                }
                'c' | '-' => None,
                'D' => Some(OPTION_D),
                'p' => Some("port"),
                'k' => Some("unix_socket_directories"),
                'h' => Some("listen_addresses"),
                'B' | 'C' | 'd' | 'f' | 'N' | 'o' | 'r' | 'S' | 't' | 'W' => Some("-"),
                _ => continue,
            };
            // The option's value: what is left of this argument, else the next one.
            let attached = argument.get(1 + at + letter.len_utf8()..).filter(|text| !text.is_empty());
            let (value, written) = match (attached, rest) {
                (Some(value), _) => (Cow::Borrowed(value), argument.to_string()),
                (None, [value, more @ ..]) => {
                    rest = more;
                    (Cow::Borrowed(value.as_ref()), format!("{argument} {value}"))
                }
                (None, []) => break,
            };
            let setting = match name {
                Some(name) => Some((name.to_owned(), value.into_owned())),
                None => value
                    .split_once('=')
                    .map(|(name, value)| (name.to_ascii_lowercase().replace('-', "_"), value.to_owned())),
            };
            settings.extend(setting.map(|(name, value)| Setting { name, value, written }));
            break;
        }
    }
    settings
}

fn settings_in(command: &[String]) -> Vec<Setting> {
    settings(&server_arguments(PROGRAMS, command))
}

/// The one that counts.
fn last<'a>(settings: &'a [Setting], name: &str) -> Option<&'a Setting> {
    settings.iter().rev().find(|setting| setting.name == name)
}

/// What `parse_bool` makes of a value: any unambiguous beginning of the words, in any case.
fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, at_least: usize| value.len() >= at_least && word.starts_with(&value);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || value == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0" {
        Some(false)
    } else {
        None
    }
}

/// Without doubled and trailing slashes.
fn clean_path(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        clean.push('/');
        clean.push_str(part);
    }
    if path.starts_with('/') { clean } else { clean.trim_start_matches('/').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn wired(words: &[&str]) -> Wired {
        Postgres.wired(&list(words), Mode::VerifyFull.into())
    }

    #[test]
    fn our_flags_are_recognised_in_every_spelling_of_postgresql() {
        const CRT: &str = "ssl_cert_file=/var/lib/postgresql/certs/server.crt";
        const PEM: &str = "ssl_key_file=/var/lib/postgresql/certs/server.key";
        for words in [
            &["postgres", "-c", "ssl=on", "-c", CRT, "-c", PEM][..],
            &["-c", "ssl=on", "-c", CRT, "-c", PEM],
            &["postgres", "-cssl=on", "--ssl-cert-file=/var/lib/postgresql/certs/server.crt", "-c", PEM],
            &["postgres", "--SSL=TRUE", "-c", CRT, "--ssl_key_file=/var/lib/postgresql//certs/server.key"],
            &["postgres", "-l", "-c", CRT, "-c", PEM],
            &["postgres", "-Fl", "-c", CRT, "-Fc", PEM],
            &["postgres", "-c", "ssl=off", "-c", "ssl=1", "-c", CRT, "-c", PEM],
            &["postgres", "-c", "ssl_cert_file=/x", "-c", "ssl=on", "-c", CRT, "-c", PEM],
            &["docker-entrypoint.sh", "postgres", "-c", "ssl=y", "-c", CRT, "-c", PEM],
            &[
                "sh",
                "-c",
                "exec postgres -c ssl=on -c ssl_cert_file=/var/lib/postgresql/certs/server.crt --ssl-key-file=/var/lib/postgresql/certs/server.key",
            ],
        ] {
            assert_eq!(wired(words), Wired::Ours, "{words:?}");
        }
    }

    #[test]
    fn flags_by_what_is_asked_of_clients() {
        const REST: &str = "-c ssl=on -c ssl_cert_file=/var/lib/postgresql/certs/server.crt \
                            -c ssl_key_file=/var/lib/postgresql/certs/server.key";
        const CA: &str = "-c ssl_ca_file=/var/lib/postgresql/certs/coolify-ca.crt";
        for demand in Demand::all() {
            let flags = Postgres.flags(DIRECTORY, demand).join(" ");
            let asks = demand.client_auth != ClientAuth::None;
            assert_eq!(flags, if asks { format!("{REST} {CA}") } else { REST.to_owned() }, "{demand:?}");
        }
        let asks = |client_auth| Demand { mode: Mode::VerifyFull, client_auth };
        for (more, none, asking) in [
            ("", Wired::Ours, Wired::Absent),
            (CA, Wired::Ours, Wired::Ours),
            ("--ssl-ca-file=/var/lib/postgresql/certs//coolify-ca.crt", Wired::Ours, Wired::Ours),
            (
                "-c ssl_ca_file=/mine.crt",
                Wired::Ours,
                Wired::Conflict(vec!["-c ssl_ca_file=/mine.crt".to_owned()]),
            ),
        ] {
            let words: Vec<_> =
                format!("postgres {REST} {more}").split_whitespace().map(str::to_owned).collect();
            assert_eq!(Postgres.wired(&words, asks(ClientAuth::None)), none, "{more}");
            assert_eq!(Postgres.wired(&words, asks(ClientAuth::Optional)), asking, "{more}");
            assert_eq!(Postgres.wired(&words, asks(ClientAuth::Required)), asking, "{more}");
        }
    }

    #[test]
    fn a_health_check_that_would_need_a_certificate_is_told() {
        let check = |script: &str, client_auth| {
            let demand = Demand { mode: Mode::VerifyFull, client_auth };
            Postgres.healthcheck(&list(&["CMD-SHELL", script]), &[], &Env::new(), demand)
        };
        for (script, works) in [
            ("pg_isready -U postgres -h localhost", true),
            ("pg_isready", true),
            ("psql -U postgres -c 'select 1'", true),
            ("psql -U postgres -h localhost -c 'select 1'", false),
            ("psql --host=127.0.0.1 -c 'select 1'", false),
            ("psql 'host=localhost user=postgres' -c 'select 1'", false),
            ("psql postgres://postgres@localhost/ -c 'select 1'", false),
            ("/check.sh", false),
        ] {
            let found = check(script, ClientAuth::Required);
            assert_eq!(found == Check::Works, works, "{script}: {found:?}");
            assert_eq!(check(script, ClientAuth::Optional), Check::Works, "{script}");
        }
        assert_eq!(
            Postgres.healthcheck(
                &[],
                &[],
                &Env::new(),
                Demand { mode: Mode::Require, client_auth: ClientAuth::Required }
            ),
            Check::Works
        );
    }

    #[test]
    fn what_is_not_ours_is_absent_foreign_or_a_conflict() {
        const CRT: &str = "ssl_cert_file=/var/lib/postgresql/certs/server.crt";
        let absent: &[&[&str]] = &[
            &["postgres"],
            &[],
            &["postgres", "-c", "max_connections=20", "-p", "5433"],
            &["postgres", "-c", CRT],
            &["postgres", "-c", "ssl=on", "-c", CRT],
            &["postgres", "-c", "ssl_ca_file=/clients.crt"],
            &["postgres", "-c", "log_line_prefix=ssl=off"],
            &["postgres", "-f", "-c", "ssl=off"],
            &["postgres", "-c"],
            &["postgres", "-c", "ssl"],
        ];
        for words in absent {
            // `-f` takes an argument, so `-c` is its value and `ssl=off` no option.
            assert_eq!(wired(words), Wired::Absent, "{words:?}");
        }
        let foreign: &[(&[&str], &[&str])] = &[
            (&["postgres", "-c", "ssl=on"], &["-c ssl=on"]),
            (&["postgres", "-l"], &["-l"]),
            (
                &["postgres", "--ssl=on", "--ssl-cert-file=/my.crt", "-c", "ssl_key_file=/my.key"],
                &["--ssl=on", "--ssl-cert-file=/my.crt", "-c ssl_key_file=/my.key"],
            ),
        ];
        for (words, flags) in foreign {
            assert_eq!(wired(words), Wired::Foreign(list(flags)), "{words:?}");
        }
        let conflict: &[(&[&str], &[&str])] = &[
            (&["postgres", "-c", "ssl=off"], &["-c ssl=off"]),
            (&["postgres", "--ssl=off"], &["--ssl=off"]),
            (&["postgres", "-cssl=F"], &["-cssl=F"]),
            (&["postgres", "-c", "ssl=on", "--SSL=no"], &["--SSL=no"]),
            (&["postgres", "-c", "ssl=maybe"], &["-c ssl=maybe"]),
            (&["postgres", "--ssl_cert_file=/my.crt"], &["--ssl_cert_file=/my.crt"]),
            (
                &["postgres", "-c", "ssl=on", "-c", CRT, "-c", "ssl_key_file=/my.key"],
                &["-c ssl=on", "-c ssl_key_file=/my.key"],
            ),
            (&["sh", "-c", "postgres -c ssl=off"], &["-c ssl=off"]),
        ];
        for (words, flags) in conflict {
            assert_eq!(wired(words), Wired::Conflict(list(flags)), "{words:?}");
        }
    }

    #[test]
    fn the_port_is_the_commands_then_the_environments_then_the_default() {
        let with = env(&[("PGPORT", "6000")]);
        for (words, environment, port) in [
            (&["postgres"][..], &env(&[]), 5432),
            (&["postgres"], &with, 6000),
            (&["postgres", "-p", "5433"], &with, 5433),
            (&["postgres", "-p5433"], &with, 5433),
            (&["postgres", "-Fp5433"], &with, 5433),
            (&["postgres", "-c", "port=5433"], &with, 5433),
            (&["postgres", "--port=5433"], &with, 5433),
            (&["postgres", "--PORT=5433", "-p", "5434"], &with, 5434),
            (&["-p", "70000"], &env(&[]), 5432),
            (&["-p", "0"], &env(&[("PGPORT", "")]), 5432),
            (&["sh", "-c", "postgres -p 5433"], &with, 5433),
        ] {
            assert_eq!(Postgres.port(&list(words), environment), port, "{words:?}");
        }
    }

    #[test]
    fn the_data_directory_is_the_settings_then_option_d_then_the_environments() {
        let with = env(&[("PGDATA", "/pgdata")]);
        for (words, environment, data, configuration) in [
            (&["postgres"][..], &env(&[]), DATA_DIRECTORY, DATA_DIRECTORY),
            (&["postgres"], &with, "/pgdata", "/pgdata"),
            (&["postgres", "-D", "/d"], &with, "/d", "/d"),
            (&["postgres", "-D/d"], &with, "/d", "/d"),
            (&["postgres", "-c", "data_directory=/e"], &with, "/e", "/pgdata"),
            (&["postgres", "--data-directory=/e", "-D", "/d"], &with, "/e", "/d"),
        ] {
            assert_eq!(Postgres.data_directory(&list(words), environment), data, "{words:?}");
            assert_eq!(configuration_directory(&list(words), environment), configuration, "{words:?}");
        }
    }

    #[test]
    fn strange_commands_end_quietly() {
        for words in [
            &["postgres", "-"][..],
            &["postgres", "--"],
            &["postgres", "-é", "-cé=ü", "-Dé"],
            &["postgres", "-p"],
            &["postgres", "-c", "=", "-c", ""],
            &["", ""],
        ] {
            let _ = wired(words);
            let _ = Postgres.port(&list(words), &env(&[]));
            let _ = Postgres.data_directory(&list(words), &env(&[]));
        }
    }

    #[test]
    fn a_boolean_is_any_beginning_that_can_mean_only_one_word() {
        for word in ["on", "ON", "t", "tru", "yes", "Y", "1"] {
            assert_eq!(boolean(word), Some(true), "{word}");
        }
        for word in ["off", "of", "f", "FALSE", "n", "no", "0"] {
            assert_eq!(boolean(word), Some(false), "{word}");
        }
        for word in ["", "o", "onn", "2", "maybe"] {
            assert_eq!(boolean(word), None, "{word}");
        }
    }
}
