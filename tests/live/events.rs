//! What happens to a run's containers, as Docker tells it while it happens. (Afterwards it remembers 256 events of the
//! whole engine and no more.)

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::{TestRun, waiting::wait};

/// `docker events`, running since it was made.
pub struct Events {
    process: Child,
    file: PathBuf,
}

/// One event of a container.
#[derive(Clone, Debug)]
pub struct Event {
    /// `create`, `start`, `die`, `destroy`, `rename`, …
    pub action: String,
    pub id: String,
    /// As it was called at that moment.
    pub name: String,
    /// Nanoseconds since 1970.
    pub at: i64,
    pub exit_code: Option<i32>,
}

impl Events {
    pub(super) fn begin(run: &TestRun) -> Self {
        let file = run.folder().join("events.jsonl");
        let since = super::docker(&["info", "--format", "{{.SystemTime}}"]);
        let process = Command::new("docker")
            .args(["events", "--since", &since, "--filter", "type=container", "--filter"])
            .arg(format!("label={}", run.label()))
            .args(["--format", "{{json .}}"])
            .stdin(Stdio::null())
            .stdout(File::create(&file).expect("a file for events"))
            .spawn()
            .expect("docker runs");
        Self { process, file }
    }

    pub fn all(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.file).expect("the file of events");
        // The last line may be half written.
        let values = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values
            .map(|event| {
                let attributes = &event["Actor"]["Attributes"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                Event {
                    action: text(&event["Action"]),
                    id: text(&event["Actor"]["ID"]),
                    name: text(&attributes["name"]),
                    at: event["timeNano"].as_i64().unwrap_or_default(),
                    exit_code: attributes["exitCode"].as_str().and_then(|code| code.parse().ok()),
                }
            })
            .collect()
    }

    /// Those that are such, once there are `count` of them; more than that is a failure, too.
    pub fn wait(&self, what: &str, count: usize, such: impl Fn(&Event) -> bool) -> Vec<Event> {
        wait(&format!("{count} events: {what}"), 60, || {
            let found: Vec<_> = self.all().into_iter().filter(|event| such(event)).collect();
            assert!(found.len() <= count, "{what}: {count} expected, and there are {found:#?}");
            if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
