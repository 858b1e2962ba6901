//! A Docker Engine that is none, on a Unix socket of its own: it replays what a real one answered (`tests/data`) for as
//! many containers as a test wants, and misbehaves as it is told to. And the agent that is pointed at it.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may fail"
)]

mod agent;
mod answers;
mod fake;
#[path = "../live/waiting.rs"]
mod waiting;

pub use self::{
    agent::{Agent, Setup},
    answers::{Container, id},
    fake::{Fake, Manner},
    waiting::wait,
};
