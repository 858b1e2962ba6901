//! PostgreSQL's wire before a session (manual: "Frontend/Backend Protocol", "Message Formats").

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Obstacle, Plain, Shown, harmless};

/// Length 8, code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Protocol 3.0.
const STARTUP: &[u8] = b"\0\x03\0\0user\0postgres\0database\0postgres\0application_name\0dbssl\0\0";
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
/// Error messages and authentication requests are a few hundred bytes.
const MESSAGE_LIMIT: u32 = 16 << 10;

pub(super) async fn ask_for_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), Obstacle> {
    stream.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match answer {
        [b'S'] => Ok(()),
        [b'N'] => Err(Obstacle::Plaintext),
        // A server that cannot even start a process for us.
        [b'E'] => {
            let mut text = Vec::new();
            let _ = stream.take(512).read_to_end(&mut text).await;
            Err(Obstacle::NotReady(harmless(&text)))
        }
        other => Err(Obstacle::Failed(format!("PostgreSQL does not answer {}", Shown(&other)))),
    }
}

/// Whether a session that asks to begin is told to authenticate (or why not), rather than to come back later.
pub(super) async fn takes_sessions(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    match begin(stream).await {
        Ok(Begun::Authenticates) => true,
        Ok(Begun::Error(error)) => !error.comes_back_later(),
        Ok(Begun::Other(_)) | Err(_) => false,
    }
}

pub(super) async fn plaintext(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Plain, Obstacle> {
    Ok(match begin(stream).await? {
        Begun::Authenticates => Plain::Accepted,
        Begun::Error(error) if error.comes_back_later() || error.is_full() => Plain::NotReady(error.message),
        Begun::Error(error) if error.refuses_plaintext() => Plain::Refused,
        // pg_hba.conf let it pass: only then are users and databases looked up.
        Begun::Error(error) if error.is_behind_authentication() => Plain::Accepted,
        Begun::Error(error) => Plain::Unclear(format!("{}: {}", error.sqlstate, error.message)),
        Begun::Other(kind) => Plain::Unclear(format!("PostgreSQL does not answer {}", Shown(&[kind]))),
    })
}

enum Begun {
    Authenticates,
    Error(ServerError),
    Other(u8),
}

async fn begin(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Begun, Obstacle> {
    let length = u32::try_from(STARTUP.len() + 4).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), STARTUP].concat()).await?;
    stream.flush().await?;
    // Notices may come first, and what is said about the protocol's version.
    for _ in 0..8 {
        let (kind, body) = message(stream).await?;
        return Ok(match kind {
            b'N' | b'v' => continue,
            b'R' => {
                // Let in without a password: there is a session to end. Else there is none, and anything but the
                // end of the stream would be logged as a wrong answer to the authentication request.
                if body.starts_with(&[0; 4]) {
                    stream.write_all(&TERMINATE).await?;
                }
                Begun::Authenticates
            }
            b'E' => Begun::Error(ServerError::parse(&body)),
            other => Begun::Other(other),
        });
    }
    Err(Obstacle::NotReady("the server sends nothing but notices".to_owned()))
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>), Obstacle> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let Some(length) = length.checked_sub(4).filter(|length| *length <= MESSAGE_LIMIT) else {
        return Err(Obstacle::Failed(format!("a message of {length} bytes is none of PostgreSQL's")));
    };
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// The fields of an ErrorResponse that matter.
#[derive(Debug, Default)]
struct ServerError {
    sqlstate: String,
    /// In the server's language.
    message: String,
    /// The C function that reports it, which is in no language.
    routine: String,
}

impl ServerError {
    fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            match field {
                [b'C', text @ ..] => error.sqlstate = harmless(text),
                [b'M', text @ ..] => error.message = harmless(text),
                [b'R', text @ ..] => error.routine = harmless(text),
                _ => {}
            }
        }
        error
    }

    /// Starting up, shutting down, recovering. Not 53300: a server whose connections are all taken is at work.
    fn comes_back_later(&self) -> bool {
        matches!(self.sqlstate.as_str(), "57P01" | "57P02" | "57P03")
    }

    /// All connections are taken, which is found before `pg_hba.conf` is asked.
    fn is_full(&self) -> bool {
        self.sqlstate == "53300"
    }

    /// `pg_hba.conf` rejects, or has no line for, a connection without TLS.
    fn refuses_plaintext(&self) -> bool {
        let says = ["no encryption", "SSL off"].iter().any(|words| self.message.contains(words));
        self.sqlstate == "28000" && (says || self.routine == "ClientAuthentication")
    }

    fn is_behind_authentication(&self) -> bool {
        matches!(self.sqlstate.as_str(), "3D000" | "42501" | "28P01")
            || self.sqlstate == "28000" && self.routine == "InitializeSessionUserId"
    }
}
