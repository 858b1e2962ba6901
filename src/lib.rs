//! dbssl gives labelled database containers TLS that their clients can verify.
//!
//! # The map
//!
//! | layer | may import | what it is |
//! |---|---|---|
//! | [`model`] | nothing | the shared words as types |
//! | [`pki`], [`engine`], [`config`] | `model` | certificates, databases, settings: values only |
//! | `decide` | the above | pure: labels and observations in, a plan with its reason out |
//! | `host` | the above but `decide` | one outside thing a file: Docker, files, sockets |
//! | `agent` | all above | observe, decide, apply, prove; the loop around it |
//! | `cli` | all above | the verbs |
//!
//! Imports point up this table only; `tests/architecture.rs` holds it.

pub mod engine;
pub mod host;
pub mod model;
