//! The labels of one container: what its operator wants, or everything that is wrong with them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    model::{Desired, Engine, Healthcheck, Mode, Redeploy, Sans, UnknownWord},
    san::{self, BadSan},
    shown::Shown,
};

pub const ENABLE: &str = "dbssl.enable";
pub const MODE: &str = "dbssl.mode";
pub const ENGINE: &str = "dbssl.engine";
pub const NAMES: &str = "dbssl.names";
pub const REDEPLOY: &str = "dbssl.redeploy";
pub const HEALTHCHECK: &str = "dbssl.healthcheck";
/// Set by dbssl itself on a container that it creates: the id of the operation.
pub const OPERATION: &str = "dbssl.operation";
/// On an application's container: keep the trust bundle in it.
pub const CLIENT: &str = "dbssl.client";
pub const CLIENT_PATH: &str = "dbssl.client.path";
pub const CLIENT_RESTART: &str = "dbssl.client.restart";

/// The labels that people set.
pub const KNOWN: [&str; 9] =
    [ENABLE, MODE, ENGINE, NAMES, REDEPLOY, HEALTHCHECK, CLIENT, CLIENT_PATH, CLIENT_RESTART];

/// Those that say something about a database and nothing without [`ENABLE`].
const OF_A_DATABASE: [&str; 5] = [MODE, ENGINE, NAMES, REDEPLOY, HEALTHCHECK];

/// More names than this make a certificate that some clients refuse to read.
const MOST_NAMES: usize = 100;

/// What the labels of a container say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// No label about a database of ours: never touched.
    NotOurs,
    /// `dbssl.enable=false`, and no other label is wrong: never touched.
    Disabled,
    Enabled(Desired),
    /// Never touched until somebody mends the labels. In the order of the labels; never empty.
    Wrong(Vec<LabelProblem>),
}

/// One thing that is wrong with one label: the label, its value, what is allowed. Label and value are as
/// found, of any length and content: show them with `Display`, which cuts and escapes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelProblem {
    pub label: String,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing of ours is called so.
    UnknownLabel {
        nearest: &'static str,
    },
    /// None of the words that the label takes.
    UnknownValue {
        found: String,
        allowed: String,
        meant: Option<String>,
    },
    /// A part of `dbssl.names` that no certificate can carry.
    BadName {
        found: String,
        why: BadSan,
    },
    TooManyNames {
        found: usize,
    },
    /// `dbssl.client.path` is none.
    BadPath {
        found: String,
    },
    /// It is not there, and another label does nothing without it.
    Missing {
        needed_by: &'static str,
    },
}

impl fmt::Display for LabelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = Shown(&self.label);
        match &self.why {
            Why::UnknownLabel { nearest } => {
                write!(f, "unknown label {label}: did you mean {nearest}? Known are {}", KNOWN.join(", "))
            }
            Why::UnknownValue { found, allowed, meant } => {
                write!(f, "label {label}: found {}, allowed: {allowed}", Shown(found))?;
                meant.iter().try_for_each(|meant| write!(f, "; did you mean {meant}?"))
            }
            Why::BadName { found, why } => write!(
                f,
                "label {label}: {} {why}; allowed: DNS names and IP addresses, separated by commas",
                Shown(found)
            ),
            Why::TooManyNames { found } => {
                write!(f, "label {label}: found {found} names, allowed: at most {MOST_NAMES}")
            }
            Why::BadPath { found } => write!(
                f,
                "label {label}: found {}, allowed: the absolute path of a file, without '..'",
                Shown(found)
            ),
            Why::Missing { needed_by } => {
                write!(
                    f,
                    "label {label} is missing: {needed_by} does nothing without it; allowed: true, false"
                )
            }
        }
    }
}

/// Reads all labels of one container at once.
///
/// Strict on purpose: a typo must never mean "insecure". A value in the wrong case or with a space is
/// refused, not guessed at, and the answer names the right spelling.
pub fn read(labels: &BTreeMap<String, String>) -> Reading {
    let mut problems: Vec<LabelProblem> = labels
        .keys()
        .filter(|label| looks_like_ours(label) && **label != OPERATION && !KNOWN.contains(&label.as_str()))
        .map(|label| LabelProblem {
            label: label.clone(),
            why: Why::UnknownLabel { nearest: nearest_label(label) },
        })
        .collect();

    let mut reader = Reader { labels, problems: &mut problems };
    let enabled = reader.switch(ENABLE);
    let desired = Desired {
        mode: reader.word(MODE).unwrap_or_default(),
        engine: reader.word::<Engine>(ENGINE),
        names: reader.names(),
        redeploy: reader.word(REDEPLOY).unwrap_or_default(),
        healthcheck: reader.word(HEALTHCHECK).unwrap_or_default(),
    };
    reader.client();

    // With a misspelt `dbssl.enable` that has been said already.
    if !labels.contains_key(ENABLE)
        && problems.is_empty()
        && let Some(needed_by) = OF_A_DATABASE.into_iter().find(|&label| labels.contains_key(label))
    {
        problems.push(LabelProblem { label: ENABLE.to_owned(), why: Why::Missing { needed_by } });
    }
    if !problems.is_empty() {
        problems.sort_by(|one, other| one.label.cmp(&other.label));
        return Reading::Wrong(problems);
    }
    match enabled {
        None => Reading::NotOurs,
        Some(false) => Reading::Disabled,
        Some(true) => Reading::Enabled(desired),
    }
}

/// The values that a label can have, as its message lists them.
trait Words: FromStr<Err = UnknownWord> + Copy + 'static {
    fn all() -> Vec<&'static str>;
}

macro_rules! words {
    ($($type:ty),+) => {$(
        impl Words for $type {
            fn all() -> Vec<&'static str> {
                Self::ALL.iter().map(|word| word.word()).collect()
            }
        }
    )+};
}
words!(Engine, Mode, Redeploy, Healthcheck);

struct Reader<'a> {
    labels: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<LabelProblem>,
}

impl Reader<'_> {
    fn word<T: Words>(&mut self, label: &'static str) -> Option<T> {
        let found = self.labels.get(label)?;
        let word = found.parse().ok();
        if word.is_none() {
            self.unknown_value(label, found, &T::all());
        }
        word
    }

    fn switch(&mut self, label: &'static str) -> Option<bool> {
        match self.labels.get(label)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            found => {
                self.unknown_value(label, found, &["true", "false"]);
                None
            }
        }
    }

    fn names(&mut self) -> Sans {
        let mut sans = Sans::new();
        let Some(value) = self.labels.get(NAMES) else { return sans };
        let count = value.split(',').count();
        if count > MOST_NAMES {
            self.problem(NAMES, Why::TooManyNames { found: count });
            return sans;
        }
        for text in value.split(',') {
            let text = text.trim_matches(' ');
            match san::parse(text) {
                Ok(san) => _ = sans.insert(san),
                Err(why) => self.problem(NAMES, Why::BadName { found: text.to_owned(), why }),
            }
        }
        sans
    }

    fn client(&mut self) {
        self.switch(CLIENT);
        self.switch(CLIENT_RESTART);
        if let Some(path) = self.labels.get(CLIENT_PATH) {
            let clean = path.strip_prefix('/').is_some_and(|rest| {
                !rest.contains(char::is_control)
                    && !rest.split('/').any(|part| matches!(part, "" | "." | ".."))
            });
            if !clean || path.len() > 4095 {
                self.problem(CLIENT_PATH, Why::BadPath { found: path.to_owned() });
            }
        }
        if !self.labels.contains_key(CLIENT)
            && let Some(needed_by) =
                [CLIENT_PATH, CLIENT_RESTART].into_iter().find(|&label| self.labels.contains_key(label))
        {
            self.problem(CLIENT, Why::Missing { needed_by });
        }
    }

    fn unknown_value(&mut self, label: &'static str, found: &str, allowed: &[&str]) {
        let meant = meant(found, allowed).map(str::to_owned);
        self.problem(
            label,
            Why::UnknownValue { found: found.to_owned(), allowed: allowed.join(", "), meant },
        );
    }

    fn problem(&mut self, label: &'static str, why: Why) {
        self.problems.push(LabelProblem { label: label.to_owned(), why });
    }
}

/// Whether a label is meant for us: `dbssl.` in any case is; with another separator (`dbssl-enable`) it is if it
/// is nearly one of ours, since others have names that begin so, too (`dbssl-backup.schedule`).
fn looks_like_ours(label: &str) -> bool {
    const NEAR: usize = 2;
    let trimmed = label.trim_start();
    let Some(rest) = trimmed.get(5..).filter(|_| trimmed[..5].eq_ignore_ascii_case("dbssl")) else {
        return false;
    };
    rest.is_empty()
        || rest.starts_with('.')
        || (rest.starts_with(|next: char| !next.is_alphanumeric())
            && strsim::osa_distance(nearest_label(label), &normalised(label)) <= NEAR)
}

/// The known label that is most like this one; the first of them if several are.
fn nearest_label(label: &str) -> &'static str {
    let label = normalised(label);
    KNOWN.into_iter().min_by_key(|known| strsim::osa_distance(known, &label)).unwrap_or(ENABLE)
}

/// The allowed word that was probably meant, if one is near.
fn meant<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let found = normalised(found);
    allowed
        .iter()
        .map(|&word| (strsim::osa_distance(word, &found), word))
        .filter(|&(distance, word)| distance <= 2 && distance < word.len() / 2)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// For comparing only; short, since the cost of comparing grows with both lengths.
fn normalised(text: &str) -> String {
    text.trim().chars().take(64).collect::<String>().to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::San;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(label, value)| (label.to_owned(), value.to_owned())).collect()
    }

    fn messages(pairs: &[(&str, &str)]) -> Vec<String> {
        match read(&labels(pairs)) {
            Reading::Wrong(problems) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{pairs:?} was read as {other:?}"),
        }
    }

    fn message(label: &str, value: &str) -> String {
        let mut pairs = vec![(label, value)];
        if label != ENABLE {
            pairs.push((ENABLE, "true"));
        }
        let messages = messages(&pairs);
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages[0].clone()
    }

    #[test]
    fn without_our_labels_it_is_not_ours() {
        for pairs in [
            &[][..],
            &[("com.docker.compose.service", "db")],
            &[("dbsslx.enable", "true")],
            &[("io.dbssl.enable", "true")],
            &[(OPERATION, "0123")],
            &[(CLIENT, "true"), (CLIENT_PATH, "/etc/ssl/ca.crt"), (CLIENT_RESTART, "false")],
        ] {
            assert_eq!(read(&labels(pairs)), Reading::NotOurs, "{pairs:?}");
        }
    }

    #[test]
    fn the_defaults_are_the_safe_ones() {
        let Reading::Enabled(desired) = read(&labels(&[(ENABLE, "true")])) else { panic!() };
        assert_eq!(
            desired,
            Desired {
                mode: Mode::VerifyFull,
                engine: None,
                names: Sans::new(),
                redeploy: Redeploy::Auto,
                healthcheck: Healthcheck::Adapt,
            }
        );
    }

    #[test]
    fn every_label_with_every_word_is_read() {
        for mode in Mode::ALL {
            for engine in Engine::ALL {
                let pairs = [
                    (ENABLE, "true"),
                    (MODE, mode.word()),
                    (ENGINE, engine.word()),
                    (NAMES, "DB.example.com, 10.0.0.5,fd00::5"),
                    (REDEPLOY, "manual"),
                    (HEALTHCHECK, "keep"),
                    (OPERATION, "whatever"),
                    (CLIENT, "false"),
                ];
                let Reading::Enabled(desired) = read(&labels(&pairs)) else { panic!("{pairs:?}") };
                assert_eq!((desired.mode, desired.engine), (mode, Some(engine)));
                assert_eq!((desired.redeploy, desired.healthcheck), (Redeploy::Manual, Healthcheck::Keep));
                let names: Vec<String> = desired.names.iter().map(ToString::to_string).collect();
                assert_eq!(names, ["db.example.com", "10.0.0.5", "fd00::5"]);
                assert!(desired.names.contains(&San::Ip("10.0.0.5".parse().unwrap())));
            }
        }
    }

    #[test]
    fn disabled_is_disabled() {
        assert_eq!(read(&labels(&[(ENABLE, "false"), (MODE, "require")])), Reading::Disabled);
    }

    #[test]
    fn a_misspelt_label_is_wrong_with_and_without_the_switch() {
        assert_eq!(
            messages(&[("dbssl.enabel", "true")]),
            [
                "unknown label \"dbssl.enabel\": did you mean dbssl.enable? Known are dbssl.enable, dbssl.mode, \
              dbssl.engine, dbssl.names, dbssl.redeploy, dbssl.healthcheck, dbssl.client, \
              dbssl.client.path, dbssl.client.restart"
            ]
        );
        for (label, nearest) in [
            ("dbssl.mdoe", MODE),
            ("dbssl.Mode", MODE),
            ("DBSSL.MODE", MODE),
            ("dbssl.mode ", MODE),
            (" dbssl.enable", ENABLE),
            ("dbssl-enable", ENABLE),
            ("dbssl_enable", ENABLE),
            ("dbssl", MODE),
            ("dbssl.", MODE),
            ("dbssl.name", NAMES),
            ("dbssl.engin", ENGINE),
            ("dbssl.health-check", HEALTHCHECK),
            ("dbssl.clientpath", CLIENT_PATH),
            ("dbssl.operations", REDEPLOY),
        ] {
            let said = message(label, "allow");
            if label != "dbssl.operations" {
                assert!(said.contains(&format!("did you mean {nearest}?")), "{said}");
            }
            assert!(matches!(read(&labels(&[(label, "allow")])), Reading::Wrong(_)), "{label}");
        }
    }

    #[test]
    fn only_true_and_false_turn_it_on_and_off() {
        for value in ["", "1", "yes", "on", "True", "TRUE", " true", "true\n", "t", "tru", "enable"] {
            let said = message(ENABLE, value);
            assert!(said.starts_with("label \"dbssl.enable\": found "), "{said}");
            assert!(said.contains("allowed: true, false"), "{said}");
        }
        assert!(message(ENABLE, "True").ends_with("did you mean true?"));
        assert!(message(ENABLE, "false ").ends_with("did you mean false?"));
    }

    #[test]
    fn a_value_in_the_wrong_case_is_refused_and_its_spelling_named() {
        for (label, value, meant) in [
            (MODE, "Verify-Full", "verify-full"),
            (MODE, "verify_full", "verify-full"),
            (MODE, "verify-full ", "verify-full"),
            (MODE, "verify-ful", "verify-full"),
            (MODE, "alow", "allow"),
            (ENGINE, "PostgreSQL", "postgres"),
            (ENGINE, "mongo", "mongodb"),
            (REDEPLOY, "Auto", "auto"),
            (HEALTHCHECK, "KEEP", "keep"),
            (CLIENT_RESTART, "True", "true"),
        ] {
            let pairs = [(ENABLE, "true"), (CLIENT, "true"), (label, value)];
            let said = messages(&pairs).join("\n");
            assert!(said.ends_with(&format!("did you mean {meant}?")), "{said}");
        }
        assert_eq!(
            message(MODE, "disable"),
            "label \"dbssl.mode\": found \"disable\", allowed: allow, prefer, require, verify-ca, verify-full"
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let said = messages(&[
            ("dbssl.enable", "yes"),
            ("dbssl.mode", "secure"),
            ("dbssl.engine", "oracle"),
            ("dbssl.names", "-db,ok,db-,,db.123,10.0.0.256"),
            ("dbssl.redeploy", "never"),
            ("dbssl.healthcheck", "off"),
            ("dbssl.client", "1"),
            ("dbssl.client.path", "ca.crt"),
            ("dbssl.client.restart", "2"),
            ("dbssl.foo", "bar"),
        ]);
        assert_eq!(said.len(), 14, "{said:#?}");
        for (part, why) in [
            ("\"-db\"", BadSan::LeadingHyphen),
            ("\"db-\"", BadSan::TrailingHyphen),
            ("\"\"", BadSan::Empty),
            ("\"db.123\"", BadSan::Numeric),
            ("\"10.0.0.256\"", BadSan::Numeric),
        ] {
            let expected = format!("label \"dbssl.names\": {part} {why}; allowed: DNS names");
            assert!(said.iter().any(|line| line.starts_with(&expected)), "{expected}\n{said:#?}");
        }
    }

    #[test]
    fn labels_that_do_nothing_say_so() {
        assert_eq!(
            messages(&[(MODE, "verify-full")]),
            ["label \"dbssl.enable\" is missing: dbssl.mode does nothing without it; allowed: true, false"]
        );
        assert_eq!(
            messages(&[(CLIENT_PATH, "/ca.crt")]),
            [
                "label \"dbssl.client\" is missing: dbssl.client.path does nothing without it; allowed: true, false"
            ]
        );
    }

    #[test]
    fn a_client_path_is_absolute_and_clean() {
        for path in ["", "/", "ca.crt", "/etc/../shadow", "/etc//ca", "/etc/", "/a\nb", "/./a"] {
            let said = messages(&[(CLIENT, "true"), (CLIENT_PATH, path)]).join("\n");
            assert!(said.contains("allowed: the absolute path of a file"), "{said}");
        }
    }

    #[test]
    fn hostile_input_makes_short_lines_and_is_quick() {
        let huge = "x\u{1b}[31m\n".repeat(1 << 17);
        let many = "a,".repeat(1 << 19);
        let label = format!("dbssl.{huge}");
        for (label, value) in [
            (ENABLE, huge.as_str()),
            (MODE, &huge),
            (ENGINE, &huge),
            (NAMES, &huge),
            (NAMES, &many),
            (REDEPLOY, &huge),
            (HEALTHCHECK, &huge),
            (CLIENT_PATH, &huge),
            (&label, &huge),
        ] {
            let Reading::Wrong(problems) = read(&labels(&[(label, value)])) else { panic!("{label}") };
            for problem in problems {
                let said = problem.to_string();
                assert!(said.len() < 1000, "{} bytes", said.len());
                assert!(!said.contains(char::is_control), "{said}");
            }
        }
    }
}
