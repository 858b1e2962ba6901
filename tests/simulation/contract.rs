//! What the agent relies on of any Docker Engine: gone through on the simulation's, which so stays honest, and on a real
//! one (`tests/live_contract.rs`).

use dbssl::{
    decide::gates::is_of,
    host::docker::{Docker, DockerError},
    model::{ContainerId, inspect::Inspect},
};
use serde_json::{Value, json};

/// Where and with what it is gone through. Names begin with `prefix`, so that it can be cleared up after.
pub struct Ground<'a> {
    pub docker: &'a Docker,
    pub image: &'a str,
    pub prefix: &'a str,
    /// On every container, as `key=value`.
    pub label: &'a str,
    /// A network of its own, besides the default one.
    pub network: &'a str,
}

impl Ground<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn body(&self, mark: &str) -> Value {
        let (key, value) = self.label.split_once('=').expect("a label");
        json!({
            "Image": self.image, "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["redis-server"],
            "Labels": { key: value, "contract": self.prefix, "contract.mark": mark },
            "HostConfig": {
                "Binds": [format!("{}-{mark}:/data", self.prefix)],
                "NetworkMode": self.network, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
            },
            "NetworkingConfig": { "EndpointsConfig": { self.network: { "Aliases": ["alias"] } } },
        })
    }

    async fn look(&self, id: &ContainerId) -> Inspect {
        self.docker.inspect(id.as_str()).await.unwrap().expect("it is there")
    }
}

fn status<T>(answer: Result<T, DockerError>) -> Option<u16> {
    answer.err().expect("it is refused").status()
}

/// Gives the name of a volume that is left.
pub async fn is_kept(ground: &Ground<'_>) -> String {
    let one = names_and_labels(ground).await;
    who_lives_in_it(ground, &one).await;
    its_life(ground, &one).await;
    the_brake(ground, &one).await;
    let volume = volumes(ground).await;
    ground.docker.remove(&one).await.unwrap();
    assert_eq!(ground.docker.inspect(one.as_str()).await.unwrap(), None);
    ground.docker.remove(&one).await.expect("what is gone is removed");
    volume
}

async fn names_and_labels(ground: &Ground<'_>) -> ContainerId {
    let docker = ground.docker;
    let one = docker.create(&ground.name("one"), &ground.body("one")).await.unwrap();
    let two = docker.create(&ground.name("two"), &ground.body("two")).await.unwrap();
    assert_eq!(status(docker.create(&ground.name("one"), &ground.body("one")).await), Some(409));
    assert_eq!(status(docker.rename(&one, &ground.name("two")).await), Some(409));
    docker.rename(&one, &ground.name("one")).await.expect("its own name");
    docker.rename(&two, &ground.name("other")).await.unwrap();
    assert_eq!(docker.inspect(&ground.name("two")).await.unwrap(), None);
    assert_eq!(docker.inspect(&ground.name("other")).await.unwrap().unwrap().id(), &two);
    let listed = |label: String| async move {
        let mut ids: Vec<_> = docker.list(&label).await.unwrap().into_iter().map(|row| row.id).collect();
        ids.sort();
        ids
    };
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(listed(format!("contract={}", ground.prefix)).await, both);
    assert_eq!(listed("contract.mark=one".to_owned()).await.iter().filter(|id| **id == one).count(), 1);
    assert!(!listed("contract.mark=one".to_owned()).await.contains(&two));
    assert!(listed(String::new()).await.contains(&two));
    docker.remove(&two).await.unwrap();
    one
}

/// The list tells it, and by name as well as by id.
async fn who_lives_in_it(ground: &Ground<'_>, one: &ContainerId) {
    let docker = ground.docker;
    for word in [ground.name("one"), one.to_string()] {
        let mut body = ground.body("guest");
        body["HostConfig"]["NetworkMode"] = json!(format!("container:{word}"));
        body["HostConfig"]["Binds"] = json!([format!("{}:/data", ground.name("one"))]);
        body["NetworkingConfig"] = json!({});
        let guest = docker.create(&ground.name("guest"), &body).await.unwrap();
        let listed = docker.list("").await.unwrap();
        let mode = |id: &ContainerId| listed.iter().find(|row| row.id == *id).unwrap().network_mode.clone();
        let host = ground.look(one).await;
        assert!(is_of(&mode(&guest), &host), "{}", mode(&guest));
        assert_eq!(mode(one), ground.network);
        docker.remove(&guest).await.unwrap();
    }
}

async fn its_life(ground: &Ground<'_>, one: &ContainerId) {
    let docker = ground.docker;
    let made = ground.look(one).await;
    assert_eq!(made.state_word(), "created");
    assert!(made.created_at().is_some_and(|at| at <= dbssl::host::clock::now()));
    let before = docker.info().await.map(|_| dbssl::host::clock::now()).unwrap();
    docker.start(one).await.unwrap();
    docker.start(one).await.expect("it runs already");
    let running = ground.look(one).await;
    assert!(running.running() && running.started_at().is_some_and(|at| at >= before));
    assert!(!running.own_addresses(1).is_empty(), "it has an address while it runs");
    assert!(running.aliases().iter().any(|alias| alias == "alias"));
    assert_eq!(status(docker.remove(one).await), Some(409));
    docker.set_restart_policy(one, &json!({ "Name": "always", "MaximumRetryCount": 0 })).await.unwrap();
    assert_eq!(ground.look(one).await.host_config()["RestartPolicy"]["Name"], "always");
    let until = dbssl::host::clock::now;
    assert!(!docker.was_stopped(one, before, until()).await.unwrap(), "nobody asked for its end");
    assert!(!docker.was_signalled(one, before).await.unwrap());
    docker.stop(one, 10).await.unwrap();
    docker.stop(one, 10).await.expect("it is stopped already");
    let stopped = ground.look(one).await;
    assert!(!stopped.running());
    assert_eq!(stopped.state_word(), "exited");
    assert!(docker.was_stopped(one, before, until()).await.unwrap());
    assert!(docker.was_signalled(one, before).await.unwrap());
    assert!(!docker.was_signalled(one, until()).await.unwrap(), "not since then");
    docker.restart(one, 10).await.unwrap();
    let again = ground.look(one).await;
    assert!(again.running());
    assert!(
        !docker.was_signalled(one, again.started_at().unwrap()).await.unwrap(),
        "that was its former process"
    );
    assert!(!docker.was_stopped(one, before, until()).await.unwrap(), "it was started since");
    docker.stop(one, 10).await.unwrap();
}

async fn the_brake(ground: &Ground<'_>, one: &ContainerId) {
    let (docker, nowhere) = (ground.docker, format!("dbssl-parked-{}", ground.prefix));
    docker.brake(one, &nowhere).await.unwrap();
    let braked = ground.look(one).await;
    assert!(braked.attachments().iter().any(|attachment| attachment.network == nowhere));
    assert!(matches!(status(docker.start(one).await), Some(400..=599)));
    assert!(!ground.look(one).await.running());
    docker.disconnect_network(&nowhere, one).await.unwrap();
    docker.start(one).await.expect("the brake is off");
    docker.stop(one, 10).await.unwrap();
}

async fn volumes(ground: &Ground<'_>) -> String {
    let docker = ground.docker;
    let mut body = ground.body("anonymous");
    body["HostConfig"]["Binds"] = json!([]);
    let id = docker.create(&ground.name("anonymous"), &body).await.unwrap();
    let mounts = ground.look(&id).await.mounts();
    let volume = mounts.iter().find(|mount| mount.destination == "/data").expect("the image's volume");
    assert!(volume.kind == "volume" && volume.name.len() == 64, "{volume:?}");
    docker.remove(&id).await.unwrap();
    assert!(docker.volume_exists(&volume.name).await.unwrap(), "a volume stays");
    assert!(docker.volume_exists(&ground.name("one")).await.unwrap());
    volume.name.clone()
}
