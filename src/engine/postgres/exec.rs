//! What is run inside a PostgreSQL container, as the database's user: read and replace the `pg_hba.conf` in force, and
//! make the server read its files again. The scripts are beside this file; the parsers here believe nothing that comes
//! back before it adds up to the last byte.
//!
//! Caveats: a `pg_hba.conf` that is a mount of its own, or belongs to another user than the server's, is refused: a
//! rename cannot replace the one, and would change the owner of the other. A setting `hba_file` in a file that
//! postgresql.conf includes is seen only if the server answers on its Unix socket: without a password, or with the
//! one that the image was given.

use super::{Postgres, configuration_directory, last, settings_in};
use crate::{
    engine::{Env, ExecScript, Spec},
    model::Owner,
};

/// The largest `pg_hba.conf` that is read; a file of a thousand lines has a twentieth of that.
pub const HBA_LIMIT: usize = 1 << 20;
const SAID_LIMIT: usize = 64 << 10;

const READ_HBA: &str = include_str!("read_hba.sh");
const WRITE_HBA: &str = include_str!("write_hba.sh");
const RELOAD: &str = include_str!("reload.sh");

/// The `pg_hba.conf` in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hba {
    /// In the container, symbolic links resolved.
    pub path: String,
    pub source: HbaSource,
    /// As the container sees them.
    pub owner: Owner,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// How the file in force was found, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaSource {
    /// The server said so.
    Server,
    Command,
    Configuration,
    Default,
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
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
        })
    }
}

/// Reads the `pg_hba.conf` in force; [`parse_hba`] reads the answer.
pub fn read_hba(command: &[String], env: &Env) -> ExecScript {
    let settings = settings_in(command);
    let of = |name: &str| last(&settings, name).map(|setting| setting.value.clone()).unwrap_or_default();
    let user = env.get("POSTGRES_USER").filter(|user| !user.is_empty());
    let parameters = [
        configuration_directory(command, env),
        Postgres.data_directory(command, env),
        of("hba_file"),
        of("config_file"),
        user.cloned().unwrap_or_else(|| "postgres".to_owned()),
        Postgres.port(command, env).to_string(),
        HBA_LIMIT.to_string(),
    ];
    script(READ_HBA, parameters, None, HBA_LIMIT + SAID_LIMIT)
}

/// What [`read_hba`] found.
pub fn parse_hba(output: ExecOutput<'_>) -> Result<Hba, ScriptError> {
    succeeded(output)?;
    let garbled = ScriptError::Garbled;
    let line_end = output.stdout.iter().take(256).position(|byte| *byte == b'\n');
    let (head, body) = output.stdout.split_at(line_end.ok_or(garbled("no line of lengths"))?);
    let head = std::str::from_utf8(head).map_err(|_| garbled("the line of lengths is not text"))?;
    let words: Vec<&str> = head.split(' ').collect();
    let &["dbssl-hba", "1", source, uid, gid, mode, path_length, length] = words.as_slice() else {
        return Err(garbled("the line of lengths is not ours"));
    };
    let source = match source {
        "server" => HbaSource::Server,
        "command" => HbaSource::Command,
        "configuration" => HbaSource::Configuration,
        "default" => HbaSource::Default,
        _ => return Err(garbled("the line of lengths is not ours")),
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| garbled("a number is none"));
    let owner = Owner { uid: number(uid)?, gid: number(gid)? };
    let mode = u32::from_str_radix(mode, 8).map_err(|_| garbled("the mode is not octal"))?;
    let length_of = |text: &str| text.parse::<usize>().map_err(|_| garbled("a length is none"));
    let (path_length, length) = (length_of(path_length)?, length_of(length)?);
    let body = &body[1..];
    if length > HBA_LIMIT || path_length > 4096 || body.len() != path_length + length {
        return Err(garbled("the lengths do not add up"));
    }
    let (path, content) = body.split_at(path_length);
    let path = std::str::from_utf8(path).map_err(|_| garbled("the path is not UTF-8"))?;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(garbled("the path is not absolute"));
    }
    Ok(Hba { path: path.to_owned(), source, owner, mode, content: content.to_vec() })
}

/// Replaces the content of the file that was read, if nobody has changed it since; [`parse_written`] reads the answer.
pub fn write_hba(read: &Hba, content: &[u8]) -> ExecScript {
    let parameters = [read.path.clone(), cksum(&read.content), content.len().to_string(), cksum(content)];
    script(WRITE_HBA, parameters, Some(content.to_vec()), SAID_LIMIT)
}

pub fn parse_written(output: ExecOutput<'_>) -> Result<(), ScriptError> {
    succeeded(output)?;
    if output.stdout == b"dbssl-hba written\n" { Ok(()) } else { Err(ScriptError::Garbled("not our line")) }
}

/// Makes the server read certificates, `pg_hba.conf` and settings again; [`parse_reloaded`] reads the answer. That
/// the signal was sent proves nothing: broken files only show in the server's log, and in a probe.
pub fn reload(command: &[String], env: &Env) -> ExecScript {
    script(RELOAD, [Postgres.data_directory(command, env), "/proc".to_owned()], None, SAID_LIMIT)
}

/// The id, in the container, of the process that was signalled.
pub fn parse_reloaded(output: ExecOutput<'_>) -> Result<u32, ScriptError> {
    succeeded(output)?;
    std::str::from_utf8(output.stdout)
        .ok()
        .and_then(|text| text.strip_prefix("dbssl-reload ")?.strip_suffix('\n')?.parse().ok())
        .ok_or(ScriptError::Garbled("not our line"))
}

fn script<const N: usize>(
    text: &str,
    parameters: [String; N],
    stdin: Option<Vec<u8>>,
    output_limit: usize,
) -> ExecScript {
    let mut argv = ["/bin/sh", "-c", text, "dbssl"].map(str::to_owned).to_vec();
    argv.extend(parameters);
    ExecScript { argv, stdin, output_limit }
}

fn succeeded(output: ExecOutput<'_>) -> Result<(), ScriptError> {
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
        exit_code => return Err(ScriptError::Failed { exit_code, said: said(output.stderr) }),
    };
    Err(ScriptError::Refused { refusal, said: said(output.stderr) })
}

/// One line that is safe to log.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(&stderr[..stderr.len().min(2048)]);
    let words: Vec<&str> = text.split(|letter: char| letter.is_whitespace() || letter.is_control()).collect();
    words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect()
}

/// Checksum and size as POSIX' `cksum` prints them: the one checksum that every image has.
fn cksum(bytes: &[u8]) -> String {
    let mut length = bytes.len();
    let length_bytes = std::iter::from_fn(|| {
        let byte = u8::try_from(length & 0xff).unwrap_or_default();
        (length != 0).then(|| {
            length >>= 8;
            byte
        })
    });
    let sum = bytes.iter().copied().chain(length_bytes).fold(0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte) << 24, |sum, _| {
            if sum >> 31 == 1 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 }
        })
    });
    format!("{} {}", !sum, bytes.len())
}

#[cfg(test)]
mod tests;
