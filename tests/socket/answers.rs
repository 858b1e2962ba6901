//! What the fake answers: real answers, with other ids, names, labels and states.

use serde_json::{Value, json};

/// One container of the fake.
#[derive(Clone)]
pub struct Container {
    pub number: usize,
    pub labels: Vec<(&'static str, &'static str)>,
}

impl Container {
    pub fn name(&self) -> String {
        format!("c{}", self.number)
    }

    fn labels(&self) -> Value {
        self.labels.iter().map(|(label, value)| ((*label).to_owned(), json!(value))).collect()
    }

    /// It does not run, so that nobody looks for it on a network.
    pub fn inspect(&self) -> Value {
        let mut real: Value = serde_json::from_str(include_str!("../data/inspect/plain.json")).unwrap();
        real["Id"] = json!(id(self.number));
        real["Name"] = json!(format!("/{}", self.name()));
        real["Config"]["Labels"] = self.labels();
        real["State"]["Status"] = json!("exited");
        real["State"]["Running"] = json!(false);
        real
    }

    pub fn listed(&self) -> Value {
        let mut real: Value = serde_json::from_str(include_str!("../data/listed-plain.json")).unwrap();
        real["Id"] = json!(id(self.number));
        real["Names"] = json!([format!("/{}", self.name())]);
        real["Labels"] = self.labels();
        real["State"] = json!("exited");
        real
    }
}

/// The id of the container of that number.
pub fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// One event of it, as a line of the stream.
pub fn event(number: usize, action: &str) -> String {
    let mut real: Value = serde_json::from_str(include_str!("../data/event-start.json")).unwrap();
    let id = json!(id(number));
    (real["id"], real["Actor"]["ID"]) = (id.clone(), id);
    (real["status"], real["Action"]) = (json!(action), json!(action));
    real.to_string() + "\n"
}

pub fn version() -> Value {
    json!({ "Version": "20.10.24+dfsg1", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux" })
}

pub fn info() -> Value {
    json!({ "Name": "host", "SecurityOptions": ["name=seccomp,profile=default"],
        "DockerRootDir": "/var/lib/docker", "Swarm": { "LocalNodeState": "inactive" } })
}

pub fn image() -> Value {
    serde_json::from_str(include_str!("../data/image-postgres.json")).unwrap()
}

/// `/etc/passwd` as Docker's archive API hands it out.
pub fn passwd() -> Vec<u8> {
    let content = b"root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "passwd", &content[..]).unwrap();
    archive.into_inner().unwrap()
}
