//! A client as users have it: psql, and so libpq.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// One way to connect. Starts without a CA and with the host name as given.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    address: String,
    port: u16,
    sslmode: String,
    root: Option<PathBuf>,
    user: String,
}

impl Client {
    /// `address` is connected to, `host` is what the certificate has to name.
    pub fn new(host: &str, address: &str, sslmode: &str) -> Self {
        Self {
            host: host.to_owned(),
            address: address.to_owned(),
            port: 5432,
            sslmode: sslmode.to_owned(),
            root: None,
            user: "postgres".to_owned(),
        }
    }

    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    pub fn root(mut self, root: impl AsRef<Path>) -> Self {
        self.root = Some(root.as_ref().to_owned());
        self
    }

    /// Standard output without headers, or what psql complains about. The password is `secret`.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        let output = self.command().args(["-c", sql]).output().expect("psql (install postgresql-client)");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Whether this very connection is encrypted: `t` or `f`.
    pub fn is_encrypted(&self) -> Result<String, String> {
        self.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    }

    /// psql with its connection string and nothing to do: for a connection that lasts.
    pub fn command(&self) -> Command {
        // A file that is not there: otherwise libpq would take one from the home folder of whoever runs the test.
        let root = self.root.as_deref().unwrap_or_else(|| Path::new("/nonexistent/root.crt"));
        let mut command = Command::new("psql");
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("PG")) {
            command.env_remove(variable);
        }
        command.env("PGPASSWORD", "secret").args(["--no-psqlrc", "-qAt", "-w"]).arg(format!(
            "host={} hostaddr={} port={} user={} dbname=postgres sslmode={} sslrootcert={} connect_timeout=5",
            self.host,
            self.address,
            self.port,
            self.user,
            self.sslmode,
            root.display(),
        ));
        command
    }
}
