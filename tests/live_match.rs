//! Databases without any label, which the config matches.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use live::{Config, Container, TestRun, docker, image, try_docker, wait};

fn config(matches: &str) -> Config {
    Config { matches: matches.to_owned(), ..Config::default() }
}

fn as_it_is(container: &Container<'_>) -> (String, String) {
    (container.id(), container.started_at())
}

#[test]
fn what_the_config_matches_gets_tls_and_gives_it_back_with_its_entry() {
    let wanted = image("postgres:15");
    let matches = format!(
        "[[match]]\nname = \"*-excluded\"\nenable = false\n\
         [[match]]\nname = \"t*-db*\"\nimage = {wanted:?}\nlabel = \"test.run=*\"\nnames = [\"db.example.com\"]\n"
    );
    let run = TestRun::begin_with(&config(&matches));
    let mut agent = run.agent().start();
    let start = |name: &str| run.database(name).start();
    let db = start("db");
    let excluded = start("db-excluded");
    let other = start("other");
    let off = run.database("db-off").label("dbssl.enable", "false").start();
    let wrong = run.database("db-wrong").label("dbssl.mode", "requier").start();
    let prefer = run.database("db-prefer").label("dbssl.mode", "prefer").start();
    let first = db.id();
    db.write_row("kept");
    let untouched = [&excluded, &other, &off, &wrong].map(|container| (container, as_it_is(container)));
    for container in [&excluded, &other, &off, &wrong] {
        container.wait_answers();
    }

    // All that the labels would do.
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    db.wait_enforced();
    assert_ne!(db.id(), first, "the wiring comes with a new container");
    assert_eq!(db.verifying().host("db.example.com").is_encrypted().unwrap(), "t");
    let status = run.status(&db);
    assert_eq!(
        (&status["standing"], &status["mode"]),
        (&"proved".into(), &"verify-full".into()),
        "{status:#}"
    );
    let labels = db.inspect()["Config"]["Labels"].clone();
    let ours: Vec<_> = labels.as_object().unwrap().keys().filter(|key| key.starts_with("dbssl.")).collect();
    assert_eq!(ours, ["dbssl.operation"]);

    let url = run.cli(&["url", &db.name]);
    assert!(url.code == 0 && url.stdout.contains("verify-full"), "{url:?}");

    // A label wins over the entry, and what it does not say the entry does.
    agent.wait_log(180, &[&prefer.name, "recreated with TLS: proved"]);
    prefer.wait_verified();
    assert_eq!(prefer.client("disable").query("select 1").unwrap(), "1");
    assert_eq!(run.status(&prefer)["mode"], "prefer");
    assert_eq!(prefer.verifying().host("db.example.com").is_encrypted().unwrap(), "t");
    agent.wait_log(60, &[&wrong.name, "requier", "did you mean require?"]);
    assert_eq!(run.status(&wrong)["standing"], "mislabelled");
    let names: Vec<_> = run.statuses().into_keys().collect();
    assert_eq!(names, [&db.name, &prefer.name, &wrong.name].map(String::clone));

    // What follows is by events alone, as for labelled ones.
    docker(&["restart", &db.name]);
    db.wait_enforced();
    docker(&["rename", &other.name, &run.name("db-late")]);
    let late = run.container(&run.name("db-late"));
    agent.wait_log(180, &[&late.name, "plaintext is refused: proved"]);

    // A new agent finds them as they are.
    let before = [&db, &prefer, &late].map(|container| (container, as_it_is(container)));
    assert!(agent.terminate().success());
    let mut agent = run.agent().start();
    let barrier = run.database("barrier").enabled().start();
    agent.wait_log(180, &[&barrier.name, "plaintext is refused: proved"]);
    for (container, before) in
        before.iter().chain(&untouched).filter(|(container, _)| container.name != other.name)
    {
        assert_eq!(&as_it_is(container), before, "{} is as it was", container.name);
    }
    for (container, _) in untouched.iter().filter(|(container, _)| container.name != other.name) {
        assert_eq!(container.client("disable").query("select 1").unwrap(), "1");
    }

    // Without the entry it lets plaintext in again, and goes on as it is otherwise.
    assert!(agent.terminate().success());
    run.configure(&config("[[match]]\nname = \"*-db-prefer\"\n"));
    let mut agent = run.agent().start();
    agent.wait_log(60, &[&db.name, "it goes on serving the certificate that it has, which is not renewed"]);
    wait("plaintext is let in again", 30, || db.client("disable").query("select 1"));
    assert!(!db.exec(&["cat", "/var/lib/postgresql/data/pg_hba.conf"]).unwrap().contains("dbssl"));
    db.wait_verified();
    assert_eq!(as_it_is(&db), before[0].1);
    assert!(!run.statuses().contains_key(&db.name));
    assert_eq!(run.cli(&["verify", &db.name]).code, 2);

    // And back.
    assert!(agent.terminate().success());
    run.configure(&config(&matches));
    let mut agent = run.agent().start();
    agent.wait_log(60, &[&db.name, "plaintext is refused: proved"]);
    db.wait_enforced();
    assert_eq!(as_it_is(&db), before[0].1);
    assert_eq!(db.rows(), ["kept"]);
}

/// A tag of this test's own, gone with it.
struct Tag(String);

impl Tag {
    fn of(&self, image: &str) {
        docker(&["tag", image, &self.0]);
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        let _ = try_docker(&["rmi", &self.0]);
    }
}

/// The successor has to be created from the image's id then, and the name is what the config matches by. The agent dies
/// in the middle, so that it has to know both containers again.
#[test]
fn a_container_whose_image_has_been_updated_meanwhile_is_the_same_one() {
    let matches = "[[match]]\nname = \"*-db*\"\nimage = \"dbssl-test-*/pg:1\"\n";
    let run = TestRun::begin_with(&config(matches));
    let tag = Tag(format!("dbssl-test-{}/pg:1", run.name("x")));
    let mut all = Vec::new();
    for phase in ["start", "prove", "commit"] {
        tag.of(&image("postgres:15"));
        let db = run.database(&format!("db-{phase}")).exact_image(&tag.0).start_and_wait();
        tag.of(&image("postgres:17"));
        db.write_row("kept");
        all.push(db.name.clone());
        all.sort();
        run.agent().crash_at(phase).spawn().wait_end(90);
        let parked = run.container(&format!("{}.dbssl-parked", db.name));
        assert!(!parked.is_running() && parked.try_inspect().is_some(), "{phase}: {:?}", run.containers());
        assert_eq!(
            run.statuses().into_keys().collect::<Vec<_>>(),
            all,
            "{phase}: the parked one is no database"
        );

        let agent = run.agent().start();
        assert!(parked.try_inspect().is_none(), "{phase}: it is settled");
        // What was rolled back waits for a human's word.
        run.cli(&["apply", &db.name]);
        db.wait_enforced();
        let image = db.inspect()["Config"]["Image"].as_str().unwrap().to_owned();
        assert!(image.starts_with("sha256:"), "{phase}: the name means another image: {image}");
        assert!(agent.terminate().success());
        let agent = run.agent().start();
        assert_eq!(run.status(&db)["standing"], "proved", "{phase}");
        assert_eq!(db.rows(), ["kept"], "{phase}");
        assert!(agent.terminate().success());
    }
}

/// As Coolify starts its own databases with SSL: single files mounted at the paths that dbssl uses as well, and flags
/// that name them.
#[test]
fn tls_of_coolify_s_own_is_left_alone_and_reported_with_its_end() {
    let matches = "[[match]]\nlabel = \"coolify.type=database\"\n";
    let run = TestRun::begin_with(&config(matches));
    let mut agent = run.agent().start();
    let (folder, pair) = live::leaf_of_999(run.folder(), "coolify", "server");
    let target = "/var/lib/postgresql/certs";
    let mount = |file: &str| format!("{}/{file}:{target}/{file}:ro", folder.display());
    let coolify = |name: &str| {
        run.database(name)
            .options(["--volume", &mount("server.crt"), "--volume", &mount("server.key")])
            .options(["--health-cmd", "pg_isready", "--health-interval", "2s"])
            .command([
                "-c",
                "ssl=on",
                "-c",
                &format!("ssl_cert_file={target}/server.crt"),
                "-c",
                &format!("ssl_key_file={target}/server.key"),
            ])
    };
    let matched = coolify("matched").label("coolify.type", "database").start();
    let labelled = coolify("labelled").enabled().start();
    let neither = coolify("neither").label("coolify.type", "application").start();
    let all = [&matched, &labelled, &neither].map(|container| (container, as_it_is(container)));
    let until = live::last_day(&pair.certificate);
    for db in [&matched, &labelled] {
        agent.wait_log(90, &[&db.name, "it is left alone", &format!("valid until {until}")]);
        wait("its status says so", 30, || {
            let status = run.status(db);
            let right = status["standing"] == "foreign" && status["valid_until"] == until.as_str();
            if right { Ok(()) } else { Err(format!("{status:#}")) }
        });
        let status = run.cli(&["status"]);
        let row = status.stdout.lines().find(|line| line.starts_with(&db.name)).unwrap();
        assert!(row.contains("foreign") && row.ends_with(&until), "{row}");
        assert_eq!(agent.lines(&[&format!("{{container={}}}", db.name)]).len(), 1, "said once");
        assert_eq!(db.client("verify-ca").root(&pair.certificate).is_encrypted().unwrap(), "t");
    }
    assert!(!run.statuses().contains_key(&neither.name));
    for (container, before) in all {
        assert_eq!(as_it_is(container), before, "{} is as it was", container.name);
    }
}
