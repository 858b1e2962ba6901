//! The labels of one container: what its operator wants, or everything that is wrong with them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    config::Match,
    model::{
        ClientAuth, Desired, Engine, MOST_NAMES, Mode, Sans, UnknownWord,
        word::{self, normalised},
    },
    san::{self, BadSan},
    shown::Shown,
};

/// How every label begins that is ours.
pub const PREFIX: &str = "dbssl.";
pub const ENABLE: &str = "dbssl.enable";
pub const MODE: &str = "dbssl.mode";
pub const ENGINE: &str = "dbssl.engine";
pub const NAMES: &str = "dbssl.names";
pub const REDEPLOY: &str = "dbssl.redeploy";
pub const HEALTHCHECK: &str = "dbssl.healthcheck";
pub const CLIENT_AUTH: &str = "dbssl.client-auth";
/// Set by dbssl itself on a container that it creates: the id of the operation.
pub const OPERATION: &str = "dbssl.operation";
/// Set by dbssl itself on a container that it had to create from an image's id: how its user named the image.
pub const IMAGE: &str = "dbssl.image";
/// Those that are nobody's wish.
pub const SET_BY_US: [&str; 2] = [OPERATION, IMAGE];
/// On an application's container: keep the trust bundle in it.
pub const CLIENT: &str = "dbssl.client";
pub const CLIENT_PATH: &str = "dbssl.client.path";
pub const CLIENT_RESTART: &str = "dbssl.client.restart";

/// The labels that people set.
pub const KNOWN: [&str; 10] =
    [ENABLE, MODE, ENGINE, NAMES, REDEPLOY, HEALTHCHECK, CLIENT_AUTH, CLIENT, CLIENT_PATH, CLIENT_RESTART];

/// Those that say something about a database and nothing without [`ENABLE`].
const OF_A_DATABASE: [&str; 6] = [MODE, ENGINE, NAMES, REDEPLOY, HEALTHCHECK, CLIENT_AUTH];

/// What the labels of a container say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing about a database of ours: never touched.
    NotOurs,
    /// Switched off, and no label is wrong: never touched.
    Disabled,
    Enabled(Desired),
    /// Never touched until somebody mends the labels. In the order of the labels; never empty.
    Wrong(Vec<LabelProblem>),
}

/// All that is wrong, for a message.
pub fn in_one_line(problems: &[LabelProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
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
    UnknownValue(UnknownWord),
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
    /// Certificates are demanded in a mode in which nobody needs TLS, and so a certificate.
    LetsPlaintextIn {
        mode: Mode,
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
            Why::UnknownValue(unknown) => write!(f, "label {label}: {unknown}"),
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
            Why::LetsPlaintextIn { mode } => write!(
                f,
                "label {label}: found required with the mode {mode}, which lets in whoever comes without TLS; \
                 allowed: none, optional, or with it the mode require, verify-ca or verify-full"
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
    read_over(labels, None)
}

/// The same for a container that an entry of the config matches. What a label says counts, key by key; what none
/// says, the entry does.
pub fn read_over(labels: &BTreeMap<String, String>, entry: Option<&Match>) -> Reading {
    let mut problems: Vec<LabelProblem> = labels
        .keys()
        .filter(|label| {
            looks_like_ours(label) && !SET_BY_US.contains(&label.as_str()) && !KNOWN.contains(&label.as_str())
        })
        .map(|label| LabelProblem {
            label: label.clone(),
            why: Why::UnknownLabel { nearest: nearest_label(label) },
        })
        .collect();

    let wishes = entry.map(|entry| entry.wishes.clone()).unwrap_or_default();
    let mut reader = Reader { labels, problems: &mut problems };
    let enabled = reader.value(ENABLE, word::switch).or(entry.map(|entry| entry.enable));
    let desired = Desired {
        mode: reader.word(MODE).or(wishes.mode).unwrap_or_default(),
        engine: reader.word::<Engine>(ENGINE).or(wishes.engine),
        names: reader.names().or(wishes.names).unwrap_or_default(),
        redeploy: reader.word(REDEPLOY).or(wishes.redeploy).unwrap_or_default(),
        healthcheck: reader.word(HEALTHCHECK).or(wishes.healthcheck).unwrap_or_default(),
        client_auth: reader.word(CLIENT_AUTH).or(wishes.client_auth).unwrap_or_default(),
    };
    if desired.client_auth == ClientAuth::Required && !desired.mode.enforces() {
        reader.problem(CLIENT_AUTH, Why::LetsPlaintextIn { mode: desired.mode });
    }
    reader.client();

    // With a misspelt `dbssl.enable` that has been said already.
    if enabled.is_none()
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

struct Reader<'a> {
    labels: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<LabelProblem>,
}

impl Reader<'_> {
    fn word<T: FromStr<Err = UnknownWord>>(&mut self, label: &'static str) -> Option<T> {
        self.value(label, str::parse)
    }

    fn value<T>(
        &mut self,
        label: &'static str,
        read: impl FnOnce(&str) -> Result<T, UnknownWord>,
    ) -> Option<T> {
        match read(self.labels.get(label)?) {
            Ok(value) => Some(value),
            Err(unknown) => {
                self.problem(label, Why::UnknownValue(unknown));
                None
            }
        }
    }

    fn names(&mut self) -> Option<Sans> {
        let value = self.labels.get(NAMES)?;
        let count = value.split(',').count();
        if count > MOST_NAMES {
            self.problem(NAMES, Why::TooManyNames { found: count });
            return None;
        }
        let mut sans = Sans::new();
        for text in value.split(',') {
            let text = text.trim_matches(' ');
            match san::parse(text) {
                Ok(san) => _ = sans.insert(san),
                Err(why) => self.problem(NAMES, Why::BadName { found: text.to_owned(), why }),
            }
        }
        Some(sans)
    }

    fn client(&mut self) {
        self.value(CLIENT, word::switch);
        self.value(CLIENT_RESTART, word::switch);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Healthcheck, Redeploy, San};

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
                client_auth: ClientAuth::None,
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
                    (CLIENT_AUTH, "optional"),
                    (OPERATION, "whatever"),
                    (CLIENT, "false"),
                ];
                let Reading::Enabled(desired) = read(&labels(&pairs)) else { panic!("{pairs:?}") };
                assert_eq!((desired.mode, desired.engine), (mode, Some(engine)));
                assert_eq!((desired.redeploy, desired.healthcheck), (Redeploy::Manual, Healthcheck::Keep));
                assert_eq!(desired.client_auth, ClientAuth::Optional);
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
              dbssl.engine, dbssl.names, dbssl.redeploy, dbssl.healthcheck, dbssl.client-auth, \
              dbssl.client, dbssl.client.path, dbssl.client.restart"
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
            ("dbssl.clientauth", CLIENT_AUTH),
            ("dbssl.client_auth", CLIENT_AUTH),
            ("dbssl.client.auth", CLIENT_AUTH),
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
            (CLIENT_AUTH, "require", "required"),
            (CLIENT_AUTH, "Optional", "optional"),
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
            ("dbssl.client-auth", "yes"),
            ("dbssl.client", "1"),
            ("dbssl.client.path", "ca.crt"),
            ("dbssl.client.restart", "2"),
            ("dbssl.foo", "bar"),
        ]);
        assert_eq!(said.len(), 15, "{said:#?}");
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
    fn certificates_are_demanded_only_where_nobody_comes_without_tls() {
        for mode in Mode::ALL {
            for asked in ClientAuth::ALL {
                let pairs = [(ENABLE, "true"), (MODE, mode.word()), (CLIENT_AUTH, asked.word())];
                match read(&labels(&pairs)) {
                    Reading::Enabled(desired) => assert_eq!(desired.client_auth, asked),
                    Reading::Wrong(_) => {
                        assert!(asked == ClientAuth::Required && !mode.enforces(), "{pairs:?}");
                        let said = messages(&pairs).join("\n");
                        let found =
                            format!("label \"dbssl.client-auth\": found required with the mode {mode}, ");
                        assert!(said.starts_with(&found), "{said}");
                    }
                    other => panic!("{pairs:?} was read as {other:?}"),
                }
            }
        }
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
            (CLIENT_AUTH, &huge),
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
