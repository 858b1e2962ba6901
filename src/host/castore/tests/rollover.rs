//! From one CA to the next, and what a user's hand does to the file meanwhile.

use super::*;

/// What a server serves, and whom it convinces: each of these roots alone.
fn convinces(authority: &Authority, roots: &[&Certificate], now: OffsetDateTime) {
    let served = issue(authority, now);
    for root in roots {
        verifies(&served, std::slice::from_ref(*root), now);
    }
}

fn retire(host: &Host) -> Authority {
    CaStore::retire(&host.roots, &RULES, host.now).unwrap()
}

#[test]
fn clients_of_every_ca_within_the_overlap_are_served_and_no_others() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let (first, second) = (custom(&ssl, "first"), ssl.root("second", "-newkey rsa:2048"));
    host.put(first.to_pem());
    host.put_key(ssl.read("first.key"));
    let authority = host.establish();
    assert_eq!(authority.reached, [first.clone(), own.clone()]);
    convinces(&authority, &[&first, &own], host.now);
    assert_eq!(authority.next, Some(host.now + RULES.overlap));

    host.now += 3 * DAY;
    host.put(second.to_pem());
    host.put_key(ssl.read("second.key"));
    let authority = host.establish();
    convinces(&authority, &[&second, &first, &own], host.now);
    assert_eq!(authority.chain().len(), 2);
    // Stable: what is served must not change with every look.
    assert_eq!(host.establish().chain(), authority.chain());

    // The first one again, without its key: ours keeps it.
    host.now += DAY;
    fs::remove_file(host.roots.custom_key()).unwrap();
    host.put(first.to_pem());
    let authority = host.establish();
    assert_eq!(authority.issuing.certificate(), &first);
    assert!(authority.notices.iter().any(|notice| matches!(notice, Notice::Returned { .. })));
    convinces(&authority, &[&first, &second, &own], host.now);

    // Own stepped down first.
    host.now += 3 * DAY + Duration::MINUTE;
    let authority = host.establish();
    assert_eq!(authority.reached, [first.clone(), second.clone()]);
    assert!(pki::certificates_within(&host.bundle()).contains(&own), "not before all is proved");
    let authority = retire(&host);
    assert_eq!(authority.roots, [first.clone(), second]);
    host.now += 7 * DAY;
    let authority = retire(&host);
    assert_eq!(authority.chain().len(), 0);
    assert_eq!(authority.next, Some(first.not_after() - RULES.renew_before), "its user is reminded");
    assert_eq!(host.bundle(), first.to_pem().into_bytes(), "byte for byte what was uploaded");
    assert_eq!(host.establish().notices, []);
}

#[test]
fn our_own_ca_is_replaced_in_time_and_by_order() {
    let mut host = Host::new();
    let old = host.establish();
    let inode = fs::metadata(host.roots.bundle()).unwrap().ino();
    assert_eq!(old.next, Some(old.issuing.certificate().not_after() - RULES.renew_before));
    host.now = old.next.unwrap() - DAY;
    assert_eq!(host.establish().issuing.id(), old.issuing.id());
    host.now += DAY;
    let new = host.establish();
    assert_ne!(new.issuing.id(), old.issuing.id());
    convinces(&new, &[new.issuing.certificate(), old.issuing.certificate()], host.now);

    let third = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    host.hold_the_promise(&third);
    let roots = [&third, &new, &old].map(|authority| authority.issuing.certificate());
    convinces(&third, &roots, host.now);
    host.now += 7 * DAY;
    host.hold_the_promise(&host.establish());
    let alone = retire(&host);
    assert_eq!(host.bundle(), third.issuing.certificate().to_pem().into_bytes());
    assert_eq!(alone.roots, [third.issuing.certificate().clone()]);
    assert_eq!(fs::metadata(host.roots.bundle()).unwrap().ino(), inode);
    assert_eq!(host.establish().notices, []);
    let events: Vec<_> =
        host.audit().iter().map(|record| record["what"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["ca-generated", "ca-generated", "ca-generated", "ca-retired", "ca-retired"]);
}

#[test]
fn going_back_to_a_file_that_was_saved_goes_back_to_its_ca() {
    let host = Host::new();
    let old = host.establish();
    let saved = host.bundle();
    let new = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    host.put(&saved);
    let back = host.establish();
    assert_eq!(back.issuing.id(), old.issuing.id());
    convinces(&back, &[old.issuing.certificate(), new.issuing.certificate()], host.now);
    assert!(host.bundle().starts_with(&saved));
}

/// What was proved under one CA is no reason to take it out of the bundle when another has come into force since, by
/// somebody else's hand.
#[test]
fn nothing_is_retired_by_a_proof_under_another_ca() {
    let mut host = Host::new();
    let first = host.establish();
    let second = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    host.now += RULES.overlap + DAY;
    let may_retire =
        |under: &Authority| CaStore::may_retire(&host.roots, RULES.overlap, under.issuing.id(), host.now);
    assert!(!may_retire(&first).unwrap());
    assert!(may_retire(&second).unwrap());
}

/// Clients take no line of any length: those who come last are served, and who is not is told.
#[test]
fn of_many_cas_in_a_week_the_last_ones_are_bridged() {
    let mut host = Host::new();
    let mut all = vec![host.establish().issuing.certificate().clone()];
    for _ in 0..8 {
        host.now += Duration::HOUR;
        let authority = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
        all.insert(0, authority.issuing.certificate().clone());
        let most = all.len().min(6);
        assert_eq!((&authority.reached[..], authority.chain().len()), (&all[..most], most - 1));
        convinces(&authority, &all[..most].iter().collect::<Vec<_>>(), host.now);
        let told = authority.notices.iter().filter(|notice| matches!(notice, Notice::NoBridge { .. }));
        assert_eq!(told.count(), all.len() - most, "{:?}", authority.notices);
    }
    assert_eq!(host.establish().chain().len(), 5);
}

/// Whatever the agent is at when a user replaces the file: what was dropped comes into force, and is not written over
/// by what was meant for the file before.
#[test]
fn what_is_dropped_while_a_turn_is_under_way_is_not_lost() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let host = Host::new();
    let establish = || CaStore::establish(&host.roots, &RULES, crate::host::clock::now());
    let first = establish().unwrap().issuing.certificate().clone();
    let second = CaStore::regenerate(&host.roots, &RULES, crate::host::clock::now()).unwrap();
    let second = second.issuing.certificate().clone();
    let beside = host.roots.data.join("new");
    for round in 0..200 {
        let dropped = if round % 2 == 0 { &first } else { &second };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if round % 3 == 0 {
                    host.put(dropped.to_pem());
                } else {
                    fs::write(&beside, dropped.to_pem()).unwrap();
                    fs::rename(&beside, host.roots.bundle()).unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            while !done.load(Ordering::SeqCst) {
                // Half of a file, or one that is written just now, is an error until the next look.
                let _ = establish();
            }
        });
        let authority = establish().unwrap();
        assert_eq!(authority.issuing.certificate(), dropped, "round {round}");
    }
}

#[test]
fn a_new_ca_of_ours_ends_a_users_and_its_key_beside_the_file_is_not_taken_over_again() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    let theirs = custom(&ssl, "theirs");
    host.put(format!("their comment\n{}", theirs.to_pem()));
    host.put_key(ssl.read("theirs.key"));
    assert_eq!(host.establish().issuing.certificate(), &theirs);
    let ours = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    convinces(&ours, &[&theirs, ours.issuing.certificate()], host.now);
    assert_eq!(host.establish().issuing.id(), ours.issuing.id());
    host.now += 7 * DAY;
    retire(&host);
    assert_eq!(host.bundle(), ours.issuing.certificate().to_pem().into_bytes());
    assert_eq!(host.establish().issuing.id(), ours.issuing.id());
    // Written there again it is.
    host.put(theirs.to_pem());
    assert_eq!(host.establish().issuing.certificate(), &theirs);
}

/// A host whose former CA has been taken out of the bundle, and what that held before and after.
fn with_a_change_in_place() -> (Host, Vec<u8>, Vec<u8>) {
    let mut host = Host::new();
    host.establish();
    CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    let before = host.bundle();
    host.now += 7 * DAY;
    retire(&host);
    let after = host.bundle();
    (host, before, after)
}

/// As if the agent had died in the middle of a change in place, with `found` in the bundle's place.
fn cut_off(host: &Host, before: &[u8], found: &[u8]) {
    let index = fs::read_to_string(host.store("store.json")).unwrap();
    assert!(index.contains("\"rewriting\": false"));
    fs::write(host.store("store.json"), index.replace("\"rewriting\": false", "\"rewriting\": true"))
        .unwrap();
    fs::write(host.store("before.pem"), before).unwrap();
    host.put(found);
}

#[test]
fn a_change_in_place_that_is_cut_off_anywhere_is_finished() {
    let (host, before, after) = with_a_change_in_place();
    let hidden = |text: &[u8], markers: usize| {
        let mut text = String::from_utf8(text.to_vec()).unwrap();
        for _ in 0..markers {
            if let Some(at) = text.find("-----") {
                let at = if at == 0 || text.as_bytes()[at - 1] == b'\n' { at } else { break };
                text.replace_range(at..=at, "#");
            }
        }
        text.into_bytes()
    };
    let line_ends = vec![b'\n'; before.len() - after.len()];
    for found in [
        before.clone(),
        [&before[..], &after].concat(),
        [&hidden(&before, 1)[..], &after].concat(),
        [&hidden(&before, 3)[..], &after].concat(),
        [&hidden(&after, 2)[..], &hidden(&before, 9)[after.len()..], &after].concat(),
        [&after[..], &line_ends, &after].concat(),
        [&after[..], &line_ends, &hidden(&after, 1)].concat(),
        after.clone(),
    ] {
        cut_off(&host, &before, &found);
        let authority = host.establish();
        assert_eq!(String::from_utf8_lossy(&host.bundle()), String::from_utf8_lossy(&after));
        assert_eq!(authority.roots.len(), 1);
    }
}

/// A file that somebody renamed over the one that was being changed, alone or with what was still added to it.
#[test]
fn what_comes_in_the_middle_of_a_change_in_place_is_no_part_of_it() {
    let ssl = OpenSsl::new();
    let (host, before, after) = with_a_change_in_place();
    let theirs = custom(&ssl, "theirs");
    for found in [theirs.to_pem().into_bytes(), [theirs.to_pem().as_bytes(), &after].concat()] {
        cut_off(&host, &before, &found);
        host.establish();
        assert!(pki::read_pem(&host.bundle()).unwrap().contains(&theirs));
        host.put(&after);
        host.establish();
    }
}

#[test]
fn a_file_that_is_written_in_pieces_becomes_whole() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let (first, second) = (custom(&ssl, "first"), custom(&ssl, "second"));
    let whole = format!("{}{}", first.to_pem(), second.to_pem());
    let file = || fs::OpenOptions::new().write(true).open(host.roots.bundle()).unwrap();
    for pause in [0, 100, first.to_pem().len(), first.to_pem().len() + 300, whole.len()] {
        host.put("");
        host.establish();
        // Its writer goes on where it was, whatever was added behind it meanwhile.
        let writer = file();
        writer.set_len(0).unwrap();
        writer.write_all_at(&whole.as_bytes()[..pause], 0).unwrap();
        let _ = host.try_establish();
        writer.write_all_at(&whole.as_bytes()[pause..], pause as u64).unwrap();
        let authority = host.establish();
        let held = pki::read_pem(&host.bundle()).unwrap_or_else(|why| panic!("{pause}: {why}"));
        assert!(held.contains(&first) && held.contains(&second) && held.contains(&own), "{pause}");
        assert_eq!(authority.issuing.certificate(), &own);
        fs::remove_file(host.roots.bundle()).unwrap();
    }
}

#[test]
fn where_nobody_can_vouch_for_the_new_ca_this_is_said() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let fenced = ssl.root(
        "fenced",
        "-addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign",
    );
    host.put(fenced.to_pem());
    host.put_key(ssl.read("fenced.key"));
    host.establish();
    let next = custom(&ssl, "next");
    host.put(next.to_pem());
    host.put_key(ssl.read("next.key"));
    let authority = host.establish();
    assert_eq!((authority.reached.len(), authority.chain().len(), authority.roots.len()), (1, 0, 2));
    let told = authority.notices.iter().find(|notice| matches!(notice, Notice::NoBridge { .. })).unwrap();
    assert!(told.to_string().contains("path length 0"), "{told}");
}

#[test]
fn a_bridge_that_cannot_be_written_is_tried_again_without_anybody_asking() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let next = custom(&ssl, "next");
    let bridge = format!("{}-by-{}.crt", CaId::of(&next), CaId::of(&own));
    let bridge = host.roots.ca_store().join(bridge);
    fs::create_dir(&bridge).unwrap();
    host.put(next.to_pem());
    host.put_key(ssl.read("next.key"));
    let authority = host.establish();
    assert_eq!(authority.reached, std::slice::from_ref(&next));
    assert_eq!(authority.next, Some(host.now + Duration::MINUTE));

    fs::remove_dir(&bridge).unwrap();
    host.now += Duration::MINUTE;
    let authority = host.establish();
    convinces(&authority, &[&next, &own], host.now);
    assert!(authority.next.is_some_and(|at| at > host.now + DAY), "{:?}", authority.next);
}

#[test]
fn an_intermediate_is_reached_from_a_root_and_a_root_from_an_intermediate() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let root = custom(&ssl, "root");
    let sub = ssl.signed("sub", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n", "");
    host.put(format!("{}{}", sub.to_pem(), root.to_pem()));
    host.put_key(ssl.read("sub.key"));
    let authority = host.establish();
    assert_eq!(authority.issuing.certificate(), &sub);
    assert_eq!(authority.chain().len(), 2);
    convinces(&authority, &[&root, &own], host.now);
    let next = custom(&ssl, "next");
    host.put(next.to_pem());
    host.put_key(ssl.read("next.key"));
    let authority = host.establish();
    convinces(&authority, &[&next, &root, &own], host.now);
}

#[test]
fn importing_checks_first_and_restoring_brings_back_what_was_of_use() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let theirs = custom(&ssl, "theirs");
    custom(&ssl, "other");
    let import = |pem: &[u8], key: Option<&str>| {
        let key = key.map(|key| ssl.secret(key));
        CaStore::import(&host.roots, &RULES, pem, key.as_ref(), host.now)
    };
    let leaf = ssl.root("leaf", "-addext basicConstraints=critical,CA:FALSE");
    let before = host.bundle();
    assert!(matches!(import(b"text", None), Err(ImportError::Certificate(_))));
    assert!(matches!(import(leaf.to_pem().as_bytes(), None), Err(ImportError::Flaw { .. })));
    assert!(matches!(import(theirs.to_pem().as_bytes(), Some("other.key")), Err(ImportError::Key(_))));
    assert_eq!(host.bundle(), before);
    assert!(!host.roots.custom_key().exists());
    let authority = import(theirs.to_pem().as_bytes(), Some("theirs.key")).unwrap();
    assert_eq!(authority.issuing.certificate(), &theirs);
    convinces(&authority, &[&theirs, &own], host.now);
    let good = host.bundle();

    let restore = || CaStore::restore(&host.roots, &RULES, host.now).unwrap();
    for bad in [&b"text\n"[..], theirs.der(), &good[..100], leaf.to_pem().as_bytes()] {
        host.put(bad);
        let _ = host.try_establish();
        let (authority, moved) = restore();
        assert_eq!((authority.issuing.certificate(), moved), (&theirs, None));
        assert_eq!(host.bundle(), good);
    }
    fs::remove_file(host.roots.bundle()).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", host.roots.bundle()).unwrap();
    assert!(host.try_establish().is_err());
    let (_, moved) = restore();
    assert!(fs::symlink_metadata(moved.unwrap()).unwrap().is_symlink());
    assert_eq!(host.bundle(), good);
    fs::remove_file(host.roots.bundle()).unwrap();
    fs::create_dir(host.roots.bundle()).unwrap();
    restore();
    assert_eq!(host.bundle(), good);
}

#[test]
fn a_ca_whose_key_is_elsewhere_has_ours_issue_below_it() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let company = custom(&ssl, "company");
    host.put(company.to_pem());
    let waiting = host.establish();
    assert_eq!(waiting.issuing.certificate(), &own);
    let told =
        waiting.notices.iter().find(|notice| matches!(notice, Notice::TrustOnly { .. })).unwrap().to_string();
    let (_, command) = told.split_once("run there: openssl ").unwrap();
    let request = fs::read(host.roots.requests_to_sign().join("dbssl-ca.csr")).unwrap();
    assert_eq!(host.establish().notices, waiting.notices, "and nothing is asked for twice");
    assert_eq!(fs::read(host.roots.requests_to_sign().join("dbssl-ca.csr")).unwrap(), request);

    // By somebody else: of no use.
    custom(&ssl, "other");
    let sign = |ca: &str| {
        ssl.run(&command.replace("CA.crt", &format!("{ca}.crt")).replace("CA.key", &format!("{ca}.key")))
    };
    sign("other");
    let refused = host.establish();
    assert_eq!(refused.issuing.certificate(), &own);
    let why = refused.notices.iter().find(|notice| matches!(notice, Notice::SignedRefused { .. })).unwrap();
    assert!(why.to_string().contains("up to the root"), "{why}");

    sign("company");
    let in_force = host.establish();
    assert_eq!(in_force.issuing.chain().len(), 1);
    assert_eq!(in_force.chain().len(), 2);
    convinces(&in_force, &[&company, &own], host.now);
    assert!(!host.roots.requests_to_sign().join("dbssl-ca.csr").exists());
    assert!(host.establish().notices.is_empty());
    assert_eq!(in_force.roots, [company, own]);
}

#[test]
fn a_file_that_is_just_being_written_is_left_alone_and_what_was_added_meanwhile_is_not_its_users() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    let old = host.establish();
    let saved = host.bundle();
    let new = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    let whole = host.bundle();
    // Cut to nothing, and not written yet.
    host.put("");
    let changed = OffsetDateTime::from(fs::metadata(host.roots.bundle()).unwrap().modified().unwrap());
    let later = std::mem::replace(&mut host.now, changed + Duration::milliseconds(60));
    assert!(matches!(host.try_establish(), Err(CaStoreError::Unfinished(_))));
    assert_eq!(host.bundle(), b"");
    // Written while somebody added to it.
    host.now = later;
    host.put([&saved[..], &whole].concat());
    let back = host.establish();
    assert_eq!(back.issuing.id(), old.issuing.id());
    convinces(&back, &[old.issuing.certificate(), new.issuing.certificate()], host.now);
    // In front of what was added.
    let theirs = custom(&ssl, "theirs");
    host.put([theirs.to_pem().as_bytes(), &host.bundle()].concat());
    host.put_key(ssl.read("theirs.key"));
    assert_eq!(host.establish().issuing.certificate(), &theirs);
    host.now += 8 * DAY;
    retire(&host);
    assert_eq!(host.bundle(), theirs.to_pem().into_bytes());
}
