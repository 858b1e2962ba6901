//! `[[match]]`: settings for containers that nobody can label, by what can be seen of them.
//!
//! A condition that no container can ever meet is an error, since whoever wrote it means one.

use toml::de::{DeTable, DeValue};

use super::{Key, Reader, kind, names, string};
use crate::{
    model::{ClientAuth, MOST_NAMES, Sans, UnknownWord, Wishes, pattern::Pattern},
    shown::Shown,
};

/// The name of the list, and the table of its keys.
pub(super) const TABLE: &str = "match";

/// One entry: conditions, all of which have to hold, and what is set for the containers of which they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Of the container's name.
    pub name: Option<Pattern>,
    pub image: Option<ImagePattern>,
    pub label: Option<LabelPattern>,
    /// `false`: not ours, whatever a later entry says.
    pub enable: bool,
    pub wishes: Wishes,
}

/// A pattern of an image's name, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePattern {
    /// With a registry or without, as it is written; lower case.
    pub repository: Pattern,
    /// `None`: any tag, or none.
    pub tag: Option<Pattern>,
    /// `sha256:…`; `None`: any, or none.
    pub digest: Option<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPattern {
    pub key: String,
    /// `None`: any value.
    pub value: Option<Pattern>,
}

/// An image's name in its parts: repository, tag, digest.
pub fn image_parts(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon behind the last slash begins the tag; before it, it is a registry's port.
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag), digest),
        _ => (name, None, digest),
    }
}

/// The list, in its order. Whatever is wrong with an entry is among the reader's problems.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<Match> {
    reader.known.extend(KEYS);
    let Some((at, value)) = reader.left.remove(&(String::new(), TABLE.to_owned())) else { return Vec::new() };
    let refused =
        |value: &DeValue<'_>| format!("{TABLE}: found {}, allowed: tables, each [[{TABLE}]]", kind(value));
    let DeValue::Array(entries) = value else {
        reader.problem(at, refused(&value));
        return Vec::new();
    };
    let mut matches = Vec::new();
    for entry in entries {
        let at = entry.span().start;
        match entry.into_inner() {
            DeValue::Table(table) => matches.push(one(reader, at, table)),
            value => reader.problem(at, refused(&value)),
        }
    }
    matches
}

/// In the order of the shipped sample.
const KEYS: [Key; 10] = [
    (TABLE, "name"),
    (TABLE, "image"),
    (TABLE, "label"),
    (TABLE, "enable"),
    (TABLE, "mode"),
    (TABLE, "engine"),
    (TABLE, "names"),
    (TABLE, "redeploy"),
    (TABLE, "healthcheck"),
    (TABLE, "client-auth"),
];

fn one(reader: &mut Reader<'_>, at: usize, table: DeTable<'_>) -> Match {
    let mut entry = Entry { reader, table };
    // Before they are taken: one that is wrong has been given, too.
    let conditional = ["name", "image", "label"].iter().any(|&key| entry.table.contains_key(key));
    let found = Match {
        name: entry.take("name", name),
        image: entry.take("image", image),
        label: entry.take("label", label),
        enable: entry.take("enable", enable).unwrap_or(true),
        wishes: Wishes {
            mode: entry.take("mode", word),
            engine: entry.take("engine", word),
            names: entry.take("names", few_names),
            redeploy: entry.take("redeploy", word),
            healthcheck: entry.take("healthcheck", word),
            client_auth: entry.take("client-auth", word),
        },
    };
    let Entry { reader, table } = entry;
    for (key, value) in table {
        let what = reader.unknown(TABLE, key.get_ref(), value.get_ref());
        reader.problem(key.span().start, what);
    }
    // A label may say another mode; what the entry says of itself has to fit even so.
    if found.wishes.client_auth == Some(ClientAuth::Required)
        && let Some(mode) = found.wishes.mode.filter(|mode| !mode.enforces())
    {
        let what = format!(
            "{TABLE}.client-auth: found \"required\" with mode = \"{mode}\", which lets in whoever comes without TLS; allowed: none, optional, or with it the mode require, verify-ca or verify-full"
        );
        reader.problem(at, what);
    }
    if !conditional {
        let what = format!(
            "{TABLE}: without name, image and label it would match every container; name = \"*\" does"
        );
        reader.problem(at, what);
    }
    found
}

struct Entry<'r, 't, 'd> {
    reader: &'r mut Reader<'t>,
    table: DeTable<'d>,
}

impl Entry<'_, '_, '_> {
    fn take<T>(&mut self, key: &str, read: impl FnOnce(&DeValue<'_>) -> Result<T, String>) -> Option<T> {
        let (key, value) = self.table.remove_entry(key)?;
        match read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(what) => {
                self.reader.problem(key.span().start, format!("{TABLE}.{}: {what}", key.get_ref()));
                None
            }
        }
    }
}

fn name(value: &DeValue<'_>) -> Result<Pattern, String> {
    let text = string(value)?;
    let possible = |letter: char| letter.is_ascii_alphanumeric() || "_.-*?".contains(letter);
    if text.is_empty() || !text.chars().all(possible) {
        return Err(format!(
            "found {}, allowed: the name of a container: letters, digits, '_', '.', '-', with * for any text and ? for any character",
            Shown(&text)
        ));
    }
    Ok(Pattern::new(&text))
}

fn image(value: &DeValue<'_>) -> Result<ImagePattern, String> {
    let text = string(value)?;
    let possible = |letter: char| letter.is_ascii_alphanumeric() || "_.-/:@+*?".contains(letter);
    let (repository, tag, digest) = image_parts(&text);
    let empty = repository.is_empty() || tag == Some("") || digest == Some("");
    if empty || !text.chars().all(possible) {
        return Err(format!(
            "found {}, allowed: the name of an image, such as \"postgres\", \"postgres:16*\" or \"ghcr.io/acme/*\", with * for any text and ? for any character",
            Shown(&text)
        ));
    }
    Ok(ImagePattern {
        repository: Pattern::new(&repository.to_ascii_lowercase()),
        tag: tag.map(Pattern::new),
        digest: digest.map(Pattern::new),
    })
}

fn label(value: &DeValue<'_>) -> Result<LabelPattern, String> {
    let text = string(value)?;
    let (key, wanted) = text.split_once('=').map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
    if key.is_empty() || key.contains(['*', '?']) || key.contains(char::is_whitespace) {
        return Err(format!(
            "found {}, allowed: a label, or label=value; in the value * is any text and ? any character",
            Shown(&text)
        ));
    }
    Ok(LabelPattern { key: key.to_owned(), value: wanted.map(Pattern::new) })
}

fn enable(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("found {}, allowed: true, false", kind(value)))
}

fn word<T: std::str::FromStr<Err = UnknownWord>>(value: &DeValue<'_>) -> Result<T, String> {
    string(value)?.parse().map_err(|unknown: UnknownWord| unknown.to_string())
}

fn few_names(value: &DeValue<'_>) -> Result<Sans, String> {
    match value.as_array().map(|list| list.len()) {
        Some(found) if found > MOST_NAMES => {
            Err(format!("found {found} names, allowed: at most {MOST_NAMES}"))
        }
        _ => names(value),
    }
}
