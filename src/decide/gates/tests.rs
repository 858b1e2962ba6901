//! On what Docker Engine 20.10 says of real containers and of the changes in their own layers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const DATA: &str = "/var/lib/postgresql/data";
const TARGET: &str = "/var/lib/postgresql/certs";

macro_rules! container {
    ($name:literal) => {
        inspect(include_str!(concat!("../../../tests/data/inspect/", $name, ".json")))
    };
}

fn inspect(text: &str) -> Inspect {
    Inspect::new(serde_json::from_str(text).unwrap()).unwrap()
}

fn edited(inspect: &Inspect, pointer: &str, value: Value) -> Inspect {
    let mut raw = inspect.raw().clone();
    *raw.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    Inspect::new(raw).unwrap()
}

fn changes(text: &str) -> Vec<Change> {
    let rows: Vec<Value> = serde_json::from_str(text).unwrap();
    let kinds = [ChangeKind::Modified, ChangeKind::Added, ChangeKind::Deleted];
    rows.iter()
        .map(|row| Change {
            path: row["Path"].as_str().unwrap().to_owned(),
            kind: kinds[usize::try_from(row["Kind"].as_u64().unwrap()).unwrap()],
        })
        .collect()
}

fn made(rows: &[(&str, ChangeKind)]) -> Vec<Change> {
    rows.iter().map(|(path, kind)| Change { path: (*path).to_owned(), kind: *kind }).collect()
}

fn subject(inspect: &Inspect) -> Subject<'_> {
    static IMAGE: std::sync::LazyLock<Image> = std::sync::LazyLock::new(|| {
        Image::new(&serde_json::from_str(include_str!("../../../tests/data/image-postgres.json")).unwrap())
    });
    Subject {
        inspect,
        image: Some(&IMAGE),
        changes: &[],
        dependents: &[],
        rootless: false,
        moved: &[],
        certificate_target: Some(TARGET),
        data_directory: DATA,
        volatile: &["/root/.psql_history"],
    }
}

#[test]
fn a_certificate_directory_below_a_read_only_mount_could_not_be_mounted() {
    let plain = container!("plain");
    let mount = |writable: bool| json!({ "Type": "bind", "Source": "/srv/postgresql", "Destination": "/var/lib/postgresql", "RW": writable });
    for (writable, refused) in [(true, false), (false, true)] {
        let mut mounts = plain.raw()["Mounts"].clone();
        mounts.as_array_mut().unwrap().push(mount(writable));
        let inspect = edited(&plain, "/Mounts", mounts);
        let by = "a read-only mount at /var/lib/postgresql".to_owned();
        let expected = [Refusal::TargetTaken { target: TARGET.to_owned(), by }];
        assert_eq!(refusals(subject(&inspect)), if refused { &expected[..] } else { &[] });
    }
}

/// The name of each refusal, so that a new one cannot be forgotten.
fn word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::AutoRemove => "auto-remove",
        Refusal::ImageGone { .. } => "image-gone",
        Refusal::Orchestrated { .. } => "orchestrated",
        Refusal::DataNotMounted { .. } => "data-not-mounted",
        Refusal::OwnLayer { .. } => "own-layer",
        Refusal::BorrowsFrom { .. } => "borrows-from",
        Refusal::Dependents { .. } => "dependents",
        Refusal::TargetTaken { .. } => "target-taken",
        Refusal::SourceMoved { .. } => "source-moved",
        Refusal::NoNetwork => "no-network",
        Refusal::Rootless => "rootless",
        Refusal::Command { .. } => "command",
    }
}

#[test]
fn ordinary_containers_pass() {
    for inspect in
        [container!("plain"), container!("everything"), container!("shop-db-1"), container!("host-network")]
    {
        assert_eq!(refusals(subject(&inspect)), [], "{}", inspect.name());
    }
    let compose = container!("shop-db-1");
    let changes = changes(include_str!("../../../tests/data/changes-compose.json"));
    assert_eq!(refusals(Subject { changes: &changes, ..subject(&compose) }), []);
}

#[test]
fn each_refusal_says_what_was_found_and_what_to_do() {
    let plain = container!("plain");
    let swarm = edited(&plain, "/Config/Labels", json!({ "com.docker.swarm.task.id": "x" }));
    let changed = changes(include_str!("../../../tests/data/changes-plain.json"));
    let names = ["app", "worker"].map(str::to_owned);
    let moved = container!("certificates-taken").mounts();
    let mut seen: BTreeSet<_> = [word(&Refusal::Command { why: String::new() })].into();
    for (subject, said) in [
        (subject(&container!("removed-at-its-end")), &["it was started with --rm"][..]),
        (Subject { image: None, ..subject(&plain) }, &["its image sha256:", "pull that image"]),
        (subject(&swarm), &["it belongs to Docker Swarm (label com.docker.swarm.task.id)"]),
        (
            subject(&container!("on-tmpfs")),
            &["its data directory /var/lib/postgresql/data is not on a volume"],
        ),
        (Subject { data_directory: "/srv/pg", ..subject(&plain) }, &["its data directory /srv/pg is not"]),
        (
            Subject { changes: &changed, ..subject(&plain) },
            &["its own layer holds changes", ": /etc/issue, /etc/motd, /opt/ext, /opt/ext/a;"],
        ),
        (subject(&container!("linked")), &["(Links /plain:/linked/db)", "is not on a volume"]),
        (
            Subject { dependents: &names, ..subject(&plain) },
            &["other containers live in its network", "app, worker"],
        ),
        (
            subject(&container!("certificates-taken")),
            &["/var/lib/postgresql/certs in the container is already taken by bind /srv/example/conf"],
        ),
        (subject(&container!("no-network")), &["it has no network"]),
        (Subject { rootless: true, ..subject(&plain) }, &["rootless Docker"]),
        (
            Subject { moved: &moved, ..subject(&plain) },
            &["/srv/example/conf on this host is gone", "put it back"],
        ),
    ] {
        let found = refusals(subject);
        let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        for said in said {
            assert!(text.contains(said), "{said}: {text}");
        }
        seen.extend(found.iter().map(word));
    }
    assert_eq!(seen.len(), 12, "{seen:?}");
}

#[test]
fn everything_that_stands_against_it_is_said_at_once() {
    let plain = edited(&container!("removed-at-its-end"), "/HostConfig/NetworkMode", json!("none"));
    let changed = made(&[("/etc/x", ChangeKind::Added)]);
    let found = refusals(Subject {
        image: None,
        rootless: true,
        data_directory: "/elsewhere",
        changes: &changed,
        dependents: &["app".to_owned()],
        ..subject(&plain)
    });
    let words: Vec<_> = found.iter().map(word).collect();
    assert_eq!(
        words,
        [
            "rootless",
            "auto-remove",
            "image-gone",
            "no-network",
            "dependents",
            "data-not-mounted",
            "own-layer"
        ]
    );
}

#[test]
fn what_lives_in_another_container_is_refused_by_its_field() {
    let borrower = container!("borrower");
    let fields: Vec<_> = refusals(subject(&borrower))
        .into_iter()
        .filter_map(|refusal| match refusal {
            Refusal::BorrowsFrom { field, .. } => Some(field),
            _ => None,
        })
        .collect();
    assert_eq!(fields, ["NetworkMode", "PidMode", "VolumesFrom"]);
    for mode in ["IpcMode", "UTSMode"] {
        let inspect = edited(&container!("plain"), &format!("/HostConfig/{mode}"), json!("container:abc"));
        assert_eq!(refusals(subject(&inspect)).len(), 1, "{mode}");
        let inspect = edited(&container!("plain"), &format!("/HostConfig/{mode}"), json!("host"));
        assert_eq!(refusals(subject(&inspect)), [], "{mode}");
    }
}

#[test]
fn every_orchestrator_is_known_by_its_labels() {
    for (label, by) in [
        ("com.docker.swarm.service.name", "Docker Swarm"),
        ("io.kubernetes.pod.name", "Kubernetes"),
        ("com.amazonaws.ecs.task-arn", "Amazon ECS"),
        ("com.hashicorp.nomad.alloc_id", "Nomad"),
        ("io.podman.compose.project", "Podman"),
        ("io.balena.app-id", "balena"),
    ] {
        let inspect = edited(&container!("plain"), "/Config/Labels", json!({ label: "x" }));
        assert_eq!(refusals(subject(&inspect)), [Refusal::Orchestrated { by, label: label.to_owned() }]);
    }
    for label in ["com.docker.compose.project", "com.docker.swarmish", "coolify.type"] {
        let inspect = edited(&container!("plain"), "/Config/Labels", json!({ label: "x" }));
        assert_eq!(refusals(subject(&inspect)), [], "{label}");
    }
}

#[test]
fn data_is_on_a_mount_only_if_the_innermost_one_lasts() {
    let plain = container!("plain");
    let not_mounted = |inspect: &Inspect, data_directory| {
        let found = refusals(Subject { data_directory, ..subject(inspect) });
        found.iter().any(|refusal| matches!(refusal, Refusal::DataNotMounted { .. }))
    };
    for inside in [
        DATA,
        "/var/lib/postgresql/data/",
        "/var/lib/postgresql/data/pgdata",
        "/var/lib/postgresql/data/18/main",
    ] {
        assert!(!not_mounted(&plain, inside), "{inside}");
    }
    for outside in ["/var/lib/postgresql", "/var/lib/postgresql/database", "/", "relative"] {
        assert!(not_mounted(&plain, outside), "{outside}");
    }
    // A tmpfs inside of a volume: what is in it ends with the process.
    let inner = edited(&plain, "/Mounts/0/Destination", json!("/var/lib/postgresql"));
    assert!(!not_mounted(&inner, DATA));
    let mut raw = inner.raw().clone();
    raw["HostConfig"]["Tmpfs"] = json!({ "/var/lib/postgresql/data/": "size=1g" });
    assert!(not_mounted(&Inspect::new(raw).unwrap(), DATA));
    let mut raw = inner.raw().clone();
    raw["Mounts"].as_array_mut().unwrap().push(json!({ "Type": "tmpfs", "Destination": DATA, "RW": true }));
    assert!(not_mounted(&Inspect::new(raw).unwrap(), DATA));
    // And a volume inside of a tmpfs lasts.
    let mut raw = plain.raw().clone();
    raw["HostConfig"]["Tmpfs"] = json!({ "/var/lib/postgresql": "" });
    assert!(!not_mounted(&Inspect::new(raw).unwrap(), DATA));
}

#[test]
fn losses_are_what_a_new_container_would_not_have() {
    use ChangeKind::{Added, Deleted, Modified};
    let plain = container!("plain");
    for (rows, lost) in [
        // Folders that only changed because of what is in them.
        (&[("/etc", Modified), ("/etc/motd", Modified)][..], &["/etc/motd"][..]),
        (&[("/root", Modified), ("/root/.psql_history", Added)], &[]),
        (&[("/root", Modified), ("/root/.psql_history", Added), ("/root/x", Added)], &["/root/x"]),
        // A folder that changed itself (its owner, say), and nothing in it.
        (&[("/etc", Modified)], &["/etc"]),
        // A name that begins like the folder's is not in it, wherever it is sorted.
        (&[("/opt", Modified), ("/opt-old", Added)], &["/opt", "/opt-old"]),
        (&[("/opt", Modified), ("/opt-old", Added), ("/opt/x", Added)], &["/opt-old", "/opt/x"]),
        (&[("/etc", Modified), ("/etc/issue", Deleted)], &["/etc/issue"]),
        // Folders that were made are lost, too.
        (&[("/opt", Modified), ("/opt/ext", Added), ("/opt/ext/a", Added)], &["/opt/ext", "/opt/ext/a"]),
        // Mount points, what leads to them and what is in them.
        (&[("/var", Modified), ("/var/lib", Modified), ("/var/lib/postgresql", Added), (DATA, Added)], &[]),
        (&[("/var/lib/postgresql/data/x", Added)], &[]),
        (&[("/var/lib/postgresql/x", Added)], &["/var/lib/postgresql/x"]),
        (&[("/var/lib/postgresql/database", Added)], &["/var/lib/postgresql/database"]),
        // What comes and goes, also where /var/run is a folder of its own.
        (&[("/run", Modified), ("/run/postgresql/.s.PGSQL.5432", Added), ("/var/run/x", Added)], &[]),
        (&[("/tmp/x", Added), ("/var/tmp/x", Added), ("/var/log/x", Added), ("/var/cache/x", Modified)], &[]),
        (&[("/tmpfile", Added), ("/running", Added)], &["/running", "/tmpfile"]),
        (
            &[
                ("/etc/hosts", Modified),
                ("/etc/resolv.conf", Modified),
                ("/etc/mtab", Added),
                ("/.dockerenv", Added),
            ],
            &[],
        ),
        (&[("/etc/hosts.allow", Modified)], &["/etc/hosts.allow"]),
    ] {
        assert_eq!(losses(&made(rows), &plain, &["/root/.psql_history"]), *lost, "{rows:?}");
        // In any order.
        let mut backwards = made(rows);
        backwards.reverse();
        assert_eq!(losses(&backwards, &plain, &["/root/.psql_history"]), *lost, "{rows:?}");
    }
}

#[test]
fn the_mount_point_of_a_tmpfs_is_no_loss() {
    let with = edited(&container!("plain"), "/HostConfig", json!({ "Tmpfs": { "/scratch": "size=10m" } }));
    let rows = made(&[("/scratch", ChangeKind::Added), ("/scratched", ChangeKind::Added)]);
    assert_eq!(losses(&rows, &with, &[]), ["/scratched"]);
}

#[test]
fn the_helper_of_init_is_no_loss_on_a_merged_usr_either() {
    use crate::engine::{Spec, spec};
    let postgres: &dyn Spec = spec(crate::model::Engine::Postgres);
    for path in ["/sbin/docker-init", "/usr/sbin/docker-init"] {
        let parent = path.rsplit_once('/').unwrap().0;
        let rows = made(&[(parent, ChangeKind::Modified), (path, ChangeKind::Added)]);
        assert_eq!(losses(&rows, &container!("plain"), postgres.volatile_paths()), [""; 0], "{path}");
    }
}

#[test]
fn the_certificate_target_is_taken_by_a_mount_exactly_there() {
    let taken = container!("certificates-taken");
    assert_eq!(refusals(subject(&taken)).iter().map(word).collect::<Vec<_>>(), ["target-taken"]);
    assert_eq!(refusals(Subject { certificate_target: None, ..subject(&taken) }), []);
    // A volume is named, not its path.
    let plain = container!("plain");
    let found = refusals(Subject { certificate_target: Some(DATA), ..subject(&plain) });
    assert_eq!(
        found,
        [Refusal::TargetTaken { target: DATA.into(), by: format!("volume {}", plain.mounts()[0].name) }]
    );
    // A tmpfs that was asked for by --tmpfs is not among the mounts.
    let mut raw = plain.raw().clone();
    raw["HostConfig"]["Tmpfs"] = json!({ "/var/lib/postgresql/certs/": "" });
    assert_eq!(
        refusals(subject(&Inspect::new(raw).unwrap())).iter().map(word).collect::<Vec<_>>(),
        ["target-taken"]
    );
}

#[test]
fn who_lives_off_a_container_is_found_by_name_and_by_id() {
    let plain = container!("plain");
    assert!(depends_on(&container!("borrower"), &plain));
    assert!(depends_on(&container!("linked"), &plain));
    for other in
        [container!("everything"), container!("shop-db-1"), container!("host-network"), plain.clone()]
    {
        assert!(!depends_on(&other, &plain), "{}", other.name());
    }
    assert!(!depends_on(&container!("borrower"), &container!("everything")));
    let other = container!("everything");
    let (id, short) = (plain.id().as_str().to_owned(), plain.id().short().to_owned());
    for word in [id.as_str(), short.as_str(), "plain"] {
        for (pointer, value) in [
            ("/HostConfig/NetworkMode", json!(format!("container:{word}"))),
            ("/HostConfig/PidMode", json!(format!("container:{word}"))),
            ("/HostConfig/IpcMode", json!(format!("container:{word}"))),
            ("/HostConfig/VolumesFrom", json!([format!("{word}:ro")])),
            ("/HostConfig/VolumesFrom", json!(["x", word])),
            ("/HostConfig/Links", json!([format!("/{word}:/everything/db")])),
        ] {
            let other = edited(&other, pointer, value.clone());
            assert!(depends_on(&other, &plain), "{pointer} {value}");
            assert_eq!(lives_in(&other, &plain), pointer.ends_with("Mode"), "{pointer} {value}");
        }
    }
    for (pointer, value) in [
        ("/HostConfig/NetworkMode", json!("plain")),
        ("/HostConfig/NetworkMode", json!("container:plain-2")),
        ("/HostConfig/VolumesFrom", json!(["plainer"])),
        ("/HostConfig/Links", json!(["/other:/everything/plain"])),
    ] {
        assert!(!depends_on(&edited(&other, pointer, value.clone()), &plain), "{pointer} {value}");
    }
}

#[test]
fn long_lists_are_cut() {
    let paths: Vec<_> = (0..9).map(|number| format!("/etc/{number}")).collect();
    let text = Refusal::OwnLayer { paths }.to_string();
    assert!(text.contains("/etc/0, /etc/1, /etc/2, /etc/3, /etc/4 and 4 more"), "{text}");
}
