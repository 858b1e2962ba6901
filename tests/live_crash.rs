//! The agent dies in the middle of a redeploy: again while it recovers, and at no moment in particular. When it is
//! back nothing is lost, and all is well. (At each step of each operation: `live_crash_matrix.rs`.)
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use dbssl::host::journal::Phase;
use live::{Agent, Scene, Sentry, TestRun, assert_nothing_stays, on_an_engine_of_its_own, profile_is_all};

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
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
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
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
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
            // The first time there is not even a CA.
            let unproved = |scene: &&Scene| !scene.run.cli(&["status"]).stdout.contains(" proved ");
            let mut doomed: Vec<_> = (scenes.iter().filter(unproved))
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

/// So that all these tests mean something.
#[test]
fn the_sentry_sees_two_servers_on_one_volume_and_no_others() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let (run, sentry) = (TestRun::begin(), Sentry::begin());
        let [first, _] = ["first", "second"].map(|name| run.database(name).start_and_wait());
        sentry.end().assert_never_two(&engine.volumes());

        // Neither Docker nor PostgreSQL minds.
        let (data, sentry) = (format!("{}-data", first.name), Sentry::begin());
        let mount = format!("{data}:/var/lib/postgresql/data");
        run.database("third").without_volume().options(["--volume", &mount]).start_and_wait();
        let offences = sentry.end().offences;
        assert!(!offences.is_empty(), "it saw nothing");
        assert!(offences.iter().all(|offence| offence.starts_with(&data)), "{offences:#?}");
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
