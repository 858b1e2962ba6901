//! What a client does with its certificate, and what the server needs so that it counts for something.
//!
//! Nothing printed here is secret: passwords are asked for, or come on top.

use super::shell_word;
use crate::model::{ClientAuth, Engine};

/// O and OU of users' certificates, by which MongoDB tells them from members of its cluster.
pub const ORGANIZATION: (&str, &str) = ("dbssl", "clients");

/// A certificate that was issued, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Issued<'a> {
    pub user: &'a str,
    /// A name that the server's certificate has.
    pub host: &'a str,
    pub port: u16,
    /// Where client.crt, client.key, client.pem and coolify-ca.crt are.
    pub folder: &'a str,
    /// What is asked of clients now.
    pub client_auth: ClientAuth,
    /// Of the certificate, as `X509_NAME_oneline` writes them; `None` if that is not known.
    pub subject: Option<&'a str>,
    pub issuer: Option<&'a str>,
    /// The subject by RFC 2253.
    pub subject_rfc2253: Option<&'a str>,
}

/// Whether the subject needs O and OU.
pub fn organization(engine: Engine) -> Option<(&'static str, &'static str)> {
    (engine == Engine::Mongodb).then_some(ORGANIZATION)
}

/// For people: how the client connects, then what the server needs. What is indented is to be used as it is.
pub fn advice(engine: Engine, issued: &Issued<'_>) -> String {
    let mut text = String::from("connect (for other places and drivers see dbssl url):\n");
    let lines = match engine {
        Engine::Postgres => postgres(issued),
        Engine::Mysql => mysql(issued, "mysql", &["--ssl-mode=VERIFY_IDENTITY"]),
        Engine::Mariadb => mysql(issued, "mariadb", &["--ssl", "--ssl-verify-server-cert"]),
        Engine::Redis => redis(issued),
        Engine::Mongodb => mongodb(issued),
    };
    text.push_str(&lines);
    let asks = !matches!(engine, Engine::Postgres | Engine::Redis) || issued.client_auth != ClientAuth::None;
    if !asks {
        text.push_str(
            "the server does not ask for certificates yet: set dbssl.client-auth=optional, or required\n",
        );
    }
    text
}

fn path(issued: &Issued<'_>, name: &str) -> String {
    format!("{}/{name}", issued.folder.trim_end_matches('/'))
}

fn indented(line: &str) -> String {
    format!("    {line}\n")
}

fn command(words: &[&str]) -> String {
    indented(&words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" "))
}

/// A value of a connection string (libpq's manual: "Keyword/Value Connection Strings").
fn conninfo(value: &str) -> String {
    if !value.is_empty() && !value.contains([' ', '\'', '\\']) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

fn postgres(issued: &Issued<'_>) -> String {
    let pairs = [
        ("host", issued.host.to_owned()),
        ("port", issued.port.to_string()),
        ("user", issued.user.to_owned()),
        ("dbname", "postgres".to_owned()),
        ("sslmode", "verify-full".to_owned()),
        ("sslrootcert", path(issued, "coolify-ca.crt")),
        ("sslcert", path(issued, "client.crt")),
        ("sslkey", path(issued, "client.key")),
    ];
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={}", conninfo(value))).collect();
    let user = format!("\"{}\"", issued.user.replace('"', "\"\""));
    [
        &command(&["psql", &pairs.join(" ")]),
        "to let it in by the certificate alone: this line in pg_hba.conf, above the others for TLS (below the block of dbssl), then a reload:\n",
        &indented(&format!("hostssl all {user} all cert")),
        "to demand it beside a password: clientcert=verify-full at the end of a line of pg_hba.conf\n",
    ]
    .concat()
}

fn mysql(issued: &Issued<'_>, program: &str, verify: &[&str]) -> String {
    let (host, port, user) = (
        format!("--host={}", issued.host),
        format!("--port={}", issued.port),
        format!("--user={}", issued.user),
    );
    let option = |option: &str, name: &str| format!("--ssl-{option}={}", path(issued, name));
    let (ca, cert, key) =
        (option("ca", "coolify-ca.crt"), option("cert", "client.crt"), option("key", "client.key"));
    let mut words = vec![program, &host, &port, &user, "--password"];
    words.extend(verify);
    words.extend([ca.as_str(), &cert, &key]);
    let account = format!("{}@'%'", sql(issued.user));
    let mut text = command(&words);
    text.push_str("the server demands it once its account does; any certificate of the CA:\n");
    text.push_str(&indented(&format!("ALTER USER {account} REQUIRE X509;")));
    if let (Some(subject), Some(issuer)) = (issued.subject, issued.issuer) {
        text.push_str("or only one for this user by this CA (change it when the CA changes):\n");
        let require = format!("REQUIRE ISSUER {} AND SUBJECT {}", sql(issuer), sql(subject));
        text.push_str(&indented(&format!("ALTER USER {account} {require};")));
    }
    text
}

/// A string of MySQL's.
fn sql(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

fn redis(issued: &Issued<'_>) -> String {
    let (port, ca) = (issued.port.to_string(), path(issued, "coolify-ca.crt"));
    let (cert, key) = (path(issued, "client.crt"), path(issued, "client.key"));
    let words = ["redis-cli", "-h", issued.host, "-p", &port, "--tls", "--cacert", &ca];
    let more = ["--cert", &cert, "--key", &key, "--user", issued.user, "--askpass"];
    [
        &command(&[&words[..], &more].concat()),
        "user and password count as before (ACL SETUSER): the server does not look at the name in the certificate; with \
         dbssl.client-auth=required it takes nobody without one\n",
    ]
    .concat()
}

fn mongodb(issued: &Issued<'_>) -> String {
    let uri = format!(
        "mongodb://{}:{}/?authMechanism=MONGODB-X509&authSource=%24external",
        issued.host, issued.port
    );
    let (ca, pem) = (path(issued, "coolify-ca.crt"), path(issued, "client.pem"));
    let mut text = command(&["mongosh", &uri, "--tls", "--tlsCAFile", &ca, "--tlsCertificateKeyFile", &pem]);
    if let Some(subject) = issued.subject_rfc2253 {
        // A string of JavaScript's.
        let subject = serde_json::json!(subject);
        text.push_str("make the user once, with the roles that it is to have:\n");
        text.push_str(&indented(&format!(
            "db.getSiblingDB(\"$external\").runCommand({{createUser: {subject}, roles: [{{role: \"readWrite\", db: \"test\"}}]}})"
        )));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUED: Issued<'_> = Issued {
        user: "app",
        host: "shop-db-1",
        port: 5432,
        folder: "/etc/app/tls",
        client_auth: ClientAuth::Optional,
        subject: Some("/CN=app"),
        issuer: Some("/CN=dbssl CA host 0a1b2c3d"),
        subject_rfc2253: Some("CN=app,OU=clients,O=dbssl"),
    };

    fn used(engine: Engine, issued: &Issued<'_>) -> Vec<String> {
        let text = advice(engine, issued);
        text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
    }

    #[test]
    fn each_engine_says_how_to_connect_and_what_its_server_needs() {
        for (engine, port, lines) in [
            (
                Engine::Postgres,
                5432,
                &[
                    "psql 'host=shop-db-1 port=5432 user=app dbname=postgres sslmode=verify-full sslrootcert=/etc/app/tls/coolify-ca.crt sslcert=/etc/app/tls/client.crt sslkey=/etc/app/tls/client.key'",
                    "hostssl all \"app\" all cert",
                ][..],
            ),
            (
                Engine::Mysql,
                3306,
                &[
                    "mysql --host=shop-db-1 --port=3306 --user=app --password --ssl-mode=VERIFY_IDENTITY --ssl-ca=/etc/app/tls/coolify-ca.crt --ssl-cert=/etc/app/tls/client.crt --ssl-key=/etc/app/tls/client.key",
                    "ALTER USER 'app'@'%' REQUIRE X509;",
                    "ALTER USER 'app'@'%' REQUIRE ISSUER '/CN=dbssl CA host 0a1b2c3d' AND SUBJECT '/CN=app';",
                ],
            ),
            (
                Engine::Mariadb,
                3306,
                &[
                    "mariadb --host=shop-db-1 --port=3306 --user=app --password --ssl --ssl-verify-server-cert --ssl-ca=/etc/app/tls/coolify-ca.crt --ssl-cert=/etc/app/tls/client.crt --ssl-key=/etc/app/tls/client.key",
                    "ALTER USER 'app'@'%' REQUIRE X509;",
                    "ALTER USER 'app'@'%' REQUIRE ISSUER '/CN=dbssl CA host 0a1b2c3d' AND SUBJECT '/CN=app';",
                ],
            ),
            (
                Engine::Redis,
                6380,
                &[
                    "redis-cli -h shop-db-1 -p 6380 --tls --cacert /etc/app/tls/coolify-ca.crt --cert /etc/app/tls/client.crt --key /etc/app/tls/client.key --user app --askpass",
                ],
            ),
            (
                Engine::Mongodb,
                27017,
                &[
                    "mongosh 'mongodb://shop-db-1:27017/?authMechanism=MONGODB-X509&authSource=%24external' --tls --tlsCAFile /etc/app/tls/coolify-ca.crt --tlsCertificateKeyFile /etc/app/tls/client.pem",
                    "db.getSiblingDB(\"$external\").runCommand({createUser: \"CN=app,OU=clients,O=dbssl\", roles: [{role: \"readWrite\", db: \"test\"}]})",
                ],
            ),
        ] {
            assert_eq!(used(engine, &Issued { port, ..ISSUED }), lines, "{engine}");
        }
    }

    #[test]
    fn odd_users_and_folders_are_quoted_for_whoever_reads_them() {
        let odd = Issued {
            user: "o'b \"x\" \\",
            folder: "/my dir/",
            subject: Some("/CN=o'b \\"),
            subject_rfc2253: Some("CN=o'b \\\"x\\\""),
            ..ISSUED
        };
        let lines = used(Engine::Postgres, &odd);
        assert!(lines[0].contains(r"sslcert='\''/my dir/client.crt'\''"), "{}", lines[0]);
        assert_eq!(lines[1], r#"hostssl all "o'b ""x"" \" all cert"#);
        let lines = used(Engine::Mysql, &odd);
        assert!(lines[0].contains("'--ssl-cert=/my dir/client.crt'"), "{}", lines[0]);
        assert!(lines[2].ends_with(r"SUBJECT '/CN=o''b \\';"), "{}", lines[2]);
        let lines = used(Engine::Mongodb, &odd);
        assert!(lines[1].contains(r#"createUser: "CN=o'b \\\"x\\\"","#), "{}", lines[1]);
    }

    #[test]
    fn a_server_that_does_not_ask_is_told_of() {
        for engine in Engine::ALL {
            for client_auth in ClientAuth::ALL {
                let told = advice(engine, &Issued { client_auth, ..ISSUED }).contains("does not ask");
                let expected =
                    matches!(engine, Engine::Postgres | Engine::Redis) && client_auth == ClientAuth::None;
                assert_eq!(told, expected, "{engine} {client_auth}");
            }
        }
    }
}
