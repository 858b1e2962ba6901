//! One database with an agent of its own, from before it is wired until everything is as it should be again.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use dbssl::host::journal::Phase;
use serde_json::Value;

use super::{
    agent::Agent,
    container::{Container, Start},
    docker::{docker, lines},
    run::TestRun,
    waiting::wait,
};

/// A database and the run that it is alone in.
pub struct Scene {
    pub run: TestRun,
    /// What it is about, for whoever reads why it failed.
    pub about: String,
    name: RefCell<String>,
    before: Before,
    mode: &'static str,
    rows: Cell<u32>,
}

/// What has to be the same in the end.
struct Before {
    id: String,
    image: String,
    restart_policy: Value,
    labels: BTreeMap<String, String>,
    mounts: BTreeSet<String>,
    networks: BTreeSet<String>,
}

impl Scene {
    /// Starts a labelled database, as `start` says; nobody looks after it yet, and it need not have come up.
    pub fn begin(about: &str, start: impl FnOnce(Start<'_>) -> Start<'_>) -> Self {
        Self::begin_in("verify-full", about, start)
    }

    pub fn begin_in(mode: &'static str, about: &str, start: impl FnOnce(Start<'_>) -> Start<'_>) -> Self {
        let run = TestRun::begin();
        let name = start(run.database("db").mode(mode)).start().name;
        Self::around(run, mode, about, name)
    }

    /// A container that was started in another way.
    pub fn around(run: TestRun, mode: &'static str, about: &str, name: String) -> Self {
        let before = Before::of(&run.container(&name));
        Self { about: about.to_owned(), name: RefCell::new(name), before, mode, rows: Cell::new(0), run }
    }

    /// The container of that name, whichever that is now.
    pub fn db(&self) -> Container<'_> {
        self.run.container(&self.name.borrow())
    }

    /// It has another name from now on.
    pub fn is_called(&self, name: &str) {
        name.clone_into(&mut self.name.borrow_mut());
    }

    /// What its user typed, once more.
    pub fn again(&self) -> Start<'_> {
        self.run.database("db").mode(self.mode).options(["--restart", self.restart_policy()])
    }

    /// What it is called while its successor is tried.
    pub fn parked(&self) -> Container<'_> {
        self.run.container(&format!("{}.dbssl-parked", self.name.borrow()))
    }

    /// The id of the container that its user started.
    pub fn first_id(&self) -> &str {
        &self.before.id
    }

    /// The policy's name.
    pub fn restart_policy(&self) -> &str {
        self.before.restart_policy["Name"].as_str().unwrap()
    }

    /// Until the database answers and holds one row more.
    pub fn write_row(&self) {
        self.db().wait_answers();
        self.db().write_row(&format!("row {:03}", self.rows.get()));
        self.rows.set(self.rows.get() + 1);
    }

    /// An agent that will die when it comes to this phase.
    pub fn doomed(&self, phase: Phase) -> Agent {
        self.run.agent().crash_at(phase.word()).spawn()
    }

    /// Until that agent has died in just this phase.
    pub fn wait_death(&self, mut agent: Agent, phase: Phase) {
        let ended = agent.wait_end(180);
        let why = format!("{}: {ended}, journal: {:?}", self.about, self.journal());
        assert_eq!(ended.signal(), Some(9), "it was to be killed; {why}");
        let [journal] = &self.journal()[..] else { panic!("one operation is under way; {why}") };
        let last = journal.last().map_or("", String::as_str);
        let is_last = if phase == Phase::Begun { last.starts_with('{') } else { last == phase.word() };
        assert!(is_last, "it died in another phase than {}; {why}", phase.word());
    }

    /// Until the agent, which lives, has announced this phase. A phase can be over in a moment, so this looks almost
    /// without a pause.
    pub fn wait_phase(&self, phase: Phase) {
        let end = Instant::now() + Duration::from_secs(120);
        let announced = |line: &String| line == phase.word() || phase == Phase::Begun;
        while !self.journal().iter().flatten().any(announced) {
            assert!(Instant::now() < end, "{}: {} did not come", self.about, phase.word());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// The lines of each operation in the journal.
    pub fn journal(&self) -> Vec<Vec<String>> {
        // One that is over is gone, perhaps just now.
        let texts = self.journal_files().into_iter().filter_map(|path| fs::read_to_string(path).ok());
        texts.map(|text| lines(&text)).collect()
    }

    pub fn journal_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.run.state().join("journal")).into_iter().flatten().flatten();
        files.map(|file| file.path()).collect()
    }

    /// The container that an unfinished operation made, by its label.
    pub fn successor(&self) -> Option<String> {
        let journal = self.journal().into_iter().next()?;
        let operation: Value = serde_json::from_str(journal.first()?).expect("the record");
        let label = format!("label=dbssl.operation={}", operation["id"].as_str().expect("an id"));
        let found = docker(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &label]);
        lines(&found).into_iter().find(|id| *id != operation["old"])
    }

    /// Until the agent, which runs, has brought everything to its end: TLS proved, and all else as it was.
    pub fn wait_proved(&self, agent: &mut Agent) {
        agent.wait_log(240, &["dbssl is ready"]);
        wait(&format!("{} ({}) is proved", self.db().name, self.about), 240, || {
            assert!(agent.is_running(), "{}: the agent ended", self.about);
            let status = self.run.cli(&["status"]);
            if status.code == 0 && self.journal().is_empty() {
                Ok(())
            } else {
                Err(format!("{}, journal: {:?}", status.stdout, self.journal()))
            }
        });
        self.assert_serves_tls();
        self.assert_whole();
    }

    /// Starts an agent, and waits until everything is at its end.
    pub fn recover(&self) -> Agent {
        let mut agent = self.run.agent().spawn();
        self.wait_proved(&mut agent);
        agent
    }

    pub fn assert_serves_tls(&self) {
        let (db, about) = (self.db(), &self.about);
        assert_eq!(db.verifying().is_encrypted().as_deref(), Ok("t"), "{about}");
        let plaintext = db.client("disable").query("select 1");
        if self.mode == "verify-full" {
            let why = plaintext.expect_err("plaintext is refused");
            assert!(why.contains("no encryption"), "{about}: {why}");
        } else {
            assert_eq!(plaintext.as_deref(), Ok("1"), "{about}");
        }
    }

    /// Whether the container that runs is the one its user started, as it was, and nothing is left beside it.
    pub fn assert_as_before(&self) {
        assert_eq!(self.db().id(), self.before.id, "{}: another container", self.about);
        self.assert_whole();
        let mounts = Before::of(&self.db()).mounts;
        assert_eq!(mounts, self.before.mounts, "{}: other mounts", self.about);
    }

    /// The same data, mounts, labels and restart policy; one container, and nothing that only dbssl needs.
    pub fn assert_whole(&self) {
        self.assert_in_order();
        let rows: Vec<_> = (0..self.rows.get()).map(|number| format!("row {number:03}")).collect();
        assert_eq!(self.db().rows(), rows, "{}: rows", self.about);
    }

    /// The same of a database of any kind, but for its data.
    pub fn assert_in_order(&self) {
        let (db, about) = (self.db(), &self.about);
        assert_eq!(self.run.containers(), [db.name.as_str()], "{about}: there is just this one");
        let now = Before::of(&db);
        assert!(db.is_running(), "{about}: it runs");
        assert_eq!(now.restart_policy, self.before.restart_policy, "{about}: restart policy");
        assert_eq!(now.image, self.before.image, "{about}: image");
        assert_eq!(now.labels, self.before.labels, "{about}: labels");
        assert_eq!(now.networks, self.before.networks, "{about}: networks");
        let lost: Vec<_> = self.before.mounts.difference(&now.mounts).collect();
        let added: Vec<_> = now.mounts.difference(&self.before.mounts).collect();
        assert!(lost.is_empty(), "{about}: mounts are lost: {lost:?}");
        let certificates = self.run.state().join("databases").display().to_string();
        assert!(
            added.iter().all(|mount| mount.contains(&certificates)),
            "{about}: mounts that nobody asked for: {added:?}"
        );
        assert_eq!(self.journal(), Vec::<Vec<String>>::new(), "{about}: the journal is empty");
    }
}

impl Before {
    fn of(container: &Container<'_>) -> Self {
        let inspect = container.inspect();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let labels = inspect["Config"]["Labels"].as_object().expect("labels").iter();
        let mounts = inspect["Mounts"].as_array().expect("mounts").iter();
        let networks = inspect["NetworkSettings"]["Networks"].as_object().expect("networks").keys();
        Self {
            id: text(&inspect["Id"]),
            image: text(&inspect["Image"]),
            restart_policy: inspect["HostConfig"]["RestartPolicy"].clone(),
            labels: labels
                .filter(|(label, _)| *label != "dbssl.operation")
                .map(|(label, value)| (label.clone(), text(value)))
                .collect(),
            mounts: mounts
                .map(|mount| {
                    let source = if mount["Type"] == "volume" { &mount["Name"] } else { &mount["Source"] };
                    format!("{source} at {} {}", mount["Destination"], mount["RW"])
                })
                .collect(),
            networks: networks.cloned().collect(),
        }
    }
}

/// What no agent may leave behind on an engine that is this test's alone.
pub fn assert_nothing_stays() {
    let left = [
        lines(&docker(&["ps", "--all", "--quiet", "--filter", "name=dbssl-"])),
        lines(&docker(&["ps", "--all", "--quiet", "--filter", "label=dbssl.operation=rehearsal"])),
        lines(&docker(&["network", "ls", "--quiet", "--filter", "name=dbssl-parked-"])),
    ];
    assert!(left.iter().all(Vec::is_empty), "{left:?}");
}
