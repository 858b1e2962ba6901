//! MariaDB. It takes MySQL's TLS options; its program, its reload and its own certificates differ.
//!
//! Sources: MariaDB's documentation, "Securing Connections for Client and Server", "FLUSH"; tested with MariaDB 10.11
//! and 11.8. From 11.4 on it makes itself a certificate when it is given none. With files that it cannot use it does
//! not start.

use super::{
    Certificates, Check, Demand, Env, ExecScript, File, Order, Preamble, SEPARATE_FILES, Spec, Wired,
    healthcheck::{Client, Need, Trouble},
    mysql, volatile_paths,
};
use crate::model::{ClientAuth, Engine};

const PROGRAMS: &[&str] = &["mariadbd", "mysqld"];
/// The image's own check, which uses the Unix socket; and what does not log in.
const NO_CLIENTS: [&str; 4] = ["healthcheck.sh", "nc", "pgrep", "pidof"];
/// Its client before 11.4 uses plaintext unless it is told otherwise, or was built otherwise, as Debian's 10.11 is. Since
/// then it looks at the name wherever it has a CA, and with a CA it cannot be told not to.
const CLIENT: Client<'_> = Client {
    programs: &["mariadb", "mysql", "mariadb-admin", "mysqladmin", "healthcheck.sh", "nc", "pgrep", "pidof"],
    options: &["--ssl", "--ssl-ca=/etc/mysql/certs/coolify-ca.crt"],
    ports: None,
    done_by: &["--ssl", "--ssl-ca", "--ssl-capath", "--ssl-cert", "--ssl-key", "--ssl-cipher"],
    beyond_us: &[],
};

pub struct Mariadb;

impl Spec for Mariadb {
    fn engine(&self) -> Engine {
        Engine::Mariadb
    }

    fn certificate_directory(&self, _command: &[String]) -> &'static str {
        mysql::DIRECTORY
    }

    fn files(&self, _client_auth: ClientAuth) -> &'static [File] {
        SEPARATE_FILES
    }

    fn flags(&self, _directory: &str, demand: Demand) -> Vec<String> {
        mysql::flags(demand)
    }

    fn wired(&self, command: &[String], demand: Demand) -> Wired {
        mysql::wired(PROGRAMS, command, demand)
    }

    fn certificates(&self) -> Certificates {
        mysql::PER_ACCOUNT
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        mysql::port(&mysql::options(PROGRAMS, command))
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        mysql::data_directory(&mysql::options(PROGRAMS, command))
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["mysql"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!("/root/.mysql_history", "/root/.mariadb_history")
    }

    fn makes_itself(&self, subject: &str, issuer: &str) -> bool {
        subject == "CN=MariaDB Server" && issuer == subject
    }

    fn healthcheck(&self, test: &[String], _command: &[String], _env: &Env, demand: Demand) -> Check {
        if !demand.mode.enforces() {
            return Check::Works;
        }
        CLIENT.adapt_by(test, &need).unwrap_or_else(|trouble| Check::Unknown(trouble.why(&CLIENT)))
    }

    fn order(&self, order: Order, command: &[String], _env: &Env) -> Option<ExecScript> {
        Some(mysql::order(order, "FLUSH SSL", &mysql::options(PROGRAMS, command)))
    }

    fn preamble(&self) -> Preamble {
        Preamble::MysqlGreeting
    }
}

fn need(program: &str, arguments: &[&str]) -> Result<Need, Trouble> {
    if NO_CLIENTS.contains(&program) || mysql::pings(program, arguments) {
        return Ok(Need::Nothing);
    }
    // A port alone makes it use TCP, too.
    let port = arguments.iter().find(|word| word.starts_with("-P") || word.starts_with("--port"));
    let Some((word, host)) = mysql::over_tcp(arguments).or(port.map(|word| (*word, "localhost"))) else {
        return Ok(Need::Nothing);
    };
    if let Some(word) = mysql::without_tls(arguments) {
        return Err(Trouble::beyond_us(program, &word));
    }
    let is_done = |word: &&str| CLIENT.done_by.contains(&word.split('=').next().unwrap_or_default());
    if arguments.iter().any(is_done) {
        return Ok(Need::Nothing);
    }
    // No certificate is for these, or nobody knows whether it is.
    if host.contains('$') || matches!(host, "0.0.0.0" | "::") {
        return Err(Trouble::beyond_us(program, word));
    }
    Ok(Need::Options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    #[test]
    fn it_takes_mysql_s_options_under_either_name_of_its_program() {
        for program in ["mariadbd", "mysqld"] {
            let mut words = vec![program.to_owned()];
            assert_eq!(Mariadb.wired(&words, Mode::VerifyCa.into()), Wired::Absent);
            words.extend(Mariadb.flags(mysql::DIRECTORY, Mode::VerifyCa.into()));
            assert_eq!(Mariadb.wired(&words, Mode::VerifyCa.into()), Wired::Ours);
            assert!(words.last().is_some_and(|flag| flag == "--require-secure-transport=ON"));
        }
    }

    #[test]
    fn without_a_version_it_takes_any() {
        let command = |mode| {
            let mut words = vec!["mariadbd".to_owned(), "--tls-version=".to_owned()];
            words.extend(Mariadb.flags(mysql::DIRECTORY, mode));
            words
        };
        assert_eq!(Mariadb.wired(&command(Mode::Require.into()), Mode::Require.into()), Wired::Ours);
    }

    #[test]
    fn a_health_check_over_tcp_asks_for_tls() {
        const OPTIONS: &str = "--ssl --ssl-ca=/etc/mysql/certs/coolify-ca.crt";
        let check = |words: &[&str], mode: Mode| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            Mariadb.healthcheck(&words, &[], &Env::new(), mode.into())
        };
        for script in [
            "mariadb -h 127.0.0.1 -e 'SELECT 1'",
            "mysql -h127.0.0.1 -uroot -p\"$MARIADB_ROOT_PASSWORD\" -e 'SELECT 1' | grep 1",
            "mariadb --host=db -e 'SELECT 1'",
            "mariadb -h localhost --protocol=TCP -e 'SELECT 1'",
            "mariadb -P 3306 -e 'SELECT 1'",
            "mariadb-admin --host 127.0.0.1 status",
        ] {
            let (program, rest) = script.split_once(' ').unwrap();
            let adapted = ["CMD-SHELL".to_owned(), format!("{program} {OPTIONS} {rest}")];
            let words = ["CMD-SHELL", script];
            assert_eq!(check(&words, Mode::Require), Check::Adapted(adapted.to_vec()), "{script}");
            assert_eq!(check(&words, Mode::Prefer), Check::Works, "{script}");
            assert_eq!(
                check(&["CMD-SHELL", &adapted[1]], Mode::Require),
                Check::Works,
                "adapted once it works"
            );
        }
        for words in [
            &[][..],
            &["CMD", "healthcheck.sh", "--connect", "--innodb_initialized"],
            &["CMD", "mariadb-admin", "ping", "-h", "127.0.0.1"],
            &["CMD-SHELL", "mysqladmin ping -h 127.0.0.1 -p\"$(cat /run/secrets/pw)\""],
            &["CMD", "mariadb", "-e", "SELECT 1"],
            &["CMD", "mariadb", "-h", "localhost", "-e", "SELECT 1"],
            &["CMD", "mariadb", "-h", "127.0.0.1", "--ssl-ca=/mine.crt", "-e", "SELECT 1"],
            &["CMD-SHELL", "nc -z 127.0.0.1 3306"],
        ] {
            assert_eq!(check(words, Mode::VerifyFull), Check::Works, "{words:?}");
        }
        for script in [
            "mariadb -h 127.0.0.1 --skip-ssl -e 'SELECT 1'",
            "mariadb -h 127.0.0.1 --ssl=0 -e 'SELECT 1'",
            "mariadb -h 0.0.0.0 -e 'SELECT 1'",
            "mariadb -h $HOSTNAME -e 'SELECT 1'",
            "mariadb -h 127.0.0.1 -p\"$(cat /run/secrets/pw)\" -e 'SELECT 1'",
            "/check.sh",
        ] {
            assert!(matches!(check(&["CMD-SHELL", script], Mode::Require), Check::Unknown(_)), "{script}");
        }
    }

    #[test]
    fn only_its_own_certificate_is_nobody_s() {
        assert!(Mariadb.makes_itself("CN=MariaDB Server", "CN=MariaDB Server"));
        assert!(!Mariadb.makes_itself("CN=MariaDB Server", "CN=Our CA"));
        assert!(!Mariadb.makes_itself("CN=db", "CN=db"));
    }
}
