//! New certificates that nobody notices: reloads under load, passwords that are wrong, files that are broken.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, path::Path};

use live::{
    Agent, Config, Container, Kind, MARIADB_10, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, REDIS_7, REDIS_8,
    Start, TestRun, VALKEY, Verify, docker, wait,
};

/// A wired database and its agent.
struct Wired<'r> {
    kind: &'static Kind,
    run: &'r TestRun,
    db: Container<'r>,
    agent: Option<Agent>,
}

impl<'r> Wired<'r> {
    fn begin(run: &'r TestRun, kind: &'static Kind, more: impl FnOnce(Start<'r>) -> Start<'r>) -> Self {
        let network = run.network("net", &[]);
        let db = more(kind.start(run, "db", &network).mode("verify-full")).start();
        kind.wait_answers(&db);
        let wired = Self { kind, run, db, agent: Some(run.agent().start()) };
        wired.db.wait_standing("proved");
        wired
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("it runs")
    }

    fn fingerprint(&self) -> String {
        self.run.status(&self.db)["fingerprint"].as_str().expect("it serves a certificate").to_owned()
    }

    /// An agent that wants another name in the certificate: which has to be issued, and taken up.
    fn rotate(&mut self, name: &str) {
        assert!(self.agent.take().expect("it runs").terminate().success());
        let top = format!("host-names = [{name:?}]");
        self.run.configure(&Config { top, ..Config::default() });
        self.agent = Some(self.run.agent().start());
    }

    /// Another password than the container's environment says.
    fn change_password(&self) {
        let change = match self.kind.engine {
            "mysql" => {
                "MYSQL_PWD=secret mysql -uroot -e \"ALTER USER root@localhost IDENTIFIED BY 'other', root@'%' IDENTIFIED BY 'other'\""
            }
            "mariadb" => {
                "MYSQL_PWD=secret mariadb -uroot -e \"ALTER USER root@localhost IDENTIFIED BY 'other', root@'%' IDENTIFIED BY 'other'\""
            }
            "redis" => {
                "REDISCLI_AUTH=secret redis-cli --tls --insecure -p 6380 config set requirepass other | grep OK"
            }
            other => panic!("{other} checks no password here"),
        };
        self.db.exec(&["sh", "-c", change]).expect("the password is changed");
    }
}

/// A client that opens a connection every 10 ms and one that keeps a connection busy see nothing of it.
fn rotates_under_load(kind: &'static Kind) {
    let run = TestRun::begin();
    let mut wired = Wired::begin(&run, kind, |start| start);
    let (started_at, id, before) = (wired.db.started_at(), wired.db.id(), wired.fingerprint());
    let load = kind.driver(&wired.db, Verify::Full, &run.bundle()).load();
    for name in ["first.example.com", "second.example.com"] {
        wired.rotate(name);
        wired.agent().wait_log(60, &["reloaded without a restart: proved"]);
        wired.db.wait_standing("proved");
        // Every connection from now on is served the new one, by each of the server's processes or threads.
        for _ in 0..20 {
            kind.driver(&wired.db, Verify::Full, &run.bundle())
                .host(name)
                .once()
                .expect("the new certificate");
        }
    }
    let seen = load.end();
    assert_eq!((seen.failed.len(), seen.dropped.len()), (0, 0), "{seen:#?}");
    assert!(seen.opened > 50 && seen.queries > 50, "there was a load: {seen:?}");
    assert_ne!(wired.fingerprint(), before);
    assert_eq!((wired.db.started_at(), wired.db.id()), (started_at, id));
    assert_eq!(wired.agent().lines(&["WARN"]), Vec::<String>::new());
}

#[test]
fn postgresql_rotates_under_load() {
    rotates_under_load(&POSTGRES_15);
}

#[test]
fn mysql_rotates_under_load() {
    rotates_under_load(&MYSQL);
}

#[test]
fn mariadb_10_rotates_under_load() {
    rotates_under_load(&MARIADB_10);
}

#[test]
fn mariadb_11_rotates_under_load() {
    rotates_under_load(&MARIADB_11);
}

#[test]
fn redis_7_rotates_under_load() {
    rotates_under_load(&REDIS_7);
}

#[test]
fn redis_8_rotates_under_load() {
    rotates_under_load(&REDIS_8);
}

#[test]
fn valkey_rotates_under_load() {
    rotates_under_load(&VALKEY);
}

#[test]
fn mongodb_rotates_under_load() {
    rotates_under_load(&MONGODB);
}

/// The server does not take the reload from us: one restart, and never a second one.
fn restarts_once(kind: &'static Kind) {
    let run = TestRun::begin();
    let mut wired = Wired::begin(&run, kind, |start| start);
    let (started_at, id) = (wired.db.started_at(), wired.db.id());
    wired.change_password();
    wired.rotate("other.example.com");
    let why = wired.agent().wait_log(60, &["the reload proved nothing: restarting the database"]);
    assert!(why.contains("the server refuses the password"), "{why}");
    assert!(!wired.agent().log().contains("secret"), "a password in the log");
    wired.agent().wait_log(120, &["restarted: proved"]);
    wired.db.wait_standing("proved");
    assert_ne!(wired.db.started_at(), started_at);
    assert_eq!(wired.db.id(), id);
    assert_eq!(wired.agent().lines(&["restarting the database"]).len(), 1);
}

/// The same where the label forbids restarts: it is said, and the database serves on.
fn reports_instead(kind: &'static Kind) {
    let run = TestRun::begin();
    let network = run.network("net", &[]);
    let db = kind.start(&run, "db", &network).mode("verify-full").label("dbssl.redeploy", "reload").start();
    kind.wait_answers(&db);
    let mut wired = Wired { kind, run: &run, db, agent: Some(run.agent().start()) };
    // The label leaves the first recreation to its operator, too.
    wired.agent().wait_log(120, &["dbssl.redeploy=reload leaves it to you: run dbssl apply"]);
    assert_eq!(run.cli(&["apply", &wired.db.name]).code, 0);
    let (started_at, before) = (wired.db.started_at(), wired.fingerprint());
    wired.change_password();
    wired.rotate("other.example.com");
    let why = wired.agent().wait_log(60, &["a restart is not allowed now"]);
    assert!(why.contains("the server refuses the password"), "{why}");
    wired.db.wait_standing("pending");
    assert_eq!((wired.db.started_at(), wired.fingerprint()), (started_at, before));
    assert_eq!(wired.agent().lines(&["a restart is not allowed now"]).len(), 1);
}

#[test]
fn mysql_with_another_password_is_restarted_once() {
    restarts_once(&MYSQL);
}

#[test]
fn mariadb_with_another_password_is_restarted_once() {
    restarts_once(&MARIADB_11);
}

#[test]
fn redis_with_another_password_is_restarted_once() {
    restarts_once(&REDIS_8);
}

#[test]
fn mysql_with_another_password_is_reported_where_no_restart_is_allowed() {
    reports_instead(&MYSQL);
}

#[test]
fn redis_with_another_password_is_reported_where_no_restart_is_allowed() {
    reports_instead(&REDIS_8);
}

/// Something that happens to a file of the certificate directory.
type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 5] = [
    ("garbage", |file| fs::write(file, "garbage").unwrap()),
    ("cut off", |file| {
        let text = fs::read(file).unwrap();
        fs::write(file, &text[..text.len() / 2]).unwrap();
    }),
    ("the key of another certificate", |file| {
        let other = live::leaf(file.parent().unwrap().parent().unwrap(), "other");
        let (certificate, key) = (fs::read(other.certificate).unwrap(), fs::read(other.key).unwrap());
        let one_file = file.ends_with("server.pem");
        fs::write(file, if one_file { [certificate, key].concat() } else { key }).unwrap();
    }),
    ("the wrong owner", |file| std::os::unix::fs::chown(file, Some(1234), Some(1234)).unwrap()),
    ("not there", |file| fs::remove_file(file).unwrap()),
];

/// Where the key is.
fn key_file(run: &TestRun, db: &Container<'_>) -> std::path::PathBuf {
    let generation = fs::canonicalize(run.certificates(db).join("..data")).unwrap();
    let found =
        ["server.key", "server.pem"].map(|name| generation.join(name)).into_iter().find(|file| file.exists());
    found.expect("a file with the key")
}

/// Mended by a reload; and when the server was started on broken files, it comes back.
fn survives_broken_files(kind: &'static Kind) {
    let run = TestRun::begin();
    let mut wired = Wired::begin(&run, kind, |start| start.options(["--restart", "always"]));
    let (started_at, id) = (wired.db.started_at(), wired.db.id());
    for (what, damage) in DAMAGES {
        let before = wired.fingerprint();
        damage(&key_file(&run, &wired.db));
        assert_eq!(run.status(&wired.db)["standing"], "pending", "{what}");
        let applied = run.cli(&["apply", &wired.db.name]);
        assert_eq!(applied.code, 0, "{what}: {applied:?}");
        assert_ne!(wired.fingerprint(), before, "{what}: a new certificate, with a new key");
        kind.driver(&wired.db, Verify::Full, &run.bundle()).once().unwrap();
        assert_eq!(wired.db.started_at(), started_at, "{what}: no restart");
    }
    kind.driver(&wired.db, Verify::Full, &run.bundle()).write("kept").unwrap();
    fs::write(key_file(&run, &wired.db), "garbage").unwrap();
    docker(&["restart", &wired.db.name]);
    wait(&format!("{} serves again", wired.db.name), 120, || {
        kind.driver(&wired.db, Verify::Full, &run.bundle()).once()
    });
    wired.db.wait_standing("proved");
    assert!(kind.plain(&wired.db).once().is_err());
    assert_eq!(wired.db.id(), id);
    let rows = kind.driver(&wired.db, Verify::Full, &run.bundle()).rows();
    assert_eq!(rows.as_deref(), Ok(&["kept".to_owned()][..]));
    assert_eq!(wired.agent().lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn mysql_survives_broken_files() {
    survives_broken_files(&MYSQL);
}

#[test]
fn mariadb_survives_broken_files() {
    survives_broken_files(&MARIADB_10);
}

#[test]
fn redis_survives_broken_files() {
    survives_broken_files(&REDIS_8);
}

#[test]
fn mongodb_survives_broken_files() {
    survives_broken_files(&MONGODB);
}

/// Somebody tells the running server to let plaintext in.
#[test]
fn plaintext_that_was_let_in_again_is_refused_again() {
    let run = TestRun::begin();
    let mut wired = Wired::begin(&run, &MYSQL, |start| start);
    let started_at = wired.db.started_at();
    // It would mend that at once.
    assert!(wired.agent.take().unwrap().terminate().success());
    let let_in = "MYSQL_PWD=secret mysql -uroot -e 'SET GLOBAL require_secure_transport = OFF'";
    wired.db.exec(&["sh", "-c", let_in]).unwrap();
    MYSQL.plain(&wired.db).once().unwrap();
    assert_eq!(run.status(&wired.db)["plaintext"], "accepted");
    wired.agent = Some(run.agent().start());
    wired.agent().wait_log(60, &["plaintext is refused: proved"]);
    assert!(MYSQL.plain(&wired.db).once().is_err());
    assert_eq!(wired.db.started_at(), started_at);
}
