//! Docker's API as the JSON that it speaks: one request on one connection to the Unix socket.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::Failure;

/// The longest answer that we read. An inspect has some 10 KiB, a list of 2,000 networks 2 MiB.
const LONGEST: usize = 64 << 20;

/// Sends one request; the answer's JSON, `Null` where there is no body (as with 204 and 304).
///
/// A list goes straight into the fields that are used: as a `Value` it would take ten times its length.
pub async fn call<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<T, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let content = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(content)))
        .map_err(|error| Failure::Garbled(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| not_read(&*error))?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(exchange);
    let (status, body) = tokio::select! {
        biased;
        answer = &mut exchange => answer?,
        // An orderly end leaves the rest of the answer to be read.
        ended = connection => match ended {
            Ok(()) => exchange.await?,
            Err(error) => return Err(unreachable(error)),
        },
    };
    understand(status, &body)
}

fn not_read(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    if error.is::<LengthLimitError>() {
        return Failure::Garbled(format!("it is longer than {LONGEST} bytes"));
    }
    Failure::Garbled(error.to_string())
}

fn understand<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T, Failure> {
    if (200..400).contains(&status) {
        let body = if body.iter().all(u8::is_ascii_whitespace) { b"null" } else { body };
        return serde_json::from_slice(body).map_err(|error| Failure::Garbled(error.to_string()));
    }
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|answer| Some(answer["message"].as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned());
    Err(Failure::Refused { status, message })
}

fn unreachable(error: impl std::error::Error) -> Failure {
    Failure::Unreachable(error.to_string())
}

/// Percent-encodes one segment of a path or a query's value (RFC 3986, section 2.3).
pub fn encode(text: &str) -> String {
    encode_but(text, "-._~")
}

/// The same for an image's name, whose slashes and colons Docker takes as they are.
pub fn encode_path(text: &str) -> String {
    encode_but(text, "-._~/:@")
}

fn encode_but(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        assert_eq!(understand::<Value>(200, b"{\"Id\":1}").unwrap()["Id"], 1);
        assert_eq!(understand::<Value>(204, b"").unwrap(), Value::Null);
        assert_eq!(understand::<Value>(304, b"\n").unwrap(), Value::Null);
        assert!(matches!(understand::<Value>(200, b"<html>"), Err(Failure::Garbled(_))));
        let refused = understand::<Value>(409, b"{\"message\":\"name in use\"}").unwrap_err();
        assert_eq!(refused.to_string(), "name in use (status 409)");
        assert!(matches!(
            understand::<Value>(502, b"bad gateway"),
            Err(Failure::Refused { status: 502, .. })
        ));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("a/b?c"), "a%2Fb%3Fc");
        assert_eq!(encode_path("r.example:5000/a/b:1@sha256:f"), "r.example:5000/a/b:1@sha256:f");
    }
}
