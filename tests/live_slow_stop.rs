//! A database that takes its time to stop, parked by then, while its agent or Docker dies. Whoever is there next must
//! see the stop through before anything else runs on its data.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod live;

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use dbssl::host::journal::Phase;
use live::{Agent, End, Engine, Scene, Sentry, assert_nothing_stays, on_an_engine_of_its_own, wait};

/// A session that is open until it is dropped. Until then a server that stops by SIGTERM waits for it ("Smart
/// Shutdown", <https://www.postgresql.org/docs/current/server-shutdown.html>).
struct Session(Child);

impl Session {
    fn open(scene: &Scene) -> Self {
        let mut psql = scene.db().client("prefer").command();
        let psql = psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let session = Self(psql.spawn().expect("psql"));
        let others = "select count(*) from pg_stat_activity \
                      where backend_type = 'client backend' and pid <> pg_backend_pid()";
        wait("the session is open", 30, || match scene.db().sql(others)?.as_str() {
            "0" => Err("it is not".to_owned()),
            _ => Ok(()),
        });
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that Docker can hold back by a network, and one that it cannot, each with an agent that is waiting for its end.
fn slow_stops(about: &str) -> Vec<(Scene, Agent, Session)> {
    let scenes: Vec<_> = ["bridge", "host"]
        .iter()
        .map(|network| {
            Scene::begin(&format!("{about}, on the network {network}"), |start| {
                let options = ["--network", network, "--restart", "always", "--stop-signal", "SIGTERM"];
                start.options(options)
            })
        })
        .collect();
    scenes.iter().for_each(Scene::write_row);
    let stopping = scenes.into_iter().map(|scene| {
        let session = Session::open(&scene);
        let agent = scene.run.agent().spawn();
        (scene, agent, session)
    });
    let stopping: Vec<_> = stopping.collect();
    for (scene, ..) in &stopping {
        scene.wait_phase(Phase::Stop);
        wait(&format!("{} is stopping", scene.about), 30, || {
            match scene.parked().try_client("prefer")?.query("select 1") {
                Err(why) if why.contains("shutting down") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        assert!(scene.parked().is_running(), "{}: it has stopped already", scene.about);
    }
    stopping
}

fn docker_dies(engine: &Engine, end: End, with_the_agent: bool) {
    let scenes = slow_stops(&format!("Docker: {end:?}, and the agent: {with_the_agent}"));
    let (volumes, sentry) = (engine.volumes(), Sentry::begin());
    let mut left = Vec::new();
    for (scene, agent, session) in scenes {
        // Dropped, an agent dies at once.
        left.push((scene, Some(agent).filter(|_| !with_the_agent), session));
    }
    engine.restart(end);
    let mut ended = Vec::new();
    for (scene, agent, _) in left {
        let mut agent = agent.unwrap_or_else(|| scene.run.agent().spawn());
        scene.wait_proved(&mut agent);
        drop(agent);
        // Its volume goes with it.
        ended.push(scene);
    }
    sentry.end().assert_never_two(&volumes);
    assert_eq!(engine.volumes(), volumes);
    assert_nothing_stays();
}

#[test]
#[ignore = "slow on a busy machine: scripts/test --all"]
fn the_agent_dies_while_a_database_is_still_stopping() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let scenes = slow_stops("the agent dies");
        let (volumes, sentry) = (engine.volumes(), Sentry::begin());
        let scenes: Vec<_> = scenes
            .into_iter()
            .map(|(scene, agent, session)| {
                agent.kill();
                let next = scene.run.agent().spawn();
                (scene, next, session)
            })
            .collect();
        let mut ended = Vec::new();
        for (scene, mut agent, session) in scenes {
            agent.wait_log(60, &["found an unfinished redeploy"]);
            // Time enough for whoever would not wait.
            std::thread::park_timeout(Duration::from_secs(2));
            drop(session);
            scene.wait_proved(&mut agent);
            // Its volume goes with it.
            ended.push(scene);
        }
        sentry.end().assert_never_two(&volumes);
        assert_eq!(engine.volumes(), volumes);
        assert_nothing_stays();
    });
}

#[test]
#[ignore = "an engine is restarted: scripts/test --all"]
fn docker_is_killed_while_a_database_is_still_stopping() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| docker_dies(engine, End::Killed, false));
}

#[test]
#[ignore = "an engine is restarted: scripts/test --all"]
fn docker_is_stopped_while_a_database_is_still_stopping() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| docker_dies(engine, End::Stopped, false));
}

#[test]
#[ignore = "an engine is restarted: scripts/test --all"]
fn docker_and_the_agent_are_killed_while_a_database_is_still_stopping() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| docker_dies(engine, End::Killed, true));
}
