//! Histories that are not left to chance: what it brings about too seldom, or never.

use std::time::Duration;

use dbssl::host::docker::DockerError;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    container::Status,
    history::{History, staged},
    image::{self, Images},
    machine::{Shared, Upon, gone, refused},
    promises::{Service, Wants},
    server::Quirk,
    storm::Users,
    told,
};

const MINUTE: Duration = Duration::from_secs(60);
const PARKED: &str = "db1.dbssl-parked";

fn service(quirk: Quirk, policy: &'static str) -> Service {
    let volume = "data".to_owned();
    let image = Images::default().find(image::name_of(quirk)).unwrap().id;
    let (mode, network) = ("require", "app");
    Service { volume, image, quirk, enabled: true, mode, network, policy, wants: Wants::Running }
}

/// `db1`, which is to be enabled.
async fn run_database(users: &mut Users<'_>, quirk: Quirk, policy: &'static str) {
    run_service(users, "db1", service(quirk, policy)).await;
}

async fn run_service(users: &mut Users<'_>, name: &str, mut service: Service) {
    assert!(users.create(name, &mut service).await);
    users.services.insert(name.to_owned(), service);
}

/// A database on the same data, which its user wants in place of `db1`; that one shall stay as it is, and stopped.
fn in_its_place(users: &mut Users<'_>) {
    let other = Service { enabled: false, ..service(Quirk::None, "no") };
    users.services.insert("other".to_owned(), other);
    let first = users.services.get_mut("db1").unwrap();
    (first.wants, first.policy) = (Wants::Stopped, "no");
}

/// `docker run`.
fn run(shared: &Shared, name: &str, bind: &str, labels: &Value, policy: &str) -> String {
    let body = json!({
        "Image": image::name_of(Quirk::None), "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["redis-server"],
        "Labels": labels, "User": "",
        "HostConfig": {
            "Binds": [bind], "NetworkMode": "app", "RestartPolicy": { "Name": policy, "MaximumRetryCount": 0 },
        },
        "NetworkingConfig": { "EndpointsConfig": { "app": {} } },
    });
    let id = shared.lock().create(name, &body).unwrap();
    shared.start(&id).unwrap();
    id
}

fn side_car(shared: &Shared, bind: &str, policy: &str) -> String {
    run(shared, "backup", bind, &json!({ "side-car": "yes" }), policy)
}

fn other(shared: &Shared) {
    run(shared, "other", "data:/data", &json!({}), "no");
}

fn upon(
    shared: &Shared,
    call: &'static str,
    object: &'static str,
    happens: impl FnOnce(&Shared) -> Result<(), DockerError> + Send + 'static,
) {
    shared.lock().upon = Some(Upon { call, object, happens: Box::new(happens) });
}

fn starts(shared: &Shared, name: &str) -> (String, u64) {
    let machine = shared.lock();
    let found = machine.find(name).unwrap();
    (found.id.clone(), found.starts)
}

fn crash(shared: &Shared, name: &str) {
    let (id, starts) = starts(shared, name);
    shared.ended(&id, starts, 139);
}

/// `docker stop`, which goes on by itself.
fn user_stops(shared: &Shared) {
    let ((id, _), shared) = (starts(shared, "db1"), shared.clone());
    tokio::spawn(async move { shared.stop(&id).await });
}

fn said(history: &History, words: &str) -> bool {
    history.steps.iter().any(|step| step.contains(words))
}

fn assert_right(history: &History) {
    assert!(history.broken.is_empty(), "{}", told(history));
    assert!(!said(history, "DOES NOT RUN"), "{}", told(history));
}

fn assert_kept_down(history: &History) {
    assert_right(history);
    assert!(said(history, ": it is kept, stopped and with the restart policy no"), "{}", told(history));
}

/// A redeploy that is proved and cannot be finished is no database that is down, and is finished when it can be.
#[test]
fn what_cannot_be_finished_is_told_as_it_is_and_taken_up_again() {
    let history = staged(async |shared, users| {
        shared.lock().keeps = Some(PARKED);
        run_database(users, Quirk::None, "always").await;
        sleep(15 * MINUTE).await;
        shared.lock().keeps = None;
        sleep(65 * MINUTE).await;
    });
    assert!(
        said(&history, "the redeploy cannot be finished, the database runs meanwhile"),
        "{}",
        told(&history)
    );
    assert_right(&history);
}

/// Docker waits for a lock of one container, which is being redeployed as the agent is started again.
#[test]
fn docker_that_hangs_on_one_container_holds_up_no_other_database() {
    let history = staged(async |shared, users| {
        let other = Service { volume: "data2".to_owned(), ..service(Quirk::Deaf, "always") };
        run_service(users, "db2", other).await;
        sleep(5 * MINUTE).await;
        let serves = || shared.lock().find("db2").unwrap().server.as_ref().unwrap().served.clone();
        let before = serves();
        run_database(users, Quirk::None, "always").await;
        upon(shared, "start", "", |shared| {
            shared.lock().hangs = Some(PARKED);
            shared.kill();
            Ok(())
        });
        users.another_ca();
        sleep(5 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
        assert_ne!(serves(), before);
        sleep(60 * MINUTE).await;
        shared.lock().hangs = None;
        sleep(65 * MINUTE).await;
    });
    assert!(said(&history, "the redeploy stays unfinished"), "{}", told(&history));
    assert_right(&history);
}

/// A Redis opens the port for TLS just after it was asked there, and both before it is asked on the other.
#[test]
fn tls_of_its_own_that_begins_between_two_questions_is_seen() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::OwnTls, "always").await;
        let before = starts(shared, "db1");
        let ready = |shared: &Shared, id: &str, at| {
            shared.lock().containers.get_mut(id).unwrap().server.as_mut().unwrap().ready_at = at;
        };
        // Twice, as it is seen to have settled before anything is done.
        for _ in 0..2 {
            ready(shared, &before.0, Instant::now() + MINUTE);
            let id = before.0.clone();
            upon(shared, "handshake", "", move |shared| {
                ready(shared, &id, Instant::now());
                Ok(())
            });
            while shared.lock().upon.is_some() {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_millis(500)).await;
        }
        sleep(5 * MINUTE).await;
        assert_eq!(starts(shared, "db1"), before);
    });
    assert!(said(&history, "it is left alone") && said(&history, "valid until"), "{}", told(&history));
    assert_right(&history);
}

/// Its user has written TLS of their own into its configuration file.
#[test]
fn one_that_is_started_anew_between_the_look_and_the_redeploy_is_looked_at_again() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "no").await;
        upon(shared, "create", "db1.dbssl-rehearsal", |shared| {
            let (id, _) = starts(shared, "db1");
            crash(shared, "db1");
            shared.lock().containers.get_mut(&id).unwrap().image.quirk = Quirk::OwnTls;
            shared.start(&id)
        });
        sleep(5 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
        users.services.get_mut("db1").unwrap().quirk = Quirk::OwnTls;
    });
    assert!(said(&history, "it is left alone"), "{}", told(&history));
    assert_right(&history);
}

/// It has looked at the database before, and is about to replace it.
#[test]
fn a_database_that_its_user_is_stopping_is_left_alone() {
    // Also if it was started in what is the future, once the clock was set right.
    for ahead in [time::Duration::ZERO, time::Duration::DAY] {
        let history = staged(async |shared, users| {
            shared.lock().skew = ahead;
            run_database(users, Quirk::None, "always").await;
            upon(shared, "create", "db1.dbssl-rehearsal", |shared| {
                shared.lock().skew = time::Duration::ZERO;
                user_stops(shared);
                Ok(())
            });
            sleep(5 * MINUTE).await;
            assert!(shared.lock().upon.is_none());
            users.services.get_mut("db1").unwrap().wants = Wants::Stopped;
        });
        assert_right(&history);
        assert!(!said(&history, "dbssl-parked"), "{}", told(&history));
    }
}

/// It was already to be parked: only Docker's word for a signal comes after that.
#[test]
fn a_database_that_its_user_stops_as_it_is_parked_stays_stopped() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "always").await;
        upon(shared, "rename", PARKED, |shared| {
            user_stops(shared);
            Ok(())
        });
        sleep(5 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
        users.services.get_mut("db1").unwrap().wants = Wants::Stopped;
    });
    assert_right(&history);
}

/// Docker cannot remove the new one, which its user starts just as it gets out of the way.
#[test]
fn one_that_is_started_as_it_is_renamed_does_not_take_the_databases_place() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::Slow, "always").await;
        let id = started_successor(shared).await;
        shared.lock().keeps = Some("db1");
        let started = id.clone();
        upon(shared, "rename", "", move |shared| shared.start(&started));
        shared.stop(&id).await.unwrap();
        sleep(150 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
        users.services.get_mut("db1").unwrap().wants = Wants::Either;
    });
    assert!(said(&history, "dbssl-failed"), "{}", told(&history));
    assert_right(&history);
}

/// As `docker restart` on a machine that has much to do.
#[test]
fn a_slow_restart_in_the_middle_is_no_stop() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::Slow, "always").await;
        let id = started_successor(shared).await;
        shared.stop(&id).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        shared.start(&id).unwrap();
        sleep(5 * MINUTE).await;
        assert_eq!(starts(shared, "db1").0, id);
    });
    assert_right(&history);
}

/// As Portainer and Watchtower do it, which make a container anew from what an inspection says of it.
#[test]
fn what_a_tool_makes_of_the_new_container_replaces_it() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::Slow, "always").await;
        let id = started_successor(shared).await;
        shared.stop(&id).await.unwrap();
        let copy = {
            let mut machine = shared.lock();
            let made = &machine.containers[&id];
            let mut body = made.config.clone();
            body["HostConfig"] = made.host_config.clone();
            body["NetworkingConfig"] = json!({ "EndpointsConfig": made.networks });
            machine.remove(&id).unwrap();
            machine.create("db1", &body).unwrap()
        };
        shared.start(&copy).unwrap();
        sleep(5 * MINUTE).await;
        assert_eq!(starts(shared, "db1").0, copy);
    });
    assert_right(&history);
}

/// It takes a backup, say, and may have begun just before the database was stopped.
#[test]
fn another_that_runs_on_the_data_for_a_while_is_waited_for() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "always").await;
        upon(shared, "create", "db1", |shared| {
            other(shared);
            Ok(())
        });
        sleep(5 * MINUTE).await;
        crash(shared, "other");
        let id = starts(shared, "other").0;
        shared.lock().remove(&id).unwrap();
        sleep(150 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
    });
    assert!(said(&history, "waiting for the other one to end"), "{}", told(&history));
    assert_right(&history);
}

/// Before the new container is made, before it is started, or when it has ended.
#[test]
fn a_prune_in_the_middle_costs_no_database() {
    for (quirk, moment) in
        [(Quirk::NoTls, Some(("create", "db1"))), (Quirk::None, Some(("start", ""))), (Quirk::NoTls, None)]
    {
        let history = staged(async |shared, users| {
            run_database(users, quirk, "always").await;
            if let Some((call, object)) = moment {
                upon(shared, call, object, |shared| {
                    shared.lock().prune();
                    Ok(())
                });
            } else {
                let id = started_successor(shared).await;
                while !shared.lock().containers[&id].is_down() {
                    sleep(Duration::from_millis(1)).await;
                }
                shared.lock().prune();
            }
            sleep(150 * MINUTE).await;
            assert!(shared.lock().upon.is_none());
        });
        assert!(said(&history, "the former container was gone, and was built again"), "{}", told(&history));
        assert_right(&history);
    }
}

/// `docker system prune --all`: the record is kept until there is an image again.
#[test]
fn a_pruned_database_whose_image_is_gone_as_well_comes_back_with_it() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "always").await;
        upon(shared, "start", "", |shared| {
            let mut machine = shared.lock();
            machine.prune();
            machine.images.gone = true;
            Ok(())
        });
        sleep(30 * MINUTE).await;
        assert!(shared.lock().upon.is_none() && shared.lock().find("db1").is_none());
        shared.lock().images.gone = false;
        sleep(150 * MINUTE).await;
    });
    let told_so =
        said(&history, "DOES NOT RUN") && said(&history, "if nobody wants the database back, remove");
    assert!(told_so && history.broken.is_empty(), "{}", told(&history));
}

/// Docker restarts it as the database goes, or it is started again after a reboot.
#[test]
fn a_side_car_that_is_started_again_meanwhile_does_not_take_the_data() {
    let history = staged(async |shared, users| {
        let id = side_car(shared, "data:/data", "always");
        run_database(users, Quirk::None, "always").await;
        upon(shared, "create", "db1", move |shared| {
            crash(shared, "backup");
            shared.start(&id)
        });
        sleep(5 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
    });
    assert_right(&history);
}

#[test]
fn who_can_only_read_does_not_take_the_data() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "always").await;
        upon(shared, "create", "db1", |shared| {
            side_car(shared, "data:/data:ro", "no");
            Ok(())
        });
        sleep(5 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
    });
    assert_right(&history);
}

#[test]
fn while_another_runs_on_the_data_the_old_container_is_kept_stopped_and_that_is_said() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "always").await;
        upon(shared, "create", "db1", |shared| {
            other(shared);
            Ok(())
        });
        sleep(65 * MINUTE).await;
        in_its_place(users);
    });
    assert_kept_down(&history);
}

/// It was never stopped: whatever else runs on its data, it is as it was.
#[test]
fn an_old_container_that_still_runs_keeps_its_policy() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "always").await;
        upon(shared, "rename", PARKED, |shared| {
            side_car(shared, "data:/data", "no");
            Err(refused("rename", PARKED, 500, "out of luck"))
        });
        // Longer than the setback holds back: the side-car was there before the second try.
        sleep(150 * MINUTE).await;
        assert!(shared.lock().upon.is_none());
    });
    assert!(said(&history, "rolled back"), "{}", told(&history));
    assert_right(&history);
}

#[test]
fn one_that_its_user_stopped_after_the_proof_is_not_started_again_by_a_second_try() {
    let history = staged(async |shared, users| {
        shared.lock().keeps = Some(PARKED);
        run_database(users, Quirk::None, "always").await;
        sleep(MINUTE).await;
        let (id, _) = starts(shared, "db1");
        assert!(shared.lock().find(PARKED).is_some() && shared.lock().find("db1").unwrap().is_running());
        shared.stop(&id).await.unwrap();
        sleep(MINUTE).await;
        shared.lock().keeps = None;
        users.services.get_mut("db1").unwrap().wants = Wants::Stopped;
        sleep(5 * MINUTE).await;
    });
    assert_right(&history);
}

#[test]
fn one_that_ended_after_the_proof_is_started_again_by_a_second_try() {
    let history = staged(async |shared, users| {
        shared.lock().keeps = Some(PARKED);
        run_database(users, Quirk::None, "no").await;
        sleep(MINUTE).await;
        crash(shared, "db1");
        sleep(MINUTE).await;
        shared.lock().keeps = None;
        sleep(5 * MINUTE).await;
    });
    assert_right(&history);
}

#[test]
fn one_that_ended_after_the_proof_stays_down_while_another_runs_on_the_data() {
    let history = staged(async |shared, users| {
        shared.lock().keeps = Some(PARKED);
        run_database(users, Quirk::None, "no").await;
        sleep(MINUTE).await;
        crash(shared, "db1");
        other(shared);
        sleep(MINUTE).await;
        shared.lock().keeps = None;
        sleep(65 * MINUTE).await;
        in_its_place(users);
    });
    assert_kept_down(&history);
}

#[test]
fn one_that_is_to_be_kept_unproved_stays_down_while_another_runs_on_the_data() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::None, "no").await;
        upon(shared, "start", "", |shared| {
            let (old, _) = starts(shared, PARKED);
            shared.lock().remove(&old)?;
            other(shared);
            Err(refused("start", "db1", 500, "out of luck"))
        });
        sleep(65 * MINUTE).await;
        in_its_place(users);
    });
    assert_kept_down(&history);
}

#[test]
fn one_that_was_being_restarted_stays_down_while_another_runs_on_the_data() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::Deaf, "no").await;
        sleep(5 * MINUTE).await;
        upon(shared, "restart", "", |shared| {
            crash(shared, "db1");
            other(shared);
            Err(gone("restart"))
        });
        users.another_ca();
        sleep(80 * MINUTE).await;
        in_its_place(users);
    });
    assert_kept_down(&history);
}

/// `docker compose run`, another replica, and what was there before: of the same service, and no replacement.
#[test]
fn what_compose_runs_beside_it_does_not_replace_a_database() {
    const ONE_OFF: (&str, &str) = ("com.docker.compose.oneoff", "True");
    const SECOND: (&str, &str) = ("com.docker.compose.container-number", "2");
    for (label, before) in [(Some(ONE_OFF), false), (Some(SECOND), false), (None, true)] {
        let mut labels = json!({
            "com.docker.compose.project": "shop", "com.docker.compose.service": "db1", "side-car": "yes",
        });
        if let Some((label, value)) = label {
            labels[label] = json!(value);
        }
        let beside = |shared: &Shared| run(shared, "shop-db1-run", "scratch:/data", &labels, "no");
        let history = staged(async |shared, users| {
            if before {
                beside(shared);
            }
            run_database(users, Quirk::Slow, "always").await;
            let id = started_successor(shared).await;
            if !before {
                beside(shared);
            }
            {
                // `docker rm -f`
                let mut machine = shared.lock();
                machine.event(&id, "kill");
                machine.containers.get_mut(&id).unwrap().status = Status::Exited;
                machine.remove(&id).unwrap();
            }
            sleep(150 * MINUTE).await;
        });
        assert!(said(&history, "removed by its user meanwhile"), "{labels}: {}", told(&history));
        assert_right(&history);
    }
}

async fn started_successor(shared: &Shared) -> String {
    loop {
        sleep(Duration::from_millis(1)).await;
        let machine = shared.lock();
        let parked = machine.find(PARKED).is_some();
        if let Some(found) = machine.find("db1").filter(|found| parked && found.is_running()) {
            return found.id.clone();
        }
    }
}

#[test]
fn no_restart_cuts_off_whoever_lives_in_its_network() {
    let history = staged(async |shared, users| {
        run_database(users, Quirk::Deaf, "always").await;
        sleep(5 * MINUTE).await;
        let id = side_car(shared, "scratch:/data", "no");
        shared.lock().containers.get_mut(&id).unwrap().host_config["PidMode"] = json!("container:db1");
        let before = starts(shared, "db1");
        users.another_ca();
        // Another CA is seen with the next list of all containers.
        sleep(65 * MINUTE).await;
        assert_eq!(starts(shared, "db1"), before);
        shared.stop(&id).await.unwrap();
        sleep(65 * MINUTE).await;
        assert_ne!(starts(shared, "db1"), before);
    });
    assert!(said(&history, "a restart could do harm") && said(&history, ": backup;"), "{}", told(&history));
    assert_right(&history);
}

/// What is to be restarted so that its certificate does not end.
#[test]
fn a_container_on_which_docker_hangs_stands_in_the_way_only_if_it_lives_there() {
    for lives_there in [false, true] {
        let history = staged(async |shared, users| {
            run_database(users, Quirk::Deaf, "always").await;
            sleep(5 * MINUTE).await;
            let id = side_car(shared, "scratch:/data", "no");
            if lives_there {
                let mode = json!("container:db1");
                shared.lock().containers.get_mut(&id).unwrap().host_config["NetworkMode"] = mode;
            }
            shared.lock().hangs = Some("backup");
            let before = starts(shared, "db1");
            users.another_ca();
            sleep(65 * MINUTE).await;
            assert_eq!(starts(shared, "db1") == before, lives_there);
            shared.lock().hangs = None;
            shared.stop(&id).await.unwrap();
            sleep(65 * MINUTE).await;
        });
        assert_right(&history);
    }
}

#[test]
fn a_network_that_comes_between_the_look_and_the_redeploy_is_kept() {
    let history = staged(async |shared, users| {
        shared.lock().networks.insert("extra".to_owned());
        run_database(users, Quirk::None, "always").await;
        upon(shared, "create", "db1.dbssl-rehearsal", |shared| {
            let (id, _) = starts(shared, "db1");
            shared.lock().connect(&id, "extra", &json!({ "Aliases": ["more"] }))
        });
        sleep(5 * MINUTE).await;
        let networks = shared.lock().find("db1").unwrap().networks.clone();
        assert_eq!(networks["extra"]["Aliases"], json!(["more"]));
    });
    assert_right(&history);
}
