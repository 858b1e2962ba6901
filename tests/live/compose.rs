//! `docker compose` with a file of the test's own.

use std::{fs, path::PathBuf, process::Command};

use super::{Container, TestRun, image};

/// What a Compose file with the volume `data` ends with.
pub const DATA_AND_NETWORK: &str = "volumes:
  data:
    labels: [LABEL]
networks:
  default:
    labels: [LABEL]
";

/// What one begins with: the service `db`, a PostgreSQL on the volume `data`.
pub fn compose_database() -> String {
    format!(
        "services:
  db:
    image: {}
    environment:
      POSTGRES_PASSWORD: secret
    volumes:
      - data:/var/lib/postgresql/data
",
        image("postgres:15")
    )
}

/// A Compose project of a run. Its containers, volumes and networks go with the run, by their labels.
pub struct Compose<'r> {
    run: &'r TestRun,
    project: String,
    file: PathBuf,
    /// What is put over it.
    over: Option<PathBuf>,
}

impl<'r> Compose<'r> {
    /// The file may say `LABEL` where the run's label has to be: at every service, volume and network.
    pub fn new(run: &'r TestRun, text: &str) -> Self {
        let file = run.folder().join("compose.yaml");
        let compose = Self { run, project: run.name("project"), file, over: None };
        compose.write(text);
        compose
    }

    /// The same project with a second file over the first: `--file compose.yaml --file compose.tls.yaml`.
    pub fn with(&self, text: &str) -> Self {
        let over = self.run.folder().join("compose.tls.yaml");
        fs::write(&over, text).expect("the second Compose file");
        Self { run: self.run, project: self.project.clone(), file: self.file.clone(), over: Some(over) }
    }

    /// What a user does who edits the file.
    pub fn write(&self, text: &str) {
        fs::write(&self.file, text.replace("LABEL", &self.run.label())).expect("the Compose file");
    }

    /// Runs `docker compose` in the project: what it said, on either stream, or that as an error.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().expect("docker runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["compose", "--ansi", "never", "--project-name", &self.project, "--file"]);
        command.arg(&self.file);
        if let Some(over) = &self.over {
            command.arg("--file").arg(over);
        }
        command.args(arguments);
        command
    }

    /// The only container of a service.
    pub fn container(&self, service: &str) -> Container<'r> {
        self.run.container(&format!("{}-{service}-1", self.project))
    }

    /// What Compose said of that container, word by word: `Running`, `Started`, `Recreated`, …
    pub fn said_of(&self, said: &str, service: &str) -> Vec<String> {
        let name = self.container(service).name;
        let lines = said.lines().filter(|line| line.split_whitespace().any(|word| word == name));
        lines.filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect()
    }
}
