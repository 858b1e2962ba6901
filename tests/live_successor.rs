//! Whether Docker makes of a successor what we expect of it, for odd containers of every kind: each is really
//! started, its successor really created, compared field by field, and started in its place.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use dbssl::{
    decide::{
        compare::differences,
        successor::{Dialect, Successor, Wiring, rehearsal, successor},
    },
    host::docker::Docker,
    model::inspect::{Inspect, State},
};
use serde_json::{Value, json};

/// A database's image: an entrypoint, a command, a volume.
const POSTGRES: &str = "dbssl-test/postgres:15";
/// An image with neither of these.
const PLAIN: &str = "dbssl-test/base:bookworm";
const LABEL: &str = "test.run=val";

/// Words of `docker run --detach --name NAME` for each case. `@one` and `@two` are networks with IPv6,
/// `@one-id` the first one's short id, `@1` and `@2` a part of their addresses, `@volume` a volume, `@folder` a folder of the host, `@peer` a running container.
const CASES: &[(&str, &[&str])] = &[
    ("plain", &[PLAIN, "sleep", "1000"]),
    ("postgres-anonymous-volume", &[POSTGRES]),
    ("postgres-flags", &[POSTGRES, "-c", "shared_buffers=64MB"]),
    ("postgres-server-named", &[POSTGRES, "postgres", "-c", "shared_buffers=64MB"]),
    ("postgres-named-volume", &["-v", "@volume:/var/lib/postgresql/data", POSTGRES]),
    ("volume-with-a-slash-at-its-end", &["-v", "@volume:/data/", "-v", "/more/", PLAIN, "sleep", "1000"]),
    ("volume-read-only", &["-v", "@volume:/data:ro", PLAIN, "sleep", "1000"]),
    ("volume-nocopy", &["-v", "@volume:/data:nocopy", PLAIN, "sleep", "1000"]),
    (
        "volumes-of-every-kind",
        &[
            "-v",
            "/anonymous",
            "-v",
            "@volume:/named",
            "-v",
            "@folder:/bind:ro",
            "--mount",
            "type=volume,target=/mounted",
            "--mount",
            "type=volume,source=@volume,target=/named-mount",
            "--mount",
            "type=bind,source=@folder,target=/bound,readonly",
            "--mount",
            "type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=1770",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    (
        "mount-volume-nocopy-labels",
        &[
            "--mount",
            "type=volume,target=/data/,volume-nocopy=true,volume-label=a=b,volume-driver=local",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    (
        "mount-volume-with-driver-options",
        &[
            "--mount",
            "type=volume,target=/data,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    (
        "bind-propagation",
        &[
            "-v",
            "@folder:/bind:private",
            "--mount",
            "type=bind,source=@folder,target=/other,bind-propagation=private",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("tmpfs", &["--tmpfs", "/scratch:rw,size=1m,noexec", "--tmpfs", "/run", PLAIN, "sleep", "1000"]),
    ("tmpfs-over-an-images-volume", &["--tmpfs", "/var/lib/postgresql/data", POSTGRES]),
    ("volume-driver", &["--volume-driver", "local", "-v", "/data", PLAIN, "sleep", "1000"]),
    (
        "devices",
        &["--device", "/dev/null:/dev/mine:r", "--device-cgroup-rule", "c 42:* rmw", PLAIN, "sleep", "1000"],
    ),
    (
        "limits",
        &[
            "--memory",
            "64m",
            "--memory-swap",
            "128m",
            "--memory-reservation",
            "32m",
            "--cpus",
            "0.5",
            "--cpu-shares",
            "512",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "100",
            "--blkio-weight",
            "300",
            "--oom-score-adj",
            "10",
            "--ulimit",
            "nofile=1024:2048",
            "--ulimit",
            "core=0",
            "--shm-size",
            "128m",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("memory-alone", &["--memory", "64m", PLAIN, "sleep", "1000"]),
    ("kernel-memory", &["--memory", "64m", "--kernel-memory", "50m", PLAIN, "sleep", "1000"]),
    ("cpu-quota-and-real-time", &["--cpu-period", "50000", "--cpu-quota", "25000", PLAIN, "sleep", "1000"]),
    ("pids-without-limit", &["--pids-limit", "-1", PLAIN, "sleep", "1000"]),
    (
        "kernel",
        &[
            "--sysctl",
            "net.core.somaxconn=1024",
            "--cgroup-parent",
            "/dbssl-test",
            "--cgroupns",
            "host",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("cgroupns-private", &["--cgroupns", "private", PLAIN, "sleep", "1000"]),
    (
        "capabilities",
        &["--cap-add", "NET_ADMIN", "--cap-add", "SYS_NICE", "--cap-drop", "ALL", PLAIN, "sleep", "1000"],
    ),
    (
        "security",
        &[
            "--security-opt",
            "no-new-privileges",
            "--security-opt",
            "seccomp=unconfined",
            "--read-only",
            "--init",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("no-init", &["--init=false", PLAIN, "sleep", "1000"]),
    ("system-paths-unconfined", &["--security-opt", "systempaths=unconfined", PLAIN, "sleep", "1000"]),
    (
        "apparmor-unconfined",
        &["--security-opt", "apparmor=unconfined", "--security-opt", "label=disable", PLAIN, "sleep", "1000"],
    ),
    ("runtime", &["--runtime", "runc", "--isolation", "default", PLAIN, "sleep", "1000"]),
    (
        "logs",
        &[
            "--log-driver",
            "json-file",
            "--log-opt",
            "max-size=1m",
            "--log-opt",
            "max-file=3",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("no-logs", &["--log-driver", "none", PLAIN, "sleep", "1000"]),
    (
        "names",
        &[
            "--hostname",
            "db.example",
            "--domainname",
            "example.org",
            "--add-host",
            "other:10.0.0.1",
            "--add-host",
            "gateway:host-gateway",
            "--dns",
            "192.0.2.1",
            "--dns-search",
            "example.org",
            "--dns-option",
            "ndots:2",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("stopping", &["--stop-signal", "SIGINT", "--stop-timeout", "300", PLAIN, "sleep", "1000"]),
    ("stop-never-kills", &["--stop-timeout", "-1", PLAIN, "sleep", "1000"]),
    ("restart-always", &["--restart", "always", PLAIN, "sleep", "1000"]),
    ("restart-on-failure", &["--restart", "on-failure:5", PLAIN, "sleep", "1000"]),
    ("health-none", &["--no-healthcheck", POSTGRES]),
    (
        "health-shell",
        &[
            "--health-cmd",
            "pg_isready -U \"$POSTGRES_USER\" || exit 1",
            "--health-interval",
            "5s",
            "--health-timeout",
            "3s",
            "--health-retries",
            "10",
            "--health-start-period",
            "30s",
            POSTGRES,
        ],
    ),
    ("health-interval-alone", &["--health-interval", "7s", PLAIN, "sleep", "1000"]),
    (
        "user-and-folder",
        &[
            "--user",
            "65534:65534",
            "--workdir",
            "/tmp",
            "--group-add",
            "4",
            "--group-add",
            "audio",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("workdir-that-is-not-there", &["--workdir", "/made/on/the/way", PLAIN, "sleep", "1000"]),
    ("terminal", &["--tty", "--interactive", PLAIN, "cat"]),
    (
        "environment",
        &[
            "--env",
            "LINES=one\ntwo",
            "--env",
            "QUOTES=\"'\\",
            "--env",
            "EMPTY=",
            "--env",
            "UTF=ü€",
            "--env",
            "TWICE=1",
            "--env",
            "TWICE=2",
            "--env",
            "PATH=/bin:/usr/bin",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    (
        "ports",
        &[
            "--publish",
            "127.0.0.1::5432",
            "--publish",
            "5433",
            "--expose",
            "7000-7002",
            "--publish",
            "0:53/udp",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("ports-all", &["--publish-all", POSTGRES]),
    ("network", &["--network", "@one", PLAIN, "sleep", "1000"]),
    (
        "network-aliases-and-addresses",
        &[
            "--network",
            "@one",
            "--network-alias",
            "db",
            "--network-alias",
            "database",
            "--ip",
            "10.213.@1.77",
            "--ip6",
            "fd00:213:@1::77",
            "--link-local-ip",
            "169.254.7.7",
            "--link",
            "@peer:other",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("network-by-its-short-id", &["--network", "@one-id", "--network-alias", "db", PLAIN, "sleep", "1000"]),
    (
        "network-driver-options",
        &["--network", "name=@one,driver-opt=com.example.x=1,alias=y", PLAIN, "sleep", "1000"],
    ),
    ("two-networks", &["--network", "@one", "--network-alias", "db", PLAIN, "sleep", "1000"]),
    (
        "two-networks-first-later-in-the-alphabet",
        &["--network", "@two", "--network-alias", "db", PLAIN, "sleep", "1000"],
    ),
    ("bridge-then-network", &[PLAIN, "sleep", "1000"]),
    ("network-then-bridge", &["--network", "@one", PLAIN, "sleep", "1000"]),
    ("bridge-by-name", &["--network", "bridge", PLAIN, "sleep", "1000"]),
    ("host-network", &["--network", "host", PLAIN, "sleep", "1000"]),
    ("host-network-with-a-name", &["--network", "host", "--hostname", "mine", PLAIN, "sleep", "1000"]),
    ("no-network", &["--network", "none", PLAIN, "sleep", "1000"]),
    ("namespaces-of-the-host", &["--pid", "host", "--ipc", "host", "--uts", "host", PLAIN, "sleep", "1000"]),
    ("userns-of-the-host", &["--userns", "host", PLAIN, "sleep", "1000"]),
    ("ipc-shareable", &["--ipc", "shareable", PLAIN, "sleep", "1000"]),
    ("ipc-none", &["--ipc", "none", PLAIN, "sleep", "1000"]),
    ("entrypoint-cleared", &["--entrypoint", "", POSTGRES, "sleep", "1000"]),
    ("entrypoint-replaced", &["--entrypoint", "sleep", POSTGRES, "1000"]),
    ("entrypoint-alone", &["--entrypoint", "cat", "--interactive", POSTGRES]),
    ("shell-command", &[PLAIN, "sh", "-c", "exec sleep 1000"]),
    (
        "labels",
        &[
            "--label",
            "a.b/c=~x",
            "--label",
            "empty=",
            "--label",
            "com.docker.compose.project=p",
            "--label",
            "com.docker.compose.service=s",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("cidfile", &["--cidfile", "@folder/cidfile", PLAIN, "sleep", "1000"]),
    ("image-by-id", &["@image-id", "sleep", "1000"]),
    ("annotations-as-labels", &["--label", "io.example.annotation=1", PLAIN, "sleep", "1000"]),
];

/// The same, for what not every host can start: only created.
const ONLY_CREATED: &[(&str, &[&str])] = &[
    ("privileged", &["--privileged", PLAIN, "sleep", "1000"]),
    (
        "bind-propagation-shared",
        &[
            "-v",
            "@folder:/bind:rslave",
            "--mount",
            "type=bind,source=@folder,target=/other,bind-propagation=rshared",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    (
        "devices-with-rates",
        &[
            "--device-read-bps",
            "/dev/null:1mb",
            "--device-write-iops",
            "/dev/null:100",
            "--blkio-weight-device",
            "/dev/null:300",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("graphics", &["--gpus", "all", PLAIN, "sleep", "1000"]),
    ("graphics-by-name", &["--gpus", "\"device=0,1\",capabilities=compute", PLAIN, "sleep", "1000"]),
    (
        "memory-rarities",
        &[
            "--memory",
            "64m",
            "--memory-swappiness",
            "10",
            "--oom-kill-disable",
            "--oom-score-adj",
            "-500",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    (
        "real-time",
        &["--cpu-rt-runtime", "0", "--ulimit", "rtprio=99", "--cpuset-mems", "0", PLAIN, "sleep", "1000"],
    ),
    (
        "storage-options-and-logs-elsewhere",
        &[
            "--log-driver",
            "syslog",
            "--log-opt",
            "syslog-address=udp://192.0.2.1:514",
            "--log-opt",
            "tag={{.Name}}",
            PLAIN,
            "sleep",
            "1000",
        ],
    ),
    ("network-on-the-host-with-ports", &["--network", "host", "--publish", "5432:5432", POSTGRES]),
];

/// What is connected to a container after it was started: case, network, words of `docker network connect`.
const CONNECTIONS: &[(&str, &str, &[&str])] = &[
    ("two-networks", "@two", &["--alias", "second", "--ip", "10.213.@2.78"]),
    (
        "two-networks-first-later-in-the-alphabet",
        "@one",
        &["--ip6", "fd00:213:@1::78", "--driver-opt", "com.example.y=2"],
    ),
    ("bridge-then-network", "@one", &["--alias", "db"]),
    ("network-then-bridge", "bridge", &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn docker_makes_of_every_successor_what_is_expected() {
    let bench = Bench::new();
    let docker = Docker::connect(Path::new("/var/run/docker.sock")).await.unwrap();
    let mut failures = Vec::new();
    let cases =
        CASES.iter().map(|case| (case, "run")).chain(ONLY_CREATED.iter().map(|case| (case, "create")));
    for ((case, words), verb) in cases {
        if let Err(failure) = succeed(&bench, &docker, case, verb, words).await {
            failures.push(format!("{case}: {failure}"));
        }
        bench.remove_containers_of(case);
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), CASES.len(), failures.join("\n"));
}

/// `docker run --mac-address` of a new client asks for API 1.44, so this goes by way of the API: on the default
/// bridge and on a network of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_mac_address_that_was_asked_for_is_kept_and_another_is_not_made_fixed() {
    let bench = Bench::new();
    let docker = Docker::connect(Path::new("/var/run/docker.sock")).await.unwrap();
    for (case, network) in [("mac-on-the-bridge", "bridge"), ("mac-on-a-network", "@one")] {
        let (name, network) = (bench.name(case), bench.meant(network));
        let address = "02:42:aa:bb:cc:01";
        let mut body = json!({
            "Image": PLAIN,
            "Cmd": ["sleep", "1000"],
            "Labels": { "test.run": "val" },
            "HostConfig": { "NetworkMode": network },
        });
        if docker.creates_with_networks() {
            body["NetworkingConfig"] = json!({ "EndpointsConfig": { &network: { "MacAddress": address } } });
        } else {
            body["MacAddress"] = json!(address);
        }
        let id = docker.create(&name, &body).await.unwrap();
        docker.start(&id).await.unwrap();
        let done = replace(&bench, &docker, &name, true).await;
        let seen = inspect(&docker, &format!("{name}.successor"))
            .await
            .map(|new| new.raw()["NetworkSettings"]["Networks"][&network]["MacAddress"].clone());
        bench.remove_containers_of(case);
        done.unwrap_or_else(|failure| panic!("{case}: {failure}"));
        assert_eq!(seen.unwrap(), address, "{case}");
    }
}

async fn succeed(
    bench: &Bench,
    docker: &Docker,
    case: &str,
    verb: &str,
    words: &[&str],
) -> Result<(), String> {
    let name = bench.name(case);
    bench.make(verb, &name, words)?;
    for (_, network, words) in CONNECTIONS.iter().filter(|(connected, ..)| *connected == case) {
        let words: Vec<_> = words.iter().map(|word| bench.meant(word)).collect();
        docker_cli(&[&["network", "connect"], &strs(&words)[..], &[&bench.meant(network), &name]].concat())?;
    }
    replace(bench, docker, &name, verb == "run").await
}

/// Puts its successor in the container's place, and starts it if its predecessor ran.
async fn replace(bench: &Bench, docker: &Docker, name: &str, start: bool) -> Result<(), String> {
    let old = inspect(docker, name).await?;
    let image = docker.image(old.image_id()).await.map_err(|error| error.to_string())?.ok_or("no image")?;
    let named = docker.image(old.image_name()).await.map_err(|error| error.to_string())?;
    let dialect = Dialect {
        settings_by_network: docker.creates_with_networks(),
        image_name_holds: named.is_some_and(|named| named.id == old.image_id()),
    };
    let command = old.command();
    let wiring = Wiring {
        source: &bench.folder,
        target: "/certificates",
        command: &command,
        healthcheck: None,
        mount: true,
        selinux: false,
    };
    let successor = successor(&old, &image, &wiring, "0123456789abcdef", dialect);

    let tried = create(docker, &format!("{name}.rehearsal"), &rehearsal(&successor)).await?;
    if tried.labels().keys().any(|label| label.starts_with("com.docker.compose.")) {
        return Err("the rehearsal carries labels of Compose".to_owned());
    }
    cannot_be_started(docker, &tried).await?;
    docker.remove(tried.id()).await.map_err(|error| error.to_string())?;
    let new = create(docker, &format!("{name}.successor"), &successor).await?;
    same_mounts(&old, &new)?;
    if !start {
        return Ok(());
    }

    docker_cli(&["stop", "--time", "0", name])?;
    docker.start(new.id()).await.map_err(|error| error.to_string())?;
    let started = inspect(docker, new.id().as_str()).await?;
    if !started.running() {
        return Err("the successor does not run".to_owned());
    }
    report(&differences(&successor.expected, &started), "started")?;
    same_networks(&old, &started)
}

/// Beside the container whose data it has mounted.
async fn cannot_be_started(docker: &Docker, rehearsal: &Inspect) -> Result<(), String> {
    match docker.start(rehearsal.id()).await.map_err(|error| error.to_string()) {
        Err(why) if why.contains("/dev/dbssl-rehearsal") => {}
        // A fixed address comes first, which the other one has.
        Err(why) if why.contains("Address already in use") => {}
        started => return Err(format!("the rehearsal was to be refused for its device: {started:?}")),
    }
    // By that it is known as one that was left.
    let state = inspect(docker, rehearsal.id().as_str()).await?.state();
    if state == State::Created { Ok(()) } else { Err(format!("the rehearsal is {state:?}")) }
}

/// Creates it as a redeploy does; an error if it is not what is expected.
async fn create(docker: &Docker, name: &str, successor: &Successor) -> Result<Inspect, String> {
    let id = docker.create(name, &successor.body).await.map_err(|error| error.to_string())?;
    for (network, endpoint) in &successor.further_networks {
        docker.connect_network(network, &id, endpoint).await.map_err(|error| error.to_string())?;
    }
    let found = inspect(docker, id.as_str()).await?;
    report(&differences(&successor.expected, &found), "created")?;
    Ok(found)
}

fn report(differences: &[dbssl::decide::compare::Difference], when: &str) -> Result<(), String> {
    if differences.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = differences.iter().map(ToString::to_string).collect();
    Err(format!("{when}: {}", lines.join("; ")))
}

/// What [`differences`] must have seen, found out in another way: every volume is there again, and one more mount.
fn same_mounts(old: &Inspect, new: &Inspect) -> Result<(), String> {
    let of = |inspect: &Inspect| {
        let mounts = inspect.mounts().into_iter();
        mounts.map(|mount| (mount.destination, mount.source, mount.writable)).collect::<BTreeSet<_>>()
    };
    let (old, new) = (of(old), of(new));
    if old.is_subset(&new) && new.len() == old.len() + 1 {
        Ok(())
    } else {
        Err(format!("mounts were {old:?} and are {new:?}"))
    }
}

/// What the running container has of each network: the names and the addresses that were asked for.
fn same_networks(old: &Inspect, new: &Inspect) -> Result<(), String> {
    let of = |inspect: &Inspect| {
        let attached = inspect.attachments();
        let networks: BTreeSet<_> = attached
            .into_iter()
            .map(|attachment| {
                let endpoint = attachment.endpoint;
                let mut aliases: Vec<_> =
                    endpoint["Aliases"].as_array().into_iter().flatten().cloned().collect();
                // Both are Docker's own additions.
                aliases
                    .retain(|alias| alias != inspect.id().short() && *alias != inspect.config()["Hostname"]);
                aliases.sort_by_key(Value::to_string);
                let mac = (inspect.config()["MacAddress"] == endpoint["MacAddress"])
                    .then_some(&endpoint["MacAddress"]);
                let set = |field: &str| {
                    if endpoint[field] == json!({}) { Value::Null } else { endpoint[field].clone() }
                };
                json!({
                    "network": endpoint["NetworkID"],
                    "aliases": aliases,
                    "ipam": set("IPAMConfig"),
                    "links": set("Links"),
                    "options": set("DriverOpts"),
                    "mac": mac,
                })
                .to_string()
            })
            .collect::<BTreeSet<_>>();
        json!({ "networks": networks, "mac": inspect.config()["MacAddress"] })
    };
    let (old, new) = (of(old), of(new));
    if old == new { Ok(()) } else { Err(format!("networks were {old} and are {new}")) }
}

async fn inspect(docker: &Docker, container: &str) -> Result<Inspect, String> {
    docker
        .inspect(container)
        .await
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("{container} is gone"))
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn docker_cli(words: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(words).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("docker {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// The networks, the volume, the folder and the containers of one run of the test; all go when it is dropped.
struct Bench {
    run: String,
    /// Two subnets of its own.
    number: u8,
    folder: PathBuf,
    image_id: String,
    network_id: String,
}

impl Bench {
    fn new() -> Self {
        static BENCHES: AtomicU8 = AtomicU8::new(1);
        let number = BENCHES.fetch_add(1, Ordering::Relaxed);
        let run = format!("dbssl-test-successor-{}-{number}", std::process::id());
        // Where the engine sees it, too.
        let folder = PathBuf::from(format!("/var/lib/{run}"));
        fs::create_dir_all(&folder).unwrap();
        let mut bench = Self { run, number, folder, image_id: String::new(), network_id: String::new() };
        for (network, subnet) in [("@one", number * 2), ("@two", number * 2 + 1)] {
            let (four, six) = (format!("10.213.{subnet}.0/24"), format!("fd00:213:{subnet}::/64"));
            let name = bench.meant(network);
            docker_cli(&[
                "network", "create", "--label", LABEL, "--subnet", &four, "--ipv6", "--subnet", &six, &name,
            ])
            .unwrap();
        }
        docker_cli(&["volume", "create", "--label", LABEL, &bench.meant("@volume")]).unwrap();
        let id = docker_cli(&["network", "inspect", "--format", "{{.Id}}", &bench.meant("@one")]).unwrap();
        bench.network_id = id.chars().take(12).collect();
        bench.image_id = docker_cli(&["image", "inspect", "--format", "{{.Id}}", PLAIN]).unwrap();
        bench.make("run", &bench.name("peer"), &["--network", "@one", PLAIN, "sleep", "1000"]).unwrap();
        bench
    }

    fn name(&self, case: &str) -> String {
        format!("{}-{case}", self.run)
    }

    /// A word of a case with its placeholders filled in.
    fn meant(&self, word: &str) -> String {
        word.replace("@one-id", &self.network_id)
            .replace("@image-id", &self.image_id)
            .replace("@1", &(self.number * 2).to_string())
            .replace("@2", &(self.number * 2 + 1).to_string())
            .replace("@one", &self.name("one"))
            .replace("@two", &self.name("two"))
            .replace("@volume", &self.name("volume"))
            .replace("@peer", &self.name("peer"))
            .replace("@folder", self.folder.to_str().unwrap())
    }

    /// `verb`: `run` or `create`.
    fn make(&self, verb: &str, name: &str, words: &[&str]) -> Result<(), String> {
        let words: Vec<_> = words.iter().map(|word| self.meant(word)).collect();
        let detached: &[&str] = if verb == "run" { &["--detach"] } else { &[] };
        docker_cli(&[&[verb], detached, &["--name", name, "--label", LABEL], &strs(&words)].concat())
            .map(drop)
    }

    fn remove_containers_of(&self, case: &str) {
        // The first one last, with its anonymous volumes: they are the test's own, and have a name in the others.
        for suffix in [".rehearsal", ".successor", ""] {
            let _ = docker_cli(&["rm", "--force", "--volumes", &format!("{}{suffix}", self.name(case))]);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.remove_containers_of("peer");
        for network in ["@one", "@two"] {
            let _ = docker_cli(&["network", "rm", &self.meant(network)]);
        }
        let _ = docker_cli(&["volume", "rm", &self.meant("@volume")]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
