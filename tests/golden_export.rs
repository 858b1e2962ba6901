//! What `dbssl export` prints for each engine, as text to be read and judged: `tests/golden/export.txt`. After a change
//! that is meant: `GOLDEN=write cargo test --test golden_export`, and read the difference.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{collections::BTreeMap, fs, path::Path};

use dbssl::{
    decide::compose::{Fragment, by_hand},
    engine::{Check, Enforcement, Env, Launch, Wired, spec},
    model::{Engine, Mode},
};

/// A container as its user started it.
struct Started {
    engine: Engine,
    mode: Mode,
    command: &'static [&'static str],
    healthcheck: &'static [&'static str],
}

const STARTED: [Started; 6] = [
    Started {
        engine: Engine::Postgres,
        mode: Mode::VerifyFull,
        command: &["postgres", "-c", "max_connections=200"],
        healthcheck: &["CMD-SHELL", "pg_isready -U \"$POSTGRES_USER\""],
    },
    Started { engine: Engine::Postgres, mode: Mode::Prefer, command: &["postgres"], healthcheck: &[] },
    Started { engine: Engine::Mysql, mode: Mode::VerifyFull, command: &["mysqld"], healthcheck: &[] },
    Started {
        engine: Engine::Mariadb,
        mode: Mode::Allow,
        command: &["mariadbd", "--max-connections=200"],
        healthcheck: &["CMD", "healthcheck.sh", "--connect"],
    },
    Started {
        engine: Engine::Redis,
        mode: Mode::Require,
        command: &["redis-server", "--requirepass", "it's $ecret"],
        healthcheck: &["CMD-SHELL", "redis-cli -a \"$REDIS_PASSWORD\" ping"],
    },
    Started {
        engine: Engine::Mongodb,
        mode: Mode::VerifyCa,
        command: &["mongod", "--replSet", "rs0"],
        healthcheck: &["CMD", "mongosh", "--quiet", "--eval", "db.runCommand('ping').ok"],
    },
];

/// The text for it; wired as it says, it lacks nothing.
fn rendered(started: &Started, service: Option<&str>) -> String {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let spec = spec(started.engine);
    let (command, entrypoint) = (words(started.command), words(&["docker-entrypoint.sh"]));
    let command = spec.wire(Launch { entrypoint: &entrypoint, command: &command }, started.mode.into());
    let whole = [entrypoint, command.clone()].concat();
    assert_eq!(spec.wired(&whole, started.mode.into()), Wired::Ours);
    let adapted =
        match spec.healthcheck(&words(started.healthcheck), &whole, &Env::new(), started.mode.into()) {
            Check::Adapted(test) => Some(test),
            Check::Works => None,
            Check::Unknown(why) => panic!("{why}"),
        };
    let labels = [("dbssl.enable", "true"), ("dbssl.mode", started.mode.word())];
    let labels: BTreeMap<_, _> =
        labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
    let fragment = Fragment {
        container: "shop-db-1",
        service,
        mode: started.mode,
        by_rules: spec.enforcement() == Enforcement::Rules,
        source: Path::new("/var/lib/dbssl/databases/shop-db-1"),
        target: spec.certificate_directory(&whole),
        selinux: false,
        command: &command,
        healthcheck: adapted.as_deref(),
        labels: &labels,
        shortfall: None,
    };
    fragment.to_string()
}

#[test]
fn every_engine_gets_its_wiring_as_text() {
    let mut text = String::new();
    for (at, started) in STARTED.iter().enumerate() {
        // The last two as Compose did not make them.
        let service = (at < 4).then_some("db");
        text.push_str(&format!("=== {} {}\n{}\n", started.engine, started.mode, rendered(started, service)));
    }
    text.push_str("=== by hand\n");
    text.push_str(&by_hand_text());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/export.txt");
    if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "read the difference; if it is meant: GOLDEN=write");
}

fn by_hand_text() -> String {
    let none = BTreeMap::new();
    let fragment = Fragment {
        container: "shop-db-1",
        service: Some("db"),
        mode: Mode::VerifyFull,
        by_rules: true,
        source: Path::new("/var/lib/dbssl/databases/shop-db-1"),
        target: "/var/lib/postgresql/certs",
        selinux: false,
        command: &[],
        healthcheck: None,
        labels: &none,
        shortfall: None,
    };
    by_hand(
        &fragment,
        "flags cannot be appended to its command, since …; add them there by hand: -c ssl=on …",
    )
}
