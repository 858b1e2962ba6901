//! A Docker Engine of a test's own, to be killed and restarted at will.
//!
//! # Guarantees
//! - **The machine's engine feels nothing of it.** The test runs once more, as a process of its own, in its own
//!   namespaces of processes, mounts and networks; the daemon is started in there. So it has rules of the packet
//!   filter, bridges and addresses to itself, and all that lives in the engine is in this test's `/proc`.
//! - **Nothing stays behind.** The kernel ends everything in the namespaces with the test, however that ends, and the
//!   engine's folder is the first process's.
//! - **It is all there is.** What [`docker`] and the agent speak to is this engine (`DOCKER_HOST`).
//! - One at a time within a test program.
//!
//! The images come from the machine's engine. Needs root, and `unshare` (util-linux).

use std::{
    cell::RefCell,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    docker::{docker, lines, try_docker},
    image::{image, setting},
    waiting::wait,
};

/// Says to the second process which folder its engine lives in, which engine has the images, and which it needs.
const FOLDER: &str = "DBSSL_TEST_ENGINE_FOLDER";
const MACHINE: &str = "DBSSL_TEST_MACHINE_ENGINE";
/// Their names, with a space between two.
const IMAGES: &str = "DBSSL_TEST_ENGINE_IMAGES";

/// How an engine goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The daemon gets SIGKILL; its containers run on until the next one clears up.
    Killed,
    /// The daemon gets SIGTERM, and stops its containers.
    Stopped,
    /// Every process dies at once, and what lies in memory is gone.
    PowerCut,
}

/// A daemon with folders, namespaces and images of its own. Ended when dropped.
pub struct Engine {
    folder: PathBuf,
    daemon: RefCell<Child>,
}

/// One engine at a time: each of them is a load for the machine.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` on an engine of its own that has these of our images. To be called with a closure by a `#[test]`
/// function, and by nothing in between: the function is found again by the closure's name.
pub fn on_an_engine_of_its_own<F: FnOnce(&Engine)>(images: &[&str], test: F) {
    if let Some(folder) = setting(FOLDER) {
        let engine = Engine::start(PathBuf::from(folder));
        setting(IMAGES).unwrap_or_default().split(' ').for_each(load);
        test(&engine);
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let images: Vec<_> = images.iter().map(|name| image(name)).collect();
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").and_then(|(_, rest)| rest.split("::{{closure}}").next());
    let name = name.expect("the path of a test function");
    let folder = tempfile::Builder::new().prefix("dbssl-engine-").tempdir().expect("a folder for the engine");
    let mut command = in_namespaces(folder.path(), name);
    let output = command.env(IMAGES, images.join(" ")).output().expect("unshare (install util-linux)");
    let bytes = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&bytes);
    // Shown like any output of this test: if it fails, or if everything is to be shown.
    println!("{said}");
    assert!(output.status.success(), "{name} failed on its own engine ({}), see above", output.status);
    assert!(said.contains("test result: ok. 1 passed"), "{name} was not found again");
    folder.close().expect("nothing is mounted or runs in the engine's folder any more");
}

/// This test program once more, for this one test.
fn in_namespaces(folder: &Path, test: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The shell is there to be the first process, which inherits orphans and has to bury them.
    command.args(["sh", "-c", "\"$@\"; exit $?", "sh"]);
    command.arg(std::env::current_exe().expect("the test program"));
    command.args(["--exact", test, "--include-ignored", "--nocapture"]);
    command.env(FOLDER, folder).env(MACHINE, setting("DOCKER_HOST").unwrap_or_default());
    command.env("DOCKER_HOST", host(folder)).stdin(Stdio::null());
    command
}

fn host(folder: &Path) -> String {
    format!("unix://{}/docker.sock", folder.display())
}

/// The machine's engine.
fn machine() -> Command {
    let mut command = Command::new("docker");
    match setting(MACHINE) {
        Some(host) => command.env("DOCKER_HOST", host),
        None => command.env_remove("DOCKER_HOST"),
    };
    command
}

/// Takes an image over from the machine's engine.
fn load(image: &str) {
    let mut save = machine().args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker save");
    let saved = save.stdout.take().expect("its standard output");
    let load = Command::new("docker").arg("load").stdin(saved).stdout(Stdio::null()).status();
    assert!(load.expect("docker load").success(), "{image} cannot be loaded");
    assert!(save.wait().expect("docker save").success(), "{image} cannot be saved");
}

impl Engine {
    fn start(folder: PathBuf) -> Self {
        let path = |name: &str| folder.join(name);
        let mut config = serde_json::json!({
            "data-root": path("data"),
            "exec-root": path("exec"),
            "pidfile": path("docker.pid"),
            "hosts": [host(&folder)],
        });
        // What the machine's engine was told because it would not be found: a driver that works here.
        let driver = machine().args(["info", "--format", "{{.Driver}}"]).output().expect("docker info");
        let driver = String::from_utf8_lossy(&driver.stdout).trim().to_owned();
        if driver == "fuse-overlayfs" {
            config["storage-driver"] = driver.into();
        }
        fs::write(path("daemon.json"), config.to_string()).expect("the daemon's config");
        let daemon = RefCell::new(launch(&folder));
        let engine = Self { folder, daemon };
        engine.wait_ready();
        engine
    }

    /// The daemon ends in this way, and another one starts. When this returns it answers.
    pub fn restart(&self, end: End) {
        match end {
            End::Killed => self.daemon.borrow_mut().kill().expect("the daemon can be killed"),
            End::Stopped => {
                let pid = Pid::from_child(&self.daemon.borrow());
                kill_process(pid, Signal::TERM).expect("the daemon can be told to end");
            }
            End::PowerCut => self.cut_the_power(),
        }
        self.wait_end();
        *self.daemon.borrow_mut() = launch(&self.folder);
        self.wait_ready();
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// The names of all volumes.
    #[allow(clippy::unused_self, reason = "the engine of this process, and of no other")]
    pub fn volumes(&self) -> Vec<String> {
        let mut names = lines(&docker(&["volume", "ls", "--quiet"]));
        names.sort();
        names
    }

    fn wait_ready(&self) {
        wait("the engine answers", 120, || {
            let ended = self.daemon.borrow_mut().try_wait().expect("the daemon's state");
            assert!(ended.is_none(), "dockerd ended ({ended:?}):\n{}", self.last_words());
            try_docker(&["version"])
        });
    }

    fn wait_end(&self) {
        wait("the daemon ends", 60, || {
            let ended = self.daemon.borrow_mut().try_wait().expect("the daemon's state");
            ended.ok_or_else(|| "it runs".to_owned())
        });
    }

    /// Kills every process of the engine, and wipes what a machine keeps in memory only.
    fn cut_the_power(&self) {
        let mine = [1, std::process::id()];
        wait("all processes are gone", 60, || {
            let left: Vec<_> = processes().filter(|pid| !mine.contains(pid)).collect();
            for pid in &left {
                let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).expect("a process");
                let _ = kill_process(pid, Signal::KILL);
            }
            // The daemon stays a zombie until it is asked for.
            let daemon = self.daemon.borrow().id();
            let others = left.iter().filter(|pid| **pid != daemon && !is_zombie(**pid)).count();
            if others == 0 { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| {
            Path::new(point).starts_with(&self.folder) && Path::new(point) != self.folder.as_path()
        });
        for point in below.collect::<Vec<_>>().iter().rev() {
            // One below another goes with it.
            let _ = Command::new("umount").args(["--lazy", point]).output();
        }
        for leftover in ["exec", "docker.pid", "docker.sock"] {
            let path = self.folder.join(leftover);
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    panic!("{} stays: {error}", path.display())
                }
                _ => {}
            }
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- dockerd\n{}", self.last_words());
        }
        let daemon = self.daemon.get_mut();
        let _ = kill_process(Pid::from_child(daemon), Signal::TERM);
        let _ = daemon.wait();
    }
}

fn launch(folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("dockerd.log"));
    let log = log.expect("the daemon's log");
    let mut command = Command::new("dockerd");
    command.arg("--config-file").arg(folder.join("daemon.json")).env_remove("DOCKER_HOST");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
    command.spawn().expect("dockerd (install docker.io)")
}

/// All processes, of this test and its engine.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in parentheses, which may hold anything; nothing to be read is a process that is gone.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
