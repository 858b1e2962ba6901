//! The outside world, one thing a file. Everything here does IO and decides nothing.

pub mod archive;
pub mod bundle;
pub mod castore;
pub mod certdir;
pub mod clock;
pub mod crash;
pub mod csr;
pub mod delivery;
pub mod docker;
pub mod files;
pub mod handout;
pub mod journal;
pub mod lock;
pub mod mountinfo;
pub mod probe;
pub mod process;
pub mod requests;
pub mod seen;
pub mod setbacks;
pub mod stamp;
pub mod systemd;
pub mod watch;
