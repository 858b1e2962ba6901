//! The CA that a user brings, and the trust bundle that applications mount.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use live::{TestRun, docker};

/// As Coolify leaves it: the CA's certificate is there, its key is in Coolify's own database.
#[test]
fn a_ca_without_its_key_stays_in_front_and_ours_is_added_behind_it() {
    let run = TestRun::begin();
    fs::create_dir(run.data()).unwrap();
    let theirs = live::root(run.folder(), "coolify", "/C=US/O=Coolify/CN=Coolify CA Certificate");
    fs::copy(&theirs.certificate, run.bundle()).unwrap();
    let uploaded = fs::read(run.bundle()).unwrap();
    let inode = fs::metadata(run.bundle()).unwrap().ino();

    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let bundle = fs::read(run.bundle()).unwrap();
    assert!(bundle.starts_with(&uploaded), "what was uploaded is untouched, and in front");
    assert_eq!(String::from_utf8(bundle.clone()).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(fs::metadata(run.bundle()).unwrap().ino(), inode, "who mounts the file sees it all");
    db.wait_enforced();
    let why = db.client("verify-full").root(&theirs.certificate).query("select 1").unwrap_err();
    assert!(why.contains("certificate verify failed"), "theirs alone is not enough, and cannot be: {why}");
    assert!(agent.lines(&["WARN", "Coolify CA Certificate"]).len() == 1, "said once: {}", agent.log());

    // The next start finds all in order, and says nothing new.
    assert!(agent.terminate().success());
    let _agent = run.agent().start();
    assert_eq!(run.status(&db)["standing"], "proved");
    assert_eq!(fs::read(run.bundle()).unwrap(), bundle);
}

#[test]
fn a_ca_with_its_key_issues() {
    let run = TestRun::begin();
    fs::create_dir(run.data()).unwrap();
    let theirs = live::root(run.folder(), "company", "/DC=corp/DC=example/OU=a/OU=b/CN=Company Root");
    fs::copy(&theirs.certificate, run.bundle()).unwrap();
    let key = run.data().join("coolify-ca.key");
    fs::copy(&theirs.key, &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let uploaded = fs::read(run.bundle()).unwrap();

    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.wait_enforced();
    // A client that has only what the company handed out.
    let client = db.client("verify-full").root(&theirs.certificate);
    assert_eq!(client.is_encrypted().unwrap(), "t");
    assert!(fs::read(run.bundle()).unwrap().starts_with(&uploaded));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "tightened");
    // Its key is nowhere a container or a log could show it.
    let secret = fs::read_to_string(&theirs.key).unwrap();
    let line = secret.lines().nth(1).unwrap().to_owned();
    assert!(!agent.log().contains(&line));
    assert!(!db.inspect().to_string().contains(&line));
    assert!(db.exec(&["grep", "-r", &line, "/var/lib/postgresql/certs/"]).is_err());
    let listed = db.exec(&["ls", "-A", "/var/lib/postgresql/certs/"]).unwrap();
    assert!(!listed.contains("ca.key"), "{listed}");
    assert!(agent.terminate().success());
    let _agent = run.agent().start();
    assert_eq!(run.status(&db)["standing"], "proved");
}

/// An application that mounts the bundle as a single file sees each change, since the file stays the same one.
#[test]
fn an_application_that_mounts_the_bundle_sees_what_is_added_to_it() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let app = run
        .database("app")
        .without_volume()
        .options(["--volume", &format!("{}:/etc/ssl/certs/coolify-ca.crt:ro", run.bundle().display())])
        .options(["--entrypoint", "sleep"])
        .command(["infinity"])
        .start();
    let inside = || app.exec(&["cat", "/etc/ssl/certs/coolify-ca.crt"]).unwrap();
    let whole = fs::read_to_string(run.bundle()).unwrap();
    assert_eq!(inside().trim(), whole.trim());
    // Somebody cuts our CA out of it and puts theirs in, in place: ours comes back, in the same file.
    let theirs = live::root(run.folder(), "theirs", "/CN=Their Root");
    let uploaded = fs::read_to_string(&theirs.certificate).unwrap();
    fs::write(run.bundle(), &uploaded).unwrap();
    live::wait("our CA is in the bundle again", 60, || {
        let now = inside();
        if now.starts_with(uploaded.trim()) && now.contains(whole.trim()) { Ok(()) } else { Err(now) }
    });
    assert_eq!(db.verifying().is_encrypted().unwrap(), "t");
    assert_eq!(run.status(&db)["standing"], "proved");
    docker(&["restart", &db.name]);
    db.wait_enforced();
}
