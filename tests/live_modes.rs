//! Every engine in every mode: the server serves what its clients verify, and refuses or accepts plaintext as its mode
//! says; health checks and the image's own client go on working.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, os::unix::fs::PermissionsExt};

use live::{
    Container, Kind, MARIADB_10, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, POSTGRES_17, POSTGRES_18, REDIS_7,
    REDIS_8, TestRun, VALKEY, Verify, wait,
};

const MODES: [(&str, bool); 5] =
    [("allow", false), ("prefer", false), ("require", true), ("verify-ca", true), ("verify-full", true)];

/// All modes at once, each with a container of its own, which is there before the agent.
fn every_mode(kind: &Kind) {
    modes(kind, &MODES);
}

/// One that accepts plaintext and one that does not.
fn two_modes(kind: &Kind) {
    let all = live::profile_is_all();
    modes(kind, if all { &MODES[..] } else { &[MODES[1], MODES[4]] });
}

fn modes(kind: &Kind, modes: &[(&str, bool)]) {
    let run = TestRun::begin();
    let network = run.network("net", &[]);
    let other_ca = run.other_ca();
    let databases: Vec<_> =
        modes.iter().map(|(mode, _)| kind.start(&run, mode, &network).mode(mode).start()).collect();
    for db in &databases {
        kind.wait_answers(db);
        wait(&format!("a row is written to {}", db.name), 60, || kind.plain(db).write("kept"));
    }
    let mut agent = run.agent().start();
    for (db, (mode, enforces)) in databases.iter().zip(modes) {
        agent.wait_log(300, &[&format!("container={}}}", db.name), "recreated with TLS: proved"]);
        db.wait_standing("proved");
        serves(kind, db, &run, &other_ca);
        if *enforces {
            kind.plain(db).once().expect_err(&format!("{mode} lets plaintext in"));
        } else {
            assert!(kind.plain(db).once().is_ok(), "{mode}: {:?}", kind.plain(db).once());
        }
        let rows = kind.driver(db, Verify::Full, &run.bundle()).rows();
        assert_eq!(rows.as_deref(), Ok(&["kept".to_owned()][..]), "{mode}");
        let plaintext = if *enforces { "refused" } else { "accepted" };
        assert_eq!(run.status(db)["plaintext"], plaintext, "{mode}");
        wait(&format!("{} is healthy", db.name), 60, || healthy(db));
        kind.own_client(db).unwrap_or_else(|error| panic!("{mode}: {error}"));
        kind.backup(db).unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
    assert_eq!(agent.lines(&["ERROR"]), Vec::<String>::new());
}

/// Each kind of client gets in, and one that trusts another CA or asks for another name does not.
fn serves(kind: &Kind, db: &Container<'_>, run: &TestRun, other_ca: &std::path::Path) {
    let ca = run.bundle();
    for verify in [Verify::Full, Verify::Ca, Verify::Nothing] {
        let once = kind.driver(db, verify, &ca).once();
        assert!(once.is_ok(), "{} {verify:?}: {once:?}", db.name);
    }
    let refused = |driver: live::Driver<'_>| {
        let why = driver.once().expect_err("the client is to refuse").to_lowercase();
        assert!(why.contains("certificate") || why.contains("does not match"), "{}: {why}", db.name);
    };
    refused(kind.driver(db, Verify::Full, other_ca));
    refused(kind.driver(db, Verify::Ca, other_ca));
    refused(kind.driver(db, Verify::Full, &ca).host("not-its-name"));
    assert!(kind.driver(db, Verify::Ca, &ca).host("not-its-name").once().is_ok());
}

fn healthy(db: &Container<'_>) -> Result<(), String> {
    let health = &db.inspect()["State"]["Health"];
    if health["Status"] == "healthy" { Ok(()) } else { Err(format!("{health:#}")) }
}

#[test]
fn mysql() {
    every_mode(&MYSQL);
}

#[test]
fn mariadb_11() {
    every_mode(&MARIADB_11);
}

#[test]
fn mariadb_10() {
    two_modes(&MARIADB_10);
}

#[test]
fn redis_8() {
    every_mode(&REDIS_8);
}

#[test]
fn redis_7() {
    two_modes(&REDIS_7);
}

#[test]
fn valkey() {
    two_modes(&VALKEY);
}

/// A stand-in for the server; the driver is real.
#[test]
fn mongodb() {
    every_mode(&MONGODB);
}

#[test]
fn postgresql_15() {
    every_mode(&POSTGRES_15);
}

#[test]
fn postgresql_17() {
    two_modes(&POSTGRES_17);
}

#[test]
fn postgresql_18() {
    two_modes(&POSTGRES_18);
}

/// Where a mode comes from the config it can change: the flags for the other mode go again.
#[test]
fn a_mode_that_changes_in_the_config_is_wired_anew() {
    let in_mode = |mode: &str| {
        let matches = format!("[[match]]\nname = \"t*-re8-db\"\nmode = {mode:?}\n");
        live::Config { matches, ..live::Config::default() }
    };
    let run = TestRun::begin_with(&in_mode("prefer"));
    let network = run.network("net", &[]);
    let db = REDIS_8.start(&run, "db", &network).start();
    REDIS_8.wait_answers(&db);
    REDIS_8.plain(&db).write("kept").unwrap();
    for (mode, closes) in [("prefer", false), ("verify-full", true), ("allow", false)] {
        run.configure(&in_mode(mode));
        let agent = run.agent().start();
        wait(&format!("it is as {mode} says"), 120, || {
            let plain = REDIS_8.plain(&db).once();
            if plain.is_err() == closes { Ok(()) } else { Err(format!("{plain:?}")) }
        });
        db.wait_standing("proved");
        let full = REDIS_8.driver(&db, Verify::Full, &run.bundle());
        assert_eq!(full.rows().as_deref(), Ok(&["kept".to_owned()][..]), "{mode}");
        wait(&format!("{} is healthy", db.name), 60, || healthy(&db));
        let flags = db.arguments().iter().filter(|word| *word == "--tls-port").count();
        assert_eq!(flags, 1, "{mode}: {:?}", db.arguments());
        assert!(agent.terminate().success());
    }
}

/// A check that nobody understands must not be made to fail.
#[test]
fn a_health_check_that_is_not_understood_keeps_its_port() {
    let run = TestRun::begin();
    let network = run.network("net", &[]);
    let start = |name: &str| {
        let check =
            ["--health-cmd", "echo PING | nc -w 1 127.0.0.1 6379 >/dev/null || grep -q redis /proc/1/comm"];
        REDIS_7.start(&run, name, &network).mode("verify-full").options(check)
    };
    let adapted = start("adapt").start();
    let kept = start("keep").label("dbssl.healthcheck", "keep").start();
    REDIS_7.wait_answers(&adapted);
    REDIS_7.wait_answers(&kept);
    let mut agent = run.agent().start();
    adapted.wait_standing("unenforced");
    kept.wait_standing("proved");
    assert!(REDIS_7.plain(&adapted).once().is_ok(), "its check may need that port");
    assert!(REDIS_7.plain(&kept).once().is_err(), "its operator has said that the check works");
    agent.wait_log(30, &[&adapted.name, "dbssl.healthcheck=keep"]);
    assert!(REDIS_7.driver(&adapted, Verify::Full, &run.bundle()).once().is_ok());
    wait("it stays healthy", 60, || healthy(&adapted));
}

/// MariaDB's client over TCP, which here uses plaintext by itself on both; with a CA the newer one looks at the name, too.
#[test]
fn a_health_check_over_tcp_stays_healthy() {
    const CHECK: &str = "mariadb -h 127.0.0.1 -uroot -psecret -e 'SELECT 1'";
    let run = TestRun::begin();
    let network = run.network("net", &[]);
    // As it is built by default before 11.4; Debian's asks for TLS.
    let settings = run.folder().join("client.cnf");
    fs::write(&settings, "[client]\nskip-ssl\n").unwrap();
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o644)).unwrap();
    let settings = format!("{}:/etc/mysql/mariadb.conf.d/60-client.cnf:ro", settings.display());
    let start = |kind: &Kind| {
        let start = kind.start(&run, "db", &network).mode("verify-full");
        start.options(["--health-cmd", CHECK, "--volume", &settings]).start()
    };
    let databases = [(&MARIADB_10, start(&MARIADB_10)), (&MARIADB_11, start(&MARIADB_11))];
    for (kind, db) in &databases {
        kind.wait_answers(db);
        wait(&format!("{} is healthy without TLS", db.name), 60, || healthy(db));
    }
    let mut agent = run.agent().start();
    for (kind, db) in &databases {
        agent.wait_log(300, &[&format!("container={}}}", db.name), "recreated with TLS: proved"]);
        db.wait_standing("proved");
        assert_eq!(run.status(db)["plaintext"], "refused");
        kind.plain(db).once().expect_err("plaintext is refused");
        // Docker keeps the last five.
        wait(&format!("{} stays healthy", db.name), 120, || {
            healthy(db)?;
            let log = &db.inspect()["State"]["Health"]["Log"];
            let passed = log.as_array().unwrap().iter().filter(|check| check["ExitCode"] == 0).count();
            if passed >= 5 { Ok(()) } else { Err(format!("{log:#}")) }
        });
        db.exec(&["sh", "-c", CHECK]).expect_err("as it was it fails now");
    }
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
}
