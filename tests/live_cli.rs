//! The verbs, as scripts and people use them: exit codes, JSON, and who does what when.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::fs;

use live::{Agent, Config, TestRun, docker};
use serde_json::Value;

#[test]
fn status_plan_and_verify_tell_how_things_stand() {
    let run = TestRun::begin();
    // Before there is a CA, nothing can be said.
    let nothing = run.cli(&["status"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (2, ""), "{nothing:?}");
    assert!(nothing.stderr.contains("no CA in") && nothing.stderr.contains("start dbssl"), "{nothing:?}");

    let mut agent = run.agent().start();
    let empty = run.cli(&["status"]);
    assert_eq!(empty.code, 0, "{empty:?}");
    assert!(empty.stdout.contains("no container is labelled"), "{empty:?}");
    let json: Value = serde_json::from_str(&run.cli(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "containers": [] }));
    assert!(agent.terminate().success());

    // A database that nobody has worked on yet.
    let db = run.database("db").enabled().start_and_wait();
    let (id, started_at) = (db.id(), db.started_at());
    for _ in 0..2 {
        let plan = run.cli(&["plan"]);
        assert_eq!(plan.code, 0, "{plan:?}");
        assert_eq!(
            plan.stdout,
            format!(
                "{}: issue a certificate: it has none yet; recreate the container with TLS: its wiring is missing\n",
                db.name
            )
        );
        assert_eq!(run.cli(&["plan", &db.name]).stdout, plan.stdout);
        let status = run.cli(&["status"]);
        assert_eq!(status.code, 1, "{status:?}");
        assert!(status.stdout.contains("pending"), "{status:?}");
        assert!(status.stderr.contains("agent: none runs"), "{status:?}");
        let verify = run.cli(&["verify", &db.name]);
        assert_eq!(verify.code, 1, "{verify:?}");
    }
    let plan: Value = serde_json::from_str(&run.cli(&["plan", "--json"]).stdout).unwrap();
    assert_eq!(plan["containers"][0]["container"], db.name.as_str());
    assert_eq!(plan["containers"][0]["standing"], "pending");
    assert_eq!((db.id(), db.started_at()), (id, started_at), "asking changes nothing");
    assert!(!run.certificates(&db).exists());

    agent = run.agent().start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let status = run.cli(&["status"]);
    assert_eq!((status.code, status.stderr.as_str()), (0, ""), "{status:?}");
    let rows: Vec<Vec<&str>> = status.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["CONTAINER", "ENGINE", "MODE", "STATE", "PLAINTEXT", "VALID", "UNTIL"]);
    assert_eq!(rows[1][..5], [db.name.as_str(), "postgres", "verify-full", "proved", "refused"]);
    let json = run.cli(&["status", "--json"]);
    assert_eq!(json.code, 0);
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let report = &report["containers"][0];
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "container",
            "engine",
            "mode",
            "standing",
            "plan",
            "valid_until",
            "fingerprint",
            "names",
            "plaintext",
            "client_auth",
            "without_certificate",
            "external",
            "external_note",
            "setback"
        ]
    );
    assert_eq!(report["engine"], "postgres");
    assert_eq!(report["mode"], "verify-full");
    assert_eq!(report["fingerprint"].as_str().unwrap().len(), 64);
    assert!(report["names"].as_array().unwrap().contains(&Value::from(db.name.as_str())));
    assert_eq!(report["setback"], Value::Null);
    assert_eq!(report["valid_until"], rows[1][5]);

    let verify = run.cli(&["verify", &db.name]);
    assert_eq!(verify.code, 0, "{verify:?}");
    assert!(verify.stdout.contains(report["fingerprint"].as_str().unwrap()), "{verify:?}");
    assert!(run.cli(&["plan"]).stdout.contains("nothing to do; renewal"));

    // All is well but that nobody renews it.
    assert!(agent.terminate().success());
    let untended = run.cli(&["status"]);
    assert_eq!((untended.code, untended.stdout), (1, status.stdout), "{}", untended.stderr);
    assert!(untended.stderr.contains("agent: none runs with"), "{}", untended.stderr);

    // Without a database that runs there is nothing to verify.
    docker(&["stop", &db.name]);
    assert_eq!(run.cli(&["verify", &db.name]).code, 1);
    assert_eq!(run.cli(&["status"]).code, 1);
}

#[test]
fn what_is_not_there_is_refused() {
    let run = TestRun::begin();
    let _agent = run.agent().start();
    // Not there, not labelled, or no argument.
    let unlabelled = run.database("unlabelled").start();
    for arguments in [
        &["verify", "no-such-container"][..],
        &["plan", "no-such-container"],
        &["apply", "no-such-container"],
        &["verify", &unlabelled.name],
        &["apply", &unlabelled.name],
        &["verify"],
        &["apply"],
        &["no-such-verb"],
        &["status", "--no-such-option"],
        &["verify", "no/name"],
    ] {
        let cli = run.cli(arguments);
        assert_eq!(cli.code, 2, "{arguments:?}: {cli:?}");
        assert!(cli.stdout.is_empty() && !cli.stderr.is_empty(), "{arguments:?}: {cli:?}");
    }
    assert!(
        run.cli(&["plan", "no-such-container"]).stderr.contains("there is no container no-such-container")
    );
}

#[test]
fn check_config_tells_all_that_is_wrong_with_its_lines() {
    let run = TestRun::begin();
    let good = run.cli(&["check-config"]);
    assert_eq!(good.code, 0, "{good:?}");
    run.configure(&Config {
        top: "host-nams = []".to_owned(),
        docker: "settle = 5".to_owned(),
        ..Config::default()
    });
    let bad = run.cli(&["check-config"]);
    assert_eq!(bad.code, 2, "{bad:?}");
    let path = run.config_file();
    let line = |number: usize| format!("{}:{number}:", path.display());
    assert!(bad.stderr.contains(&line(3)) && bad.stderr.contains("did you mean host-names?"), "{bad:?}");
    assert!(bad.stderr.contains("docker.settle: found 5"), "{bad:?}");
    // An agent does not begin with that.
    let mut agent = run.agent().spawn();
    assert_eq!(agent.wait_end(30).code(), Some(2), "{}", agent.log());
    fs::remove_file(&path).unwrap();
    assert_eq!(run.cli(&["check-config"]).code, 2, "a config that was asked for has to be there");
}

/// Not touched until somebody says so, with the agent running and without; but what it has is renewed.
#[test]
fn manual_waits_for_apply() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let manual = |name: &str| {
        let db = run.database(name).enabled().label("dbssl.redeploy", "manual").start();
        db.wait_answers();
        db
    };
    let (first, second) = (manual("first"), manual("second"));
    let ids = (first.id(), second.id());
    for db in [&first, &second] {
        agent.wait_log(60, &[&db.name, "dbssl.redeploy=manual leaves it to you: run dbssl apply"]);
        let status = run.status(db);
        assert_eq!(status["standing"], "pending", "{status:#}");
        assert!(status["plan"].as_str().unwrap().contains("recreate the container"), "{status:#}");
    }
    after_the_others(&run, &mut agent);
    assert_eq!((first.id(), second.id()), ids);

    let applied = run.cli(&["apply", &first.name]);
    assert_eq!(applied.code, 0, "{applied:?}");
    assert!(applied.stdout.contains("proved"), "{applied:?}");
    first.wait_enforced();
    assert_ne!(first.id(), ids.0);
    assert_eq!(second.id(), ids.1, "only what was asked for");

    // Without an agent, `apply` does it itself.
    assert!(agent.terminate().success());
    let applied = run.cli(&["apply", &second.name]);
    assert_eq!(applied.code, 0, "{applied:?}");
    second.wait_enforced();
    assert_ne!(second.id(), ids.1);
    // Once more is nothing to do.
    let ids = (first.id(), second.id());
    for db in [&first, &second] {
        assert_eq!(run.cli(&["apply", &db.name]).code, 0);
    }
    // A certificate, and a CA, must not need anybody.
    let mut agent = run.agent().start();
    assert_eq!(run.cli(&["ca", "regenerate", "--yes"]).code, 0);
    agent.wait_log(60, &["the rollover is proved"]);
    for db in [&first, &second] {
        assert_eq!(
            agent.lines(&[&db.name, "reloaded without a restart: proved"]).len(),
            1,
            "{}",
            agent.log()
        );
    }
    assert_eq!((first.id(), second.id()), ids);
}

/// `reload` never stops a database: what would need that is reported, what does not is done.
#[test]
fn reload_reports_what_it_may_not_do() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().label("dbssl.redeploy", "reload").start_and_wait();
    let (id, started_at) = (db.id(), db.started_at());
    agent.wait_log(60, &[&db.name, "dbssl.redeploy=reload leaves it to you: run dbssl apply"]);
    after_the_others(&run, &mut agent);
    assert_eq!((db.id(), db.started_at()), (id, started_at));
    assert_eq!(run.status(&db)["standing"], "pending");

    // `apply` is a human's word. From then on, certificates are renewed by reload.
    assert_eq!(run.cli(&["apply", &db.name]).code, 0);
    db.wait_enforced();
    let (id, started_at) = (db.id(), db.started_at());
    assert!(agent.terminate().success());
    run.configure(&Config { top: "host-names = [\"db.example.com\"]".to_owned(), ..Config::default() });
    agent = run.agent().start();
    agent.wait_log(60, &[&db.name, "reloaded without a restart: proved"]);
    assert_eq!(db.verifying().host("db.example.com").is_encrypted().unwrap(), "t");
    assert_eq!((db.id(), db.started_at()), (id, started_at));
}

#[test]
fn a_second_agent_on_the_same_folders_is_refused() {
    let run = TestRun::begin();
    let mut first = run.agent().start();
    let mut second = run.agent().spawn();
    let status = second.wait_end(30);
    assert_eq!(status.code(), Some(2), "{}", second.log());
    assert!(second.log().contains("another dbssl works with"), "{}", second.log());
    assert!(first.is_running());
    // A crash leaves no lock behind.
    first.kill();
    assert!(run.agent().start().terminate().success());
}

/// Until a database that came after all others has been worked on.
fn after_the_others(run: &TestRun, agent: &mut Agent) {
    let barrier = run.database("barrier").enabled().start();
    agent.wait_log(180, &[&barrier.name, "plaintext is refused: proved"]);
}
