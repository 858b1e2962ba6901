//! The outside world, one thing a file.

pub mod probe;
