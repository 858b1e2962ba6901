//! One word of a fixed list as people write it: read exactly, or refused with the word that was probably meant.

use std::fmt;

use crate::shown::Shown;

/// A value that is none of the allowed words. `found` is of any length and content: `Display` cuts and escapes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownWord {
    pub found: String,
    /// All of them, as a message lists them.
    pub allowed: String,
    /// The one that is near, if one is.
    pub meant: Option<String>,
}

impl UnknownWord {
    pub fn new(found: &str, allowed: &[&str]) -> Self {
        Self {
            found: found.to_owned(),
            allowed: allowed.join(", "),
            meant: meant(found, allowed).map(str::to_owned),
        }
    }
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {}, allowed: {}", Shown(&self.found), self.allowed)?;
        self.meant.iter().try_for_each(|meant| write!(f, "; did you mean {meant}?"))
    }
}

/// `true` or `false`, and nothing that only looks like one of them.
pub fn switch(found: &str) -> Result<bool, UnknownWord> {
    match found {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(UnknownWord::new(found, &["true", "false"])),
    }
}

/// For comparing only; short, since the cost of comparing grows with both lengths.
pub fn normalised(text: &str) -> String {
    text.trim().chars().take(64).collect::<String>().to_lowercase().replace('_', "-")
}

fn meant<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let found = normalised(found);
    allowed
        .iter()
        .map(|&word| (strsim::osa_distance(word, &found), word))
        .filter(|&(distance, word)| distance <= 2 && distance < word.len() / 2)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}
