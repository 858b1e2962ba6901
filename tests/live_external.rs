//! A CA whose key somebody else keeps, who signs as the log says: one database's certificate, or a CA to issue under; and
//! whose key may come later.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use live::{Agent, Container, Kind, MYSQL, POSTGRES_15, Pair, REDIS_8, TestRun, Verify, wait};
use serde_json::Value;

const COMPANY: &str = "/DC=corp/DC=example/OU=a/OU=b/CN=Company Root";

/// A run whose bundle holds the company's root, and nothing of its key.
fn beside_a_company() -> (TestRun, Pair) {
    let run = TestRun::begin();
    fs::create_dir(run.data()).unwrap();
    let company = live::root(run.folder(), "company", COMPANY);
    fs::copy(&company.certificate, run.bundle()).unwrap();
    (run, company)
}

/// What `dbssl ca show` says of a database.
fn shown(run: &TestRun, db: &Container<'_>) -> Value {
    let cli = run.cli(&["ca", "show", "--json"]);
    let json: Value = serde_json::from_str(&cli.stdout).unwrap_or_else(|why| panic!("{why}: {cli:?}"));
    let all = json["external"].as_array().unwrap();
    all.iter().find(|one| one["container"] == *db.name).cloned().unwrap_or(Value::Null)
}

/// Signs what a database asks for.
fn sign(run: &TestRun, db: &Container<'_>, by: &Pair) {
    let command = shown(run, db)["awaited"].as_str().unwrap().to_owned();
    run_where_the_key_is(&command, by);
}

/// Runs what dbssl says is to be run, where this CA's key is.
fn run_where_the_key_is(command: &str, ca: &Pair) {
    let command = command
        .replace(" CA.crt ", &format!(" {} ", ca.certificate.display()))
        .replace(" CA.key ", &format!(" {} ", ca.key.display()));
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn served(run: &TestRun, db: &Container<'_>) -> String {
    run.status(db)["fingerprint"].as_str().unwrap_or_default().to_owned()
}

fn wait_external(run: &TestRun, db: &Container<'_>, external: &str) -> Value {
    wait(&format!("{} is proved, external: {external}", db.name), 60, || {
        let status = run.status(db);
        let there = status["standing"] == "proved" && status["external"] == external;
        if there { Ok(status) } else { Err(status.to_string()) }
    })
}

#[test]
fn what_the_company_signs_is_served_and_verifies_by_its_root_alone() {
    let (run, company) = beside_a_company();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.wait_enforced();
    let (id, started_at, ours) = (db.id(), db.started_at(), served(&run, &db));
    let theirs = db.client("verify-full").root(&company.certificate);
    let why = theirs.query("select 1").unwrap_err();
    assert!(why.contains("certificate verify failed"), "nothing is signed yet: {why}");

    // What is asked for, and where its key is.
    let told =
        agent.wait_log(10, &[&db.name, "INFO", "it can have an external certificate", "openssl x509 -req"]);
    assert!(told.contains("CN=Company Root"), "{told}");
    assert_eq!(
        wait_external(&run, &db, "awaited")["external_note"].as_str().unwrap().matches("openssl").count(),
        1
    );
    let path = |folder: &str, end: &str| run.state().join(folder).join(format!("{}.{end}", db.name));
    let files = || [path("csr", "csr"), path("csr", "ext"), path("requested", "key")];
    assert!(files().iter().all(|file| file.is_file()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path("requested", "key")), mode(&run.state().join("requested"))), (0o600, 0o700));
    let key = fs::read_to_string(path("requested", "key")).unwrap();
    let secret = key.lines().nth(2).unwrap().to_owned();

    // A stranger's answer changes nothing.
    let stranger = live::root(run.folder(), "stranger", "/CN=Stranger");
    sign(&run, &db, &stranger);
    let refused = agent.wait_log(30, &[&db.name, "WARN", "is not put into service", "CN=Stranger"]);
    assert!(refused.contains("needed: all certificates up to a root in coolify-ca.crt"), "{refused}");
    let status = wait_external(&run, &db, "refused");
    assert!(status["external_note"].as_str().unwrap().contains("CN=Stranger"), "{status}");
    assert_eq!(served(&run, &db), ours);
    assert!(files().iter().all(|file| file.is_file()), "it is still awaited");
    // Half of one neither.
    let whole = fs::read(path("signed", "crt")).unwrap();
    fs::write(path("signed", "crt"), &whole[..whole.len() / 2]).unwrap();
    agent.wait_log(30, &[&db.name, "WARN", "is not put into service", "cut off"]);
    assert_eq!(served(&run, &db), ours);
    assert_eq!(agent.lines(&["WARN", "CN=Stranger"]).len(), 1, "said once: {}", agent.log());

    // The company's.
    sign(&run, &db, &company);
    agent.wait_log(60, &[&db.name, "it came back signed by", "CN=Company Root"]);
    agent.wait_log(60, &[&db.name, "reloaded without a restart: proved"]);
    assert_eq!(theirs.is_encrypted().as_deref(), Ok("t"));
    assert_eq!(db.verifying().is_encrypted().as_deref(), Ok("t"), "and by the bundle");
    let status = wait_external(&run, &db, "signed");
    let signed = fs::read_to_string(path("signed", "crt")).unwrap();
    assert_eq!(status["fingerprint"], live::fingerprint(&signed).as_str());
    assert_eq!((db.id(), db.started_at()), (id, started_at), "without a restart");
    assert!(files().iter().all(|file| !file.exists()), "nothing is awaited any more");
    let shown_now = shown(&run, &db);
    assert!(shown_now["signed_by"].as_str().unwrap().contains("CN=Company Root"), "{shown_now}");
    assert!(shown_now["awaited"].is_null(), "{shown_now}");
    for text in [agent.log(), db.inspect().to_string(), status.to_string()] {
        assert!(!text.contains(&secret), "the key is shown nowhere");
    }

    // The next start finds all in order.
    assert!(agent.terminate().success());
    let mut agent = run.agent().start();
    wait_external(&run, &db, "signed");
    assert_eq!(agent.lines(&[&db.name]), [""; 0], "nothing to be said");

    // The company's root is taken out of the bundle: what it signed gives way, and its root stays until then.
    let other = fs::read_to_string(run.other_ca()).unwrap();
    let root = fs::read_to_string(&company.certificate).unwrap();
    fs::write(run.bundle(), &other).unwrap();
    wait("the company's root is there again", 30, || {
        let held = fs::read_to_string(run.bundle()).unwrap();
        // It may have gone for good already, when all is proved.
        let gone = agent.lines(&[&db.name, "reloaded without a restart: proved"]).len() == 1;
        if held.starts_with(&other) && (held.contains(root.trim()) || gone) { Ok(()) } else { Err(held) }
    });
    agent.wait_log(60, &[&db.name, "it was issued by another CA", "Company Root"]);
    agent.wait_log(60, &[&db.name, "reloaded without a restart: proved"]);
    wait_external(&run, &db, "awaited");
    assert_eq!(db.verifying().is_encrypted().as_deref(), Ok("t"));
    wait("its root goes when nothing of it is served", 60, || {
        let held = fs::read_to_string(run.bundle()).unwrap();
        if held.contains(root.trim()) { Err(held) } else { Ok(()) }
    });
}

/// Whoever has the company's root and nothing else connects, or does not.
fn convinces(kind: &Kind, db: &Container<'_>, company: &Pair) -> Result<String, String> {
    kind.driver(db, Verify::Full, &company.certificate).once()
}

/// A running database of this kind, under a CA of ours.
fn proved<'r>(run: &'r TestRun, kind: &Kind) -> (Agent, Container<'r>) {
    let network = run.network("net", &[]);
    let db = kind.start(run, "db", &network).mode("verify-full").start();
    kind.wait_answers(&db);
    let agent = run.agent().start();
    db.wait_standing("proved");
    (agent, db)
}

fn what_the_company_signs_is_served_by(kind: &Kind) {
    let (run, company) = beside_a_company();
    let (mut agent, db) = proved(&run, kind);
    let before = (db.id(), db.started_at());
    convinces(kind, &db, &company).expect_err("nothing is signed yet");
    wait_external(&run, &db, "awaited");
    sign(&run, &db, &company);
    agent.wait_log(60, &[&db.name, "it came back signed by", "CN=Company Root"]);
    wait_external(&run, &db, "signed");
    convinces(kind, &db, &company).unwrap();
    kind.driver(&db, Verify::Full, &run.bundle()).once().unwrap();
    assert_eq!((db.id(), db.started_at()), before, "without a restart");
}

#[test]
fn redis_serves_what_the_company_signs() {
    what_the_company_signs_is_served_by(&REDIS_8);
}

#[test]
fn mysql_serves_what_the_company_signs() {
    what_the_company_signs_is_served_by(&MYSQL);
}

/// Databases are under a CA of ours already when the company's answer comes: they are brought under its root, by a chain
/// of three, without a restart and without one failed connection of those who have the former file.
#[test]
fn a_ca_that_the_company_signs_later_issues_from_then_on() {
    let (run, company) = beside_a_company();
    let kind = &POSTGRES_15;
    let (mut agent, db) = proved(&run, kind);
    let (before, former) = ((db.id(), db.started_at()), run.folder().join("former.crt"));
    fs::copy(run.bundle(), &former).unwrap();
    let clients = kind.driver(&db, Verify::Full, &former).load_every("0.05");
    convinces(kind, &db, &company).expect_err("nothing is signed yet");
    let asked = agent.wait_log(10, &["WARN", "without its key", "openssl x509 -req"]);
    let command = asked.split_once("run there: ").unwrap().1.to_owned();

    let stranger = live::root(run.folder(), "stranger", "/CN=Stranger");
    run_where_the_key_is(&command, &stranger);
    agent.wait_log(30, &["WARN", "dbssl-ca.crt is not put into service"]);
    convinces(kind, &db, &company).expect_err("a stranger's answer changes nothing");

    // As long as the database had not been started, nothing was served that would have had to be proved.
    let proofs = |agent: &Agent| agent.lines(&["the rollover is proved"]).len();
    let earlier = proofs(&agent);
    run_where_the_key_is(&command, &company);
    wait("the rollover is proved", 60, || if proofs(&agent) > earlier { Ok(()) } else { Err(agent.log()) });
    db.wait_standing("proved");
    convinces(kind, &db, &company).unwrap();
    assert_eq!((db.id(), db.started_at()), before, "without a restart");
    let shown = run.cli(&["ca", "show"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(!shown.stdout.contains("awaited"), "{}", shown.stdout);
    let seen = clients.end();
    assert!(seen.opened > 10, "{seen:?}");
    assert_eq!((seen.failed.len(), seen.dropped.len()), (0, 0), "{seen:#?}");
}

#[test]
fn a_key_that_comes_later_completes_the_ca() {
    let (run, company) = beside_a_company();
    let kind = &POSTGRES_15;
    let (mut agent, db) = proved(&run, kind);
    let before = (db.id(), db.started_at());
    convinces(kind, &db, &company).expect_err("it has no key yet");
    let beside = run.data().join("key-that-comes");
    fs::copy(&company.key, &beside).unwrap();
    fs::rename(&beside, run.data().join("coolify-ca.key")).unwrap();
    agent.wait_log(60, &["the rollover is proved", "Company Root"]);
    db.wait_standing("proved");
    convinces(kind, &db, &company).unwrap();
    assert_eq!((db.id(), db.started_at()), before, "without a restart");
    assert!(!run.state().join("csr/dbssl-ca.csr").exists(), "a request that nobody need answer is left");
}
