//! Certificates change under a running database: nobody who is connected notices, nobody who connects is turned away.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod disk;
mod live;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use disk::Disk;
use live::{Config, Container, TestRun, docker, wait};

/// SHA-256 of the leaf that is served.
fn served(run: &TestRun, db: &Container<'_>) -> String {
    run.status(db)["fingerprint"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn renewal_costs_no_connection_and_no_restart() {
    // As short as it goes: renewed when two thirds of a minute have passed.
    let short = Config { certificates: "leaf-lifetime = \"60s\"".to_owned(), ..Config::default() };
    let run = TestRun::begin_with(&short);
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let (first, started_at, id) = (served(&run, &db), db.started_at(), db.id());

    // One connection that lasts: a session that keeps its own temporary table.
    let client = db.verifying();
    let mut session = client.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ask = session.stdin.take().unwrap();
    let mut answers = BufReader::new(session.stdout.take().unwrap()).lines();
    writeln!(ask, "create temporary table mine as select 'still here' as word; select 'ready';").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "ready");

    let (stop, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let renewed = |nth: usize| agent.lines(&[&db.name, "reloaded without a restart: proved"]).len() >= nth;
    let failures = std::thread::scope(|scope| {
        let looping = scope.spawn(|| {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match client.query("select 1") {
                    Ok(_) => _ = connections.fetch_add(1, Ordering::Relaxed),
                    Err(why) => failures.push(why),
                }
            }
            failures
        });
        wait("it was renewed twice", 240, || if renewed(2) { Ok(()) } else { Err("not yet".to_owned()) });
        stop.store(true, Ordering::Relaxed);
        looping.join().unwrap()
    });
    let made = connections.load(Ordering::Relaxed);
    assert!(
        failures.is_empty(),
        "{} of {} connections failed: {failures:?}",
        failures.len(),
        made + failures.len()
    );
    assert!(made > 50, "the loop was busy: {made}");
    assert_ne!(served(&run, &db), first);
    assert_eq!((db.started_at(), db.id()), (started_at, id));
    writeln!(ask, "select word from mine;").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "still here", "the long connection lives on");
    drop(ask);
    assert!(session.wait().unwrap().success());
    agent.wait_log(1, &[&db.name, "certificate issued", "two thirds of its life have passed"]);
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
}

/// Something that happens to a certificate directory.
type Damage = fn(&Path);

/// The generation that the links point to.
fn generation(directory: &Path) -> PathBuf {
    fs::canonicalize(directory.join("..data")).unwrap()
}

#[test]
fn a_damaged_certificate_directory_is_mended_by_reload() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let (started_at, id) = (db.started_at(), db.id());
    let damages: [(&str, Damage); 9] = [
        ("garbage instead of a certificate", |at| {
            fs::write(generation(at).join("server.crt"), "garbage").unwrap();
        }),
        ("a truncated certificate", |at| {
            let path = generation(at).join("server.crt");
            let text = fs::read(&path).unwrap();
            fs::write(path, &text[..text.len() / 2]).unwrap();
        }),
        ("an empty key", |at| fs::write(generation(at).join("server.key"), "").unwrap()),
        ("a key of another certificate", |at| {
            let other = live::leaf(at.parent().unwrap().parent().unwrap(), "other");
            fs::write(generation(at).join("server.key"), fs::read(other.key).unwrap()).unwrap();
        }),
        ("the wrong owner", |at| {
            std::os::unix::fs::chown(generation(at).join("server.key"), Some(1234), Some(1234)).unwrap();
        }),
        ("a key that everybody may read", |at| {
            fs::set_permissions(generation(at).join("server.key"), fs::Permissions::from_mode(0o644))
                .unwrap();
        }),
        ("a missing key", |at| fs::remove_file(generation(at).join("server.key")).unwrap()),
        ("a link that leads nowhere", |at| {
            fs::remove_file(at.join("..data")).unwrap();
            symlink("..nowhere", at.join("..data")).unwrap();
        }),
        ("nothing left in it", |at| {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                }
                .unwrap();
            }
        }),
    ];
    let directory = run.certificates(&db);
    for (at, (what, damage)) in damages.into_iter().enumerate() {
        let before = served(&run, &db);
        damage(&directory);
        let status = run.status(&db);
        assert_eq!(status["standing"], "pending", "{what}: {status:#}");
        // Half of them are found by an agent that starts, half at a human's word.
        if at % 2 == 0 {
            assert!(agent.terminate().success());
            agent = run.agent().start();
            agent.wait_log(60, &[&db.name, "reloaded without a restart: proved"]);
        } else {
            let applied = run.cli(&["apply", &db.name]);
            assert_eq!(applied.code, 0, "{what}: {applied:?}");
        }
        let status = run.status(&db);
        assert_eq!(status["standing"], "proved", "{what}: {status:#}");
        assert_ne!(status["fingerprint"], before.as_str(), "{what}: a new certificate, with a new key");
        assert_eq!(db.verifying().is_encrypted().unwrap(), "t", "{what}");
        assert_eq!((db.started_at(), db.id()), (started_at.clone(), id.clone()), "{what}: no restart");
    }
}

/// With no redeploy in progress, all that is kept beside the CA can be made again.
#[test]
fn without_anything_but_the_ca_it_converges() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.write_row("kept");
    let (before, id) = (served(&run, &db), db.id());
    assert!(agent.terminate().success());
    for entry in fs::read_dir(run.state()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "ca" {
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
    }
    assert_eq!(db.client("require").is_encrypted().unwrap(), "t", "it goes on with what it has read");
    let _agent = run.agent().start();
    wait("it serves a new certificate", 120, || {
        let status = run.status(&db);
        let right = status["standing"] == "proved" && status["fingerprint"] != before.as_str();
        if right { Ok(()) } else { Err(format!("{status:#}")) }
    });
    db.wait_enforced();
    // The mount shows the removed folder until the container starts again: so it was restarted, and no more than that.
    assert_eq!((db.id(), db.rows()), (id, vec!["kept".to_owned()]));
}

#[test]
fn a_database_that_cannot_start_for_want_of_its_key_gets_it_back() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().options(["--restart", "always"]).start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.write_row("kept");
    let id = db.id();
    fs::remove_file(generation(&run.certificates(&db)).join("server.key")).unwrap();
    docker(&["restart", &db.name]);
    db.wait_enforced();
    assert_eq!((db.id(), db.rows()), (id, vec!["kept".to_owned()]));
    wait("its status is proved", 30, || {
        let status = run.status(&db);
        if status["standing"] == "proved" { Ok(()) } else { Err(format!("{status:#}")) }
    });
}

#[test]
fn one_that_nobody_starts_again_is_said_to_be_ready_for_it() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().options(["--restart", "no"]).start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.write_row("kept");
    assert!(agent.terminate().success());
    docker(&["stop", &db.name]);
    fs::remove_file(generation(&run.certificates(&db)).join("server.key")).unwrap();
    docker(&["start", &db.name]);
    assert_eq!(docker(&["wait", &db.name]), "1");
    agent = run.agent().start();
    agent.wait_log(60, &["WARN", &db.name, "code=1", &format!("docker start {}", db.name)]);
    docker(&["start", &db.name]);
    db.wait_enforced();
    assert_eq!(db.rows(), ["kept"]);
}

#[test]
fn changed_names_give_a_new_certificate_without_a_restart() {
    let run = TestRun::begin();
    let network = run.network("later", &[]);
    let agent = run.agent().start();
    let db = run.database("db").enabled().options(["--network", &run.network("own", &[])]).start();
    db.wait_enforced();
    let (started_at, id) = (db.started_at(), db.id());
    assert!(db.verifying().host("db.example.com").query("select 1").is_err());
    assert!(agent.terminate().success());

    run.configure(&Config {
        top: "host-names = [\"db.example.com\", \"192.0.2.7\"]".to_owned(),
        ..Config::default()
    });
    let mut agent = run.agent().start();
    let line = agent.wait_log(60, &[&db.name, "certificate issued"]);
    assert!(line.contains("its names changed: now also 192.0.2.7, db.example.com"), "{line}");
    agent.wait_log(60, &[&db.name, "reloaded without a restart: proved"]);
    for name in ["db.example.com", "192.0.2.7", &db.name] {
        assert_eq!(db.verifying().host(name).is_encrypted().unwrap(), "t", "{name}");
    }
    // A network more, with a name there.
    docker(&["network", "connect", "--alias", "orders", &network, &db.name]);
    assert_eq!(run.cli(&["apply", &db.name]).code, 0);
    assert_eq!(db.verifying().host("orders").is_encrypted().unwrap(), "t");

    // And names that are taken away are gone.
    assert!(agent.terminate().success());
    run.configure(&Config::default());
    let mut agent = run.agent().start();
    agent.wait_log(60, &[&db.name, "reloaded without a restart: proved"]);
    assert!(db.verifying().host("db.example.com").query("select 1").unwrap_err().contains("does not match"));
    assert_eq!((db.started_at(), db.id()), (started_at, id));
}

/// It is said, what is served stays, and when there is room it is done without anybody's word.
#[test]
fn on_a_full_disk_a_renewal_waits_for_room() {
    let run = TestRun::begin();
    let disk = Disk::mount(run.state(), "size=4m");
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let (started_at, id, first) = (db.started_at(), db.id(), served(&run, &db));
    disk.fill();
    fs::write(generation(&run.certificates(&db)).join("server.crt"), "garbage").unwrap();
    // Something happens to it, and it is looked at.
    docker(&["update", "--cpu-shares", "512", &db.name]);
    agent.wait_log(60, &[&db.name, "WARN", "No space left on device"]);
    assert_eq!(served(&run, &db), first);
    db.verifying().query("select 1").unwrap();
    disk.make_room();
    wait("another certificate is served", 330, || {
        let now = served(&run, &db);
        if now == first { Err(agent.log()) } else { Ok(()) }
    });
    db.wait_standing("proved");
    assert_eq!((db.started_at(), db.id()), (started_at, id), "without a restart");
}
