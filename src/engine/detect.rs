//! Which database a container runs, from what can be read without asking it.
//!
//! In this order: the image's name, the command, the image's own environment together with an exposed port. A tool
//! that only talks to a database (an exporter, a pooler, an admin page) must never be taken for one: its image often
//! is called almost the same, and may well carry the same environment.

use super::{Env, command::file_name};
use crate::model::Engine;

/// Which database `image` started as `command` (entrypoint and command) is, if it is one.
///
/// `exposed_ports` are written as Docker does: `5432/tcp`.
pub fn detect(image: &str, command: &[String], image_env: &Env, exposed_ports: &[String]) -> Option<Engine> {
    let name = repository(image);
    match by_name(&name) {
        Named::Engine(engine) => Some(refine(engine, command)),
        Named::LookAlike => None,
        Named::Unknown => by_command(command).or_else(|| by_environment(image_env, exposed_ports)),
    }
}

/// `registry.example:5000/team/Postgres:17@sha256:…` is `team/postgres`. Docker Hub's host and `library` go too.
fn repository(image: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    // A colon behind the last slash begins the tag; before it, it is a registry's port.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => name,
    };
    name.strip_prefix("library/").unwrap_or(name).to_ascii_lowercase()
}

enum Named {
    Engine(Engine),
    /// Named after a database without being one.
    LookAlike,
    Unknown,
}

/// Words that make of a database's name the name of a tool for it.
const TOOLS: &[&str] = &[
    "admin",
    "agent",
    "alertmanager",
    "anonymizer",
    "api",
    "arbiter",
    "backup",
    "backups",
    "backuper",
    "benchmark",
    "bouncer",
    "browser",
    "cli",
    "client",
    "clients",
    "commander",
    "compass",
    "connector",
    "console",
    "dashboard",
    "debezium",
    "dump",
    "exporter",
    "express",
    "gui",
    "init",
    "insight",
    "loader",
    "manager",
    "mcp",
    "migrate",
    "migration",
    "migrations",
    "migrator",
    "monitor",
    "operator",
    "pool",
    "pooler",
    "proxy",
    "replicator",
    "restore",
    "router",
    "s3",
    "sentinel",
    "shell",
    "sidecar",
    "sync",
    "tool",
    "tools",
    "ui",
    "viewer",
    "web",
    "webui",
    "worker",
];

/// Whole components of an image's name that say which database it is. Other words may stand beside them.
const ENGINES: &[(&str, Engine)] = &[
    ("postgres", Engine::Postgres),
    ("postgresql", Engine::Postgres),
    ("postgis", Engine::Postgres),
    ("pgvector", Engine::Postgres),
    ("pgvecto", Engine::Postgres),
    ("vectorchord", Engine::Postgres),
    ("timescaledb", Engine::Postgres),
    ("timescale", Engine::Postgres),
    ("paradedb", Engine::Postgres),
    ("citus", Engine::Postgres),
    ("mysql", Engine::Mysql),
    ("mariadb", Engine::Mariadb),
    ("redis", Engine::Redis),
    ("valkey", Engine::Redis),
    ("keydb", Engine::Redis),
    ("mongo", Engine::Mongodb),
    ("mongodb", Engine::Mongodb),
];

/// Names that the words alone would get wrong.
const WHOLE_NAMES: &[(&str, Option<Engine>)] = &[
    ("percona", Some(Engine::Mysql)),
    ("percona/percona-server", Some(Engine::Mysql)),
    ("percona/percona-server-mongodb", Some(Engine::Mongodb)),
    ("percona/percona-distribution-postgresql", Some(Engine::Postgres)),
    ("percona/percona-xtradb-cluster", Some(Engine::Mysql)),
    ("eqalpha/keydb", Some(Engine::Redis)),
    ("mysql/mysql-router", None),
    ("mysql/mysql-cluster", None),
    ("mongodb/mongodb-atlas-local", None),
    ("redis/redisinsight", None),
    ("dbeaver/cloudbeaver", None),
    ("cockroachdb/cockroach", None),
];

fn by_name(name: &str) -> Named {
    if let Some((_, engine)) = WHOLE_NAMES.iter().find(|(whole, _)| *whole == name) {
        return engine.map_or(Named::LookAlike, Named::Engine);
    }
    // Only the last component names the program: `postgres/pgadmin` is no PostgreSQL, and `mysql` the name of an
    // organisation as well.
    let last = file_name(name);
    let words: Vec<&str> = last.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    let bare = |word: &str| word.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned();
    let engine = words.iter().find_map(|word| {
        let word = bare(word);
        ENGINES.iter().find(|(known, _)| *known == word).map(|(_, engine)| *engine)
    });
    let tool = words.iter().any(|word| TOOLS.contains(word));
    match engine {
        Some(_) if tool => Named::LookAlike,
        Some(engine) => Named::Engine(engine),
        // `pgbouncer`, `phpmyadmin`, `redisinsight`, `postgrest`: a database's name inside a longer word, or a word
        // that only tools begin with.
        None if is_tool_in_one_word(last) => Named::LookAlike,
        None => Named::Unknown,
    }
}

/// Tools whose names are one word, which may carry a database's environment or expose its port.
const ONE_WORD_TOOLS: &[&str] = &[
    "adminer",
    "cloudbeaver",
    "cockroach",
    "dbgate",
    "ferretdb",
    "maxscale",
    "mongosh",
    "mongosqld",
    "mycli",
    "mysqladmin",
    "mysqldump",
    "odyssey",
    "orchestrator",
    "pgcat",
    "pgcli",
    "pgdump",
    "pgadmin",
    "pgadmin4",
    "pgbackrest",
    "pgbackweb",
    "pgbadger",
    "pgbouncer",
    "pgcopydb",
    "pgdog",
    "pghero",
    "pgloader",
    "pgmetrics",
    "pgpool",
    "pgpool2",
    "pgroll",
    "pgwatch",
    "pgwatch2",
    "pgweb",
    "phpmyadmin",
    "phppgadmin",
    "phpredisadmin",
    "postgraphile",
    "postgrest",
    "proxysql",
    "redisinsight",
    "redsmin",
    "sentinel",
    "sqlpad",
    "supavisor",
    "twemproxy",
    "walg",
    "yugabyte",
];

fn is_tool_in_one_word(last: &str) -> bool {
    let words: Vec<&str> = last.split(['-', '_', '.']).collect();
    words.iter().any(|word| ONE_WORD_TOOLS.contains(word))
        || words.iter().any(|word| TOOLS.contains(word))
            && ENGINES.iter().any(|(known, _)| last.contains(known) || last.starts_with("pg"))
        || ["exporter", "insight", "admin", "bouncer", "commander"]
            .iter()
            .any(|ending| last.ends_with(ending) && last.len() > ending.len())
}

/// The servers' programs: they settle what an image's name leaves open.
const PROGRAMS: &[(&str, Engine)] = &[
    ("postgres", Engine::Postgres),
    ("postmaster", Engine::Postgres),
    ("mariadbd", Engine::Mariadb),
    ("mysqld", Engine::Mysql),
    ("redis-server", Engine::Redis),
    ("valkey-server", Engine::Redis),
    ("keydb-server", Engine::Redis),
    ("mongod", Engine::Mongodb),
];

fn by_command(command: &[String]) -> Option<Engine> {
    // The program is the first word, or follows an entrypoint script; further words are its arguments, among which
    // `--host postgres` is not rare.
    command.iter().take_while(|word| !word.starts_with('-')).take(3).find_map(|word| {
        PROGRAMS.iter().find(|(program, _)| *program == file_name(word)).map(|(_, engine)| *engine)
    })
}

/// What the image itself sets, and the port that must be exposed with it. `MARIADB_VERSION` comes before MySQL's: old
/// images of MariaDB set both.
const ENVIRONMENT: &[(&str, Engine, u16)] = &[
    ("PG_MAJOR", Engine::Postgres, 5432),
    ("PG_VERSION", Engine::Postgres, 5432),
    ("MARIADB_VERSION", Engine::Mariadb, 3306),
    ("MARIADB_MAJOR", Engine::Mariadb, 3306),
    ("MYSQL_MAJOR", Engine::Mysql, 3306),
    ("MYSQL_VERSION", Engine::Mysql, 3306),
    ("REDIS_VERSION", Engine::Redis, 6379),
    ("VALKEY_VERSION", Engine::Redis, 6379),
    ("KEYDB_VERSION", Engine::Redis, 6379),
    ("MONGO_MAJOR", Engine::Mongodb, 27017),
    ("MONGO_VERSION", Engine::Mongodb, 27017),
];

fn by_environment(env: &Env, exposed_ports: &[String]) -> Option<Engine> {
    let exposes = |port: u16| {
        exposed_ports.iter().any(|exposed| {
            let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            protocol == "tcp" && number.parse() == Ok(port)
        })
    };
    ENVIRONMENT
        .iter()
        .find(|(name, _, port)| env.contains_key(*name) && exposes(*port))
        .map(|(_, engine, _)| *engine)
}

/// An image called after MySQL that starts MariaDB's program is MariaDB.
fn refine(engine: Engine, command: &[String]) -> Engine {
    match (engine, by_command(command)) {
        (Engine::Mysql, Some(Engine::Mariadb)) => Engine::Mariadb,
        _ => engine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PG: Option<Engine> = Some(Engine::Postgres);
    const MY: Option<Engine> = Some(Engine::Mysql);
    const MARIA: Option<Engine> = Some(Engine::Mariadb);
    const REDIS: Option<Engine> = Some(Engine::Redis);
    const MONGO: Option<Engine> = Some(Engine::Mongodb);

    fn name(image: &str) -> Option<Engine> {
        detect(image, &[], &Env::new(), &[])
    }

    #[test]
    fn images_are_known_by_their_names() {
        let digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (image, engine) in [
            ("postgres", PG),
            ("postgres:17", PG),
            ("postgres:17-alpine", PG),
            ("docker.io/library/postgres:16", PG),
            ("library/postgres", PG),
            ("registry.example.com:5000/postgres", PG),
            ("registry.example.com:5000/team/postgres:15", PG),
            ("localhost:5000/postgres", PG),
            ("localhost/postgres", PG),
            ("ghcr.io/acme/Postgres:latest", PG),
            ("postgis/postgis:16-3.4", PG),
            ("pgvector/pgvector:pg17", PG),
            ("ankane/pgvector", PG),
            ("tensorchord/pgvecto-rs:pg16-v0.3.0", PG),
            ("tensorchord/vchord-postgres:pg17", PG),
            ("ghcr.io/immich-app/postgres:14-vectorchord0.3.0", PG),
            ("timescale/timescaledb:latest-pg16", PG),
            ("timescale/timescaledb-ha:pg17", PG),
            ("bitnami/postgresql:17", PG),
            ("bitnamilegacy/postgresql:16", PG),
            ("supabase/postgres:15.8.1.048", PG),
            ("citusdata/citus:12", PG),
            ("paradedb/paradedb:latest", PG),
            ("ghcr.io/cloudnative-pg/postgresql:17", PG),
            ("percona/percona-distribution-postgresql:17", PG),
            ("dbssl-test/postgres:15-uid70", PG),
            ("acme/my-postgres16", PG),
            ("mysql", MY),
            ("mysql:8.4", MY),
            ("mysql/mysql-server:8.0", MY),
            ("container-registry.oracle.com/mysql/community-server", None),
            ("percona:8", MY),
            ("percona/percona-server:8.0", MY),
            ("bitnami/mysql:9", MY),
            ("mariadb:11", MARIA),
            ("bitnami/mariadb", MARIA),
            ("lscr.io/linuxserver/mariadb:latest", MARIA),
            ("redis:7-alpine", REDIS),
            ("redis/redis-stack:latest", REDIS),
            ("redis/redis-stack-server", REDIS),
            ("bitnami/redis:7.4", REDIS),
            ("valkey/valkey:8", REDIS),
            ("bitnami/valkey", REDIS),
            ("eqalpha/keydb:latest", REDIS),
            ("mongo:8", MONGO),
            ("mongo:4.4.29", MONGO),
            ("mongodb/mongodb-community-server:7.0", MONGO),
            ("bitnami/mongodb:8.0", MONGO),
            ("percona/percona-server-mongodb:7.0", MONGO),
        ] {
            assert_eq!(name(image), engine, "{image}");
            if !image.contains('@') {
                assert_eq!(name(&format!("{image}{digest}")), engine, "{image} with a digest");
            }
        }
    }

    /// Neither by their name, nor by a command or an environment that would speak for a database.
    #[test]
    fn tools_for_databases_are_never_taken_for_one() {
        for image in [
            "prometheuscommunity/postgres-exporter:v0.17.1",
            "quay.io/prometheuscommunity/postgres_exporter",
            "wrouesnel/postgres_exporter",
            "prom/mysqld-exporter:v0.17",
            "oliver006/redis_exporter:v1.67",
            "percona/mongodb_exporter:0.43",
            "bitnami/postgres-exporter",
            "redis/redisinsight:2.64",
            "redislabs/redisinsight",
            "rediscommander/redis-commander:latest",
            "mongo-express:1.0",
            "phpmyadmin:5",
            "phpmyadmin/phpmyadmin",
            "dpage/pgadmin4:8",
            "edoburu/pgbouncer:1.23",
            "bitnami/pgbouncer",
            "bitnami/pgpool:4",
            "postgrest/postgrest:v12",
            "pgbackrest/pgbackrest",
            "prodrigestivill/postgres-backup-local:17",
            "eeshugerman/postgres-backup-s3:16",
            "kartoza/pg-backup",
            "woblerr/pgbackrest",
            "databack/mysql-backup",
            "tiredofit/db-backup",
            "mysql/mysql-router:8.0",
            "proxysql/proxysql",
            "mariadb/maxscale",
            "mongodb/mongodb-atlas-local",
            "bitnami/redis-sentinel",
            "bitnami/mongodb-exporter",
            "graphile/postgraphile",
            "sosedoff/pgweb",
            "ghcr.io/pgdogdev/pgdog",
            "supabase/postgres-meta-api",
            "mcp/postgres-mcp",
            "adminer",
            "zalando/postgres-operator",
            "ghcr.io/ferretdb/ferretdb",
            "wal-g/wal-g",
        ] {
            assert_eq!(name(image), None, "{image}");
        }
        let env = Env::from([("PG_MAJOR".to_owned(), "17".to_owned())]);
        let command = ["docker-entrypoint.sh".to_owned(), "postgres".to_owned()];
        for image in ["edoburu/pgbouncer", "prodrigestivill/postgres-backup-local:17", "dpage/pgadmin4"] {
            assert_eq!(detect(image, &command, &env, &["5432/tcp".to_owned()]), None, "{image}");
        }
    }

    #[test]
    fn an_image_of_unknown_name_is_known_by_its_command() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (words, engine) in [
            (&["docker-entrypoint.sh", "postgres"][..], PG),
            (&["/usr/local/bin/docker-entrypoint.sh", "postgres", "-c", "ssl=on"], PG),
            (&["/usr/lib/postgresql/16/bin/postgres", "-D", "/data"], PG),
            (&["docker-entrypoint.sh", "mysqld"], MY),
            (&["docker-entrypoint.sh", "mariadbd"], MARIA),
            (&["redis-server", "/etc/redis.conf"], REDIS),
            (&["valkey-server"], REDIS),
            (&["keydb-server"], REDIS),
            (&["docker-entrypoint.sh", "mongod", "--port", "1"], MONGO),
            (&["/app", "--host", "postgres"], None),
            (&["psql", "-h", "postgres"], None),
            (&["/exporter"], None),
            (&[], None),
        ] {
            assert_eq!(detect("acme/db:1", &list(words), &Env::new(), &[]), engine, "{words:?}");
            assert_eq!(detect("sha256:0123456789ab", &list(words), &Env::new(), &[]), engine, "{words:?}");
        }
        assert_eq!(detect("mysql:x", &list(&["mariadbd"]), &Env::new(), &[]), MARIA);
    }

    #[test]
    fn an_image_of_unknown_name_and_command_is_known_by_environment_and_port_together() {
        let detect = |variable: &str, port: &str| {
            let env = Env::from([(variable.to_owned(), "1".to_owned())]);
            detect("acme/db", &["/start".to_owned()], &env, &[port.to_owned()])
        };
        for (variable, port, engine) in [
            ("PG_MAJOR", "5432/tcp", PG),
            ("MYSQL_MAJOR", "3306/tcp", MY),
            ("MARIADB_VERSION", "3306/tcp", MARIA),
            ("REDIS_VERSION", "6379/tcp", REDIS),
            ("MONGO_MAJOR", "27017/tcp", MONGO),
            ("PG_MAJOR", "8080/tcp", None),
            ("PG_MAJOR", "5432/udp", None),
            ("PG_MAJOR", "", None),
            ("OTHER", "5432/tcp", None),
        ] {
            assert_eq!(detect(variable, port), engine, "{variable} {port}");
        }
    }

    #[test]
    fn strange_names_end_quietly() {
        for image in ["", "/", ":", "@", "a//b", "é/ü:ö@ä", "-", "postgres:", "@postgres", "host:1/"] {
            let _ = name(image);
        }
    }
}
