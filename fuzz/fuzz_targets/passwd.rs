//! Whom a database runs as: the container's user in a line, then its `/etc/passwd`.
#![no_main]

use dbssl::decide::server_user::{on_host, server_user};
use libfuzzer_sys::fuzz_target;

/// As an engine names them.
const CANDIDATES: [&str; 2] = ["postgres", "mysql"];

fuzz_target!(|text: &str| {
    let (user, passwd) = text.split_once('\n').unwrap_or((text, ""));
    match server_user(user, passwd, &CANDIDATES) {
        Ok(owner) => {
            let digits = |text: &str| text.parse() == Ok(owner.uid);
            let said = digits(user.split(':').next().unwrap_or_default());
            let listed = passwd.lines().any(|line| line.split(':').nth(2).is_some_and(digits));
            assert!(said || listed, "nobody names {owner:?}");
            assert_eq!(on_host(owner, None), Ok(owner));
            let shifted = on_host(owner, Some((100_000, 100_000)));
            assert!(shifted.is_err() || shifted.is_ok_and(|shifted| shifted.uid == owner.uid + 100_000));
        }
        Err(why) => {
            let line = why.to_string();
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(line.len() < 1024, "{line}");
        }
    }
});
