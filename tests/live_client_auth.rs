//! Certificates of clients: who gets in with one, who without, and that nothing else suffers.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use live::{
    Config, Container, Driver, Kind, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, REDIS_8, TestRun, Verify,
    client, docker, root, wait,
};

/// A database that is proved, and what its clients may show.
struct Asked<'r> {
    kind: &'static Kind,
    run: &'r TestRun,
    db: Container<'r>,
    /// By `dbssl client-cert`.
    certificate: PathBuf,
    /// By another CA.
    strange: PathBuf,
    /// What the server itself serves: right but for its purpose.
    servers: PathBuf,
}

impl<'r> Asked<'r> {
    /// Nobody looks after it yet.
    fn begin(run: &'r TestRun, kind: &'static Kind, client_auth: Option<&str>) -> (Self, live::Agent) {
        let network = run.network("net", &[]);
        let start = kind.start(run, "db", &network).mode("verify-full");
        let db = match client_auth {
            Some(word) => start.label("dbssl.client-auth", word).start(),
            None => start.start(),
        };
        // MySQL's first start takes minutes on a busy machine.
        wait(&format!("{} answers", db.name), 300, || kind.plain(&db).once());
        wait("a row is written", 60, || kind.plain(&db).write("kept"));
        let agent = run.agent().start();
        let ca = root(run.folder(), "strange-ca", "/CN=Strange CA");
        let asked = Self {
            kind,
            run,
            db,
            certificate: run.folder().join("app"),
            strange: client(run.folder(), "strange", &ca, "postgres"),
            servers: run.folder().join("servers"),
        };
        (asked, agent)
    }

    fn issue(&self, user: &str, folder: &Path) -> String {
        let folder = folder.to_str().unwrap();
        let cli = self.run.cli(&["client-cert", &self.db.name, "--user", user, "--out", folder]);
        assert_eq!(cli.code, 0, "{cli:?}");
        cli.stdout
    }

    /// Once the server has its certificate.
    fn copy_the_servers(&self) {
        fs::create_dir(&self.servers).unwrap();
        let from = self.run.certificates(&self.db);
        let pairs: &[_] = if self.kind.engine == "mongodb" {
            &[("server.pem", "client.pem")]
        } else {
            &[("server.crt", "client.crt"), ("server.key", "client.key")]
        };
        for (file, name) in pairs {
            fs::copy(from.join(file), self.servers.join(name)).unwrap();
        }
    }

    fn client(&self) -> Driver<'_> {
        self.kind.driver(&self.db, Verify::Full, &self.run.bundle())
    }

    fn gets_in(&self, driver: &Driver<'_>, who: &str) {
        assert_eq!(driver.rows().as_deref(), Ok(&["kept".to_owned()][..]), "{}: {who}", self.db.name);
    }

    fn is_refused(&self, driver: &Driver<'_>, who: &str) {
        let seen = driver.once();
        assert!(seen.is_err(), "{}: {who} is let in: {seen:?}", self.db.name);
    }

    /// `refused`, or nothing where nobody is to be refused.
    fn wait_strangers(&self, seen: Option<&str>) {
        self.db.wait_standing("proved");
        let said = &self.run.status(&self.db)["without_certificate"];
        assert_eq!(said.as_str(), seen, "{said}");
    }

    fn wait_healthy(&self) {
        wait("it is healthy", 60, || {
            let health = &self.db.inspect()["State"]["Health"];
            if health["Status"] == "healthy" { Ok(()) } else { Err(format!("{health:#}")) }
        });
    }

    /// Within the container, as people do; where there is no socket, with the certificate that lies there.
    fn backs_up(&self) {
        let shown = match self.kind.engine {
            "redis" => {
                let command = "redis-cli --tls --cacert /etc/redis/certs/coolify-ca.crt -p 6380 \
                               --cert /etc/redis/certs/client.crt --key /etc/redis/certs/client.key";
                self.db.exec(&["sh", "-c", &format!("{command} --rdb /data/backup.rdb")])
            }
            "mongodb" => self.db.exec(&[
                "mongosh",
                "--quiet",
                "--tls",
                "--tlsCAFile",
                "/etc/mongo/certs/ca.pem",
                "--tlsCertificateKeyFile",
                "/etc/mongo/certs/client.pem",
                "--eval",
                "db.runCommand(\"ping\").ok",
            ]),
            _ => self.kind.backup(&self.db),
        };
        shown.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Whoever has no certificate of the CA, made for a client, is refused; all else goes on.
fn required(kind: &'static Kind) {
    let run = TestRun::begin();
    let (asked, mut agent) = Asked::begin(&run, kind, Some("required"));
    asked.wait_strangers(Some("refused"));
    asked.issue("postgres", &asked.certificate);
    asked.copy_the_servers();
    let with = asked.client().shows(&asked.certificate);
    let everybody_is_as_he_should = || {
        asked.gets_in(&with, "with a certificate");
        asked.is_refused(&asked.client(), "without a certificate");
        asked.is_refused(&asked.client().shows(&asked.strange), "with one of another CA");
        asked.is_refused(&asked.client().shows(&asked.servers), "with a server's");
        asked.is_refused(&kind.plain(&asked.db), "without TLS");
    };
    everybody_is_as_he_should();
    asked.wait_healthy();
    asked.backs_up();
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());

    // A new certificate is a reload, and the demand outlasts it and a restart.
    let (started_at, id) = (asked.db.started_at(), asked.db.id());
    let before = run.status(&asked.db)["fingerprint"].clone();
    assert!(agent.terminate().success());
    run.configure(&Config { top: "host-names = [\"new.example.com\"]".to_owned(), ..Config::default() });
    agent = run.agent().start();
    agent.wait_log(60, &["reloaded without a restart: proved"]);
    asked.wait_strangers(Some("refused"));
    assert_ne!(run.status(&asked.db)["fingerprint"], before);
    assert_eq!((asked.db.started_at(), asked.db.id()), (started_at, id));
    everybody_is_as_he_should();
    docker(&["restart", &asked.db.name]);
    wait("it answers again", 60, || with.once());
    asked.wait_strangers(Some("refused"));
    everybody_is_as_he_should();
    asked.wait_healthy();
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
}

#[test]
fn postgresql_refuses_whoever_has_no_certificate() {
    required(&POSTGRES_15);
}

#[test]
fn redis_refuses_whoever_has_no_certificate() {
    required(&REDIS_8);
}

/// A stand-in for the server; the driver is real.
#[test]
fn mongodb_refuses_whoever_has_no_certificate() {
    required(&MONGODB);
}

/// Both get in; one that is shown has to be right.
fn optional(kind: &'static Kind) {
    let run = TestRun::begin();
    let (asked, agent) = Asked::begin(&run, kind, Some("optional"));
    asked.wait_strangers(None);
    asked.issue("postgres", &asked.certificate);
    asked.gets_in(&asked.client(), "without a certificate");
    asked.gets_in(&asked.client().shows(&asked.certificate), "with a certificate");
    asked.is_refused(&asked.client().shows(&asked.strange), "with one of another CA");
    asked.wait_healthy();
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
}

#[test]
fn postgresql_takes_both_where_one_is_optional() {
    optional(&POSTGRES_15);
}

#[test]
fn redis_takes_both_where_one_is_optional() {
    optional(&REDIS_8);
}

#[test]
fn mongodb_takes_both_where_one_is_optional() {
    optional(&MONGODB);
}

/// Where it comes from the config it can change under a container that stays.
fn there_and_back(kind: &'static Kind) {
    let with = |client_auth: &str| {
        let name = format!("t*-{}-db", kind.short);
        let matches = format!("[[match]]\nname = {name:?}\nclient-auth = {client_auth:?}\n");
        Config { matches, ..Config::default() }
    };
    let run = TestRun::begin_with(&with("none"));
    let (asked, mut agent) = Asked::begin(&run, kind, None);
    asked.wait_strangers(None);
    asked.issue("postgres", &asked.certificate);
    for (client_auth, seen) in [("required", Some("refused")), ("none", None), ("required", Some("refused"))]
    {
        assert!(agent.terminate().success());
        run.configure(&with(client_auth));
        agent = run.agent().start();
        wait(&format!("it is as {client_auth} says"), 120, || {
            let without = asked.client().once();
            if without.is_err() == seen.is_some() { Ok(()) } else { Err(format!("{without:?}")) }
        });
        asked.wait_strangers(seen);
        asked.gets_in(&asked.client().shows(&asked.certificate), client_auth);
        if seen.is_none() {
            asked.gets_in(&asked.client(), "without a certificate again");
        }
        asked.wait_healthy();
    }
    assert_eq!(agent.lines(&["WARN"]), Vec::<String>::new());
}

#[test]
fn postgresql_there_and_back() {
    there_and_back(&POSTGRES_15);
}

#[test]
fn redis_there_and_back() {
    there_and_back(&REDIS_8);
}

#[test]
fn mongodb_there_and_back() {
    there_and_back(&MONGODB);
}

/// What the lines of a PostgreSQL say of who may enter stays as it is, and so do lines that are written later.
#[test]
fn postgresql_demands_a_certificate_and_then_what_its_own_lines_say() {
    let run = TestRun::begin();
    let (asked, mut agent) = Asked::begin(&run, &POSTGRES_15, Some("required"));
    asked.wait_strangers(Some("refused"));
    asked.issue("bob", &asked.certificate);
    asked.db.sql("create user bob password 'secret'; create user eve password 'secret'").unwrap();
    let client = |user: &str| asked.client().user(user).shows(&asked.certificate);
    assert!(client("bob").once().is_ok() && client("eve").once().is_ok());
    // Without his password a certificate is worth nothing yet.
    let wrong = |user| client(user).password("wrong").once();
    assert!(wrong("bob").is_err());
    // The operator says that bob's certificate is enough, and that eve stays out: above his other lines, below the block.
    let hba = asked.db.sql("show hba_file").unwrap();
    let edit = "sed -i 's/^# <<< dbssl.*/&\\nhostssl all bob all cert\\nhost all eve all reject/'";
    asked.db.exec(&["sh", "-c", &format!("{edit} {hba}")]).unwrap();
    docker(&["restart", &asked.db.name]);
    agent.wait_log_after(1, 90, &["plaintext is refused: proved"]);
    asked.wait_strangers(Some("refused"));
    wait("bob gets in without a password", 30, || wrong("bob"));
    let why = client("eve").once().unwrap_err();
    assert!(why.contains("pg_hba.conf rejects connection"), "{why}");
    asked.is_refused(&asked.client().user("bob"), "bob without a certificate");
    asked.is_refused(&asked.client().user("bob").shows(&asked.strange), "bob's name by another CA");
    asked.gets_in(&asked.client().shows(&asked.certificate), "the others as before");
    let block = asked.db.exec(&["cat", &hba]).unwrap();
    assert!(block.contains("hostssl all bob all cert # dbssl\n"), "{block}");
}

/// It cannot demand one of all: that is said, and what is printed for an account works to the letter.
fn per_account(kind: &'static Kind, client: &str) {
    let run = TestRun::begin();
    let (asked, mut agent) = Asked::begin(&run, kind, Some("required"));
    asked.db.wait_standing("unenforced");
    let status = run.status(&asked.db);
    assert!(status["plan"].as_str().unwrap().contains("ALTER USER … REQUIRE X509"), "{status:#}");
    assert_eq!(status["plaintext"], "refused");
    agent.wait_log(30, &["clients without a certificate are not refused", "REQUIRE X509"]);
    let said = asked.issue("app", &asked.certificate);
    let other = run.folder().join("other");
    asked.issue("other", &other);
    let sql = |statement: &str| {
        asked.db.exec(&["sh", "-c", "MYSQL_PWD=secret \"$0\" -uroot -e \"$1\"", client, statement]).unwrap()
    };
    sql("create user app@'%' identified by 'secret'; grant select on kept.* to app@'%'");
    let app = || asked.client().user("app");
    asked.gets_in(&app(), "an account that nobody demands one of");
    let printed: Vec<_> = said.lines().filter(|line| line.contains("ALTER USER")).map(str::trim).collect();
    let [any, this_one] = printed[..] else { panic!("{said}") };
    sql(any);
    asked.is_refused(&app(), "REQUIRE X509: without a certificate");
    asked.is_refused(&app().shows(&asked.strange), "REQUIRE X509: with one of another CA");
    asked.gets_in(&app().shows(&asked.certificate), "REQUIRE X509: its own");
    asked.gets_in(&app().shows(&other), "REQUIRE X509: another user's");
    sql(this_one);
    asked.gets_in(&app().shows(&asked.certificate), "ISSUER AND SUBJECT: its own");
    asked.is_refused(&app().shows(&other), "ISSUER AND SUBJECT: another user's");
    asked.is_refused(&app(), "ISSUER AND SUBJECT: without a certificate");
    asked.wait_healthy();
    asked.backs_up();
}

#[test]
fn mysql_demands_one_of_an_account() {
    per_account(&MYSQL, "mysql");
}

#[test]
fn mariadb_demands_one_of_an_account() {
    per_account(&MARIADB_11, "mariadb");
}

/// Without an agent, too; nothing is overwritten unawares, and what is printed works.
#[test]
fn a_certificate_is_issued_into_a_folder() {
    let run = TestRun::begin();
    let (asked, agent) = Asked::begin(&run, &POSTGRES_15, Some("optional"));
    asked.wait_strangers(None);
    assert!(agent.terminate().success());
    let folder = run.folder().join("with space");
    let said = asked.issue("postgres", &folder);
    let file = |name: &str| folder.join(name);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for (name, wanted) in
        [("client.crt", 0o644), ("client.key", 0o600), ("client.pem", 0o600), ("coolify-ca.crt", 0o644)]
    {
        assert_eq!(mode(&file(name)), wanted, "{name}");
        let root = fs::metadata(run.folder()).unwrap();
        assert_eq!(fs::metadata(file(name)).unwrap().uid(), root.uid());
    }
    assert_eq!(fs::read(file("coolify-ca.crt")).unwrap(), fs::read(run.bundle()).unwrap());
    let audit = fs::read_to_string(run.state().join("ca/audit.log")).unwrap();
    let line = audit.lines().find(|line| line.contains("client-issued")).unwrap();
    assert!(line.contains("\"subject\":\"CN=postgres\""), "{line}");

    let key = fs::read(file("client.key")).unwrap();
    let text = String::from_utf8(key.clone()).unwrap();
    let secret = text.lines().nth(1).unwrap();
    assert!(!said.contains(secret) && !audit.contains(secret));
    let (name, out) = (asked.db.name.as_str(), folder.to_str().unwrap());
    let again = run.cli(&["client-cert", name, "--user", "postgres", "--out", out]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("is there already; --force replaces it"), "{again:?}");
    assert_eq!(fs::read(file("client.key")).unwrap(), key);
    let forced =
        run.cli(&["client-cert", name, "--user", "postgres", "--out", out, "--force", "--lifetime", "2h"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_ne!(fs::read(file("client.key")).unwrap(), key);
    for (wrong, why) in [
        (&["--user", "x", "--lifetime", "never"][..], "allowed: a duration"),
        (&["--user", ""], "1 to 64 characters"),
        (&["--lifetime", "1h"], "--user"),
    ] {
        let fresh = run.folder().join("fresh");
        let more = [&["client-cert", name, "--out", fresh.to_str().unwrap()], wrong].concat();
        let cli = run.cli(&more);
        assert!(cli.code == 2 && cli.stderr.contains(why), "{wrong:?}: {cli:?}");
        assert!(!fresh.join("client.key").exists());
    }

    // As it is printed, but for the name, which only the container's network knows.
    let line = said.lines().map(str::trim).find(|line| line.starts_with("psql ")).unwrap();
    let line = line.replacen("'host=", &format!("'hostaddr={} host=", asked.db.address().unwrap()), 1);
    let ask = "select client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("{line} --no-psqlrc -qAtwc \"{ask}\"")])
        .env("PGPASSWORD", "secret")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "/CN=postgres", "{line}: {output:?}");
}
