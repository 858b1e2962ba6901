//! The outside world, one thing of it a file. Nothing here decides anything.

pub mod clock;
pub mod systemd;
