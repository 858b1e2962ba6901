//! Clients of Redis, Valkey and KeyDB. `rediss` is TLS from the first byte on: there is nothing to fall back to.
//!
//! Sources: Redis' documentation, "Connection URLs" and "redis-cli"; Lettuce's `RedisURI.java`; redis-py's
//! `connection.py`; go-redis' `options.go`.

use super::{Driver, Target, Text, go_trusts, java_imports, java_store, node_trusts, quote, verifies};
use crate::{engine::shell_word, model::Mode};

pub(super) fn text(target: &Target<'_>, mode: Mode) -> Text {
    let verifying = verifies(mode);
    match target.driver {
        Driver::Jdbc => {
            let peer = match mode {
                Mode::Allow | Mode::Prefer | Mode::Require => "NONE",
                Mode::VerifyCa => "CA",
                Mode::VerifyFull => "FULL",
            };
            let store = java_store(target.ca);
            Text::new(format!("{}?verifyPeer={peer}", url(target)))
                .note("this is a URL for Lettuce; Jedis takes it without ?verifyPeer, and checks no name by itself")
                .note_if(verifying, || {
                    format!(
                        "start Java with -Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit"
                    )
                })
                .note_if(verifying, || java_imports(target.ca))
        }
        Driver::Node => Text::new(url(target)).note(node_trusts(target.ca)),
        Driver::Python => Text::new(format!("{}?{}", url(target), python(target, mode))),
        Driver::Go if verifying => Text::new(url(target)).note(go_trusts(target.ca)),
        Driver::Go => {
            Text::new(format!("{}?skip_verify=true", url(target))).note("skip_verify needs go-redis 9.8")
        }
        Driver::Cli | Driver::Libpq => Text::new(cli(target, mode)),
    }
}

fn url(target: &Target<'_>) -> String {
    format!("rediss://{}{}/{}", target.userinfo(), target.authority(), target.database())
}

fn python(target: &Target<'_>, mode: Mode) -> String {
    if !verifies(mode) {
        return "ssl_cert_reqs=none&ssl_check_hostname=false".to_owned();
    }
    format!(
        "ssl_cert_reqs=required&ssl_ca_certs={}&ssl_check_hostname={}",
        quote::percent_path(target.ca),
        mode == Mode::VerifyFull
    )
}

fn cli(target: &Target<'_>, mode: Mode) -> String {
    let password =
        target.shown_password().map(|password| format!("REDISCLI_AUTH={} ", shell_word(&password)));
    let mut words = vec!["-h".to_owned(), target.host.to_owned(), "-p".to_owned(), target.port.to_string()];
    words.push("--tls".to_owned());
    if verifies(mode) {
        words.extend(["--cacert".to_owned(), target.ca.to_owned()]);
    } else {
        words.push("--insecure".to_owned());
    }
    if target.asks() {
        words.push("--askpass".to_owned());
    }
    let words: Vec<_> = words.iter().map(|word| shell_word(word)).collect();
    format!("{}redis-cli {}", password.unwrap_or_default(), words.join(" "))
}
