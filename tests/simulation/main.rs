//! Random histories of a host, gone through by the agent itself: its own loop, decisions, journal and files, on a fake of
//! Docker and the databases in it, and on a clock that runs ahead while nothing happens.
//!
//! A history is made from one number, so one that fails can be gone through again:
//! `DBSSL_HISTORY=17 cargo test --profile histories --features simulation --test simulation -- --nocapture`
//! tells it step by step. `DBSSL_HISTORIES=N` goes through N of them.
//!
//! - [`machine`] is the host as the agent meets it: [`container`]s, volumes, networks, a daemon that can die.
//! - [`docker`] and [`probe`] are the two sides that the agent sees of it; every call yields, may take long, fail,
//!   succeed without an answer, and be the agent's last.
//! - [`image`] is what a database is made from: its name may come to mean another one.
//! - [`server`] is a database: which certificate it has loaded, and what it does when told.
//! - [`storm`] is everybody else: the users, the daemon, the disk, the clock.
//! - [`promises`] is what has to hold, at every moment and in the end.
//! - [`scenes`] are what chance brings about too seldom.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "a failing history is told")]

mod container;
mod contract;
mod docker;
mod history;
mod image;
mod machine;
mod probe;
mod promises;
mod scenes;
mod server;
mod storm;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use history::{History, go_through};

/// A history is made of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(variable: &str) -> Option<u64> {
    #[allow(clippy::disallowed_methods, reason = "a test's own knob, not a setting")]
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, allowed: a number")))
}

/// As many as go through in three minutes on two cores, optimised as the profile `histories` says.
const HISTORIES: u64 = 50_000;

#[test]
fn whatever_happens_the_promises_hold() {
    if let Some(seed) = number("DBSSL_HISTORY") {
        let history = go_through(seed, true);
        assert!(history.broken.is_empty(), "history {seed}:\n{}", told(&history));
        return;
    }
    let (all, next) = (number("DBSSL_HISTORIES").unwrap_or(HISTORIES), AtomicU64::new(0));
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let failed: Vec<(u64, History)> = thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                // A handful is enough to look at.
                if seed >= all || failed.len() >= 3 {
                    return failed;
                }
                let history = go_through(seed, false);
                if !history.broken.is_empty() {
                    failed.push((seed, history));
                }
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    for (seed, history) in &failed {
        eprintln!("--- history {seed} (again: DBSSL_HISTORY={seed})\n{}", told(history));
    }
    assert!(failed.is_empty(), "{} histories broke a promise: {:?}", failed.len(), seeds(&failed));
}

/// The same number is the same history: else none could be gone through again.
#[test]
fn a_history_can_be_repeated() {
    for seed in 0..20 {
        let (once, again) = (go_through(seed, true), go_through(seed, true));
        assert_eq!(steps(&once), steps(&again), "history {seed}");
    }
}

/// The fake does what the agent relies on of any engine.
#[test]
fn the_fake_engine_keeps_the_contract() {
    history::in_peace(async |docker| {
        let ground =
            contract::Ground { docker, image: "redis:7.0", prefix: "contract", label: "a=b", network: "app" };
        contract::is_kept(&ground).await;
    });
}

/// Without the agent's words, and what it draws by lot in names of its own.
fn steps(history: &History) -> Vec<&str> {
    let words = |step: &str| [" INFO ", " WARN ", " ERROR ", ".jsonl"].iter().any(|word| step.contains(word));
    let told = history.steps.iter().filter(|step| !words(step));
    let lots = ["dbssl-parked-", "dbssl-failed-"];
    told.map(|step| lots.iter().fold(step.as_str(), |step, lot| step.split(lot).next().unwrap_or(step)))
        .collect()
}

fn seeds(failed: &[(u64, History)]) -> Vec<u64> {
    failed.iter().map(|(seed, _)| *seed).collect()
}

fn told(history: &History) -> String {
    format!("{}\nbroken:\n  {}", history.steps.join("\n"), history.broken.join("\n  "))
}
