//! What is run inside a database's container by `exec`, and how its answer is read.
//!
//! The scripts lie beside the engines' files. They are POSIX sh and known to work in dash and in busybox.

use std::fmt;

use crate::model::Secret;

/// More than this on a stream is no answer of ours.
pub(super) const SAID_LIMIT: usize = 64 << 10;
/// In front of every script.
const PRELUDE: &str = include_str!("prelude.sh");
/// What a script prints when the server did as it was told.
const DONE: &[u8] = b"dbssl done\n";

/// A script to run inside a container by `exec`, as the database's user.
///
/// Whatever comes from outside is a positional parameter or standard input, never part of the script's text; and what
/// is secret is standard input, never a parameter.
#[derive(Clone)]
pub struct ExecScript {
    pub argv: Vec<String>,
    /// The script knows how many bytes or lines these are: it does not need the end of the stream.
    pub stdin: Option<Secret>,
    /// More bytes than this on standard output or on standard error are no answer of ours: stop reading.
    pub output_limit: usize,
}

impl fmt::Debug for ExecScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters = self.argv.get(3..).unwrap_or_default();
        f.debug_struct("ExecScript").field("parameters", &parameters).finish_non_exhaustive()
    }
}

/// What a script printed, and the exit code of its shell.
#[derive(Clone, Copy, Debug)]
pub struct ExecOutput<'a> {
    pub exit_code: i64,
    pub stdout: &'a [u8],
    pub stderr: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// The script says what is in the way: nothing was changed.
    #[error("{refusal}: {said}")]
    Refused { refusal: Refusal, said: String },
    #[error("the script ended with exit code {exit_code}: {said}")]
    Failed { exit_code: i64, said: String },
    #[error("the script's answer is garbled: {0}")]
    Garbled(&'static str),
}

/// What can be in a script's way; each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoShell,
    HbaMissing,
    HbaUnreadable,
    HbaTooLarge,
    /// Somebody else has written to it since it was read: read it again.
    HbaChanged,
    HbaNotReplaceable,
    HbaNotWritten,
    ServerNotFound,
    ServerNotSignalled,
    NoClient,
    PasswordUnreadable,
    PasswordRefused,
    NotPermitted,
    FilesRefused,
    NotObeyed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoShell => "the container has no /bin/sh that can be run",
            Self::HbaMissing => "pg_hba.conf was not found",
            Self::HbaUnreadable => "pg_hba.conf cannot be read",
            Self::HbaTooLarge => "pg_hba.conf is too large",
            Self::HbaChanged => "pg_hba.conf was changed by somebody else in the meantime",
            Self::HbaNotReplaceable => "pg_hba.conf cannot be replaced",
            Self::HbaNotWritten => "pg_hba.conf could not be written",
            Self::ServerNotFound => "the server's process was not found",
            Self::ServerNotSignalled => "the server's process could not be signalled",
            Self::NoClient => "the container has no client for its own server",
            Self::PasswordUnreadable => "the file of the administrator's password cannot be read",
            Self::PasswordRefused => {
                "the server refuses the password that the container's environment or command gives"
            }
            Self::NotPermitted => "the account that the container's environment gives may not do this",
            Self::FilesRefused => "the server refuses its new files",
            Self::NotObeyed => "the server did not do it",
        })
    }
}

/// `text` with its parameters, for a shell.
pub(super) fn script<const N: usize>(
    text: &str,
    parameters: [String; N],
    stdin: Option<Vec<u8>>,
    output_limit: usize,
) -> ExecScript {
    let mut argv = ["/bin/sh", "-c", &[PRELUDE, text].concat(), "dbssl"].map(str::to_owned).to_vec();
    argv.extend(parameters);
    ExecScript { argv, stdin: stdin.map(Secret::new), output_limit }
}

/// Whether the script came to its end.
pub(super) fn succeeded(output: ExecOutput<'_>) -> Result<(), ScriptError> {
    let refusal = match output.exit_code {
        0 => return Ok(()),
        126 | 127 => Refusal::NoShell,
        20 => Refusal::HbaMissing,
        21..=23 => Refusal::HbaUnreadable,
        24 => Refusal::HbaTooLarge,
        31 => Refusal::HbaChanged,
        30 | 32 | 34 | 36 => Refusal::HbaNotReplaceable,
        33 | 35 | 39 => Refusal::HbaNotWritten,
        40 => Refusal::ServerNotFound,
        41 => Refusal::ServerNotSignalled,
        50 => Refusal::NoClient,
        51 => Refusal::PasswordUnreadable,
        52 => Refusal::PasswordRefused,
        53 => Refusal::NotPermitted,
        54 => Refusal::FilesRefused,
        55 => Refusal::NotObeyed,
        exit_code => return Err(ScriptError::Failed { exit_code, said: said(output.stderr) }),
    };
    Err(ScriptError::Refused { refusal, said: said(output.stderr) })
}

/// Whether the server did as it was told.
pub fn parse_done(output: ExecOutput<'_>) -> Result<(), ScriptError> {
    succeeded(output)?;
    if output.stdout == DONE { Ok(()) } else { Err(ScriptError::Garbled("not our line")) }
}

/// An answer to a question about the running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    /// Nobody could be asked, and nothing is known that beats the server's command line.
    AsItsCommandSays,
}

pub fn parse_answer(output: ExecOutput<'_>) -> Result<Answer, ScriptError> {
    succeeded(output)?;
    match output.stdout {
        b"dbssl yes\n" => Ok(Answer::Yes),
        b"dbssl no\n" => Ok(Answer::No),
        b"dbssl flag\n" => Ok(Answer::AsItsCommandSays),
        _ => Err(ScriptError::Garbled("not our line")),
    }
}

/// One line that is safe to log.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(&stderr[..stderr.len().min(2048)]);
    let words: Vec<&str> = text.split(|letter: char| letter.is_whitespace() || letter.is_control()).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(exit_code: i64, stdout: &[u8]) -> ExecOutput<'_> {
        ExecOutput { exit_code, stdout, stderr: b"" }
    }

    #[test]
    fn only_our_own_line_is_an_answer() {
        assert_eq!(parse_done(output(0, b"dbssl done\n")), Ok(()));
        assert_eq!(parse_answer(output(0, b"dbssl yes\n")), Ok(Answer::Yes));
        assert_eq!(parse_answer(output(0, b"dbssl no\n")), Ok(Answer::No));
        assert_eq!(parse_answer(output(0, b"dbssl flag\n")), Ok(Answer::AsItsCommandSays));
        for answer in [&b""[..], b"dbssl done", b"dbssl done\n\n", b"dbssl yes", b"OK\n", b"\xff"] {
            assert!(parse_done(output(0, answer)).is_err() && parse_answer(output(0, answer)).is_err());
        }
        assert!(parse_done(output(52, b"dbssl done\n")).is_err());
    }

    #[test]
    fn standard_input_is_never_shown() {
        let script = script("read it", ["shown".to_owned()], Some(b"hunter2".to_vec()), 1);
        let text = format!("{script:?}");
        assert!(text.contains("shown") && !text.contains("hunter2"), "{text}");
    }
}
