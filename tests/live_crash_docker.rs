//! Docker, or the machine, dies in the middle of a redeploy: with the agent, and without.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use dbssl::{
    host::{clock, docker::Docker, journal::Phase},
    model::ContainerId,
};
use live::{
    CASES_IMAGES, Case, End, Engine, Scene, Sentry, TestRun, assert_nothing_stays, docker, every_case,
    kill_all, on_an_engine_of_its_own, recover_all, wait,
};
use time::OffsetDateTime;

/// Policies by which Docker itself starts containers.
const STARTED_BY_DOCKER: [&str; 2] = ["always", "unless-stopped"];

fn agent_and_engine_die(end: End, anonymous_first: bool, engine: &Engine) {
    let cases = every_case(&STARTED_BY_DOCKER, anonymous_first);
    let run = TestRun::begin();
    let bystanders = STARTED_BY_DOCKER.map(|policy| {
        let start = run.database(policy).options(["--restart", policy]);
        (policy, start.start_and_wait())
    });
    let (volumes, sentry) = (engine.volumes(), Sentry::begin());
    kill_all(&cases);
    engine.restart(end);
    for agent in recover_all(&cases) {
        assert!(agent.terminate().success());
    }
    assert_eq!(engine.volumes(), volumes);
    assert_nothing_stays();

    // From here on there is no agent, and none is needed: Docker does with each what it does with a container that
    // dbssl has never seen. (With `unless-stopped`, Docker 20.10 does not start one again after the daemon was
    // killed: its successor stops what still runs, and takes that for a user's word.)
    for (_, bystander) in &bystanders {
        docker(&["start", &bystander.name]);
    }
    let ids = ids(&cases);
    engine.restart(end);
    for (policy, bystander) in &bystanders {
        let of_policy = || cases.iter().filter(|case| case.scene.restart_policy() == *policy);
        if *policy == "always" || bystander.is_running() {
            for case in of_policy() {
                // Asked inside of it: until it runs its address may be another's.
                wait(&format!("{} is back", case.scene.about), 60, || case.scene.db().sql("select 1"));
            }
        } else {
            assert_eq!(of_policy().filter(|case| case.scene.db().is_running()).count(), 0);
            for case in of_policy() {
                docker(&["start", &case.scene.db().name]);
                case.scene.db().wait_answers();
            }
        }
        of_policy().for_each(Case::assert_served);
    }
    assert_eq!(self::ids(&cases), ids);
    sentry.end().assert_never_two(&volumes);
}

fn ids(cases: &[Case]) -> Vec<String> {
    cases.iter().map(|case| case.scene.db().id()).collect()
}

#[test]
#[ignore = "an engine is restarted for every phase, which takes many minutes: scripts/test --all"]
fn the_agent_and_then_docker_are_killed_in_any_phase() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| agent_and_engine_die(End::Killed, false, engine));
}

#[test]
#[ignore = "an engine is restarted for every phase, which takes many minutes: scripts/test --all"]
fn the_agent_is_killed_in_any_phase_and_docker_is_restarted() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| agent_and_engine_die(End::Stopped, true, engine));
}

#[test]
#[ignore = "an engine is restarted for every phase, which takes many minutes: scripts/test --all"]
fn the_machine_loses_its_power_in_any_phase() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| agent_and_engine_die(End::PowerCut, false, engine));
}

/// Both look the same in a daemon's events: a user's stop, and what a daemon does with what the one before left running.
#[test]
fn what_a_new_daemon_stops_was_stopped_by_nobody() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let run = TestRun::begin();
        let db = run.database("db").start_and_wait();
        let id: ContainerId = db.id().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let was_stopped = || {
            runtime.block_on(async {
                let docker = Docker::connect(&engine.socket()).await.unwrap();
                docker.was_stopped(&id, OffsetDateTime::UNIX_EPOCH, clock::now()).await.unwrap()
            })
        };
        assert!(!was_stopped());
        engine.restart(End::Killed);
        assert!(!db.is_running());
        assert!(!was_stopped());
        docker(&["start", &db.name]);
        db.wait_answers();
        assert!(!was_stopped());
        docker(&["stop", &db.name]);
        assert!(was_stopped());
    });
}

/// Two agents in each round, so that one of them is somewhere else.
#[test]
#[ignore = "an engine is restarted for every phase, which takes many minutes: scripts/test --all"]
fn docker_dies_in_any_phase_while_the_agent_lives() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| {
        let phases: Vec<_> = Phase::ALL.iter().filter(|phase| **phase != Phase::RollBack).collect();
        for (number, phase) in phases.iter().enumerate() {
            let end = [End::Killed, End::Stopped][number % 2];
            // Who is not in the middle of anything is left to Docker, which does not start `unless-stopped` again.
            let scenes: Vec<_> = [STARTED_BY_DOCKER[number / 2 % 2], "always"]
                .iter()
                .map(|policy| {
                    let about = format!("{end:?} in {}, restart policy {policy}", phase.word());
                    Scene::begin(&about, |start| start.options(["--restart", policy]).without_volume())
                })
                .collect();
            scenes.iter().for_each(Scene::write_row);
            let (volumes, sentry) = (engine.volumes(), Sentry::begin());
            let mut agents: Vec<_> = scenes.iter().map(|scene| scene.run.agent().spawn()).collect();
            scenes[0].wait_phase(**phase);
            engine.restart(end);
            for (scene, agent) in scenes.iter().zip(&mut agents) {
                scene.wait_proved(agent);
            }
            sentry.end().assert_never_two(&volumes);
            assert_eq!(engine.volumes(), volumes);
            assert_nothing_stays();
        }
    });
}
