//! A database container of a run.

use serde_json::Value;

use super::{TestRun, docker, image, psql::Client, try_docker, waiting::wait};

/// A database that is about to be started with `docker run`. As it is: PostgreSQL 15, a password (`secret`), a named
/// volume for its data, no label of dbssl.
#[must_use]
pub struct Start<'r> {
    run: &'r TestRun,
    name: String,
    image: String,
    volume_at: Option<String>,
    options: Vec<String>,
    command: Vec<String>,
}

impl<'r> Start<'r> {
    pub(super) fn new(run: &'r TestRun, name: &str) -> Self {
        Self {
            run,
            name: run.name(name),
            image: String::new(),
            volume_at: Some("/var/lib/postgresql/data".to_owned()),
            options: Vec::new(),
            command: Vec::new(),
        }
    }

    /// One of `tests/images`, such as `postgres:17`.
    pub fn image(self, name: &str) -> Self {
        self.exact_image(&image(name))
    }

    pub fn exact_image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// Where the named volume is mounted.
    pub fn volume_at(mut self, path: &str) -> Self {
        self.volume_at = Some(path.to_owned());
        self
    }

    /// What the image's own `VOLUME` says is all that there is: an anonymous one.
    pub fn without_volume(mut self) -> Self {
        self.volume_at = None;
        self
    }

    pub fn label(self, key: &str, value: &str) -> Self {
        self.options(["--label", &format!("{key}={value}")])
    }

    /// `dbssl.enable=true`.
    pub fn enabled(self) -> Self {
        self.label("dbssl.enable", "true")
    }

    pub fn mode(self, mode: &str) -> Self {
        self.enabled().label("dbssl.mode", mode)
    }

    /// Options of `docker run`.
    pub fn options<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    pub fn command<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Behind the other words of the command.
    pub fn more_command<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// `docker run --detach`.
    pub fn start(self) -> Container<'r> {
        let container = self.launch("run");
        container.run.record_volumes(&container.inspect());
        container
    }

    /// `docker create`: made and not started.
    pub fn create(self) -> Container<'r> {
        self.launch("create")
    }

    /// `docker run --detach`, and waits until the database answers.
    pub fn start_and_wait(self) -> Container<'r> {
        let container = self.start();
        container.wait_answers();
        container
    }

    fn launch(self, verb: &str) -> Container<'r> {
        let Self { run, name, image, volume_at, options, command } = self;
        let image = if image.is_empty() { super::image("postgres:15") } else { image };
        let mut arguments = vec![verb.to_owned()];
        if verb == "run" {
            arguments.push("--detach".to_owned());
        }
        arguments.extend(["--name".to_owned(), name.clone(), "--label".to_owned(), run.label()]);
        arguments.extend(["--env".to_owned(), "POSTGRES_PASSWORD=secret".to_owned()]);
        if let Some(path) = volume_at {
            let volume = run.volume(&format!("{name}-data"));
            arguments.extend(["--volume".to_owned(), format!("{volume}:{path}")]);
        }
        arguments.extend(options);
        arguments.push(image);
        arguments.extend(command);
        docker(&arguments);
        Container { run, name }
    }
}

/// A container by its name, whichever container has that name now.
#[derive(Clone)]
pub struct Container<'r> {
    pub(super) run: &'r TestRun,
    pub name: String,
}

impl Container<'_> {
    /// What Docker says of it; `None` if there is none of that name.
    pub fn try_inspect(&self) -> Option<Value> {
        let answer = try_docker(&["container", "inspect", &self.name]).ok()?;
        let mut list: Vec<Value> = serde_json::from_str(&answer).expect("docker inspect answers in JSON");
        Some(list.remove(0))
    }

    pub fn inspect(&self) -> Value {
        self.try_inspect().unwrap_or_else(|| panic!("there is no container {}", self.name))
    }

    fn text(&self, pointer: &str) -> String {
        let found = self.inspect();
        let value = found.pointer(pointer).unwrap_or_else(|| panic!("{} has no {pointer}", self.name));
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    pub fn id(&self) -> String {
        self.text("/Id")
    }

    /// When its main process was started: changes with every start, and with nothing else.
    pub fn started_at(&self) -> String {
        self.text("/State/StartedAt")
    }

    pub fn is_running(&self) -> bool {
        self.try_inspect().is_some_and(|found| found["State"]["Running"] == true)
    }

    /// The words that the server was started with.
    pub fn arguments(&self) -> Vec<String> {
        let found = self.inspect();
        let words = found["Args"].as_array().expect("Args is a list");
        words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    }

    /// The address on its first network, as the host reaches it.
    pub fn address(&self) -> Result<String, String> {
        let found = self.try_inspect().ok_or_else(|| format!("there is no container {}", self.name))?;
        if found["HostConfig"]["NetworkMode"] == "host" {
            return Ok("127.0.0.1".to_owned());
        }
        let networks = found["NetworkSettings"]["Networks"].as_object().ok_or("it has no networks")?;
        let mut addresses = networks.values().filter_map(|network| network["IPAddress"].as_str());
        let address = addresses.find(|address| !address.is_empty());
        address.map(str::to_owned).ok_or_else(|| format!("{} has no address", self.name))
    }

    /// A client that asks for this container by its name. Panics if it has no address.
    pub fn client(&self, sslmode: &str) -> Client {
        self.try_client(sslmode).unwrap_or_else(|why| panic!("{why}"))
    }

    pub fn try_client(&self, sslmode: &str) -> Result<Client, String> {
        Ok(Client::new(&self.name, &self.address()?, sslmode))
    }

    /// A client that verifies all there is to verify, with the trust bundle of the run's agent.
    pub fn verifying(&self) -> Client {
        self.client("verify-full").root(self.run.bundle())
    }

    /// One query as superuser over the socket in the container.
    pub fn sql(&self, sql: &str) -> Result<String, String> {
        try_docker(&["exec", &self.name, "psql", "--no-psqlrc", "-qAt", "-U", "postgres", "-c", sql])
    }

    /// Runs a command in the container.
    pub fn exec(&self, words: &[&str]) -> Result<String, String> {
        try_docker(&[&["exec", self.name.as_str()], words].concat())
    }

    pub fn logs(&self) -> String {
        try_docker(&["logs", &self.name]).unwrap_or_default()
    }

    /// Until a client from outside is answered, with or without TLS.
    pub fn wait_answers(&self) {
        wait(&format!("{} answers", self.name), 90, || self.try_client("prefer")?.query("select 1"));
    }

    /// Until a client that verifies everything gets in; how long it may take is for the slowest machine.
    pub fn wait_verified(&self) {
        let root = self.run.bundle();
        wait(&format!("{} is verified in full", self.name), 120, || {
            let encrypted = self.try_client("verify-full")?.root(&root).is_encrypted()?;
            if encrypted == "t" { Ok(()) } else { Err("it is not encrypted".to_owned()) }
        });
    }

    /// Until that, and a client without TLS is turned away.
    pub fn wait_enforced(&self) {
        self.wait_verified();
        wait(&format!("{} refuses plaintext", self.name), 30, || {
            match self.try_client("disable")?.query("select 1") {
                Err(why) if why.contains("no encryption") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Until `dbssl status` says so of it. While it is recreated it has no such name.
    pub fn wait_standing(&self, standing: &str) {
        wait(&format!("{} is {standing}", self.name), 240, || match self.run.statuses().get(&self.name) {
            Some(status) if status["standing"] == standing => Ok(()),
            other => Err(format!("{other:#?}")),
        });
    }

    /// Row after row into a table, over the socket: what must not be lost.
    pub fn write_row(&self, text: &str) {
        let sql = format!("create table if not exists kept (row text); insert into kept values ('{text}')");
        wait(&format!("a row is written to {}", self.name), 60, || self.sql(&sql));
    }

    /// All rows that were written, in order.
    pub fn rows(&self) -> Vec<String> {
        super::docker::lines(
            &self.sql("select row from kept order by row").unwrap_or_else(|why| panic!("{why}")),
        )
    }
}
