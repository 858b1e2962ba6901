//! The agent under test: the real binary in a process of its own.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{TestRun, waiting::wait};

/// How an agent is started; can be started again and again, one after the other.
#[derive(Clone)]
pub struct Setup<'r> {
    run: &'r TestRun,
    environment: Vec<(String, String)>,
}

impl<'r> Setup<'r> {
    pub(super) fn new(run: &'r TestRun) -> Self {
        Self { run, environment: Vec::new() }
    }

    pub fn env(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Dies as by SIGKILL when it comes to this point; a phase's word of the journal, for instance.
    pub fn crash_at(self, point: &str) -> Self {
        self.env("DBSSL_CRASH_AT", point)
    }

    /// Starts the process, and does not wait for anything.
    pub fn spawn(&self) -> Agent {
        let log = self.run.next_log();
        let file = File::create(&log).expect("the agent's log");
        let mut command = self.run.dbssl();
        command
            .arg("run")
            .envs(self.environment.iter().map(|(variable, value)| (variable, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file);
        let process = command.spawn().expect("the agent starts");
        Agent { process, log }
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Agent {
        let mut agent = self.spawn();
        agent.wait_log(60, &["dbssl is ready"]);
        agent
    }
}

/// A running agent. Ends with its variable, however that goes out of scope.
pub struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the agent's log")
    }

    /// The lines of the log that hold all of these texts.
    pub fn lines(&self, texts: &[&str]) -> Vec<String> {
        let holds = |line: &&str| texts.iter().all(|text| line.contains(text));
        self.log().lines().filter(holds).map(str::to_owned).collect()
    }

    /// Waits for a line that holds all of these texts; the first such line. Fails at once if the agent ends.
    pub fn wait_log(&mut self, seconds: u64, texts: &[&str]) -> String {
        self.wait_log_after(0, seconds, texts)
    }

    /// The same, not counting the first `before` such lines.
    pub fn wait_log_after(&mut self, before: usize, seconds: u64, texts: &[&str]) -> String {
        wait(&format!("a line of the log with {texts:?}"), seconds, || {
            // Asked first: what it wrote before it ended still counts.
            let ended = self.process.try_wait().expect("the agent's state");
            match self.lines(texts).get(before) {
                Some(line) => Ok(line.clone()),
                None if ended.is_some() => {
                    panic!("the agent ended ({ended:?}) without a line with {texts:?}")
                }
                None => Err("no such line".to_owned()),
            }
        })
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("the agent's state").is_none()
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self, seconds: u64) -> ExitStatus {
        wait("the agent ends", seconds, || {
            self.process.try_wait().expect("the agent's state").ok_or_else(|| "it runs".to_owned())
        })
    }

    /// SIGTERM, as the service manager does it, and waits for the end.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).expect("the agent can be told to end");
        self.wait_end(120)
    }

    /// SIGKILL: a crash.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Processor time used so far, user and system, in ticks.
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the agent's statistics");
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th field behind it (proc(5)).
        let (_, fields) = stat.rsplit_once(')').expect("the name in parentheses");
        let field = |at: usize| fields.split_whitespace().nth(at).and_then(|text| text.parse::<u64>().ok());
        field(11).zip(field(12)).map(|(user, system)| user + system).expect("utime and stime")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// The binary of this build.
pub(super) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbssl"));
    for variable in ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "DBSSL_CRASH_AT"] {
        command.env_remove(variable);
    }
    command
}
