//! Databases that were started with `docker run`.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use live::{Config, TestRun, docker};

#[test]
fn a_labelled_database_gets_tls_that_clients_verify_and_keeps_its_data() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().label("dbssl.names", "db.example.com,10.9.8.7").start();
    db.write_row("before");
    let first = db.id();
    agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), first, "the wiring comes with a new container");
    assert_eq!(db.rows(), ["before"]);

    // Every name by which it can be reached, and no other.
    for name in [db.name.as_str(), "localhost", "127.0.0.1", "::1", "db.example.com", "10.9.8.7"] {
        assert_eq!(db.verifying().host(name).is_encrypted().unwrap(), "t", "{name}");
    }
    let why = db.verifying().host("other.example.com").query("select 1").unwrap_err();
    assert!(why.contains("does not match host name \"other.example.com\""), "{why}");
    let verify_ca = db.client("verify-ca").root(run.bundle()).host("other.example.com");
    assert_eq!(verify_ca.is_encrypted().unwrap(), "t", "verify-ca does not look at the name");
    // Another CA, and none.
    for client in [db.client("verify-full").root(run.other_ca()), db.client("verify-ca").root(run.other_ca())]
    {
        let why = client.query("select 1").unwrap_err();
        assert!(why.contains("certificate verify failed"), "{why}");
    }
    assert_eq!(db.client("require").is_encrypted().unwrap(), "t");
    assert!(db.client("disable").query("select 1").unwrap_err().contains("no encryption"));
    // Inside of the container nothing changed: the socket, and what health checks do.
    db.exec(&["pg_isready"]).unwrap();
    db.exec(&["pg_isready", "-h", "127.0.0.1"]).unwrap();

    // It outlives restarts, with the agent and without.
    let second = db.id();
    docker(&["restart", &db.name]);
    db.wait_enforced();
    let served = run.status(&db)["fingerprint"].clone();
    assert!(agent.terminate().success());
    docker(&["restart", &db.name]);
    db.wait_enforced();
    let mut agent = run.agent().start();
    assert_eq!(run.status(&db)["standing"], "proved");
    assert_eq!(run.status(&db)["fingerprint"], served, "there was no reason for another certificate");
    assert_eq!(db.id(), second);
    assert_eq!(db.rows(), ["before"]);

    // `docker stop` by its user is respected, and so is their start.
    docker(&["stop", &db.name]);
    docker(&["start", &db.name]);
    db.wait_enforced();
    assert_eq!(db.id(), second);
    assert!(agent.is_running());
    assert_eq!(agent.lines(&["recreated"]), Vec::<String>::new());
}

#[test]
fn each_mode_lets_in_just_what_it_says() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let modes = ["allow", "prefer", "require", "verify-ca", "verify-full"];
    let databases = modes.map(|mode| (mode, run.database(mode).mode(mode).start()));
    for (mode, db) in &databases {
        agent.wait_log(180, &[&db.name, "recreated with TLS: proved"]);
        if matches!(*mode, "allow" | "prefer") {
            db.wait_verified();
            assert_eq!(db.client("disable").is_encrypted().unwrap(), "f", "{mode} lets plaintext in");
        } else {
            db.wait_enforced();
        }
        assert_eq!(db.client("prefer").is_encrypted().unwrap(), "t", "{mode} offers TLS");
        live::wait(&format!("{mode} is proved"), 30, || {
            let status = run.status(db);
            let plaintext = if matches!(*mode, "allow" | "prefer") { "accepted" } else { "refused" };
            let right =
                status["standing"] == "proved" && status["plaintext"] == plaintext && status["mode"] == *mode;
            if right { Ok(()) } else { Err(format!("{status:#}")) }
        });
    }
}

#[test]
fn an_agent_that_comes_later_finds_the_databases_that_are_there() {
    // As the agent is installed: it sees all there is on the engine.
    let run = TestRun::begin_with(&Config { alone: true, ..Config::default() });
    let labelled = run.database("labelled").enabled().start_and_wait();
    let plain = run.database("plain").start_and_wait();
    labelled.write_row("long before");
    let (id, started_at) = (plain.id(), plain.started_at());
    let mut agent = run.agent().start();
    agent.wait_log(120, &[&labelled.name, "recreated with TLS: proved"]);
    labelled.wait_enforced();
    assert_eq!(labelled.rows(), ["long before"]);
    assert_eq!((plain.id(), plain.started_at()), (id, started_at));
    assert_eq!(plain.client("disable").query("select 1").unwrap(), "1");
    assert_eq!(agent.lines(&[&plain.name]), Vec::<String>::new(), "what is not labelled is not worth a word");
}

/// The agent looks at a database whenever something happens to it, so also while it goes down. Whatever it sees then,
/// it must not take it for a fault that a restart would mend.
#[test]
fn who_stops_and_starts_a_database_is_its_user_alone() {
    const TIMES: usize = 8;
    let run = TestRun::begin();
    let events = run.events();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let served = run.status(&db)["fingerprint"].clone();
    for time in 0..TIMES {
        // As soon as it answers, so that the agent is still looking at the start before.
        docker(&["restart", &db.name]);
        live::wait("it answers", 60, || db.client("require").query("select 1"));
        if time % 3 == 2 {
            db.wait_enforced();
        }
    }
    docker(&["stop", &db.name]);
    let barrier = run.database("barrier").enabled().start();
    agent.wait_log(180, &[&barrier.name, "plaintext is refused: proved"]);
    assert!(!db.is_running(), "it stays stopped");
    // By `docker run`, as the successor, and each time by the user.
    events
        .wait("starts of the database", 2 + TIMES, |event| event.action == "start" && event.name == db.name);
    docker(&["start", &db.name]);
    db.wait_enforced();
    assert_eq!(run.status(&db)["fingerprint"], served, "there was no reason for another certificate");
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
}
