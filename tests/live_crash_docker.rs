//! Docker, or the machine, dies in the middle of a redeploy: with the agent, and without.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use dbssl::host::journal::Phase;
use live::{
    CASES_IMAGES, Case, End, Scene, Sentry, assert_nothing_stays, every_case, kill_all,
    on_an_engine_of_its_own, recover_all, wait,
};

/// Policies by which Docker itself starts containers.
const STARTED_BY_DOCKER: &[&str] = &["always", "unless-stopped"];

fn agent_and_engine_die(end: End, anonymous_first: bool, engine: &live::Engine) {
    let cases = every_case(STARTED_BY_DOCKER, anonymous_first);
    let (volumes, sentry) = (engine.volumes(), Sentry::begin());
    kill_all(&cases);
    engine.restart(end);
    for agent in recover_all(&cases) {
        assert!(agent.terminate().success());
    }
    assert_eq!(engine.volumes(), volumes);
    assert_nothing_stays();

    // From here on there is no agent, and none is needed.
    let ids = ids(&cases);
    engine.restart(end);
    for case in &cases {
        wait(&format!("{} is back", case.scene.about), 60, || {
            case.scene.db().try_client("prefer")?.query("select 1")
        });
        case.assert_served();
    }
    assert_eq!(self::ids(&cases), ids);
    sentry.end().assert_never_two(&volumes);
}

fn ids(cases: &[Case]) -> Vec<String> {
    cases.iter().map(|case| case.scene.db().id()).collect()
}

#[test]
fn the_agent_and_then_docker_are_killed_in_any_phase() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| agent_and_engine_die(End::Killed, false, engine));
}

#[test]
fn the_agent_is_killed_in_any_phase_and_docker_is_restarted() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| agent_and_engine_die(End::Stopped, true, engine));
}

#[test]
fn the_machine_loses_its_power_in_any_phase() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| agent_and_engine_die(End::PowerCut, false, engine));
}

/// Two agents in each round, so that one of them is somewhere else.
#[test]
fn docker_dies_in_any_phase_while_the_agent_lives() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| {
        let phases: Vec<_> = Phase::ALL.iter().filter(|phase| **phase != Phase::RollBack).collect();
        for (number, phase) in phases.iter().enumerate() {
            let end = [End::Killed, End::Stopped][number % 2];
            let scenes: Vec<_> = STARTED_BY_DOCKER
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
