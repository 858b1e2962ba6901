//! A database for every phase of a redeploy, and for every way that leads there.

use dbssl::host::journal::Phase;

use super::{agent::Agent, run::Config, scene::Scene};

/// The images that the cases need.
pub const CASES_IMAGES: &[&str] = &["postgres:15", "postgres:15-nossl"];

/// What the agent is doing when it comes to a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A container gets its wiring, and TLS.
    Recreate,
    /// The same, and its server cannot do TLS.
    RollBack,
    /// A certificate was renewed, and a reload proves nothing.
    Restart,
}

/// The ways that lead to a phase.
pub const fn ways(phase: Phase) -> &'static [Way] {
    match phase {
        Phase::Begun | Phase::Stop => &[Way::Recreate, Way::Restart],
        Phase::RollBack => &[Way::RollBack],
        Phase::PolicyOff
        | Phase::Park
        | Phase::Create
        | Phase::Furnish
        | Phase::Brake
        | Phase::Start
        | Phase::Prove
        | Phase::Commit
        | Phase::RemoveOld => &[Way::Recreate],
    }
}

/// A database whose agent will die.
pub struct Case {
    pub phase: Phase,
    pub way: Way,
    pub scene: Scene,
    /// Its container when that agent begins.
    id: String,
}

/// A case for each phase and way, one after the other with these restart policies, and two and two with a named and with
/// an anonymous volume (`anonymous_first`: the other way round). All of them are up, and hold a row.
pub fn every_case(policies: &[&str], anonymous_first: bool) -> Vec<Case> {
    let all = Phase::ALL.iter().flat_map(|phase| ways(*phase).iter().map(|way| (*phase, *way)));
    let mut cases: Vec<Case> = all
        .enumerate()
        .map(|(number, (phase, way))| {
            let anonymous = (number / 2 % 2 == 0) == anonymous_first;
            let scene = begin(phase, way, policies[number % policies.len()], anonymous);
            Case { phase, way, scene, id: String::new() }
        })
        .collect();
    for case in &cases {
        case.scene.write_row();
    }
    let restarts = || cases.iter().filter(|case| case.way == Way::Restart).map(|case| &case.scene);
    for (scene, mut agent) in restarts().map(|scene| (scene, scene.run.agent().spawn())).collect::<Vec<_>>() {
        scene.wait_proved(&mut agent);
        assert!(agent.terminate().success());
    }
    restarts().for_each(needs_a_restart);
    for case in &mut cases {
        case.id = case.scene.db().id();
    }
    cases
}

fn begin(phase: Phase, way: Way, policy: &str, anonymous: bool) -> Scene {
    let volume = if anonymous { "an anonymous volume" } else { "a named volume" };
    let about = format!("{way:?}, {}, restart policy {policy}, {volume}", phase.word());
    let image = if way == Way::RollBack { "postgres:15-nossl" } else { "postgres:15" };
    // Refusing plaintext takes a shell in the container, which `needs_a_restart` takes away.
    let mode = if way == Way::Restart { "prefer" } else { "verify-full" };
    Scene::begin_in(mode, &about, |start| {
        let start = start.image(image).options(["--restart", policy]);
        if anonymous { start.without_volume() } else { start }
    })
}

/// The next agent will issue a certificate, since there is a name more, and cannot reload without a shell.
fn needs_a_restart(scene: &Scene) {
    scene.db().exec(&["mv", "/bin/sh", "/bin/sh.away"]).unwrap();
    scene.run.configure(&Config { top: "host-names = [\"later.example\"]".to_owned(), ..Config::default() });
}

impl Case {
    /// Until everything is at its end, with an agent that runs.
    pub fn wait_end(&self, agent: &mut Agent) {
        let scene = &self.scene;
        match self.way {
            Way::Recreate => scene.wait_proved(agent),
            Way::Restart => {
                scene.wait_proved(agent);
                let client = scene.db().verifying().host("later.example");
                assert_eq!(client.is_encrypted().as_deref(), Ok("t"), "{}", scene.about);
                assert_eq!(scene.db().id(), self.id, "{}: a restart makes no new container", scene.about);
            }
            Way::RollBack => {
                agent.wait_log(240, &["not done; mend the cause"]);
                scene.assert_as_before();
                assert_eq!(scene.db().client("prefer").is_encrypted().as_deref(), Ok("f"), "{}", scene.about);
            }
        }
    }

    /// Whether the database is as its agent left it at its end.
    pub fn assert_served(&self) {
        if self.way == Way::RollBack {
            self.scene.assert_as_before();
        } else {
            self.scene.assert_serves_tls();
            self.scene.assert_whole();
        }
    }
}

/// Starts an agent for each, and each one dies in its phase.
pub fn kill_all(cases: &[Case]) {
    let agents: Vec<_> = cases.iter().map(|case| case.scene.doomed(case.phase)).collect();
    for (case, agent) in cases.iter().zip(agents) {
        case.scene.wait_death(agent, case.phase);
    }
}

/// Starts an agent for each, and waits until it has brought everything to its end.
pub fn recover_all(cases: &[Case]) -> Vec<Agent> {
    let mut agents: Vec<_> = cases.iter().map(|case| case.scene.run.agent().spawn()).collect();
    for (case, agent) in cases.iter().zip(&mut agents) {
        case.wait_end(agent);
    }
    agents
}
