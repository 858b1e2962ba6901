//! Text that somebody else wrote, made fit for a log line.

use std::fmt;

/// How many characters of it are shown.
const MOST: usize = 80;

/// Shows text from outside in quotes: control characters, line ends and direction marks escaped,
/// everything past 80 characters cut. A label of a megabyte is one short line.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut rest = self.0.chars();
        for character in rest.by_ref().take(MOST) {
            write!(f, "{}", character.escape_debug())?;
        }
        f.write_str("\"")?;
        if rest.as_str().is_empty() { Ok(()) } else { write!(f, "… ({} bytes)", self.0.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_is_only_quoted() {
        assert_eq!(Shown("verify-full").to_string(), r#""verify-full""#);
        assert_eq!(Shown("").to_string(), r#""""#);
        assert_eq!(Shown(&"ä".repeat(80)).to_string(), format!("\"{}\"", "ä".repeat(80)));
    }

    #[test]
    fn nothing_in_it_can_forge_a_line_or_move_the_cursor() {
        assert_eq!(Shown("a\nb\u{1b}[2J\u{202e}\"\0").to_string(), r#""a\nb\u{1b}[2J\u{202e}\"\0""#);
    }

    #[test]
    fn a_megabyte_is_one_short_line() {
        let line = Shown(&"x".repeat(1 << 20)).to_string();
        assert!(line.len() < 120, "{line}");
        assert!(line.ends_with("… (1048576 bytes)"), "{line}");
    }
}
