use std::collections::BTreeMap;

use super::{account::account, *};
use crate::{engine::Env, model::Secret};

/// A line each for every engine, driver and mode: `engine driver mode: what is printed`.
const EXPECTED: &str = include_str!("expected.txt");

fn someone(password: &str) -> Account {
    Account {
        user: Some("app".to_owned()),
        password: Password::Known(Secret::new(password.as_bytes().to_vec())),
        database: Some("shop".to_owned()),
        notes: Vec::new(),
    }
}

fn target(driver: Driver, mode: Mode, account: &Account) -> Target<'_> {
    Target {
        driver,
        mode,
        host: "db",
        address: None,
        port: 4711,
        ca: "/etc/ssl/certs/coolify-ca.crt",
        account,
        show_password: false,
    }
}

fn shown(engine: Engine, driver: Driver, account: &Account) -> String {
    let target = Target { show_password: true, ..target(driver, Mode::VerifyFull, account) };
    text(engine, &target).unwrap_or_else(|error| panic!("{error}")).line
}

#[test]
fn every_engine_driver_and_mode_has_its_line() {
    let account = someone("hunter2");
    let mut found = String::new();
    for engine in Engine::ALL {
        for driver in Driver::ALL {
            for mode in Mode::ALL {
                let said = match text(engine, &target(driver, mode, &account)) {
                    Ok(text) => text.line,
                    Err(error) => {
                        assert_eq!((error.engine, error.driver), (engine, driver));
                        continue;
                    }
                };
                found.push_str(&format!("{engine} {driver} {mode}: {said}\n"));
            }
        }
    }
    assert!(found == EXPECTED, "found:\n{found}");
}

#[test]
fn no_line_and_no_note_holds_the_password_unless_it_is_asked_for() {
    let account = someone("hunter2");
    for engine in Engine::ALL {
        for driver in Driver::ALL {
            for mode in Mode::ALL {
                let hidden = target(driver, mode, &account);
                let Ok(text) = super::text(engine, &hidden) else { continue };
                let all = format!("{} {}", text.line, text.notes.join(" "));
                assert!(!all.contains("hunter2"), "{engine} {driver} {mode}");
                assert!(!text.line.contains('\n'));
                let asked = Target { show_password: true, ..hidden };
                let text = super::text(engine, &asked).unwrap_or_else(|error| panic!("{error}"));
                assert!(text.line.contains("hunter2"), "{engine} {driver} {mode}");
                assert!(!text.notes.join(" ").contains("hunter2"), "{engine} {driver} {mode}");
            }
        }
    }
}

#[test]
fn a_mode_that_a_client_lacks_becomes_a_stronger_one_and_is_told() {
    for engine in Engine::ALL {
        for driver in Driver::ALL {
            for mode in Mode::ALL {
                let Some(effective) = effective(engine, driver, mode) else { continue };
                let weaker = effective < mode;
                assert_eq!(
                    weaker,
                    (engine, driver, mode) == (Engine::Redis, Driver::Cli, Mode::VerifyFull),
                    "only redis-cli asks for less: {engine} {driver} {mode}"
                );
                let account = someone("hunter2");
                let text =
                    text(engine, &target(driver, mode, &account)).unwrap_or_else(|error| panic!("{error}"));
                let said = text.notes.iter().any(|note| note.contains("demands"));
                assert_eq!(said, effective != mode, "{engine} {driver} {mode}: {:?}", text.notes);
            }
        }
    }
    let account = someone("x");
    let text = text(Engine::Redis, &target(Driver::Cli, Mode::VerifyFull, &account)).map(|text| text.notes);
    assert_eq!(
        text,
        Ok(vec![
            "redis-cli does not check the name in a certificate: this is verify-ca, which demands less than verify-full"
                .to_owned()
        ])
    );
}

#[test]
fn what_there_is_no_driver_for_is_told_with_what_there_is() {
    let account = someone("x");
    let error = |engine, driver| match text(engine, &target(driver, Mode::Require, &account)) {
        Ok(text) => panic!("{}", text.line),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        error(Engine::Mysql, Driver::Libpq),
        "there is no libpq driver for mysql; it has: jdbc, node, python, go, cli"
    );
    let mongodb = error(Engine::Mongodb, Driver::Jdbc);
    assert!(mongodb.contains("not JDBC") && mongodb.contains("javax.net.ssl.trustStore"), "{mongodb}");
    assert!(mongodb.ends_with("it has: node, python, go, cli"), "{mongodb}");
    for engine in Engine::ALL {
        assert!(effective(engine, Driver::usual(engine), Mode::VerifyFull).is_some(), "{engine}");
    }
}

#[test]
fn a_password_of_odd_characters_arrives_whole() {
    let account = someone("p@s:s/w o'r%d&#?$");
    let encoded = "p%40s%3As%2Fw%20o%27r%25d%26%23%3F%24";
    for (engine, driver) in [
        (Engine::Postgres, Driver::Libpq),
        (Engine::Postgres, Driver::Python),
        (Engine::Postgres, Driver::Node),
        (Engine::Mysql, Driver::Node),
        (Engine::Mariadb, Driver::Python),
        (Engine::Redis, Driver::Go),
        (Engine::Mongodb, Driver::Node),
        (Engine::Mongodb, Driver::Cli),
    ] {
        let line = shown(engine, driver, &account);
        assert!(line.contains(&format!(":{encoded}@db:4711")), "{line}");
    }
    for engine in [Engine::Postgres, Engine::Mysql] {
        let line = shown(engine, Driver::Jdbc, &account);
        assert!(line.contains(&format!("&password={encoded}&")), "{line}");
    }
    // Not decoded: what would end it early is left out.
    let line = shown(Engine::Mariadb, Driver::Jdbc, &account);
    assert!(!line.contains("user=") && !line.contains("password="), "{line}");
    // Not escaped.
    let line = shown(Engine::Mysql, Driver::Go, &account);
    assert!(line.starts_with("app:p@s:s/w o'r%d&#?$@tcp(db:4711)/shop?"), "{line}");
    for (engine, variable, program) in [
        (Engine::Postgres, "PGPASSWORD", "psql"),
        (Engine::Mysql, "MYSQL_PWD", "mysql"),
        (Engine::Mariadb, "MYSQL_PWD", "mariadb"),
        (Engine::Redis, "REDISCLI_AUTH", "redis-cli"),
    ] {
        let line = shown(engine, Driver::Cli, &account);
        let begin = format!(r"{variable}='p@s:s/w o'\''r%d&#?$' {program} ");
        assert!(line.starts_with(&begin), "{line}");
        assert!(!line.contains("--password") && !line.contains("--askpass"), "{line}");
    }
}

#[test]
fn libpq_is_given_an_address_beside_the_name() {
    let account = someone("x");
    let aside = |driver| {
        let address = Some("172.17.0.2".parse().unwrap());
        let target = Target { address, ..target(driver, Mode::VerifyFull, &account) };
        assert!(takes_address(Engine::Postgres, driver));
        text(Engine::Postgres, &target).unwrap_or_else(|error| panic!("{error}")).line
    };
    assert_eq!(
        aside(Driver::Libpq),
        "postgresql://app:PASSWORD@db:4711/shop?hostaddr=172.17.0.2&sslmode=verify-full&sslrootcert=/etc/ssl/certs/coolify-ca.crt"
    );
    assert_eq!(
        aside(Driver::Cli),
        "psql 'host=db hostaddr=172.17.0.2 port=4711 user=app dbname=shop sslmode=verify-full sslrootcert=/etc/ssl/certs/coolify-ca.crt'"
    );
}

#[test]
fn addresses_stand_as_each_wants_them() {
    let account = someone("x");
    let at = |engine, driver| {
        let target = Target { host: "fd00::7", ..target(driver, Mode::VerifyFull, &account) };
        text(engine, &target).unwrap_or_else(|error| panic!("{error}"))
    };
    assert!(at(Engine::Postgres, Driver::Libpq).line.contains("@[fd00::7]:4711/"));
    assert!(at(Engine::Mysql, Driver::Go).line.contains("@tcp([fd00::7]:4711)/"));
    assert!(at(Engine::Mysql, Driver::Cli).line.contains("--host=fd00::7 "));
    for engine in [Engine::Postgres, Engine::Mysql] {
        let notes = at(engine, Driver::Node).notes.join(" ");
        assert!(notes.contains("does not compare an address"), "{notes}");
    }
}

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
}

/// `user:password@…/database` as the account gives it, with the password shown.
fn of(engine: Engine, pairs: &[(&str, &str)], command: &[&str]) -> (String, String) {
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let account = account(engine, &env(pairs), &command);
    let password = match &account.password {
        Password::None => "-".to_owned(),
        Password::Known(secret) => String::from_utf8_lossy(secret.expose()).into_owned(),
        Password::Unknown(why) => format!("? {why}"),
    };
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    (format!("{} {password}", word(&account.user)), word(&account.database))
}

#[test]
fn accounts_are_read_as_the_images_read_them() {
    for (engine, pairs, account, database) in [
        (Engine::Postgres, &[("POSTGRES_PASSWORD", "s")][..], "postgres s", "postgres"),
        (Engine::Postgres, &[("POSTGRES_USER", "u"), ("POSTGRES_PASSWORD", "s")], "u s", "u"),
        (
            Engine::Postgres,
            &[("POSTGRES_DB", "d"), ("POSTGRES_HOST_AUTH_METHOD", "trust")],
            "postgres -",
            "d",
        ),
        (Engine::Mysql, &[("MYSQL_ROOT_PASSWORD", "s")], "root s", "-"),
        (
            Engine::Mysql,
            &[
                ("MYSQL_ROOT_PASSWORD", "r"),
                ("MYSQL_USER", "u"),
                ("MYSQL_PASSWORD", "s"),
                ("MYSQL_DATABASE", "d"),
            ],
            "u s",
            "d",
        ),
        (Engine::Mysql, &[("MYSQL_ALLOW_EMPTY_PASSWORD", "1")], "root -", "-"),
        (
            Engine::Mysql,
            &[("MARIADB_ROOT_PASSWORD", "s")],
            "root ? the container's environment does not hold it",
            "-",
        ),
        (Engine::Mariadb, &[("MARIADB_ROOT_PASSWORD", "s"), ("MYSQL_ROOT_PASSWORD", "o")], "root s", "-"),
        (Engine::Mariadb, &[("MYSQL_USER", "u"), ("MYSQL_PASSWORD", "s")], "u s", "-"),
        (Engine::Mariadb, &[("MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "1")], "root -", "-"),
        (Engine::Redis, &[("REDIS_PASSWORD", "s")], "default s", "0"),
        (Engine::Redis, &[], "- -", "0"),
        (
            Engine::Mongodb,
            &[("MONGO_INITDB_ROOT_USERNAME", "u"), ("MONGO_INITDB_ROOT_PASSWORD", "s")],
            "u s",
            "-",
        ),
        (Engine::Mongodb, &[("MONGO_INITDB_DATABASE", "d")], "- -", "d"),
    ] {
        assert_eq!(of(engine, pairs, &[]), (account.to_owned(), database.to_owned()), "{engine} {pairs:?}");
    }
}

#[test]
fn redis_is_asked_in_its_command_first() {
    let of = |command: &[&str]| of(Engine::Redis, &[("REDIS_PASSWORD", "s"), ("OTHER", "o")], command).0;
    assert_eq!(of(&["redis-server", "--requirepass", "c"]), "default c");
    assert_eq!(of(&["redis-server", "--requirepass", "$c"]), "default $c", "no shell reads this");
    assert_eq!(of(&["redis-server", "--requirepass", ""]), "- -");
    assert_eq!(of(&["sh", "-c", "redis-server --requirepass \"$OTHER\""]), "default o");
    assert_eq!(of(&["sh", "-c", "redis-server --requirepass ${OTHER}"]), "default o");
    assert!(of(&["sh", "-c", "redis-server --requirepass a$OTHER"]).starts_with("default ? the shell"));
}

#[test]
fn a_file_is_named_and_not_read() {
    for (engine, variable) in [
        (Engine::Postgres, "POSTGRES_PASSWORD"),
        (Engine::Mysql, "MYSQL_ROOT_PASSWORD"),
        (Engine::Mariadb, "MYSQL_ROOT_PASSWORD"),
        (Engine::Redis, "REDIS_PASSWORD"),
    ] {
        let file = format!("{variable}_FILE");
        let found = account(engine, &env(&[(&file, "/run/secrets/p")]), &[]);
        let target =
            Target { show_password: true, ..target(Driver::usual(engine), Mode::VerifyFull, &found) };
        let notes = text(engine, &target).unwrap_or_else(|error| panic!("{error}")).notes.join("\n");
        assert!(
            notes.contains(&format!("the file that {file} names, which is not read")),
            "{engine}: {notes}"
        );
    }
    let found =
        account(Engine::Postgres, &env(&[("POSTGRES_USER_FILE", "/u"), ("POSTGRES_PASSWORD", "s")]), &[]);
    assert_eq!((found.user.as_deref(), found.database.as_deref()), (Some("USER"), Some("USER")));
    assert_eq!(found.notes, ["put the content of the file that POSTGRES_USER_FILE names in place of USER"]);
}
