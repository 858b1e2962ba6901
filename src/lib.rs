//! dbssl gives labelled database containers TLS that their clients can verify.
//!
//! # The map
//!
//! | layer | may import | what it is |
//! |---|---|---|
//! | [`model`], [`san`], [`shown`] | each other | the shared words as types; text from outside, read and shown |
//! | [`pki`], [`engine`], [`config`] | `model` | certificates, databases, settings: values only |
//! | [`decide`] | the above | pure: labels and observations in, a plan with its reason out |
//! | [`host`], [`logging`] | the above but `decide` | one outside thing a file: Docker, files, sockets |
//! | `agent` | all above | observe, decide, apply, prove; the loop around it |
//! | `cli` | all above | the verbs |
//!
//! Imports point up this table only; `tests/architecture.rs` holds it.

pub mod agent;
pub mod cli;
pub mod config;
pub mod decide;
pub mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod logging;
pub mod model;
pub mod pki;
pub mod san;
pub mod shown;
