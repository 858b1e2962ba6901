//! Containers that are out to harm the agent, or whoever reads its log, by what they say of themselves.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use live::{Agent, Container, TestRun, docker, image};
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
