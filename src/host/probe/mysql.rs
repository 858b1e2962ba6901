//! MySQL's and MariaDB's wire before a session (MySQL's internals manual: "Connection Phase").

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Obstacle, Plain, Shown, harmless};

const PACKET_LIMIT: usize = 16 << 10;
/// What this client can: protocol 4.1, TLS, authentication by plugin.
const PROTOCOL_41: u32 = 0x200;
const SSL: u32 = 0x800;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;
const COM_QUIT: u8 = 1;

/// The number of the login packet, and whether TLS is on.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    sequence: u8,
    tls: bool,
}

pub(super) const AFTER_TLS: Turn = Turn { sequence: 2, tls: true };
const IN_PLAINTEXT: Turn = Turn { sequence: 1, tls: false };

pub(super) async fn ask_for_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), Obstacle> {
    if greeting(stream).await? & SSL == 0 {
        return Err(Obstacle::Plaintext);
    }
    let request = login_head(true);
    write_packet(stream, 1, &request).await
}

pub(super) async fn plaintext(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Plain, Obstacle> {
    greeting(stream).await?;
    log_in(stream, IN_PLAINTEXT).await
}

/// Tries to log in as nobody, to the end: a server that is left in the middle counts that against our address.
pub(super) async fn log_in(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    turn: Turn,
) -> Result<Plain, Obstacle> {
    let mut login = login_head(turn.tls);
    // A user that does not exist, an empty password, a plugin that every version knows by name.
    login.extend_from_slice(b"dbssl-probe\0\0mysql_native_password\0");
    write_packet(stream, turn.sequence, &login).await?;
    for _ in 0..4 {
        let (sequence, packet) = packet(stream).await?;
        match packet.first() {
            Some(0xff) => {
                let error = ServerError::parse(&packet);
                return match error.code {
                    // ER_SECURE_TRANSPORT_REQUIRED
                    3159 => Ok(Plain::Refused),
                    // ER_ACCESS_DENIED_ERROR, …_NO_PASSWORD_ERROR, ER_NOT_SUPPORTED_AUTH_MODE, ER_PLUGIN_IS_NOT_LOADED.
                    // MariaDB looks at require_secure_transport only behind the password (tested with 10.11): this
                    // says nothing about plaintext.
                    1045 | 1698 | 1251 | 1524 => Ok(Plain::Unclear(
                        "the login is refused before it matters whether TLS is used".to_owned(),
                    )),
                    _ => Err(error.obstacle()),
                };
            }
            // Another plugin, or more questions by it: an empty answer is a wrong password.
            Some(0xfe | 0x01) => write_packet(stream, sequence.wrapping_add(1), b"").await?,
            Some(0x00) => {
                write_packet(stream, 0, &[COM_QUIT]).await?;
                return Ok(Plain::Accepted);
            }
            _ => return Ok(Plain::Unclear(format!("MySQL does not answer {}", Shown(&packet)))),
        }
    }
    Ok(Plain::Unclear("the login has no end".to_owned()))
}

/// The server's capabilities.
async fn greeting(stream: &mut (impl AsyncRead + Unpin)) -> Result<u32, Obstacle> {
    let (_, packet) = packet(stream).await?;
    let strange = || Obstacle::Failed(format!("MySQL does not greet with {}", Shown(&packet)));
    match packet.first() {
        Some(10) => {}
        Some(0xff) => return Err(ServerError::parse(&packet).obstacle()),
        _ => return Err(strange()),
    }
    // Version (a string), thread (4), data for authentication (8), filler (1), capabilities (2), character set (1),
    // status (2), more capabilities (2).
    let version = packet.iter().position(|byte| *byte == 0).ok_or_else(strange)?;
    let rest = &packet[version + 1..];
    let &[low, high, _, _, _, lower, upper] = rest.get(13..20).ok_or_else(strange)? else {
        return Err(strange());
    };
    Ok(u32::from_le_bytes([low, high, lower, upper]))
}

/// The part of a login that is also, alone, the request for TLS: 32 bytes.
fn login_head(tls: bool) -> Vec<u8> {
    let capabilities = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | if tls { SSL } else { 0 };
    let mut head = Vec::with_capacity(32);
    head.extend_from_slice(&capabilities.to_le_bytes());
    head.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    // utf8mb4_general_ci, then what is reserved.
    head.push(45);
    head.resize(32, 0);
    head
}

async fn packet(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>), Obstacle> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [low, middle, high, sequence] = head;
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    if length > PACKET_LIMIT {
        return Err(Obstacle::Failed(format!("a packet of {length} bytes is none of MySQL's")));
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok((sequence, packet))
}

async fn write_packet(
    stream: &mut (impl AsyncWrite + Unpin),
    sequence: u8,
    payload: &[u8],
) -> Result<(), Obstacle> {
    let [low, middle, high, _] = u32::try_from(payload.len()).unwrap_or_default().to_le_bytes();
    stream.write_all(&[&[low, middle, high, sequence], payload].concat()).await?;
    stream.flush().await?;
    Ok(())
}

struct ServerError {
    code: u16,
    message: String,
}

impl ServerError {
    fn parse(packet: &[u8]) -> Self {
        match packet {
            [_, low, high, text @ ..] => {
                Self { code: u16::from_le_bytes([*low, *high]), message: harmless(text) }
            }
            _ => Self { code: 0, message: String::new() },
        }
    }

    fn obstacle(self) -> Obstacle {
        let text = format!("error {}: {}", self.code, self.message);
        match self.code {
            // ER_HOST_IS_BLOCKED, ER_HOST_NOT_PRIVILEGED: waiting does not help.
            1129 | 1130 => Obstacle::Failed(text),
            _ => Obstacle::NotReady(text),
        }
    }
}
