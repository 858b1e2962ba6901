//! On what Docker Engine 20.10 says of real containers.

use serde_json::json;

use super::*;

macro_rules! container {
    ($name:literal) => {
        inspect(include_str!(concat!("../../../tests/data/inspect/", $name, ".json")))
    };
}

fn inspect(text: &str) -> Inspect {
    Inspect::new(serde_json::from_str(text).unwrap()).unwrap()
}

fn addresses(inspect: &Inspect, port: u16) -> Vec<String> {
    inspect.addresses(port).iter().map(ToString::to_string).collect()
}

#[test]
fn a_container_is_read_as_docker_tells_it() {
    let found = container!("everything");
    assert_eq!(found.name().as_str(), "everything");
    assert_eq!(found.id().short().len(), 12);
    assert_eq!(found.image_name(), "dbssl-test/postgres:15");
    assert!(found.image_id().starts_with("sha256:"));
    assert_eq!(found.label("dbssl.mode"), Some("verify-full"));
    assert_eq!(found.labels()["dbssl.enable"], "true");
    assert_eq!(found.label("dbssl.names"), None);
    assert_eq!(found.entrypoint().unwrap(), ["docker-entrypoint.sh"]);
    assert_eq!(found.command(), ["-c", "shared_buffers=32MB"]);
    assert_eq!(found.environment()["POSTGRES_USER"], "app");
    assert_eq!(found.user(), "999:999");
    assert_eq!(found.network_mode(), "val-one");
    assert!(found.running() && found.pid() > 0);
    assert_eq!(found.exit_code(), 0);
    assert_eq!(found.started_at().unwrap().year(), 2026);
    assert!(found.created_at().unwrap() < found.started_at().unwrap());
    assert_eq!(
        found.fixed_addresses(),
        ["10.214.1.9", "fd00:214:1::9"].map(|text| text.parse::<IpAddr>().unwrap())
    );
    let aliases = found.aliases();
    for alias in ["db", "database", "second", "db.example", found.id().short()] {
        assert!(aliases.iter().any(|found| found == alias), "{alias}: {aliases:?}");
    }
}

#[test]
fn every_state_is_told_apart() {
    for (found, state, running) in [
        (container!("plain"), State::Running, true),
        (container!("paused"), State::Paused, true),
        (container!("killed"), State::Exited, false),
        (container!("created"), State::Created, false),
    ] {
        assert_eq!((found.state(), found.running()), (state, running), "{}", found.name());
    }
    assert_eq!(container!("killed").exit_code(), 137);
    assert_eq!(container!("killed").pid(), 0);
    let with = |status: &str| {
        let mut raw = container!("plain").raw().clone();
        raw["State"]["Status"] = json!(status);
        Inspect::new(raw).unwrap().state()
    };
    assert_eq!(with("restarting"), State::Restarting);
    assert_eq!(with("dead"), State::Dead);
    assert_eq!(with("removing"), State::Other);
    assert_eq!(with("a new word"), State::Other);
}

#[test]
fn health_is_none_without_a_check() {
    assert_eq!(container!("plain").health(), Health::None);
    assert_eq!(container!("shop-db-1").health(), Health::Healthy);
    for (word, health) in
        [("starting", Health::Starting), ("unhealthy", Health::Unhealthy), ("none", Health::None)]
    {
        let mut raw = container!("shop-db-1").raw().clone();
        raw["State"]["Health"]["Status"] = json!(word);
        assert_eq!(Inspect::new(raw).unwrap().health(), health);
    }
}

#[test]
fn mounts_are_what_is_really_mounted() {
    let found = container!("everything");
    let mounts = found.mounts();
    let at = |path: &str| mounts.iter().find(|mount| mount.destination == path).unwrap();
    let data = at("/var/lib/postgresql/data");
    assert_eq!((data.kind.as_str(), data.name.as_str(), data.writable), ("volume", "val-data", true));
    let conf = at("/etc/conf");
    assert_eq!((conf.kind.as_str(), conf.name.as_str(), conf.writable), ("bind", "", false));
    assert_eq!(conf.source, "/srv/example/conf");
    assert_eq!(at("/backup").name.len(), 64);
    assert_eq!(mounts.len(), 4);
    // A volume that a tmpfs lies over is not there.
    assert_eq!(container!("on-tmpfs").mounts(), []);
}

#[test]
fn a_database_is_reached_at_its_own_addresses_first() {
    let found = addresses(&container!("everything"), 5432);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(
        found.contains(&"10.214.1.9:5432".to_owned()) && found.contains(&"[fd00:214:1::9]:5432".to_owned())
    );
    assert!(found[4].starts_with("127.0.0.1:"), "{found:?}");
    assert_eq!(addresses(&container!("everything"), 6000).len(), 4, "another port is not published");
    assert_eq!(addresses(&container!("host-network"), 15999), ["127.0.0.1:15999"]);
    assert_eq!(addresses(&container!("no-network"), 5432), [""; 0]);
    assert_eq!(addresses(&container!("created"), 5432), [""; 0]);
    // Published for everybody: from here by loopback.
    let mut raw = container!("created").raw().clone();
    raw["NetworkSettings"]["Ports"] = json!({ "5432/tcp": [
        { "HostIp": "0.0.0.0", "HostPort": "15432" },
        { "HostIp": "::", "HostPort": "15432" },
        { "HostIp": "192.0.2.1", "HostPort": "x" },
    ] });
    let found = addresses(&Inspect::new(raw).unwrap(), 5432);
    assert_eq!(found, ["127.0.0.1:15432", "127.0.0.1:15432"]);
}

#[test]
fn a_cleared_entrypoint_reads_as_none() {
    assert_eq!(container!("cleared").entrypoint(), None);
    assert_eq!(container!("cleared").command(), ["sleep", "1000"]);
}

#[test]
fn of_a_variable_that_is_given_twice_the_last_counts() {
    let mut raw = container!("plain").raw().clone();
    raw["Config"]["Env"] = json!(["A=1", "A=2=3", "LINES=one\ntwo", "NOTHING", "EMPTY="]);
    let found = Inspect::new(raw).unwrap().environment();
    assert_eq!(found["A"], "2=3");
    assert_eq!(found["LINES"], "one\ntwo");
    assert_eq!(found["EMPTY"], "");
    assert!(!found.contains_key("NOTHING"));
}

#[test]
fn an_image_is_read_as_docker_tells_it() {
    let image =
        Image::new(&serde_json::from_str(include_str!("../../../tests/data/image-postgres.json")).unwrap());
    assert_eq!(image.id, container!("plain").image_id());
    assert_eq!(image.entrypoint.unwrap(), ["docker-entrypoint.sh"]);
    assert_eq!(image.command, ["postgres"]);
    assert_eq!(image.environment["PG_MAJOR"], "15");
    assert_eq!(image.exposed_ports, ["5432/tcp"]);
    assert_eq!(Image::new(&json!({})), Image::default());
}

#[test]
fn odd_answers_read_as_absent_and_never_panic() {
    let (id, name) = ("a".repeat(64), "/db");
    let absent = Inspect::new(json!({ "Id": id, "Name": name })).unwrap();
    let odd = |value: serde_json::Value| {
        Inspect::new(json!({
            "Id": id, "Name": name, "State": value, "Config": value, "HostConfig": value, "Mounts": value,
            "NetworkSettings": value, "ExecIDs": value, "Image": value,
        }))
        .unwrap()
    };
    let mut all = vec![absent];
    for value in
        [json!(null), json!(7), json!("text"), json!([1, null, {}]), json!({ "a": null }), json!([[]])]
    {
        all.push(odd(value));
    }
    for found in all {
        assert_eq!(found.state(), State::Other);
        assert_eq!((found.health(), found.running(), found.pid()), (Health::None, false, 0));
        assert!(found.labels().is_empty() && found.environment().is_empty() && found.started_at().is_none());
        assert!(found.command().is_empty() && found.entrypoint().is_none() && found.user().is_empty());
        assert!(
            found.addresses(5432).is_empty()
                && found.fixed_addresses().is_empty()
                && found.aliases().is_empty()
        );
        let _ = (found.mounts(), found.exec_ids(), found.network_mode(), found.attachments());
    }
}

#[test]
fn what_has_no_id_or_name_is_no_container() {
    let id = "a".repeat(64);
    for (raw, field) in [
        (json!({}), "Id"),
        (json!({ "Id": "abc", "Name": "/db" }), "Id"),
        (json!({ "Id": id }), "Name"),
        (json!({ "Id": id, "Name": "/a/b" }), "Name"),
        (json!({ "Id": id, "Name": 7 }), "Name"),
        (json!([]), "Id"),
        (json!("text"), "Id"),
    ] {
        assert_eq!(Inspect::new(raw.clone()).unwrap_err().field, field, "{raw}");
    }
}
