mod external;
mod rollover;
mod upkeep;

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
};

use super::*;
use crate::{
    model::{Sans, Secret},
    pki::{LeafRequest, tests::OpenSsl},
};

const DAY: Duration = Duration::DAY;
pub(super) const RULES: Rules<'_> = Rules {
    host_name: "host-1",
    key_type: KeyType::P256,
    lifetime: Duration::days(3650),
    renew_before: Duration::days(365),
    overlap: Duration::days(7),
};

struct Host {
    folder: tempfile::TempDir,
    roots: Roots,
    now: OffsetDateTime,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data/ssl"), state: folder.path().join("state") };
        // Near enough to the real clock, by which OpenSSL dates.
        let now = OffsetDateTime::from(fs::metadata(folder.path()).unwrap().modified().unwrap()) + DAY;
        Self { folder, roots, now }
    }

    fn try_establish(&self) -> Result<Authority, CaStoreError> {
        let outcome = CaStore::establish(&self.roots, &RULES, self.now);
        if let Ok(authority) = &outcome {
            self.hold_the_promise(authority);
        }
        outcome
    }

    fn establish(&self) -> Authority {
        self.try_establish().unwrap()
    }

    /// A leaf issued now verifies against the bundle that is on disk.
    fn hold_the_promise(&self, authority: &Authority) {
        let leaf = issue(authority, self.now);
        let bundle = pki::extendable(&self.bundle()).unwrap();
        verifies(&leaf, &bundle, self.now);
        verifies(&leaf, &authority.roots, self.now);
        let first = authority.roots.first().unwrap();
        let top = authority.issuing.chain().last().unwrap_or(authority.issuing.certificate());
        assert!(top == first || top.signed_by(first));
        for key in self.store_files().iter().filter(|name| is_key(name)) {
            assert_eq!(fs::metadata(self.store(key)).unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(fs::metadata(self.roots.ca_store()).unwrap().mode() & 0o7777, 0o700);
    }

    fn bundle(&self) -> Vec<u8> {
        fs::read(self.roots.bundle()).unwrap()
    }

    fn put(&self, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(&self.roots.data).unwrap();
        fs::write(self.roots.bundle(), bytes).unwrap();
    }

    fn put_key(&self, bytes: impl AsRef<[u8]>) {
        fs::write(self.roots.custom_key(), bytes).unwrap();
        fs::set_permissions(self.roots.custom_key(), fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn store(&self, name: &str) -> PathBuf {
        self.roots.ca_store().join(name)
    }

    fn store_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.roots.ca_store()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.store("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn issue(authority: &Authority, now: OffsetDateTime) -> Vec<Certificate> {
    let sans = Sans::from([San::Dns("db".to_owned())]);
    let request = LeafRequest { common_name: "db", sans: &sans, key_type: KeyType::P256, lifetime: 90 * DAY };
    let leaf = authority.issue(&request, now).unwrap();
    std::iter::once(leaf.certificate).chain(leaf.chain).collect()
}

fn verifies(served: &[Certificate], roots: &[Certificate], now: OffsetDateTime) {
    pki::check_chain(served, roots, &Sans::from([San::Dns("db".to_owned())]), now).unwrap();
}

fn is_key(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "key")
}

fn custom(ssl: &OpenSsl, name: &str) -> Certificate {
    ssl.root(name, &format!("-subj /DC=corp/DC=example/OU=a/OU=b/CN={name}"))
}

#[test]
fn a_first_start_makes_a_ca_and_the_second_changes_nothing() {
    let host = Host::new();
    let first = host.establish();
    let id = first.issuing.id().to_string();
    assert!(matches!(&first.notices[..], [Notice::Generated { .. }]));
    let mut names = host.store_files();
    names.sort();
    let mut expected = vec![".lock", "accepted.pem", "audit.log", "bundle.pem", "store.json", "upload.pem"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    expected.extend([format!("{id}.crt"), format!("{id}.key")]);
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(fs::metadata(host.roots.bundle()).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(host.bundle(), first.issuing.certificate().to_pem().into_bytes());

    let stamps = || -> Vec<_> {
        let paths = host.store_files().into_iter().map(|name| host.store(&name)).chain([host.roots.bundle()]);
        paths
            .map(|path| fs::metadata(path).unwrap())
            .map(|found| (found.ino(), found.mtime(), found.mtime_nsec()))
            .collect()
    };
    let before = stamps();
    let second = host.establish();
    assert_eq!(second.issuing.certificate(), first.issuing.certificate());
    assert!(second.notices.is_empty());
    assert_eq!(stamps(), before);
}

#[test]
fn every_ca_and_leaf_is_recorded_without_a_secret() {
    let host = Host::new();
    let authority = host.establish();
    let leaf = issue(&authority, host.now).remove(0);
    let store = CaStore::open(host.roots.ca_store());
    store.audit(Audited::LeafIssued, &leaf, host.now).unwrap();
    let records = host.audit();
    assert_eq!(records[0]["what"], "ca-generated");
    assert_eq!(records[1]["what"], "leaf-issued");
    assert_eq!(records[1]["sha256"], leaf.fingerprint_hex());
    assert_eq!(records[1]["names"], serde_json::json!(["db"]));
    assert_eq!(fs::metadata(host.store("audit.log")).unwrap().mode() & 0o7777, 0o600);
    assert!(!fs::read_to_string(host.store("audit.log")).unwrap().contains("PRIVATE"));
}

#[test]
fn a_first_start_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let whole = Host::new();
    let made = whole.establish();
    let id = made.issuing.id().to_string();
    let order = [format!("{id}.key"), format!("{id}.crt"), "store.json".into(), "bundle.pem".into()];
    for done in 0..=order.len() {
        for tail in [None, Some(0), Some(1), Some(200)] {
            if tail.is_some() && done < order.len() {
                continue;
            }
            let host = Host::new();
            fs::create_dir_all(host.roots.ca_store()).unwrap();
            for name in &order[..done] {
                fs::copy(whole.store(name), host.store(name)).unwrap();
            }
            if let Some(length) = tail {
                host.put(&whole.bundle()[..length]);
            }
            let authority = host.establish();
            // From the certificate on it is the same CA.
            assert_eq!(authority.issuing.certificate() == made.issuing.certificate(), done >= 2, "{done}");
            assert_eq!(host.establish().notices, []);
        }
    }
}

#[test]
fn without_anything_but_the_pairs_it_converges() {
    let host = Host::new();
    let before = host.establish();
    fs::remove_file(host.store("store.json")).unwrap();
    fs::remove_file(host.store("bundle.pem")).unwrap();
    fs::remove_file(host.roots.bundle()).unwrap();
    let after = host.establish();
    assert_eq!(after.issuing.certificate(), before.issuing.certificate());
}

#[test]
fn a_bundle_that_is_gone_or_cut_off_is_completed() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let theirs = custom(&ssl, "theirs");
    host.put(theirs.to_pem());
    host.establish();
    let whole = host.bundle();
    for length in [None, Some(0), Some(10), Some(theirs.to_pem().len()), Some(whole.len() - 1)] {
        match length {
            None => fs::remove_file(host.roots.bundle()).unwrap(),
            Some(length) => fs::write(host.roots.bundle(), &whole[..length]).unwrap(),
        }
        let authority = host.establish();
        assert_eq!(host.bundle(), whole);
        // A block that lacks nothing but what comes behind it may be what somebody wrote: nothing to speak of.
        let told = length.is_none_or(|length| length < theirs.to_pem().len());
        let completed = Notice::BundleCompleted { path: host.roots.bundle() };
        assert_eq!(authority.notices.contains(&completed), told);
    }
}

/// What one write cannot add so that nobody reads half of it is hidden until it is there.
#[test]
fn an_addition_that_is_cut_off_while_it_is_hidden_is_finished() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let theirs = format!("{}{}", "# theirs\n".repeat(400), custom(&ssl, "theirs").to_pem());
    host.put(&theirs);
    host.establish();
    let whole = host.bundle();
    let added = String::from_utf8(whole[theirs.len()..].to_vec()).unwrap();
    let half_shown = added.replace("-----BEGIN", "#----BEGIN");
    let hidden = half_shown.replace("-----END", "#----END");
    for found in [&hidden[..1], &hidden[..100], &hidden, &half_shown] {
        fs::write(host.roots.bundle(), format!("{theirs}{found}")).unwrap();
        let notices = host.establish().notices;
        assert_eq!(String::from_utf8_lossy(&host.bundle()), String::from_utf8_lossy(&whole));
        assert!(notices.contains(&Notice::BundleCompleted { path: host.roots.bundle() }));
    }
}

#[test]
fn a_custom_root_without_key_is_kept_and_ours_is_added_behind_it() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let theirs = ssl.root(
        "theirs",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-521 -addext basicConstraints=critical,CA:TRUE,pathlen:0",
    );
    let text = format!("their comment\r\n{}", theirs.to_pem().replace('\n', "\r\n"));
    host.put(&text);
    let inode = fs::metadata(host.roots.bundle()).unwrap().ino();
    let authority = host.establish();
    assert!(host.bundle().starts_with(text.as_bytes()));
    assert_eq!(fs::metadata(host.roots.bundle()).unwrap().ino(), inode);
    assert_eq!(authority.roots, [authority.issuing.certificate().clone(), theirs.clone()]);
    let notices = authority.notices.iter().map(Notice::to_string).collect::<Vec<_>>().join("\n");
    for part in ["holds the CA CN=theirs without its key", "coolify-ca.key", "P-521", "path length of 0"] {
        assert!(notices.contains(part), "{notices}");
    }

    // Coolify writes the file anew at each of its starts.
    fs::remove_file(host.roots.bundle()).unwrap();
    host.put(theirs.to_pem());
    let again = host.establish();
    assert_eq!(again.issuing.certificate(), authority.issuing.certificate());
    assert!(host.bundle().starts_with(theirs.to_pem().as_bytes()));
    assert_eq!(again.roots.len(), 2);
}

#[test]
fn a_custom_root_with_its_key_is_taken_over() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let theirs = custom(&ssl, "theirs");
    host.put(theirs.to_pem());
    host.put_key(ssl.read("theirs.key"));
    let authority = host.establish();
    assert_eq!(authority.issuing.certificate(), &theirs);
    // Exactly what the user uploaded: nothing of ours was served before.
    assert_eq!(host.bundle(), theirs.to_pem().into_bytes());
    assert_eq!(fs::metadata(host.roots.custom_key()).unwrap().mode() & 0o7777, 0o600);
    assert!(authority.notices.contains(&Notice::KeyTightened { path: host.roots.custom_key() }));
    assert_eq!(host.audit()[0]["what"], "ca-imported");
    assert_eq!(host.establish().notices, []);
    // It was imported: it goes on without the user's copy.
    fs::remove_file(host.roots.custom_key()).unwrap();
    assert_eq!(host.establish().issuing.certificate(), &theirs);
}

#[test]
fn what_was_served_before_a_custom_root_came_still_verifies() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let before = host.establish();
    let served = issue(&before, host.now);
    let theirs = custom(&ssl, "theirs");
    host.put(theirs.to_pem());
    host.put_key(ssl.read("theirs.key"));
    let after = host.establish();
    assert_eq!(after.issuing.certificate(), &theirs);
    verifies(&served, &pki::read_pem(&host.bundle()).unwrap(), host.now);
    assert_eq!(after.roots, [theirs.clone(), before.issuing.certificate().clone()]);
    let index: Index = serde_json::from_slice(&fs::read(host.store("store.json")).unwrap()).unwrap();
    assert_eq!(
        index.authorities.iter().map(|entry| entry.state).collect::<Vec<_>>(),
        [CaState::Trusted, CaState::Issuing]
    );

    // A second custom root; then the first one again.
    let second = custom(&ssl, "second");
    host.put(second.to_pem());
    host.put_key(ssl.read("second.key"));
    assert_eq!(host.establish().issuing.certificate(), &second);
    host.put(theirs.to_pem());
    host.put_key(ssl.read("theirs.key"));
    let back = host.establish();
    assert_eq!((back.issuing.certificate(), back.roots.len()), (&theirs, 3));
    verifies(&served, &back.roots, host.now);
}

#[test]
fn taking_over_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let ssl = OpenSsl::new();
    let whole = Host::new();
    let ours = whole.establish();
    let old_index = fs::read(whole.store("store.json")).unwrap();
    let old_bundle = fs::read(whole.store("bundle.pem")).unwrap();
    let served = issue(&ours, whole.now);
    let theirs = custom(&ssl, "theirs");
    whole.put(theirs.to_pem());
    whole.put_key(ssl.read("theirs.key"));
    let id = whole.establish().issuing.id().to_string();
    let (new_bundle, new_index) = (whole.bundle(), fs::read(whole.store("store.json")).unwrap());
    let own = ours.issuing.id().to_string();
    for done in 0..=5 {
        let host = Host::new();
        fs::create_dir_all(host.roots.ca_store()).unwrap();
        for name in [format!("{own}.key"), format!("{own}.crt")] {
            fs::copy(whole.store(&name), host.store(&name)).unwrap();
        }
        host.put(theirs.to_pem());
        host.put_key(ssl.read("theirs.key"));
        let step = |number, path: PathBuf, new: &[u8], old: Option<&[u8]>| {
            if let Some(bytes) = if done >= number { Some(new) } else { old } {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        };
        step(
            1,
            host.store(&format!("{id}.key")),
            &fs::read(whole.store(&format!("{id}.key"))).unwrap(),
            None,
        );
        step(2, host.store(&format!("{id}.crt")), theirs.to_pem().as_bytes(), None);
        step(3, host.store("upload.pem"), theirs.to_pem().as_bytes(), Some(b""));
        step(3, host.store("bundle.pem"), &new_bundle, Some(&old_bundle));
        step(4, host.roots.bundle(), &new_bundle, Some(theirs.to_pem().as_bytes()));
        step(5, host.store("store.json"), &new_index, Some(&old_index));
        let after = host.establish();
        assert_eq!(after.issuing.certificate(), &theirs, "{done}");
        assert_eq!(host.bundle(), new_bundle, "{done}");
        verifies(&served, &after.roots, host.now);
    }
}

#[test]
fn an_intermediate_needs_its_root_in_the_file() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let root = custom(&ssl, "root");
    let sub = ssl.signed("sub", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n", "");
    host.put(sub.to_pem());
    host.put_key(ssl.read("sub.key"));
    let refused = host.establish();
    assert_ne!(refused.issuing.certificate(), &sub);
    assert!(
        refused
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::KeyRefused { why, .. } if why.contains("up to the root")))
    );
    assert!(
        refused
            .notices
            .contains(&Notice::NotARoot { path: host.roots.bundle(), subject: "CN=sub".to_owned() })
    );
    host.put(format!("{}{}", sub.to_pem(), root.to_pem()));
    let taken = host.establish();
    assert_eq!(taken.issuing.certificate(), &sub);
    assert_eq!(taken.issuing.chain(), [sub]);
    assert_eq!(taken.roots, [root, refused.issuing.certificate().clone()]);
    assert_eq!(host.establish().issuing.chain().len(), 1);
}

#[test]
fn keys_that_are_of_no_use_are_named_and_ours_issues() {
    let ssl = OpenSsl::new();
    let theirs = custom(&ssl, "theirs");
    custom(&ssl, "other");
    ssl.run("pkcs8 -topk8 -in theirs.key -passout pass:x -out encrypted.key");
    let fenced = ssl.root("fenced", "-addext basicConstraints=critical,CA:TRUE -addext nameConstraints=critical,permitted;DNS:corp.example");
    for (certificate, key, why) in [
        (&theirs, ssl.read("other.key"), theirs.key_fingerprint_hex()),
        (&theirs, ssl.read("encrypted.key"), "openssl pkey".to_owned()),
        (&theirs, b"nonsense".to_vec(), "no PEM private key".to_owned()),
        (&fenced, ssl.read("fenced.key"), "forbids a name".to_owned()),
    ] {
        let host = Host::new();
        host.put(certificate.to_pem());
        host.put_key(key);
        let authority = host.establish();
        assert_ne!(authority.issuing.certificate(), certificate);
        let found = authority.notices.iter().find_map(|notice| match notice {
            Notice::KeyRefused { why, .. } => Some(why.clone()),
            _ => None,
        });
        assert!(found.as_ref().is_some_and(|found| found.contains(&why)), "{why}: {found:?}");
    }
}

#[test]
fn unusable_files_are_named_and_nothing_is_lost() {
    let ssl = OpenSsl::new();
    let theirs = custom(&ssl, "theirs");
    let leaf = ssl.root("leaf", "-addext basicConstraints=critical,CA:FALSE");
    let pem = theirs.to_pem();
    let key = String::from_utf8(ssl.read("theirs.key")).unwrap();

    // What can be added to is added to.
    for (bytes, part) in [
        (leaf.to_pem(), "of no use as a CA"),
        (format!("{pem}{key}"), "private key"),
        ("just text\n".to_owned(), ""),
    ] {
        let host = Host::new();
        let before = host.establish();
        host.put(&bytes);
        let authority = host.establish();
        assert!(host.bundle().starts_with(bytes.as_bytes()));
        assert_eq!(authority.issuing.certificate(), before.issuing.certificate());
        assert!(!authority.roots.contains(&leaf));
        let notices = authority.notices.iter().map(Notice::to_string).collect::<Vec<_>>().join("\n");
        assert!(notices.contains(part), "{notices}");
    }

    // What cannot is left alone, with our CA safe in the store, on a first start and later.
    for bytes in [theirs.der(), &pem.as_bytes()[..300], &[0; 50]] {
        let host = Host::new();
        host.put(bytes);
        assert!(matches!(host.try_establish(), Err(CaStoreError::Bundle(BundleError::Unfit { .. }))));
        assert_eq!(host.bundle(), bytes);
        let key = host.store_files().into_iter().find(|name| is_key(name)).unwrap();
        fs::remove_file(host.roots.bundle()).unwrap();
        let authority = host.establish();
        assert_eq!(format!("{}.key", authority.issuing.id()), key);
        host.put(bytes);
        assert!(host.try_establish().is_err());
        assert_eq!(host.bundle(), bytes);
    }
}

#[test]
fn a_lost_or_foreign_key_is_an_error_and_never_made_anew() {
    let host = Host::new();
    let id = host.establish().issuing.id().clone();
    let path = host.store(&format!("{id}.key"));
    let kept = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(host.try_establish(), Err(CaStoreError::NoKey { .. })));
    let other = Ca::generate("h", KeyType::P256, DAY, host.now).unwrap();
    fs::write(&path, other.key_pem().expose()).unwrap();
    assert!(matches!(
        host.try_establish(),
        Err(CaStoreError::Load { problem: CaProblem::KeyOfAnother { .. }, .. })
    ));
    fs::write(&path, kept).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(host.establish().notices, [Notice::KeyTightened { path }]);
    fs::write(host.store("store.json"), "{").unwrap();
    assert!(matches!(host.try_establish(), Err(CaStoreError::Index { .. })));
    fs::remove_file(host.store("store.json")).unwrap();
    assert_eq!(host.establish().issuing.id(), &id);
    assert!(host.folder.path().exists());
}

#[test]
fn two_at_once_agree_on_one_ca() {
    let host = Host::new();
    let found: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| host.establish().issuing.id().clone())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
}
