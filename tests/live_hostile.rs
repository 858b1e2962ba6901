//! Containers that are out to harm the agent, or whoever reads its log, by what they say of themselves, by their files and by
//! their programs.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use live::{Agent, Container, TestRun, docker, image, try_docker, wait};
use serde_json::{Value, json};

/// What an agent may have in memory at the most, in KiB.
const MOST_MEMORY: u64 = 200 << 10;

fn assert_bounded(agent: &mut Agent) {
    assert!(agent.is_running());
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap();
    assert!(peak < MOST_MEMORY, "{peak} KiB");
}

/// Neither a line that is none of ours nor anything that moves a cursor.
fn assert_plain(text: &str) {
    let odd = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
    assert!(!text.contains(odd), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{text}");
}

/// Creates a container as the API does, without the limits of a command line, and starts it.
fn create<'r>(run: &'r TestRun, name: &str, body: &Value) -> Container<'r> {
    let socket = "/var/run/docker.sock";
    let full_name = run.name(name);
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /containers/create?name={full_name} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    docker(&["start", &full_name]);
    run.container(&full_name)
}

#[test]
fn labels_of_any_length_and_content_are_shown_as_text() {
    const ODD: &str = "\u{1b}[2J\r\nFORGED INFO dbssl is ready\u{202e}\0";
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let mut labels = serde_json::Map::new();
    let (label, value) = run.label().split_once('=').map(|(l, v)| (l.to_owned(), v.to_owned())).unwrap();
    labels.insert(label, json!(value));
    for number in 0..500 {
        labels.insert(format!("some.label-{number}"), json!("x"));
    }
    for number in 0..4 {
        labels.insert(format!("long.{number}"), json!("y".repeat(1 << 20)));
    }
    let create = |name: &str, more: &[(String, String)]| {
        let mut labels = labels.clone();
        labels.extend(more.iter().map(|(label, value)| (label.clone(), json!(value))));
        let body = json!({
            "Image": image("base:bookworm"), "Entrypoint": ["sleep"], "Cmd": ["infinity"],
            "Env": [format!("ODD={ODD}\u{fffd}").replace('\0', "")], "Labels": labels,
        });
        create(&run, name, &body)
    };
    let pair = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let enabled = pair("dbssl.enable", "true");
    let modes = create("mode", &[enabled.clone(), pair("dbssl.mode", &ODD.repeat(50_000))]);
    let unknown = create("unknown", &[enabled.clone(), pair(&format!("dbssl.{ODD}"), ODD)]);
    let names = create("names", &[enabled.clone(), pair("dbssl.names", &format!("ok,{ODD}"))]);
    let many = create("many", &[enabled.clone(), pair("dbssl.names", &"n,".repeat(100_000))]);
    let path = create("path", &[pair("dbssl.client", "true"), pair("dbssl.client.path", &format!("/{ODD}"))]);
    let plain = create("plain", &[enabled]);
    for (container, text) in [
        (&modes, "dbssl.mode"),
        (&unknown, "unknown label"),
        (&names, "dbssl.names"),
        (&many, "names, allowed"),
        (&path, "dbssl.client.path"),
        (&plain, "cannot tell which database this is"),
    ] {
        let line = agent.wait_log(90, &[&format!("{{container={}}}", container.name), text]);
        assert!(line.len() < 2000, "{} bytes in a line", line.len());
    }
    // Beside all that, and with an odd environment of its own.
    let odd = "ODD=\u{1b}[31m\n\u{9b}ä\u{fffd}";
    let good = run.database("good").enabled().options(["--env", odd]).start();
    good.wait_enforced();
    assert!(good.inspect()["Config"]["Env"].as_array().unwrap().contains(&json!(odd)));
    assert_plain(&agent.log());
    let status = run.cli(&["status"]);
    assert_plain(&status.stdout);
    assert_plain(&status.stderr);
    assert_bounded(&mut agent);
}

/// What root in the container does to it.
fn spoil(container: &Container<'_>, script: &str) {
    docker(&["exec", "--user", "root", &container.name, "sh", "-c", script]);
}

/// In the place of a shell: it never stops talking, or never says a word.
const TALKS: &str = r#"printf '#!/usr/bin/perl\nprint "x" x 65536 while 1;\n' >/bin/new && chmod 755 /bin/new && mv /bin/new /bin/sh"#;
const SLEEPS: &str =
    r"printf '#!/usr/bin/perl\nsleep 86400;\n' >/bin/new && chmod 755 /bin/new && mv /bin/new /bin/sh";

#[test]
fn a_database_with_files_that_lead_elsewhere_or_never_end_harms_itself_alone() {
    let run = TestRun::begin();
    let spoilt: Vec<_> = [
        ("link", "ln -sf /dev/zero /etc/passwd", "it is a symbolic link"),
        ("above", "ln -sf ../../../../../../../../etc/shadow /etc/passwd", "it is a symbolic link"),
        ("pipe", "rm /etc/passwd && mkfifo /etc/passwd", "it is no regular file"),
        ("huge", "truncate -s 8G /etc/passwd", "/etc/passwd"),
        ("folder", "rm /etc/passwd && mkdir /etc/passwd", "it is no regular file"),
        ("talks", TALKS, ""),
        ("sleeps", SLEEPS, ""),
    ]
    .map(|(name, script, says)| {
        let db = run.database(name).enabled().start_and_wait();
        spoil(&db, script);
        let before = (db.id(), db.started_at());
        (db, before, says)
    })
    .into();
    let mut agent = run.agent().start();
    let good = run.database("good").enabled().start();
    good.wait_enforced();
    for (db, before, says) in &spoilt {
        let line = agent.wait_log(180, &[&format!("{{container={}}}", db.name), "WARN", says]);
        assert!(line.len() < 2000, "{} bytes in a line", line.len());
        assert!(db.is_running());
        assert_eq!((&db.id(), &db.started_at()), (&before.0, &before.1), "{}: {line}", db.name);
    }
    assert_plain(&agent.log());
    assert_bounded(&mut agent);
}

/// They have their certificates, and then their shells are others: whoever asks gets no answer, or one without an end. A
/// restart is what is left for them; the others are reloaded at once.
#[test]
fn databases_whose_programs_never_end_hold_up_no_renewal_of_others() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let spoilt = [("talks", TALKS), ("sleeps", SLEEPS)].map(|(name, script)| {
        let db = run.database(name).enabled().start();
        (db, script)
    });
    let good = run.database("good").enabled().start();
    good.wait_enforced();
    for (db, script) in &spoilt {
        db.wait_enforced();
        db.write_row("kept");
        spoil(db, script);
    }
    let (id, started_at) = (good.id(), good.started_at());
    let of = |db: &Container<'_>| format!("{{container={}}}", db.name);
    let before = spoilt.each_ref().map(|(db, _)| agent.lines(&[&of(db)]).len());
    assert_eq!(run.cli(&["ca", "regenerate", "--yes"]).code, 0);
    agent.wait_log(60, &[&good.name, "reloaded without a restart: proved"]);
    for ((db, _), lines) in spoilt.iter().zip(before) {
        wait(&format!("what becomes of {} is said", db.name), 240, || {
            let ends = |line: &String| line.contains("proved") || line.contains("not done");
            let said = agent.lines(&[&of(db)]);
            if said.iter().skip(lines).any(ends) { Ok(()) } else { Err(said.join("\n")) }
        });
        wait("it runs", 60, || if db.is_running() { Ok(()) } else { Err(db.logs()) });
        assert_eq!(db.rows(), ["kept"]);
    }
    good.wait_standing("proved");
    assert_eq!((good.id(), good.started_at()), (id, started_at), "no restart");
    assert_plain(&agent.log());
    assert_bounded(&mut agent);
}

/// What is put into an application goes into that application, wherever its links lead.
#[test]
fn the_bundle_is_never_put_outside_of_a_container() {
    let run = TestRun::begin();
    let outside = run.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    let out = format!("{}{}", "../".repeat(30), outside.strip_prefix("/").unwrap().display());
    let client = |name: &str| run.application(name).label("dbssl.client", "true").start();
    let at = "/etc/ssl/certs/coolify-ca.crt";
    let spoilt: Vec<_> = [
        ("above", format!("rm -rf /etc/ssl/certs && mkdir -p /etc/ssl && ln -s {out} /etc/ssl/certs")),
        ("file", format!("mkdir -p /etc/ssl/certs && ln -s {out}/file {at}")),
        (
            "proc",
            "rm -rf /etc/ssl/certs && mkdir -p /etc/ssl && ln -s /proc/1/root/proc/sys/kernel /etc/ssl/certs"
                .to_owned(),
        ),
        ("pipe", format!("mkdir -p /etc/ssl/certs && mkfifo {at}")),
        ("loop", "rm -rf /etc/ssl/certs && mkdir -p /etc/ssl && ln -s certs /etc/ssl/certs".to_owned()),
        ("device", format!("mkdir -p /etc/ssl/certs && ln -s /dev/full {at}")),
    ]
    .map(|(name, script)| {
        let container = client(name);
        spoil(&container, &script);
        (container, name)
    })
    .into();
    let mut agent = run.agent().start();
    let good = client("good");
    wait("the good one has the bundle", 60, || {
        let found = try_docker(&["exec", &good.name, "cat", at])?;
        if found.contains("BEGIN CERTIFICATE") { Ok(()) } else { Err(found) }
    });
    for (container, name) in &spoilt {
        // Put where the link leads within the container, or refused with what is there.
        let line = agent.wait_log(120, &[&format!("container={}", container.name)]);
        assert!(line.len() < 2000, "{name}: {} bytes in a line", line.len());
        assert!(container.is_running(), "{name}");
    }
    let entries = fs::read_dir(&outside).unwrap().count();
    assert_eq!(entries, 0, "something came out of a container");
    assert_plain(&agent.log());
    assert_bounded(&mut agent);
}
