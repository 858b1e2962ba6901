//! Patterns as people know them from a shell: `*` is any text, `?` any one character. Nothing else is special.

/// A pattern for a whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    /// Whether the whole text fits. In time that is the product of both lengths at worst.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&self.0, text.chars().collect::<Vec<_>>());
        let (mut at, mut behind) = (0, 0);
        // Where to go on if it does not fit: behind the last `*`, which then takes one character more.
        let mut star = None;
        while behind < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at + 1, behind));
                    at += 1;
                }
                Some(&wanted) if wanted == '?' || wanted == text[behind] => {
                    at += 1;
                    behind += 1;
                }
                _ => {
                    let Some((after, taken)) = star else { return false };
                    star = Some((after, taken + 1));
                    (at, behind) = (after, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|&rest| rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, fits, does_not) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "a/b:c"], &[]),
            ("?", &["a", "ä"], &["", "ab"]),
            ("pg-*", &["pg-", "pg-1", "pg-a-b"], &["pg", "my-pg-1", "PG-1"]),
            ("*-db", &["-db", "a-db", "a-db-db"], &["a-db2", "db"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a", "b"]),
            ("a?c*", &["abc", "abcd"], &["ac", "bbc"]),
            ("a.b", &["a.b"], &["axb"]),
            ("[ab]", &["[ab]"], &["a"]),
            ("**a", &["a", "ba"], &["ab"]),
        ] {
            for text in fits {
                assert!(Pattern::new(pattern).matches(text), "{pattern} {text}");
            }
            for text in does_not {
                assert!(!Pattern::new(pattern).matches(text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn many_stars_are_quick() {
        let pattern = Pattern::new(&format!("{}b", "*a".repeat(50)));
        assert!(!pattern.matches(&"a".repeat(10_000)));
    }
}
