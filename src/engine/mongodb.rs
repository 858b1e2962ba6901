//! MongoDB and Percona Server for MongoDB.
//!
//! Sources: MongoDB's manual, "mongod" (TLS options), "rotateCertificates", "tlsMode". Tested with a stand-in only
//! (`tests/images/mongodb-standin`). mongod refuses an option that is given twice: what is there is replaced.

use super::{
    Certificates, Check, Demand, Env, ExecScript, File, Holds, Launch, Order, PlainHello, Preamble, Spec,
    Wired,
    command::{
        LongOption, elsewhere, last, long_options, server_arguments, wired_for_another, without_tails,
    },
    healthcheck::{self, Client},
    script::{SAID_LIMIT, script},
    volatile_paths,
};
use crate::model::{ClientAuth, Engine, Mode};

const PROGRAMS: &[&str] = &["mongod"];
const DIRECTORY: &str = "/etc/mongo/certs";
const TLS_MODE: &str = "tlsMode";
const WITHOUT_CERTIFICATES: &str = "tlsAllowConnectionsWithoutCertificates";
const PATHS: [(&str, &str); 2] =
    [("tlsCertificateKeyFile", "/etc/mongo/certs/server.pem"), ("tlsCAFile", "/etc/mongo/certs/ca.pem")];
/// For clients within the container, where certificates are demanded.
const CLIENT: &str = "/etc/mongo/certs/client.pem";
/// What these options were called before 4.2.
const FORMER: [&str; 4] = ["sslMode", "sslPEMKeyFile", "sslCAFile", "sslOnNormalPorts"];
const ORDER: &str = include_str!("mongodb/order.sh");

pub struct Mongodb;

impl Spec for Mongodb {
    fn engine(&self) -> Engine {
        Engine::Mongodb
    }

    fn certificate_directory(&self, _command: &[String]) -> &'static str {
        DIRECTORY
    }

    fn files(&self, client_auth: ClientAuth) -> &'static [File] {
        let with_client = &[
            File { name: "server.pem", holds: Holds::ChainAndKey, mode: 0o600 },
            File { name: "ca.pem", holds: Holds::Ca, mode: 0o644 },
            // mongosh has no way in but the port that demands a certificate.
            File { name: "client.pem", holds: Holds::ClientChainAndKey, mode: 0o600 },
        ];
        match client_auth {
            ClientAuth::Required => with_client,
            ClientAuth::None | ClientAuth::Optional => &with_client[..2],
        }
    }

    fn flags(&self, _directory: &str, demand: Demand) -> Vec<String> {
        flags(demand)
    }

    fn wired(&self, command: &[String], demand: Demand) -> Wired {
        let options = options(command);
        let of = |name: &str| last(&options, &name.to_ascii_lowercase());
        let former: Vec<_> =
            FORMER.iter().filter_map(|name| of(name)).map(|option| option.written.clone()).collect();
        if !former.is_empty() {
            return Wired::Foreign(former);
        }
        let tls = of(TLS_MODE);
        let value = tls.and_then(|option| option.value.as_deref()).unwrap_or_default();
        if let Some(off) = tls.filter(|_| value == "disabled") {
            return Wired::Conflict(vec![off.written.clone()]);
        }
        let lower = PATHS.map(|(name, path)| (name.to_ascii_lowercase(), path));
        let elsewhere = elsewhere(&options, lower.iter().map(|(name, path)| (name.as_str(), *path)));
        if !elsewhere.is_empty() {
            return Wired::Foreign(elsewhere);
        }
        if tls.is_none() || PATHS.iter().any(|(name, _)| of(name).is_none()) {
            return Wired::Absent;
        }
        // Without it, it takes nobody in who has no certificate.
        let demands = of(WITHOUT_CERTIFICATES).is_none();
        if demands != demand.requires_certificates()
            || demand.mode.enforces() && value != "requireTLS"
            || wired_for_another(command, demand, flags)
        {
            Wired::Absent
        } else {
            Wired::Ours
        }
    }

    fn wire(&self, launch: Launch<'_>, demand: Demand) -> Vec<String> {
        let mut command = without(&without_tails(launch.command, flags));
        command.extend(flags(demand));
        command
    }

    fn certificates(&self) -> Certificates {
        Certificates::Flags
    }

    fn demands_certificates(&self, command: &[String]) -> bool {
        let options = options(command);
        let of = |name: &str| last(&options, &name.to_ascii_lowercase());
        of(PATHS[1].0).is_some() && of(WITHOUT_CERTIFICATES).is_none()
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        last(&options(command), "port")
            .and_then(|option| option.value.as_deref()?.parse().ok())
            .unwrap_or(27017)
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        last(&options(command), "dbpath")
            .and_then(|option| option.value.clone())
            .unwrap_or_else(|| "/data/db".to_owned())
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["mongodb", "mongod"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!(
            "/root/.mongodb",
            "/root/.mongosh",
            "/root/.dbshell",
            "/data/db/.mongodb",
            "/data/db/.mongosh"
        )
    }

    /// The name is not checked: a health check may ask for the container's host name, which nobody else does.
    fn healthcheck(&self, test: &[String], _command: &[String], _env: &Env, demand: Demand) -> Check {
        let tls = Client {
            programs: &["mongosh", "mongo"],
            options: &["--tls", "--tlsCAFile", PATHS[1].1, "--tlsAllowInvalidHostnames"],
            ports: None,
            done_by: &["--tls", "--ssl"],
            beyond_us: &[],
        };
        let client = ["--tlsCertificateKeyFile", CLIENT];
        let with_certificate = Client { options: &client, done_by: &["--tlsCertificateKeyFile"], ..tls };
        healthcheck::adapt_to(demand, test, tls, with_certificate)
    }

    fn one_of_several(&self, command: &[String]) -> Option<String> {
        let options = options(command);
        let several = ["replset", "configsvr", "shardsvr"].iter().find_map(|name| last(&options, name));
        several.map(|option| option.written.clone())
    }

    fn order(&self, order: Order, command: &[String], env: &Env) -> Option<ExecScript> {
        let statement = match order {
            Order::Reload => "db.adminCommand({rotateCertificates: 1}).ok",
            Order::RefusePlaintext => "db.adminCommand({setParameter: 1, tlsMode: \"requireTLS\"}).ok",
            // It hangs up on whoever comes without TLS.
            Order::RefusesPlaintext => return None,
        };
        let parameters = [self.port(command, env).to_string(), statement.to_owned(), CLIENT.to_owned()];
        Some(script(ORDER, parameters, None, SAID_LIMIT))
    }

    fn preamble(&self) -> Preamble {
        Preamble::Direct(PlainHello::MongodbHello)
    }
}

/// With a CA it asks for a certificate in any case.
fn flags(demand: Demand) -> Vec<String> {
    let mut flags = vec![format!("--{TLS_MODE}={}", tls_mode(demand.mode))];
    flags.extend(PATHS.iter().map(|(name, path)| format!("--{name}={path}")));
    if !demand.requires_certificates() {
        flags.push(format!("--{WITHOUT_CERTIFICATES}"));
    }
    flags
}

const fn tls_mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Allow => "allowTLS",
        Mode::Prefer => "preferTLS",
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => "requireTLS",
    }
}

/// The command without the options that ours say anew.
fn without(command: &[String]) -> Vec<String> {
    let ours = |word: &str| {
        let name = word.strip_prefix("--").unwrap_or_default().split('=').next().unwrap_or_default();
        PATHS.iter().map(|(name, _)| *name).chain([TLS_MODE, WITHOUT_CERTIFICATES]).any(|ours| ours == name)
    };
    let mut kept = Vec::with_capacity(command.len());
    let mut words = command.iter().peekable();
    while let Some(word) = words.next() {
        if !ours(word) {
            kept.push(word.clone());
        } else if !word.contains('=') && !word.ends_with(WITHOUT_CERTIFICATES) {
            // Its value is the next word.
            words.next();
        }
    }
    kept
}

fn options(command: &[String]) -> Vec<LongOption> {
    long_options(&server_arguments(PROGRAMS, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split_whitespace().map(str::to_owned).collect()
    }

    const REST: &str = "--tlsCertificateKeyFile=/etc/mongo/certs/server.pem --tlsCAFile=/etc/mongo/certs/ca.pem \
                        --tlsAllowConnectionsWithoutCertificates";

    #[test]
    fn flags_by_mode() {
        for (mode, word) in [
            (Mode::Allow, "allowTLS"),
            (Mode::Prefer, "preferTLS"),
            (Mode::Require, "requireTLS"),
            (Mode::VerifyCa, "requireTLS"),
            (Mode::VerifyFull, "requireTLS"),
        ] {
            for client_auth in ClientAuth::ALL {
                let without = REST.strip_suffix(" --tlsAllowConnectionsWithoutCertificates").unwrap();
                let rest = if client_auth == ClientAuth::Required { without } else { REST };
                let flags = Mongodb.flags(DIRECTORY, Demand { mode, client_auth }).join(" ");
                assert_eq!(flags, format!("--tlsMode={word} {rest}"), "{mode} {client_auth}");
            }
        }
    }

    /// mongod ends at an option that is given twice.
    #[test]
    fn what_is_there_is_replaced() {
        for command in [
            "mongod --auth",
            "mongod --auth --tlsAllowConnectionsWithoutCertificates",
            "mongod --tlsMode preferTLS --auth",
            "mongod --tlsMode=requireTLS --tlsCAFile /etc/mongo/certs/ca.pem --auth",
        ] {
            let command = words(command);
            let wired = Mongodb.wire(Launch { entrypoint: &[], command: &command }, Mode::Require.into());
            assert_eq!(wired.join(" "), format!("mongod --auth --tlsMode=requireTLS {REST}"), "{command:?}");
        }
    }

    #[test]
    fn what_a_command_says_of_tls() {
        let conflict = |text: &str| Wired::Conflict(vec![text.to_owned()]);
        let foreign = |text: &str| Wired::Foreign(vec![text.to_owned()]);
        for (command, allow, require) in [
            ("mongod".to_owned(), Wired::Absent, Wired::Absent),
            (format!("mongod --tlsMode=preferTLS {REST}"), Wired::Ours, Wired::Absent),
            (format!("mongod --tlsMode=requireTLS {REST}"), Wired::Absent, Wired::Ours),
            (format!("mongod --tlsMode requireTLS {REST} --auth"), Wired::Ours, Wired::Ours),
            (
                "mongod --tlsMode disabled".to_owned(),
                conflict("--tlsMode disabled"),
                conflict("--tlsMode disabled"),
            ),
            (
                "mongod --tlsMode requireTLS --tlsCertificateKeyFile /mine".to_owned(),
                foreign("--tlsCertificateKeyFile /mine"),
                foreign("--tlsCertificateKeyFile /mine"),
            ),
            (
                "mongod --sslMode requireSSL".to_owned(),
                foreign("--sslMode requireSSL"),
                foreign("--sslMode requireSSL"),
            ),
        ] {
            assert_eq!(Mongodb.wired(&words(&command), Mode::Allow.into()), allow, "{command}");
            assert_eq!(Mongodb.wired(&words(&command), Mode::Require.into()), require, "{command}");
        }
    }

    #[test]
    fn certificates_are_demanded_where_it_is_not_told_to_do_without() {
        let without = REST.strip_suffix(" --tlsAllowConnectionsWithoutCertificates").unwrap();
        let required = Demand { mode: Mode::Require, client_auth: ClientAuth::Required };
        let optional = Demand { client_auth: ClientAuth::Optional, ..required };
        for (rest, for_required, for_optional) in
            [(REST, Wired::Absent, Wired::Ours), (without, Wired::Ours, Wired::Absent)]
        {
            let command = words(&format!("mongod --tlsMode=requireTLS {rest} --auth"));
            assert_eq!(Mongodb.wired(&command, required), for_required, "{rest}");
            assert_eq!(Mongodb.wired(&command, optional), for_optional, "{rest}");
            assert_eq!(Mongodb.demands_certificates(&command), rest == without);
            for (demand, rest) in [(required, without), (optional, REST)] {
                let wired = Mongodb.wire(Launch { entrypoint: &[], command: &command }, demand);
                assert_eq!(wired.join(" "), format!("mongod --auth --tlsMode=requireTLS {rest}"));
            }
        }
        let test = words("CMD mongosh --eval 1");
        let check = Mongodb.healthcheck(&test, &[], &Env::new(), required);
        let Check::Adapted(adapted) = check else { panic!("{check:?}") };
        assert_eq!(
            adapted.join(" "),
            "CMD mongosh --tlsCertificateKeyFile /etc/mongo/certs/client.pem --tls --tlsCAFile \
             /etc/mongo/certs/ca.pem --tlsAllowInvalidHostnames --eval 1"
        );
        assert_eq!(Mongodb.healthcheck(&adapted, &[], &Env::new(), required), Check::Works);
        let back = Mongodb.healthcheck(&adapted, &[], &Env::new(), optional);
        let Check::Adapted(back) = back else { panic!("{back:?}") };
        assert!(!back.concat().contains("client.pem") && back.concat().contains("--tlsCAFile"));
    }

    #[test]
    fn no_password_is_an_argument() {
        let env = Env::from([("MONGO_INITDB_ROOT_PASSWORD".to_owned(), "hunter2".to_owned())]);
        let script = Mongodb.order(Order::Reload, &words("mongod"), &env).unwrap();
        assert!(script.stdin.is_none() && !script.argv.concat().contains("hunter2"));
    }

    #[test]
    fn one_of_several_servers_is_told_by_its_options() {
        for (command, option) in [("mongod --replSet rs0", Some("--replSet rs0")), ("mongod --auth", None)] {
            let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
            assert_eq!(Mongodb.one_of_several(&words).as_deref(), option, "{command}");
        }
    }
}
