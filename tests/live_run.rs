//! A container that is started with `docker run` while the agent runs.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use live::TestRun;

#[test]
fn a_labelled_database_gets_tls_that_clients_verify_and_keeps_its_data() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    db.write_row("before");
    let first = db.id();
    agent.wait_log(120, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), first, "the wiring comes with a new container");
    assert_eq!(db.rows(), ["before"]);
    assert_eq!(db.verifying().is_encrypted().unwrap(), "t");
}
