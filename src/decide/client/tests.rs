use serde_json::{Value, json};
use time::Duration;

use super::*;
use crate::{
    decide::labels,
    model::inspect::ChangeKind,
    pki::{Ca, KeyType, test_now},
};

const BUNDLE: &str = "/data/coolify/ssl/coolify-ca.crt";

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(label, value)| (label.to_owned(), value.to_owned())).collect()
}

fn asked_by(pairs: &[(&str, &str)]) -> Option<Client> {
    let labels = labels(pairs);
    asked(&labels::read(&labels), &labels)
}

#[test]
fn only_a_container_that_says_so_is_a_client() {
    for pairs in [
        &[][..],
        &[("dbssl.enable", "true")],
        &[(CLIENT, "false")],
        &[(CLIENT, "false"), (CLIENT_RESTART, "true")],
        // Something is wrong with its labels, whatever it is.
        &[(CLIENT, "True")],
        &[(CLIENT, "true"), (CLIENT_PATH, "ca.crt")],
        &[(CLIENT, "true"), (CLIENT_RESTART, "yes")],
        &[(CLIENT, "true"), ("dbssl.clinet", "true")],
        &[(CLIENT, "true"), ("dbssl.mode", "require")],
        &[(CLIENT_RESTART, "true")],
    ] {
        assert_eq!(asked_by(pairs), None, "{pairs:?}");
    }
    let plain = Client { path: PATH.to_owned(), restart: false };
    assert_eq!(asked_by(&[(CLIENT, "true")]), Some(plain.clone()));
    assert_eq!(asked_by(&[(CLIENT, "true"), ("dbssl.enable", "true")]), Some(plain.clone()));
    assert_eq!(asked_by(&[(CLIENT, "true"), ("dbssl.enable", "false")]), Some(plain));
    assert_eq!(
        asked_by(&[(CLIENT, "true"), (CLIENT_PATH, "/ca.pem"), (CLIENT_RESTART, "true")]),
        Some(Client { path: "/ca.pem".to_owned(), restart: true })
    );
}

fn inspect(mounts: &[(&str, &str)], host_config: &Value) -> Inspect {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|(source, destination)| json!({ "Type": "bind", "Source": source, "Destination": destination }))
        .collect();
    Inspect::new(json!({ "Id": "a".repeat(64), "Name": "/app", "Mounts": mounts, "HostConfig": host_config }))
        .unwrap()
}

fn way_of(path: &str, mounts: &[(&str, &str)], host_config: &Value) -> Way {
    way(&inspect(mounts, host_config), path, |source| source == BUNDLE)
}

#[test]
fn nothing_is_written_but_to_the_container_s_own_file_system() {
    let within = |mount: &str| Way::Refused(Obstacle::Within { mount: mount.to_owned() });
    let taken = |by: &str| Way::Refused(Obstacle::Taken { by: by.to_owned() });
    let none = json!({});
    for (path, mounts, host_config, expected) in [
        (PATH, &[][..], json!({}), Way::Deliver),
        (
            PATH,
            &[("/srv", "/etc/ssl/certs-of-others"), ("/srv", "/etc/ssl/certs/x")],
            json!({}),
            Way::Deliver,
        ),
        (PATH, &[], json!({ "ReadonlyRootfs": true }), Way::Refused(Obstacle::ReadOnly)),
        (PATH, &[(BUNDLE, PATH)], json!({ "ReadonlyRootfs": true }), Way::Mounted),
        (PATH, &[(BUNDLE, PATH)], none.clone(), Way::Mounted),
        // The whole folder.
        ("/ssl/coolify-ca.crt", &[("/data/coolify/ssl", "/ssl/")], none.clone(), Way::Mounted),
        ("/ssl/other.crt", &[("/data/coolify/ssl", "/ssl")], none.clone(), within("/ssl")),
        (PATH, &[("/srv/other.crt", PATH)], none.clone(), taken("/srv/other.crt")),
        (PATH, &[("/srv/ssl", "/etc/ssl")], none.clone(), within("/etc/ssl")),
        // The innermost one counts.
        (PATH, &[(BUNDLE, PATH), ("/srv/ssl", "/etc/ssl")], none.clone(), Way::Mounted),
        ("/run/ca.crt", &[], json!({ "Tmpfs": { "/run": "" } }), within("/run")),
        ("/", &[("/srv", "/")], none.clone(), within("")),
        ("/dev/ca.crt", &[], none.clone(), within("/dev")),
        ("/etc/hosts", &[], none.clone(), taken("Docker")),
    ] {
        assert_eq!(way_of(path, mounts, &host_config), expected, "{path} {mounts:?} {host_config}");
    }
}

#[test]
fn what_stands_in_the_way_is_said_with_what_to_do() {
    let text = |why| Refused { why, path: PATH.to_owned(), bundle: BUNDLE.to_owned() }.to_string();
    let mount = format!("mount the bundle there: -v {BUNDLE}:{PATH}:ro");
    assert_eq!(text(Obstacle::ReadOnly), format!("its root filesystem is read-only; {mount}"));
    for why in [Obstacle::Taken { by: "/srv/x".to_owned() }, Obstacle::Within { mount: "/etc".to_owned() }] {
        assert!(text(why).ends_with(&mount));
    }
    assert!(text(Obstacle::Unfit).contains("dbssl.client.path"));
}

fn root() -> Certificate {
    Ca::generate("h", KeyType::P256, Duration::days(10), test_now()).unwrap().certificate().clone()
}

#[test]
fn a_bundle_that_is_not_in_order_is_not_handed_out() {
    let (ours, theirs) = (root(), root());
    let both = format!("{}{}", theirs.to_pem(), ours.to_pem());
    let found = certificates_of(both.as_bytes(), Some(&ours)).unwrap();
    assert_eq!(found.len(), 2);
    // In no order, and each once.
    let turned = format!("{}{}{}", ours.to_pem(), theirs.to_pem(), ours.to_pem());
    assert_eq!(certificates_of(turned.as_bytes(), Some(&ours)), Ok(found.clone()));
    assert_eq!(certificates_in(both.as_bytes()), found);
    let lacks_ours = theirs.to_pem();
    for bundle in ["", "only text", &lacks_ours, &both[..both.len() - 40], &both.replacen("MII", "M*I", 1)] {
        let withheld = certificates_of(bundle.as_bytes(), Some(&ours));
        assert_eq!(withheld, Err(Withheld::NotInOrder), "{bundle}");
    }
    assert!(certificates_in(b"\xff\x00 nothing").is_empty());
}

#[test]
fn a_bundle_with_a_private_key_in_it_is_handed_out_to_nobody() {
    let ours = root();
    let key = pki::new_key(KeyType::P256).unwrap();
    let (ca, key) = (ours.to_pem(), String::from_utf8(key.expose().to_vec()).unwrap());
    let of_another_kind = |label: &str| key.replace("PRIVATE KEY", label);
    for bundle in [
        // `cat ca.crt ca.key`, and the other way round.
        format!("{ca}{key}"),
        format!("{key}{ca}"),
        format!("{ca}{key}").replace('\n', "\r\n"),
        format!("\u{feff}{key}{ca}"),
        format!("{ca}{}", of_another_kind("RSA PRIVATE KEY")),
        format!("{ca}{}", of_another_kind("EC PRIVATE KEY")),
        format!("{ca}{}", of_another_kind("ENCRYPTED PRIVATE KEY")),
        // No reader of PEM finds it, and every reader of the file does.
        format!("{ca}  {key}"),
        format!("{}{key}", ca.trim_end()),
        // Half of it may be enough.
        format!("{ca}{}", &key[..key.len() / 2]),
        // It alone, and with the CA that issues to come.
        key.clone(),
    ] {
        assert_eq!(
            certificates_of(bundle.as_bytes(), Some(&ours)),
            Err(Withheld::PrivateKey),
            "{} bytes",
            bundle.len()
        );
    }
    // What is no key stays, as before: readers pass over it.
    let public = format!("{ca}{}", of_another_kind("PUBLIC KEY"));
    assert_eq!(certificates_of(public.as_bytes(), Some(&ours)).map(|found| found.len()), Ok(1));
    let told = Withheld::PrivateKey.to_string();
    assert!(told.contains("coolify-ca.crt") && told.contains("take the PRIVATE KEY block out"), "{told}");
}

#[test]
fn it_is_restarted_for_what_its_process_has_not_seen_and_once_for_each() {
    let [one, other] = ["one", "other"].map(|print| vec![print.to_owned()]);
    for (found, stale, tried, expected) in [
        (&one, false, false, Restart::NotNeeded),
        (&one, false, true, Restart::NotNeeded),
        (&other, false, false, Restart::CaChanged),
        (&other, false, true, Restart::InVain),
        (&one, true, false, Restart::FileReplaced),
        (&one, true, true, Restart::InVain),
        (&other, true, false, Restart::FileReplaced),
    ] {
        assert_eq!(restart(found, &one, stale, tried), expected, "{found:?} {stale} {tried}");
    }
}

#[test]
fn what_was_delivered_is_nothing_that_a_successor_would_lose() {
    let change = |path: &str| Change { path: path.to_owned(), kind: ChangeKind::Added };
    let client = Client { path: PATH.to_owned(), restart: false };
    let changes = [
        "/etc",
        "/etc/ssl",
        "/etc/ssl/certs",
        "/etc/ssl/certs/coolify-ca.crt",
        "/etc/ssl/certs/.coolify-ca.crt.dbssl",
        "/etc/ssl/certs/theirs.crt",
        "/srv",
    ];
    let left = without_delivery(changes.map(change).to_vec(), &client);
    assert_eq!(left, ["/etc/ssl/certs/theirs.crt", "/srv"].map(change));
}
