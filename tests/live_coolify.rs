//! Beside Coolify on one server: what it does to its folder and to containers, again and again.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use live::{Compose, DATA_AND_NETWORK, TestRun, compose_database};

/// Coolify's own CA: P-521, no CA may stand below it, and its key is in Coolify's database.
fn coolify_s_ca(run: &TestRun) -> (String, String) {
    let (key, certificate) = (run.folder().join("coolify.key"), run.folder().join("coolify.crt"));
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    openssl(&[
        &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-nodes", "-days", "3650"],
        &[
            "-subj",
            "/C=US/ST=Somewhere/O=Coolify/CN=Coolify CA Certificate",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
        &[
            "-addext",
            "basicConstraints=critical,CA:TRUE,pathlen:0",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ][..],
    ]);
    (certificate, key)
}

fn openssl(arguments: &[&[&str]]) {
    let output = Command::new("openssl").args(arguments.concat()).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn compose_file() -> String {
    format!("{}    labels: [LABEL, dbssl.enable=true]\n{DATA_AND_NETWORK}", compose_database())
}

#[test]
fn whatever_coolify_does_everything_converges_and_its_own_clients_go_on() {
    let run = TestRun::begin();
    let (ca, key) = coolify_s_ca(&run);
    let folder = run.folder();
    let path = |name: &str| folder.join(name).display().to_string();
    openssl(&[&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=theirs",
        "-keyout",
        &path("theirs.key"),
        "-out",
        &path("theirs.csr"),
    ]]);
    openssl(&[&[
        "x509",
        "-req",
        "-in",
        &path("theirs.csr"),
        "-CA",
        &ca,
        "-CAkey",
        &key,
        "-CAcreateserial",
        "-days",
        "30",
        "-out",
        &path("theirs.crt"),
    ]]);
    // As it is at each of Coolify's starts.
    let coolify_starts = || {
        let _ = fs::remove_file(run.bundle());
        fs::create_dir_all(run.data()).unwrap();
        fs::copy(&ca, run.bundle()).unwrap();
        for file in fs::read_dir(run.data()).unwrap().map(|file| file.unwrap().path()).chain([run.data()]) {
            let mode = fs::Permissions::from_mode(0o700);
            match chown(&file, Some(9999), Some(0)).and_then(|()| fs::set_permissions(&file, mode)) {
                // The agent puts the file there under another name first.
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                done => done.unwrap(),
            }
        }
    };
    coolify_starts();
    let mut agent = run.agent().start();
    let compose = Compose::new(&run, &compose_file());
    compose.run(&["up", "-d"]).unwrap();
    let db = compose.container("db");
    agent.wait_log(120, &["plaintext is refused: proved"]);
    db.wait_standing("proved");
    for round in 1..=3 {
        coolify_starts();
        compose.run(&["up", "-d", "--force-recreate"]).unwrap();
        let db = compose.container("db");
        agent.wait_log_after(round, 120, &["recreated with TLS: proved"]);
        live::wait("our CA is behind Coolify's again", 30, || {
            let held = fs::read(run.bundle()).unwrap();
            let theirs = fs::read(&ca).unwrap();
            if held.starts_with(&theirs) && held.len() > theirs.len() {
                Ok(())
            } else {
                Err(format!("{} bytes", held.len()))
            }
        });
        db.wait_standing("proved");
        assert_eq!(db.verifying().is_encrypted().unwrap(), "t");
        // Coolify's own clients have the same file.
        let bundle = run.bundle().display().to_string();
        openssl(&[&["verify", "-CAfile", &bundle, &path("theirs.crt")]]);
    }
    // Said once, not at each of Coolify's starts.
    assert_eq!(agent.lines(&["WARN", "without its key"]).len(), 1, "{}", agent.log());
    assert_eq!(agent.lines(&["CA generated"]).len(), 1);
}
