//! On what Docker Engine 20.10 says of real containers.

use super::*;

const EVERYTHING: &str = include_str!("../../../tests/data/inspect/everything.json");

fn raw() -> Value {
    serde_json::from_str(EVERYTHING).unwrap()
}

fn compared(expected: &Value, found: &Value) -> Vec<Difference> {
    differences(expected, &Inspect::new(found.clone()).unwrap())
}

/// What is said when one field of the container is found to be another.
fn changed(pointer: &str, value: Value) -> Vec<String> {
    let mut found = raw();
    *found.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    compared(&raw(), &found).iter().map(ToString::to_string).collect()
}

#[test]
fn a_container_does_not_differ_from_itself() {
    assert_eq!(compared(&raw(), &raw()), []);
}

#[test]
fn what_is_another_containers_own_is_not_compared() {
    for (pointer, value) in [
        ("/Id", json!("e".repeat(64))),
        ("/Name", json!("/other")),
        ("/Created", json!("2026-01-01T00:00:00Z")),
        ("/State/Pid", json!(7)),
        ("/LogPath", json!("/elsewhere")),
        ("/RestartCount", json!(3)),
        ("/GraphDriver/Name", json!("other")),
        ("/ExecIDs", json!(["a"])),
        ("/HostConfig/ContainerIDFile", json!("/elsewhere")),
        ("/NetworkSettings/SandboxID", json!("other")),
        ("/NetworkSettings/Networks/val-one/IPAddress", json!("10.214.1.200")),
        ("/NetworkSettings/Networks/val-one/EndpointID", json!("other")),
    ] {
        // The aliases of another id are those of a container that was not looked at: leave them out.
        if pointer != "/Id" {
            assert_eq!(changed(pointer, value), [""; 0], "{pointer}");
        }
    }
}

#[test]
fn every_other_field_is_compared() {
    // Every leaf of Config and HostConfig, found to be something else, is noticed.
    let mut leaves = Vec::new();
    for part in ["/Config", "/HostConfig", "/Args", "/Path", "/Image", "/Driver", "/Platform"] {
        collect(part, &raw()[&part[1..]], &mut leaves);
    }
    assert!(leaves.len() > 90, "{}", leaves.len());
    for pointer in leaves.iter().filter(|leaf| !RULED[..3].contains(&leaf.as_str())) {
        let said = changed(pointer, json!("something else"));
        assert_eq!(said.len(), 1, "{pointer}: {said:?}");
    }
}

fn collect(pointer: &str, value: &Value, leaves: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                collect(&format!("{pointer}/{}", super::pointer(key)), value, leaves);
            }
        }
        _ => leaves.push(pointer.to_owned()),
    }
}

#[test]
fn a_field_that_is_lost_or_new_is_named() {
    let mut found = raw();
    found["HostConfig"].as_object_mut().unwrap().remove("Memory");
    found["HostConfig"]["New/Field~"] = json!({ "a": 1 });
    let said: Vec<_> = compared(&raw(), &found).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["/HostConfig/Memory is null, expected 268435456", "/HostConfig/New~1Field~0/a is 1, expected null",]
    );
}

#[test]
fn nothing_is_nothing_however_it_is_written() {
    for (pointer, value) in [
        ("/HostConfig/CapAdd", json!([])),
        ("/HostConfig/CapAdd", json!({})),
        ("/HostConfig/PidMode", Value::Null),
        ("/Config/OnBuild", json!([])),
    ] {
        assert_eq!(changed(pointer, value), [""; 0], "{pointer}");
    }
    // Zero and false are values.
    assert_eq!(changed("/HostConfig/OomKillDisable", Value::Null).len(), 1);
    assert_eq!(changed("/HostConfig/CpuShares", Value::Null).len(), 1);
}

#[test]
fn mounts_are_compared_in_any_order_and_in_all_that_matters() {
    let mut found = raw();
    found["Mounts"].as_array_mut().unwrap().reverse();
    assert_eq!(compared(&raw(), &found), []);
    let at = raw()["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .position(|mount| mount["Destination"] == "/backup")
        .unwrap();
    for (field, value) in [
        ("Name", json!("another-and-empty-one")),
        ("RW", json!(false)),
        ("Destination", json!("/elsewhere")),
        ("Type", json!("bind")),
        ("Propagation", json!("shared")),
    ] {
        let said = changed(&format!("/Mounts/{at}/{field}"), value);
        assert_eq!(said.len(), 2, "{field}: {said:?}");
        assert!(said[0].starts_with("/Mounts is absent, expected /backup: volume "), "{said:?}");
    }
    // "" and "z" say the same of a volume.
    assert_eq!(changed(&format!("/Mounts/{at}/Mode"), json!("z")), [""; 0]);
    let mut found = raw();
    found["Mounts"].as_array_mut().unwrap().remove(at);
    assert_eq!(compared(&raw(), &found).len(), 1);
    found["Mounts"] = Value::Null;
    assert_eq!(compared(&raw(), &found).len(), raw()["Mounts"].as_array().unwrap().len());
}

#[test]
fn the_same_volume_mounted_twice_is_not_once() {
    let mut found = raw();
    let again = found["Mounts"][0].clone();
    found["Mounts"].as_array_mut().unwrap().push(again);
    assert_ne!(compared(&raw(), &found), []);
    assert_ne!(compared(&found, &raw()), []);
}

#[test]
fn networks_are_compared_by_what_was_asked_for() {
    let network = "/NetworkSettings/Networks/val-one";
    for (field, value, said) in [
        (
            "IPAMConfig",
            json!({ "IPv4Address": "10.214.1.10", "IPv6Address": "fd00:214:1::9" }),
            "/IPAMConfig/IPv4Address is \"10.214.1.10\", expected \"10.214.1.9\"",
        ),
        ("IPAMConfig", Value::Null, "/IPAMConfig"),
        ("Links", json!(["a:b"]), "/Links is [\"a:b\"], expected null"),
        ("DriverOpts", json!({ "x": "1" }), "/DriverOpts"),
        ("Aliases", json!(["db"]), "/Aliases is [\"db\"], expected [\"database\",\"db\",\"db.example\"]"),
        ("Aliases", Value::Null, "/Aliases"),
    ] {
        let found = changed(&format!("{network}/{field}"), value);
        assert!(
            !found.is_empty() && found.iter().all(|line| line.starts_with(network) && line.contains(said)),
            "{field}: {found:?}"
        );
    }
    for name in ["bridge", "val-one"] {
        let mut found = raw();
        let taken = found["NetworkSettings"]["Networks"].as_object_mut().unwrap().remove(name).unwrap();
        let said = compared(&raw(), &found);
        assert!(
            said.iter().any(|line| line.to_string()
                == format!("/NetworkSettings/Networks/{name} is absent, expected attached")),
            "{said:?}"
        );
        found["NetworkSettings"]["Networks"][name] = taken.clone();
        found["NetworkSettings"]["Networks"]["more"] = taken;
        assert!(
            compared(&raw(), &found)
                .iter()
                .any(|line| line.to_string().ends_with("more is attached, expected absent"))
        );
    }
}

#[test]
fn aliases_that_docker_adds_are_not_held_against_it() {
    let network = "/NetworkSettings/Networks/val-one/Aliases";
    let id = raw()["Id"].as_str().unwrap()[..12].to_owned();
    assert_eq!(changed(network, json!(["db.example", "database", id, "db"])), [""; 0], "another order");
    // Not asked for as an alias, and there as the host name.
    let mut expected = raw();
    expected["NetworkSettings"]["Networks"]["val-one"]["Aliases"] = json!(["db", "database"]);
    assert_eq!(compared(&expected, &raw()), []);
    expected["NetworkSettings"]["Networks"]["val-one"]["Aliases"] = json!(["db"]);
    assert_eq!(compared(&expected, &raw()).len(), 1, "another alias is");
}

#[test]
fn a_host_name_is_compared_except_in_the_hosts_own_namespace() {
    assert_eq!(
        changed("/Config/Hostname", json!("other"))[0],
        "/Config/Hostname is \"other\", expected \"db.example\""
    );
    let (mut expected, mut found) = (raw(), raw());
    expected["HostConfig"]["UTSMode"] = json!("host");
    found["HostConfig"]["UTSMode"] = json!("host");
    found["Config"]["Hostname"] = json!("0123456789ab");
    assert_eq!(compared(&expected, &found), []);
}

#[test]
fn what_may_be_secret_is_never_quoted() {
    const SECRET: &str = "h4nter2";
    let mut kept = raw();
    kept["HostConfig"]["LogConfig"]["Config"] = json!({ "splunk-token": "x" });
    for (pointer, value) in [
        ("/Config/Env", json!([format!("POSTGRES_PASSWORD={SECRET}")])),
        ("/Config/Cmd", json!(["redis-server", "--requirepass", SECRET])),
        ("/Config/Entrypoint", json!(["sh", "-c", SECRET])),
        ("/Config/Healthcheck/Test", json!(["CMD-SHELL", format!("redis-cli -a {SECRET} ping")])),
        ("/Config/Labels/test.run", json!(format!("basic-auth {SECRET}"))),
        ("/Config/Labels", json!({ "a": SECRET })),
        ("/Args", json!([SECRET])),
        ("/Args", json!(SECRET)),
        ("/Path", json!(SECRET)),
        ("/HostConfig/LogConfig/Config/splunk-token", json!(SECRET)),
        ("/HostConfig/Mounts/0/VolumeOptions", json!({ "DriverConfig": { "Options": { "o": SECRET } } })),
        ("/Config", Value::Null),
        ("/HostConfig", Value::Null),
    ] {
        // Whether it is the one that was expected or the one that was found.
        let mut other = kept.clone();
        if pointer.starts_with("/HostConfig/Mounts") {
            other["HostConfig"]["Mounts"][0]["VolumeOptions"] = Value::Null;
        }
        *other.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        let (mut kept, mut with) = (kept.clone(), other);
        if pointer == "/Config" || pointer == "/HostConfig" {
            kept["Config"]["Env"] = json!([SECRET]);
            kept["HostConfig"]["LogConfig"]["Config"] = json!({ "token": SECRET });
            with["Name"] = kept["Name"].clone();
        }
        for said in [compared(&kept, &with), compared(&with, &kept)] {
            assert!(!said.is_empty(), "{pointer}");
            let text = format!("{said:?}");
            assert!(!text.contains(SECRET), "{pointer}: {text}");
        }
    }
}

#[test]
fn a_description_that_is_not_a_container_is_a_difference() {
    let said = compared(&json!({}), &raw());
    assert!(said.iter().any(|line| line.field == "/Id"), "{said:?}");
}
