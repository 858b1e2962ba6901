//! The kinds of PostgreSQL containers that people run: other users, versions and volume layouts, read-only roots.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use live::{Container, Start, TestRun};

/// Started while the agent runs, written to before it has TLS, and then what every one has to stand: full
/// verification, plaintext refused, a restart.
fn gets_tls(start: impl for<'r> FnOnce(Start<'r>) -> Start<'r>) {
    gets_tls_and(start, |_, _| ());
}

fn gets_tls_and(
    start: impl for<'r> FnOnce(Start<'r>) -> Start<'r>,
    check: impl FnOnce(&TestRun, &Container<'_>),
) {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = start(run.database("db").enabled()).start();
    db.write_row("kept");
    agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_eq!(db.rows(), ["kept"]);
    let id = db.id();
    live::docker(&["restart", &db.name]);
    db.wait_enforced();
    assert_eq!(db.id(), id);
    assert_eq!(db.rows(), ["kept"]);
    check(&run, &db);
    assert_eq!(run.status(&db)["standing"], "proved");
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
    assert_eq!(agent.lines(&["ERROR"]), Vec::<String>::new());
}

/// Who owns the key on the host, and its mode.
fn key(run: &TestRun, db: &Container<'_>) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(run.certificates(db).join("server.key")).unwrap();
    (found.uid(), found.mode() & 0o777)
}

#[test]
fn debian_s_uid_999() {
    gets_tls_and(|start| start, |run, db| assert_eq!(key(run, db), (999, 0o600)));
}

#[test]
fn alpine_s_uid_70() {
    gets_tls_and(|start| start.image("postgres:15-uid70"), |run, db| assert_eq!(key(run, db), (70, 0o600)));
}

#[test]
fn postgresql_17() {
    gets_tls(|start| start.image("postgres:17"));
}

/// The certificate directory then lies inside of the data volume.
#[test]
fn postgresql_18_with_its_volume_layout() {
    gets_tls(|start| start.image("postgres:18").volume_at("/var/lib/postgresql"));
}

#[test]
fn a_read_only_root_and_an_init_process() {
    gets_tls(|start| {
        start.options(["--read-only", "--tmpfs", "/var/run/postgresql", "--tmpfs", "/tmp", "--init"])
    });
}

#[test]
fn a_user_of_its_own() {
    gets_tls_and(
        |start| start.options(["--user", "999:999"]),
        |run, db| assert_eq!(key(run, db), (999, 0o600)),
    );
}

/// What was copied into `/run/secrets` lives in the container's own layer. Whom it belongs to is not the container's user,
/// whom Docker would look up in the host's list: a number that nobody has there, a name that somebody else has.
#[test]
fn secrets_in_the_layer_keep_their_owners_whatever_user_the_container_has() {
    const MAKE: &str =
        "mkdir --parents /run/secrets && cd /run/secrets && echo one > mine && echo two > other &&
        chown 999:999 mine && chown 4711:4712 other && chmod 440 mine && chmod 444 other";
    let run = TestRun::begin();
    let databases = [("by-number", "999:999"), ("by-name", "postgres")].map(|(name, user)| {
        let db = run.database(name).enabled().options(["--user", user]).start_and_wait();
        live::docker(&["exec", "--user", "0", &db.name, "sh", "-c", MAKE]);
        db
    });
    let look = |db: &Container<'_>| db.exec(&["sh", "-c", "cd /run/secrets; stat -c '%n %u %g %a' *; cat *"]);
    let mut agent = run.agent().start();
    for db in &databases {
        agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
        db.wait_enforced();
        assert_eq!(
            look(db).unwrap().trim(),
            "mine 999 999 440\nother 4711 4712 444\none\ntwo",
            "{}",
            db.name
        );
    }
}

/// Its user and database have other names, the password comes from a file, it listens on another port.
#[test]
fn another_user_database_and_port() {
    let run = TestRun::begin();
    let password = run.folder().join("password");
    std::fs::write(&password, "secret").unwrap();
    let mut agent = run.agent().start();
    let db = run
        .database("db")
        .enabled()
        .options(["--env", "POSTGRES_USER=alice", "--env", "POSTGRES_DB=wonderland"])
        .options(["--env", "POSTGRES_PASSWORD=", "--env", "POSTGRES_PASSWORD_FILE=/run/secrets/password"])
        .options(["--volume", &format!("{}:/run/secrets/password:ro", password.display())])
        .command(["-c", "port=5433", "-c", "shared_buffers=16MB"])
        .start();
    agent.wait_log(120, &[&db.name, "plaintext is refused: proved"]);
    let client =
        |mode: &str| db.client(mode).root(run.bundle()).port(5433).user("alice").database("wonderland");
    assert_eq!(client("verify-full").is_encrypted().unwrap(), "t");
    assert_eq!(client("verify-full").query("show shared_buffers").unwrap(), "16MB");
    assert!(client("disable").query("select 1").unwrap_err().contains("no encryption"));
}
