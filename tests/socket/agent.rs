//! The real binary, pointed at the fake.

use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Fake, waiting::wait};

/// How long the service manager waits for a sign of life.
const WATCHDOG: Duration = Duration::from_secs(4);

/// How an agent is started, again and again if need be.
pub struct Setup {
    folder: Arc<tempfile::TempDir>,
    within: Vec<String>,
    logs: Arc<AtomicU32>,
}

/// Ends with its variable.
pub struct Agent {
    process: Child,
    log: PathBuf,
    /// When it gave a sign of life.
    alive: Arc<Mutex<Vec<Instant>>>,
    _folder: Arc<tempfile::TempDir>,
}

impl Setup {
    /// Behind these words: `unshare …`, for instance.
    pub fn within(&self, words: &[&str]) -> Self {
        let within = words.iter().map(|&word| word.to_owned()).collect();
        Self { folder: Arc::clone(&self.folder), within, logs: Arc::clone(&self.logs) }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn start(&self) -> Agent {
        let number = self.logs.fetch_add(1, Ordering::SeqCst);
        let at = |name: &str| self.folder.path().join(name);
        let (log, notify) = (at(&format!("log-{number}")), at(&format!("notify-{number}")));
        let manager = UnixDatagram::bind(&notify).unwrap();
        let alive = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&alive);
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = manager.recv(&mut message) {
                if message[..length].starts_with(b"WATCHDOG=1") {
                    heard.lock().unwrap().push(Instant::now());
                }
            }
        });
        let out = File::create(&log).unwrap();
        let mut words = self.within.clone();
        words.push(env!("CARGO_BIN_EXE_dbssl").to_owned());
        let mut command = Command::new(&words[0]);
        for variable in ["RUST_LOG", "JOURNAL_STREAM", "DBSSL_CRASH_AT", "DOCKER_HOST", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        command.args(&words[1..]).arg("--config").arg(at("dbssl.toml")).arg("run").stdin(Stdio::null());
        command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let process = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Agent { process, log, alive, _folder: Arc::clone(&self.folder) }
    }
}

impl Agent {
    /// With a list every second.
    pub fn start(fake: &Fake) -> Self {
        Self::start_with(fake, "resync = \"1s\"")
    }

    pub fn start_with(fake: &Fake, docker: &str) -> Self {
        Self::configured(fake, docker, &[]).start()
    }

    /// `docker`: the table of that name; `roots`: folders that are not the usual ones.
    pub fn configured(fake: &Fake, docker: &str, roots: &[(&str, &Path)]) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let root = |key: &str, usual: &str| {
            let given = roots.iter().find(|(name, _)| *name == key).map(|(_, path)| path.to_path_buf());
            format!("{key} = \"{}\"\n", given.unwrap_or_else(|| at(usual)).display())
        };
        let config = format!(
            "{}{}[docker]\nsocket = \"unix://{}\"\n{docker}\n",
            root("data-dir", "data"),
            root("state-dir", "state"),
            fake.socket().display()
        );
        fs::write(at("dbssl.toml"), config).unwrap();
        Setup { folder: Arc::new(folder), within: Vec::new(), logs: Arc::default() }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Until there is a line with that text; fails at once if the agent ends.
    pub fn wait_log(&mut self, text: &str) {
        wait(&format!("the log has {text:?}"), 90, || {
            let ended = self.process.try_wait().unwrap();
            let log = self.log();
            if log.contains(text) {
                return Ok(());
            }
            assert!(ended.is_none(), "the agent ended: {ended:?}\n{log}");
            Err(log)
        });
    }

    /// Its exit code, and all that it said.
    pub fn wait_end(mut self) -> (Option<i32>, String) {
        let status = wait("it ends", 60, || self.process.try_wait().unwrap().ok_or_else(|| self.log()));
        (status.code(), self.log())
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    pub fn assert_runs(&mut self) {
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "the agent ended: {ended:?}\n{}", self.log());
    }

    /// Whether the service manager would have let it live from `since` on.
    pub fn assert_alive(&self, since: Instant) {
        let heard = self.alive.lock().unwrap();
        let signs = heard.iter().copied().filter(|at| *at > since);
        let all: Vec<_> = std::iter::once(since).chain(signs).chain([Instant::now()]).collect();
        let longest = all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest < WATCHDOG, "no sign of life for {longest:?}");
    }

    /// In KiB: what it has in memory, now (`VmRSS:`) or at the most (`VmHWM:`).
    pub fn memory(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
        line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap()
    }

    /// Processor time used so far, in hundredths of a second (proc(5), `stat`).
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let field = |at: usize| fields.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
        field(11) + field(12)
    }

    /// Until it has cost nothing for so long.
    pub fn wait_rest(&self, rest: Duration) {
        let mut last = (self.ticks(), Instant::now());
        wait("the agent has come to rest", 60, || {
            let ticks = self.ticks();
            if ticks != last.0 {
                last = (ticks, Instant::now());
            }
            if last.1.elapsed() >= rest { Ok(()) } else { Err(format!("{ticks} ticks")) }
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = self.log();
            eprintln!("--- log of the agent\n{}", log.chars().take(6000).collect::<String>());
        }
    }
}
