//! MySQL and Percona Server; and what MariaDB shares with them.
//!
//! Sources: MySQL's manual, "Server Command Options", "Using Encrypted Connections", "ALTER INSTANCE Statement";
//! tested with MySQL 9.7. Without `--ssl-cert` MySQL makes certificates of its own; with files that it cannot use it
//! starts without TLS. `SET PERSIST` counts more than the command line. Naming a certificate turns TLS on, whatever
//! was said before it (`case OPT_SSL_CERT` in `mysqld.cc`).
//!
//! Caveat: the X Protocol (port 33060) keeps its certificate through a reload, until the server starts again.

mod spelling;

use std::borrow::Cow;

use self::spelling::is_on;
use super::{
    Certificates, Check, Demand, Env, ExecScript, File, Order, Preamble, SEPARATE_FILES, Spec, Wired,
    command::{LongOption, elsewhere, last, server_arguments, wired_for_another},
    healthcheck::{Client, Need, Trouble},
    script::{SAID_LIMIT, script},
    volatile_paths,
};
use crate::model::{ClientAuth, Engine};

const PROGRAMS: &[&str] = &["mysqld"];
pub(super) const DIRECTORY: &str = "/etc/mysql/certs";
const PATHS: [(&str, &str); 3] = [
    ("ssl-cert", "/etc/mysql/certs/server.crt"),
    ("ssl-key", "/etc/mysql/certs/server.key"),
    ("ssl-ca", "/etc/mysql/certs/coolify-ca.crt"),
];
/// A server of either kind asks for a certificate wherever it has a CA, and takes whoever has none; that somebody must
/// have one is said of an account (manual: "CREATE USER Statement", tls_option).
pub(super) const PER_ACCOUNT: Certificates = Certificates::PerAccount(
    "this server demands a certificate of one account or another, never of all: ALTER USER … REQUIRE X509 for each of them, then set dbssl.client-auth=optional",
);
const CLIENTS: &[&str] = &["mysql", "mysqladmin"];
const REQUIRE: &str = "require-secure-transport";
const ORDER: &str = include_str!("mysql/order.sh");

pub struct Mysql;

impl Spec for Mysql {
    fn engine(&self) -> Engine {
        Engine::Mysql
    }

    fn certificate_directory(&self, _command: &[String]) -> &'static str {
        DIRECTORY
    }

    fn files(&self, _client_auth: ClientAuth) -> &'static [File] {
        SEPARATE_FILES
    }

    fn flags(&self, _directory: &str, demand: Demand) -> Vec<String> {
        flags(demand)
    }

    /// Without a version there is no TLS; MariaDB takes that for any version.
    fn wired(&self, command: &[String], demand: Demand) -> Wired {
        let options = options(PROGRAMS, command);
        match last(&options, "tls-version").filter(|option| option.value.as_deref() == Some("")) {
            Some(none) => Wired::Conflict(vec![none.written.clone()]),
            None => wired(PROGRAMS, command, demand),
        }
    }

    fn certificates(&self) -> Certificates {
        PER_ACCOUNT
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

    fn makes_itself(&self, _subject: &str, issuer: &str) -> bool {
        issuer.starts_with("CN=MySQL_Server_") && issuer.ends_with("_Auto_Generated_CA_Certificate")
    }

    /// Its client asks for TLS by itself, if it is not told otherwise.
    fn healthcheck(&self, test: &[String], _command: &[String], _env: &Env, demand: Demand) -> Check {
        let need = |program: &str, arguments: &[&str]| match without_tls(arguments) {
            Some(word) if !pings(program, arguments) && over_tcp(arguments).is_some() => {
                Err(Trouble::beyond_us(program, &word))
            }
            _ => Ok(Need::Nothing),
        };
        let client = Client { programs: CLIENTS, options: &[], ports: None, done_by: &[], beyond_us: &[] };
        match client.adapt_by(test, &need) {
            Err(Trouble::BeyondUs(why)) if demand.mode.enforces() => Check::Unknown(why),
            _ => Check::Works,
        }
    }

    fn order(&self, order: Order, command: &[String], _env: &Env) -> Option<ExecScript> {
        Some(self::order(order, "ALTER INSTANCE RELOAD TLS", &options(PROGRAMS, command)))
    }

    fn preamble(&self) -> Preamble {
        Preamble::MysqlGreeting
    }
}

/// Whether a client only asks if the server is there: it ends well also when it is not let in.
pub(super) fn pings(program: &str, arguments: &[&str]) -> bool {
    program.ends_with("admin") && arguments.contains(&"ping")
}

/// The argument of a client that makes it use TCP in place of the Unix socket, and the host if there is one.
pub(super) fn over_tcp<'a>(arguments: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let value = |word: &&'a str, at: usize, names: [&str; 2]| -> Option<&'a str> {
        let [short, long] = names;
        let next = || Some(arguments.get(at + 1).copied().unwrap_or_default());
        if !short.is_empty() && word.starts_with(short) && !word.starts_with("--") {
            let joined = &word[short.len()..];
            return if joined.is_empty() { next() } else { Some(joined) };
        }
        let rest = word.strip_prefix(long)?;
        if rest.is_empty() { next() } else { rest.strip_prefix('=') }
    };
    let mut found = None;
    for (at, word) in arguments.iter().enumerate() {
        if let Some(host) = value(word, at, ["-h", "--host"]) {
            found = (!host.eq_ignore_ascii_case("localhost")).then_some((*word, host)).or(found);
        } else if let Some(protocol) = value(word, at, ["", "--protocol"]) {
            match protocol.to_ascii_lowercase().as_str() {
                "tcp" => found = found.or(Some((*word, "localhost"))),
                "socket" => return None,
                _ => {}
            }
        }
    }
    found
}

/// The argument that keeps a client from using TLS.
pub(super) fn without_tls(arguments: &[&str]) -> Option<String> {
    let arguments: Vec<_> = arguments.iter().map(|word| Cow::Borrowed(*word)).collect();
    let options = spelling::options(&arguments);
    let tells = options.iter().rfind(|option| matches!(option.name.as_str(), "ssl" | "ssl-mode"))?;
    let off = match tells.value.as_deref() {
        Some(mode) if tells.name == "ssl-mode" => mode.eq_ignore_ascii_case("disabled"),
        _ => tells.name == "ssl" && !is_on(tells),
    };
    off.then(|| tells.written.clone())
}

/// `reload`: the statement that makes the server read its TLS files again.
pub(super) fn order(order: Order, reload: &str, options: &[LongOption]) -> ExecScript {
    let word = match order {
        Order::Reload => "reload",
        Order::RefusePlaintext => "refuse",
        Order::RefusesPlaintext => "ask",
    };
    let socket = socket(options).unwrap_or_default();
    let parameters = [word.to_owned(), reload.to_owned(), data_directory(options), socket];
    script(ORDER, parameters, None, SAID_LIMIT)
}

pub(super) fn options(programs: &[&str], command: &[String]) -> Vec<LongOption> {
    spelling::options(&server_arguments(programs, command))
}

/// The same whatever is asked of clients: see [`PER_ACCOUNT`].
pub(super) fn flags(demand: Demand) -> Vec<String> {
    let paths = PATHS.iter().map(|(name, path)| format!("--{name}={path}"));
    paths.chain(demand.mode.enforces().then(|| format!("--{REQUIRE}=ON"))).collect()
}

pub(super) fn wired(programs: &[&str], command: &[String], demand: Demand) -> Wired {
    let mode = demand.mode;
    let options = options(programs, command);
    if let Some(off) = switched_off(&options) {
        return Wired::Conflict(vec![off.written.clone()]);
    }
    let elsewhere = elsewhere(&options, PATHS);
    if !elsewhere.is_empty() {
        return Wired::Foreign(elsewhere);
    }
    match last(&options, REQUIRE) {
        Some(secure) if mode.enforces() && !is_on(secure) => Wired::Conflict(vec![secure.written.clone()]),
        _ if PATHS.iter().any(|(name, _)| last(&options, name).is_none()) => Wired::Absent,
        None if mode.enforces() => Wired::Absent,
        _ if wired_for_another(command, demand, flags) => Wired::Absent,
        _ => Wired::Ours,
    }
}

/// What turns TLS off, if no certificate is named behind it. Also where none is named at all: ours would turn it on
/// against its operator's word.
fn switched_off(options: &[LongOption]) -> Option<&LongOption> {
    let at = options.iter().rposition(|option| option.name == "ssl" && !is_on(option))?;
    let turns_on =
        |option: &LongOption| option.name == "ssl" || PATHS.iter().any(|(name, _)| option.name == *name);
    (!options[at + 1..].iter().any(turns_on)).then_some(&options[at])
}

pub(super) fn port(options: &[LongOption]) -> u16 {
    last(options, "port").and_then(|option| option.value.as_deref()?.parse().ok()).unwrap_or(3306)
}

pub(super) fn data_directory(options: &[LongOption]) -> String {
    last(options, "datadir")
        .and_then(|option| option.value.clone())
        .unwrap_or_else(|| "/var/lib/mysql".to_owned())
}

/// The Unix socket, where the command says which; a relative path begins in the data directory.
fn socket(options: &[LongOption]) -> Option<String> {
    let path = last(options, "socket")?.value.as_deref()?;
    // What a shell puts together is not known here.
    if path.is_empty() || path.contains(['$', '`']) {
        return None;
    }
    let above = if path.starts_with('/') { String::new() } else { data_directory(options) + "/" };
    Some(above + path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Launch, Shape},
        model::Mode,
    };

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    const OURS: [&str; 3] = [
        "--ssl-cert=/etc/mysql/certs/server.crt",
        "--ssl-key=/etc/mysql/certs/server.key",
        "--ssl-ca=/etc/mysql/certs/coolify-ca.crt",
    ];
    const REQUIRED: &str = "--require-secure-transport=ON";

    #[test]
    fn flags_by_mode() {
        for mode in Mode::ALL {
            let mut wanted = list(&OURS);
            wanted.extend(mode.enforces().then(|| REQUIRED.to_owned()));
            for client_auth in ClientAuth::ALL {
                assert_eq!(
                    Mysql.flags(DIRECTORY, Demand { mode, client_auth }),
                    wanted,
                    "{mode} {client_auth}"
                );
            }
        }
    }

    #[test]
    fn flags_follow_whatever_the_container_runs() {
        let entrypoint = list(&["docker-entrypoint.sh"]);
        for command in
            [&["mysqld"][..], &["--character-set-server=utf8mb4"], &["mysqld", "--port", "3307"], &[]]
        {
            let command = list(command);
            let launch = Launch { entrypoint: &entrypoint, command: &command };
            let wired = Mysql.wire(launch, Mode::Require.into());
            assert_eq!(wired, [command, list(&OURS), list(&[REQUIRED])].concat());
        }
    }

    #[test]
    fn a_command_that_is_no_server_is_left_to_its_operator() {
        let image = list(&["docker-entrypoint.sh"]);
        let shape = |command: &[&str]| {
            let command = list(command);
            let container = Launch { entrypoint: &image, command: &command };
            Mysql.command_shape(Launch { entrypoint: &image, command: &[] }, container)
        };
        for command in [&["mysqld"][..], &["--port=3307"], &["/usr/sbin/mysqld", "--user=mysql"]] {
            assert_eq!(shape(command), Shape::Appendable, "{command:?}");
        }
        for command in [&["sh", "-c", "exec mysqld"][..], &["mysqld_safe"], &["mysqld", "--version"], &[]] {
            assert_ne!(shape(command), Shape::Appendable, "{command:?}");
        }
    }

    #[test]
    fn what_a_command_says_of_tls() {
        let own = |more: &[&'static str]| [&["mysqld"], &OURS[..], more].concat();
        for (words, allow, require) in [
            (vec!["mysqld"], Wired::Absent, Wired::Absent),
            (own(&[]), Wired::Ours, Wired::Absent),
            (own(&[REQUIRED]), Wired::Absent, Wired::Ours),
            // Not at the end: their operator's own.
            (own(&[REQUIRED, "--port=3307"]), Wired::Ours, Wired::Ours),
            (own(&["--require_secure_transport=1"]), Wired::Ours, Wired::Ours),
            (own(&["--require-secure-transport"]), Wired::Ours, Wired::Ours),
            (vec!["mysqld", REQUIRED], Wired::Absent, Wired::Absent),
            (
                own(&["--require-secure-transport=OFF"]),
                Wired::Ours,
                Wired::Conflict(list(&["--require-secure-transport=OFF"])),
            ),
            (
                own(&["--skip-require-secure-transport"]),
                Wired::Ours,
                Wired::Conflict(list(&["--skip-require-secure-transport"])),
            ),
            (
                vec!["mysqld", "--ssl_cert", "/mine.crt"],
                Wired::Foreign(list(&["--ssl_cert /mine.crt"])),
                Wired::Foreign(list(&["--ssl_cert /mine.crt"])),
            ),
        ] {
            let words = list(&words);
            assert_eq!(Mysql.wired(&words, Mode::Allow.into()), allow, "{words:?}");
            assert_eq!(Mysql.wired(&words, Mode::Require.into()), require, "{words:?}");
        }
    }

    #[test]
    fn what_turns_tls_off_contradicts_ours_in_each_spelling() {
        for off in [
            "--skip-ssl",
            "--disable-ssl",
            "--skip_ssl",
            "--ssl=0",
            "--ssl=OFF",
            "--loose-ssl=0",
            "--loose-skip-ssl",
            "--tls-version=",
            "--tls_version=",
        ] {
            for words in [vec!["mysqld", off], [&["mysqld"], &OURS[..], &[REQUIRED, off]].concat()] {
                let conflict = Wired::Conflict(list(&[off]));
                assert_eq!(Mysql.wired(&list(&words), Mode::Allow.into()), conflict, "{words:?}");
                assert_eq!(Mysql.wired(&list(&words), Mode::Require.into()), conflict, "{words:?}");
            }
        }
        for words in [
            &["--skip-ssl", "--skip-ssl=0"][..],
            &["--skip-ssl", "--disable-ssl=0"],
            &["--loose-ssl=0", "--enable-ssl"],
            &["--ssl=OFF", "--ssl=ON"],
            &["--tls-version=", "--tls-version=TLSv1.3"],
        ] {
            let command = [&["mysqld"], words].concat();
            assert_eq!(Mysql.wired(&list(&command), Mode::Allow.into()), Wired::Absent, "{words:?}");
        }
        // A certificate behind it turns TLS on again, whosever that is.
        let words = list(&[&["mysqld", "--skip-ssl"], &OURS[..]].concat());
        assert_eq!(Mysql.wired(&words, Mode::Allow.into()), Wired::Ours);
        let words = list(&["mysqld", "--skip-ssl", "--ssl-cert=/mine.crt"]);
        assert_eq!(Mysql.wired(&words, Mode::Allow.into()), Wired::Foreign(list(&["--ssl-cert=/mine.crt"])));
    }

    #[test]
    fn the_last_word_on_plaintext_counts() {
        for (words, last) in [
            ("--require-secure-transport=ON --skip-require-secure-transport", Some(1)),
            ("--skip-require-secure-transport --require-secure-transport=ON", None),
            ("--require-secure-transport=ON --loose-require_secure_transport=0", Some(1)),
            ("--disable-require-secure-transport --enable-require-secure-transport", None),
            ("--require-secure-transport=yes", Some(0)),
            ("--skip-require-secure-transport=0", None),
        ] {
            let said: Vec<_> = words.split(' ').collect();
            let command = list(&[&["mysqld"], &OURS[..], &said[..], &["--port=3307"]].concat());
            let wanted = last.map_or(Wired::Ours, |at| Wired::Conflict(list(&[said[at]])));
            assert_eq!(Mysql.wired(&command, Mode::Require.into()), wanted, "{words}");
            assert_eq!(Mysql.wired(&command, Mode::Allow.into()), Wired::Ours, "{words}");
        }
    }

    #[test]
    fn a_health_check_works_unless_its_client_is_told_to_do_without_tls() {
        let check =
            |words: &[&str], mode: Mode| Mysql.healthcheck(&list(words), &[], &Env::new(), mode.into());
        for script in [
            "mysqladmin ping -h 127.0.0.1 --ssl-mode=DISABLED",
            "mysqladmin ping -h localhost -p\"$(cat /run/secrets/pw)\"",
            "mysql -h 127.0.0.1 -e 'SELECT 1'",
            "mysql --ssl-mode=DISABLED -h localhost -e 'SELECT 1'",
            "mysql --ssl-mode=DISABLED --ssl-mode=REQUIRED -h 127.0.0.1",
            "mysql --protocol=socket -h db --skip-ssl",
            "mysql -h 127.0.0.1 --skip-ssl=0 -e 'SELECT 1'",
            "/check.sh",
            "'",
        ] {
            assert_eq!(check(&["CMD-SHELL", script], Mode::Require), Check::Works, "{script}");
        }
        for script in [
            "mysql -h 127.0.0.1 --ssl-mode=DISABLED -e 'SELECT 1'",
            "mysql -h127.0.0.1 --ssl-mode disabled",
            "mysql --host db --skip-ssl -e 'SELECT 1'",
            "mysql --ssl=0 --host=127.0.0.1",
            "mysql --loose-skip-ssl -h 127.0.0.1 -e 'SELECT 1'",
            "mysql --ssl_mode=disabled -h 127.0.0.1",
            "mysql --protocol=TCP --skip-ssl -e 'SELECT 1'",
            "mysqladmin -h 127.0.0.1 --ssl-mode=DISABLED status",
        ] {
            let words = ["CMD-SHELL", script];
            assert!(matches!(check(&words, Mode::Require), Check::Unknown(_)), "{script}");
            assert_eq!(check(&words, Mode::Prefer), Check::Works, "{script}");
        }
    }

    #[test]
    fn port_and_data_directory_are_the_last_that_are_named() {
        let words = list(&["mysqld", "--port=1", "--datadir=/a", "--port", "3307", "--datadir", "/b"]);
        assert_eq!(Mysql.port(&words, &Env::new()), 3307);
        assert_eq!(Mysql.data_directory(&words, &Env::new()), "/b");
        assert_eq!(Mysql.port(&list(&["mysqld", "--port=x"]), &Env::new()), 3306);
    }

    #[test]
    fn certificates_that_it_made_for_itself_are_nobody_s() {
        let issuer = "CN=MySQL_Server_9.7.0_Auto_Generated_CA_Certificate";
        assert!(Mysql.makes_itself("CN=MySQL_Server_9.7.0_Auto_Generated_Server_Certificate", issuer));
        assert!(!Mysql.makes_itself("CN=db.example.com", "CN=R11, O=Let's Encrypt, C=US"));
    }

    #[test]
    fn no_password_is_an_argument() {
        let env = Env::from([("MYSQL_ROOT_PASSWORD".to_owned(), "hunter2".to_owned())]);
        for order in [Order::Reload, Order::RefusePlaintext, Order::RefusesPlaintext] {
            let script = Mysql.order(order, &list(&["mysqld"]), &env).unwrap();
            assert!(script.stdin.is_none() && !script.argv.concat().contains("hunter2"));
        }
    }
}
