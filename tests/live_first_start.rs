//! The first start on an empty volume. A container that is stopped while its entrypoint initialises stays half
//! initialised for good: so nothing may happen before it is over, whatever a health check says.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::{fs, os::unix::fs::PermissionsExt};

use live::{Kind, MONGODB, MYSQL, TestRun};

#[test]
fn a_slow_initialisation_comes_to_its_end_before_anything_happens() {
    let run = TestRun::begin();
    let scripts = run.folder().join("initdb.d");
    fs::create_dir(&scripts).unwrap();
    let stamp = |what: &str| {
        format!("create table {what} (at timestamptz); insert into {what} values (clock_timestamp());\n")
    };
    fs::write(scripts.join("1-first.sql"), stamp("first")).unwrap();
    fs::write(scripts.join("2-slow.sh"), "echo a slow script begins\nsleep 20\necho a slow script ends\n")
        .unwrap();
    fs::write(scripts.join("3-last.sql"), stamp("last")).unwrap();
    // The run's folder is for its owner alone; what is mounted is read by the database's user.
    for path in
        [scripts.clone(), scripts.join("1-first.sql"), scripts.join("2-slow.sh"), scripts.join("3-last.sql")]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let events = run.events();
    let mut agent = run.agent().start();
    let db = run
        .database("db")
        .enabled()
        .options(["--volume", &format!("{}:/docker-entrypoint-initdb.d:ro", scripts.display())])
        // Asks over the socket, where the temporary server of the first start answers.
        .options(["--health-cmd", "pg_isready", "--health-interval", "500ms"])
        .start();
    let first = db.id();
    live::wait("it calls itself healthy while it initialises", 60, || {
        let found = db.inspect();
        let healthy = found["State"]["Health"]["Status"] == "healthy";
        if healthy { Ok(()) } else { Err(found["State"]["Health"]["Status"].to_string()) }
    });
    assert!(!db.logs().contains("a slow script ends"), "the script is slower than the health check");
    assert!(db.sql("select 1 from last").is_err());
    // `dbssl status` tells what is awaited.
    assert_eq!(run.status(&db)["standing"], "pending");

    agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), first);
    let span = "select extract(epoch from (select at from last) - (select at from first)) >= 20";
    assert_eq!(db.sql(span).unwrap(), "t", "both objects are there, and the time between them passed");
    // Docker's own record: the first container ended once, in order, after the last script.
    let ended =
        events.wait("the first container ends", 1, |event| event.action == "die" && event.id == first);
    assert_eq!(ended[0].exit_code, Some(0), "{ended:?}");
    let sql = format!("select to_timestamp({}::numeric / 1e9) >= at from last", ended[0].at);
    assert_eq!(db.sql(&sql).unwrap(), "t");
}

/// The others' entrypoints start a temporary server, too: on loopback, or without a port. A published port takes in
/// whoever comes all the same, and on the host's network loopback is where the agent looks.
fn is_not_interrupted(kind: &Kind, options: &[&str]) {
    let run = TestRun::begin();
    let scripts = run.folder().join("initdb.d");
    fs::create_dir(&scripts).unwrap();
    let script = scripts.join("1-slow.sh");
    fs::write(&script, "echo a slow script begins\nsleep 15\necho a slow script ends\n").unwrap();
    for path in [&scripts, &script] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let events = run.events();
    let mut agent = run.agent().start();
    let db = kind
        .bare(&run, "db")
        .mode("verify-full")
        .options(["--volume", &format!("{}:/docker-entrypoint-initdb.d:ro", scripts.display())])
        .options(options)
        .start();
    let first = db.id();
    live::wait("its script runs", 60, || {
        if db.logs().contains("a slow script begins") { Ok(()) } else { Err(db.logs()) }
    });
    agent.wait_log(180, &[&db.name, "recreated with TLS: proved"]);
    assert_ne!(db.id(), first);
    let ended =
        events.wait("the first container ends", 1, |event| event.action == "die" && event.id == first);
    assert_eq!(ended[0].exit_code, Some(0), "{ended:?}");
    let began =
        events.wait("the first container starts", 1, |event| event.action == "start" && event.id == first);
    let lived = (ended[0].at - began[0].at) / 1_000_000_000;
    assert!(lived >= 15, "it was stopped after {lived} s, in the middle of its script");
}

#[test]
fn mongodb_with_a_published_port_is_not_interrupted() {
    is_not_interrupted(&MONGODB, &["--publish", "127.0.0.1::27017"]);
}

#[test]
fn mongodb_on_the_hosts_network_is_not_interrupted() {
    is_not_interrupted(&MONGODB, &["--network", "host"]);
}

#[test]
fn mysql_with_a_published_port_is_not_interrupted() {
    is_not_interrupted(&MYSQL, &["--publish", "127.0.0.1::3306"]);
}
