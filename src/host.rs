//! The outside world, one thing a file. Everything here does IO and decides nothing.

pub mod crash;
pub mod docker;
pub mod journal;
