//! Redis, Valkey and KeyDB.
//!
//! Sources: Redis' documentation, "TLS"; tested with Redis 7.0 and 8.0 and Valkey 8.1. TLS has a port of its own; in an
//! enforcing mode the plaintext port is closed, so a health check has to use the other one.

use super::{
    Certificates, Check, Demand, Env, ExecScript, File, Launch, Obstacle, Order, PlainHello, Preamble,
    SEPARATE_FILES, SEPARATE_FILES_AND_CLIENT, Shape, Spec, Wired,
    command::{
        LongOption, elsewhere, file_name, last, long_options, server_arguments, server_program, shape,
        variable, wired_for_another,
    },
    healthcheck::{self, Client},
    script::{SAID_LIMIT, script},
    volatile_paths,
};
use crate::model::{ClientAuth, Engine};

const PROGRAMS: &[&str] = &["redis-server", "valkey-server", "keydb-server"];
const TLS_PORT: u16 = 6380;
const FILES: [(&str, &str); 3] =
    [("tls-cert-file", "server.crt"), ("tls-key-file", "server.key"), ("tls-ca-cert-file", "coolify-ca.crt")];
const ORDER: &str = include_str!("redis/order.sh");

pub struct Redis;

impl Spec for Redis {
    fn engine(&self) -> Engine {
        Engine::Redis
    }

    /// KeyDB's image keeps its configuration elsewhere.
    fn certificate_directory(&self, command: &[String]) -> &'static str {
        if is_keydb(command) { "/etc/keydb/certs" } else { "/etc/redis/certs" }
    }

    fn files(&self, client_auth: ClientAuth) -> &'static [File] {
        match client_auth {
            ClientAuth::Required => SEPARATE_FILES_AND_CLIENT,
            ClientAuth::None | ClientAuth::Optional => SEPARATE_FILES,
        }
    }

    fn flags(&self, directory: &str, demand: Demand) -> Vec<String> {
        let mut flags = vec!["--tls-port".to_owned(), TLS_PORT.to_string()];
        for (name, path) in paths(directory) {
            flags.extend([format!("--{name}"), path]);
        }
        flags.extend(["--tls-auth-clients", auth_clients(demand.client_auth)].map(str::to_owned));
        if demand.mode.enforces() {
            flags.extend(["--port", "0"].map(str::to_owned));
        }
        flags
    }

    fn wired(&self, command: &[String], demand: Demand) -> Wired {
        let options = options(command);
        let directory = self.certificate_directory(command);
        let paths = paths(directory);
        let elsewhere = elsewhere(&options, paths.iter().map(|(name, path)| (*name, path.as_str())));
        if !elsewhere.is_empty() {
            return Wired::Foreign(elsewhere);
        }
        let tls_port = last(&options, "tls-port");
        let is = |option: &&LongOption, value: &str| option.value.as_deref() == Some(value);
        let auth_clients = last(&options, "tls-auth-clients");
        // Without the last one it takes nobody in who has no certificate.
        let names = FILES.iter().map(|(name, _)| *name).chain(["tls-port", "tls-auth-clients"]);
        let missing = names.into_iter().any(|name| last(&options, name).is_none());
        let for_another =
            !missing && wired_for_another(command, demand, |demand| self.flags(directory, demand));
        let all_have_certificates = demand.requires_certificates() || for_another;
        // Closed; or wanted by plaintext; or only for clients with certificates, which nobody asked for here.
        let contradicts = [
            tls_port.filter(|option| is(option, "0")),
            plaintext_option(&options)
                .filter(|option| is(option, &self.port(command, &Env::new()).to_string())),
            auth_clients.filter(|option| !all_have_certificates && is(option, "yes")),
        ];
        if let Some(contradicts) = contradicts.into_iter().flatten().next() {
            return Wired::Conflict(vec![contradicts.written.clone()]);
        }
        let asks_too_little = match demand.client_auth {
            // One that asks and does not insist turns nobody away whom nobody asked: no reason to stop it.
            ClientAuth::None => false,
            ClientAuth::Optional => auth_clients.is_some_and(|option| is(&option, "no")),
            ClientAuth::Required => auth_clients.is_some_and(|option| !is(&option, "yes")),
        };
        if missing || asks_too_little || demand.mode.enforces() && is_open(&options) || for_another {
            Wired::Absent
        } else {
            Wired::Ours
        }
    }

    fn certificates(&self) -> Certificates {
        Certificates::Flags
    }

    /// It insists unless it is told otherwise.
    fn demands_certificates(&self, command: &[String]) -> bool {
        let options = options(command);
        number(&options, "tls-port").is_some_and(|port| port != 0)
            && last(&options, "tls-auth-clients").is_none_or(|option| option.value.as_deref() == Some("yes"))
    }

    /// The entrypoint puts the server's name also before a configuration file.
    fn command_shape(&self, image: Launch<'_>, container: Launch<'_>) -> Shape {
        let arguments = server_arguments(PROGRAMS, container.command);
        if let Some(sentinel) = arguments.iter().find(|argument| *argument == "--sentinel") {
            return Shape::ByHand(Obstacle::NotAServer { argument: sentinel.to_string() });
        }
        match container.command {
            [file, rest @ ..] if !container.entrypoint.is_empty() && is_configuration(file) => {
                let command: Vec<_> =
                    std::iter::once(PROGRAMS[0].to_owned()).chain(rest.iter().cloned()).collect();
                shape(PROGRAMS, image, Launch { command: &command, ..container })
            }
            _ => shape(PROGRAMS, image, container),
        }
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        number(&options(command), "tls-port").filter(|port| *port != 0).unwrap_or(TLS_PORT)
    }

    fn plaintext_port(&self, command: &[String], _env: &Env) -> u16 {
        let options = options(command);
        plaintext_option(&options).and_then(|option| option.value.as_deref()?.parse().ok()).unwrap_or(6379)
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        last(&options(command), "dir")
            .and_then(|option| option.value.clone())
            .unwrap_or_else(|| "/data".to_owned())
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["redis", "valkey", "keydb"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!("/root/.rediscli_history", "/root/.valkeycli_history")
    }

    fn healthcheck(&self, test: &[String], command: &[String], env: &Env, demand: Demand) -> Check {
        let directory = self.certificate_directory(command);
        let path = |name: &str| format!("{directory}/{name}");
        let (ca, certificate, key) = (path("coolify-ca.crt"), path("client.crt"), path("client.key"));
        let tls = Client {
            programs: &["redis-cli", "valkey-cli", "keydb-cli"],
            options: &["--tls", "--cacert", &ca],
            ports: Some((self.plaintext_port(command, env), self.port(command, env))),
            done_by: &["--tls", "-s"],
            beyond_us: &["-u"],
        };
        let client = ["--cert", &certificate, "--key", &key];
        let with_certificate = Client { options: &client, ports: None, done_by: &["--cert", "-s"], ..tls };
        healthcheck::adapt_to(demand, test, tls, with_certificate)
    }

    fn one_of_several(&self, command: &[String]) -> Option<String> {
        let options = options(command);
        let cluster =
            last(&options, "cluster-enabled").filter(|option| option.value.as_deref() == Some("yes"));
        let replica = || ["replicaof", "slaveof"].iter().find_map(|name| last(&options, name));
        cluster.or_else(replica).map(|option| option.written.clone())
    }

    fn order(&self, order: Order, command: &[String], env: &Env) -> Option<ExecScript> {
        let word = match order {
            Order::Reload => "reload",
            Order::RefusePlaintext => "refuse",
            // Its port says so.
            Order::RefusesPlaintext => return None,
        };
        let options = options(command);
        let parameters = [
            word.to_owned(),
            self.port(command, env).to_string(),
            if is_open(&options) { self.plaintext_port(command, env).to_string() } else { "0".to_owned() },
            self.certificate_directory(command).to_owned(),
            configuration(command).unwrap_or_default(),
        ];
        let stdin = format!("{}\n", password(&options, command, env).unwrap_or_default());
        Some(script(ORDER, parameters, Some(stdin.into_bytes()), SAID_LIMIT))
    }

    fn preamble(&self) -> Preamble {
        Preamble::Direct(PlainHello::RedisPing)
    }
}

const fn auth_clients(client_auth: ClientAuth) -> &'static str {
    match client_auth {
        ClientAuth::None => "no",
        ClientAuth::Optional => "optional",
        ClientAuth::Required => "yes",
    }
}

/// Settings and where we put what they name.
fn paths(directory: &str) -> [(&'static str, String); 3] {
    FILES.map(|(name, file)| (name, format!("{directory}/{file}")))
}

fn options(command: &[String]) -> Vec<LongOption> {
    long_options(&server_arguments(PROGRAMS, command))
}

fn is_open(options: &[LongOption]) -> bool {
    last(options, "port").is_none_or(|option| option.value.as_deref() != Some("0"))
}

/// The port for plaintext that its operator opened. The last one may be our own `--port 0`, which comes behind it.
fn plaintext_option(options: &[LongOption]) -> Option<&LongOption> {
    options.iter().rev().find(|option| option.name == "port" && option.value.as_deref() != Some("0"))
}

fn number(options: &[LongOption], name: &str) -> Option<u16> {
    last(options, name)?.value.as_deref()?.parse().ok()
}

/// The configuration file: what follows the server's name, or a name that the entrypoint takes for one. A relative one
/// is found where the server found it: what is run by `exec` starts in the same folder.
fn configuration(command: &[String]) -> Option<String> {
    let arguments = server_arguments(PROGRAMS, command);
    if let Some(file) = arguments.first().filter(|argument| !argument.starts_with('-')) {
        return Some(file.to_string());
    }
    let before_flags = command.iter().take_while(|word| *word == "--" || !word.starts_with('-'));
    before_flags.into_iter().find(|word| is_configuration(word)).cloned()
}

/// By its program or by where its configuration is. A password or a path among the options says nothing.
fn is_keydb(command: &[String]) -> bool {
    server_program(PROGRAMS, command).is_some_and(|program| file_name(&program) == "keydb-server")
        || configuration(command).is_some_and(|file| file.starts_with("/etc/keydb/"))
}

/// What the command sets as the password. A word of its own is that to the letter; in a shell's string a `$` means
/// something, of which only the whole value of a variable is known here.
fn password(options: &[LongOption], command: &[String], env: &Env) -> Option<String> {
    let written = last(options, "requirepass")?.value.clone()?;
    if command.contains(&written) || !written.contains(['$', '`']) {
        return Some(written);
    }
    env.get(variable(&written)?).cloned()
}

/// As the entrypoint has it: `${1%.conf}` differs from `$1`.
fn is_configuration(word: &str) -> bool {
    !word.starts_with('-') && word.strip_suffix(".conf").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn text(words: &[String]) -> String {
        words.join(" ")
    }

    const PATHS: &str = "--tls-port 6380 --tls-cert-file /etc/redis/certs/server.crt \
                         --tls-key-file /etc/redis/certs/server.key --tls-ca-cert-file /etc/redis/certs/coolify-ca.crt";

    fn ours(auth_clients: &str) -> String {
        format!("{PATHS} --tls-auth-clients {auth_clients}")
    }

    const NONE: ClientAuth = ClientAuth::None;
    const OPTIONAL: ClientAuth = ClientAuth::Optional;
    const REQUIRED: ClientAuth = ClientAuth::Required;

    #[test]
    fn flags_by_mode_and_by_what_is_asked_of_clients() {
        for mode in Mode::ALL {
            for (client_auth, word) in [(NONE, "no"), (OPTIONAL, "optional"), (REQUIRED, "yes")] {
                let wanted = if mode.enforces() { format!("{} --port 0", ours(word)) } else { ours(word) };
                let flags = Redis.flags("/etc/redis/certs", Demand { mode, client_auth });
                assert_eq!(text(&flags), wanted, "{mode} {client_auth}");
            }
        }
    }

    #[test]
    fn what_a_command_says_of_certificates() {
        let conflict = Wired::Conflict(list(&["--tls-auth-clients yes"]));
        let (ours_, absent) = (Wired::Ours, Wired::Absent);
        for (command, none, optional, required) in [
            (format!("{} --port 0", ours("no")), &ours_, &absent, &absent),
            (format!("{} --port 0", ours("optional")), &ours_, &ours_, &absent),
            (format!("{} --port 0", ours("yes")), &absent, &absent, &ours_),
            // Its operator's own: not at the end.
            (format!("{} --port 0 --save x", ours("no")), &ours_, &absent, &absent),
            (format!("{} --port 0 --save x", ours("yes")), &conflict, &conflict, &ours_),
            ("--tls-auth-clients yes".to_owned(), &conflict, &conflict, &absent),
        ] {
            let words: Vec<_> = format!("redis-server {command}").split(' ').map(str::to_owned).collect();
            for (client_auth, wanted) in [(NONE, none), (OPTIONAL, optional), (REQUIRED, required)] {
                let demand = Demand { mode: Mode::Require, client_auth };
                assert_eq!(Redis.wired(&words, demand), *wanted, "{command} {client_auth}");
            }
        }
    }

    #[test]
    fn a_health_check_shows_a_certificate_only_while_one_is_demanded() {
        const TLS: &str = "redis-cli --tls --cacert /etc/redis/certs/coolify-ca.crt";
        const SHOWN: &str = "redis-cli --cert /etc/redis/certs/client.crt --key /etc/redis/certs/client.key";
        let check = |script: &str, mode, client_auth| {
            let (test, command) = (list(&["CMD-SHELL", script]), list(&["redis-server"]));
            match Redis.healthcheck(&test, &command, &Env::new(), Demand { mode, client_auth }) {
                Check::Works => script.to_owned(),
                Check::Adapted(words) => words[1].clone(),
                Check::Unknown(why) => panic!("{why}"),
            }
        };
        let shown = TLS.replacen("redis-cli", SHOWN, 1);
        let tls = format!("{TLS} -p 6380 ping | grep PONG");
        let with = format!("{shown} -p 6380 ping | grep PONG");
        for before in ["redis-cli ping | grep PONG", &tls, &with] {
            assert_eq!(check(before, Mode::Require, REQUIRED), with, "{before}");
            assert_eq!(check(before, Mode::Require, OPTIONAL), tls, "{before}");
            assert_eq!(check(before, Mode::VerifyFull, NONE), tls, "{before}");
        }
        assert_eq!(check("redis-cli ping", Mode::Prefer, NONE), "redis-cli ping");
        assert_eq!(check(&with, Mode::Prefer, NONE), tls);
        let own = "redis-cli --tls --cert /mine.crt --key /mine.key -p 6380 ping";
        assert_eq!(check(own, Mode::Require, REQUIRED), own);
        let test = list(&["CMD", "redis-cli", "ping"]);
        let demand = Demand { mode: Mode::Require, client_auth: REQUIRED };
        let adapted = Redis.healthcheck(&test, &list(&["keydb-server"]), &Env::new(), demand);
        let Check::Adapted(adapted) = adapted else { panic!("{adapted:?}") };
        assert_eq!(
            text(&adapted),
            "CMD redis-cli --cert /etc/keydb/certs/client.crt --key /etc/keydb/certs/client.key --tls --cacert /etc/keydb/certs/coolify-ca.crt -p 6380 ping"
        );
        let plain = Redis.healthcheck(&adapted, &list(&["keydb-server"]), &Env::new(), Mode::Require.into());
        assert_eq!(
            plain,
            Check::Adapted(list(&[
                "CMD",
                "redis-cli",
                "--tls",
                "--cacert",
                "/etc/keydb/certs/coolify-ca.crt",
                "-p",
                "6380",
                "ping"
            ]))
        );
    }

    #[test]
    fn keydb_has_a_folder_of_its_own() {
        for (command, directory) in [
            (&["keydb-server", "/etc/keydb/keydb.conf"][..], "/etc/keydb/certs"),
            (&["docker-entrypoint.sh", "/usr/local/bin/keydb-server"], "/etc/keydb/certs"),
            (&["docker-entrypoint.sh", "/etc/keydb/keydb.conf"], "/etc/keydb/certs"),
            (&["sh", "-c", "exec keydb-server --requirepass $X"], "/etc/keydb/certs"),
            (&["valkey-server"], "/etc/redis/certs"),
            (&["redis-server", "--requirepass", "keydb"], "/etc/redis/certs"),
            (&["redis-server", "--requirepass", "keydb-server"], "/etc/redis/certs"),
            (&["--requirepass", "keydb-server"], "/etc/redis/certs"),
            (
                &["redis-server", "--dir", "/data/keydb", "--aclfile", "/etc/keydb/acl.conf"],
                "/etc/redis/certs",
            ),
            (&["redis-server", "/keydb.conf", "--logfile", "/log/keydb-server"], "/etc/redis/certs"),
        ] {
            let command = list(command);
            assert_eq!(Redis.certificate_directory(&command), directory, "{command:?}");
            let wired = Redis.wire(Launch { entrypoint: &[], command: &command }, Mode::Prefer.into());
            assert!(text(&wired).contains(&format!("--tls-cert-file {directory}/server.crt")), "{command:?}");
            // With its flags it is the same.
            assert_eq!(Redis.certificate_directory(&wired), directory, "{wired:?}");
        }
    }

    #[test]
    fn flags_are_appended_to_a_server_to_flags_and_to_a_configuration_file() {
        let image = list(&["docker-entrypoint.sh"]);
        let shape = |command: &[&str]| {
            let command = list(command);
            let container = Launch { entrypoint: &image, command: &command };
            Redis.command_shape(Launch { entrypoint: &image, command: &[] }, container)
        };
        for command in [
            &["redis-server"][..],
            // Coolify's.
            &["redis-server", "--requirepass", "x", "--appendonly", "yes"],
            &["--requirepass", "x"],
            &["/usr/local/etc/redis/redis.conf"],
            &["redis.conf", "--save", ""],
            &["redis-server", "/etc/redis.conf"],
            &["valkey-server"],
            &["keydb-server", "/etc/keydb/keydb.conf", "--server-threads", "2"],
        ] {
            assert_eq!(shape(command), Shape::Appendable, "{command:?}");
        }
        for command in [
            &["sh", "-c", "redis-server --requirepass $X"][..],
            &["redis-sentinel", "/s.conf"],
            &["redis-server", "/s.conf", "--sentinel"],
            &["/run.sh"],
            &[],
        ] {
            assert_ne!(shape(command), Shape::Appendable, "{command:?}");
        }
    }

    #[test]
    fn what_a_command_says_of_tls() {
        let own = |more: &str| format!("redis-server {} {more}", ours("no"));
        let conflict = |text: &str| Wired::Conflict(list(&[text]));
        for (command, allow, require) in [
            ("redis-server".to_owned(), Wired::Absent, Wired::Absent),
            (own(""), Wired::Ours, Wired::Absent),
            (own("--port 0"), Wired::Absent, Wired::Ours),
            (own("--port 0 --appendonly yes"), Wired::Ours, Wired::Ours),
            ("redis-server --port 7000".to_owned(), Wired::Absent, Wired::Absent),
            ("redis-server --tls-port 0".to_owned(), conflict("--tls-port 0"), conflict("--tls-port 0")),
            ("redis-server --port 6380".to_owned(), conflict("--port 6380"), conflict("--port 6380")),
            (
                "redis-server --tls-auth-clients yes".to_owned(),
                conflict("--tls-auth-clients yes"),
                conflict("--tls-auth-clients yes"),
            ),
            (
                "redis-server --tls-port 6379 --tls-cert-file /mine".to_owned(),
                Wired::Foreign(list(&["--tls-cert-file /mine"])),
                Wired::Foreign(list(&["--tls-cert-file /mine"])),
            ),
        ] {
            let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
            assert_eq!(Redis.wired(&words, Mode::Allow.into()), allow, "{command}");
            assert_eq!(Redis.wired(&words, Mode::Require.into()), require, "{command}");
        }
    }

    #[test]
    fn the_plaintext_port_is_what_its_operator_opened() {
        let port = |words: &[&str]| Redis.plaintext_port(&list(words), &Env::new());
        assert_eq!(port(&["redis-server"]), 6379);
        assert_eq!(port(&["redis-server", "--port", "7000"]), 7000);
        assert_eq!(port(&["redis-server", "--port", "7000", "--tls-port", "6380", "--port", "0"]), 7000);
        assert_eq!(Redis.port(&list(&["redis-server", "--tls-port", "7001"]), &Env::new()), 7001);
    }

    #[test]
    fn a_password_of_the_command_is_standard_input_and_no_argument() {
        let command = list(&["redis-server", "--requirepass", "hunter2"]);
        let script = Redis.order(Order::Reload, &command, &Env::new()).unwrap();
        assert_eq!(script.stdin.as_ref().unwrap().expose(), b"hunter2\n");
        assert!(!text(&script.argv).contains("hunter2"));
        let script = Redis.order(Order::Reload, &list(&["redis-server", "/r.conf"]), &Env::new()).unwrap();
        assert_eq!(script.stdin.as_ref().unwrap().expose(), b"\n");
        assert_eq!(script.argv.last().map(String::as_str), Some("/r.conf"));
    }

    #[test]
    fn the_configuration_file_is_handed_over_however_the_command_names_it() {
        for (command, file) in [
            (&["/usr/local/etc/redis/redis.conf"][..], "/usr/local/etc/redis/redis.conf"),
            (&["docker-entrypoint.sh", "redis.conf", "--save", "x.conf"], "redis.conf"),
            (&["tini", "--", "docker-entrypoint.sh", "/r.conf"], "/r.conf"),
            (&["redis-server", "conf/r.conf"], "conf/r.conf"),
            (&["docker-entrypoint.sh", "redis-server", "/config"], "/config"),
            (&["sh", "-c", "cp /a.conf /b.conf && redis-server /b.conf"], "/b.conf"),
            (&["sh", "-c", "cp /a.conf /b.conf && redis-server --save x"], ""),
            (&["redis-server", "--aclfile", "/acl.conf"], ""),
            (&["redis-server"], ""),
        ] {
            let command = list(command);
            let wired = Redis.wire(Launch { entrypoint: &[], command: &command }, Mode::Require.into());
            for command in [command, wired] {
                let script = Redis.order(Order::Reload, &command, &Env::new()).unwrap();
                assert_eq!(script.argv.last().map(String::as_str), Some(file), "{command:?}");
            }
        }
    }

    #[test]
    fn a_dollar_belongs_to_the_password_unless_a_shell_reads_it() {
        let env = Env::from([("PW".to_owned(), "p".to_owned())]);
        for (command, password) in [
            (&["redis-server", "--requirepass", "$PW"][..], "$PW"),
            (&["redis-server", "--requirepass", "pa$PW`x`"], "pa$PW`x`"),
            (&["sh", "-c", "redis-server --requirepass plain"], "plain"),
            (&["sh", "-c", "redis-server --requirepass \"$PW\""], "p"),
            (&["sh", "-c", "redis-server --requirepass ${PW}"], "p"),
            (&["sh", "-c", "redis-server --requirepass $OTHER"], ""),
            (&["sh", "-c", "redis-server --requirepass x$PW"], ""),
            (&["sh", "-c", "redis-server --requirepass \"$(cat /pw)\""], ""),
            (&["sh", "-c", "redis-server --requirepass `cat /pw`"], ""),
        ] {
            let script = Redis.order(Order::Reload, &list(command), &env).unwrap();
            let wanted = format!("{password}\n").into_bytes();
            assert_eq!(script.stdin.unwrap().expose(), wanted, "{command:?}");
        }
    }

    #[test]
    fn a_health_check_follows_to_the_port_that_is_left() {
        let test = list(&["CMD", "redis-cli", "ping"]);
        let command = list(&["redis-server"]);
        let check = |mode: Mode| Redis.healthcheck(&test, &command, &Env::new(), mode.into());
        assert_eq!(check(Mode::Allow), Check::Works);
        let Check::Adapted(adapted) = check(Mode::Require) else { panic!("it has to be adapted") };
        assert_eq!(
            text(&adapted),
            "CMD redis-cli --tls --cacert /etc/redis/certs/coolify-ca.crt -p 6380 ping"
        );
    }

    #[test]
    fn one_of_several_servers_is_told_by_its_options() {
        for (command, option) in [
            ("redis-server --cluster-enabled yes", Some("--cluster-enabled yes")),
            ("redis-server --replicaof master 6379", Some("--replicaof master")),
            ("redis-server --cluster-enabled no", None),
        ] {
            let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
            assert_eq!(Redis.one_of_several(&words).as_deref(), option, "{command}");
        }
    }
}
