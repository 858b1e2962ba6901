//! A certificate of one database that somebody else signs, who keeps his CA's key: signed by `openssl` as the log says.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use live::{Container, Pair, TestRun, wait};
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

/// Runs what dbssl says is to be run, where this CA's key is.
fn sign(run: &TestRun, db: &Container<'_>, by: &Pair) {
    let command = shown(run, db)["awaited"].as_str().unwrap().to_owned();
    let command = command
        .replace(" CA.crt ", &format!(" {} ", by.certificate.display()))
        .replace(" CA.key ", &format!(" {} ", by.key.display()));
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
