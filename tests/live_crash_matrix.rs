//! SIGKILL at every step of every operation, on every kind of server: a table of what is under way and where the agent
//! dies. The next agent brings it to its end: data, certificate, volumes, one container.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use dbssl::host::journal::Phase;
use live::{
    Agent, Config, Container, Driver, Kind, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, REDIS_8, Scene, Sentry,
    TestRun, Verify, assert_nothing_stays, docker, on_an_engine_of_its_own, wait,
};

/// What the agent is doing when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// A labelled container gets its first certificate, its wiring, and refuses plaintext.
    Enable,
    /// It had all that, and its user made the container anew without the wiring.
    Recreate,
    /// A certificate with a name more is issued, and taken up.
    Reload,
    /// The same, and a reload proves nothing.
    Restart,
    /// As [`Self::Enable`], and the server cannot do TLS.
    RollBack,
    /// The user's CA with its key takes the place of ours.
    Rollover,
    /// The same, and the overlap is over at once.
    EndOfOverlap,
}

use Operation::{Enable, EndOfOverlap, Recreate, Reload, Restart, RollBack, Rollover};

/// A redeploy that comes to its end.
const REDEPLOY: &[&str] = &[
    "begun",
    "policy-off",
    "park",
    "stop",
    "brake",
    "create",
    "furnish",
    "start",
    "prove",
    "commit",
    "policy-back",
    "remove-old",
    "old-removed",
];

/// Every place in the sources where an agent can be told to die, by what leads there.
const STEPS: &[(Operation, &[&[&str]])] = &[
    (Enable, &[&["leaf-swapped"], REDEPLOY, &["enforce"]]),
    (Recreate, &[REDEPLOY]),
    (Reload, &[&["leaf-swapped", "reloaded"]]),
    (Restart, &[&["leaf-swapped", "begun", "stop", "restarted"]]),
    (RollBack, &[&["roll-back", "successor-gone", "old-named", "old-unbraked", "old-started"]]),
    (
        Rollover,
        &[&[
            "bundle-recorded",
            "ca-kept",
            "ca-published",
            "ca-in-force",
            "ca-bridged",
            "leaf-swapped",
            "reloaded",
        ]],
    ),
    (EndOfOverlap, &[&["ca-retired", "bundle-rewritten"]]),
];

/// Restart policies, one after the other.
const POLICIES: [&str; 3] = ["no", "always", "unless-stopped"];
/// Rows that are under way at the same time: more would only wait for the processor.
const AT_ONCE: usize = 4;
/// What [`Operation::Reload`] and [`Operation::Restart`] bring.
const LATER: &str = "later.example";

struct Row {
    kind: &'static Kind,
    operation: Operation,
    point: &'static str,
    number: usize,
}

/// All rows of these operations.
fn rows(kind: &'static Kind, operations: &[Operation]) -> Vec<Row> {
    let steps = STEPS.iter().filter(|(operation, _)| operations.contains(operation));
    let all = steps
        .flat_map(|(operation, points)| points.iter().copied().flatten().map(|point| (*operation, *point)))
        // The others refuse plaintext by their command line: nothing has to be arranged afterwards.
        .filter(|(_, point)| *point != "enforce" || kind.engine == "postgres");
    all.enumerate().map(|(number, (operation, point))| Row { kind, operation, point, number }).collect()
}

/// Goes through the rows, some side by side, and tells of all that failed.
fn survive(rows: Vec<Row>, engine: &live::Engine) {
    assert_eq!(engine.volumes(), Vec::<String>::new());
    let (volumes, failed) = (Mutex::new(BTreeSet::new()), Mutex::new(Vec::new()));
    let (count, queue, sentry) = (rows.len(), Mutex::new(rows), Sentry::begin());
    let next = || queue.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = next() {
                    let about = row.about();
                    let ended = std::panic::catch_unwind(|| row.survives());
                    match ended {
                        Ok(of_row) => volumes.lock().unwrap().extend(of_row),
                        Err(_) => failed.lock().unwrap().push(about),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {count} rows failed, see above: {failed:#?}", failed.len());
    sentry.end().assert_never_two(&volumes.into_inner().unwrap());
    // Each row has removed its own: one made in passing would be left.
    assert_eq!(engine.volumes(), Vec::<String>::new());
    assert_nothing_stays();
}

impl Row {
    fn about(&self) -> String {
        format!("{}, {:?}, killed at {}", self.kind.image, self.operation, self.point)
    }

    /// One life of it; the volumes that it had.
    fn survives(&self) -> BTreeSet<String> {
        let run = TestRun::begin();
        run.configure(&self.config(false));
        let name = self.start(&run);
        self.kind.wait_answers(&run.container(&name));
        wait("a row is written", 60, || self.kind.plain(&run.container(&name)).write("kept"));
        let scene = Scene::around(run, self.mode(), &self.about(), name);
        self.prepare(&scene);
        let uploaded = self.provoke(&scene);
        let before = (scene.db().id(), scene.db().started_at());

        let mut doomed = scene.run.agent().crash_at(self.point).spawn();
        let ended = doomed.wait_end(240);
        assert_eq!(ended.signal(), Some(9), "{}: the agent was to be killed: {ended}", self.about());
        let volumes = self.one_container_at_most(&scene);
        // The agent died before it had touched the file that its user put there.
        let is_the_users = self.point == "bundle-recorded";
        if matches!(self.operation, Reload | Rollover | EndOfOverlap) && !is_the_users {
            // What is served verifies by the bundle as it is, at every moment.
            self.driver(&scene, None).once().expect("it serves, and is verified");
        }

        let mut agent = scene.run.agent().spawn();
        self.wait_end(&scene, &mut agent, uploaded.as_deref());
        self.assert_served(&scene, uploaded.as_deref());
        self.assert_container(&scene, &before);
        volumes
    }

    fn mode(&self) -> &'static str {
        // Plaintext is refused by a script, for which `Restart` takes away the shell.
        if self.operation == Restart { "prefer" } else { "verify-full" }
    }

    fn policy(&self) -> &'static str {
        POLICIES[self.number % POLICIES.len()]
    }

    fn config(&self, changed: bool) -> Config {
        let certificates = match self.operation {
            EndOfOverlap => "ca-overlap = \"1s\"",
            _ => "ca-overlap = \"1h\"",
        };
        let wants_name = changed && matches!(self.operation, Reload | Restart);
        Config {
            top: if wants_name { format!("host-names = [{LATER:?}]") } else { String::new() },
            certificates: certificates.to_owned(),
            ..Config::default()
        }
    }

    /// Its user starts it; the container's name.
    fn start(&self, run: &TestRun) -> String {
        let start = self.kind.bare(run, "db").mode(self.mode()).options(["--restart", self.policy()]);
        let start = if self.operation == RollBack { start.image("postgres:15-nossl") } else { start };
        // The user's second container could not have the anonymous volume of the first.
        let anonymous = self.operation != Recreate && (self.number / 2).is_multiple_of(2);
        if anonymous { start.without_volume() } else { start }.start().name
    }

    /// What has to be there before the operation: for most of them TLS, proved.
    fn prepare(&self, scene: &Scene) {
        if matches!(self.operation, Enable | RollBack) {
            return;
        }
        let mut agent = scene.run.agent().start();
        self.wait_proved(scene, &mut agent);
        assert!(agent.terminate().success());
    }

    /// What makes the next agent act; the file that a user put in the bundle's place.
    fn provoke(&self, scene: &Scene) -> Option<PathBuf> {
        match self.operation {
            Enable | RollBack => {}
            Recreate => {
                docker(&["rm", "--force", &scene.db().name]);
                self.start(&scene.run);
            }
            Reload => scene.run.configure(&self.config(true)),
            Restart => {
                self.make_deaf(scene);
                scene.run.configure(&self.config(true));
            }
            Rollover | EndOfOverlap => {
                let custom = live::root(scene.run.folder(), "custom", "/CN=A CA of the user's");
                fs::copy(&custom.key, scene.run.data().join("coolify-ca.key")).unwrap();
                fs::write(scene.run.bundle(), fs::read(&custom.certificate).unwrap()).unwrap();
                return Some(custom.certificate);
            }
        }
        None
    }

    /// From now on a reload does nothing.
    fn make_deaf(&self, scene: &Scene) {
        let words: &[&str] = match self.kind.engine {
            // Its entrypoint needs the shell. After a restart the password is the command's again.
            "redis" => &[
                "sh",
                "-c",
                "REDISCLI_AUTH=secret redis-cli --tls --insecure -p 6380 config set requirepass other | grep OK",
            ],
            _ => &["mv", "/bin/sh", "/bin/sh.away"],
        };
        scene.db().exec(words).expect("it is made deaf");
    }

    /// Of this database, and its volumes; all of them are there.
    fn one_container_at_most(&self, scene: &Scene) -> BTreeSet<String> {
        let mut volumes = BTreeSet::new();
        let mut running = 0;
        for name in scene.run.containers() {
            // It may be Docker's to remove or to rename at this very moment.
            let Some(found) = scene.run.container(&name).try_inspect() else { continue };
            running += usize::from(found["State"]["Running"] == true);
            let mounts = found["Mounts"].as_array().unwrap().iter();
            volumes.extend(mounts.filter_map(|mount| Some(mount["Name"].as_str()?.to_owned())));
        }
        assert!(running <= 1, "{}: {running} containers run", self.about());
        assert!(!volumes.is_empty(), "{}: no container, and so no volume", self.about());
        volumes
    }

    /// A client that verifies everything: by this file, else by the bundle.
    fn driver<'s>(&'s self, scene: &'s Scene, by: Option<&Path>) -> Verifier<'s> {
        let ca = by.map_or_else(|| scene.run.bundle(), Path::to_owned);
        Verifier { row: self, scene, ca, host: None }
    }

    fn wait_end(&self, scene: &Scene, agent: &mut Agent, uploaded: Option<&Path>) {
        match self.operation {
            RollBack => _ = agent.wait_log(240, &["not done; mend the cause"]),
            Rollover => _ = agent.wait_log(120, &["the rollover is proved"]),
            EndOfOverlap => {
                let uploaded = fs::read_to_string(uploaded.expect("a file")).unwrap();
                wait("the file is as it was uploaded", 120, || {
                    let now = fs::read_to_string(scene.run.bundle()).unwrap();
                    if now == uploaded { Ok(()) } else { Err(now) }
                });
            }
            Enable | Recreate | Reload | Restart => {}
        }
        if self.operation != RollBack {
            self.wait_proved(scene, agent);
        }
        assert!(agent.is_running(), "{}: the agent ended", self.about());
    }

    /// Until every database is as it should be, and no operation is under way.
    fn wait_proved(&self, scene: &Scene, agent: &mut Agent) {
        agent.wait_log(240, &["dbssl is ready"]);
        wait(&format!("{} is proved", self.about()), 240, || {
            let status = scene.run.cli(&["status"]);
            let at_rest = status.code == 0 && scene.journal().is_empty();
            if at_rest { Ok(()) } else { Err(format!("{}, journal: {:?}", status.stdout, scene.journal())) }
        });
    }

    /// The data, by a client that verifies what there is to verify; and who is refused.
    fn assert_served(&self, scene: &Scene, uploaded: Option<&Path>) {
        let kept = Ok(vec!["kept".to_owned()]);
        let (about, db) = (self.about(), scene.db());
        let plain = || self.kind.plain(&db).rows();
        if self.operation == RollBack {
            assert_eq!(plain(), kept, "{about}");
            return;
        }
        let mut client = self.driver(scene, uploaded);
        if matches!(self.operation, Reload | Restart) {
            client.host = Some(LATER);
        }
        assert_eq!(client.rows(), kept, "{about}");
        if self.mode() == "verify-full" {
            assert!(plain().is_err(), "{about}: plaintext is let in");
        } else {
            assert_eq!(plain(), kept, "{about}");
        }
    }

    /// One container, none parked, all that its user asked for, and no more interruptions than it takes.
    fn assert_container(&self, scene: &Scene, (id, started_at): &(String, String)) {
        let (about, db) = (self.about(), scene.db());
        match self.operation {
            RollBack => {
                wait(&format!("{about}: the journal is empty"), 60, || {
                    if scene.journal().is_empty() { Ok(()) } else { Err(format!("{:?}", scene.journal())) }
                });
                assert_eq!(db.id(), *id, "{about}: another container");
            }
            Enable | Recreate => assert_ne!(db.id(), *id, "{about}: the same container"),
            Restart => {
                assert_eq!(db.id(), *id, "{about}: a restart makes no new container");
                assert_ne!(db.started_at(), *started_at, "{about}: it was to be restarted");
            }
            Reload | Rollover | EndOfOverlap => {
                assert_eq!(
                    (db.id(), db.started_at()),
                    (id.clone(), started_at.clone()),
                    "{about}: no restart"
                );
            }
        }
        scene.assert_in_order();
    }
}

/// A client that verifies everything. A [`Driver`] is borrowed from its container, which is looked up anew for each use.
struct Verifier<'s> {
    row: &'s Row,
    scene: &'s Scene,
    ca: PathBuf,
    host: Option<&'s str>,
}

impl Verifier<'_> {
    fn driver<'d>(&'d self, db: &'d Container<'d>) -> Driver<'d> {
        let driver = self.row.kind.driver(db, Verify::Full, &self.ca);
        match self.host {
            Some(host) => driver.host(host),
            None => driver,
        }
    }

    fn once(&self) -> Result<String, String> {
        self.driver(&self.scene.db()).once()
    }

    fn rows(&self) -> Result<Vec<String>, String> {
        self.driver(&self.scene.db()).rows()
    }
}

#[test]
fn postgresql_survives_a_kill_at_every_step() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| survive(rows(&POSTGRES_15, &[Enable]), engine));
}

#[test]
#[ignore = "minutes: scripts/test --all"]
fn postgresql_survives_a_kill_at_every_step_of_a_renewal_and_of_a_roll_back() {
    on_an_engine_of_its_own(&["postgres:15", "postgres:15-nossl"], |engine| {
        survive(rows(&POSTGRES_15, &[Reload, Restart, RollBack]), engine);
    });
}

#[test]
#[ignore = "the same steps as of the first redeploy, and minutes more: scripts/test --all"]
fn postgresql_survives_a_kill_at_every_step_of_the_next_redeploy() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| survive(rows(&POSTGRES_15, &[Recreate]), engine));
}

/// The CA is changed while no agent runs; the first that comes is killed.
#[test]
#[ignore = "minutes: scripts/test --all"]
fn postgresql_survives_a_kill_at_every_step_to_another_ca() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        survive(rows(&POSTGRES_15, &[Rollover, EndOfOverlap]), engine);
    });
}

const OF_OTHERS: &[Operation] = &[Enable, Reload, Restart];

#[test]
#[ignore = "minutes for each kind of server: scripts/test --all"]
fn mysql_survives_a_kill_at_every_step() {
    on_an_engine_of_its_own(&["mysql:9"], |engine| survive(rows(&MYSQL, OF_OTHERS), engine));
}

#[test]
#[ignore = "minutes for each kind of server: scripts/test --all"]
fn mariadb_survives_a_kill_at_every_step() {
    on_an_engine_of_its_own(&["mariadb:11.8"], |engine| survive(rows(&MARIADB_11, OF_OTHERS), engine));
}

#[test]
#[ignore = "minutes for each kind of server: scripts/test --all"]
fn redis_survives_a_kill_at_every_step() {
    on_an_engine_of_its_own(&["redis:8"], |engine| survive(rows(&REDIS_8, OF_OTHERS), engine));
}

#[test]
#[ignore = "minutes for each kind of server: scripts/test --all"]
fn mongodb_survives_a_kill_at_every_step() {
    on_an_engine_of_its_own(&["mongodb-standin:1"], |engine| survive(rows(&MONGODB, OF_OTHERS), engine));
}

/// A step that somebody adds has to be added to the table, or nobody is ever killed there.
#[test]
fn every_step_of_the_sources_is_in_the_table() {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let texts = sources.iter().map(|source| fs::read_to_string(source).unwrap());
    let points: BTreeSet<String> = texts
        .flat_map(|text| {
            let after = text.split("crash::point(\"").skip(1);
            after.map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
        })
        .chain(Phase::ALL.iter().map(|phase| phase.word().to_owned()))
        .collect();
    let table: BTreeSet<String> = STEPS
        .iter()
        .flat_map(|(_, points)| points.iter().copied().flatten().map(|point| (*point).to_owned()))
        .collect();
    assert!(points.len() > Phase::ALL.len(), "found nothing in the sources");
    assert_eq!(points, table);
}
