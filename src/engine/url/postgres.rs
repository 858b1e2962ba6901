//! PostgreSQL's clients.
//!
//! Sources: libpq's manual ("Connection Strings", "SSL Support"); pgjdbc's manual ("Connecting to the Database");
//! node-postgres' `pg-connection-string/index.js`; pgx' `pgconn/config.go`.

use super::{Driver, Target, Text, quote, verifies};
use crate::{engine::shell_word, model::Mode};

pub(super) fn text(target: &Target<'_>, mode: Mode) -> Text {
    match target.driver {
        Driver::Libpq => Text::new(uri(target, mode)),
        Driver::Python => Text::new(uri(target, mode))
            .note("for SQLAlchemy, write postgresql+psycopg:// in place of postgresql://"),
        Driver::Go => Text::new(uri(target, mode)).note_if(mode < Mode::Require, || {
            format!("older versions of lib/pq refuse sslmode={mode}; pgx takes it")
        }),
        Driver::Node => node(target, mode),
        Driver::Jdbc => Text::new(jdbc(target, mode)),
        Driver::Cli => Text::new(psql(target, mode)),
    }
}

/// libpq's URI. The CA is named in the verifying modes only: `require` with a CA is `verify-ca` to libpq.
fn uri(target: &Target<'_>, mode: Mode) -> String {
    let hostaddr =
        target.address.map(|address| format!("hostaddr={}&", quote::percent(&address.to_string())));
    format!(
        "postgresql://{}{}/{}?{}sslmode={mode}{}",
        target.userinfo(),
        target.authority(),
        target.database(),
        hostaddr.unwrap_or_default(),
        root_certificate(target, mode)
    )
}

fn root_certificate(target: &Target<'_>, mode: Mode) -> String {
    if verifies(mode) { format!("&sslrootcert={}", quote::percent_path(target.ca)) } else { String::new() }
}

/// To node-postgres all of `prefer`, `require` and `verify-ca` are `verify-full`, unless it is told to be like libpq.
fn node(target: &Target<'_>, mode: Mode) -> Text {
    let sslmode = match mode {
        Mode::VerifyFull => "verify-full",
        Mode::VerifyCa => "verify-ca&uselibpqcompat=true",
        Mode::Allow | Mode::Prefer | Mode::Require => "no-verify",
    };
    let line = format!(
        "postgresql://{}{}/{}?sslmode={sslmode}{}",
        target.userinfo(),
        target.authority(),
        target.database(),
        root_certificate(target, mode)
    );
    Text::new(line).note_if(mode == Mode::VerifyFull && target.is_address(), || {
        "node-postgres does not compare an address with the certificate: connect by a name".to_owned()
    })
}

fn jdbc(target: &Target<'_>, mode: Mode) -> String {
    let user = target.account.user.as_deref().unwrap_or_default();
    let password = target.password().map(|password| format!("&password={}", quote::percent(&password)));
    format!(
        "jdbc:postgresql://{}/{}?user={}{}&sslmode={mode}{}",
        target.authority(),
        target.database(),
        quote::percent(user),
        password.unwrap_or_default(),
        root_certificate(target, mode)
    )
}

/// psql asks for a password that it is not given.
fn psql(target: &Target<'_>, mode: Mode) -> String {
    let address = target.address.map(|address| address.to_string());
    let mut words = vec![quote::keyword("host", target.host)];
    words.extend(address.map(|address| quote::keyword("hostaddr", &address)));
    words.push(quote::keyword("port", &target.port.to_string()));
    words.extend(target.account.user.as_ref().map(|user| quote::keyword("user", user)));
    words.extend(target.account.database.as_ref().map(|database| quote::keyword("dbname", database)));
    words.push(quote::keyword("sslmode", mode.word()));
    if verifies(mode) {
        words.push(quote::keyword("sslrootcert", target.ca));
    }
    let password = target.shown_password().map(|password| format!("PGPASSWORD={} ", shell_word(&password)));
    format!("{}psql {}", password.unwrap_or_default(), shell_word(&words.join(" ")))
}
