//! What every live test stands on: a run of its own on a real Docker Engine, with an agent, containers and clients.
//!
//! # Guarantees
//! - **One at a time.** An agent looks after every labelled container of its engine, so two live tests side by side
//!   would work on each other's. [`TestRun::begin`] holds a lock, one for each engine, across threads and processes.
//! - **Nobody else's container.** A run refuses to begin on an engine that has labelled containers which no test made:
//!   the agent under test would change them.
//! - **Nothing stays behind.** All that a run makes carries the label `test.run` with the run's id; [`TestRun`] removes
//!   just that when it is dropped, also on a panic. What a killed test left, the next one removes.
//! - **No waiting by the clock.** [`wait`] waits for a condition, with a deadline.
//!
//! The engine is the one that `docker` itself talks to (`DOCKER_HOST`); the images are those of `tests/images`.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may fail"
)]

mod agent;
mod container;
mod docker;
mod image;
mod psql;
mod run;
mod waiting;

pub use self::{
    agent::{Agent, Setup},
    container::{Container, Start},
    docker::{docker, try_docker},
    image::image,
    psql::Client,
    run::{Cli, Config, TestRun, profile_is_all},
    waiting::wait,
};
