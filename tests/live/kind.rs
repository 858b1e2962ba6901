//! Every kind of server that dbssl knows: how one is started, checked and connected to.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    container::{Container, Start},
    image::setting,
    run::TestRun,
    waiting::wait,
};

/// A server's image and what belongs to it.
#[derive(Debug)]
pub struct Kind {
    pub image: &'static str,
    /// For a name.
    pub short: &'static str,
    pub engine: &'static str,
    pub volume_at: &'static str,
    environment: &'static [&'static str],
    command: &'static [&'static str],
    /// A health check as people write it.
    health: &'static str,
    pub tls_port: u16,
    pub plaintext_port: u16,
    /// The client in the image, asking its server by name over the network and verifying it in full. `NAME` is the
    /// container's.
    own_client: &'static str,
    /// A backup as people take it, by `docker exec`.
    backup: &'static str,
}

const MYSQL_CLIENT: &str = "MYSQL_PWD=secret mysql --protocol=tcp --host=NAME --user=root --ssl-mode=VERIFY_IDENTITY \
                            --ssl-ca=/etc/mysql/certs/coolify-ca.crt --execute 'select 1'";
const MARIADB_CLIENT: &str = "MYSQL_PWD=secret mariadb --protocol=tcp --host=NAME --user=root \
                              --ssl-verify-server-cert --ssl-ca=/etc/mysql/certs/coolify-ca.crt --execute 'select 1'";
const REDIS_CLIENT: &str = "REDISCLI_AUTH=secret redis-cli --tls --cacert /etc/redis/certs/coolify-ca.crt \
                            -h NAME -p 6380 ping | grep PONG";
const PSQL: &str = "PGPASSWORD=secret psql \"host=NAME user=postgres sslmode=verify-full \
                    sslrootcert=/var/lib/postgresql/certs/coolify-ca.crt\" -c 'select 1'";

const fn postgres(image: &'static str, short: &'static str, volume_at: &'static str) -> Kind {
    Kind {
        image,
        short,
        engine: "postgres",
        volume_at,
        environment: &["POSTGRES_PASSWORD=secret"],
        command: &[],
        health: "pg_isready -U postgres -h localhost",
        tls_port: 5432,
        plaintext_port: 5432,
        own_client: PSQL,
        backup: "pg_dumpall -U postgres | grep -q 'CREATE TABLE'",
    }
}

const fn mariadb(image: &'static str, short: &'static str) -> Kind {
    Kind {
        image,
        short,
        engine: "mariadb",
        volume_at: "/var/lib/mysql",
        environment: &["MARIADB_ROOT_PASSWORD=secret"],
        command: &[],
        health: "healthcheck.sh --connect --innodb_initialized",
        tls_port: 3306,
        plaintext_port: 3306,
        own_client: MARIADB_CLIENT,
        backup: "MYSQL_PWD=secret mariadb-dump -uroot --all-databases | grep -q kept",
    }
}

/// As Coolify starts it: a password and `appendonly` on the command line.
const fn redis(image: &'static str, short: &'static str, command: &'static [&'static str]) -> Kind {
    Kind {
        image,
        short,
        engine: "redis",
        volume_at: "/data",
        environment: &["REDISCLI_AUTH=secret"],
        command,
        health: "redis-cli ping | grep PONG",
        tls_port: 6380,
        plaintext_port: 6379,
        own_client: REDIS_CLIENT,
        // The port for plaintext may be closed, and its client has no setting but its options.
        backup: "redis-cli --tls --cacert /etc/redis/certs/coolify-ca.crt -p 6380 --rdb /data/backup.rdb",
    }
}

pub const POSTGRES_15: Kind = postgres("postgres:15", "pg15", "/var/lib/postgresql/data");
pub const POSTGRES_17: Kind = postgres("postgres:17", "pg17", "/var/lib/postgresql/data");
pub const POSTGRES_18: Kind = postgres("postgres:18", "pg18", "/var/lib/postgresql");
pub const MYSQL: Kind = Kind {
    image: "mysql:9",
    short: "my9",
    engine: "mysql",
    volume_at: "/var/lib/mysql",
    environment: &["MYSQL_ROOT_PASSWORD=secret"],
    command: &[],
    health: "mysqladmin ping -h 127.0.0.1 -u root -psecret",
    tls_port: 3306,
    plaintext_port: 3306,
    own_client: MYSQL_CLIENT,
    backup: "MYSQL_PWD=secret mysqldump -uroot --all-databases | grep -q kept",
};
pub const MARIADB_10: Kind = mariadb("mariadb:10.11", "ma10");
pub const MARIADB_11: Kind = mariadb("mariadb:11.8", "ma11");
pub const REDIS_7: Kind =
    redis("redis:7", "re7", &["redis-server", "--requirepass", "secret", "--appendonly", "yes"]);
pub const REDIS_8: Kind =
    redis("redis:8", "re8", &["redis-server", "--requirepass", "secret", "--appendonly", "yes"]);
pub const VALKEY: Kind = redis("valkey:8", "va8", &["--requirepass", "secret", "--appendonly", "yes"]);
/// A stand-in: see `tests/images/mongodb-standin`.
pub const MONGODB: Kind = Kind {
    image: "mongodb-standin:1",
    short: "mo",
    engine: "mongodb",
    volume_at: "/data/db",
    environment: &[],
    command: &[],
    health: "mongosh --quiet --eval 'db.runCommand(\"ping\").ok'",
    tls_port: 27017,
    plaintext_port: 27017,
    own_client: "mongosh --quiet --tls --tlsCAFile /etc/mongo/certs/ca.pem --host NAME --eval 'db.runCommand(\"ping\").ok'",
    // The stand-in has no mongodump.
    backup: "true",
};

/// What a client asks of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    Full,
    Ca,
    /// TLS that believes anything.
    Nothing,
    /// No TLS.
    Plain,
}

impl Kind {
    /// One to be started as its image has it, with a password.
    pub fn bare<'r>(&self, run: &'r TestRun, name: &str) -> Start<'r> {
        let start =
            run.database(&format!("{}-{name}", self.short)).image(self.image).volume_at(self.volume_at);
        start.options(self.environment.iter().flat_map(|pair| ["--env", pair])).command(self.command)
    }

    /// The same with a health check, and on a network where its name means it.
    pub fn start<'r>(&self, run: &'r TestRun, name: &str, network: &str) -> Start<'r> {
        self.bare(run, name).options(["--network", network, "--health-cmd", self.health]).options([
            "--health-interval",
            "1s",
            "--health-start-period",
            "60s",
            "--health-retries",
            "5",
        ])
    }

    /// A driver's way to this container.
    pub fn driver<'c>(&'c self, db: &'c Container<'c>, verify: Verify, ca: &Path) -> Driver<'c> {
        let ca = Some(ca.to_owned());
        Driver {
            kind: self,
            db,
            verify,
            ca,
            host: db.name.clone(),
            user: None,
            password: "secret".to_owned(),
            shows: None,
        }
    }

    /// One without TLS, to see whether it is let in.
    pub fn plain<'c>(&'c self, db: &'c Container<'c>) -> Driver<'c> {
        self.driver(db, Verify::Plain, Path::new("/nonexistent"))
    }

    /// The image's own client, over the network.
    pub fn own_client(&self, db: &Container<'_>) -> Result<String, String> {
        db.exec(&["sh", "-c", &self.own_client.replace("NAME", &db.name)])
    }

    pub fn backup(&self, db: &Container<'_>) -> Result<String, String> {
        db.exec(&["sh", "-c", self.backup])
    }

    /// Until its port answers from outside.
    pub fn wait_answers(&self, db: &Container<'_>) {
        wait(&format!("{} answers", db.name), 120, || self.plain(db).run("once", &[]));
    }
}

/// One way to connect with a driver.
#[derive(Clone)]
pub struct Driver<'c> {
    kind: &'c Kind,
    db: &'c Container<'c>,
    verify: Verify,
    ca: Option<PathBuf>,
    host: String,
    /// `None`: the one that its image makes.
    user: Option<String>,
    password: String,
    shows: Option<PathBuf>,
}

impl Driver<'_> {
    /// Asks for another name than the container's.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Shows the client's certificate that lies in this folder, as `dbssl client-cert` leaves it.
    pub fn shows(mut self, folder: &Path) -> Self {
        self.shows = Some(folder.to_owned());
        self
    }

    /// Connects and asks something.
    pub fn once(&self) -> Result<String, String> {
        self.run("once", &[])
    }

    pub fn write(&self, text: &str) -> Result<String, String> {
        self.run("write", &[("text", text)])
    }

    pub fn rows(&self) -> Result<Vec<String>, String> {
        self.run("read", &[]).map(|text| text.lines().map(str::to_owned).collect())
    }

    /// Opens a connection every 10 ms, and keeps one busy, until [`Load::end`].
    pub fn load(&self) -> Load {
        self.load_every("0.01")
    }

    /// The same with another interval, in seconds.
    pub fn load_every(&self, seconds: &str) -> Load {
        let mut child = self
            .command("load", &[("interval", seconds)])
            .expect("it has an address")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {}", python().display()));
        let mut started = [0; 8];
        child.stdout.as_mut().unwrap().read_exact(&mut started).expect("the load begins");
        assert_eq!(&started, b"started\n");
        Load { child }
    }

    fn run(&self, verb: &str, more: &[(&str, &str)]) -> Result<String, String> {
        let output = self.command(verb, more)?.output().unwrap_or_else(|error| {
            panic!("{}: {error}; scripts/test installs it (scripts/lib/clients.sh)", python().display())
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn command(&self, verb: &str, more: &[(&str, &str)]) -> Result<Command, String> {
        let verify = match self.verify {
            Verify::Full => "full",
            Verify::Ca => "ca",
            Verify::Nothing => "none",
            Verify::Plain => "plain",
        };
        let port = if self.verify == Verify::Plain { self.kind.plaintext_port } else { self.kind.tls_port };
        let mut to = json!({
            "engine": self.kind.engine,
            "host": self.host,
            "address": self.db.address()?,
            "port": port,
            "ca": self.ca,
            "verify": verify,
            "user": self.user,
            "password": self.password,
            "shows": self.shows,
        });
        for (key, value) in more {
            to[*key] = json!(value);
        }
        let mut command = Command::new(python());
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/driver.py"))
            .arg(verb)
            .arg(to.to_string());
        Ok(command)
    }
}

/// Clients at work.
pub struct Load {
    child: Child,
}

/// When a failure was seen that [`Seen`] tells of: seconds of the wall clock.
pub fn seen_at(failure: &str) -> f64 {
    failure.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a point in time")
}

/// What the clients saw.
#[derive(Debug)]
pub struct Seen {
    pub opened: u64,
    pub queries: u64,
    pub failed: Vec<String>,
    pub dropped: Vec<String>,
}

impl Load {
    pub fn end(mut self) -> Seen {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        let seen: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        let list = |key: &str| {
            let texts = seen[key].as_array().into_iter().flatten();
            texts.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        Seen {
            opened: seen["opened"].as_u64().unwrap(),
            queries: seen["queries"].as_u64().unwrap(),
            failed: list("failed"),
            dropped: list("dropped"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that has the drivers.
pub fn python() -> PathBuf {
    setting("DBSSL_TEST_PYTHON").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/drivers/bin/python")),
        PathBuf::from,
    )
}

/// The folder of all drivers that are not installed on the host.
pub fn drivers() -> PathBuf {
    python().ancestors().nth(2).unwrap().to_owned()
}
