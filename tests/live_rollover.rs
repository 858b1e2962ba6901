//! From one CA to the next without one failed connection, whichever file a client has.
#![cfg(feature = "live")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail"
)]

mod live;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use live::{
    Agent, Config, Container, Kind, Load, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, Pair, REDIS_8, TestRun,
    Verify, Watcher, wait,
};

const PROVED: &str = "the rollover is proved";
/// What an application may see of a file that its operator replaced by hand: until the agent has seen it, it is the
/// operator's alone. Some 60 ms; here other tests want the processor, too.
const UNSEEN: Duration = Duration::from_secs(1);

struct Scene<'r> {
    run: &'r TestRun,
    kind: &'static Kind,
    db: Container<'r>,
    agent: Option<Agent>,
    clients: Vec<(String, Load)>,
    watcher: Watcher,
    /// The moments at which the file was replaced by hand.
    dropped_at: Vec<f64>,
    custom: u32,
}

impl<'r> Scene<'r> {
    fn begin(run: &'r TestRun, kind: &'static Kind, overlap: &str) -> Self {
        let certificates = format!("ca-overlap = {overlap:?}");
        run.configure(&Config { certificates, ..Config::default() });
        let network = run.network("net", &[]);
        // A name that not every client takes.
        let db = kind.start(run, "my_db", &network).mode("verify-full").start();
        kind.wait_answers(&db);
        let agent = Some(run.agent().start());
        db.wait_standing("proved");
        let watcher = Watcher::begin(kind, &db, &run.bundle());
        Self { run, kind, db, agent, clients: Vec::new(), watcher, dropped_at: Vec::new(), custom: 0 }
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("it runs")
    }

    /// A client that verifies by this file and no other.
    fn client(&mut self, who: &str, file: &Path) {
        let load = self.kind.driver(&self.db, Verify::Full, file).load_every("0.05");
        self.clients.push((who.to_owned(), load));
    }

    /// The file as it is now, for a client that never reads it again.
    fn saved(&self, name: &str) -> PathBuf {
        let path = self.run.folder().join(name);
        fs::copy(self.run.bundle(), &path).unwrap();
        path
    }

    /// A CA of the user's with its key beside the bundle; its certificate is not there yet.
    fn custom_with_key(&mut self) -> Pair {
        self.custom += 1;
        let name = format!("custom-{}", self.custom);
        let subject = format!("/DC=corp/DC=example/OU=a/OU=b/CN={name}");
        let pair = live::root(self.run.folder(), &name, &subject);
        fs::copy(&pair.key, self.run.data().join("coolify-ca.key")).unwrap();
        pair
    }

    fn drop_by_copy(&mut self, file: &Path) {
        let content = fs::read(file).unwrap();
        self.watcher.expect(content.clone());
        self.dropped_at.push(seconds());
        fs::write(self.run.bundle(), content).unwrap();
    }

    fn drop_by_rename(&mut self, file: &Path) {
        self.watcher.expect(fs::read(file).unwrap());
        let beside = self.run.data().join("new");
        fs::copy(file, &beside).unwrap();
        self.dropped_at.push(seconds());
        fs::rename(&beside, self.run.bundle()).unwrap();
    }

    /// Changes the CA and waits until that is proved; then adds a client that has nothing but the new one.
    fn roll_over(&mut self, what: &str, change: impl FnOnce(&mut Self)) {
        let before = self.agent().lines(&[PROVED]).len();
        let start = Instant::now();
        change(self);
        self.agent().wait_log_after(before, 60, &[PROVED]);
        println!("{what}: proved after {} ms", start.elapsed().as_millis());
        let new = self.run.folder().join(format!("only-{what}.crt"));
        fs::write(&new, self.issuing_root()).unwrap();
        self.client(&format!("B, who has only what {what} brought"), &new);
    }

    /// The root of the CA in force, alone.
    fn issuing_root(&self) -> String {
        let shown = self.run.cli(&["ca", "show", "--json"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        let subject = shown["issuing"]["sha256"].as_str().unwrap().to_owned();
        let pem = fs::read_to_string(self.run.bundle()).unwrap();
        let blocks = pem.split_inclusive("-----END CERTIFICATE-----\n").map(|block| {
            let begin = block.find("-----BEGIN").unwrap();
            block[begin..].to_owned()
        });
        let found = blocks.into_iter().find(|block| live::fingerprint(block) == subject);
        found.expect("the CA in force is in the bundle")
    }

    /// Everything that any client saw. `C` reads the file that its operator replaces under its eyes.
    fn end(mut self) {
        let warnings = self.agent().lines(&["WARN"]);
        assert!(warnings.is_empty(), "{warnings:#?}");
        let watched = self.watcher.end();
        assert!(watched.held > 0 && watched.wrong.is_empty(), "{watched:#?}");
        println!("{} contents of the bundle were held against what was served", watched.held);
        for (who, load) in self.clients {
            let mut seen = load.end();
            assert!(seen.opened > 10, "{who}: {seen:?}");
            if who.starts_with('C') {
                // Told by when a connection began: its file may have been read later.
                let unseen = |failure: &String| {
                    let at = live::seen_at(failure);
                    self.dropped_at
                        .iter()
                        .any(|drop| (*drop - 1.0..drop + UNSEEN.as_secs_f64()).contains(&at))
                };
                seen.failed.retain(|failure| !unseen(failure));
            }
            assert_eq!(
                (seen.failed.len(), seen.dropped.len()),
                (0, 0),
                "{who}: {seen:#?}\n{:?}",
                self.dropped_at
            );
        }
    }
}

fn seconds() -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds are enough")]
    let milliseconds = (dbssl::host::clock::now().unix_timestamp_nanos() / 1_000_000) as f64;
    milliseconds / 1000.0
}

fn rolls_over(kind: &'static Kind) {
    let run = TestRun::begin();
    let mut scene = Scene::begin(&run, kind, "1h");
    let (started_at, id) = (scene.db.started_at(), scene.db.id());
    let first = scene.saved("first.crt");
    scene.client("A, who has the first file and never reads again", &first);
    scene.client("C, who reads the file each time", &run.bundle());
    scene.roll_over("ca regenerate", |scene| {
        let regenerated = scene.run.cli(&["ca", "regenerate", "--yes"]);
        assert_eq!(regenerated.code, 0, "{}", regenerated.stderr);
    });
    scene.roll_over("a copy", |scene| {
        let custom = scene.custom_with_key();
        scene.drop_by_copy(&custom.certificate);
    });
    scene.roll_over("a rename", |scene| {
        let custom = scene.custom_with_key();
        scene.drop_by_rename(&custom.certificate);
    });
    scene.roll_over("going back", |scene| {
        fs::remove_file(scene.run.data().join("coolify-ca.key")).unwrap();
        scene.drop_by_copy(&first);
    });
    assert_eq!((scene.db.started_at(), scene.db.id()), (started_at, id), "no restart");
    scene.end();
}

#[test]
fn postgresql_rolls_over_and_nobody_notices() {
    rolls_over(&POSTGRES_15);
}

#[test]
fn mysql_rolls_over_and_nobody_notices() {
    rolls_over(&MYSQL);
}

#[test]
fn mariadb_rolls_over_and_nobody_notices() {
    rolls_over(&MARIADB_11);
}

#[test]
fn redis_rolls_over_and_nobody_notices() {
    rolls_over(&REDIS_8);
}

#[test]
fn mongodb_rolls_over_and_nobody_notices() {
    rolls_over(&MONGODB);
}

/// At the end of the overlap the file is what was uploaded, byte for byte, in the inode that applications have mounted;
/// after one of ours, ours alone.
#[test]
fn after_the_overlap_the_file_is_what_was_uploaded() {
    let run = TestRun::begin();
    let mut scene = Scene::begin(&run, &POSTGRES_15, "2s");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(run.bundle()).unwrap());
    let before = inode();
    let custom = scene.custom_with_key();
    let uploaded = format!("# ours since 2026\n{}", fs::read_to_string(&custom.certificate).unwrap());
    scene.watcher.expect(uploaded.clone().into_bytes());
    fs::write(run.bundle(), &uploaded).unwrap();
    scene.agent().wait_log(60, &["the overlap is over"]);
    wait("the file is as it was uploaded", 10, || {
        let now = fs::read_to_string(run.bundle()).unwrap();
        if now == uploaded { Ok(()) } else { Err(now) }
    });
    scene.db.wait_standing("proved");
    let served = scene.kind.driver(&scene.db, Verify::Full, &custom.certificate);
    served.once().expect("what is left is enough");

    assert_eq!(run.cli(&["ca", "regenerate", "--yes"]).code, 0);
    scene.agent().wait_log_after(1, 60, &["the overlap is over"]);
    wait("ours alone is left", 10, || {
        let now = fs::read_to_string(run.bundle()).unwrap();
        if now == scene.issuing_root() { Ok(()) } else { Err(now) }
    });
    assert_eq!(inode(), before);
    scene.db.wait_standing("proved");
    scene.end();
}

/// Killed at each step of a rollover, and of its end: the next agent finishes it, and all the while what is served
/// verifies against the file as it is.
#[test]
fn killed_at_any_step_the_rollover_comes_to_its_end() {
    for (point, overlap) in [
        ("bundle-recorded", "1h"),
        ("ca-kept", "1h"),
        ("ca-published", "1h"),
        ("ca-in-force", "1h"),
        ("ca-bridged", "1h"),
        ("leaf-swapped", "1h"),
        ("ca-retired", "1s"),
        ("bundle-rewritten", "1s"),
    ] {
        println!("killed at {point}");
        let run = TestRun::begin();
        let mut scene = Scene::begin(&run, &POSTGRES_15, overlap);
        let (started_at, id) = (scene.db.started_at(), scene.db.id());
        let first = scene.saved("first.crt");
        if overlap == "1h" {
            scene.client("A, who has the first file and never reads again", &first);
        }
        scene.client("C, who reads the file each time", &run.bundle());
        assert!(scene.agent.take().expect("it runs").terminate().success());
        let mut doomed = run.agent().crash_at(point).start();
        let pair = scene.custom_with_key();
        scene.drop_by_copy(&pair.certificate);
        doomed.wait_end(60);
        scene.agent = Some(run.agent().start());
        if overlap == "1h" {
            scene.agent().wait_log(60, &[PROVED]);
        } else {
            let uploaded = fs::read_to_string(&pair.certificate).unwrap();
            wait("the file is as it was uploaded", 60, || {
                let now = fs::read_to_string(run.bundle()).unwrap();
                if now == uploaded { Ok(()) } else { Err(now) }
            });
        }
        scene.db.wait_standing("proved");
        scene.client("B, who has only the new file", &pair.certificate);
        assert_eq!((scene.db.started_at(), scene.db.id()), (started_at, id), "no restart");
        scene.end();
    }
}
