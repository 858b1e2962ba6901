//! The unit as systemd itself judges it, and the notify protocol as a service manager receives it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    process::{Command, Output},
    sync::mpsc,
    thread,
    time::Duration,
};

use dbssl::host::systemd::{Environment, Error, Notifier};

const UNIT: &str = include_str!("../systemd/dbssl.service");
const BINARY: &str = "/usr/local/bin/dbssl";

fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let run = Command::new("systemd-analyze").args(arguments).arg(unit).output();
    let Output { status, stdout, stderr } = match run {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("systemd-analyze is missing: install the package systemd (apt-get install systemd)")
        }
        run => run.unwrap(),
    };
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// The unit with a binary that is there, under its own name.
fn installed() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("dbssl.service");
    assert_eq!(UNIT.matches(BINARY).count(), 1, "one ExecStart");
    fs::write(&unit, UNIT.replace(BINARY, env!("CARGO_BIN_EXE_dbssl"))).unwrap();
    (folder, unit)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let (_folder, unit) = installed();
    let (good, said) = analyze(&["verify"], &unit);
    // What it says of Docker's own unit, which it reads as well, is not ours to mend.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("dbssl")).collect();
    assert!(good && ours.is_empty(), "{said}");
}

#[test]
fn systemd_says_that_the_unit_exposes_little() {
    let (_folder, unit) = installed();
    // In tenths: 3.0 of 10.
    let (good, said) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=30"], &unit);
    assert!(good, "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_unit_keeps_what_the_agent_needs() {
    let has = |line: &str| UNIT.lines().any(|found| found == line);
    for line in [
        "Type=notify",
        "Restart=always",
        "Wants=docker.service",
        "After=docker.service",
        "StateDirectory=dbssl",
        "ReadWritePaths=/data/coolify",
        "SystemCallFilter=@chown",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    ] {
        assert!(has(line), "{line} is missing");
    }
    for key in ["Requires=", "BindsTo=", "PrivateTmp=yes", "PrivateNetwork=yes", "ProtectHome=yes", "User="] {
        assert!(!UNIT.lines().any(|line| line.starts_with(key)), "{key} would break it");
    }
}

fn environment(socket: impl Into<OsString>) -> Environment {
    Environment { notify_socket: Some(socket.into()), ..Environment::default() }
}

fn received(manager: &UnixDatagram) -> String {
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 4096];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn say_everything(notifier: &Notifier, manager: &UnixDatagram) {
    notifier.ready().unwrap();
    assert_eq!(received(manager), "READY=1");
    notifier.status("2 databases, all proved").unwrap();
    assert_eq!(received(manager), "STATUS=2 databases, all proved");
    notifier.watchdog().unwrap();
    assert_eq!(received(manager), "WATCHDOG=1");
    notifier.extend_timeout(Duration::from_millis(90_500)).unwrap();
    assert_eq!(received(manager), "EXTEND_TIMEOUT_USEC=90500000");
    notifier.stopping().unwrap();
    assert_eq!(received(manager), "STOPPING=1");
}

#[test]
fn a_manager_with_a_path_hears_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    say_everything(&Notifier::new(&environment(path), 1).unwrap(), &manager);
}

#[test]
fn a_manager_with_an_abstract_name_hears_everything() {
    let name = format!("dbssl-test-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    say_everything(&Notifier::new(&environment(format!("@{name}")), 1).unwrap(), &manager);
}

#[test]
fn a_status_is_one_line_and_cannot_say_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let notifier = Notifier::new(&environment(path), 1).unwrap();
    notifier.status("db: failed\nMAINPID=1\r\nREADY=1").unwrap();
    assert_eq!(received(&manager), "STATUS=db: failed MAINPID=1  READY=1");
    notifier.status(&"x".repeat(1 << 20)).unwrap();
    assert_eq!(received(&manager).len(), "STATUS=".len() + 500);
}

#[test]
fn without_a_manager_nothing_happens() {
    for environment in [Environment::default(), environment("")] {
        let notifier = Notifier::new(&environment, 1).unwrap();
        notifier.ready().unwrap();
        notifier.status("idle").unwrap();
        notifier.watchdog().unwrap();
        notifier.extend_timeout(Duration::MAX).unwrap();
        notifier.stopping().unwrap();
        assert_eq!(notifier.watchdog_interval(), None);
    }
}

#[test]
fn a_manager_that_is_gone_or_deaf_never_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let notifier = Notifier::new(&environment(&path), 1).unwrap();
    // Nobody reads: the socket's queue fills up.
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let failed = (0..100_000).find_map(|_| notifier.watchdog().err());
        tell.send((failed, notifier)).unwrap();
    });
    let (failed, notifier) =
        told.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("it blocks"));
    let failed = failed.unwrap();
    assert!(
        matches!(&failed, Error::Send { source, .. } if source.kind() == ErrorKind::WouldBlock),
        "{failed:?}"
    );
    drop(manager);
    assert!(notifier.ready().is_err());
    // A manager that starts anew binds the same path again.
    fs::remove_file(&path).unwrap();
    let manager = UnixDatagram::bind(&path).unwrap();
    notifier.ready().unwrap();
    assert_eq!(received(&manager), "READY=1");
}

#[test]
fn the_watchdog_is_fed_twice_as_often_as_it_bites() {
    let interval = |usec: &str, pid: Option<&str>| {
        let environment = Environment {
            watchdog_usec: Some(usec.into()),
            watchdog_pid: pid.map(Into::into),
            ..Environment::default()
        };
        Notifier::new(&environment, 42).map(|notifier| notifier.watchdog_interval())
    };
    assert_eq!(interval("60000000", None).unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(interval("60000000", Some("42")).unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(interval("60000000", Some("43")).unwrap(), None, "it watches another process");
    for usec in ["", "0", "-1", "1s", "99999999999999999999"] {
        let error = interval(usec, None).unwrap_err();
        assert!(matches!(error, Error::Watchdog(_)), "{usec}: {error}");
    }
}

#[test]
fn an_address_that_is_none_is_named() {
    for name in ["notify", "vsock:2:1234", "@", &format!("/{}", "x".repeat(200))] {
        let error = Notifier::new(&environment(name), 1).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
