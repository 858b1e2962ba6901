//! The outside world, one thing a file. Everything here does IO and decides nothing.

pub mod archive;
pub mod bundle;
pub mod castore;
pub mod certdir;
pub mod clock;
pub mod crash;
pub mod docker;
pub mod files;
pub mod journal;
pub mod lock;
pub mod probe;
pub mod requests;
pub mod setbacks;
pub mod systemd;
pub mod watch;
