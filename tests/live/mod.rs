//! What every live test stands on: a run of its own on a real Docker Engine, with an agent, containers and clients.
//!
//! # Guarantees
//! - **Nobody else's container.** An agent looks after every labelled container of its engine. Those of the tests are
//!   told by `docker.only` to look at their own run's, so that tests can run side by side. A test whose agent is not
//!   told so ([`Config::alone`]) gets the engine for itself, and refuses to begin where labelled containers are that
//!   no test made.
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
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail"
)]

mod agent;
mod cases;
mod compose;
mod container;
mod docker;
mod engine;
mod events;
mod image;
mod kind;
mod openssl;
mod psql;
mod run;
mod scene;
mod sentry;
mod waiting;
mod watcher;

pub use self::{
    agent::{Agent, Setup},
    cases::{CASES_IMAGES, Case, Way, every_case, kill_all, recover_all, ways},
    compose::{Compose, DATA_AND_NETWORK, compose_database},
    container::{Container, Start},
    docker::{docker, try_docker},
    engine::{End, Engine, on_an_engine_of_its_own},
    events::{Event, Events},
    image::image,
    kind::{
        Driver, Kind, Load, MARIADB_10, MARIADB_11, MONGODB, MYSQL, POSTGRES_15, POSTGRES_17, POSTGRES_18,
        REDIS_7, REDIS_8, VALKEY, Verify, drivers, python, seen_at,
    },
    openssl::{Pair, client, fingerprint, last_day, leaf, leaf_of_999, root, verify},
    psql::Client,
    run::{Cli, Config, TestRun, profile_is_all},
    scene::{Scene, assert_nothing_stays},
    sentry::{Seen, Sentry},
    waiting::wait,
    watcher::Watcher,
};
