//! CAs that end, or are not valid yet, and what else a user has in the file beside them.

use super::*;

fn request(host: &Host, ssl: &OpenSsl, name: &str) {
    for end in ["csr", "ext"] {
        let asked = fs::read(host.roots.requests_to_sign().join("dbssl-ca").with_extension(end)).unwrap();
        ssl.write(&format!("{name}.{end}"), asked);
    }
}

/// The company signs what is asked for.
fn answer(host: &Host, ssl: &OpenSsl, name: &str, days: u32) -> Certificate {
    ssl.run(&format!("x509 -req -days {days} -CA company.crt -CAkey company.key -CAcreateserial -in {name}.csr -extfile {name}.ext -out {name}.crt"));
    fs::write(host.roots.signed_ca(), ssl.read(format!("{name}.crt"))).unwrap();
    ssl.certificate(&format!("{name}.crt"))
}

/// A host whose CA is below a company's.
fn below_a_company(ssl: &OpenSsl, days: u32) -> (Host, Certificate) {
    let host = Host::new();
    host.establish();
    host.put(custom(ssl, "company").to_pem());
    host.establish();
    request(&host, ssl, "sub");
    let sub = answer(&host, ssl, "sub", days);
    assert_eq!(host.establish().issuing.certificate(), &sub);
    (host, sub)
}

/// By the record alone as well, for whoever only asks.
#[test]
fn a_user_is_reminded_of_the_end_of_their_ca_until_it_comes() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    let theirs = custom(&ssl, "theirs");
    host.put(theirs.to_pem());
    host.put_key(ssl.read("theirs.key"));
    let mut authority = host.establish();
    let mut days_left = Vec::new();
    while let Some(at) = authority.next.filter(|at| *at < theirs.not_after()) {
        host.now = at;
        authority = host.establish();
        let current = CaStore::current(&host.roots, &RULES, host.now).unwrap().unwrap();
        assert_eq!((&current.notices, current.next), (&authority.notices, authority.next));
        let [Notice::EndsSoon { end, days, command: None, .. }] = authority.notices[..] else {
            panic!("{:?}", authority.notices)
        };
        assert_eq!(end, theirs.not_after());
        days_left.push(days);
    }
    assert_eq!(days_left, [365, 90, 30, 14, 7, 3, 1]);
    host.now = authority.next.unwrap();
    assert!(host.establish().issuing.certificate() != &theirs, "ours takes over");
}

/// It is below a root that ends first.
#[test]
fn nothing_outlives_the_root() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    host.establish();
    let root = ssl.root("root", "-days 100");
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    let below = ssl.signed("below", "root", extensions, "");
    assert!(below.not_after() > root.not_after());
    host.put(below.to_pem() + &root.to_pem());
    host.put_key(ssl.read("below.key"));
    let authority = host.establish();
    assert_eq!(authority.issuing.certificate(), &below);
    host.now = root.not_after() - 10 * DAY;
    let leaf = issue(&host.establish(), host.now).remove(0);
    assert_eq!(leaf.not_after(), root.not_after());
    host.now = root.not_after() + DAY;
    assert!(host.establish().issuing.certificate().self_signed());
}

#[test]
fn a_ca_below_a_companys_is_asked_for_again_before_it_ends() {
    let ssl = OpenSsl::new();
    let (mut host, sub) = below_a_company(&ssl, 900);
    host.now = sub.not_after() - 300 * DAY;
    let asking = host.establish();
    let [Notice::EndsSoon { command: Some(command), .. }] = &asking.notices[..] else {
        panic!("{:?}", asking.notices)
    };
    assert!(command.contains("dbssl-ca.csr"), "{command}");
    // What came back before is no answer.
    assert_eq!(host.establish().notices, asking.notices);
    request(&host, &ssl, "next");
    let next = answer(&host, &ssl, "next", 1800);
    let after = host.establish();
    assert_eq!((after.issuing.certificate(), after.chain().len()), (&next, 1));
    assert_ne!(next.key_fingerprint_hex(), sub.key_fingerprint_hex());

    // For the key that it has, which nobody asked for.
    let renewed = answer(&host, &ssl, "next", 2700);
    assert_eq!(host.establish().issuing.certificate(), &renewed);
    let again = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    assert_eq!(host.establish().issuing.id(), again.issuing.id(), "it is no answer to another request");
}

#[test]
fn a_company_is_asked_again_when_the_ca_below_it_is_over() {
    let ssl = OpenSsl::new();
    let (mut host, sub) = below_a_company(&ssl, 900);
    host.now = sub.not_after() + DAY;
    let own = host.establish();
    assert!(own.issuing.certificate().self_signed());
    assert!(own.notices.iter().any(|notice| matches!(notice, Notice::TrustOnly { .. })), "{:?}", own.notices);
    assert_eq!(own.uploaded.keyless.len(), 1, "each database may ask for itself");
    request(&host, &ssl, "next");
    let next = answer(&host, &ssl, "next", 2700);
    assert_eq!(host.establish().issuing.certificate(), &next);
}

#[test]
fn a_request_that_was_carried_away_stays_what_it_was() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    host.establish();
    host.put(custom(&ssl, "company").to_pem());
    host.establish();
    request(&host, &ssl, "sub");
    fs::remove_dir_all(host.roots.requests_to_sign()).unwrap();
    host.establish();
    let sub = answer(&host, &ssl, "sub", 900);
    assert_eq!(host.establish().issuing.certificate(), &sub);
}

#[test]
fn an_expired_ca_is_replaced_and_one_from_a_wrong_clock_is_not_believed() {
    let mut host = Host::new();
    let right = host.now;
    let first = host.establish();
    host.now = first.issuing.certificate().not_after() + DAY;
    let second = host.establish();
    assert_ne!(second.issuing.id(), first.issuing.id());
    // It was the clock that was wrong.
    host.now = right;
    let back = host.establish();
    assert_eq!(back.issuing.id(), first.issuing.id());
    // Now it is: there is no CA of that time, and none is made.
    host.now = OffsetDateTime::UNIX_EPOCH;
    assert!(matches!(
        host.try_establish(),
        Err(CaStoreError::Load { problem: CaProblem::Flaw(CaFlaw::NotYetValid(_)), .. })
    ));
}

/// Whoever made it has a clock that is ahead of ours.
#[test]
fn what_is_not_valid_yet_is_taken_over_when_it_is() {
    let ssl = OpenSsl::new();
    let mut host = Host::new();
    let own = host.establish();
    let theirs = custom(&ssl, "theirs");
    host.now = theirs.not_before() - Duration::MINUTE;
    host.put(theirs.to_pem());
    host.put_key(ssl.read("theirs.key"));
    let early = host.establish();
    assert_eq!(early.issuing.id(), own.issuing.id());
    assert_eq!(early.next, Some(theirs.not_before()));
    host.now += Duration::MINUTE;
    assert_eq!(host.establish().issuing.certificate(), &theirs);
}

#[test]
fn what_is_imported_is_looked_at_whatever_was_thought_of_it_before() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let theirs = custom(&ssl, "theirs");
    let key = Secret::new(ssl.read("theirs.key"));
    let import =
        || CaStore::import(&host.roots, &RULES, theirs.to_pem().as_bytes(), Some(&key), host.now).unwrap();
    import();
    CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    assert_eq!(import().issuing.certificate(), &theirs);
}

#[test]
fn what_else_a_user_trusts_stays_in_the_file() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let own = host.establish().issuing.certificate().clone();
    let (other, theirs) = (custom(&ssl, "other"), custom(&ssl, "theirs"));
    let holds = |wanted: &[&Certificate]| {
        let held = pki::certificates_within(&host.bundle());
        assert!(wanted.iter().all(|one| held.contains(one)), "{held:?}");
    };
    host.put(other.to_pem());
    host.establish();
    holds(&[&other, &own]);
    // In front of all that is there, ours included.
    host.put([theirs.to_pem().as_bytes(), &host.bundle()].concat());
    host.put_key(ssl.read("theirs.key"));
    assert_eq!(host.establish().issuing.certificate(), &theirs);
    holds(&[&theirs, &other, &own]);
    let new = CaStore::regenerate(&host.roots, &RULES, host.now).unwrap();
    holds(&[new.issuing.certificate(), &other, &theirs, &own]);
    assert_eq!(host.establish().issuing.id(), new.issuing.id());
    holds(&[new.issuing.certificate(), &other, &theirs, &own]);
}
