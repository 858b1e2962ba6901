//! What the agent costs when there is nothing to do.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::time::{Duration, Instant};

use live::{TestRun, profile_is_all};

#[test]
fn with_nothing_to_do_it_says_nothing_and_costs_next_to_nothing() {
    // What is looked at is a span of time; a longer one with all tests.
    let span = Duration::from_secs(if profile_is_all() { 65 } else { 20 });
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let names = ["a", "b", "c", "d", "e"];
    // With health checks, as most have: each of them makes events.
    let databases = names.map(|name| {
        run.database(name)
            .enabled()
            .options(["--health-cmd", "pg_isready", "--health-interval", "1s"])
            .start()
    });
    for db in &databases {
        agent.wait_log(240, &[&db.name, "plaintext is refused: proved"]);
    }
    live::wait("all are proved and healthy", 60, || {
        let statuses = run.statuses();
        let healthy = databases.iter().all(|db| db.inspect()["State"]["Health"]["Status"] == "healthy");
        let proved = statuses.values().all(|status| status["standing"] == "proved");
        if healthy && proved { Ok(()) } else { Err(format!("healthy: {healthy}, {statuses:#?}")) }
    });
    let (log, ticks, begin) = (agent.log(), agent.ticks(), Instant::now());
    live::wait("the span is over", span.as_secs() + 10, || {
        if begin.elapsed() >= span { Ok(()) } else { Err("it is not".to_owned()) }
    });
    let used = agent.ticks() - ticks;
    assert_eq!(agent.log(), log, "an idle agent is silent");
    // A tick is a hundredth of a second.
    assert!(used <= 2, "{used} ticks in {} s", span.as_secs());
}
