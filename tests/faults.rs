//! Faults of the host: a disk that is full or cannot be written to, limits that are reached, a second agent, a clock that
//! jumps. None of them needs a Docker Engine; those that mount need root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod disk;
mod socket;

use std::{fs, path::Path, process::Command, time::Duration};

use dbssl::{
    config::Certificates,
    host::castore::{CaStore, Rules},
    model::Roots,
};
use disk::Disk;
use socket::{Agent, Container, Fake, Manner, wait};
use time::OffsetDateTime;

const OURS: &[(&str, &str)] = &[("dbssl.enable", "true")];

fn labelled(count: usize) -> Vec<Container> {
    (0..count).map(|number| Container { number, labels: OURS.to_vec() }).collect()
}

fn wait_all_looked_at(fake: &Fake, all: &[Container]) {
    wait("every container is looked at", 60, || {
        let missing = all.iter().filter(|one| fake.inspections(one) == 0).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} are not")) }
    });
}

/// A CA that a user could upload, with text before it up to a length.
fn uploaded(folder: &Path, length: usize) -> Vec<u8> {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout u.key -out u.crt \
                     -days 30 -subj /CN=theirs -addext keyUsage=critical,keyCertSign,cRLSign";
    let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output();
    assert!(made.unwrap().status.success(), "openssl");
    let certificate = fs::read(folder.join("u.crt")).unwrap();
    let text = "#".repeat(length - certificate.len() - 1) + "\n";
    [text.into_bytes(), certificate].concat()
}

#[test]
fn a_bundle_that_finds_no_room_is_not_torn_and_is_whole_once_there_is_room() {
    upload_to_a_full_disk("data-dir", "size=64k", "coolify-ca.crt");
}

/// What is intended is recorded before it is done.
#[test]
fn a_bundle_that_cannot_be_recorded_is_left_alone_until_there_is_room() {
    upload_to_a_full_disk("state-dir", "size=256k", "upload.pem");
}

fn upload_to_a_full_disk(which: &str, options: &str, named: &str) {
    let fake = Fake::start(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(folder.path().join("disk"), options);
    let setup = Agent::configured(&fake, "resync = \"1s\"", &[(which, &disk.0)]);
    let data = if which == "data-dir" { disk.0.clone() } else { setup.data() };
    let mut agent = setup.start();
    agent.wait_log("dbssl is ready");
    let bundle = data.join("coolify-ca.crt");
    let ours = fs::read(&bundle).unwrap();
    disk.fill();
    // It fits into the page that the file has, and what is to be added does not.
    let theirs = uploaded(folder.path(), 4000);
    fs::write(&bundle, &theirs).unwrap();
    agent.wait_log("the CA cannot be brought in order; the former one stays in force");
    assert!(agent.log().contains(named), "{}", agent.log());
    assert_eq!(fs::read(&bundle).unwrap(), theirs, "nothing of ours is half in it");
    agent.assert_runs();
    disk.make_room();
    wait("our CA is behind theirs", 30, || {
        let now = fs::read(&bundle).unwrap();
        let whole = now.starts_with(&theirs) && now.ends_with(&ours);
        if whole { Ok(()) } else { Err(format!("{} bytes", now.len())) }
    });
    assert_eq!(agent.log().matches("cannot be brought in order").count(), 1, "said once: {}", agent.log());
}

#[test]
fn without_room_for_a_ca_it_does_not_start_and_with_room_it_does() {
    let fake = Fake::start(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(folder.path().join("state"), "size=64k");
    // The lock is an empty file, and the CA's key has no room.
    disk.fill();
    let setup = Agent::configured(&fake, "", &[("state-dir", &disk.0)]);
    let (code, said) = setup.start().wait_end();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("No space left on device") && said.contains("state/ca/"), "{said}");
    assert!(!setup.data().join("coolify-ca.crt").exists(), "no CA was published");
    disk.make_room();
    setup.start().wait_log("dbssl is ready");
}

#[test]
fn a_state_folder_that_cannot_be_written_to_is_refused_at_the_start() {
    let fake = Fake::start(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let setup = Agent::configured(&fake, "", &[("state-dir", &state)]);
    setup.start().wait_log("dbssl is ready");
    let bundle = fs::read(setup.data().join("coolify-ca.crt")).unwrap();
    // In a mount namespace of its own, which goes with it.
    let read_only = format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", state.display());
    let within = ["unshare", "--mount", "sh", "-c", &format!("{read_only} && exec \"$@\""), "sh"];
    let (code, said) = setup.within(&within).start().wait_end();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("state/lock"), "{said}");
    assert_eq!(fs::read(setup.data().join("coolify-ca.crt")).unwrap(), bundle);
    // A bundle that cannot be written to is no reason to let certificates run out.
    let data = setup.data();
    let read_only = format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", data.display());
    fs::write(data.join("coolify-ca.crt"), uploaded(folder.path(), 4000)).unwrap();
    let within = ["unshare", "--mount", "sh", "-c", &format!("{read_only} && exec \"$@\""), "sh"];
    let mut agent = setup.within(&within).start();
    agent.wait_log("the one on record stays in force");
    agent.wait_log("dbssl is ready");
    assert!(agent.log().contains("Read-only file system"), "{}", agent.log());
}

#[test]
fn without_a_watch_it_says_so_and_the_slow_list_sees_the_changes() {
    let fake = Fake::start(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    // The limit of a user namespace of its own, which goes with it.
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let setup = Agent::configured(&fake, "resync = \"1s\"", &[]);
    let mut agent = setup.within(&["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]).start();
    agent.wait_log("files cannot be watched");
    agent.wait_log("dbssl is ready");
    let bundle = setup.data().join("coolify-ca.crt");
    let ours = fs::read(&bundle).unwrap();
    let theirs = uploaded(folder.path(), 4000);
    fs::write(&bundle, &theirs).unwrap();
    wait("our CA is behind theirs", 30, || {
        let now = fs::read(&bundle).unwrap();
        if now.starts_with(&theirs) && now.ends_with(&ours) { Ok(()) } else { Err(String::new()) }
    });
}

#[test]
fn with_few_file_descriptors_everything_is_looked_at_some_time() {
    let all = labelled(60);
    let fake = Fake::start(all.clone());
    // More at once than descriptors would let.
    let setup = Agent::configured(&fake, "resync = \"1s\"\nparallel = 60", &[]);
    fake.answers("/containers/c", Manner::Late(Duration::from_millis(500)));
    let mut agent = setup.within(&["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"]).start();
    agent.wait_log("dbssl is ready");
    wait_all_looked_at(&fake, &all);
    agent.assert_runs();
    assert!(agent.log().contains("Too many open files"), "the limit was reached: {}", agent.log());
    assert!(fake.most_inspecting() < 40, "{}", fake.most_inspecting());
    // And with the CA all is well again.
    let folder = tempfile::tempdir().unwrap();
    let bundle = setup.data().join("coolify-ca.crt");
    let theirs = uploaded(folder.path(), 4000);
    fs::write(&bundle, &theirs).unwrap();
    wait("our CA is behind theirs", 60, || {
        let now = fs::read(&bundle).unwrap();
        if now.starts_with(&theirs) && now.len() > theirs.len() { Ok(()) } else { Err(agent.log()) }
    });
}

#[test]
fn of_two_agents_on_one_folder_one_refuses() {
    let fake = Fake::start(Vec::new());
    let setup = Agent::configured(&fake, "", &[]);
    let (mut one, mut other) = (setup.start(), setup.start());
    let one_ended = wait("one of them ends", 30, || match (one.has_ended(), other.has_ended()) {
        (false, false) => Err("both run".to_owned()),
        (one, _) => Ok(one),
    });
    let (ended, mut lives) = if one_ended { (one, other) } else { (other, one) };
    let (code, said) = ended.wait_end();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("another dbssl works with") && said.contains("docker.only"), "{said}");
    lives.wait_log("dbssl is ready");
    assert_eq!(lives.log().matches("CA generated").count(), 1, "{}", lives.log());
}

/// The machine's clock is not to be touched, so the clock is a value here, as everywhere below the loop. What waits in
/// the loop waits by the monotonic clock, for an hour at the most.
#[test]
fn a_clock_that_jumps_a_year_makes_no_other_ca_and_changes_no_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
    let settings = Certificates::default();
    let rules = Rules::new(&settings, "host");
    let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
    let year = time::Duration::days(365);
    let first = CaStore::establish(&roots, &rules, now).unwrap();
    let files =
        || (fs::read(roots.bundle()).unwrap(), fs::read(roots.ca_store().join("store.json")).unwrap());
    let before = files();
    let ahead = CaStore::establish(&roots, &rules, now + year).unwrap();
    assert!(ahead.serves_as(&first), "a year ahead");
    assert_eq!(files(), before);
    let back = CaStore::establish(&roots, &rules, now - year).unwrap();
    assert!(back.serves_as(&first), "a year back");
    assert_eq!(files(), before);
    // A CA is valid from a year before it was made. At an earlier time nothing can be issued under it: that is said,
    // and nothing is made in its place.
    let why = anyhow::Error::from(CaStore::establish(&roots, &rules, now - 2 * year).unwrap_err());
    assert!(format!("{why:#}").contains("it is valid from"), "{why:#}");
    assert_eq!(files(), before);
    let again = CaStore::establish(&roots, &rules, now).unwrap();
    assert!(again.serves_as(&first), "back again");
    assert_eq!(files(), before);
}
