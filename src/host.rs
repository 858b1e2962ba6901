//! Everything outside, one thing a file.

pub mod bundle;
pub mod castore;
pub mod certdir;
pub mod files;
