//! `dbssl export`: with its file over the user's own, Compose starts a database with TLS, from the first start on an empty
//! volume on, and nobody recreates the container ever again.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use live::{Agent, Compose, Container, DATA_AND_NETWORK, TestRun, docker, image, try_docker, verify, wait};

/// A database as its user wrote it down.
struct Database {
    image: &'static str,
    data: &'static str,
    /// More lines of the service.
    service: &'static str,
    port: u16,
    starttls: Option<&'static str>,
    /// Prints `made by a script` once its first start is complete.
    script_ran: &'static [&'static str],
}

const POSTGRES: Database = Database {
    image: "postgres:15",
    data: "/var/lib/postgresql/data",
    service: "
    environment: { POSTGRES_PASSWORD: secret, POSTGRES_DB: shop }
    command: [postgres, -c, max_connections=20, -c, cluster_name=a$$b]",
    port: 5432,
    starttls: Some("postgres"),
    script_ran: &["psql", "-qAt", "-U", "postgres", "-d", "shop", "-c", "select text from made"],
};

const MARIADB: Database = Database {
    image: "mariadb:11.8",
    data: "/var/lib/mysql",
    service: "
    environment: { MARIADB_ROOT_PASSWORD: secret, MARIADB_DATABASE: shop }",
    port: 3306,
    starttls: Some("mysql"),
    script_ran: &["mariadb", "-N", "-B", "-uroot", "-psecret", "shop", "-e", "select text from made"],
};

const REDIS: Database = Database {
    image: "redis:8",
    data: "/data",
    service: "
    command: [redis-server, --requirepass, secret]
    environment: { REDISCLI_AUTH: secret }
    healthcheck: { test: \"redis-cli ping | grep PONG\", interval: 500ms, timeout: 5s, retries: 60 }",
    port: 6380,
    starttls: None,
    script_ran: &["echo", "made by a script"],
};

impl Database {
    fn compose<'r>(&self, run: &'r TestRun) -> Compose<'r> {
        let scripts = run.folder().join("scripts");
        if !scripts.exists() {
            fs::create_dir(&scripts).unwrap();
            let script =
                "create table made (text varchar(99)); insert into made values ('made by a script');\n";
            fs::write(scripts.join("1.sql"), script).unwrap();
            for path in [scripts.clone(), scripts.join("1.sql")] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        Compose::new(
            run,
            &format!(
                "
services:
  db:
    image: {}
    restart: unless-stopped
    labels: [LABEL, dbssl.enable=true]
    volumes: ['data:{}', '{}:/docker-entrypoint-initdb.d:ro']{}
{DATA_AND_NETWORK}",
                image(self.image),
                self.data,
                scripts.display(),
                self.service
            ),
        )
    }

    /// Until the agent has proved it; then another client verifies everything, and plaintext is refused.
    fn wait_served(&self, run: &TestRun, db: &Container<'_>) {
        wait(&format!("{} is proved", db.name), 180, || {
            let all = run.statuses();
            let report = all.get(&db.name).ok_or("it is not there")?;
            let done = report["standing"] == "proved" && report["plaintext"] == "refused";
            if done { Ok(()) } else { Err(report.to_string()) }
        });
        let address = format!("{}:{}", db.address().unwrap(), self.port);
        for name in ["db", &db.name] {
            verify(&address, self.starttls, name, &run.bundle()).unwrap_or_else(|said| panic!("{said}"));
        }
        verify(&address, self.starttls, "another.example", &run.bundle()).unwrap_err();
        assert_eq!(db.exec(self.script_ran).as_deref(), Ok("made by a script"), "{}", db.logs());
    }
}

/// The file, which has to be complete.
fn export(run: &TestRun, db: &Container<'_>) -> String {
    let cli = run.cli(&["export", &db.name]);
    assert_eq!(cli.code, 0, "{cli:?}");
    cli.stdout
}

fn recreations(agent: &Agent, db: &Container<'_>) -> usize {
    agent.lines(&[&db.name, "recreated with TLS"]).len()
}

/// Wired by the agent at first; then the wiring becomes its user's own, and everything begins anew.
fn becomes_its_users_own(database: &Database) {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let compose = database.compose(&run);
    compose.run(&["up", "--detach"]).unwrap();
    let db = compose.container("db");
    agent.wait_log(180, &[&db.name, "recreated with TLS: proved"]);
    database.wait_served(&run, &db);

    let text = export(&run, &db);
    let wired = compose.with(&text);
    wired.run(&["down", "--volumes"]).unwrap();
    assert_eq!(run.containers(), Vec::<String>::new());
    wired.run(&["up", "--detach", "--wait"]).unwrap();
    let id = db.id();
    database.wait_served(&run, &db);
    assert_eq!(db.id(), id, "it is the container that Compose made");
    assert_eq!(recreations(&agent, &db), 1, "{}", agent.log());
    assert_eq!(agent.lines(&[&db.name, "WARN"]), Vec::<String>::new());
    // What it has now is what it was given.
    assert_eq!(export(&run, &db), text);

    let said = wired.run(&["up", "--detach", "--wait"]).unwrap();
    assert!(
        wired
            .said_of(&said, "db")
            .iter()
            .all(|word| matches!(word.as_str(), "Running" | "Healthy" | "Waiting")),
        "{said}"
    );
    // Made anew by Compose it is complete at once.
    wired.run(&["up", "--detach", "--wait", "--force-recreate"]).unwrap();
    let made_anew = db.id();
    assert_ne!(made_anew, id);
    database.wait_served(&run, &db);
    assert_eq!((db.id(), recreations(&agent, &db)), (made_anew, 1), "{}", agent.log());
}

#[test]
fn postgres_becomes_its_users_own() {
    becomes_its_users_own(&POSTGRES);
}

#[test]
fn mariadb_becomes_its_users_own() {
    becomes_its_users_own(&MARIADB);
}

#[test]
fn redis_becomes_its_users_own() {
    becomes_its_users_own(&REDIS);
}

/// A file that comes from another host: without the directory nothing begins, so that no first start fails half-way.
#[test]
fn on_another_host_nothing_begins_without_the_directory() {
    let run = TestRun::begin();
    let agent = run.agent().start();
    let compose = POSTGRES.compose(&run);
    // A container that was never started is enough to tell.
    compose.run(&["create"]).unwrap();
    let db = compose.container("db");
    let created = db.id();
    let cli = run.cli(&["export", &db.name]);
    assert_eq!(cli.code, 0, "{cli:?}");
    assert!(cli.stderr.contains("issued a certificate"), "{cli:?}");
    let wired = compose.with(&cli.stdout);

    compose.run(&["down", "--volumes"]).unwrap();
    fs::remove_dir_all(run.certificates(&db)).unwrap();
    let said = wired.run(&["up", "--detach"]).unwrap_err();
    assert!(said.contains("bind source path does not exist"), "{said}");
    assert_eq!(run.containers(), Vec::<String>::new());
    assert!(!run.certificates(&db).exists(), "nobody made it up");

    compose.run(&["create"]).unwrap();
    assert_ne!(db.id(), created);
    assert_eq!(export(&run, &db), cli.stdout, "the same on each host");
    wired.run(&["up", "--detach"]).unwrap();
    let id = db.id();
    POSTGRES.wait_served(&run, &db);
    assert_eq!((db.id(), recreations(&agent, &db)), (id, 0), "{}", agent.log());
}

/// What the file holds of the user's own is brought up to date by making it again.
#[test]
fn a_changed_command_is_taken_over() {
    let run = TestRun::begin();
    let agent = run.agent().start();
    let compose = POSTGRES.compose(&run);
    compose.run(&["create"]).unwrap();
    let db = compose.container("db");
    compose.with(&export(&run, &db)).run(&["up", "--detach"]).unwrap();
    POSTGRES.wait_served(&run, &db);
    assert_eq!(db.sql("show max_connections").unwrap(), "20");

    let own = fs::read_to_string(run.folder().join("compose.yaml")).unwrap();
    compose.write(&own.replace("max_connections=20", "max_connections=30"));
    compose.run(&["create"]).unwrap();
    let id = db.id();
    assert!(!db.is_running());
    compose.with(&export(&run, &db)).run(&["up", "--detach"]).unwrap();
    assert_ne!(db.id(), id);
    let id = db.id();
    POSTGRES.wait_served(&run, &db);
    assert_eq!(db.sql("show max_connections").unwrap(), "30");
    assert_eq!((db.id(), recreations(&agent, &db)), (id, 0), "{}", agent.log());
}

/// A database that has its data and has lost its certificate restarts over and over, until an agent is there.
#[test]
fn a_lost_certificate_comes_back_while_the_database_restarts() {
    let run = TestRun::begin();
    let agent = run.agent().start();
    let compose = POSTGRES.compose(&run);
    compose.run(&["create"]).unwrap();
    let db = compose.container("db");
    let wired = compose.with(&export(&run, &db));
    wired.run(&["up", "--detach"]).unwrap();
    POSTGRES.wait_served(&run, &db);
    let id = db.id();
    assert!(agent.terminate().success());

    empty(&run.certificates(&db));
    docker(&["restart", &db.name]);
    wait("it fails to start", 60, || {
        let restarts = db.inspect()["RestartCount"].as_u64().unwrap();
        if restarts >= 2 { Ok(()) } else { Err(restarts.to_string()) }
    });
    let agent = run.agent().start();
    POSTGRES.wait_served(&run, &db);
    assert_eq!((db.id(), recreations(&agent, &db)), (id, 0), "{}", agent.log());
}

/// The folder itself is what Docker has mounted.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_folder = path.symlink_metadata().unwrap().is_dir();
        if is_folder { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

/// Compose reads back each word as it is in the container.
#[test]
fn every_word_survives_compose() {
    let run = TestRun::begin();
    assert!(run.agent().start().terminate().success());
    let strange = ["--requirepass", "it's \"$ecret\" ${X:-y} \\ größe 数 😀\n\t#: {}", "--maxclients", "9"];
    let db = run
        .database("db")
        .image("redis:8")
        .volume_at("/data")
        .mode("require")
        .label("dbssl.names", "db.example.com")
        .options(["--health-cmd", "redis-cli -a \"$REDIS_PASSWORD\" ping"])
        .command([&["redis-server"][..], &strange].concat())
        .create();
    let cli = run.cli(&["export", &db.name]);
    assert_eq!(cli.code, 0, "{cli:?}");
    assert!(cli.stderr.contains("the value of --requirepass looks like a password"), "{cli:?}");
    assert!(!cli.stderr.contains("ecret"), "{cli:?}");

    let own = format!("services: {{ {}: {{ image: '{}' }} }}\n", db.name, image("redis:8"));
    let config = Compose::new(&run, &own).with(&cli.stdout).run(&["config", "--format", "json"]).unwrap();
    // What it prints can be read by it again, so its dollars are doubled.
    let config: serde_json::Value = serde_json::from_str(&config.replace("$$", "$")).unwrap();
    let service = &config["services"][&db.name];
    let command: Vec<&str> =
        service["command"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
    assert_eq!(command[..5], [&["redis-server"][..], &strange].concat());
    assert_eq!(command[5..7], ["--tls-port", "6380"]);
    assert_eq!(command[command.len() - 2..], ["--port", "0"]);
    let check =
        "redis-cli --tls --cacert /etc/redis/certs/coolify-ca.crt -p 6380 -a \"$REDIS_PASSWORD\" ping";
    assert_eq!(service["healthcheck"]["test"], serde_json::json!(["CMD-SHELL", check]));
    let labels = serde_json::json!({
        "dbssl.enable": "true", "dbssl.mode": "require", "dbssl.names": "db.example.com"
    });
    assert_eq!(service["labels"], labels);
    let volume = &service["volumes"][0];
    assert_eq!(volume["source"], run.certificates(&db).to_str().unwrap());
    assert_eq!((&volume["target"], &volume["read_only"]), (&"/etc/redis/certs".into(), &true.into()));
}

/// What follows the image and goes before it, as the comment says, makes a container that is complete.
#[test]
fn docker_run_gets_it_as_options() {
    let run = TestRun::begin();
    let agent = run.agent().start();
    let start = || run.database("db").image("redis:8").volume_at("/data").enabled();
    let db = start().create();
    let text = export(&run, &db);
    let comment = |after: &str| {
        let mut lines = text.lines().skip_while(|line| !line.ends_with(after));
        let line = lines.nth(1).unwrap().trim_start_matches("# ");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (options, command) = (comment("in front of the image:"), comment("behind the image:"));
    docker(&["rm", &db.name]);
    let db = start().options(options).command(command).start();
    let id = db.id();
    wait("it is proved", 60, || {
        let report = run.status(&db);
        if report["standing"] == "proved" { Ok(()) } else { Err(report.to_string()) }
    });
    assert_eq!((db.id(), recreations(&agent, &db)), (id, 0), "{}", agent.log());
}

#[test]
fn what_cannot_be_written_down_is_said() {
    let run = TestRun::begin();
    assert!(run.agent().start().terminate().success());
    // A shell's string: everything is said in comments, and done by hand it counts.
    let shell =
        run.database("shell").enabled().command(["sh", "-c", "exec docker-entrypoint.sh postgres"]).create();
    let cli = run.cli(&["export", &shell.name]);
    assert_eq!(cli.code, 1, "{cli:?}");
    assert!(cli.stdout.lines().all(|line| line.starts_with('#')), "{cli:?}");
    for part in ["a string for the shell \"sh\"", "ssl=on", run.certificates(&shell).to_str().unwrap()] {
        assert!(cli.stdout.contains(part), "{part}: {cli:?}");
    }
    assert!(cli.stderr.contains("by hand"), "{cli:?}");

    let foreign = run.database("foreign").enabled().command(["postgres", "-c", "ssl=on"]).create();
    let unlabelled = run.database("unlabelled").create();
    let mislabelled = run.database("mislabelled").enabled().label("dbssl.mod", "require").create();
    for (db, why) in [
        (&foreign, "somebody else configured its TLS"),
        (&unlabelled, "is not labelled"),
        (&mislabelled, "did you mean dbssl.mode?"),
    ] {
        let cli = run.cli(&["export", &db.name]);
        assert_eq!((cli.code, cli.stdout.as_str()), (2, ""), "{cli:?}");
        assert!(cli.stderr.contains(why), "{cli:?}");
        assert!(!run.certificates(db).exists());
    }
    assert!(try_docker(&["container", "inspect", &shell.name]).is_ok());
}
