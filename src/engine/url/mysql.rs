//! MySQL's clients, and what MariaDB's share with them.
//!
//! Sources: Connector/J's manual ("Security") and `ExportControlled.java`; mysql2's `connection_config.js` and
//! `connection.js`; SQLAlchemy's `mysqldb.py` and PyMySQL's `connections.py`; Go-MySQL-Driver's README; MySQL's manual,
//! "Command Options for Encrypted Connections".

use super::{Driver, Target, Text, go_trusts, java_imports, java_store, node_trusts, quote, verifies};
use crate::{engine::shell_word, model::Mode};

pub(super) fn text(target: &Target<'_>, mode: Mode) -> Text {
    match target.driver {
        Driver::Jdbc => jdbc(target, mode),
        Driver::Node => node(target, mode),
        Driver::Python => pymysql(target, mode, "mysql"),
        Driver::Go => go(target, mode),
        Driver::Cli | Driver::Libpq => Text::new(command(target, "mysql", &cli(target, mode))),
    }
}

/// The mode as MySQL itself calls it.
const fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Allow | Mode::Prefer => "PREFERRED",
        Mode::Require => "REQUIRED",
        Mode::VerifyCa => "VERIFY_CA",
        Mode::VerifyFull => "VERIFY_IDENTITY",
    }
}

/// Connector/J hands the store's type to the JVM, which knows JKS and PKCS12, and no PEM.
fn jdbc(target: &Target<'_>, mode: Mode) -> Text {
    let user = target.account.user.as_deref().unwrap_or_default();
    let password = target.password().map(|password| format!("&password={}", quote::percent(&password)));
    let mut line = format!(
        "jdbc:mysql://{}/{}?user={}{}&sslMode={}",
        target.authority(),
        target.database(),
        quote::percent(user),
        password.unwrap_or_default(),
        word(mode)
    );
    if !verifies(mode) {
        return Text::new(line);
    }
    line.push_str(&format!(
        "&trustCertificateKeyStoreUrl=file:{}&trustCertificateKeyStoreType=PKCS12&trustCertificateKeyStorePassword=changeit",
        quote::percent_path(&java_store(target.ca))
    ));
    Text::new(line).note(java_imports(target.ca))
}

/// The option `ssl` is JSON, in which a CA would have to be the certificate itself.
fn node(target: &Target<'_>, mode: Mode) -> Text {
    let ssl = match mode {
        Mode::VerifyFull => r#"{"rejectUnauthorized":true,"verifyIdentity":true}"#,
        Mode::VerifyCa => r#"{"rejectUnauthorized":true}"#,
        Mode::Allow | Mode::Prefer | Mode::Require => r#"{"rejectUnauthorized":false}"#,
    };
    let line = format!(
        "mysql://{}{}/{}?ssl={}",
        target.userinfo(),
        target.authority(),
        target.database(),
        quote::percent(ssl)
    );
    Text::new(line)
        .note_if(verifies(mode), || node_trusts(target.ca))
        .note_if(mode == Mode::VerifyFull && target.is_address(), || {
            "mysql2 does not compare an address with the certificate: connect by a name".to_owned()
        })
}

/// For SQLAlchemy, whose `ssl_…` parameters become PyMySQL's `ssl`. PyMySQL's own `ssl_verify_identity` would replace
/// all of them, the CA included. Without a CA nothing is verified.
pub(super) fn pymysql(target: &Target<'_>, mode: Mode, dialect: &str) -> Text {
    let ca = verifies(mode).then(|| format!("ssl_ca={}&", quote::percent_path(target.ca)));
    Text::new(format!(
        "{dialect}+pymysql://{}{}/{}?{}ssl_check_hostname={}",
        target.userinfo(),
        target.authority(),
        target.database(),
        ca.unwrap_or_default(),
        mode == Mode::VerifyFull
    ))
    .note("this is a URL for SQLAlchemy")
}

/// In a DSN user and password are not escaped; the last `@` ends them.
pub(super) fn go(target: &Target<'_>, mode: Mode) -> Text {
    let user = target.account.user.as_deref().unwrap_or_default();
    let password = target.password().map(|password| format!(":{password}")).unwrap_or_default();
    let tls = match mode {
        Mode::Allow | Mode::Prefer => "preferred",
        Mode::Require => "skip-verify",
        Mode::VerifyCa | Mode::VerifyFull => "true",
    };
    let line = format!("{user}{password}@tcp({})/{}?tls={tls}", target.authority(), target.database());
    Text::new(line).note_if(verifies(mode), || go_trusts(target.ca))
}

fn cli(target: &Target<'_>, mode: Mode) -> Vec<String> {
    let mut words = vec![format!("--ssl-mode={}", word(mode))];
    if verifies(mode) {
        words.push(format!("--ssl-ca={}", target.ca));
    }
    words
}

/// The command-line client with these words for TLS. With the host `localhost` it would take the Unix socket, unless
/// told to use TCP. The password is in the environment, where other users do not see it.
pub(super) fn command(target: &Target<'_>, program: &str, tls: &[String]) -> String {
    let password = target.shown_password().map(|password| format!("MYSQL_PWD={} ", shell_word(&password)));
    let mut words = vec![
        "--protocol=tcp".to_owned(),
        format!("--host={}", target.host),
        format!("--port={}", target.port),
    ];
    words.extend(target.account.user.as_ref().map(|user| format!("--user={user}")));
    if target.asks() {
        words.push("--password".to_owned());
    }
    words.extend(tls.iter().cloned());
    words.extend(target.account.database.as_ref().map(|database| format!("--database={database}")));
    let words: Vec<_> = words.iter().map(|word| shell_word(word)).collect();
    format!("{}{program} {}", password.unwrap_or_default(), words.join(" "))
}
