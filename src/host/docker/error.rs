//! What goes wrong between Docker and us, in words of our own.

use std::time::Duration;

use bollard::errors::Error as BollardError;

use super::connection::CALL;

/// A call that Docker did not answer as hoped.
#[derive(Debug, thiserror::Error)]
#[error("docker {call} {object}: {failure}")]
pub struct DockerError {
    pub call: &'static str,
    pub object: String,
    pub failure: Failure,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{message} (status {status})")]
    Refused { status: u16, message: String },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("not reachable: {0}")]
    Unreachable(String),
    #[error("answer not understood: {0}")]
    Garbled(String),
}

impl DockerError {
    /// It was answered as hoped, and a look shows that it is not so.
    pub fn unproved(call: &'static str, object: &str, why: &str) -> Self {
        garbled(call, object, why)
    }

    pub fn status(&self) -> Option<u16> {
        match self.failure {
            Failure::Refused { status, .. } => Some(status),
            _ => None,
        }
    }

    pub fn not_found(&self) -> bool {
        self.status() == Some(404)
    }

    pub fn timed_out(&self) -> bool {
        matches!(self.failure, Failure::Timeout(_))
    }

    /// The engine itself cannot be spoken to, so nothing can be said about the object.
    pub fn engine_gone(&self) -> bool {
        matches!(self.failure, Failure::Unreachable(_) | Failure::Timeout(_))
    }
}

pub(super) fn garbled(call: &'static str, object: &str, why: &str) -> DockerError {
    DockerError { call, object: object.to_owned(), failure: Failure::Garbled(why.to_owned()) }
}

pub(super) fn failed(call: &'static str, object: &str, error: BollardError) -> DockerError {
    let failure = match error {
        BollardError::DockerResponseServerError { status_code, message } => {
            Failure::Refused { status: status_code, message }
        }
        BollardError::RequestTimeoutError => Failure::Timeout(CALL),
        BollardError::JsonDataError { message, .. } => Failure::Garbled(message),
        other => Failure::Unreachable(crate::shown::with_causes(&other)),
    };
    DockerError { call, object: object.to_owned(), failure }
}
