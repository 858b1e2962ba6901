//! The `docker` command: what an operator would type.

use std::{ffi::OsStr, process::Command};

/// Runs `docker` and gives its standard output, trimmed; panics with its error else.
pub fn docker<S: AsRef<OsStr> + std::fmt::Debug>(arguments: &[S]) -> String {
    try_docker(arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
}

/// Runs `docker`: standard output, or standard error if it failed, both trimmed.
pub fn try_docker<S: AsRef<OsStr>>(arguments: &[S]) -> Result<String, String> {
    let run = Command::new("docker").args(arguments).output();
    let output =
        run.unwrap_or_else(|error| panic!("cannot run docker (install docker.io or docker-cli): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The lines of an answer, none for an empty one.
pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
