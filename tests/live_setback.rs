//! Databases that cannot be given TLS: they end as they were, it is said why, and it is not tried over and over.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, process::Command};

use live::{TestRun, docker, image};

/// A database that fails with TLS: back as it was, recorded, and left alone from then on.
fn comes_back_and_is_left_alone(run: &TestRun, image: &str, reason: &str) {
    let events = run.events();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().exact_image(image).options(["--restart", "unless-stopped"]).start();
    db.write_row("kept");
    let before = db.inspect();
    let line = agent.wait_log(180, &[&db.name, "not done; mend the cause"]);
    assert!(line.contains("rolled back") && line.contains(reason), "{line}");
    assert!(line.contains("next_try="), "{line}");

    // The very same container runs again, with all that it had, and it answers.
    db.wait_answers();
    let after = db.inspect();
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(after["Name"], before["Name"]);
    assert_eq!(after["HostConfig"], before["HostConfig"], "the restart policy, too");
    assert_eq!(after["Config"], before["Config"]);
    let networks = |inspect: &serde_json::Value| {
        let networks = inspect["NetworkSettings"]["Networks"].as_object().unwrap();
        networks.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(networks(&after), networks(&before), "no brake stayed on");
    assert_eq!(db.rows(), ["kept"]);
    assert_eq!(db.client("disable").query("select 1").unwrap(), "1");
    assert_eq!(run.containers(), [db.name.as_str()], "nothing stayed behind");
    assert!(journal_is_empty(run));

    let status = run.status(&db);
    assert_eq!(status["standing"], "pending", "{status:#}");
    assert!(status["setback"].as_str().unwrap().contains(reason), "{status:#}");
    let table = run.cli(&["status"]);
    assert_eq!(table.code, 1);
    assert!(
        table.stdout.contains("the last redeploy failed") && table.stdout.contains(reason),
        "{}",
        table.stdout
    );
    assert_eq!(run.cli(&["verify", &db.name]).code, 1);

    // Made by its user, to rehearse, and as the successor. Then events and a restart of the agent: no further try.
    let made = |event: &live::Event| event.action == "create" && event.name.starts_with(&db.name);
    events.wait("containers are made", 3, made);
    docker(&["restart", &db.name]);
    db.wait_answers();
    assert!(agent.terminate().success());
    let mut agent = run.agent().start();
    docker(&["restart", &db.name]);
    db.wait_answers();
    // Whatever comes after it has been worked off when this one is done.
    let barrier = run.database("barrier").enabled().start();
    agent.wait_log(180, &[&barrier.name, "plaintext is refused: proved"]);
    events.wait("the barrier is made, to rehearse, and anew", 3, |event| {
        event.action == "create" && event.name.starts_with(&barrier.name)
    });
    events.wait("containers were made, and no more since", 3, made);
    assert_eq!(db.id(), before["Id"].as_str().unwrap());
    assert_eq!(
        agent.lines(&[&format!("{{container={}}}", db.name), "certificate issued"]),
        Vec::<String>::new()
    );

    // At a human's word it is tried once more.
    let applied = run.cli(&["apply", &db.name]);
    assert_eq!(applied.code, 1, "{applied:?}");
    assert!(applied.stdout.contains(reason), "{applied:?}");
    db.wait_answers();
    events.wait("one try more", 5, made);
    assert_eq!((db.id(), db.rows()), (before["Id"].as_str().unwrap().to_owned(), vec!["kept".to_owned()]));
}

fn journal_is_empty(run: &TestRun) -> bool {
    fs::read_dir(run.state().join("journal")).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a_server_without_tls_ends_as_it_was() {
    let run = TestRun::begin();
    comes_back_and_is_left_alone(&run, &image("postgres:15-nossl"), "SSL is not supported by this build");
}

#[test]
fn an_image_with_a_file_where_the_certificates_belong_ends_as_it_was() {
    let run = TestRun::begin();
    let name = run.name("file-in-the-way");
    let folder = run.folder().join("image");
    fs::create_dir(&folder).unwrap();
    let base = image("postgres:15");
    fs::write(folder.join("Dockerfile"), format!("FROM {base}\nCOPY certs /var/lib/postgresql/certs\n"))
        .unwrap();
    fs::write(folder.join("certs"), "not a folder").unwrap();
    // The classic builder: the other one needs a plugin.
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--label", &run.label(), "--tag", &name])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    comes_back_and_is_left_alone(&run, &name, "not a directory");
}
