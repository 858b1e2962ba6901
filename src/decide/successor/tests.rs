//! On what Docker Engine 20.10 says of real containers, `tests/data/inspect`. What the engine makes of the successors
//! is seen by `tests/live_successor.rs`.

use super::*;
use crate::decide::compare::differences;

const OLD: Dialect = Dialect { settings_by_network: false, image_name_holds: true };
const NEW: Dialect = Dialect { settings_by_network: true, image_name_holds: true };

const PLAIN: &str = include_str!("../../../tests/data/inspect/plain.json");
const EVERYTHING: &str = include_str!("../../../tests/data/inspect/everything.json");
const COMPOSE: &str = include_str!("../../../tests/data/inspect/shop-db-1.json");
const HOST_NETWORK: &str = include_str!("../../../tests/data/inspect/host-network.json");
const NO_NETWORK: &str = include_str!("../../../tests/data/inspect/no-network.json");
const CLEARED: &str = include_str!("../../../tests/data/inspect/cleared.json");
const ALL: [&str; 6] = [PLAIN, EVERYTHING, COMPOSE, HOST_NETWORK, NO_NETWORK, CLEARED];

fn inspect(text: &str) -> Inspect {
    Inspect::new(serde_json::from_str(text).unwrap()).unwrap()
}

/// A real container with some of it changed.
fn edited(text: &str, fields: &[(&str, Value)]) -> Inspect {
    let mut raw: Value = serde_json::from_str(text).unwrap();
    for (pointer, value) in fields {
        *raw.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value.clone();
    }
    Inspect::new(raw).unwrap()
}

fn image() -> Image {
    Image::new(&serde_json::from_str(include_str!("../../../tests/data/image-postgres.json")).unwrap())
}

/// The command with flags behind it.
fn wired(old: &Inspect) -> Vec<String> {
    old.command().into_iter().chain(["-c", "ssl=on"].map(str::to_owned)).collect()
}

fn wiring(command: &[String]) -> Wiring<'_> {
    let source = Path::new("/state/db");
    Wiring { source, target: "/certs", command, healthcheck: None, mount: true, selinux: false }
}

fn asked_of(old: &Inspect, dialect: Dialect) -> Successor {
    successor(old, &image(), &wiring(&wired(old)), "0123", dialect)
}

/// An engine that makes exactly what it is asked for, under another id.
fn made(successor: &Successor) -> Inspect {
    let mut raw = successor.expected.clone();
    raw["Id"] = json!("f".repeat(64));
    Inspect::new(raw).unwrap()
}

fn binds(successor: &Successor) -> Vec<&str> {
    successor.body["HostConfig"]["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn networks(successor: &Successor) -> &Value {
    &successor.body["NetworkingConfig"]["EndpointsConfig"]
}

#[test]
fn only_the_wiring_the_operation_and_the_policy_differ() {
    for text in ALL {
        let old = inspect(text);
        let successor = asked_of(&old, OLD);
        let mut fields: Vec<_> =
            differences(&successor.expected, &old).into_iter().map(|found| found.field).collect();
        fields.dedup();
        let allowed = [
            "/Args",
            "/Config/Cmd",
            "/Config/Labels/dbssl.operation",
            "/HostConfig/Binds",
            // The name of a volume that had none in the configuration.
            "/HostConfig/Mounts",
            "/HostConfig/RestartPolicy/Name",
            "/Mounts",
        ];
        let wrong: Vec<_> = fields.iter().filter(|field| !allowed.contains(&field.as_str())).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", old.name());
        for must in ["/Config/Cmd", "/Config/Labels/dbssl.operation", "/HostConfig/Binds", "/Mounts"] {
            assert!(fields.iter().any(|field| field == must), "{}: {must}", old.name());
        }
    }
}

#[test]
fn flags_come_last_and_reach_the_process() {
    let successor = asked_of(&inspect(EVERYTHING), OLD);
    assert_eq!(successor.body["Cmd"], json!(["-c", "shared_buffers=32MB", "-c", "ssl=on"]));
    assert_eq!(successor.body["Entrypoint"], json!(["docker-entrypoint.sh"]));
    assert_eq!(successor.expected["Path"], "docker-entrypoint.sh");
    assert_eq!(successor.expected["Args"], json!(["-c", "shared_buffers=32MB", "-c", "ssl=on"]));
    // The directory alone is missing.
    let old = inspect(PLAIN);
    let successor = super::successor(&old, &image(), &wiring(&old.command()), "0123", OLD);
    assert_eq!(successor.body["Cmd"], json!(["postgres"]));
    assert_eq!(successor.expected["Args"], old.raw()["Args"]);
    // An entrypoint and no command: the first flag follows the entrypoint.
    let old = edited(PLAIN, &[("/Config/Cmd", Value::Null)]);
    assert_eq!(asked_of(&old, OLD).expected["Args"], json!(["-c", "ssl=on"]));
    // A command and no entrypoint, as images without one have it.
    let old = edited(PLAIN, &[("/Config/Entrypoint", Value::Null), ("/Config/Cmd", json!(["postgres"]))]);
    let successor = asked_of(&old, OLD);
    assert_eq!(
        (&successor.expected["Path"], &successor.expected["Args"]),
        (&json!("postgres"), &json!(["-c", "ssl=on"]))
    );
}

#[test]
fn a_cleared_entrypoint_does_not_come_back_from_the_image() {
    let old = inspect(CLEARED);
    assert_eq!(old.entrypoint(), None);
    assert_eq!(asked_of(&old, OLD).body["Entrypoint"], json!([""]));
    assert_eq!(rebuilt(&old, &image(), "0123", OLD).body["Entrypoint"], json!([""]));
    // Where the image has none, there is nothing to be held back.
    let bare = Image { entrypoint: None, ..image() };
    assert_eq!(super::successor(&old, &bare, &wiring(&[]), "0123", OLD).body["Entrypoint"], Value::Null);
}

#[test]
fn anonymous_volumes_are_mounted_by_the_names_they_have() {
    let old = inspect(PLAIN);
    let volume = &old.mounts()[0];
    assert_eq!(volume.name.len(), 64);
    let bind = format!("{}:/var/lib/postgresql/data", volume.name);
    assert_eq!(binds(&asked_of(&old, OLD)), [bind.as_str(), "/state/db:/certs:ro"]);
    assert_eq!(binds(&rebuilt(&old, &image(), "0123", OLD)), [bind.as_str()]);
    // What may not be written stays so.
    let old = edited(PLAIN, &[("/Mounts/0/RW", json!(false))]);
    assert_eq!(binds(&asked_of(&old, OLD))[0], format!("{bind}:ro"));
}

#[test]
fn volumes_of_every_kind_keep_their_place() {
    let old = inspect(EVERYTHING);
    let at = |path: &str| old.mounts().into_iter().find(|mount| mount.destination == path).unwrap().name;
    let successor = asked_of(&old, OLD);
    // `val-data` was asked for at a path with a slash at its end, and is there already.
    let backup = format!("{}:/backup", at("/backup"));
    assert_eq!(
        binds(&successor),
        [
            "val-data:/var/lib/postgresql/data/",
            "/srv/example/conf:/etc/conf:ro",
            &backup,
            "/state/db:/certs:ro"
        ]
    );
    // `--mount type=volume,target=/spool`: its own entry gets the name.
    let spool = &successor.body["HostConfig"]["Mounts"][0];
    assert_eq!((&spool["Target"], &spool["Source"]), (&json!("/spool"), &json!(at("/spool"))));
    assert_eq!(successor.body["HostConfig"]["Mounts"].as_array().unwrap().len(), 1);
    assert_eq!(successor.body["HostConfig"]["Tmpfs"], json!({ "/scratch": "size=1m" }));
}

#[test]
fn an_entry_for_a_volume_without_a_name_keeps_its_options() {
    let entry = json!([{ "Type": "volume", "Target": "/spool/", "ReadOnly": true, "VolumeOptions": { "NoCopy": true } }]);
    let old = edited(EVERYTHING, &[("/HostConfig/Mounts", entry)]);
    let successor = asked_of(&old, OLD);
    let spool = &successor.body["HostConfig"]["Mounts"][0];
    assert_eq!(spool["ReadOnly"], true);
    assert_eq!(spool["VolumeOptions"], json!({ "NoCopy": true }));
    assert_eq!(spool["Source"].as_str().unwrap().len(), 64);
    assert!(!binds(&successor).iter().any(|bind| bind.contains("/spool")));
}

#[test]
fn the_certificate_directory_is_mounted_for_reading_only() {
    let old = inspect(PLAIN);
    let mount = |selinux, mount| {
        let command = wired(&old);
        let wiring = Wiring { mount, selinux, ..wiring(&command) };
        super::successor(&old, &image(), &wiring, "0123", OLD)
    };
    assert_eq!(binds(&mount(false, true))[1..], ["/state/db:/certs:ro"]);
    assert_eq!(binds(&mount(true, true))[1..], ["/state/db:/certs:ro,z"]);
    assert_eq!(binds(&mount(false, false))[1..], [""; 0]);
    assert_eq!(mount(false, true).expected["Mounts"][1]["RW"], false);
    assert_eq!(mount(false, false).expected["Mounts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_health_check_that_has_to_be_another_keeps_its_times() {
    let old = inspect(EVERYTHING);
    let (command, test) = (wired(&old), ["CMD", "redis-cli", "--tls", "ping"].map(str::to_owned));
    let wiring = Wiring { healthcheck: Some(&test), ..wiring(&command) };
    let successor = super::successor(&old, &image(), &wiring, "0123", OLD);
    let (before, after) = (&old.config()["Healthcheck"], &successor.body["Healthcheck"]);
    assert_eq!(after["Test"], json!(test));
    assert_eq!((&after["Interval"], &after["Retries"]), (&before["Interval"], &before["Retries"]));
    assert!(before["Interval"].is_number() && before["Test"] != after["Test"]);
    assert_eq!(successor.expected["Config"]["Healthcheck"], *after);
}

#[test]
fn the_first_network_is_given_at_creation_and_the_others_after_it() {
    let old = inspect(EVERYTHING);
    let successor = asked_of(&old, OLD);
    let one = json!({ "val-one": {
        "IPAMConfig": { "IPv4Address": "10.214.1.9", "IPv6Address": "fd00:214:1::9" },
        "Aliases": ["db", "database", "db.example"],
    } });
    assert_eq!(*networks(&successor), one);
    // The default bridge is one of them: the mode does not attach it here.
    let further = [
        ("bridge".to_owned(), json!({})),
        ("val-two".to_owned(), json!({ "Aliases": ["second", "db.example"] })),
    ];
    assert_eq!(successor.further_networks, further);

    let successor = asked_of(&old, NEW);
    assert_eq!(
        networks(&successor).as_object().unwrap().keys().collect::<Vec<_>>(),
        ["bridge", "val-one", "val-two"]
    );
    assert!(successor.further_networks.is_empty());
}

#[test]
fn the_old_short_id_is_no_alias_and_the_host_name_is_kept() {
    for text in ALL {
        let old = inspect(text);
        let successor = asked_of(&old, OLD);
        assert_eq!(successor.body["Hostname"], old.config()["Hostname"], "{}", old.name());
        let given = format!("{} {:?}", successor.body["NetworkingConfig"], successor.further_networks);
        assert!(!given.contains(old.id().short()), "{}: {given}", old.name());
    }
    let given = networks(&asked_of(&inspect(COMPOSE), OLD))["shop_default"]["Aliases"].clone();
    assert_eq!(given, json!(["shop-db-1", "db"]));
}

#[test]
fn links_driver_options_and_priorities_of_a_network_are_kept() {
    let mut raw = inspect(COMPOSE).raw().clone();
    let endpoint = &mut raw["NetworkSettings"]["Networks"]["shop_default"];
    endpoint["Links"] = json!(["other:alias"]);
    endpoint["DriverOpts"] = json!({ "com.example.x": "1" });
    endpoint["GwPriority"] = json!(7);
    let successor = asked_of(&Inspect::new(raw).unwrap(), OLD);
    let given = &networks(&successor)["shop_default"];
    assert_eq!(given["Links"], json!(["other:alias"]));
    assert_eq!(given["DriverOpts"], json!({ "com.example.x": "1" }));
    assert_eq!(given["GwPriority"], 7);
    for field in ["EndpointID", "NetworkID", "IPAddress", "MacAddress", "Gateway"] {
        assert!(given.get(field).is_none(), "{field} is Docker's to choose");
    }
}

#[test]
fn no_network_is_asked_for_where_the_mode_says_it_all() {
    for text in [PLAIN, HOST_NETWORK, NO_NETWORK] {
        let old = inspect(text);
        for dialect in [OLD, NEW] {
            let successor = asked_of(&old, dialect);
            assert!(successor.body.get("NetworkingConfig").is_none(), "{}", old.name());
            assert!(successor.further_networks.is_empty(), "{}", old.name());
            assert_eq!(successor.body["HostConfig"]["NetworkMode"], old.network_mode());
        }
    }
}

#[test]
fn a_network_named_by_its_id_is_asked_for_by_its_name_and_once() {
    let old = inspect(COMPOSE);
    let mut raw = old.raw().clone();
    let endpoint = raw["NetworkSettings"]["Networks"]["shop_default"].clone();
    let id = endpoint["NetworkID"].as_str().unwrap().to_owned();
    for mode in [&id[..], &id[..12], &id[..5]] {
        raw["HostConfig"]["NetworkMode"] = json!(mode);
        raw["NetworkSettings"]["Networks"] = json!({ mode: endpoint, "shop_default": endpoint });
        let successor = asked_of(&Inspect::new(raw.clone()).unwrap(), OLD);
        assert_eq!(networks(&successor).as_object().unwrap().keys().collect::<Vec<_>>(), ["shop_default"]);
        assert_eq!(successor.body["HostConfig"]["NetworkMode"], "shop_default");
        assert!(successor.further_networks.is_empty());
        // Newer engines list it once.
        raw["NetworkSettings"]["Networks"] = json!({ "shop_default": endpoint });
        let successor = asked_of(&Inspect::new(raw.clone()).unwrap(), OLD);
        assert_eq!(successor.body["HostConfig"]["NetworkMode"], "shop_default");
        assert!(successor.further_networks.is_empty());
    }
}

#[test]
fn a_mac_address_is_kept_only_if_it_was_asked_for() {
    for dialect in [OLD, NEW] {
        let text = asked_of(&inspect(COMPOSE), dialect).body.to_string();
        assert!(!text.contains("02:42:"), "{text}");
    }
    let mut raw = inspect(COMPOSE).raw().clone();
    raw["Config"]["MacAddress"] = json!("02:42:aa:bb:cc:01");
    let old = Inspect::new(raw).unwrap();
    let successor = asked_of(&old, OLD);
    assert_eq!(successor.body["MacAddress"], "02:42:aa:bb:cc:01");
    assert!(networks(&successor)["shop_default"].get("MacAddress").is_none());
    let successor = asked_of(&old, NEW);
    assert_eq!(successor.body["MacAddress"], "");
    assert_eq!(networks(&successor)["shop_default"]["MacAddress"], "02:42:aa:bb:cc:01");
    // Also on the default bridge, which is else not named.
    let mut raw = inspect(PLAIN).raw().clone();
    raw["Config"]["MacAddress"] = json!("02:42:aa:bb:cc:01");
    let successor = asked_of(&Inspect::new(raw).unwrap(), NEW);
    assert_eq!(*networks(&successor), json!({ "bridge": { "MacAddress": "02:42:aa:bb:cc:01" } }));
}

#[test]
fn in_the_hosts_uts_namespace_no_host_name_is_asked_for() {
    let old = edited(PLAIN, &[("/HostConfig/UTSMode", json!("host"))]);
    let successor = asked_of(&old, OLD);
    assert_eq!(successor.body["Hostname"], "");
    let mut raw = successor.expected.clone();
    raw["Config"]["Hostname"] = json!("ffffffffffff");
    assert_eq!(differences(&successor.expected, &Inspect::new(raw).unwrap()), []);
}

#[test]
fn the_image_is_named_by_its_id_where_the_name_means_another_one() {
    let old = inspect(PLAIN);
    let moved = Dialect { image_name_holds: false, ..OLD };
    for (dialect, name) in [(OLD, "dbssl-test/postgres:15"), (moved, old.image_id())] {
        assert_eq!(asked_of(&old, dialect).body["Image"], name);
        assert_eq!(asked_of(&old, dialect).expected["Config"]["Image"], name);
        assert_eq!(rebuilt(&old, &image(), "0123", dialect).body["Image"], name);
        // What the config matches by is not lost, however often that happens.
        let mut next = old.clone();
        for _ in 0..2 {
            next = Inspect::new(asked_of(&next, dialect).expected).unwrap();
            assert_eq!(matching::image(&next), "dbssl-test/postgres:15");
        }
        // In any case it must be the same image.
        assert_eq!(asked_of(&old, dialect).expected["Image"], old.image_id());
    }
}

#[test]
fn nothing_but_us_starts_a_successor_and_the_rebuilt_one_is_as_before() {
    let old = inspect(EVERYTHING);
    let never = json!({ "Name": "no", "MaximumRetryCount": 0 });
    assert_eq!(asked_of(&old, OLD).body["HostConfig"]["RestartPolicy"], never);
    let again = rebuilt(&old, &image(), "0123", OLD);
    assert_eq!(again.body["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
    assert_eq!(again.body["Labels"][OPERATION_LABEL], "0123");
    assert_eq!(again.body["Cmd"], old.config()["Cmd"]);
    let mut found: Vec<_> = differences(&again.expected, &old).into_iter().map(|found| found.field).collect();
    found.dedup();
    assert_eq!(found, ["/HostConfig/Binds", "/HostConfig/Mounts", "/Config/Labels/dbssl.operation"]);
}

#[test]
fn a_rehearsal_is_invisible_to_compose() {
    let old = inspect(COMPOSE);
    let successor = asked_of(&old, OLD);
    let service = "com.docker.compose.service";
    assert_eq!(successor.body["Labels"][service], "db", "the successor itself stays Compose's");
    let rehearsal = rehearsal(&successor);
    for labels in [&rehearsal.body["Labels"], &rehearsal.expected["Config"]["Labels"]] {
        let left: Vec<_> = labels.as_object().unwrap().keys().collect();
        assert_eq!(left, ["dbssl-test.recipe", "dbssl.enable", "test-image.recipe", "test.run"], "{labels}");
    }
}

#[test]
fn a_rehearsal_differs_by_a_device_that_keeps_it_from_being_started() {
    let own =
        json!({ "PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm" });
    for devices in [Value::Null, json!([]), json!([own])] {
        let successor = asked_of(&edited(COMPOSE, &[("/HostConfig/Devices", devices.clone())]), OLD);
        let rehearsal = rehearsal(&successor);
        assert_eq!(rehearsal.body["HostConfig"], rehearsal.expected["HostConfig"]);
        let mut host_config = rehearsal.body["HostConfig"].clone();
        let missing = host_config["Devices"].as_array_mut().unwrap().pop().unwrap();
        let [outside, inside] = ["PathOnHost", "PathInContainer"].map(|path| missing[path].as_str().unwrap());
        assert!(!Path::new(outside).exists());
        assert_ne!(outside, inside, "Docker would leave it out of a privileged container");
        if devices.is_null() {
            host_config["Devices"].take();
        }
        assert_eq!(host_config, successor.body["HostConfig"]);
    }
}

#[test]
fn a_container_without_labels_gets_its_first() {
    let old = edited(PLAIN, &[("/Config/Labels", Value::Null)]);
    assert_eq!(asked_of(&old, OLD).body["Labels"], json!({ "dbssl.operation": "0123" }));
}

#[test]
fn fields_that_this_version_does_not_know_are_carried_along_and_compared() {
    let mut raw = inspect(COMPOSE).raw().clone();
    raw["Config"]["FromTheFuture"] = json!({ "a": [1, "two"] });
    raw["HostConfig"]["KernelMemoryTCP"] = json!(7);
    let successor = asked_of(&Inspect::new(raw).unwrap(), OLD);
    assert_eq!(successor.body["FromTheFuture"], json!({ "a": [1, "two"] }));
    assert_eq!(successor.body["HostConfig"]["KernelMemoryTCP"], 7);
    let mut found = made(&successor).raw().clone();
    found["Config"].as_object_mut().unwrap().remove("FromTheFuture");
    let lost = differences(&successor.expected, &Inspect::new(found).unwrap());
    assert_eq!(lost[0].field, "/Config/FromTheFuture/a");
}

#[test]
fn the_file_for_the_id_is_not_written_again() {
    let old = edited(PLAIN, &[("/HostConfig/ContainerIDFile", json!("/home/me/id"))]);
    let successor = asked_of(&old, OLD);
    assert_eq!(successor.body["HostConfig"]["ContainerIDFile"], "");
    assert_eq!(differences(&successor.expected, &made(&successor)), []);
}
