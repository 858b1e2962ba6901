//! Application containers: the trust bundle is put into those that ask for it, and the others are never changed.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{collections::BTreeSet, fs};

use live::{Agent, Container, Start, TestRun, docker, try_docker, wait};
use serde_json::Value;

const PATH: &str = "/etc/ssl/certs/coolify-ca.crt";

fn client<'r>(run: &'r TestRun, name: &str) -> Start<'r> {
    run.application(name).label("dbssl.client", "true")
}

/// The file as Docker hands it out, whether the container runs or not.
fn content(container: &Container<'_>, path: &str) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    try_docker(&["cp", &format!("{}:{path}", container.name), file.to_str().unwrap()])?;
    fs::read(file).map_err(|error| error.to_string())
}

fn bundle(run: &TestRun) -> Vec<u8> {
    fs::read(run.bundle()).unwrap()
}

/// Until what is in the container is what is on disk.
fn wait_current(run: &TestRun, container: &Container<'_>, path: &str) {
    wait(&format!("{} has the bundle at {path}", container.name), 60, || {
        let (found, wanted) = (content(container, path)?, bundle(run));
        if found == wanted { Ok(()) } else { Err(String::from_utf8_lossy(&found).into_owned()) }
    });
}

/// Somebody puts their CA into the bundle; ours comes back behind it, and the bundle is whole again.
fn change_the_ca(run: &TestRun, name: &str) {
    let theirs = live::root(run.folder(), name, &format!("/CN={name}"));
    let uploaded = fs::read(&theirs.certificate).unwrap();
    fs::write(run.bundle(), &uploaded).unwrap();
    wait_whole(run, &uploaded);
}

/// The same by a new file under the old name, as `mv` does it.
fn replace_the_file(run: &TestRun, name: &str) {
    let theirs = live::root(run.folder(), name, &format!("/CN={name}"));
    let uploaded = fs::read(&theirs.certificate).unwrap();
    let new = run.data().join("new");
    fs::write(&new, &uploaded).unwrap();
    fs::rename(&new, run.bundle()).unwrap();
    wait_whole(run, &uploaded);
}

fn wait_whole(run: &TestRun, uploaded: &[u8]) {
    wait("our CA is behind theirs", 60, || {
        let now = bundle(run);
        if now.starts_with(uploaded) && now.len() > uploaded.len() + 100 {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&now).into_owned())
        }
    });
}

/// What `dbssl status --json` says of a client.
fn standing(run: &TestRun, container: &Container<'_>) -> Option<Value> {
    let cli = run.cli(&["status", "--json"]);
    let json: Value = serde_json::from_str(&cli.stdout).unwrap_or_else(|error| panic!("{error}: {cli:?}"));
    json["clients"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|client| client["container"] == container.name.as_str())
        .cloned()
}

/// Until one that came after all others has been looked after.
fn after_the_others(run: &TestRun, agent: &mut Agent, name: &str) {
    let barrier = client(run, name).start();
    agent.wait_log(60, &[&barrier.name, "the trust bundle was put into it"]);
}

#[test]
fn it_is_put_into_those_that_ask_and_kept_current_there() {
    let run = TestRun::begin();
    // Before the agent: one that runs, one that does not yet.
    let running = client(&run, "running").start();
    let created = client(&run, "created").create();
    let unlabelled = run.application("unlabelled").start();
    let switched_off = run.application("off").label("dbssl.client", "false").start();
    let mut agent = run.agent().start();
    let elsewhere = client(&run, "elsewhere")
        .label("dbssl.client.path", "/opt/certs/deep/ca.pem")
        .options(["--user", "999"])
        .start();
    let linked = client(&run, "linked").create();
    let all = [(&running, PATH), (&created, PATH), (&elsewhere, "/opt/certs/deep/ca.pem"), (&linked, PATH)];
    for (container, path) in all {
        wait_current(&run, container, path);
    }
    assert_eq!(running.exec(&["stat", "-c", "%a %u %g", PATH]).unwrap(), "644 0 0");
    assert_eq!(elsewhere.exec(&["stat", "-c", "%a %u %g", "/opt/certs/deep/ca.pem"]).unwrap(), "644 0 0");
    assert_eq!(elsewhere.exec(&["stat", "-c", "%a %u", "/opt/certs/deep"]).unwrap(), "755 0");
    let listed = running.exec(&["ls", "-A", "/etc/ssl/certs"]).unwrap();
    assert_eq!(listed, "coolify-ca.crt", "nothing else stays there");

    // Its folder becomes a link, as it is one in Fedora, and the next one goes where that leads.
    docker(&["start", &linked.name]);
    linked
        .exec(&[
            "sh",
            "-c",
            "mkdir -p /etc/pki && mv /etc/ssl/certs /etc/pki/ && ln -s ../pki/certs /etc/ssl/certs",
        ])
        .unwrap();
    change_the_ca(&run, "their-root");
    for (container, path) in all {
        wait_current(&run, container, path);
        assert_eq!(standing(&run, container).unwrap()["standing"], "current");
    }
    assert_eq!(
        linked.exec(&["cat", "/etc/pki/certs/coolify-ca.crt"]).unwrap().as_bytes(),
        bundle(&run).trim_ascii_end()
    );
    assert!(!created.is_running(), "nobody starts it");

    for container in [&unlabelled, &switched_off] {
        assert_eq!(docker(&["diff", &container.name]), "");
        assert_eq!(standing(&run, container), None);
    }
    let status = run.cli(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.stdout.contains(&format!("{}  ", created.name)), "{status:?}");

    // Written again with the same content, and an agent that starts: nothing is to be done.
    let before = agent.lines(&["the trust bundle"]).len();
    assert_eq!(before, 8, "{}", agent.log());
    fs::write(run.bundle(), bundle(&run)).unwrap();
    after_the_others(&run, &mut agent, "barrier");
    assert_eq!(agent.lines(&["the trust bundle"]).len(), before + 1, "{}", agent.log());
    assert!(agent.terminate().success());
    let mut agent = run.agent().start();
    after_the_others(&run, &mut agent, "other-barrier");
    assert_eq!(agent.lines(&["the trust bundle"]).len(), 1, "{}", agent.log());
}

/// Somebody reads it all the time, while it changes again and again. It is long, so that half of it is there for a while
/// where it is written bit by bit.
#[test]
fn a_reader_never_sees_half_of_it() {
    let run = TestRun::begin();
    let _agent = run.agent().start();
    let with = client(&run, "with-mv").start();
    let without = client(&run, "without-mv").start();
    without.exec(&["rm", "/bin/mv"]).unwrap();
    // All lengths that it ever saw, and whether it found nothing.
    let read = format!(
        r#"$/ = undef; $| = 1;
        while (!-e "/stop") {{ $now = open(F, "<", "{PATH}") ? length(<F>) : "none"; $seen{{$now}}++ or print "$now\n"; }}"#
    );
    let reader = |container: &Container<'_>| {
        docker(&[
            "exec",
            "--detach",
            &container.name,
            "sh",
            "-c",
            &format!("perl -e '{read}' > /seen; touch /ended"),
        ]);
    };
    for container in [&with, &without] {
        wait_current(&run, container, PATH);
        reader(container);
    }
    let mut whole = BTreeSet::from([bundle(&run).len().to_string()]);
    for change in 0..6 {
        let theirs = live::root(run.folder(), &format!("root-{change}"), &format!("/CN=root-{change}"));
        let text = "# text that readers pass over\n".repeat(20_000 + change);
        let uploaded = [text.into_bytes(), fs::read(&theirs.certificate).unwrap()].concat();
        fs::write(run.bundle(), &uploaded).unwrap();
        wait_whole(&run, &uploaded);
        whole.insert(bundle(&run).len().to_string());
        for container in [&with, &without] {
            wait_current(&run, container, PATH);
        }
    }
    for (container, may_miss) in [(&with, false), (&without, true)] {
        container.exec(&["touch", "/stop"]).unwrap();
        wait("the reader has ended", 30, || container.exec(&["ls", "/ended"]));
        let read = container.exec(&["cat", "/seen"]).unwrap();
        let seen: BTreeSet<_> =
            read.lines().filter(|line| !may_miss || *line != "none").map(str::to_owned).collect();
        assert!(seen.is_subset(&whole), "{}: {seen:#?}, whole are {whole:#?}", container.name);
        assert!(seen.len() > 3, "it read while it changed: {seen:#?}");
    }
}

/// Docker pins the mount of a single file to its inode; whoever mounts the folder is not concerned.
#[test]
fn who_mounts_a_file_that_was_replaced_is_named_until_it_is_restarted() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let file = format!("{}:{PATH}:ro", run.bundle().display());
    let folder = format!("{}:/ssl:ro", run.data().display());
    // Not labelled: it is looked at, and nothing else.
    let single = run.application("single").options(["--volume", &file]).start();
    let labelled = client(&run, "labelled").options(["--volume", &file]).start();
    let whole = client(&run, "whole")
        .label("dbssl.client.path", "/ssl/coolify-ca.crt")
        .options(["--volume", &folder])
        .start();
    let wait_standing = |container: &Container<'_>, expected: &str| {
        wait(&format!("{} is {expected}", container.name), 60, || match standing(&run, container) {
            Some(client) if client["standing"] == expected => Ok(client),
            other => Err(format!("{other:?}")),
        })
    };
    for container in [&labelled, &whole] {
        wait_standing(container, "mounted");
    }
    // In place: everybody sees it.
    change_the_ca(&run, "in-place");
    after_the_others(&run, &mut agent, "barrier");
    assert_eq!(standing(&run, &single), None);
    assert_eq!(agent.lines(&["WARN", "restart it"]), [""; 0]);

    replace_the_file(&run, "by-mv");
    for container in [&single, &labelled] {
        let line = agent.wait_log(60, &["WARN", &container.name, "it still sees the former one"]);
        assert!(
            line.contains(PATH) && line.contains(&format!("docker restart {}", container.name)),
            "{line}"
        );
        let client = wait_standing(container, "stale");
        assert_eq!(client["path"], PATH);
        assert!(client["problem"].as_str().unwrap().contains("docker restart"), "{client}");
    }
    wait_standing(&whole, "mounted");
    let status = run.cli(&["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stdout.contains(&format!("docker restart {}", single.name)), "{status:?}");
    // Once, also when it is replaced once more.
    replace_the_file(&run, "by-mv-again");
    after_the_others(&run, &mut agent, "second-barrier");
    for container in [&single, &labelled] {
        assert_eq!(agent.lines(&["WARN", &container.name]).len(), 1, "{}", agent.log());
        docker(&["restart", &container.name]);
        agent.wait_log(60, &["INFO", &container.name, "it has the trust bundle of today"]);
    }
    assert_eq!(standing(&run, &single), None);
    wait_standing(&labelled, "mounted");
    assert_eq!(
        docker(&["diff", &single.name]),
        docker(&["diff", &labelled.name]),
        "Docker's own mount point"
    );
    assert_eq!(run.cli(&["status"]).code, 0);
}

#[test]
fn one_that_reads_it_at_its_start_only_is_restarted_once_for_each_change() {
    let run = TestRun::begin();
    let events = run.events();
    let mut agent = run.agent().start();
    let restarting = |name: &str| client(&run, name).label("dbssl.client.restart", "true");
    let file = format!("{}:{PATH}:ro", run.bundle().display());
    let given = restarting("given").start();
    let mounting = restarting("mounting").options(["--volume", &file]).start();
    let plain = client(&run, "plain").start();
    let stopped = restarting("stopped").start();
    for container in [&given, &mounting, &plain, &stopped] {
        wait_current(&run, container, PATH);
    }
    docker(&["stop", &stopped.name]);
    // Each has been looked at while it ran, so that it is known what it found.
    after_the_others(&run, &mut agent, "first-barrier");
    let starts = |container: &Container<'_>, count: usize| {
        let name = container.name.clone();
        events.wait(&format!("starts of {name}"), count, move |event| {
            event.action == "start" && event.name == name
        });
    };
    let all_start = |counts: [usize; 4]| {
        for (container, count) in [&given, &mounting, &plain, &stopped].into_iter().zip(counts) {
            starts(container, count);
        }
    };
    all_start([1, 1, 1, 1]);

    change_the_ca(&run, "in-place");
    for container in [&given, &mounting] {
        agent.wait_log(60, &[&container.name, "restarted", "the CA changed"]);
    }
    for container in [&given, &mounting, &plain, &stopped] {
        wait_current(&run, container, PATH);
    }
    after_the_others(&run, &mut agent, "second-barrier");
    all_start([2, 2, 1, 1]);
    assert!(!stopped.is_running());

    // Another file with the same certificates: who has it mounted needs a restart, who was given it does not.
    let new = run.data().join("new");
    fs::write(&new, bundle(&run)).unwrap();
    fs::rename(&new, run.bundle()).unwrap();
    agent.wait_log(60, &[&mounting.name, "restarted", "it mounts a file that was replaced"]);
    wait_current(&run, &mounting, PATH);
    after_the_others(&run, &mut agent, "third-barrier");
    all_start([2, 3, 1, 1]);

    // An agent that starts, and nothing has changed.
    assert!(agent.terminate().success());
    let mut agent = run.agent().start();
    after_the_others(&run, &mut agent, "fourth-barrier");
    all_start([2, 3, 1, 1]);
    assert_eq!(agent.lines(&["restarted"]), [""; 0]);

    // Killed between the delivery and the restart.
    agent.kill();
    let mut agent = run.agent().crash_at(&format!("delivered {}", given.name)).start();
    change_the_ca_unseen(&run);
    agent.wait_end(60);
    wait_current(&run, &given, PATH);
    let mut agent = run.agent().start();
    agent.wait_log(60, &[&given.name, "restarted", "the CA changed"]);
    // The other one may have been restarted before the end.
    after_the_others(&run, &mut agent, "fifth-barrier");
    all_start([3, 4, 1, 1]);
    // What it was given while it was stopped it finds when it starts.
    docker(&["start", &stopped.name]);
    after_the_others(&run, &mut agent, "sixth-barrier");
    all_start([3, 4, 1, 2]);
}

/// The agent may die right afterwards, so nobody waits for it.
fn change_the_ca_unseen(run: &TestRun) {
    let theirs = live::root(run.folder(), "another", "/CN=another");
    fs::write(run.bundle(), fs::read(&theirs.certificate).unwrap()).unwrap();
}

/// Its entrypoint brings another file along each time: a restart does not help, and is not repeated.
#[test]
fn one_that_undoes_it_at_each_start_is_restarted_once() {
    let run = TestRun::begin();
    let events = run.events();
    let own = live::root(run.folder(), "own", "/CN=own");
    let script = format!("mkdir -p /etc/ssl/certs && cat /own.crt > {PATH}; exec sleep infinity");
    let app = run
        .database("undoes")
        .image("base:bookworm")
        .without_volume()
        .label("dbssl.client", "true")
        .label("dbssl.client.restart", "true")
        .options(["--volume", &format!("{}:/own.crt:ro", own.certificate.display())])
        .options(["--stop-signal", "KILL", "--entrypoint", "sh"])
        .command(["-c", &script])
        .start();
    let wait_undone = || {
        wait("its own file is there", 30, || {
            let found = content(&app, PATH)?;
            if found == fs::read(&own.certificate).unwrap() { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    let started = |count| {
        let name = app.name.clone();
        events.wait("starts of it", count, move |event| event.action == "start" && event.name == name);
    };
    wait_undone();
    let mut agent = run.agent().start();
    agent.wait_log(60, &[&app.name, "restarted", "the CA changed"]);
    assert!(agent.terminate().success());
    started(2);
    docker(&["restart", &app.name]);
    wait_undone();
    let mut agent = run.agent().start();
    agent.wait_log(60, &["WARN", &app.name, "it is not restarted again", "see what puts it there"]);
    wait_current(&run, &app, PATH);
    after_the_others(&run, &mut agent, "barrier");
    started(3);
}

#[test]
fn where_it_cannot_be_put_that_is_said_with_what_to_do() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let other = run.other_ca();
    let read_only = client(&run, "read-only").options(["--read-only"]).start();
    let in_memory = client(&run, "in-memory").options(["--tmpfs", "/etc/ssl"]).start();
    let shared = run.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    let in_mount = client(&run, "in-mount")
        .options(["--volume", &format!("{}:/etc/ssl/certs", shared.display())])
        .start();
    let taken =
        client(&run, "taken").options(["--volume", &format!("{}:{PATH}:ro", other.display())]).start();
    let mislabelled = client(&run, "mislabelled").label("dbssl.client.restart", "yes").start();
    // A link in the container that leads into a mount.
    let leads_out =
        client(&run, "leads-out").options(["--volume", &format!("{}:/shared", shared.display())]).create();
    let mount = format!("-v {}:{PATH}:ro", run.bundle().display());
    for (container, why) in [
        (&read_only, "its root filesystem is read-only"),
        (&in_memory, "/etc/ssl/certs/coolify-ca.crt is in /etc/ssl"),
        (&in_mount, "/etc/ssl/certs/coolify-ca.crt is in /etc/ssl/certs"),
        (&taken, "something else is mounted"),
    ] {
        let line = agent.wait_log(60, &["WARN", &container.name, why]);
        assert!(line.contains(&mount), "{line}");
        let client = standing(&run, container).unwrap();
        assert_eq!(client["standing"], "refused", "{client}");
        assert!(client["problem"].as_str().unwrap().contains(&mount), "{client}");
    }
    agent.wait_log(
        60,
        &[
            "WARN",
            &mislabelled.name,
            "its labels are wrong",
            "dbssl.client.restart",
            "yes",
            "allowed: true, false",
        ],
    );
    assert_eq!(run.status(&mislabelled)["standing"], "mislabelled");
    assert_eq!(standing(&run, &mislabelled), None);
    assert_eq!(run.cli(&["status"]).code, 1);

    wait_current(&run, &leads_out, PATH);
    docker(&["start", &leads_out.name]);
    after_the_others(&run, &mut agent, "first-barrier");
    leads_out.exec(&["sh", "-c", "rm -r /etc/ssl/certs && ln -s /shared /etc/ssl/certs"]).unwrap();
    change_the_ca(&run, "another");
    agent.wait_log(60, &["WARN", &leads_out.name, "is in /shared"]);
    after_the_others(&run, &mut agent, "barrier");
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0, "nothing was written to the host");
    assert_eq!(fs::read(&other).unwrap(), content(&taken, PATH).unwrap());
    assert_eq!(docker(&["diff", &mislabelled.name]), "");
    for container in [&read_only, &in_memory, &in_mount, &taken, &mislabelled] {
        assert_eq!(agent.lines(&["WARN", &container.name]).len(), 1, "{}", agent.log());
    }
}

/// A database can be a client, too: what was put into it does not stand in the way of its recreation.
#[test]
fn a_database_that_is_a_client_is_recreated_and_given_the_bundle_again() {
    let run = TestRun::begin();
    let db = run.database("db").enabled().label("dbssl.client", "true").start();
    let id = db.id();
    let mut agent = run.agent().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), id);
    assert_eq!(agent.lines(&["WARN", &db.name]), [""; 0]);
    wait_current(&run, &db, PATH);
    assert_eq!(run.status(&db)["standing"], "proved");
    assert_eq!(standing(&run, &db).unwrap()["standing"], "current");
}
