//! Health checks that call a client of the database: with the plaintext port closed the client needs the options for
//! TLS.
//!
//! Only what is plain to see is changed: a known client in the check's own words. Whatever else there is stays as it
//! is, and so does the port that it uses.

use std::ops::Range;

use super::{
    Demand,
    command::{file_name, is_shell, is_shell_command_option},
};

/// What becomes of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It passes as it is.
    Works,
    /// It passes in these words (`Config.Healthcheck.Test`).
    Adapted(Vec<String>),
    /// It would fail, or nobody can tell, for this reason.
    Unknown(String),
}

/// How a database's client is told to use TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'a> {
    pub programs: &'a [&'a str],
    /// Put behind the program's name.
    pub options: &'a [&'a str],
    /// The ports for plaintext and for TLS, where they are two; `-p` names one.
    pub ports: Option<(u16, u16)>,
    /// Options with which it works as it is.
    pub done_by: &'a [&'a str],
    /// Options that cannot be adapted.
    pub beyond_us: &'a [&'a str],
}

/// What a call of a client needs so that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Options,
}

impl Client<'_> {
    /// `test`: `["NONE"]`, `["CMD", word…]` or `["CMD-SHELL", script]`; empty where there is none.
    pub(super) fn adapt(&self, test: &[String]) -> Check {
        let adapted = self.adapt_by(test, &|program, arguments| self.usual_need(program, arguments));
        adapted.unwrap_or_else(|trouble| Check::Unknown(trouble.why(self)))
    }

    /// As [`Client::adapt`] does, where `need` of a program and its arguments is judged elsewhere.
    pub(super) fn adapt_by(&self, test: &[String], need: Judge<'_>) -> Result<Check, Trouble> {
        let reader = Reader { client: self, need };
        let adapted = match test {
            [] => None,
            [kind] if kind == "NONE" => None,
            [kind, words @ ..] if kind == "CMD" => reader.adapt_words(words)?,
            [kind, script, rest @ ..] if kind == "CMD-SHELL" => {
                reader.adapt_script(script)?.map(|script| [&[script], rest].concat())
            }
            _ => return Err(Trouble::Unreadable("it is of a kind that is not known")),
        };
        Ok(adapted.map_or(Check::Works, |words| Check::Adapted([&test[..1], &words].concat())))
    }

    fn usual_need(&self, program: &str, arguments: &[&str]) -> Result<Need, Trouble> {
        if arguments.iter().any(|word| self.done_by.contains(word)) {
            return Ok(Need::Nothing);
        }
        match arguments.iter().find(|word| self.beyond_us.contains(word)) {
            Some(word) => Err(Trouble::beyond_us(program, word)),
            None => Ok(Need::Options),
        }
    }
}

/// What becomes of a check where plaintext is refused, by `tls`, and where certificates are demanded, by
/// `with_certificate`: what that one may have put there earlier is taken out first.
pub(super) fn adapt_to(
    demand: Demand,
    test: &[String],
    tls: Client<'_>,
    with_certificate: Client<'_>,
) -> Check {
    let mut words = without(test, with_certificate.options);
    let needed =
        [demand.mode.enforces().then_some(tls), demand.requires_certificates().then_some(with_certificate)];
    for client in needed.into_iter().flatten() {
        match client.adapt(&words) {
            Check::Works => {}
            Check::Adapted(adapted) => words = adapted,
            Check::Unknown(why) => return Check::Unknown(why),
        }
    }
    if words == test { Check::Works } else { Check::Adapted(words) }
}

/// A check without these words, where they follow each other just so.
fn without(test: &[String], options: &[&str]) -> Vec<String> {
    let text = format!(" {}", options.join(" "));
    if let Some(at) = test.windows(options.len()).position(|words| words == options) {
        return [&test[..at], &test[at + options.len()..]].concat();
    }
    test.iter().map(|word| word.replace(&text, "")).collect()
}

/// Why nobody can tell what becomes of a check.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It calls none of the programs.
    NoClient,
    Unreadable(&'static str),
    /// A call is understood, and cannot be adapted.
    BeyondUs(String),
}

impl Trouble {
    pub(super) fn beyond_us(program: &str, word: &str) -> Self {
        Self::BeyondUs(format!("it calls {program} with {word}, which cannot be adapted"))
    }

    pub(super) fn why(self, client: &Client<'_>) -> String {
        match self {
            Self::NoClient => format!("it does not call {} itself", client.programs[0]),
            Self::Unreadable(why) => why.to_owned(),
            Self::BeyondUs(why) => why,
        }
    }
}

/// A longer script is nobody's health check, and one in the other could go as deep as it is long.
const LONGEST_SCRIPT: usize = 1024;

/// What a program needs that is called with these arguments.
type Judge<'a> = &'a dyn Fn(&str, &[&str]) -> Result<Need, Trouble>;

/// Words that may stand before a command's own, and are none.
const BEFORE_A_COMMAND: [&str; 15] = [
    "!", "{", "if", "then", "elif", "else", "while", "until", "do", "exec", "command", "time", "nohup",
    "env", "--",
];

/// What the words of one command come to.
enum Call {
    /// The client's name is this word.
    Client(usize),
    /// This word is a script for a shell.
    Script(usize),
    Other,
}

/// What is to be put in place of a part of a script.
struct Edit {
    at: Range<usize>,
    text: String,
}

/// A word of a script, as it stands there.
struct Word {
    at: Range<usize>,
    /// Something in it is only known once it runs.
    substituted: bool,
}

/// What a call lacks.
struct Missing {
    /// Put behind the program's name.
    options: Vec<String>,
    /// The argument that is the port, and which it has to be.
    port: Option<(usize, String)>,
}

struct Reader<'a> {
    client: &'a Client<'a>,
    need: Judge<'a>,
}

impl Reader<'_> {
    fn adapt_words(&self, words: &[String]) -> Result<Option<Vec<String>>, Trouble> {
        let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut adapted = words.to_vec();
        match self.call(&borrowed) {
            Call::Other => return Err(Trouble::NoClient),
            Call::Script(at) => match self.adapt_script(&words[at])? {
                None => return Ok(None),
                Some(script) => adapted[at] = script,
            },
            Call::Client(at) => {
                let Some(Missing { options, port }) = self.missing(borrowed[at], &borrowed[at + 1..])? else {
                    return Ok(None);
                };
                if let Some((which, port)) = port {
                    adapted[at + 1 + which] = port;
                }
                adapted.splice(at + 1..=at, options);
            }
        }
        Ok(Some(adapted))
    }

    fn adapt_script(&self, script: &str) -> Result<Option<String>, Trouble> {
        if script.len() > LONGEST_SCRIPT {
            return Err(Trouble::Unreadable("it is longer than a kilobyte"));
        }
        let (mut edits, mut found) = (Vec::new(), false);
        self.script(script, 0..script.len(), &mut edits, &mut found)?;
        if !found {
            return Err(Trouble::NoClient);
        }
        edits.sort_by_key(|edit| edit.at.start);
        let mut adapted = script.to_owned();
        for edit in edits.iter().rev() {
            adapted.replace_range(edit.at.clone(), &edit.text);
        }
        Ok((!edits.is_empty()).then_some(adapted))
    }

    /// Reads the part `within` of `whole` command by command, as a POSIX shell does.
    fn script(
        &self,
        whole: &str,
        within: Range<usize>,
        edits: &mut Vec<Edit>,
        found: &mut bool,
    ) -> Result<(), Trouble> {
        let mut words = Vec::new();
        let mut at = within.start;
        while let Some(character) = whole[at..within.end].chars().next() {
            if ";|&\n()".contains(character) {
                self.command(whole, &words, edits, found)?;
                words.clear();
                at += 1;
            } else if character.is_whitespace() {
                at += character.len_utf8();
            } else if character == '#' {
                at = whole[at..within.end].find('\n').map_or(within.end, |length| at + length);
            } else {
                let word = self.word(whole, at..within.end, edits, found)?;
                at = word.at.end;
                words.push(word);
            }
        }
        self.command(whole, &words, edits, found)
    }

    /// The word at the beginning of `within`. The scripts in it, `$(…)`, are read too.
    fn word(
        &self,
        whole: &str,
        within: Range<usize>,
        edits: &mut Vec<Edit>,
        found: &mut bool,
    ) -> Result<Word, Trouble> {
        let text = &whole[..within.end];
        let unfinished = || Trouble::Unreadable("its quotes or brackets do not end");
        let (mut at, mut quoted, mut substituted) = (within.start, false, false);
        while let Some(character) = text[at..].chars().next() {
            let next = at + character.len_utf8();
            at = match character {
                '\'' if !quoted => next + text[next..].find('\'').ok_or_else(unfinished)? + 1,
                '"' => {
                    quoted = !quoted;
                    next
                }
                '\\' => next + text[next..].chars().next().map_or(0, char::len_utf8),
                '$' if text[next..].starts_with('{') => {
                    next + text[next..].find('}').ok_or_else(unfinished)? + 1
                }
                '$' if text[next..].starts_with('(') => {
                    substituted = true;
                    let end = closing_bracket(text, next + 1).ok_or_else(unfinished)?;
                    self.script(whole, next + 1..end, edits, found)?;
                    end + 1
                }
                '`' => {
                    substituted = true;
                    let end = next + text[next..].find('`').ok_or_else(unfinished)?;
                    // There a backslash means something else.
                    if text[next..end].contains('\\') {
                        return Err(Trouble::Unreadable("it has a backslash within backticks"));
                    }
                    self.script(whole, next..end, edits, found)?;
                    end + 1
                }
                // `2>&1` and `&>file` are one word.
                '&' if !quoted && (text[..at].ends_with('>') || text[next..].starts_with('>')) => next,
                _ if !quoted && (character.is_whitespace() || ";|&()".contains(character)) => break,
                _ => next,
            };
        }
        if quoted { Err(unfinished()) } else { Ok(Word { at: within.start..at, substituted }) }
    }

    fn command(
        &self,
        whole: &str,
        words: &[Word],
        edits: &mut Vec<Edit>,
        found: &mut bool,
    ) -> Result<(), Trouble> {
        let plain: Vec<String> = words.iter().map(|word| without_quotes(&whole[word.at.clone()])).collect();
        let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
        match self.call(&plain) {
            Call::Other => Ok(()),
            Call::Script(at) => {
                let Range { start, end } = words[at].at;
                let written = &whole[start..end];
                let inner = [('\'', &["'"][..]), ('"', &["\"", "\\", "$(", "`"])].iter().find_map(
                    |(quote, special)| {
                        let inner = written.strip_prefix(*quote)?.strip_suffix(*quote)?;
                        (!special.iter().any(|special| inner.contains(special))).then_some(inner)
                    },
                );
                match inner {
                    Some(_) => self.script(whole, start + 1..end - 1, edits, found),
                    None => Err(Trouble::Unreadable(
                        "its script for a shell has quotes that cannot be told apart",
                    )),
                }
            }
            Call::Client(at) => {
                *found = true;
                let Some(Missing { options, port }) = self.missing(plain[at], &plain[at + 1..])? else {
                    return Ok(());
                };
                if words[at + 1..].iter().any(|word| word.substituted) {
                    return Err(Trouble::beyond_us(plain[at], "$(…)"));
                }
                if let Some((which, port)) = port {
                    edits.push(Edit { at: words[at + 1 + which].at.clone(), text: port });
                }
                let end = words[at].at.end;
                let text = options.iter().map(|option| format!(" {option}")).collect();
                edits.push(Edit { at: end..end, text });
                Ok(())
            }
        }
    }

    /// A program counts only where a command begins: elsewhere the same word is a host or a user.
    fn call(&self, words: &[&str]) -> Call {
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let rest = &words[at + 1..];
            match file_name(word) {
                name if self.client.programs.contains(&name) => return Call::Client(at),
                "eval" if rest.len() == 1 => return Call::Script(at + 1),
                name if is_shell(name) || matches!(name, "su" | "runuser") => {
                    let option = rest.iter().position(|option| is_shell_command_option(option));
                    return match option.map(|option| at + option + 2) {
                        Some(script) if script < words.len() => Call::Script(script),
                        _ => Call::Other,
                    };
                }
                "timeout" => {
                    let options =
                        rest.iter().take_while(|word| !word.starts_with(|c: char| c.is_ascii_digit()));
                    at += options.count() + 2;
                }
                "gosu" | "su-exec" => at += 2,
                _ if BEFORE_A_COMMAND.contains(word) || is_assignment(word) => at += 1,
                _ => return Call::Other,
            }
        }
        Call::Other
    }

    /// `None` if the call has all it needs.
    fn missing(&self, program: &str, arguments: &[&str]) -> Result<Option<Missing>, Trouble> {
        if (self.need)(file_name(program), arguments)? == Need::Nothing {
            return Ok(None);
        }
        let mut options: Vec<String> =
            self.client.options.iter().map(|option| (*option).to_owned()).collect();
        let Some((plaintext, tls)) = self.client.ports else {
            return Ok(Some(Missing { options, port: None }));
        };
        let Some(at) = arguments.iter().position(|word| word.starts_with("-p")) else {
            options.extend(["-p".to_owned(), tls.to_string()]);
            return Ok(Some(Missing { options, port: None }));
        };
        let port: Option<u16> =
            arguments.get(at + 1).filter(|_| arguments[at] == "-p").and_then(|port| port.parse().ok());
        if port.is_some_and(|port| port == plaintext || port == tls) {
            Ok(Some(Missing { options, port: Some((at + 1, tls.to_string())) }))
        } else {
            Err(Trouble::Unreadable("it names a port that is not known here"))
        }
    }
}

/// Where the bracket ends that was opened before `from`.
fn closing_bracket(text: &str, from: usize) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    let mut characters = text[from..].char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                characters.next();
            }
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            ('(', None) => depth += 1,
            (')', None) if depth == 0 => return Some(from + at),
            (')', None) => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A word as the program gets it, apart from what is expanded.
fn without_quotes(word: &str) -> String {
    let mut plain = String::with_capacity(word.len());
    let (mut characters, mut quote) = (word.chars(), None);
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => plain.extend(characters.next()),
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            _ => plain.push(character),
        }
    }
    plain
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

#[cfg(test)]
mod tests;
