//! An engine that is slow, talks nonsense, or has more to tell than one wants to hear: the agent lives, its memory has a
//! bound, and whatever it should look at it looks at.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod socket;

use std::time::{Duration, Instant};

use socket::{Agent, Container, Fake, Manner, id, wait};

const OURS: &[(&str, &str)] = &[("dbssl.enable", "true")];

/// So many containers, of which every `each`th is labelled.
fn containers(count: usize, each: usize) -> Vec<Container> {
    let labels = |number| if number % each == 0 { OURS.to_vec() } else { Vec::new() };
    (0..count).map(|number| Container { number, labels: labels(number) }).collect()
}

fn is_ours(container: &Container) -> bool {
    !container.labels.is_empty()
}

fn wait_all_looked_at(fake: &Fake, all: &[Container], more_than: usize) {
    wait("every labelled container is looked at", 60, || {
        let missing: Vec<_> = all
            .iter()
            .filter(|one| is_ours(one))
            .filter(|one| fake.inspections(one) <= more_than)
            .map(Container::name)
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not yet: {missing:?}")) }
    });
}

/// All that an agent takes at the most for these containers, in KiB, while they make 10,000 events within some seconds.
fn memory_in_a_storm(all: &[Container]) -> u64 {
    const EVENTS: usize = 10_000;
    let fake = Fake::start(all.to_vec());
    let mut agent = Agent::start(&fake);
    agent.wait_log("dbssl is ready");
    wait_all_looked_at(&fake, all, 0);
    wait("it listens", 30, || if fake.has_listener() { Ok(()) } else { Err(String::new()) });
    let begin = Instant::now();
    for number in 0..EVENTS {
        // Faster than 10,000 a minute.
        if number % 500 == 0 {
            let turn = Duration::from_millis(200) * u32::try_from(number / 500).unwrap();
            wait(
                "its turn has come",
                30,
                || if begin.elapsed() >= turn { Ok(()) } else { Err(String::new()) },
            );
        }
        fake.event(number % all.len(), ["start", "die", "pause", "health_status"][number % 4]);
    }
    wait_all_looked_at(&fake, all, 1);
    agent.assert_runs();
    agent.assert_alive(begin);
    for container in all.iter().filter(|one| !is_ours(one)) {
        assert_eq!(fake.inspections(container), 0, "{} is nobody's business", container.name());
    }
    // Events of one container become one look while it is looked at, and each look is some calls.
    let looks: usize = all.iter().filter(|one| is_ours(one)).map(|one| fake.inspections(one)).sum();
    let of_ours = EVENTS.div_ceil(all.len()) * all.iter().filter(|one| is_ours(one)).count();
    assert!(looks <= of_ours + 2 * all.len(), "{looks} looks for {of_ours} events");
    agent.memory("VmHWM:")
}

#[test]
fn two_thousand_containers_and_ten_thousand_events_have_a_bound() {
    let few = memory_in_a_storm(&containers(20, 1));
    let many = memory_in_a_storm(&containers(2000, 100));
    assert!(many < few * 4, "{few} KiB with 20 containers, {many} KiB with 2,000");
}

#[test]
fn with_two_thousand_containers_and_no_event_it_rests() {
    let all = containers(2000, 100);
    let fake = Fake::start(all.clone());
    // The slow list is left out: it costs what it costs.
    let mut agent = Agent::start_with(&fake, "resync = \"1h\"");
    agent.wait_log("dbssl is ready");
    wait_all_looked_at(&fake, &all, 0);
    agent.wait_rest(Duration::from_secs(2));
    let (calls, ticks, begin) = (fake.count(|_| true), agent.ticks(), Instant::now());
    wait("a span is over", 20, || {
        if begin.elapsed() > Duration::from_secs(6) { Ok(()) } else { Err(String::new()) }
    });
    assert_eq!(fake.count(|_| true), calls, "nothing is asked");
    assert!(agent.ticks() - ticks <= 2, "{} ticks", agent.ticks() - ticks);
    agent.assert_alive(begin);
}

/// Somebody starts containers in a loop, and the engine does not come to answering.
#[test]
fn strangers_without_end_are_asked_about_a_few_at_a_time() {
    let fake = Fake::start(Vec::new());
    let mut agent = Agent::start_with(&fake, "resync = \"1h\"\nparallel = 4");
    agent.wait_log("dbssl is ready");
    wait("it listens", 30, || if fake.has_listener() { Ok(()) } else { Err(String::new()) });
    fake.answers("/json", Manner::Late(Duration::from_millis(20)));
    for number in 0..400 {
        for action in ["create", "start", "die"] {
            fake.event(number, action);
        }
    }
    wait("each of them is asked about", 60, || {
        let asked = (0..400).filter(|number| fake.count(|call| call.contains(&id(*number))) > 0).count();
        if asked == 400 { Ok(()) } else { Err(format!("{asked}")) }
    });
    assert!(fake.most_inspecting() <= 2 * 4, "{} at once", fake.most_inspecting());
    agent.assert_runs();
}

#[test]
fn a_slow_engine_is_waited_for_and_the_agent_shows_that_it_lives() {
    let all = containers(6, 1);
    let fake = Fake::start(all.clone());
    fake.answers("", Manner::Late(Duration::from_secs(1)));
    let begin = Instant::now();
    let mut agent = Agent::start(&fake);
    agent.wait_log("dbssl is ready");
    wait_all_looked_at(&fake, &all, 0);
    agent.assert_runs();
    agent.assert_alive(begin);
    assert!(fake.most_inspecting() <= 2 * 4, "{} at once", fake.most_inspecting());
}

#[test]
fn nonsense_is_survived_and_what_follows_is_understood() {
    let all = containers(3, 1);
    for path in ["/containers/json", "/events", "/info", "/json"] {
        let mut tests = Vec::new();
        for manner in [Manner::Garbage, Manner::OtherJson, Manner::Half, Manner::Status500, Manner::Never] {
            // Never: until a deadline of a minute, which is no time for a test.
            if manner == Manner::Never && path != "/events" {
                continue;
            }
            let all = all.clone();
            tests.push(std::thread::spawn(move || {
                let fake = Fake::start(all.clone());
                fake.answers(path, manner);
                let mut agent = Agent::start(&fake);
                // What an engine does not say of itself reads as absent.
                let taken = path == "/info" && manner == Manner::OtherJson;
                let tries = if taken || manner == Manner::Never { 1 } else { 2 };
                wait(&format!("{path} is tried, {manner:?}"), 60, || {
                    agent.assert_runs();
                    let tried = fake.count(|call| call.contains(path));
                    if tried >= tries { Ok(()) } else { Err(format!("{tried} times\n{}", agent.log())) }
                });
                fake.answers("", Manner::Well);
                agent.wait_log("dbssl is ready");
                wait_all_looked_at(&fake, &all, 0);
                agent.assert_runs();
                let log = agent.log();
                let plain = log.chars().all(|letter| letter == '\n' || !letter.is_control());
                assert!(plain, "control characters in the log: {log:?}");
            }));
        }
        for test in tests {
            test.join().unwrap_or_else(|_| panic!("{path}"));
        }
    }
}

#[test]
fn an_answer_without_end_is_left() {
    let all = containers(3, 1);
    let fake = Fake::start(all.clone());
    let mut agent = Agent::start(&fake);
    agent.wait_log("dbssl is ready");
    wait_all_looked_at(&fake, &all, 0);
    fake.answers("/containers/json", Manner::Endless);
    agent.wait_log("longer than");
    agent.assert_runs();
    let (peak, sent) = (agent.memory("VmHWM:"), fake.endless_bytes());
    assert!(peak < 200 << 10, "{peak} KiB of {sent} bytes");
    fake.answers("", Manner::Well);
    agent.wait_log("Docker is back");
}
