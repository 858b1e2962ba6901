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

/// Text of any length as it is, but for what would end the line or move a terminal's cursor: that is escaped.
pub fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_harmless(letter) {
            line.push(letter);
        } else {
            line.extend(letter.escape_debug());
        }
    }
    line
}

/// The same for text of several lines.
pub fn for_a_terminal(text: &str) -> String {
    text.split('\n').map(in_one_line).collect::<Vec<_>>().join("\n")
}

/// Control characters, and the marks that turn the direction of writing (Unicode, UAX #9).
fn is_harmless(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An error and its causes in one line: many an error's own text hides the reason in its cause.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
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
    fn long_text_keeps_its_letters_and_loses_its_power() {
        let text = "ä \"quoted\" \\ it's\n\u{1b}[31mred\u{2028}\u{202e}\u{9b}";
        assert_eq!(in_one_line(text), r#"ä "quoted" \ it's\n\u{1b}[31mred\u{2028}\u{202e}\u{9b}"#);
        assert_eq!(for_a_terminal("a\nb\tc\u{1b}\n"), "a\nb\\tc\\u{1b}\n");
    }

    #[test]
    fn a_megabyte_is_one_short_line() {
        let line = Shown(&"x".repeat(1 << 20)).to_string();
        assert!(line.len() < 120, "{line}");
        assert!(line.ends_with("… (1048576 bytes)"), "{line}");
    }
}
