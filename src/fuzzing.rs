//! The one door for fuzzers (`fuzz/`) to readers that are nobody else's business.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::host::{
    archive, mountinfo,
    probe::{self, Plain},
};

/// Everything that is said to a server in plaintext.
pub const EXCHANGES: [&str; 8] = probe::EXCHANGES;

/// One of [`EXCHANGES`], with a server that is any stream. [`Plain::Refused`] also stands for TLS that may begin, and
/// [`Plain::Accepted`] for TLS that the server does not have.
pub async fn exchange(which: &str, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Plain {
    probe::exchange(which, stream).await
}

/// The first file of an archive, at most `limit` bytes.
pub fn first_file(tar: &[u8], limit: usize) -> Option<Vec<u8>> {
    archive::first_file(tar, limit).ok()
}

/// A line of mountinfo: the device, the path in its file system, the mount point.
pub fn mounted(line: &[u8]) -> Option<[Vec<u8>; 3]> {
    mountinfo::fields(line)
}

/// Whether, by a whole mountinfo, another file is mounted at `destination` than this one.
pub fn is_stale(mountinfo: &[u8], destination: &[u8], device: &[u8], path: &[u8]) -> Option<bool> {
    mountinfo::is_stale_by(mountinfo, destination, device, path)
}
