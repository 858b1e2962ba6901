//! The agent dies in the middle of a redeploy. When it is back nothing is lost, and all is well.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use dbssl::host::journal::Phase;
use live::{
    Agent, CASES_IMAGES, Scene, Sentry, assert_nothing_stays, every_case, kill_all, on_an_engine_of_its_own,
    profile_is_all, recover_all,
};

#[test]
fn killed_in_any_phase_the_agent_brings_everything_to_its_end() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| {
        let rounds: &[(&[&str], bool)] = if profile_is_all() {
            &[(&["no"], false), (&["always"], true), (&["on-failure:3", "no"], true)]
        } else {
            &[(&["no", "always"], false)]
        };
        for (policies, anonymous_first) in rounds {
            let cases = every_case(policies, *anonymous_first);
            let (volumes, sentry) = (engine.volumes(), Sentry::begin());
            kill_all(&cases);
            recover_all(&cases);
            sentry.end().assert_never_two(&volumes);
            assert_eq!(engine.volumes(), volumes);
            assert_nothing_stays();
        }
    });
}

/// What an agent that recovers announces, after one that died, after one that died.
const AGAIN: &[&[Phase]] = &[
    &[Phase::PolicyOff, Phase::RollBack],
    &[Phase::Stop, Phase::RollBack],
    &[Phase::Create, Phase::RollBack, Phase::RollBack],
    &[Phase::Brake, Phase::RollBack],
    &[Phase::Start, Phase::RollBack],
    &[Phase::Prove, Phase::Prove, Phase::Commit, Phase::RemoveOld],
    &[Phase::RemoveOld, Phase::Commit, Phase::RemoveOld],
];

#[test]
fn killed_again_and_again_while_it_recovers_it_still_comes_to_its_end() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| {
        let scenes: Vec<_> = AGAIN
            .iter()
            .map(|phases| {
                Scene::begin(&format!("{phases:?}"), |start| start.options(["--restart", "unless-stopped"]))
            })
            .collect();
        scenes.iter().for_each(Scene::write_row);
        let (volumes, sentry) = (engine.volumes(), Sentry::begin());
        for round in 0..AGAIN.iter().map(|phases| phases.len()).max().unwrap() {
            let dying: Vec<_> = (scenes.iter().zip(AGAIN))
                .filter_map(|(scene, phases)| phases.get(round).map(|phase| (scene, *phase)))
                .map(|(scene, phase)| (scene, phase, scene.doomed(phase)))
                .collect();
            for (scene, phase, agent) in dying {
                scene.wait_death(agent, phase);
            }
        }
        recover(&scenes);
        sentry.end().assert_never_two(&volumes);
        assert_eq!(engine.volumes(), volumes);
        assert_nothing_stays();
    });
}

/// In the middle of a call, too, and not only before it.
#[test]
fn killed_at_any_moment_it_still_comes_to_its_end() {
    on_an_engine_of_its_own(CASES_IMAGES, |engine| {
        let scenes: Vec<_> = ["no", "always", "unless-stopped", "no", "always", "on-failure"]
            .iter()
            .map(|policy| Scene::begin(policy, |start| start.options(["--restart", policy]).without_volume()))
            .collect();
        scenes.iter().for_each(Scene::write_row);
        let (volumes, sentry) = (engine.volumes(), Sentry::begin());
        let mut hits = 0;
        for _ in 0..if profile_is_all() { 20 } else { 5 } {
            // To be interrupted twice is a reason to wait; losing that costs one more try, which is what is wanted here.
            for scene in &scenes {
                let _ = std::fs::remove_dir_all(scene.run.state().join("setbacks"));
            }
            let mut doomed: Vec<_> = (scenes.iter().filter(|scene| scene.run.cli(&["status"]).code != 0))
                .map(|scene| (scene, scene.run.agent().spawn(), None))
                .collect();
            let end = Instant::now() + Duration::from_secs(15);
            while !doomed.is_empty() && Instant::now() < end {
                std::thread::park_timeout(Duration::from_millis(1));
                for (scene, _, moment) in &mut doomed {
                    if moment.is_none() && !scene.journal().is_empty() {
                        *moment = Some(Instant::now() + any_moment());
                    }
                }
                let has_come =
                    |moment: &Option<Instant>| moment.is_some_and(|moment| moment <= Instant::now());
                for (scene, agent, _) in doomed.extract_if(.., |(_, _, moment)| has_come(moment)) {
                    agent.kill();
                    hits += scene.journal().len();
                }
            }
        }
        println!("{hits} redeploys were hit");
        assert!(hits > 0, "every agent was killed too late");
        for scene in &scenes {
            let _ = std::fs::remove_dir_all(scene.run.state().join("setbacks"));
        }
        recover(&scenes);
        sentry.end().assert_never_two(&volumes);
        assert_eq!(engine.volumes(), volumes);
        assert_nothing_stays();
    });
}

/// Within a redeploy, as long as one takes on a busy machine.
fn any_moment() -> Duration {
    Duration::from_millis(RandomState::new().hash_one(0) % 2000)
}

fn recover(scenes: &[Scene]) {
    let mut agents: Vec<Agent> = scenes.iter().map(|scene| scene.run.agent().spawn()).collect();
    for (scene, agent) in scenes.iter().zip(&mut agents) {
        scene.wait_proved(agent);
    }
}
