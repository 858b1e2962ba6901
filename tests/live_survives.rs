//! What a container was must be there in its successor: `docker inspect` before and after, field by field.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::collections::{BTreeMap, BTreeSet};

use live::{Client, TestRun, docker, image, try_docker};
use serde_json::Value;

/// Every leaf of a JSON value by its pointer; an empty list or map is a leaf, too.
fn flatten(value: &Value) -> BTreeMap<String, String> {
    fn walk(pointer: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(key, value)| walk(&format!("{pointer}/{key}"), value, leaves));
            }
            Value::Array(items) if !items.is_empty() => {
                let items = items.iter().enumerate();
                items.for_each(|(at, value)| walk(&format!("{pointer}/{at}"), value, leaves));
            }
            leaf => _ = leaves.insert(pointer.to_owned(), leaf.to_string()),
        }
    }
    let mut leaves = BTreeMap::new();
    walk("", value, &mut leaves);
    leaves
}

/// All that differs between two containers, but for what is each container's own by its nature.
fn differences(before: &Value, after: &Value) -> BTreeMap<String, (String, String)> {
    const OWN: [&str; 12] = [
        "/Id",
        "/Created",
        "/State/",
        "/ResolvConfPath",
        "/HostnamePath",
        "/HostsPath",
        "/LogPath",
        "/GraphDriver/",
        "/ExecIDs",
        "/NetworkSettings/SandboxID",
        "/NetworkSettings/SandboxKey",
        "/NetworkSettings/EndpointID",
    ];
    let (before, after) = (flatten(before), flatten(after));
    let fields: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let own = |field: &str| OWN.iter().any(|own| field.starts_with(own)) || field.ends_with("/EndpointID");
    let absent = || "absent".to_owned();
    // Docker says "nothing" of a network's settings in two ways.
    let nothing = |leaf: Option<&String>| leaf.is_some_and(|leaf| leaf == "null" || leaf == "{}");
    let same = |field: &str| {
        let (before, after) = (before.get(field), after.get(field));
        before == after || (field.contains("/Networks/") && nothing(before) && nothing(after))
    };
    fields
        .into_iter()
        .filter(|field| !own(field) && !same(field))
        .map(|field| {
            let of = |side: &BTreeMap<String, String>| side.get(field).cloned().unwrap_or_else(absent);
            (field.clone(), (of(&before), of(&after)))
        })
        .collect()
}

/// What may differ, and to what: the wiring, the mark of the operation, and the spelling of mounts. Everything else is
/// left over.
fn unintended(
    run: &TestRun,
    name: &str,
    before: &Value,
    after: &Value,
) -> BTreeMap<String, (String, String)> {
    let certificates = run.state().join("databases").join(name);
    let wiring = [
        "\"-c\"",
        "\"ssl=on\"",
        "\"ssl_cert_file=/var/lib/postgresql/certs/server.crt\"",
        "\"ssl_key_file=/var/lib/postgresql/certs/server.key\"",
    ];
    let mount = format!("{:?}", format!("{}:/var/lib/postgresql/certs:ro", certificates.display()));
    let id = |inspect: &Value| inspect["Id"].as_str().unwrap()[..12].to_owned();
    let (old, new) = (format!("{:?}", id(before)), format!("{:?}", id(after)));
    let networks = before["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let fixed: Vec<String> = networks
        .filter(|(_, endpoint)| endpoint["IPAMConfig"]["IPv4Address"].is_string())
        .map(|(network, _)| format!("/NetworkSettings/Networks/{network}/"))
        .collect();
    let mut left = differences(before, after);
    left.retain(|field, (before, after)| {
        let added = before == "absent";
        let command = (field.starts_with("/Config/Cmd/") || field.starts_with("/Args/"))
            && added
            && wiring.contains(&after.as_str());
        let bind = field.starts_with("/HostConfig/Binds/") && *after == mount;
        let label = field == "/Config/Labels/dbssl.operation" && added;
        // Docker adds the short id of whatever container it is.
        let alias = field.contains("/Aliases/") && *before == old && *after == new;
        // Addresses that nobody fixed are handed out by Docker.
        let address = (field.ends_with("/IPAddress") || field.ends_with("/MacAddress"))
            && field.starts_with("/NetworkSettings/")
            && !fixed.iter().any(|network| field.starts_with(network));
        // In no particular order: compared on its own, below.
        let mounts = field.starts_with("/Mounts/");
        !(command || bind || label || alias || address || mounts)
    });
    left
}

/// What is mounted where, and whether it can be written to.
fn mounts(inspect: &Value) -> BTreeSet<String> {
    let mounts = inspect["Mounts"].as_array().into_iter().flatten();
    mounts
        .map(|mount| {
            let what = mount["Name"].as_str().unwrap_or_else(|| mount["Source"].as_str().unwrap());
            format!("{} {} {} {}", mount["Type"], what, mount["Destination"], mount["RW"])
        })
        .collect()
}

fn compare(run: &TestRun, name: &str, before: &Value, after: &Value) {
    assert_ne!(before["Id"], after["Id"], "it was recreated");
    assert_eq!(unintended(run, name, before, after), BTreeMap::new());
    let mut expected = mounts(before);
    let certificates = run.state().join("databases").join(name);
    expected.insert(format!("\"bind\" {} \"/var/lib/postgresql/certs\" false", certificates.display()));
    assert_eq!(mounts(after), expected);
}

#[test]
fn all_that_can_be_set_on_a_container_is_there_afterwards() {
    let run = TestRun::begin();
    let host_folder = run.folder().join("folder with spaces");
    std::fs::create_dir(&host_folder).unwrap();
    let environment_file = run.folder().join("environment");
    std::fs::write(&environment_file, "FROM_FILE=\"quoted\" $NOT_EXPANDED # no comment\n").unwrap();
    let further = run.volume(&run.name("further"));
    let mut agent = run.agent().start();
    let port = free_port();
    let db = run
        .database("db")
        .enabled()
        .options([
            "--health-cmd",
            "pg_isready -h 127.0.0.1",
            "--health-interval",
            "1s",
            "--health-retries",
            "30",
        ])
        .options(["--health-timeout", "3s", "--health-start-period", "5s"])
        .options([
            "--memory",
            "300m",
            "--memory-swap",
            "400m",
            "--memory-reservation",
            "200m",
            "--cpus",
            "1.5",
        ])
        .options([
            "--cpu-shares",
            "700",
            "--pids-limit",
            "300",
            "--oom-score-adj",
            "100",
            "--shm-size",
            "96m",
        ])
        .options(["--ulimit", "nofile=512:1024", "--ulimit", "core=0"])
        .options(["--env", "ODD=tab\there, quote ' and \", dollar $HOME, ümlaut, = equals"])
        .options(["--env", "EMPTY=", "--env-file", environment_file.to_str().unwrap()])
        .options(["--label", "odd.label=a=b, \"c\" $d", "--label", "empty="])
        .options([
            "--add-host",
            "friend.example:10.1.2.3",
            "--dns",
            "192.0.2.53",
            "--dns-search",
            "example.org",
        ])
        .options(["--publish", &format!("127.0.0.1:{port}:5432"), "--expose", "9999"])
        .options(["--restart", "on-failure:7", "--stop-timeout", "77", "--stop-signal", "SIGTERM"])
        .options(["--log-driver", "json-file", "--log-opt", "max-size=3m", "--log-opt", "max-file=2"])
        .options(["--hostname", "my-host", "--domainname", "example.org", "--init", "--workdir", "/tmp"])
        .options(["--cap-drop", "NET_RAW", "--cap-add", "SYS_NICE", "--security-opt", "no-new-privileges"])
        .options(["--sysctl", "net.core.somaxconn=256", "--tmpfs", "/scratch:size=10m,mode=1777"])
        .options(["--volume", &format!("{}:/host folder:ro", host_folder.display())])
        .options(["--mount", &format!("type=volume,source={further},target=/further,volume-nocopy")])
        .options(["--ipc", "shareable", "--group-add", "777", "--device", "/dev/null:/dev/mine:rw"])
        .command(["postgres", "-c", "log_line_prefix=%m ssl=off ", "-c", "max_connections=50"])
        .start();
    db.write_row("kept");
    let before = db.inspect();
    agent.wait_log(180, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    let after = db.inspect();
    compare(&run, &db.name, &before, &after);
    assert_eq!(after["HostConfig"]["RestartPolicy"]["Name"], "on-failure", "given back after the proof");
    assert_eq!(db.rows(), ["kept"]);
    // And it is not only said, it is so.
    let published = Client::new(&db.name, "127.0.0.1", "verify-full").port(port).root(run.bundle());
    assert_eq!(published.query("show max_connections").unwrap(), "50");
    assert_eq!(db.exec(&["hostname"]).unwrap(), "my-host");
    assert!(
        db.exec(&["sh", "-c", "printf '%s' \"$ODD\""])
            .unwrap()
            .contains("quote ' and \", dollar $HOME, ümlaut")
    );
    assert!(db.exec(&["cat", "/etc/hosts"]).unwrap().contains("friend.example"));
    // Of the server: what is executed now and then gets other ones (runc issue 4195).
    let limits = db.exec(&["cat", "/proc/1/limits"]).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().collect::<Vec<_>>(), ["512", "1024", "files"]);
}

#[test]
fn data_in_an_anonymous_volume_is_kept_with_its_volume() {
    let run = TestRun::begin();
    let mut agent = run.agent().start();
    let db = run.database("db").enabled().without_volume().options(["--volume", "/further"]).start();
    db.write_row("kept");
    db.exec(&["sh", "-c", "echo kept > /further/file"]).unwrap();
    let before = db.inspect();
    agent.wait_log(180, &[&db.name, "recreated with TLS: proved"]);
    db.wait_enforced();
    let after = db.inspect();
    assert_eq!(db.rows(), ["kept"]);
    assert_eq!(db.exec(&["cat", "/further/file"]).unwrap(), "kept");
    let volumes = |inspect: &Value| -> BTreeSet<String> {
        let mounts = inspect["Mounts"].as_array().unwrap().iter();
        mounts.filter_map(|mount| Some(mount["Name"].as_str()?.to_owned())).collect()
    };
    assert_eq!(volumes(&before).len(), 2);
    assert_eq!(volumes(&after), volumes(&before));
    // No volume was made in passing, nor any lost.
    for volume in volumes(&before) {
        assert!(try_docker(&["volume", "inspect", &volume]).is_ok());
    }
    // The volumes had no names in the configuration, and have to have them now.
    let mut left = unintended(&run, &db.name, &before, &after);
    left.retain(|field, (_, after)| {
        !(field.starts_with("/HostConfig/Binds")
            && volumes(&before).iter().any(|volume| after.contains(volume)))
    });
    // `null` gave way to the list.
    left.remove("/HostConfig/Binds");
    assert_eq!(left, BTreeMap::new());
}

#[test]
fn several_networks_with_aliases_and_a_fixed_address_are_there_afterwards() {
    let run = TestRun::begin();
    let (first, second, third) = (
        run.network("first", &["--subnet", "10.231.1.0/24"]),
        run.network("second", &[]),
        run.network("third", &[]),
    );
    let mut agent = run.agent().start();
    let db = run
        .database("db")
        .options([
            "--network",
            &first,
            "--ip",
            "10.231.1.77",
            "--network-alias",
            "orders",
            "--network-alias",
            "my_db",
        ])
        .enabled()
        .create();
    docker(&["network", "connect", "--alias", "billing", "--alias", "orders-2", &second, &db.name]);
    docker(&["network", "connect", &third, &db.name]);
    docker(&["start", &db.name]);
    db.write_row("kept");
    let before = db.inspect();
    agent.wait_log(180, &[&db.name, "recreated with TLS: proved"]);
    agent.wait_log(60, &[&db.name, "plaintext is refused: proved"]);
    let after = db.inspect();
    let mut left = unintended(&run, &db.name, &before, &after);
    let (old, new) = (before["Id"].as_str().unwrap(), after["Id"].as_str().unwrap());
    let aliases = |inspect: &Value, id: &str| -> BTreeMap<String, BTreeSet<String>> {
        let networks = inspect["NetworkSettings"]["Networks"].as_object().unwrap().iter();
        networks
            .map(|(network, endpoint)| {
                let aliases = endpoint["Aliases"].as_array().into_iter().flatten();
                let names = aliases.map(|alias| alias.as_str().unwrap().to_owned());
                (network.clone(), names.filter(|alias| *alias != id[..12]).collect())
            })
            .collect()
    };
    let (mut had, mut has) = (aliases(&before, old), aliases(&after, new));
    // The hostname is kept, and it is the first container's short id; Docker makes an alias of it.
    for aliases in had.values_mut().chain(has.values_mut()) {
        aliases.remove(&old[..12]);
    }
    assert_eq!(has, had);
    left.retain(|field, _| !field.contains("/Aliases/"));
    assert_eq!(left, BTreeMap::new());
    assert_eq!(after["NetworkSettings"]["Networks"][&first]["IPAddress"], "10.231.1.77");

    // All names are in the certificate, and found from a neighbour on the network in question.
    for name in [db.name.as_str(), "orders", "my_db", "my-db", "billing", "orders-2", "10.231.1.77"] {
        let client = Client::new(name, "10.231.1.77", "verify-full").root(run.bundle());
        assert_eq!(client.is_encrypted().unwrap(), "t", "{name}");
    }
    let names = run.status(&db)["names"].clone();
    assert!(!names.as_array().unwrap().contains(&Value::from(&old[..12])), "{names}");
    for (network, name) in [(&first, "orders"), (&second, "billing"), (&third, db.name.as_str())] {
        let neighbour = docker(&[
            "run",
            "--detach",
            "--label",
            &run.label(),
            "--network",
            network,
            "--volume",
            &format!("{}:/ca.crt:ro", run.bundle().display()),
            "--env",
            "PGPASSWORD=secret",
            "--entrypoint",
            "sleep",
            &image("postgres:15"),
            "infinity",
        ]);
        let connection = format!("host={name} user=postgres sslmode=verify-full sslrootcert=/ca.crt");
        assert_eq!(
            docker(&["exec", &neighbour, "psql", "-qAt", &connection, "-c", "select row from kept"]),
            "kept",
            "{name} on {network}"
        );
    }
    // One certificate did for all of it.
    assert_eq!(agent.lines(&[&db.name, "certificate issued"]).len(), 1);
}

/// A port of this machine that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
