//! One test's own corner of the engine and of the disk.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::{
    agent::{Setup, binary},
    container::{Container, Start},
    docker::{docker, lines, try_docker},
    events::Events,
    image::setting,
};

/// The label of all that a test makes; its value is the run's id.
const LABEL: &str = "test.run";

/// Whether the longer tests are asked for (`scripts/test --all`).
pub fn profile_is_all() -> bool {
    setting("DBSSL_TEST_PROFILE").as_deref() == Some("all")
}

/// The config of a run's agent, in TOML; the folders are set already.
#[derive(Clone, Debug)]
pub struct Config {
    /// Keys outside of any table.
    pub top: String,
    pub certificates: String,
    pub docker: String,
    /// Tables, each `[[match]]`.
    pub matches: String,
    /// The agent sees all containers of the engine, as one does that nobody configured. Needs the engine for itself.
    pub alone: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            top: String::new(),
            certificates: String::new(),
            docker: "settle = \"300ms\"\nready-timeout = \"60s\"\n".to_owned(),
            matches: String::new(),
            alone: false,
        }
    }
}

/// What a verb of the binary left behind.
#[derive(Clone, Debug)]
pub struct Cli {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// One test, while it lives.
pub struct TestRun {
    id: String,
    folder: tempfile::TempDir,
    logs: Cell<u32>,
    /// Volumes that its containers had when they started, the anonymous ones too.
    volumes: RefCell<BTreeSet<String>>,
    /// Let go of last.
    _lock: File,
}

impl TestRun {
    pub fn begin() -> Self {
        Self::begin_with(&Config::default())
    }

    /// Waits for its turn if it, or another, wants to be alone.
    pub fn begin_with(config: &Config) -> Self {
        let lock = lock(config.alone);
        remove_what_the_dead_left();
        if config.alone {
            refuse_beside_others();
        }
        let id = format!("{}-{:06x}", std::process::id(), RandomState::new().hash_one(0) & 0xff_ffff);
        let folder = tempfile::Builder::new().prefix("dbssl-live-").tempdir().expect("a folder for the test");
        let run =
            Self { id, folder, logs: Cell::new(0), volumes: RefCell::new(BTreeSet::new()), _lock: lock };
        run.configure(config);
        run
    }

    /// Writes the config anew; an agent that runs does not look at it again.
    pub fn configure(&self, config: &Config) {
        let only = if config.alone { String::new() } else { format!("only = {:?}", self.label()) };
        let text = format!(
            "data-dir = \"{}\"\nstate-dir = \"{}\"\n{}\n[certificates]\n{}\n[docker]\n{only}\n{}\n{}\n",
            self.data().display(),
            self.state().display(),
            config.top,
            config.certificates,
            config.docker,
            config.matches
        );
        fs::write(self.config_file(), text).expect("the config");
    }

    /// A folder that goes with the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("dbssl.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The trust bundle, `coolify-ca.crt`.
    pub fn bundle(&self) -> PathBuf {
        self.data().join("coolify-ca.crt")
    }

    /// The certificate of a CA that has nothing to do with the agent.
    pub fn other_ca(&self) -> PathBuf {
        super::openssl::root(self.folder(), "other-ca", "/CN=Another CA").certificate
    }

    /// The certificate directory of a container.
    pub fn certificates(&self, container: &Container<'_>) -> PathBuf {
        self.state().join("databases").join(&container.name)
    }

    /// What is called `name` in this test, for a name that is unique on the engine.
    pub fn name(&self, name: &str) -> String {
        format!("t{}-{name}", self.id)
    }

    /// For `--label`, or for a Compose file.
    pub fn label(&self) -> String {
        format!("{LABEL}={}", self.id)
    }

    /// A database to be started.
    pub fn database(&self, name: &str) -> Start<'_> {
        Start::new(self, name)
    }

    /// An application to be started: it waits, and ends at once when it is told to.
    pub fn application(&self, name: &str) -> Start<'_> {
        self.database(name)
            .image("base:bookworm")
            .without_volume()
            .options(["--stop-signal", "KILL", "--entrypoint", "sleep"])
            .command(["infinity"])
    }

    /// A container of this run by its full name, made in another way (by Compose, for instance).
    pub fn container(&self, full_name: &str) -> Container<'_> {
        Container { run: self, name: full_name.to_owned() }
    }

    /// Makes a volume; `name` is its full name.
    pub fn volume(&self, name: &str) -> String {
        docker(&["volume", "create", "--label", &self.label(), name])
    }

    /// Makes a network with these options of `docker network create`; its full name.
    pub fn network(&self, name: &str, options: &[&str]) -> String {
        let name = self.name(name);
        let label = self.label();
        docker(&[&["network", "create", "--label", label.as_str()], options, &[name.as_str()]].concat());
        name
    }

    /// From here on, what happens to its containers is written down.
    pub fn events(&self) -> Events {
        Events::begin(self)
    }

    pub fn agent(&self) -> Setup<'_> {
        Setup::new(self)
    }

    /// The binary with the run's config.
    pub(super) fn dbssl(&self) -> Command {
        let mut command = binary();
        command.arg("--config").arg(self.config_file());
        command
    }

    /// A verb with its arguments.
    pub fn cli(&self, arguments: &[&str]) -> Cli {
        let output = self.dbssl().args(arguments).output().expect("dbssl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Cli {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// What `dbssl status --json` says of a container.
    pub fn status(&self, container: &Container<'_>) -> Value {
        let all = self.statuses();
        all.get(&container.name).cloned().unwrap_or_else(|| panic!("{} is not in {all:#?}", container.name))
    }

    /// What `dbssl status --json` says, by the containers' names.
    pub fn statuses(&self) -> BTreeMap<String, Value> {
        let cli = self.cli(&["status", "--json"]);
        let json: Value =
            serde_json::from_str(&cli.stdout).unwrap_or_else(|error| panic!("{error}: {cli:?}"));
        let all = json["containers"].as_array().unwrap_or_else(|| panic!("no list: {json}"));
        all.iter()
            .map(|report| (report["container"].as_str().expect("a name").to_owned(), report.clone()))
            .collect()
    }

    /// The names of this run's containers, dead or alive.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label={}", self.label());
        lines(&docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]))
    }

    pub(super) fn next_log(&self) -> PathBuf {
        self.logs.set(self.logs.get() + 1);
        self.folder().join(format!("agent-{}.log", self.logs.get()))
    }

    pub(super) fn record_volumes(&self, inspect: &Value) {
        self.volumes.borrow_mut().extend(volumes(inspect));
    }

    /// What a person would look at first.
    fn explain(&self) {
        for number in 1..=self.logs.get() {
            let log =
                fs::read_to_string(self.folder().join(format!("agent-{number}.log"))).unwrap_or_default();
            eprintln!("--- log of agent {number}\n{log}");
        }
        let filter = format!("label={}", self.label());
        let listed = try_docker(&["ps", "--all", "--no-trunc", "--filter", &filter]);
        eprintln!("--- docker ps --all\n{}", listed.unwrap_or_else(|error| error));
        for name in self.containers() {
            // Both streams: a database complains on standard error.
            let output = Command::new("docker").args(["logs", "--tail", "30", &name]).output();
            let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
            eprintln!("--- docker logs {name}\n{}", String::from_utf8_lossy(&text));
        }
    }
}

impl Drop for TestRun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        let left = remove(&self.label(), self.volumes.take());
        assert!(
            left.is_empty() || std::thread::panicking(),
            "this test could not remove what it made: {left:?}"
        );
    }
}

/// One lock for each engine, whichever program asks: many hold it together, or one alone.
fn lock(alone: bool) -> File {
    let engine = try_docker(&["info", "--format", "{{.ID}}"])
        .unwrap_or_else(|error| panic!("the live tests need a Docker Engine that answers: {error}"));
    let engine: String = engine.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = std::env::temp_dir().join(format!("dbssl-live-{engine}.lock"));
    let file = File::options().create(true).append(true).open(&path).expect("the lock");
    let how = if alone { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
    flock(&file, how).expect("the lock is free some time");
    file
}

/// A test that was killed could not clean up, and nobody else will. A run's id begins with its process.
fn remove_what_the_dead_left() {
    let format = format!("{{{{.Label {LABEL:?}}}}}");
    let mut runs = BTreeSet::new();
    for list in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
        runs.extend(lines(&docker(&[list, &["--filter", "label=test.run", "--format", &format]].concat())));
    }
    for run in runs {
        let alive = run.split_once('-').is_some_and(|(pid, _)| Path::new("/proc").join(pid).exists());
        if !alive {
            // Other tests may be at it as well: whoever comes first.
            let _ = remove(&format!("{LABEL}={run}"), BTreeSet::new());
        }
    }
}

fn refuse_beside_others() {
    let format = format!("{{{{.Label {LABEL:?}}}}} {{{{.Names}}}}");
    let listed = docker(&["ps", "--all", "--filter", "label=dbssl.enable", "--format", &format]);
    let others: Vec<_> = lines(&listed);
    assert!(
        others.is_empty(),
        "the agent under test would change labelled containers that no test made: {others:?}; stop and remove them, \
         or let DOCKER_HOST name another engine"
    );
}

/// Removes all that carries the label, and these volumes; what is left of it.
fn remove(label: &str, mut volumes_of_run: BTreeSet<String>) -> Vec<String> {
    let filter = format!("label={label}");
    let listed = |list: &[&str]| lines(&docker(&[list, &["--quiet", "--filter", &filter]].concat()));
    let containers = listed(&["ps", "--all", "--no-trunc"]);
    for id in &containers {
        let answer = try_docker(&["container", "inspect", id]).unwrap_or_default();
        let inspects: Vec<Value> = serde_json::from_str(&answer).unwrap_or_default();
        volumes_of_run.extend(inspects.iter().flat_map(volumes));
    }
    let remove = |kind: &[&str], names: Vec<String>| {
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            // Something may go by itself meanwhile; whether anything is left is asked below.
            let _ = try_docker(&[kind, &names].concat());
        }
    };
    remove(&["rm", "--force", "--volumes"], containers);
    volumes_of_run.extend(listed(&["volume", "ls"]));
    remove(&["volume", "rm", "--force"], volumes_of_run.into_iter().collect());
    remove(&["network", "rm"], listed(&["network", "ls"]));
    remove(&["image", "rm", "--force"], listed(&["images"]));
    [listed(&["ps", "--all"]), listed(&["volume", "ls"]), listed(&["network", "ls"])].concat()
}

/// The volumes of a container by name.
fn volumes(inspect: &Value) -> Vec<String> {
    let mounts = inspect["Mounts"].as_array().into_iter().flatten();
    mounts
        .filter(|mount| mount["Type"] == "volume")
        .filter_map(|mount| Some(mount["Name"].as_str()?.to_owned()))
        .collect()
}
