//! How MySQL, MariaDB and their clients read an option, however it is spelled.
//!
//! Sources: MySQL's manual, "Program Option Modifiers"; `mysys/my_getopt.cc`; tested with MySQL 9.7 and MariaDB 10.11
//! and 11.8 (`mysqld --verbose --help` prints what it has understood).

use std::borrow::Cow;

use crate::engine::command::{LongOption, long_options};

/// On or off. A word that follows is not their value.
const SWITCHES: [&str; 2] = ["ssl", super::REQUIRE];

/// The options among `arguments`, by the names that they have without a prefix. `--skip-ssl` is `ssl` with the value 0.
pub(in crate::engine) fn options(arguments: &[Cow<'_, str>]) -> Vec<LongOption> {
    long_options(arguments).into_iter().map(without_prefix).collect()
}

fn without_prefix(option: LongOption) -> LongOption {
    let LongOption { name, mut value, apart, mut written } = option;
    // It forgives what the server does not know.
    let name = name.strip_prefix("loose-").unwrap_or(&name);
    let (turns_on, name) = match name.split_once('-') {
        Some(("skip" | "disable", name)) => (Some(false), name),
        Some(("enable", name)) => (Some(true), name),
        _ => (None, name),
    };
    if apart
        && (turns_on.is_some() || SWITCHES.contains(&name))
        && let Some(word) = value.take()
    {
        written.truncate(written.len() - word.len());
        written.truncate(written.trim_end().len());
    }
    if let Some(turns_on) = turns_on {
        // The other way round for this one value only: `--skip-ssl=OFF` is off.
        let on = turns_on != (value.as_deref() == Some("0"));
        value = Some(if on { "1" } else { "0" }.to_owned());
    }
    LongOption { name: name.to_owned(), value, apart, written }
}

/// Whether a switch is on: any other word is a warning in the server's log, and off.
pub(in crate::engine) fn is_on(switch: &LongOption) -> bool {
    let is_on = |value: &str| ["on", "true", "1"].iter().any(|word| value.eq_ignore_ascii_case(word));
    switch.value.as_deref().is_none_or(is_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Vec<LongOption> {
        options(&words.split(' ').map(Cow::Borrowed).collect::<Vec<_>>())
    }

    #[test]
    fn a_switch_is_on_or_off_in_each_spelling() {
        for (word, on) in [
            ("--ssl", true),
            ("--ssl=ON", true),
            ("--ssl=true", true),
            ("--ssl=1", true),
            ("--ssl=OFF", false),
            ("--ssl=0", false),
            ("--ssl=yes", false),
            ("--ssl=2", false),
            ("--ssl=", false),
            ("--skip-ssl", false),
            ("--skip_ssl", false),
            ("--skip-ssl=1", false),
            ("--skip-ssl=OFF", false),
            ("--skip-ssl=0", true),
            ("--disable-ssl", false),
            ("--disable-ssl=0", true),
            ("--enable-ssl", true),
            ("--enable-ssl=0", false),
            ("--loose-ssl", true),
            ("--loose-ssl=0", false),
            ("--loose-skip-ssl", false),
            ("--loose_skip_ssl=0", true),
            ("--LOOSE-Disable-SSL", false),
        ] {
            let [option] = &read(word)[..] else { panic!("{word}") };
            assert_eq!((option.name.as_str(), is_on(option)), ("ssl", on), "{word}");
            assert_eq!(option.written, word);
        }
    }

    #[test]
    fn a_word_of_its_own_is_the_value_of_what_takes_one() {
        for (words, name, value, written) in [
            ("--ssl 0", "ssl", None, "--ssl"),
            ("--skip-ssl -e", "ssl", Some("0"), "--skip-ssl"),
            (
                "--require_secure_transport OFF",
                "require-secure-transport",
                None,
                "--require_secure_transport",
            ),
            ("--loose-socket /s", "socket", Some("/s"), "--loose-socket /s"),
            ("--tls-version=", "tls-version", Some(""), "--tls-version="),
            ("--skip-name-resolve", "name-resolve", Some("0"), "--skip-name-resolve"),
        ] {
            let [option] = &read(words)[..] else { panic!("{words}") };
            assert_eq!((option.name.as_str(), option.value.as_deref()), (name, value), "{words}");
            assert_eq!(option.written, written);
        }
    }
}
