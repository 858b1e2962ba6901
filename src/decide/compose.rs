//! The wiring of one container as text that its user can own: a Compose file to be put over the user's own, and the same
//! for `docker run`. What is in there is seen as wired by the agent, which then never recreates the container.
//!
//! Sources: the Compose Specification, "Merge", "Interpolation", "volumes"; YAML 1.2, section 5.7 "Escaped Characters".

use std::{collections::BTreeMap, fmt, path::Path};

use super::labels::{PREFIX, SET_BY_US};
use crate::{engine::shell_word, model::Mode};

/// What a container has to be started with.
#[derive(Clone, Debug)]
pub struct Fragment<'a> {
    pub container: &'a str,
    /// The Compose service; `None` for a container that Compose did not make.
    pub service: Option<&'a str>,
    pub mode: Mode,
    /// The mode is enforced by rules in `pg_hba.conf` rather than by flags.
    pub by_rules: bool,
    /// The certificate directory on the host, and where it is mounted.
    pub source: &'a Path,
    pub target: &'a str,
    /// Relabel the directory for containers.
    pub selinux: bool,
    /// `Config.Cmd`.
    pub command: &'a [String],
    /// `Config.Healthcheck.Test`, if it is not the user's own.
    pub healthcheck: Option<&'a [String]>,
    /// The container's labels: what its user says by them is kept.
    pub labels: &'a BTreeMap<String, String>,
    /// Why the mode is not met even so.
    pub shortfall: Option<&'a str>,
}

/// The file as a whole.
impl fmt::Display for Fragment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.comments(f)?;
        let service = self.service.unwrap_or(self.container);
        writeln!(f, "services:\n  {}:", key(service))?;
        writeln!(f, "    command: {}", list(self.command))?;
        f.write_str(&self.volumes("    "))?;
        if let Some(test) = self.healthcheck {
            writeln!(f, "    healthcheck:\n      test: {}", list(test))?;
        }
        let mut kept = self.labels().peekable();
        if kept.peek().is_some() {
            f.write_str("    labels:\n")?;
        }
        kept.try_for_each(|(label, value)| writeln!(f, "      {}: {}", key(label), quoted(value)))
    }
}

impl Fragment<'_> {
    fn comments(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, mode, .. } = self;
        writeln!(f, "# TLS for the container {container} in mode {mode}, made by: dbssl export {container}")?;
        f.write_str("# Make it again when dbssl.mode or the command changes. On another host make it there before the\n")?;
        f.write_str("# first start (docker compose create, dbssl export): the directory below has to be there by then.\n")?;
        if self.by_rules && mode.enforces() {
            f.write_str("# Plaintext is refused by rules in pg_hba.conf, which dbssl goes on keeping.\n")?;
        }
        if let Some(why) = self.shortfall {
            writeln!(f, "# PLAINTEXT IS NOT REFUSED: {}", one_line(why))?;
        }
        if self.service.is_none() {
            f.write_str("# Compose did not make this container. With docker run, in front of the image:\n")?;
            writeln!(f, "#   {}", for_run(&self.run_options()))?;
            f.write_str("# and behind the image:\n")?;
            writeln!(f, "#   {}", for_run(self.command))?;
        }
        Ok(())
    }

    /// The long form: Docker then refuses to create the container where the directory is not there. The short one has
    /// it made, empty; a database's first start would fail half-way through, and its second one would find a data
    /// directory and leave out the rest: no database, no users, no scripts. Only the short form knows `z` for sure.
    fn volumes(&self, indent: &str) -> String {
        let source = self.source.to_string_lossy();
        let lines = if self.selinux {
            vec!["volumes:".to_owned(), format!("  - {}", quoted(&format!("{source}:{}:ro,z", self.target)))]
        } else {
            vec![
                "volumes:".to_owned(),
                "  - type: bind".to_owned(),
                format!("    source: {}", quoted(&source)),
                format!("    target: {}", quoted(self.target)),
                "    read_only: true".to_owned(),
                "    bind:".to_owned(),
                "      create_host_path: false".to_owned(),
            ]
        };
        lines.iter().map(|line| format!("{indent}{line}\n")).collect()
    }

    fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        self.labels
            .iter()
            .filter(|(label, _)| label.starts_with(PREFIX) && !SET_BY_US.contains(&label.as_str()))
    }

    fn run_options(&self) -> Vec<String> {
        let source = self.source.to_string_lossy();
        let mut options = if self.selinux {
            vec!["--volume".to_owned(), format!("{source}:{}:ro,z", self.target)]
        } else {
            vec!["--mount".to_owned(), format!("type=bind,source={source},target={},readonly", self.target)]
        };
        match self.healthcheck {
            Some([kind, script, ..]) if kind == "CMD-SHELL" => {
                options.extend(["--health-cmd".to_owned(), script.clone()]);
            }
            // There is no option that takes a list.
            Some([kind, words @ ..]) if kind == "CMD" => {
                options.extend(["--health-cmd".to_owned(), shell_words(words)]);
            }
            _ => {}
        }
        options
    }
}

/// What is said, as comments alone, where flags cannot be appended: `why` names them.
pub fn by_hand(fragment: &Fragment<'_>, why: &str) -> String {
    let mut text = format!("# NOT COMPLETE: {}\n", one_line(why));
    text.push_str("# What is to be mounted, in any case:\n");
    text.push_str(&fragment.volumes("#   "));
    text
}

/// What in the command and the health check looks like a password: where it stands, without it.
pub fn passwords(fragment: &Fragment<'_>) -> Vec<String> {
    let words = fragment.command.iter().chain(fragment.healthcheck.unwrap_or_default());
    let words: Vec<&str> = words.flat_map(|word| word.split_whitespace()).map(unquoted).collect();
    let mut found: Vec<String> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let option = password_option(word, words.get(at + 1).copied());
        let option = option.map(|option| format!("the value of {option}"));
        let url = has_url_with_password(word).then(|| "a part of a URL".to_owned());
        for place in option.into_iter().chain(url) {
            if !found.contains(&place) {
                found.push(place);
            }
        }
    }
    found
}

/// The option that this word is, if it is given a value that looks like a password.
fn password_option<'a>(word: &'a str, next: Option<&str>) -> Option<&'a str> {
    let joined = ["-a", "-p"].into_iter().find_map(|short| Some((short, word.strip_prefix(short)?)));
    let (name, value) = match joined {
        Some(("-a", "")) => ("-a", next),
        // A number is a port to most.
        Some(("-p", value)) if value.parse::<u16>().is_ok() => return None,
        Some((short, value)) => (short, Some(value)),
        None => match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, next),
        },
    };
    let plain = name.to_ascii_lowercase();
    let secret = joined.is_some()
        || name.starts_with("--") && ["pass", "masterauth", "secret"].iter().any(|part| plain.contains(part));
    // An option's value is no option.
    let given = value.filter(|value| !value.starts_with('-')).is_some_and(gives_away);
    (secret && given).then_some(name)
}

/// `redis://user:password@host`
fn has_url_with_password(word: &str) -> bool {
    let user = word.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    // Behind a slash it is a part of the path.
    let password = user.filter(|user| !user.contains('/')).and_then(|user| user.split_once(':'));
    password.is_some_and(|(_, password)| gives_away(password))
}

/// A variable of the container, or of its shell, gives nothing away.
fn gives_away(value: &str) -> bool {
    let value = unquoted(value);
    !value.is_empty() && !value.starts_with(['$', '`'])
}

fn unquoted(word: &str) -> &str {
    word.trim_start_matches(['"', '\''])
}

/// A key of a mapping: only what no reader of YAML takes for anything else goes without quotes.
fn key(text: &str) -> String {
    const TAKEN: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !TAKEN.contains(&text.to_ascii_lowercase().as_str());
    // Compose does not interpolate keys.
    if is_word { text.to_owned() } else { escaped(text, "$") }
}

/// `["postgres", "-c"]`
fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

/// A value that comes out of Compose as it went in: it replaces variables in every value.
fn quoted(text: &str) -> String {
    escaped(text, "$$")
}

fn escaped(text: &str, dollar: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '$' => quoted.push_str(dollar),
            // Without the control characters, line ends and marks of Unicode, which must not stand in YAML as they are.
            ' '..='~' | '\u{a1}'..='\u{1fff}' | '\u{3000}'..='\u{d7ff}' => quoted.push(character),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

/// For a comment, which ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if ends_line(character) { ' ' } else { character }).collect()
}

fn ends_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Words of a `docker run`, for a comment. They must not be others than those of the container.
fn for_run(words: &[String]) -> String {
    if words.iter().any(|word| word.contains(ends_line)) {
        return "NOT SHOWN: a word has a line break or another control character; all of them stand below"
            .to_owned();
    }
    shell_words(words)
}

/// Words as a POSIX shell reads them.
fn shell_words(words: &[String]) -> String {
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
