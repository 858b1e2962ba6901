//! Databases of a Compose project: Compose must not notice that a container was replaced, and what the user does with
//! Compose counts.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::process::Stdio;

use live::{Compose, Config, DATA_AND_NETWORK, TestRun, compose_database, image, wait};

/// A database with this label, and an application that waits until the database is healthy.
fn project(labels: &str) -> String {
    let (database, image) = (compose_database(), image("postgres:15"));
    format!(
        "{database}    labels:
      - LABEL
      - a.label=of the user
{labels}
    healthcheck:
      test: pg_isready --username postgres
      interval: 500ms
      timeout: 5s
      retries: 60
  app:
    image: {image}
    entrypoint: [sleep, infinity]
    init: true
    labels: [LABEL]
    depends_on:
      db:
        condition: service_healthy
{DATA_AND_NETWORK}"
    )
}

const ENABLED: &str = "      - dbssl.enable=true";

/// With the time to settle that users have: `up --wait` must be over before anything happens.
fn run() -> TestRun {
    TestRun::begin_with(&Config { docker: "ready-timeout = \"60s\"".to_owned(), ..Config::default() })
}

#[test]
fn compose_up_succeeds_while_the_agent_works_and_sees_nothing_to_do_afterwards() {
    let run = run();
    let mut agent = run.agent().start();
    let compose = Compose::new(&run, &project(ENABLED));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    let (db, app) = (compose.container("db"), compose.container("app"));
    agent.wait_log(60, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    db.write_row("kept");
    // The application finds it by the service's name, and verifies that.
    docker_copy(&run, &app.name);
    let through_app = || {
        app.exec(&[
            "env",
            "PGPASSWORD=secret",
            "psql",
            "-qAt",
            "host=db user=postgres sslmode=verify-full sslrootcert=/tmp/ca.crt",
            "-c",
            "select row from kept",
        ])
    };
    assert_eq!(through_app().unwrap(), "kept");

    let ids = (db.id(), app.id());
    let said = compose.run(&["up", "--detach"]).unwrap();
    assert_eq!((db.id(), app.id()), ids, "{said}");
    assert_eq!(compose.said_of(&said, "db").first().map(String::as_str), Some("Running"), "{said}");
    let said = compose.run(&["up", "--detach", "--wait"]).unwrap();
    assert_eq!((db.id(), app.id()), ids, "{said}");
    assert_eq!(compose.run(&["ps", "--all", "--quiet"]).unwrap().lines().count(), 2);

    // Compose restarts, stops and starts it: the same container, still with TLS.
    compose.run(&["restart", "db"]).unwrap();
    db.wait_enforced();
    compose.run(&["stop", "db"]).unwrap();
    compose.run(&["start", "db"]).unwrap();
    db.wait_enforced();
    assert_eq!(db.id(), ids.0);

    // Compose makes a new container without our wiring: it comes back, once.
    let said = compose.run(&["up", "--detach", "--wait", "--force-recreate"]).unwrap();
    agent.wait_log_after(1, 60, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), ids.0, "{said}");
    assert_eq!(db.rows(), ["kept"]);
    let settled = db.id();
    let said = compose.run(&["up", "--detach", "--wait"]).unwrap();
    assert_eq!(compose.said_of(&said, "db").first().map(String::as_str), Some("Running"), "{said}");
    assert_eq!(db.id(), settled);
    assert_eq!(agent.lines(&[&db.name, "recreated with TLS: proved"]).len(), 2, "no loop");
    assert_eq!(run.status(&db)["standing"], "proved");

    // And all of it goes with `down`, which leaves nothing of ours.
    compose.run(&["down", "--volumes"]).unwrap();
    assert_eq!(run.containers(), Vec::<String>::new());
}

#[test]
fn a_changed_label_changes_the_database_and_a_removed_one_gives_plaintext_back() {
    let run = run();
    let mut agent = run.agent().start();
    let compose = Compose::new(&run, &project(ENABLED));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    let db = compose.container("db");
    db.write_row("kept");
    db.wait_enforced();
    let rules = || db.exec(&["cat", "/var/lib/postgresql/data/pg_hba.conf"]).unwrap();
    assert!(rules().contains("hostnossl all all all reject"));

    compose.write(&project("      - dbssl.enable=true\n      - dbssl.mode=prefer"));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    agent.wait_log_after(1, 60, &[&db.name, "recreated with TLS: proved"]);
    db.wait_verified();
    wait("plaintext is let in again", 30, || db.client("disable").query("select 1"));
    assert!(!rules().contains("dbssl"), "{}", rules());

    compose.write(&project("      - dbssl.enable=true\n      - dbssl.mode=require"));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    agent.wait_log_after(2, 60, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();

    // Without a label it is an ordinary database again; the rule would have shut everybody out.
    compose.write(&project(""));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    wait("plaintext is let in again", 30, || db.client("disable").query("select 1"));
    assert!(!rules().contains("dbssl") && !rules().contains("hostnossl all"), "{}", rules());
    assert!(db.client("require").query("select 1").unwrap_err().contains("does not support SSL"));
    assert_eq!(db.rows(), ["kept"]);
    let plain = db.id();

    // The same with nobody there to see it: the next start of the agent puts it right.
    compose.write(&project(ENABLED));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    agent.wait_log_after(3, 60, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), plain);
    assert!(agent.terminate().success());
    compose.write(&project("      - dbssl.enable=false"));
    compose.run(&["up", "--detach", "--wait"]).unwrap();
    let plain = db.id();
    assert!(db.client("prefer").query("select 1").unwrap_err().contains("no encryption"));
    let _agent = run.agent().start();
    wait("plaintext is let in again", 30, || db.client("disable").query("select 1"));
    assert_eq!((db.id(), db.rows()), (plain, vec!["kept".to_owned()]));
}

#[test]
fn compose_up_in_the_foreground_and_stopped_by_its_user_stays_stopped() {
    let run = run();
    let mut agent = run.agent().start();
    let compose = Compose::new(&run, &project(ENABLED));
    // Its output has to go somewhere, or it stops when the pipe is full.
    let mut up = compose.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let db = compose.container("db");
    agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    let id = db.id();
    // Ctrl-C or `docker compose stop` from elsewhere.
    compose.run(&["stop"]).unwrap();
    let _ = up.kill();
    up.wait().unwrap();
    assert!(!db.is_running());
    let status = run.status(&db);
    assert_eq!(status["plan"], "it is stopped", "{status:#}");
    assert_eq!(db.id(), id);
}

/// Those from a file are mounts; those from the environment live in the container's own layer, where Compose copied
/// them once.
#[test]
fn secrets_of_both_kinds_are_there_afterwards() {
    let run = run();
    std::fs::write(run.folder().join("mounted"), "from a file").unwrap();
    let mut agent = run.agent().start();
    let image = image("postgres:15");
    let compose = Compose::new(
        &run,
        &format!(
            "
services:
  db:
    image: {image}
    environment:
      POSTGRES_PASSWORD_FILE: /run/secrets/password
    volumes:
      - data:/var/lib/postgresql/data
    labels:
      - LABEL
{ENABLED}
    secrets:
      - mounted
      - source: password
        uid: '999'
        mode: 0440
secrets:
  mounted:
    file: ./mounted
  password:
    environment: THE_PASSWORD
{DATA_AND_NETWORK}"
        ),
    );
    let output = compose.command(&["up", "--detach"]).env("THE_PASSWORD", "secret").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let db = compose.container("db");
    let look = || db.exec(&["sh", "-c", "cd /run/secrets; stat -c '%n %u %g %a' *; cat *"]);
    let before = wait("it runs", 60, look);
    assert!(before.contains("from a file") && before.contains("secret"), "{before}");
    agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_eq!(look().unwrap(), before);
}

fn docker_copy(run: &TestRun, container: &str) {
    live::docker(&["cp", run.bundle().to_str().unwrap(), &format!("{container}:/tmp/ca.crt")]);
}
