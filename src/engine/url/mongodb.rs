//! MongoDB's clients, which share one URL. TLS is on or off in it: there is nothing to fall back to.
//!
//! Sources: the drivers' specification "URI Options"; the drivers' manuals, "Enable TLS on a Connection"; the Go
//! driver's `connstring.go`, in which each of the `tlsAllowInvalid…` options turns all verification off; mongosh's
//! manual, "TLS Options".

use super::{Driver, Target, Text, quote, verifies};
use crate::{engine::shell_word, model::Mode};

pub(super) fn text(target: &Target<'_>, mode: Mode) -> Text {
    match target.driver {
        Driver::Cli => Text::new(mongosh(target, mode)),
        Driver::Libpq | Driver::Jdbc | Driver::Node | Driver::Python | Driver::Go => {
            Text::new(format!("{}{}", url(target, &target.userinfo()), query(target, mode)))
        }
    }
}

fn url(target: &Target<'_>, userinfo: &str) -> String {
    // The account is one of the database `admin`, whichever database is worked with.
    let source = if target.account.user.is_some() { "authSource=admin&" } else { "" };
    format!("mongodb://{userinfo}{}/{}?{source}", target.authority(), target.database())
}

fn query(target: &Target<'_>, mode: Mode) -> String {
    if !verifies(mode) {
        return "tls=true&tlsInsecure=true".to_owned();
    }
    let names = if mode == Mode::VerifyCa { "&tlsAllowInvalidHostnames=true" } else { "" };
    format!("tls=true&tlsCAFile={}{names}", quote::percent_path(target.ca))
}

/// mongosh asks for the password of a user without one. It takes none from the environment, so that one to be shown is
/// in the URL.
fn mongosh(target: &Target<'_>, mode: Mode) -> String {
    let shown = target.shown_password().is_some();
    let userinfo = if shown { target.userinfo() } else { String::new() };
    let url = url(target, &userinfo);
    let mut words = vec![shell_word(url.trim_end_matches(['&', '?']))];
    if let (Some(user), false) = (&target.account.user, shown) {
        words.push(shell_word(&format!("--username={user}")));
    }
    words.push("--tls".to_owned());
    if verifies(mode) {
        words.push(shell_word(&format!("--tlsCAFile={}", target.ca)));
    }
    match mode {
        Mode::VerifyFull => {}
        Mode::VerifyCa => words.push("--tlsAllowInvalidHostnames".to_owned()),
        Mode::Allow | Mode::Prefer | Mode::Require => words.push("--tlsAllowInvalidCertificates".to_owned()),
    }
    format!("mongosh {}", words.join(" "))
}
