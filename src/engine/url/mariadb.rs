//! MariaDB's clients, where they are not MySQL's.
//!
//! Sources: MariaDB's manual, "Using TLS/SSL with MariaDB Connector/J" and "Node.js Connection Options"; Connector/J's
//! `SslMode.java`; MariaDB's manual, "mariadb Command-Line Client".

use super::{Driver, Target, Text, mysql, node_trusts, quote, verifies};
use crate::model::Mode;

pub(super) fn text(target: &Target<'_>, mode: Mode) -> Text {
    match target.driver {
        Driver::Jdbc => jdbc(target, mode),
        Driver::Node => Text::new(format!(
            "mariadb://{}{}/{}?ssl=true",
            target.userinfo(),
            target.authority(),
            target.database()
        ))
        .note(node_trusts(target.ca)),
        Driver::Python => mysql::pymysql(target, mode, "mariadb"),
        Driver::Go => mysql::go(target, mode),
        Driver::Cli | Driver::Libpq => Text::new(mysql::command(target, "mariadb", &cli(target, mode))),
    }
}

/// Connector/J does not decode its URL: what is more than letters and digits is left to be given beside it.
fn jdbc(target: &Target<'_>, mode: Mode) -> Text {
    let word = match mode {
        Mode::Allow | Mode::Prefer | Mode::Require => "trust",
        Mode::VerifyCa => "verify-ca",
        Mode::VerifyFull => "verify-full",
    };
    let password = target.password();
    let user = target.account.user.as_deref();
    let is_plain = |text: &str| quote::percent(text) == text;
    let fits = user.is_none_or(is_plain) && password.as_deref().is_none_or(is_plain);
    let mut parameters = Vec::new();
    if fits {
        parameters.extend(user.map(|user| format!("user={user}")));
        parameters.extend(password.map(|password| format!("password={password}")));
    }
    parameters.push(format!("sslMode={word}"));
    if verifies(mode) {
        parameters.push(format!("serverSslCert={}", target.ca));
    }
    let database = target.account.database.as_deref().unwrap_or_default();
    Text::new(format!("jdbc:mariadb://{}/{database}?{}", target.authority(), parameters.join("&")))
        .note("sslMode needs MariaDB Connector/J 3")
        .note_if(!fits, || {
            "user and password are not in it, since it is not decoded: give them to DriverManager.getConnection"
                .to_owned()
        })
}

/// Since 11.4 the client verifies unless it is told not to; before, it does so only if it is told to. With a CA the newer
/// one looks at the name as well, whatever it is told: none of them is asked for less.
fn cli(target: &Target<'_>, mode: Mode) -> Vec<String> {
    let mut words = vec!["--ssl".to_owned()];
    if verifies(mode) {
        words.extend([format!("--ssl-ca={}", target.ca), "--ssl-verify-server-cert".to_owned()]);
    } else {
        words.push("--skip-ssl-verify-server-cert".to_owned());
    }
    words
}
