//! What the agent costs when there is nothing to do.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::time::{Duration, Instant};

use live::{Config, TestRun, profile_is_all};

/// An agent that costs a tick more often than this is not idle.
const REST: Duration = Duration::from_secs(5);

#[test]
fn with_nothing_to_do_it_says_nothing_and_costs_next_to_nothing() {
    // What is looked at is a span of time; a longer one with all tests.
    let span = Duration::from_secs(if profile_is_all() { 65 } else { 20 });
    // The slow list is left out: now and then, and by the clock, it costs what one list of Docker's costs, and the
    // first one looks once more at whatever changed since the agent started.
    let config = Config::default();
    let docker = format!("{}resync = \"1h\"\n", config.docker);
    let run = TestRun::begin_with(&Config { docker, ..config });
    let mut agent = run.agent().start();
    let names = ["a", "b", "c", "d", "e"];
    // With health checks, as most have: each of them makes events.
    let databases = names.map(|name| {
        run.database(name)
            .enabled()
            .options(["--health-cmd", "pg_isready", "--health-interval", "1s"])
            .start()
    });
    let app = run
        .database("app")
        .image("base:bookworm")
        .without_volume()
        .label("dbssl.client", "true")
        .label("dbssl.client.restart", "true")
        .options(["--health-cmd", "true", "--health-interval", "1s", "--entrypoint", "sleep"])
        .command(["infinity"])
        .start();
    agent.wait_log(60, &[&app.name, "the trust bundle was put into it"]);
    for db in &databases {
        agent.wait_log(240, &[&db.name, "plaintext is refused: proved"]);
    }
    live::wait("all are proved and healthy", 60, || {
        let statuses = run.statuses();
        let healthy = databases.iter().all(|db| db.inspect()["State"]["Health"]["Status"] == "healthy");
        let proved = statuses.values().all(|status| status["standing"] == "proved");
        if healthy && proved { Ok(()) } else { Err(format!("healthy: {healthy}, {statuses:#?}")) }
    });
    // What was still under way when the last of them was proved, as the looks that Docker's last events cause.
    let mut rest = (agent.ticks(), Instant::now());
    live::wait("the agent has come to rest", 60, || {
        let ticks = agent.ticks();
        if ticks != rest.0 {
            rest = (ticks, Instant::now());
        }
        if rest.1.elapsed() >= REST { Ok(()) } else { Err(format!("{ticks} ticks")) }
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
