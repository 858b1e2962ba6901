//! Hazards of replacing a container that no other test meets on a real engine: see `docs/hazards.md`.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod live;

use std::{
    fs, io,
    process::{Child, Command, Stdio},
};

use live::{Compose, Container, DATA_AND_NETWORK, TestRun, compose_database, docker, wait};

/// What must be the same of a database that nothing was done to.
fn untouched(db: &Container<'_>) -> (String, String, String) {
    let policy = db.inspect()["HostConfig"]["RestartPolicy"].to_string();
    (db.id(), db.started_at(), policy)
}

/// Docker looks at the path anew when it starts a container, and makes an empty folder where there is none: the
/// successor would begin with an empty database.
#[test]
fn data_in_a_folder_that_was_moved_away_is_not_left_behind() {
    let run = TestRun::begin();
    let folder = |name: &str| run.folder().join(name);
    let begin = |name: &str| {
        fs::create_dir(folder(name)).unwrap();
        let mount = format!("{}:/var/lib/postgresql/data", folder(name).display());
        let db = run.database(name).enabled().without_volume().options(["--volume", &mount]).start_and_wait();
        db.write_row("kept");
        db
    };
    // The server goes on in its folder, whatever that is called now.
    let moved = ["gone", "replaced"].map(|name| (name, begin(name)));
    for (name, _) in &moved {
        fs::rename(folder(name), folder(&format!("{name}.away"))).unwrap();
    }
    fs::create_dir(folder("replaced")).unwrap();
    let before = [0, 1].map(|number: usize| untouched(&moved[number].1));

    let mut agent = run.agent().start();
    for ((name, db), before) in moved.iter().zip(before) {
        let why = format!("{} on this host is gone", folder(name).display());
        agent.wait_log(120, &[&db.name, &why, "/var/lib/postgresql/data", "put it back"]);
        assert_eq!(untouched(db), before, "{name}");
        assert_eq!(db.rows(), ["kept"], "{name}");
    }

    for (name, db) in &moved {
        // Docker has made even the one that was gone, as soon as it was asked for a file of the container.
        fs::remove_dir(folder(name))
            .or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .unwrap();
        fs::rename(folder(&format!("{name}.away")), folder(name)).unwrap();
        let applied = run.cli(&["apply", &db.name]);
        assert_eq!(applied.code, 0, "{name}: {applied:?}");
        db.wait_enforced();
        assert_eq!(db.rows(), ["kept"], "{name}");
    }
}

/// A command in a container that lasts until it is dropped, as a backup does.
struct Backup(Child);

impl Backup {
    fn begin(db: &Container<'_>) -> Self {
        let command = Command::new("docker")
            .args(["exec", "--interactive", &db.name, "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let backup = Self(command.expect("docker runs"));
        wait("the command runs", 30, || {
            let ids = db.inspect()["ExecIDs"].clone();
            if ids.as_array().is_some_and(|ids| !ids.is_empty()) { Ok(()) } else { Err(ids.to_string()) }
        });
        backup
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_happens_to_one_that_is_busy_paused_or_only_made_until_that_is_over() {
    let run = TestRun::begin();
    let [busy, paused] = ["busy", "paused"].map(|name| run.database(name).enabled().start_and_wait());
    let made = run.database("made").enabled().create();
    busy.write_row("kept");
    let backup = Backup::begin(&busy);
    docker(&["pause", &paused.name]);
    let before = [untouched(&busy), untouched(&paused), untouched(&made)];

    let mut agent = run.agent().start();
    // Whoever is looked at later was looked at in vain before.
    let barrier = run.database("barrier").enabled().start();
    agent.wait_log(120, &[&barrier.name, "recreated with TLS: proved"]);
    wait("it is seen to be busy", 60, || {
        let plan = run.status(&busy)["plan"].to_string();
        if plan.contains("a command runs in it (cat)") { Ok(()) } else { Err(plan) }
    });
    let plan = run.status(&paused)["plan"].to_string();
    assert!(plan.contains("waiting, since it is paused"), "{plan}");
    assert_eq!([untouched(&busy), untouched(&paused), untouched(&made)], before);
    assert_eq!(made.inspect()["State"]["Status"], "created");

    drop(backup);
    docker(&["unpause", &paused.name]);
    docker(&["start", &made.name]);
    for db in [&busy, &paused, &made] {
        agent.wait_log(180, &[&format!("{{container={}}}", db.name), "recreated with TLS: proved"]);
    }
    busy.wait_enforced();
    assert_eq!(busy.rows(), ["kept"]);
}

/// Compose writes such a config into the container's own layer, at a path that nobody can tell from a change by hand.
#[test]
fn a_config_that_compose_wrote_into_the_layer_is_not_lost() {
    let run = TestRun::begin();
    let compose = Compose::new(
        &run,
        &format!(
            "{}    labels:
      - LABEL
      - dbssl.enable=true
    configs:
      - source: settings
        target: /etc/settings.conf
configs:
  settings:
    content: of the user
{DATA_AND_NETWORK}",
            compose_database()
        ),
    );
    compose.run(&["up", "--detach"]).unwrap();
    let db = compose.container("db");
    db.wait_answers();
    let read = || db.exec(&["cat", "/etc/settings.conf"]);
    assert_eq!(read().as_deref(), Ok("of the user"));
    let before = untouched(&db);
    let mut agent = run.agent().start();
    agent.wait_log(120, &[&db.name, "its own layer holds changes", "/etc/settings.conf"]);
    assert_eq!(untouched(&db), before);
    assert_eq!(read().as_deref(), Ok("of the user"));
}
