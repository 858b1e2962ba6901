//! The agent dies in the middle of a redeploy, and before it is back somebody else does something: the user, Compose,
//! a second agent. What the user wants counts, and nothing is lost.
#![cfg(feature = "live")]
#![allow(
    clippy::print_stdout,
    clippy::elidable_lifetime_names,
    reason = "shown if it fails; named for readers"
)]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod live;

use std::{fs, io::Write};

use dbssl::host::journal::Phase;
use live::{
    Agent, Compose, DATA_AND_NETWORK, Scene, Sentry, TestRun, Way, assert_nothing_stays, compose_database,
    docker, on_an_engine_of_its_own, profile_is_all, try_docker, wait, ways,
};

/// What a user does to a database whose agent died in a phase, and what the next agent has to make of it.
struct Meddling {
    about: &'static str,
    phase: Phase,
    meddle: fn(&Scene),
    end: fn(&Scene, Agent),
}

const fn meddling(about: &'static str, phase: Phase, meddle: fn(&Scene), end: fn(&Scene, Agent)) -> Meddling {
    Meddling { about, phase, meddle, end }
}

const MEDDLING: &[Meddling] = &[
    meddling("removes the parked one, before the start", Phase::Start, remove_parked, proved),
    meddling("removes the parked one, after the start", Phase::Prove, remove_parked, proved),
    meddling("removes the successor", Phase::Prove, remove_successor, proved),
    meddling("removes both, before the start", Phase::Start, remove_both, proved),
    meddling("removes both, after the start", Phase::Prove, remove_both, proved),
    meddling("prunes all that is down, before the successor is made", Phase::Create, prune, proved),
    meddling("prunes all that is down, before the start", Phase::Start, prune, proved),
    meddling("starts all that is down", Phase::Start, start_all, proved),
    meddling("removes it before it was touched", Phase::PolicyOff, remove_only, proved),
    meddling("starts the parked one", Phase::Brake, start_parked, proved),
    meddling("tries to start the braked one, alone", Phase::Create, brake_holds, proved),
    meddling("tries to start the braked one, before the start", Phase::Start, brake_holds, proved),
    meddling("tries to start the braked one, after the start", Phase::Prove, brake_holds, proved),
    meddling("starts the successor", Phase::Start, start_successor, proved),
    meddling("stops the successor", Phase::Prove, stop_successor, proved),
    meddling("renames the parked one, before the start", Phase::Start, rename_parked, proved_as_renamed),
    meddling("renames the parked one, after the start", Phase::Prove, rename_parked, proved),
    meddling("renames it before it was touched", Phase::PolicyOff, rename_only, proved_as_renamed),
    meddling("renames the successor", Phase::Prove, rename_only, proved_by_any_name),
    meddling("makes another on the same data", Phase::Create, another_on_its_data, proved),
    meddling("makes another on other data", Phase::Brake, another_on_other_data, both_are_kept),
    meddling("makes another while the parked one runs", Phase::Stop, create_another, the_new_one_is_started),
    meddling("puts another in its place", Phase::Start, replace_successor, kept_under_its_brake),
];

#[test]
#[ignore = "new and long, to be seen green ten times before it stands in everybody's way: scripts/test --all"]
fn what_a_user_does_while_the_agent_is_dead_counts_and_loses_nothing() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let scenes: Vec<_> = MEDDLING
            .iter()
            .enumerate()
            .map(|(number, meddling)| {
                Scene::begin(meddling.about, |start| {
                    let start = start.options(["--restart", ["no", "always", "unless-stopped"][number % 3]]);
                    // Another with the same data needs a volume that has a name.
                    let anonymous = number % 2 == 0 && !meddling.about.starts_with("makes another");
                    if anonymous { start.without_volume() } else { start }
                })
            })
            .collect();
        scenes.iter().for_each(Scene::write_row);
        let (volumes, sentry) = (engine.volumes(), Sentry::begin());
        let phases: Vec<_> = MEDDLING.iter().map(|meddling| meddling.phase).collect();
        kill_all(&scenes, &phases);
        for (meddling, scene) in MEDDLING.iter().zip(&scenes) {
            (meddling.meddle)(scene);
        }
        let agents: Vec<_> = scenes.iter().map(|scene| scene.run.agent().spawn()).collect();
        for ((meddling, scene), agent) in MEDDLING.iter().zip(&scenes).zip(agents) {
            (meddling.end)(scene, agent);
        }
        sentry.end().assert_never_two(&volumes);
        let lost: Vec<_> = volumes.iter().filter(|volume| !engine.volumes().contains(volume)).collect();
        assert!(lost.is_empty(), "volumes are gone: {lost:?}");
    });
}

/// Starts an agent for each, and each one dies in its phase.
fn kill_all(scenes: &[Scene], phases: &[Phase]) {
    let agents: Vec<_> = scenes.iter().zip(phases).map(|(scene, phase)| scene.doomed(*phase)).collect();
    for ((scene, phase), agent) in scenes.iter().zip(phases).zip(agents) {
        scene.wait_death(agent, *phase);
    }
}

fn proved(scene: &Scene, mut agent: Agent) {
    scene.wait_proved(&mut agent);
}

fn remove_parked(scene: &Scene) {
    docker(&["rm", "--force", &scene.parked().name]);
}

fn remove_successor(scene: &Scene) {
    docker(&["rm", "--force", &scene.successor().unwrap()]);
}

fn remove_both(scene: &Scene) {
    remove_successor(scene);
    remove_parked(scene);
}

/// As cron does it at night.
fn prune(scene: &Scene) {
    let only = format!("label={}", scene.run.label());
    docker(&["container", "prune", "--force", "--filter", &only]);
    assert!(scene.run.containers().is_empty(), "all of it was down");
}

/// `docker start $(docker ps --all --quiet)`, which says no for the one that is braked.
fn start_all(scene: &Scene) {
    for name in scene.run.containers() {
        let started = try_docker(&["start", &name]);
        assert_eq!(started.is_ok(), name != scene.parked().name, "{name}: {started:?}");
    }
}

fn remove_only(scene: &Scene) {
    docker(&["rm", "--force", &scene.db().name]);
}

fn start_parked(scene: &Scene) {
    docker(&["start", &scene.parked().name]);
    scene.parked().wait_answers();
}

fn brake_holds(scene: &Scene) {
    for verb in ["start", "restart"] {
        let why = try_docker(&[verb, &scene.parked().name]).unwrap_err();
        assert!(why.contains("network dbssl-parked-") && why.contains("not found"), "{why}");
    }
    assert!(!scene.parked().is_running());
}

fn start_successor(scene: &Scene) {
    docker(&["start", &scene.successor().unwrap()]);
}

fn stop_successor(scene: &Scene) {
    docker(&["stop", &scene.successor().unwrap()]);
}

fn renamed(scene: &Scene) -> String {
    scene.run.name("renamed")
}

fn rename_parked(scene: &Scene) {
    docker(&["rename", &scene.parked().name, &renamed(scene)]);
}

fn rename_only(scene: &Scene) {
    docker(&["rename", &scene.db().name, &renamed(scene)]);
}

/// The user's name for it stays.
fn proved_as_renamed(scene: &Scene, mut agent: Agent) {
    scene.is_called(&renamed(scene));
    scene.wait_proved(&mut agent);
}

/// The old name may come back with the old container.
fn proved_by_any_name(scene: &Scene, mut agent: Agent) {
    agent.wait_log(240, &["dbssl is ready"]);
    let names = scene.run.containers();
    println!("after the successor was renamed: {names:?}");
    scene.is_called(&names[0]);
    scene.wait_proved(&mut agent);
}

fn another_on_its_data(scene: &Scene) {
    scene.again().start();
}

/// Not labelled for dbssl: a stranger.
fn another_on_other_data(scene: &Scene) {
    scene.run.database("db").without_volume().start();
}

fn create_another(scene: &Scene) {
    scene.again().create();
}

fn replace_successor(scene: &Scene) {
    remove_successor(scene);
    another_on_other_data(scene);
}

/// Whatever the user meant by that: nothing of either is lost.
fn both_are_kept(scene: &Scene, agent: Agent) {
    let parked = kept(scene, agent);
    docker(&["start", &parked.name]);
    parked.wait_answers();
    assert_eq!(parked.rows(), ["row 000"]);
}

fn kept_under_its_brake(scene: &Scene, agent: Agent) {
    let parked = kept(scene, agent);
    let why = try_docker(&["start", &parked.name]).unwrap_err();
    let brake = why.split_whitespace().find(|word| word.starts_with("dbssl-parked-")).unwrap();
    docker(&["network", "disconnect", "--force", brake, &parked.name]);
    docker(&["start", &parked.name]);
    parked.wait_answers();
    assert_eq!(parked.rows(), ["row 000"]);
}

/// The parked container, which is told of in the log, and whose agent has ended.
fn kept<'s>(scene: &'s Scene, mut agent: Agent) -> live::Container<'s> {
    let parked = scene.parked();
    agent.wait_log(240, &["the former one is kept as", &parked.name]);
    agent.wait_log(240, &["dbssl is ready"]);
    assert!(agent.terminate().success());
    assert_eq!(scene.journal().len(), 0);
    assert!(scene.db().is_running(), "the other one is not touched");
    assert!(!parked.is_running());
    parked
}

/// `docker run` makes first and starts then: by then the former one has to be down.
fn the_new_one_is_started(scene: &Scene, mut agent: Agent) {
    agent.wait_log(240, &["dbssl is ready"]);
    docker(&["start", &scene.db().name]);
    scene.wait_proved(&mut agent);
}

/// One database, with the name that Compose makes of project and service.
fn project() -> String {
    format!(
        "{}    restart: always
    labels:
      - LABEL
      - dbssl.enable=true
{DATA_AND_NETWORK}",
        compose_database()
    )
}

/// What is typed while the agent is dead. Whether Compose succeeds is between it and Docker: the brake, for instance,
/// is an error to it.
const COMMANDS: &[&[&str]] =
    &[&["up", "--detach"], &["restart"], &["start"], &["up", "--detach", "--force-recreate"], &["stop"]];

#[test]
#[ignore = "new and long, to be seen green ten times before it stands in everybody's way: scripts/test --all"]
fn whatever_compose_does_while_the_agent_is_dead_there_is_one_database_in_the_end() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let recreate: Vec<_> =
            Phase::ALL.iter().filter(|phase| ways(**phase).contains(&Way::Recreate)).collect();
        for arguments in if profile_is_all() { COMMANDS } else { &COMMANDS[..2] } {
            let scenes: Vec<_> = recreate
                .iter()
                .map(|phase| {
                    let run = TestRun::begin();
                    let compose = Compose::new(&run, &project());
                    compose.run(&["up", "--detach"]).unwrap();
                    let name = compose.container("db").name;
                    Scene::around(run, "verify-full", &format!("{arguments:?} in {}", phase.word()), name)
                })
                .collect();
            scenes.iter().for_each(Scene::write_row);
            let (volumes, sentry) = (engine.volumes(), Sentry::begin());
            let phases: Vec<_> = recreate.iter().map(|phase| **phase).collect();
            kill_all(&scenes, &phases);
            for scene in &scenes {
                let said = Compose::new(&scene.run, &project()).run(arguments);
                println!("{}: {said:?}", scene.about);
            }
            let mut agents: Vec<_> = scenes.iter().map(|scene| scene.run.agent().spawn()).collect();
            for (scene, agent) in scenes.iter().zip(&mut agents) {
                agent.wait_log(240, &["dbssl is ready"]);
                if arguments == &["stop"] && !scene.db().is_running() {
                    docker(&["start", &scene.db().name]);
                }
                scene.wait_proved(agent);
                let compose = Compose::new(&scene.run, &project());
                let said = compose.run(&["up", "--detach"]).unwrap();
                assert_eq!(
                    compose.said_of(&said, "db").last().unwrap(),
                    "Running",
                    "{}: {said}",
                    scene.about
                );
            }
            sentry.end().assert_never_two(&volumes);
            assert_eq!(engine.volumes(), volumes);
            assert_nothing_stays();
        }
    });
}

/// Half a line in a journal, half a record, a rehearsal: what a machine without power leaves.
#[test]
#[ignore = "new and long, to be seen green ten times before it stands in everybody's way: scripts/test --all"]
fn what_was_left_half_done_is_cleared_up() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let torn =
            [("", Phase::Create), ("roll-", Phase::Stop), ("comm", Phase::Prove), ("\0\0\0", Phase::Brake)];
        let mut scenes: Vec<_> = torn
            .iter()
            .map(|(tail, phase)| Scene::begin(&format!("{tail:?} after {}", phase.word()), |start| start))
            .collect();
        // Two that were killed in their rehearsals, one of them wired by now.
        scenes.push(Scene::begin("a rehearsal", |start| start));
        scenes.push(Scene::begin("a rehearsal of another agent", |start| start));
        scenes.iter().for_each(Scene::write_row);
        let (volumes, sentry) = (engine.volumes(), Sentry::begin());
        kill_all(&scenes[..torn.len()], &torn.map(|(_, phase)| phase));
        for (scene, (tail, _)) in scenes.iter().zip(torn) {
            let [path] = &scene.journal_files()[..] else { panic!("one operation: {}", scene.about) };
            fs::OpenOptions::new().append(true).open(path).unwrap().write_all(tail.as_bytes()).unwrap();
            // A record that never became whole was never acted upon.
            fs::write(path.with_file_name("00ff00ff00ff00ff.jsonl"), "{\"id\":\"00ff00ff00ff00f").unwrap();
        }
        let [.., left, others] = &scenes[..] else { panic!("there are more than two") };
        let rehearsals = [left, others].map(left_in_rehearsal);

        let mut agents: Vec<_> =
            scenes[..=torn.len()].iter().map(|scene| scene.run.agent().spawn()).collect();
        for (scene, agent) in scenes.iter().zip(&mut agents) {
            scene.wait_proved(agent);
        }
        assert!(try_docker(&["inspect", &rehearsals[0]]).is_err());
        assert!(try_docker(&["inspect", &rehearsals[1]]).is_ok(), "it is not their agent's");
        others.wait_proved(&mut others.run.agent().spawn());
        sentry.end().assert_never_two(&volumes);
        assert_eq!(engine.volumes(), volumes);
        assert_nothing_stays();
    });
}

/// A container as one is made to rehearse; its name.
fn left_in_rehearsal(scene: &Scene) -> String {
    let data = format!("{}-data:/var/lib/postgresql/data", scene.db().name);
    let start = scene.run.database("db.dbssl-rehearsal").mode("verify-full").without_volume();
    let start = start.options(["--volume", &data]).label("dbssl.operation", "rehearsal");
    start.create().name
}

/// With the same folders, as by a service that was started twice; and `dbssl apply`, while an agent is dead.
#[test]
#[ignore = "new and long, to be seen green ten times before it stands in everybody's way: scripts/test --all"]
fn one_agent_at_a_time_and_apply_ends_what_a_dead_one_began() {
    on_an_engine_of_its_own(&["postgres:15"], |engine| {
        let phases = [Phase::Create, Phase::Start, Phase::Prove, Phase::RemoveOld];
        let scenes =
            phases.map(|phase| Scene::begin(phase.word(), |start| start.options(["--restart", "always"])));
        scenes.iter().for_each(Scene::write_row);
        let (volumes, sentry) = (engine.volumes(), Sentry::begin());
        for (scene, phase) in scenes.iter().zip(phases) {
            let mut first = scene.run.agent().spawn();
            scene.wait_phase(Phase::Begun);
            let mut second = scene.run.agent().spawn();
            assert_eq!(second.wait_end(60).code(), Some(2));
            assert_eq!(second.lines(&["another dbssl works with"]).len(), 1, "{}", second.log());
            scene.wait_proved(&mut first);
            assert!(first.terminate().success());

            // The wiring is gone, as by a user's `docker run`.
            docker(&["rm", "--force", &scene.db().name]);
            scene.again().start();
            // Asked inside of it: without TLS, and with the rule that is still in its data, it lets nobody in.
            wait("the new one is up", 60, || scene.db().sql("select 1"));
            scene.wait_death(scene.doomed(phase), phase);
            if phase == Phase::Create {
                let planned = scene.run.cli(&["plan", &scene.db().name]);
                assert!(planned.stderr.contains("is under way"), "{planned:?}");
            }
            let applied = scene.run.cli(&["apply", &scene.db().name]);
            assert_eq!(applied.code, 0, "{}: {applied:?}", scene.about);
            scene.assert_serves_tls();
            scene.assert_whole();
        }
        sentry.end().assert_never_two(&volumes);
        assert_eq!(engine.volumes(), volumes);
        assert_nothing_stays();
    });
}
