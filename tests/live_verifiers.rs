//! What is served in a rollover, held against everybody who verifies: OpenSSL, GnuTLS, Python, Java, Node, rustls.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod live;

use std::{fs, path::Path, process::Command};

use dbssl::{
    host::{
        castore::{Authority, CaStore, Rules},
        clock,
    },
    model::{KeyType, Roots, San, Sans, Secret},
    pki::{Certificate, LeafRequest, check_chain},
};
use time::Duration;

/// A name that some verifiers do not take for one.
const NAME: &str = "my_db";
const RULES: Rules<'_> = Rules {
    host_name: "host_1",
    key_type: KeyType::P256,
    lifetime: Duration::days(3650),
    renew_before: Duration::days(365),
    overlap: Duration::days(7),
};

struct Store {
    folder: tempfile::TempDir,
    roots: Roots,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
        CaStore::establish(&roots, &RULES, clock::now()).unwrap();
        Self { folder, roots }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn import(&self, pem: &[u8], key: Option<&Path>) -> Authority {
        let key = key.map(|key| Secret::new(fs::read(key).unwrap()));
        CaStore::import(&self.roots, &RULES, pem, key.as_ref(), clock::now()).unwrap()
    }

    #[allow(clippy::too_many_lines, reason = "a list of commands")]
    /// Every verifier, with each root alone that is to be enough, with the whole bundle, and with a stranger.
    fn everybody_verifies(&self, what: &str, authority: &Authority) {
        let sans: Sans = [NAME, "my-db"].map(|name| San::Dns(name.to_owned())).into_iter().collect();
        let (key_type, lifetime) = (KeyType::P256, Duration::days(90));
        let request = LeafRequest { common_name: NAME, sans: &sans, key_type, lifetime };
        let leaf = authority.issue(&request, clock::now()).unwrap();
        let served: Vec<_> = std::iter::once(leaf.certificate).chain(leaf.chain).collect();
        let pem =
            |certificates: &[Certificate]| certificates.iter().map(Certificate::to_pem).collect::<String>();
        let write = |name: &str, bytes: &[u8]| {
            fs::write(self.path().join(name), bytes).unwrap();
            self.path().join(name).display().to_string()
        };
        let chain = write("chain.pem", pem(&served).as_bytes());
        let first = write("leaf.pem", served[0].to_pem().as_bytes());
        let upper = write("upper.pem", pem(&served[1..]).as_bytes());
        let key = write("leaf.key", leaf.key.expose());
        let stranger = live::root(self.path(), "stranger", "/CN=Stranger");
        let mut trusted: Vec<(String, bool)> = authority
            .reached
            .iter()
            .enumerate()
            .map(|(at, root)| (write(&format!("root{at}.pem"), root.to_pem().as_bytes()), true))
            .collect();
        assert!(trusted.len() > 1, "{what}: somebody knows only a former CA");
        trusted.push((self.roots.bundle().display().to_string(), true));
        trusted.push((stranger.certificate.display().to_string(), false));
        for (roots, accepted) in trusted {
            let rustls = dbssl::pki::read_pem(&fs::read(&roots).unwrap()).unwrap();
            assert_eq!(
                check_chain(&served, &rustls, &sans, clock::now()).is_ok(),
                accepted,
                "{what}: our own check, {roots}"
            );
            // Where all that stands above the leaf is its root there is nothing to be given beside it.
            let untrusted: &[&str] = if served.len() > 1 { &["-untrusted", &upper] } else { &[] };
            let openssl = [
                &[
                    "openssl",
                    "verify",
                    "-x509_strict",
                    "-purpose",
                    "sslserver",
                    "-verify_hostname",
                    NAME,
                    "-CAfile",
                    &roots,
                ],
                untrusted,
                &[&first],
            ]
            .concat();
            let python = live::python().display().to_string();
            for command in [
                openssl,
                vec![
                    "certtool",
                    "--verify",
                    "--verify-hostname",
                    NAME,
                    "--load-ca-certificate",
                    &roots,
                    "--infile",
                    &chain,
                ],
                vec![
                    &python,
                    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/verify.py"),
                    &roots,
                    &chain,
                    &key,
                    NAME,
                ],
                vec![
                    "python3",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/verify.py"),
                    &roots,
                    &chain,
                    &key,
                    NAME,
                ],
                vec!["java", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/Verify.java"), &roots, &chain],
                vec![
                    "node",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/verify.js"),
                    &roots,
                    &chain,
                    &key,
                    NAME,
                ],
            ] {
                // GnuTLS looks for the last certificate's subject or issuer among the roots, and for no other's: after two
                // changes within one overlap the newest root alone is not enough for it.
                let middle = authority.reached.len() > 2 && roots.ends_with("root0.pem");
                let accepted = accepted && !(command[0] == "certtool" && middle);
                let output = Command::new(command[0])
                    .args(&command[1..])
                    .output()
                    .unwrap_or_else(|error| panic!("{}: {error}; scripts/test installs it", command[0]));
                let said = [output.stdout, output.stderr].concat();
                assert_eq!(
                    output.status.success(),
                    accepted,
                    "{what}: {command:?}\n{}",
                    String::from_utf8_lossy(&said)
                );
            }
        }
    }
}

#[test]
fn another_ca_of_our_own() {
    let store = Store::new();
    let authority = CaStore::regenerate(&store.roots, &RULES, clock::now()).unwrap();
    store.everybody_verifies("a second CA", &authority);
    let authority = CaStore::regenerate(&store.roots, &RULES, clock::now()).unwrap();
    assert_eq!(authority.reached.len(), 3);
    store.everybody_verifies("a third CA", &authority);
}

#[test]
fn a_custom_root_with_repeated_attributes_and_back() {
    let store = Store::new();
    let first = fs::read(store.roots.bundle()).unwrap();
    let custom = live::root(store.path(), "custom", "/DC=corp/DC=example/OU=a/OU=b/CN=Company Root");
    let pem = fs::read(&custom.certificate).unwrap();
    store.everybody_verifies("a custom root", &store.import(&pem, Some(&custom.key)));
    store.everybody_verifies("going back", &store.import(&first, None));
}

#[test]
fn a_ca_below_a_root_whose_key_is_elsewhere() {
    let store = Store::new();
    let company = live::root(store.path(), "company", "/DC=corp/DC=example/OU=a/OU=b/CN=Company Root");
    store.import(&fs::read(&company.certificate).unwrap(), None);
    let (request, signed) = (store.roots.requests_to_sign(), store.roots.signed());
    let path = |path: std::path::PathBuf| path.display().to_string();
    let signing = Command::new("openssl")
        .args([
            "x509",
            "-req",
            "-sha256",
            "-days",
            "9",
            "-CAcreateserial",
            "-CA",
            &path(company.certificate),
            "-CAkey",
            &path(company.key),
        ])
        .args(["-in", &path(request.join("dbssl-ca.csr")), "-extfile", &path(request.join("dbssl-ca.ext"))])
        .args(["-out", &path(signed.join("dbssl-ca.crt"))])
        .output()
        .unwrap();
    assert!(signing.status.success(), "{}", String::from_utf8_lossy(&signing.stderr));
    let authority = CaStore::establish(&store.roots, &RULES, clock::now()).unwrap();
    assert_eq!(authority.chain().len(), 2);
    store.everybody_verifies("a CA below the company's", &authority);
}
