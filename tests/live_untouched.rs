//! Containers that are left as they are: those that are not labelled, those whose labels are wrong, and those that
//! cannot be changed without losing something.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::fs;

use live::{Container, TestRun, docker, image, wait};

/// A container as it was before the agent could do anything to it.
struct Before<'r> {
    container: Container<'r>,
    id: String,
    started_at: String,
}

impl<'r> Before<'r> {
    fn of(container: Container<'r>) -> Self {
        let (id, started_at) = (container.id(), container.started_at());
        Self { container, id, started_at }
    }

    fn assert_untouched(&self) {
        let container = &self.container;
        assert_eq!(container.id(), self.id, "{} is the same container", container.name);
        assert_eq!(container.started_at(), self.started_at, "{} was not restarted", container.name);
        assert!(container.is_running(), "{} runs", container.name);
    }
}

#[test]
fn without_a_label_or_with_a_misspelt_one_nothing_happens() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let start = |name: &str, labels: &[(&str, &str)]| {
        let start = labels.iter().fold(run.database(name), |start, (key, value)| start.label(key, value));
        Before::of(start.start())
    };
    let plain = start("plain", &[]);
    let off = start("off", &[("dbssl.enable", "false")]);
    let misspelt = start("misspelt", &[("dbssl.enabel", "true")]);
    let wrong =
        start("wrong", &[("dbssl.enable", "true"), ("dbssl.mdoe", "allow"), ("dbssl.names", "ok,-db")]);
    let bad_mode = start("bad-mode", &[("dbssl.enable", "true"), ("dbssl.mode", "verify_full")]);
    let all = [&plain, &off, &misspelt, &wrong, &bad_mode];
    for before in all {
        before.container.wait_answers();
    }
    // What is wrong is said once, all of it in one line, with what was meant.
    agent.wait_log(60, &[&misspelt.container.name, "did you mean dbssl.enable?"]);
    agent.wait_log(60, &[&wrong.container.name, "did you mean dbssl.mode?", "dbssl.names", "-db"]);
    agent.wait_log(60, &[&bad_mode.container.name, "verify_full", "did you mean verify-full?"]);
    // The agent has had its look at the others too: this one came after them, and is done.
    let labelled = run.database("labelled").enabled().start();
    labelled.wait_enforced();
    // Events bring it back to them; that is no reason to say it again.
    for before in [&misspelt, &wrong, &bad_mode] {
        docker(&["pause", &before.container.name]);
        docker(&["unpause", &before.container.name]);
    }
    docker(&["restart", &labelled.name]);
    labelled.wait_enforced();
    for before in all {
        before.assert_untouched();
        assert_eq!(before.container.client("disable").query("select 1").unwrap(), "1");
    }
    let said = |name: &str| agent_lines(&agent, name);
    for (before, lines) in [(&plain, 0), (&off, 0), (&misspelt, 1), (&wrong, 1), (&bad_mode, 1)] {
        assert_eq!(said(&before.container.name).len(), lines, "{:#?}", said(&before.container.name));
    }
    let status = run.cli(&["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    for (before, standing) in
        [(&misspelt, "mislabelled"), (&wrong, "mislabelled"), (&bad_mode, "mislabelled")]
    {
        assert_eq!(run.status(&before.container)["standing"], standing);
    }
    assert!(!status.stdout.contains(&plain.container.name) && !status.stdout.contains(&off.container.name));
}

fn agent_lines(agent: &live::Agent, name: &str) -> Vec<String> {
    // With its end: a name may begin like another.
    agent.lines(&[&format!("{{container={name}}}")])
}

#[test]
fn what_could_not_be_done_safely_is_refused_with_its_reason() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let database = |name: &str| run.database(name).enabled();

    let auto_remove = database("auto-remove").options(["--rm"]).start();
    let not_mounted = database("not-mounted")
        .image("postgres:18")
        .volume_at("/var/lib/postgresql")
        .options(["--env", "PGDATA=/pgdata"])
        .start();
    let shell_string = run
        .database("shell-string")
        .enabled()
        .options(["--entrypoint", "sh"])
        .command(["-c", "exec docker-entrypoint.sh postgres -c max_connections=20"])
        .start();
    let off = database("off").command(["-c", "ssl=off"]).start();
    let in_another = {
        let host = run.database("host").start();
        let network = format!("container:{}", host.name);
        // Two servers in one network need two ports.
        database("in-another").options(["--network", &network]).command(["-c", "port=5433"]).start()
    };
    let lender = database("lender").start();
    let borrower = run.name("borrower");
    docker(&[
        "run",
        "--detach",
        "--name",
        &borrower,
        "--label",
        &run.label(),
        "--network",
        &format!("container:{}", lender.name),
        "--entrypoint",
        "sleep",
        &image("postgres:15"),
        "infinity",
    ]);
    let no_network = database("no-network").options(["--network", "none"]).start();
    let taken = {
        let volume = run.volume(&run.name("taken"));
        database("taken").options(["--volume", &format!("{volume}:/var/lib/postgresql/certs")]).start()
    };
    let swarm = database("swarm").label("com.docker.swarm.task.id", "x").start();
    let other_engine = database("other-engine").label("dbssl.engine", "mongodb").start();
    let layer = database("layer").start();
    layer.exec(&["sh", "-c", "echo precious > /etc/precious"]).unwrap();

    let refused = [
        (auto_remove, "--rm"),
        (not_mounted, "/pgdata is not on a volume"),
        (shell_string, "flags cannot be appended to its command"),
        (off, "-c ssl=off"),
        (in_another, "NetworkMode container:"),
        (lender, "borrower"),
        (no_network, "no network"),
        (taken, "/var/lib/postgresql/certs"),
        (swarm, "Docker Swarm"),
        (other_engine, "cannot tell whom the database runs as"),
        (layer, "/etc/precious"),
    ];
    let refused = refused.map(|(container, reason)| (Before::of(container), reason));
    for (before, reason) in &refused {
        agent.wait_log(180, &[&format!("{{container={}}}", before.container.name), reason]);
    }
    let statuses = run.statuses();
    for (before, reason) in &refused {
        before.assert_untouched();
        let status = &statuses[&before.container.name];
        assert_eq!(status["standing"], "refused", "{status:#}");
        assert!(status["plan"].as_str().unwrap().contains(reason), "{reason}: {status:#}");
        assert!(
            !run.certificates(&before.container).exists(),
            "nothing was made for {}",
            before.container.name
        );
        assert_eq!(agent_lines(&agent, &before.container.name).len(), 1, "said once");
    }
    let shell = &refused[2].0.container;
    let plan = statuses[&shell.name]["plan"].as_str().unwrap();
    assert!(
        plan.contains("ssl_cert_file=/var/lib/postgresql/certs/server.crt"),
        "what to write by hand: {plan}"
    );
    assert_eq!(run.cli(&["status"]).code, 1);
    // No rehearsal stayed behind, either.
    assert_eq!(run.containers().len(), refused.len() + 2);
}

#[test]
fn tls_that_somebody_else_configured_is_left_alone() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let (folder, pair) = live::leaf_of_999(run.folder(), "own", "own");
    let db = run
        .database("db")
        .enabled()
        .options(["--volume", &format!("{}:/own:ro", folder.display())])
        .command(["-c", "ssl=on", "-c", "ssl_cert_file=/own/own.crt", "-c", "ssl_key_file=/own/own.key"])
        .start();
    let before = Before::of(db);
    let db = &before.container;
    db.wait_answers();
    let until = live::last_day(&pair.certificate);
    agent.wait_log(60, &[&db.name, "it is left alone", &format!("valid until {until}")]);
    wait("its status says so", 30, || {
        let status = run.status(db);
        let right = status["standing"] == "foreign"
            && status["plan"].as_str().unwrap().contains("somebody else")
            && status["valid_until"] == until.as_str();
        if right { Ok(()) } else { Err(format!("{status:#}")) }
    });
    before.assert_untouched();
    let own = db.client("verify-ca").root(&pair.certificate);
    assert_eq!(own.is_encrypted().unwrap(), "t", "it serves its own certificate");
    assert_eq!(db.client("disable").query("select 1").unwrap(), "1", "its rules are its own, too");
}

/// Coolify's own TLS looks just like ours: the same paths, the same flags, and here for another mode than is asked for.
#[test]
fn coolify_s_own_tls_is_left_alone() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let (folder, pair) = live::leaf_of_999(run.folder(), "ssl", "server");
    fs::copy(&pair.certificate, folder.join("coolify-ca.crt")).unwrap();
    let certs = "/etc/redis/certs";
    let db = run
        .database("db")
        .image("redis:8")
        .volume_at("/data")
        .mode("verify-full")
        .options(["--volume", &format!("{}:{certs}:ro", folder.display())])
        .command(["redis-server", "--appendonly", "yes", "--tls-port", "6380"])
        .more_command(["--tls-cert-file", &format!("{certs}/server.crt")])
        .more_command(["--tls-key-file", &format!("{certs}/server.key")])
        .more_command(["--tls-ca-cert-file", &format!("{certs}/coolify-ca.crt")])
        .more_command(["--tls-auth-clients", "optional"])
        .start();
    let before = Before::of(db);
    let db = &before.container;
    let until = live::last_day(&pair.certificate);
    agent.wait_log(60, &[&db.name, "it is left alone", &format!("valid until {until}")]);
    let status = run.status(db);
    assert_eq!((&status["standing"], &status["valid_until"]), (&"foreign".into(), &until.as_str().into()));
    before.assert_untouched();
}
