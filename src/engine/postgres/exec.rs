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
    engine::{
        Env, Spec,
        script::{ExecOutput, ExecScript, SAID_LIMIT, ScriptError, script, succeeded},
    },
    model::Owner,
};

/// The largest `pg_hba.conf` that is read; a file of a thousand lines has a twentieth of that.
pub const HBA_LIMIT: usize = 1 << 20;

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

/// Makes the server read certificates, `pg_hba.conf` and settings again. That the signal was sent proves nothing: broken
/// files only show in the server's log, and in a probe.
pub fn reload(command: &[String], env: &Env) -> ExecScript {
    script(RELOAD, [Postgres.data_directory(command, env), "/proc".to_owned()], None, SAID_LIMIT)
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
