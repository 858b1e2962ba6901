//! What `dbssl url` prints, given to real clients just as it is printed.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, path::Path, process::Command};

use live::{
    Cli, Config, Container, Kind, MARIADB_10, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, REDIS_8, TestRun,
    VALKEY, docker,
};

/// Odd on purpose: every character that a URL, a shell or libpq gives a meaning.
const PASSWORD: &str = "p@s:s/w o'r%d&#?$\"\\";
/// The same without quotes and backslashes, which MySQL's own entrypoint and Valkey's command line do not take.
const UNQUOTED_PASSWORD: &str = "p@s:s/w or%d&#?$";

/// A client that takes the string.
struct Client {
    driver: &'static str,
    /// What to install if it does not start.
    package: &'static str,
    /// A program that prints `t` if its connection is encrypted, given what was printed.
    argv: fn(&Asked<'_>) -> Vec<String>,
    /// The variable that names its CA, where the string cannot.
    ca_by: Option<&'static str>,
    modes: &'static [&'static str],
}

const fn client(driver: &'static str, package: &'static str, argv: fn(&Asked<'_>) -> Vec<String>) -> Client {
    Client { driver, package, argv, ca_by: None, modes: MODES }
}

const MODES: &[&str] = &["require", "verify-ca", "verify-full"];

/// What a client is given.
struct Asked<'a> {
    printed: &'a str,
    /// In the environment.
    ca: Option<(&'static str, &'a Path)>,
    run: &'a TestRun,
    kind: &'a Kind,
}

/// An engine with its clients.
struct Row {
    kind: &'static Kind,
    /// As whom an application connects; `{}` stands for the password, as in the command.
    environment: &'static [&'static str],
    command: &'static [&'static str],
    password: &'static str,
    clients: &'static [Client],
}

const LIBPQ: Client = client("libpq", "postgresql-client", |asked| {
    words(&["psql", "--no-psqlrc", "-qAtw", "-c", ASK_POSTGRES, asked.printed])
});

const POSTGRES: Row = Row {
    kind: &POSTGRES_15,
    environment: &["POSTGRES_USER=app user", "POSTGRES_DB=shop", "POSTGRES_PASSWORD={}"],
    command: &[],
    password: PASSWORD,
    clients: &[
        LIBPQ,
        // A command for a shell, which gets the question on its standard input.
        client("cli", "postgresql-client", |asked| {
            on_the_host(&format!("echo \"{ASK_POSTGRES}\" | {} --no-psqlrc -qAtw", asked.printed))
        }),
        PYTHON,
        client("jdbc", "libpostgresql-jdbc-java and default-jdk-headless", |asked| {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/Jdbc.java");
            let jar = "/usr/share/java/postgresql.jar";
            words(&["java", "-cp", jar, source, asked.printed, ASK_POSTGRES])
        }),
        // To Debian's version, which is older than `uselibpqcompat`, verify-ca is verify-full.
        Client { modes: &["require", "verify-full"], ..NODE },
        GO,
    ],
};

const MYSQL_9: Row = Row {
    kind: &MYSQL,
    environment: &[
        "MYSQL_ROOT_PASSWORD=secret",
        "MYSQL_USER=app user",
        "MYSQL_DATABASE=shop",
        "MYSQL_PASSWORD={}",
    ],
    command: &[],
    password: UNQUOTED_PASSWORD,
    clients: &[
        // Debian has none.
        client("cli", "Docker", |asked| in_the_image(asked, &ask_mysql(asked))),
        PYTHON,
        Client { ca_by: GO_CA, ..GO },
    ],
};

const fn mariadb(kind: &'static Kind) -> Row {
    Row {
        kind,
        environment: &[
            "MARIADB_ROOT_PASSWORD=secret",
            "MARIADB_USER=app user",
            "MARIADB_DATABASE=shop",
            "MARIADB_PASSWORD={}",
        ],
        command: &[],
        password: PASSWORD,
        clients: const {
            &[
                client("cli", "mariadb-client", |asked| on_the_host(&ask_mariadb(asked))),
                // What it verifies has changed with the versions.
                client("cli", "Docker", |asked| in_the_image(asked, &ask_mariadb(asked))),
                PYTHON,
                Client { ca_by: GO_CA, ..GO },
            ]
        },
    }
}

const fn redis(kind: &'static Kind, password: &'static str) -> Row {
    Row {
        kind,
        environment: &[],
        command: &["--requirepass", "{}"],
        password,
        clients: const {
            &[
                client("cli", "redis-tools", |asked| on_the_host(&ask_redis(asked))),
                PYTHON,
                Client { ca_by: Some("NODE_EXTRA_CA_CERTS"), ..NODE },
            ]
        },
    }
}

/// No account: the stand-in cannot check one.
const MONGO: Row = Row {
    kind: &MONGODB,
    environment: &["MONGO_INITDB_DATABASE=shop"],
    command: &[],
    password: "",
    clients: &[
        client("cli", "Docker", |asked| {
            let ping = "--quiet --eval 'db.runCommand(\"ping\").ok'";
            // It does not tell whether it is encrypted; but the server refuses plaintext.
            in_the_image(asked, &format!("{} {ping} | sed 's/^1$/t/'", asked.printed))
        }),
        PYTHON,
        NODE,
        GO,
    ],
};

const PYTHON: Client = client("python", "need_drivers of scripts/lib/clients.sh", |asked| {
    let python = live::python();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/url.py");
    words(&[python.to_str().unwrap(), program, asked.kind.engine, asked.printed])
});

const NODE: Client = client("node", "need_node_drivers of scripts/lib/clients.sh", |asked| {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/url.js");
    let unpacked = live::drivers().join("nodejs/usr/share/nodejs");
    let path = format!("NODE_PATH={}:/usr/share/nodejs", unpacked.display());
    words(&["env", &path, "node", program, asked.kind.engine, asked.printed])
});

const GO: Client = client("go", "need_go_drivers of scripts/lib/clients.sh", |asked| {
    let program = live::drivers().join("bin/url-go");
    words(&[program.to_str().unwrap(), asked.kind.engine, asked.printed])
});

/// Drivers whose string has no place for a CA take those of the host.
const GO_CA: Option<&str> = Some("SSL_CERT_FILE");

const ASK_POSTGRES: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

fn ask_mysql(asked: &Asked<'_>) -> String {
    ask_sql(asked, "performance_schema.session_status")
}

fn ask_mariadb(asked: &Asked<'_>) -> String {
    ask_sql(asked, "information_schema.session_status")
}

fn ask_sql(asked: &Asked<'_>, status: &str) -> String {
    let sql =
        format!("select if(variable_value <> '', 't', 'f') from {status} where variable_name = 'Ssl_cipher'");
    format!("echo \"{sql}\" | {} --skip-column-names", asked.printed)
}

/// The port that it is connected to, as the server has it, is the one that takes TLS only.
fn ask_redis(asked: &Asked<'_>) -> String {
    let port = asked.kind.tls_port;
    format!("echo client info | {} | sed -n 's/.* laddr=[^ ]*:{port} .*/t/p'", asked.printed)
}

/// In a shell, as a person would.
fn on_the_host(line: &str) -> Vec<String> {
    words(&["sh", "-c", line])
}

/// In a shell too, with the programs of the server's image. It has the host's network and the run's files.
fn in_the_image(asked: &Asked<'_>, line: &str) -> Vec<String> {
    let folder = asked.run.folder().display();
    words(&[
        "docker",
        "run",
        "--rm",
        "--label",
        &asked.run.label(),
        "--network",
        "host",
        "--volume",
        &format!("{folder}:{folder}:ro"),
        "--entrypoint",
        "sh",
        &live::image(asked.kind.image),
        "-c",
        line,
    ])
}

#[test]
fn postgresql_15_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&POSTGRES);
}

#[test]
fn mysql_9_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&MYSQL_9);
}

#[test]
fn mariadb_10_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&mariadb(&MARIADB_10));
}

#[test]
fn mariadb_11_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&mariadb(&MARIADB_11));
}

#[test]
fn redis_8_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&redis(&REDIS_8, PASSWORD));
}

#[test]
fn valkey_8_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&redis(&VALKEY, UNQUOTED_PASSWORD));
}

#[test]
fn mongodb_lets_in_with_what_is_printed() {
    every_client_gets_in_and_verifies(&MONGO);
}

fn every_client_gets_in_and_verifies(row: &Row) {
    let run = TestRun::begin_with(&host_names());
    let _agent = run.agent().start();
    let filled = |text: &&str| text.replace("{}", row.password);
    // On the default bridge, published on all addresses, so that it answers where the certificate is not valid.
    let database = run
        .database("db")
        .image(row.kind.image)
        .volume_at(row.kind.volume_at)
        .enabled()
        .options(row.environment.iter().flat_map(|pair| ["--env".to_owned(), filled(pair)]))
        .options(["--publish", &row.kind.tls_port.to_string()])
        .command(row.command.iter().map(filled))
        .start();
    database.wait_standing("proved");
    assert_eq!(run.status(&database)["plaintext"], "refused");
    for client in row.clients {
        for mode in client.modes {
            gets_in_and_verifies(&run, row.kind, client, &database, mode);
        }
    }
}

fn gets_in_and_verifies(run: &TestRun, kind: &Kind, client: &Client, database: &Container<'_>, mode: &str) {
    let arguments = ["--from", "host", "--driver", client.driver, "--mode", mode];
    let Printed { line, notes } = url(run, database, &arguments);
    let expect = |printed: &str, ca: &Path, gets_in: bool, signs: &[&str]| {
        let ca = client.ca_by.map(|variable| (variable, ca));
        match ask(client, &Asked { printed, ca, run, kind }) {
            Ok(answer) => assert!(gets_in && answer == "t", "{mode}: {answer} with {printed}"),
            Err(why) => assert!(
                !gets_in && signs.iter().any(|sign| why.contains(sign)),
                "{mode}: it says {why:?} with {printed}"
            ),
        }
    };
    let (bundle, other_ca) = (run.bundle(), run.other_ca());
    expect(&line, &bundle, true, &[]);

    let is_full = notes.contains("this is verify-full, which demands more");
    // Whether it does verify: with another CA it is refused.
    let verifies = mode != "require" || is_full;
    let distrusting = line.replace(bundle.to_str().unwrap(), other_ca.to_str().unwrap());
    let told = client.ca_by.map(|variable| format!("{variable}={}", bundle.display()));
    let named = distrusting != line || told.is_some_and(|told| notes.contains(&told));
    assert_eq!(named, verifies, "the CA is named where it is looked at: {line}, {notes}");
    expect(&distrusting, &other_ca, !verifies, &["certificate", "PKIX"]);

    // And whether it looks at the name, which `localhost` is, and this address is not.
    let misnamed = line.replace("localhost", "127.0.0.2");
    assert_ne!(misnamed, line);
    let checks_no_name = notes.contains("does not check the name in a certificate: this is verify-ca");
    assert_eq!(checks_no_name, (client.package, mode) == ("redis-tools", "verify-full"), "{notes}");
    // node-postgres lets any address pass, which is said where the host is one.
    let lets_pass = (client.driver, kind.engine) == ("node", "postgres");
    let refuses = ((mode == "verify-full" && !checks_no_name) || is_full) && !lets_pass;
    expect(&misnamed, &bundle, !refuses, &["match", "verif", "Validation", "is valid for"]);
}

#[test]
fn on_the_host_an_unpublished_port_is_reached_by_name_and_address() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let network = run.network("own", &[]);
    let db = run.database("db").enabled().options(["--network", &network]).start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let printed = url(&run, &db, &["--from", "host"]).line;
    assert!(printed.contains("hostaddr="), "{printed}");
    let asked = Asked { printed: &printed, ca: None, run: &run, kind: &POSTGRES_15 };
    assert_eq!(ask(&LIBPQ, &asked).as_deref(), Ok("t"), "{printed}");
    // Java has no such pair, and is told what to do instead.
    let java = run.cli(&["url", &db.name, "--from", "host", "--driver", "jdbc"]);
    assert_eq!((java.code, java.stdout.as_str()), (2, ""), "{java:?}");
    assert!(java.stderr.contains("127.0.0.1:5432:5432"), "{java:?}");
}

#[test]
fn from_another_container_the_name_resolves_and_verifies() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let network = run.network("own", &[]);
    let db = run.database("db").enabled().options(["--network", &network]).start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let printed = url(&run, &db, &[]).line;
    let mount = format!("{}:/etc/ssl/certs/coolify-ca.crt:ro", run.bundle().display());
    let image = live::image("postgres:15");
    let label = run.label();
    let found = docker(&[
        "run",
        "--rm",
        "--label",
        &label,
        "--network",
        &network,
        "--volume",
        &mount,
        "--entrypoint",
        "psql",
        &image,
        "--no-psqlrc",
        "-qAtw",
        "-c",
        ASK_POSTGRES,
        &printed,
    ]);
    assert_eq!(found, "t");
    // It is not published: nobody else gets in, and that is said.
    let public = run.cli(&["url", &db.name, "--from", "public"]);
    assert_eq!((public.code, public.stdout.as_str()), (2, ""), "{public:?}");
    assert!(public.stderr.contains("port 5432 is not published"), "{public:?}");
}

#[test]
fn from_elsewhere_the_hosts_name_verifies() {
    let run = TestRun::begin_with(&host_names());
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().options(["--publish", "5432"]).start();
    agent.wait_log(180, &[&db.name, "plaintext is refused: proved"]);
    let printed = url(&run, &db, &["--from", "public", "--driver", "cli"]).line;
    assert!(
        printed.contains("host=db.example.com ") && printed.contains("sslrootcert=./coolify-ca.crt"),
        "{printed}"
    );
    // The client has copied the file, and its resolver knows the name.
    fs::copy(run.bundle(), run.folder().join("coolify-ca.crt")).unwrap();
    let resolved = printed.replace("host=db.example.com ", "host=db.example.com hostaddr=127.0.0.1 ");
    let line = format!("echo '{ASK_POSTGRES}' | {resolved} --no-psqlrc -qAtw");
    assert_eq!(
        output("sh", &["-c".to_owned(), line], run.folder(), None, "postgresql-client").as_deref(),
        Ok("t")
    );
}

#[test]
fn what_is_not_to_be_had_is_told_and_the_password_only_if_asked() {
    let run = TestRun::begin();
    // No agent and no CA: what is printed follows from the container alone.
    let db = run.database("db").enabled().options(["--publish", "127.0.0.1::5432"]).start();
    let hidden = run.cli(&["url", &db.name, "--from", "host"]);
    assert_eq!(hidden.code, 0, "{hidden:?}");
    assert!(hidden.stdout.starts_with("postgresql://postgres:PASSWORD@localhost:"), "{hidden:?}");
    assert_eq!(hidden.stdout.lines().count(), 1, "{hidden:?}");
    assert!(!format!("{hidden:?}").contains("secret"), "{hidden:?}");
    assert!(
        hidden.stderr.contains("--show-password") && hidden.stderr.contains("no TLS by dbssl yet"),
        "{hidden:?}"
    );
    let shown = run.cli(&["url", &db.name, "--from", "host", "--show-password"]);
    assert!(shown.stdout.contains(":secret@") && !shown.stderr.contains("secret"), "{shown:?}");
    // Names do not resolve on the default bridge.
    let bridge = run.cli(&["url", &db.name, "--driver", "node"]);
    assert_eq!(bridge.code, 2, "{bridge:?}");
    assert!(bridge.stderr.contains("docker network create"), "{bridge:?}");
    let loopback = run.cli(&["url", &db.name, "--from", "public"]);
    assert_eq!(loopback.code, 2, "{loopback:?}");
    assert!(loopback.stderr.contains("loopback only"), "{loopback:?}");

    let unlabelled = run.database("unlabelled").start();
    for (arguments, said) in [
        (&["url", &unlabelled.name][..], "not labelled"),
        (&["url", "no-such-container"], "no container"),
        (&["url", &db.name, "--driver", "odbc"], "libpq, jdbc, node, python, go, cli"),
        (&["url", &db.name, "--mode", "verify"], "verify-full"),
        (&["url", &db.name, "--from", "moon"], "container, host, public"),
    ] {
        let cli = run.cli(arguments);
        assert_eq!((cli.code, cli.stdout.as_str()), (2, ""), "{arguments:?}: {cli:?}");
        assert!(cli.stderr.contains(said), "{arguments:?}: {cli:?}");
    }
}

/// The config of a server that is known as `db.example.com`.
fn host_names() -> Config {
    Config { top: "host-names = [\"db.example.com\"]".to_owned(), ..Config::default() }
}

struct Printed {
    line: String,
    notes: String,
}

/// What is printed with the password.
fn url(run: &TestRun, container: &Container<'_>, arguments: &[&str]) -> Printed {
    let Cli { code, stdout, stderr } =
        run.cli(&[&["url", &container.name, "--show-password"], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    let printed = stdout.strip_suffix('\n').unwrap();
    assert!(!printed.contains('\n'), "one line: {printed}");
    Printed { line: printed.to_owned(), notes: stderr }
}

/// What the client prints, or what it complains about.
fn ask(client: &Client, asked: &Asked<'_>) -> Result<String, String> {
    let argv = (client.argv)(asked);
    output(&argv[0], &argv[1..], Path::new("/"), asked.ca, client.package)
}

fn output(
    program: &str,
    arguments: &[String],
    folder: &Path,
    ca: Option<(&str, &Path)>,
    package: &str,
) -> Result<String, String> {
    let mut command = Command::new(program);
    // What would say the same as the string, or something else.
    let clients_own = |variable: &str| {
        ["PG", "MYSQL_", "MARIADB_", "REDISCLI_", "SSL_CERT_", "NODE_"]
            .iter()
            .any(|prefix| variable.starts_with(prefix))
    };
    for (variable, _) in std::env::vars().filter(|(variable, _)| clients_own(variable)) {
        command.env_remove(variable);
    }
    let output = command.args(arguments).envs(ca).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (install {package}): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let complaint = text(&output.stderr);
    let missing = [
        "ModuleNotFoundError",
        "Cannot find module",
        "ClassNotFoundException",
        "not found",
        "No suitable driver",
    ];
    assert!(!missing.iter().any(|sign| complaint.contains(sign)), "install {package}: {complaint}");
    // A shell's pipe gives psql's own exit code; without an answer it is a complaint all the same.
    match text(&output.stdout) {
        answer if output.status.success() && !answer.is_empty() => Ok(answer),
        _ => Err(complaint),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
