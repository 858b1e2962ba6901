//! What belongs to all of the layer: what we issue is held against OpenSSL, and every check is shown something
//! that it must refuse.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use time::{Duration, OffsetDateTime};

use super::*;
use crate::model::{San, Sans, Secret};

/// A folder and the `openssl` program, for certificates that we would never make ourselves.
pub(crate) struct OpenSsl(pub(crate) tempfile::TempDir);

impl OpenSsl {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let output = Command::new("openssl")
            .args(line.split_whitespace().map(|word| word.replace('+', " ")))
            .current_dir(self.0.path())
            .output()
            .expect(
                "these tests need the openssl program (scripts install it; Debian: apt-get install openssl)",
            );
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Words are split at blanks; `+` stands for a blank within a word.
    pub(crate) fn run(&self, line: &str) -> String {
        let (success, text) = self.try_run(line);
        assert!(success, "openssl {line}\n{text}");
        text
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        fs::read(self.0.path().join(name)).unwrap()
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        read_pem(&self.read(name)).unwrap().remove(0)
    }

    pub(crate) fn secret(&self, name: &str) -> Secret {
        Secret::new(self.read(name))
    }

    /// A root by somebody else: `NAME.crt`, `NAME.key`. Valid from now for 20 years.
    pub(crate) fn root(&self, name: &str, options: &str) -> Certificate {
        let key =
            if options.contains("-newkey") { "" } else { "-newkey ec -pkeyopt ec_paramgen_curve:P-256" };
        let subject = if options.contains("-subj") { String::new() } else { format!("-subj /CN={name}") };
        self.write(
            "empty.cnf",
            "[req]\ndistinguished_name=dn\n[dn]\n[ca_ext]\nbasicConstraints=critical,CA:TRUE\n",
        );
        let extensions = if options.contains("-addext") {
            ""
        } else {
            "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
        };
        let ski =
            if options.contains("subjectKeyIdentifier") { "" } else { "-addext subjectKeyIdentifier=hash" };
        self.run(&format!(
            "req -x509 -config empty.cnf -nodes {key} -keyout {name}.key -out {name}.crt {subject} -days 7300 {extensions} {ski} {options}"
        ));
        self.certificate(&format!("{name}.crt"))
    }

    /// A certificate by `ca`: `NAME.crt`, `NAME.key`.
    pub(crate) fn signed(&self, name: &str, ca: &str, extensions: &str, options: &str) -> Certificate {
        self.write(&format!("{name}.ext"), extensions);
        self.run(&format!("req -new -config empty.cnf -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.run(&format!("x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 3000 -extfile {name}.ext -out {name}.crt {options}"));
        self.certificate(&format!("{name}.crt"))
    }
}

/// OpenSSL dates its certificates by the real clock.
pub(crate) fn real_now() -> OffsetDateTime {
    let folder = tempfile::tempdir().unwrap();
    let probe = folder.path().join("now");
    fs::write(&probe, "").unwrap();
    // A minute later, as the tests go on making certificates after they have asked.
    OffsetDateTime::from(fs::metadata(probe).unwrap().modified().unwrap()) + Duration::MINUTE
}

const DAY: Duration = Duration::DAY;

fn names() -> Sans {
    ["my_db", "my-db", "localhost"]
        .iter()
        .map(|name| San::Dns((*name).to_owned()))
        .chain(["127.0.0.1", "::1"].iter().map(|address| San::Ip(address.parse().unwrap())))
        .collect()
}

fn request(sans: &Sans, key_type: KeyType) -> LeafRequest<'_> {
    LeafRequest { common_name: "my_db", sans, key_type, lifetime: 90 * DAY }
}

fn own(key_type: KeyType, now: OffsetDateTime) -> Ca {
    Ca::generate("host-1", key_type, 3650 * DAY, now).unwrap()
}

#[test]
fn openssl_accepts_strictly_what_we_issue() {
    let ssl = OpenSsl::new();
    let now = real_now();
    for ca_key in [KeyType::P256, KeyType::P384, KeyType::Rsa2048] {
        let ca = own(ca_key, now);
        ssl.write("ca.crt", ca.certificate().to_pem());
        ssl.write("ca.key", ca.key_pem().expose());
        ssl.run("pkey -in ca.key -noout -check");
        assert!(String::from_utf8_lossy(ca.key_pem().expose()).starts_with("-----BEGIN PRIVATE KEY-----\n"));
        for leaf_key in KeyType::ALL {
            let leaf = ca.issue(&request(&names(), leaf_key), now).unwrap();
            ssl.write("leaf.crt", leaf.certificate.to_pem());
            ssl.write("leaf.key", leaf.key.expose());
            ssl.run("pkey -in leaf.key -noout -check");
            for name in [
                "-verify_hostname my_db",
                "-verify_hostname localhost",
                "-verify_ip 127.0.0.1",
                "-verify_ip ::1",
            ] {
                ssl.run(&format!("verify -x509_strict -purpose sslserver -CAfile ca.crt {name} leaf.crt"));
            }
            let (accepted, _) =
                ssl.try_run("verify -x509_strict -CAfile ca.crt -verify_hostname other leaf.crt");
            assert!(!accepted);
            assert_eq!(key_matches(&leaf.certificate, leaf.key.expose()), Ok(true));
            assert_eq!(key_matches(&leaf.certificate, ca.key_pem().expose()), Ok(false));
            check_chain(&[leaf.certificate], &[ca.certificate().clone()], &names(), now).unwrap();
        }
    }
}

#[test]
fn the_profile_is_as_written() {
    let ssl = OpenSsl::new();
    let now = test_now();
    let ca = own(KeyType::P256, now);
    let other = own(KeyType::P256, now);
    let cert = ca.certificate();
    assert_eq!(cert.subject(), format!("CN=dbssl CA host-1 {}", ca.id()));
    assert_eq!(der::hex(cert.ski().unwrap())[..8], *ca.id().as_str());
    assert_ne!(cert.subject(), other.certificate().subject());
    assert_eq!((cert.is_ca(), cert.path_len(), cert.self_signed()), (true, None, true));
    assert_eq!(cert.not_before(), now - 365 * DAY);
    assert_eq!(cert.not_after(), now + 3650 * DAY);
    assert_eq!(check_ca(cert, now), Ok(vec![]));

    let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
    let again = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
    assert_eq!(
        (leaf.certificate.not_before(), leaf.certificate.not_after()),
        (now - Duration::HOUR, now + 90 * DAY)
    );
    assert_eq!(leaf.certificate.aki(), cert.ski());
    assert_eq!(leaf.certificate.sans(), &names());
    assert!(!leaf.certificate.is_ca() && !leaf.certificate.self_signed() && leaf.chain.is_empty());
    assert_ne!(leaf.certificate.serial_hex(), again.certificate.serial_hex());

    ssl.write("ca.crt", cert.to_pem());
    ssl.write("leaf.crt", leaf.certificate.to_pem());
    let text = ssl.run("x509 -in ca.crt -noout -text");
    for line in [
        "Basic Constraints: critical\n                CA:TRUE\n",
        "Key Usage: critical\n                Certificate Sign, CRL Sign\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("Extended Key Usage"));
    let text = ssl.run("x509 -in leaf.crt -noout -text");
    for line in [
        "Basic Constraints: critical\n                CA:FALSE\n",
        "Key Usage: critical\n                Digital Signature\n",
        "Extended Key Usage: \n                TLS Web Server Authentication\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("DirName") && !text.contains("Key Encipherment"));
    let rsa = ca.issue(&request(&names(), KeyType::Rsa2048), now).unwrap();
    ssl.write("rsa.crt", rsa.certificate.to_pem());
    assert!(
        ssl.run("x509 -in rsa.crt -noout -text")
            .contains("critical\n                Digital Signature, Key Encipherment\n")
    );
}

#[test]
fn names_are_cut_where_x509_ends() {
    let now = test_now();
    let ca = Ca::generate(&"ö".repeat(300), KeyType::P256, DAY, now).unwrap();
    assert_eq!(ca.certificate().subject().chars().count(), "CN=".len() + 64);
    let sans = names();
    let long = "x".repeat(200);
    let leaf = ca.issue(&LeafRequest { common_name: &long, ..request(&sans, KeyType::P256) }, now).unwrap();
    assert_eq!(leaf.certificate.subject(), format!("CN={}", "x".repeat(64)));
    let leaf = ca.issue(&LeafRequest { common_name: "", ..request(&sans, KeyType::P256) }, now).unwrap();
    check_chain(&[leaf.certificate], &[ca.certificate().clone()], &names(), now).unwrap();

    assert!(matches!(ca.issue(&request(&Sans::new(), KeyType::P256), now), Err(PkiError::NoNames)));
    for bad in ["", "bücher"] {
        let sans = Sans::from([San::Dns(bad.to_owned())]);
        assert!(matches!(ca.issue(&request(&sans, KeyType::P256), now), Err(PkiError::Name(_))));
    }
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let now = test_now();
    let ca = Ca::generate("h", KeyType::P256, 30 * DAY, now).unwrap();
    let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
    assert_eq!(leaf.certificate.not_after(), ca.certificate().not_after());
    let late = now + 31 * DAY;
    assert!(matches!(ca.issue(&request(&names(), KeyType::P256), late), Err(PkiError::Lifetime { .. })));
    for bad in [Duration::ZERO, Duration::days(-1)] {
        assert!(matches!(Ca::generate("h", KeyType::P256, bad, now), Err(PkiError::Lifetime { .. })));
    }
    assert!(matches!(Ca::generate("h", KeyType::P256, Duration::MAX, now), Err(PkiError::Calendar(_))));
}

#[test]
fn repeated_attributes_in_a_ca_subject_survive() {
    let ssl = OpenSsl::new();
    let now = real_now();
    for (name, kind) in [("ec", "-newkey ec -pkeyopt ec_paramgen_curve:P-384"), ("rsa", "-newkey rsa:2048")] {
        let root = ssl.root(name, &format!("{kind} -subj /DC=corp/DC=example/OU=a/OU=b/CN=Root+é -utf8"));
        let ca = Ca::load(&root, &ssl.secret(&format!("{name}.key")), now).unwrap();
        let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
        assert_eq!(leaf.certificate.issuer_raw(), root.subject_raw());
        ssl.write("leaf.crt", leaf.certificate.to_pem());
        ssl.run(&format!("verify -x509_strict -CAfile {name}.crt -verify_hostname my_db leaf.crt"));
        check_chain(&[leaf.certificate], &[root], &names(), now).unwrap();
    }
}

#[test]
fn every_form_of_a_key_is_read_and_given_back_as_pkcs8() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let ec = ssl.root("ec", "");
    let rsa = ssl.root("rsa", "-newkey rsa:3072");
    let p521 = ssl.root("p521", "-newkey ec -pkeyopt ec_paramgen_curve:P-521");
    let ed = ssl.root("ed", "-newkey ed25519");
    ssl.run("ec -in ec.key -out ec.sec1");
    ssl.run("rsa -in rsa.key -traditional -out rsa.pkcs1");
    ssl.run("ec -in p521.key -out p521.sec1");
    for (root, file) in [
        (&ec, "ec.key"),
        (&ec, "ec.sec1"),
        (&rsa, "rsa.key"),
        (&rsa, "rsa.pkcs1"),
        (&p521, "p521.key"),
        (&p521, "p521.sec1"),
        (&ed, "ed.key"),
    ] {
        let ca = Ca::load(root, &ssl.secret(file), now).unwrap();
        ssl.write("back.key", ca.key_pem().expose());
        assert!(ssl.run("pkey -in back.key -check -noout").contains("valid"), "{file}");
        Ca::load(root, ca.key_pem(), now).unwrap();
        let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
        check_chain(&[leaf.certificate], std::slice::from_ref(root), &names(), now).unwrap();
    }
    assert_eq!(check_ca(&p521, now), Ok(vec![CaWarning::P521]));
    assert_eq!(check_ca(&ed, now), Ok(vec![CaWarning::Ed25519]));
    // The curve's parameters come first in what `openssl ecparam -genkey` writes.
    let with_parameters = [
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n".as_bytes(),
        &ssl.read("ec.sec1"),
    ]
    .concat();
    Ca::load(&ec, &Secret::new(with_parameters), now).unwrap();
}

#[test]
fn keys_that_cannot_serve_are_named() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let root = ssl.root("a", "");
    let other = ssl.root("b", "");
    let load = |bytes: Vec<u8>| Ca::load(&root, &Secret::new(bytes), now).err().unwrap();

    let CaProblem::KeyOfAnother { certificate, key } = load(ssl.read("b.key")) else { panic!() };
    assert_eq!((certificate, key), (root.key_fingerprint_hex(), other.key_fingerprint_hex()));
    ssl.run("pkcs8 -topk8 -in a.key -passout pass:x -out a.enc");
    assert_eq!(load(ssl.read("a.enc")), CaProblem::Key(KeyProblem::Encrypted));
    ssl.run("ec -in a.key -aes128 -passout pass:x -out a.enc1");
    assert_eq!(load(ssl.read("a.enc1")), CaProblem::Key(KeyProblem::Encrypted));
    assert_eq!(load([ssl.read("a.key"), ssl.read("b.key")].concat()), CaProblem::Key(KeyProblem::Several(2)));
    assert_eq!(load(ssl.read("a.crt")), CaProblem::Key(KeyProblem::Missing));
    assert_eq!(load(vec![]), CaProblem::Key(KeyProblem::Missing));
    let key = ssl.read("a.key");
    assert_eq!(load(key[..key.len() / 2].to_vec()), CaProblem::Key(KeyProblem::HalfWritten));
    let damaged = String::from_utf8(key).unwrap().replacen("MIG", "MIH", 1);
    assert_eq!(load(damaged.into_bytes()), CaProblem::Key(KeyProblem::Unusable));
    ssl.run("genrsa -out weak.key 1024");
    assert_eq!(load(ssl.read("weak.key")), CaProblem::Key(KeyProblem::Unusable));
}

#[test]
fn certificates_that_cannot_be_a_ca_are_named() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let good = ssl.root("good", "");
    assert_eq!(check_ca(&good, now), Ok(vec![]));
    assert_eq!(check_ca(&good, now + 7301 * DAY), Err(CaFlaw::Expired(good.not_after())));
    assert_eq!(check_ca(&good, now - DAY), Err(CaFlaw::NotYetValid(good.not_before())));
    let leaf = ssl.root("leaf", "-addext basicConstraints=critical,CA:FALSE");
    assert_eq!(check_ca(&leaf, now), Err(CaFlaw::NotCa));
    let mute =
        ssl.root("mute", "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,cRLSign");
    assert_eq!(check_ca(&mute, now), Err(CaFlaw::NoCertSign));
    let weak = ssl.root("weak", "-newkey rsa:1024");
    assert_eq!(check_ca(&weak, now), Err(CaFlaw::WeakKey(KeyKind::Rsa(1024))));
    let curve = ssl.root("curve", "-newkey ec -pkeyopt ec_paramgen_curve:secp256k1");
    assert!(matches!(check_ca(&curve, now), Err(CaFlaw::WeakKey(KeyKind::Other(_)))));
    let strange =
        ssl.root("strange", "-addext basicConstraints=critical,CA:TRUE -addext 1.2.3.4=critical,ASN1:NULL");
    assert_eq!(check_ca(&strange, now), Err(CaFlaw::Critical("1.2.3.4".to_owned())));
    // Only a root's own signature may be outdated.
    let old = ssl.root("old", "-newkey rsa:2048 -sha1");
    assert_eq!(check_ca(&old, now), Ok(vec![]));
    let below = ssl.signed("below", "old", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid", "-sha1");
    assert_eq!(check_ca(&below, now), Err(CaFlaw::WeakSignature));
    let plain = ssl.root("plain", "-addext basicConstraints=CA:TRUE,pathlen:0");
    assert_eq!(
        check_ca(&plain, now),
        Ok(vec![CaWarning::NoKeyUsage, CaWarning::NotCriticalBasicConstraints, CaWarning::PathLenZero])
    );
}

const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=DNS:db,DNS:*.corp.example,IP:10.0.0.7\n";
const SUB: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";

#[test]
fn a_chain_is_checked_link_by_link() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let root = ssl.root("root", "");
    let other = ssl.root("other", "");
    let sub = ssl.signed("sub", "root", SUB, "");
    let leaf = ssl.signed("leaf", "sub", LEAF, "");
    let none = Sans::new();
    let check = |served: &[&Certificate], roots: &[&Certificate]| {
        let own = |list: &[&Certificate]| list.iter().map(|one| (*one).clone()).collect::<Vec<_>>();
        check_chain(&own(served), &own(roots), &none, now)
    };
    assert_eq!(check(&[&leaf, &sub], &[&other, &root]), Ok(()));
    assert_eq!(check(&[&leaf, &sub, &root], &[&root]), Ok(()));
    assert_eq!(check(&[], &[&root]), Err(ChainProblem::Empty));
    assert_eq!(check(&[&leaf], &[&root]), Err(ChainProblem::NoRoot { issuer: "CN=sub".to_owned() }));
    assert_eq!(check(&[&leaf, &sub], &[&other]), Err(ChainProblem::NoRoot { issuer: "CN=root".to_owned() }));
    assert!(matches!(check(&[&leaf, &root], &[&root]), Err(ChainProblem::Order { at: 0, .. })));
    assert_eq!(check(&[&sub], &[&root]), Err(ChainProblem::LeafIsCa));
    // An intermediate that is trusted itself has to be treated as an anchor that was given.
    assert_eq!(check(&[&leaf], &[&sub]), Ok(()));
    assert_eq!(check(&[&leaf], &[&leaf]), Err(ChainProblem::NotCa { at: 0 }));

    // The same name, and then the same key identifier too, but another key.
    let impostor = ssl.root("impostor", "-subj /CN=root");
    assert_eq!(check(&[&leaf, &sub], &[&impostor]), Err(ChainProblem::WrongAki { at: 1 }));
    let ski = der::hex(root.ski().unwrap());
    let forger = ssl.root(
        "forger",
        &format!(
            "-subj /CN=root -addext basicConstraints=critical,CA:TRUE -addext subjectKeyIdentifier={ski}"
        ),
    );
    assert_eq!(forger.ski(), root.ski());
    assert_eq!(check(&[&leaf, &sub], &[&forger]), Err(ChainProblem::Signature { at: 1 }));

    let variant = |name: &str, from: &str, to: &str| ssl.signed(name, "root", &LEAF.replace(from, to), "");
    let v = variant("noaki", "authorityKeyIdentifier=keyid\n", "authorityKeyIdentifier=none\n");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::NoAki { at: 0 }));
    let v = variant("noski", "subjectKeyIdentifier=hash\n", "subjectKeyIdentifier=none\n");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::NoSki));
    let v = variant("noeku", "extendedKeyUsage=serverAuth\n", "");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::NotForServers { at: 0 }));
    let v = variant("client", "serverAuth", "clientAuth");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::NotForServers { at: 0 }));
    let v = variant("usage", "digitalSignature", "keyAgreement");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::LeafKeyUsage));
    let v = variant("critical", "basicConstraints", "1.2.3.4=critical,ASN1:NULL\nbasicConstraints");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::Critical { at: 0, oid: "1.2.3.4".to_owned() }));
    let v = ssl.signed("sha1", "root", LEAF, "-sha1");
    assert_eq!(check(&[&v], &[&root]), Err(ChainProblem::Signature { at: 0 }));

    // An issuer that may not issue.
    let end = ssl.signed("end", "root", LEAF, "");
    let under = ssl.signed("under", "end", LEAF, "");
    assert_eq!(check(&[&under, &end], &[&root]), Err(ChainProblem::NotCa { at: 1 }));
    let mute = ssl.signed("mute", "root", &SUB.replace("keyCertSign", "cRLSign"), "");
    let under = ssl.signed("under", "mute", LEAF, "");
    assert_eq!(check(&[&under, &mute], &[&root]), Err(ChainProblem::NoCertSign { at: 1 }));
    let mail = ssl.signed("mail", "root", &format!("{SUB}extendedKeyUsage=emailProtection\n"), "");
    let under = ssl.signed("under", "mail", LEAF, "");
    assert_eq!(check(&[&under, &mail], &[&root]), Err(ChainProblem::NotForServers { at: 1 }));
    let flat = ssl.root(
        "flat",
        "-addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign",
    );
    let deep = ssl.signed("deep", "flat", SUB, "");
    let under = ssl.signed("under", "deep", LEAF, "");
    assert_eq!(check(&[&under, &deep], &[&flat]), Err(ChainProblem::PathLen { at: 2, path_len: 0 }));
    let mut line = vec![ssl.root("level-0", "")];
    for level in 1..=6 {
        line.insert(0, ssl.signed(&format!("level-{level}"), &format!("level-{}", level - 1), SUB, ""));
    }
    let (low, high) = (ssl.signed("low", "level-6", LEAF, ""), ssl.signed("high", "level-5", LEAF, ""));
    let served = |leaf, top| std::iter::once(leaf).chain(top).collect::<Vec<_>>();
    assert_eq!(check(&served(&low, &line[..6]), &[&line[6]]), Err(ChainProblem::Deep { found: 6 }));
    assert_eq!(check(&served(&high, &line[1..6]), &[&line[6]]), Ok(()));
    let direct = ssl.signed("direct", "flat", LEAF, "");
    assert_eq!(check(&[&direct], &[&flat]), Ok(()));
    let weak = ssl.root("weak", "-newkey rsa:1024");
    let under = ssl.signed("under", "weak", LEAF, "");
    assert!(check(&[&under], &[&weak]).is_err());
}

#[test]
fn a_chain_is_checked_for_dates_of_the_root_too() {
    let now = test_now();
    let old = Ca::generate("h", KeyType::P256, 400 * DAY, now).unwrap();
    let leaf = old.issue(&request(&names(), KeyType::P256), now).unwrap();
    let check = |now| {
        check_chain(
            std::slice::from_ref(&leaf.certificate),
            std::slice::from_ref(old.certificate()),
            &Sans::new(),
            now,
        )
    };
    assert_eq!(check(now), Ok(()));
    assert_eq!(
        check(now + 91 * DAY),
        Err(ChainProblem::Expired { at: 0, end: leaf.certificate.not_after() })
    );
    assert!(matches!(check(now - DAY), Err(ChainProblem::NotYetValid { at: 0, .. })));

    // A root that ended before its leaf: a root with the same key and name, but a shorter life.
    let ssl = OpenSsl::new();
    let now = real_now();
    let root = ssl.root("root", "-days 10");
    let leaf = ssl.signed("leaf", "root", LEAF, "");
    assert_eq!(
        check_chain(&[leaf], std::slice::from_ref(&root), &Sans::new(), now + 11 * DAY),
        Err(ChainProblem::Expired { at: 1, end: root.not_after() })
    );
}

#[test]
fn names_are_checked_as_clients_do() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let root = ssl.root("root", "");
    let leaf = ssl.signed("leaf", "root", LEAF, "");
    let check = |name: San| {
        check_chain(std::slice::from_ref(&leaf), std::slice::from_ref(&root), &Sans::from([name]), now)
    };
    let dns = |name: &str| San::Dns(name.to_owned());
    for good in [dns("db"), dns("DB"), dns("a.corp.example"), San::Ip("10.0.0.7".parse().unwrap())] {
        assert_eq!(check(good), Ok(()));
    }
    for bad in [
        dns("leaf"),
        dns("corp.example"),
        dns("a.b.corp.example"),
        dns(".corp.example"),
        dns("10.0.0.7"),
        San::Ip("10.0.0.8".parse().unwrap()),
    ] {
        assert_eq!(check(bad.clone()), Err(ChainProblem::Name(bad)));
    }
}

#[test]
fn constraints_on_names_are_kept() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let verdict = |name: &str, constraint: &str, names: &str| {
        let root = ssl.root(
            name,
            &format!(
                "-addext basicConstraints=critical,CA:TRUE -addext nameConstraints=critical,{constraint}"
            ),
        );
        let leaf =
            ssl.signed("leaf", name, &LEAF.replace("DNS:db,DNS:*.corp.example,IP:10.0.0.7", names), "");
        let ours = check_chain(&[leaf], &[root], &Sans::new(), now).is_ok();
        let (openssl, text) = ssl.try_run(&format!("verify -CAfile {name}.crt leaf.crt"));
        assert_eq!(ours, openssl, "{constraint} {names} {text}");
        ours
    };
    assert!(verdict("a", "permitted;DNS:corp.example", "DNS:x.corp.example,IP:10.0.0.7"));
    assert!(!verdict("b", "permitted;DNS:corp.example", "DNS:db"));
    assert!(!verdict("c", "permitted;DNS:corp.example", "DNS:xcorp.example"));
    assert!(!verdict("d", "excluded;DNS:corp.example", "DNS:x.corp.example"));
    assert!(verdict("e", "permitted;IP:10.0.0.0/255.0.0.0", "IP:10.1.2.3,DNS:db"));
    assert!(!verdict("f", "permitted;IP:10.0.0.0/255.0.0.0", "IP:11.1.2.3"));
    assert!(!verdict("g", "excluded;IP:10.0.0.0/255.0.0.0", "IP:10.1.2.3"));
}

#[test]
fn an_intermediate_brings_its_chain_along() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let root = ssl.root("root", "");
    let upper = ssl.signed("upper", "root", SUB, "");
    let sub = ssl.signed("sub", "upper", SUB, "");
    let ca = Ca::load(&sub, &ssl.secret("sub.key"), now)
        .unwrap()
        .below(vec![upper.clone()], now + Duration::days(30));
    let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
    assert_eq!(leaf.chain, [sub, upper]);
    let served: Vec<_> = std::iter::once(leaf.certificate).chain(leaf.chain).collect();
    check_chain(&served, &[root], &names(), now).unwrap();
}

#[test]
fn a_short_life_is_not_due_for_renewal_at_once() {
    let now = test_now();
    let ca = own(KeyType::P256, now);
    for seconds in [60, 600, 3600, 7200, 36_000, 360_000] {
        let lifetime = Duration::seconds(seconds);
        let names = names();
        let request = LeafRequest { lifetime, ..request(&names, KeyType::P256) };
        let leaf = ca.issue(&request, now).unwrap().certificate;
        for container in ["db", "orders", "a", "b", "c"] {
            let at = renewal_at(&leaf, container);
            assert!(now + lifetime / 2 <= at && at <= now + lifetime * 3 / 4, "{seconds} s: at {}", at - now);
        }
    }
}

#[test]
fn renewal_is_due_at_two_thirds_with_a_jitter_that_stays() {
    let now = test_now();
    let ca = own(KeyType::P256, now);
    let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap().certificate;
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..50 {
        let name = format!("db-{number}");
        let at = renewal_at(&leaf, &name);
        assert_eq!(at, renewal_at(&leaf, &name));
        assert!(at <= now + 60 * DAY && at > now + 55 * DAY, "{at}");
        assert!(!renewal_due(&leaf, &name, at - Duration::SECOND) && renewal_due(&leaf, &name, at));
        seen.insert(at);
    }
    assert!(seen.len() > 40);
}

#[test]
fn what_users_drop_is_read_or_refused_with_its_name() {
    let ssl = OpenSsl::new();
    let a = ssl.root("a", "");
    let b = ssl.root("b", "");
    let pem = String::from_utf8(ssl.read("a.crt")).unwrap();
    let both = [a.clone(), b.clone()];
    let two = format!("{pem}{}", b.to_pem());
    for good in [
        two.clone(),
        two.replace('\n', "\r\n"),
        format!("\u{feff}{two}"),
        format!("Issuer: me\n\n{two}\ntrailing text"),
        two.trim_end().to_owned(),
        format!("# ----- ours -----\n{two}--------\n"),
        ssl.run("x509 -in a.crt -text") + &b.to_pem(),
    ] {
        assert_eq!(read_pem(good.as_bytes()).as_deref(), Ok(both.as_slice()), "{good}");
        assert_eq!(certificates_within(good.as_bytes()), both);
    }
    assert_eq!(a.to_pem(), pem, "we write PEM as OpenSSL does");

    ssl.run("x509 -in a.crt -outform DER -out a.der");
    ssl.run("pkcs12 -export -in a.crt -inkey a.key -passout pass:x -out a.p12");
    ssl.run("crl2pkcs7 -nocrl -certfile a.crt -out a.p7b");
    ssl.run("crl2pkcs7 -nocrl -certfile a.crt -outform DER -out a.p7d");
    ssl.run("x509 -in a.crt -trustout -addtrust serverAuth -out a.trusted");
    ssl.run("req -new -config empty.cnf -key a.key -subj /CN=x -out a.csr");
    let key = String::from_utf8(ssl.read("a.key")).unwrap();
    let cut = &pem[..pem.len() / 2];
    let half = || ReadProblem::HalfWritten("CERTIFICATE".to_owned());
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(pem.bytes().flat_map(|byte| [byte, 0])).collect();
    let relabelled = String::from_utf8(ssl.read("a.p7b")).unwrap().replace("PKCS7", "CERTIFICATE");
    for (bytes, problem) in [
        (vec![], ReadProblem::Empty),
        (b"\xef\xbb\xbf \r\n".to_vec(), ReadProblem::Empty),
        (ssl.read("a.der"), ReadProblem::Der),
        (ssl.read("a.p12"), ReadProblem::Pkcs12),
        (ssl.read("a.p7d"), ReadProblem::Pkcs7Der),
        (ssl.read("a.p7b"), ReadProblem::Pkcs7Pem),
        (relabelled.into_bytes(), ReadProblem::Pkcs7Pem),
        (ssl.read("a.trusted"), ReadProblem::Trusted),
        (ssl.read("a.csr"), ReadProblem::Request),
        (ssl.read("a.key"), ReadProblem::PrivateKey("PRIVATE KEY".to_owned())),
        (format!("{pem}{key}").into_bytes(), ReadProblem::PrivateKey("PRIVATE KEY".to_owned())),
        (format!("{pem}{}", &key[..60]).into_bytes(), ReadProblem::PrivateKey("PRIVATE KEY".to_owned())),
        (cut.into(), half()),
        (format!("{cut}\n{pem}").into_bytes(), half()),
        (format!("{two}-----BEGIN CERT").into_bytes(), half()),
        (pem.trim_end_matches("--\n").into(), half()),
        (format!("{}{pem}", pem.trim_end()).into_bytes(), ReadProblem::Glued),
        (pem["-----BEGIN CERTIFICATE-----\n".len()..].into(), ReadProblem::Unbalanced),
        (utf16, ReadProblem::Utf16),
        (vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], ReadProblem::Binary),
        (b"hello".to_vec(), ReadProblem::NoCertificate),
        (format!("  {}", pem.replace('\n', "\n  ")).into_bytes(), ReadProblem::NoCertificate),
        (pem.replacen("MII", "M*I", 1).into_bytes(), ReadProblem::Base64(1)),
        (
            b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n".to_vec(),
            ReadProblem::OtherBlock("DH PARAMETERS".to_owned()),
        ),
    ] {
        let is_key = matches!(problem, ReadProblem::PrivateKey(_));
        assert_eq!(read_pem(&bytes), Err(problem), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(holds_private_key(&bytes), is_key, "{}", String::from_utf8_lossy(&bytes));
    }
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        read_pem(nonsense.as_bytes()),
        Err(ReadProblem::Certificate(1, CertificateError::Malformed(_)))
    ));
    assert_eq!(certificates_within(format!("{nonsense}{cut}\n{pem}").as_bytes()), [a]);
}

/// Found by fuzzing: x509-parser reads it, and OpenSSL reads neither this certificate nor those behind it.
#[test]
fn a_ca_with_a_surplus_element_in_an_extension_is_refused() {
    let ca = own(KeyType::P256, test_now());
    let whole = ca.certificate().der();
    // The subject key identifier, to its end.
    let at = whole.windows(5).position(|part| part == [0x06, 0x03, 0x55, 0x1d, 0x0e]).unwrap();
    let end = at + 5 + 2 + usize::from(whole[at + 6]);
    let mut longer = whole.to_vec();
    longer.splice(end..end, [0x05, 0x00]);
    // All that it lies in is longer by these two bytes: any element that begins before it and ends behind it.
    let mut place = 0;
    while place < at {
        let (head, length) = match whole[place + 1] {
            0x82 => (4, usize::from(whole[place + 2]) << 8 | usize::from(whole[place + 3])),
            0x81 => (3, usize::from(whole[place + 2])),
            short => (2, usize::from(short)),
        };
        if place + head + length >= end {
            longer[place + head - 1] += 2;
            place += head;
        } else {
            place += head + length;
        }
    }
    let certificate = Certificate::from_der(longer).unwrap();
    assert_eq!(check_ca(&certificate, test_now()), Err(CaFlaw::Encoding));
    assert!(check_ca(ca.certificate(), test_now()).is_ok());
}

/// What stands in a file may be of any length and hold any character; what is said of it is one short line.
#[test]
fn a_label_that_somebody_made_up_is_cut_in_what_is_said_of_it() {
    let long = "x".repeat(100_000);
    for label in [format!("\u{1b}[2J{long}"), format!("{long}\u{1b}[2J PRIVATE KEY")] {
        for file in [
            format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"),
            format!("-----BEGIN {label}-----\nAAAA\n"),
        ] {
            let said = read_pem(file.as_bytes()).unwrap_err().to_string();
            assert!(said.len() < 300 && !said.contains(char::is_control), "{} bytes: {said:?}", said.len());
        }
    }
}

#[test]
fn no_bytes_make_the_readers_panic() {
    let now = test_now();
    let ca = own(KeyType::P256, now);
    let der = ca.certificate().der().to_vec();
    for cut in 0..der.len() {
        assert!(Certificate::from_der(der[..cut].to_vec()).is_err());
    }
    for at in 0..der.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bent = der.clone();
            bent[at] ^= flip;
            if let Ok(bent) = Certificate::from_der(bent) {
                let _ = check_ca(&bent, now);
                let _ = renewal_at(&bent, "x");
                assert!(!bent.signed_by(&bent) || bent.der()[..] == der[..], "byte {at}");
            }
        }
    }
    let pem = [ca.certificate().to_pem().into_bytes(), ca.key_pem().expose().to_vec()].concat();
    for cut in 0..pem.len() {
        let _ = read_pem(&pem[..cut]);
        let _ = key_matches(ca.certificate(), &pem[cut..]);
    }
}

#[test]
fn nothing_that_is_printed_holds_a_key() {
    let now = test_now();
    let ca = own(KeyType::P256, now);
    let leaf = ca.issue(&request(&names(), KeyType::P256), now).unwrap();
    for text in [format!("{ca:?}"), format!("{leaf:?}")] {
        assert!(text.len() < 300 && text.contains("Certificate(CN="), "{text}");
    }
}

/// Whoever trusts only the former CA, or only the new one, accepts what the new one issues behind a certificate of it
/// that the former one signed.
#[test]
fn a_cross_signed_ca_is_accepted_by_those_who_know_only_one_of_the_two() {
    let ssl = OpenSsl::new();
    let now = real_now();
    let former = [
        ssl.root("ours", ""),
        ssl.root("rsa", "-newkey rsa:2048"),
        ssl.root(
            "p384",
            "-newkey ec -pkeyopt ec_paramgen_curve:P-384 -subj /DC=corp/DC=example/OU=a/OU=b/CN=p384",
        ),
    ];
    let successors = [
        ssl.root("next", "-subj /DC=corp/DC=example/OU=a/OU=b/CN=next"),
        ssl.root("next-rsa", "-newkey rsa:2048"),
        ssl.root("next-fenced", "-addext basicConstraints=critical,CA:TRUE,pathlen:1 -addext keyUsage=critical,keyCertSign -addext nameConstraints=critical,permitted;DNS:my_db,permitted;DNS:my-db,permitted;DNS:localhost"),
    ];
    for (old, old_key) in former.iter().zip(["ours.key", "rsa.key", "p384.key"]) {
        let old_ca = Ca::load(old, &ssl.secret(old_key), now).unwrap();
        for (new, new_key) in successors.iter().zip(["next.key", "next-rsa.key", "next-fenced.key"]) {
            let new_ca = Ca::load(new, &ssl.secret(new_key), now).unwrap();
            let bridge = old_ca.cross_sign(new, now).unwrap();
            assert_eq!(bridge.subject_raw(), new.subject_raw());
            assert_eq!(bridge.issuer_raw(), old.subject_raw());
            assert_eq!((bridge.ski(), bridge.path_len()), (new.ski(), new.path_len()));
            assert_eq!(bridge.facts().constraints, new.facts().constraints);
            assert!(bridge.not_after() <= old.not_after().min(new.not_after()));
            let leaf = new_ca.issue(&request(&names(), KeyType::P256), now).unwrap().certificate;
            let served = [leaf.clone(), bridge.clone()];
            check_chain(&served, std::slice::from_ref(old), &names(), now).unwrap();
            check_chain(&served, std::slice::from_ref(new), &names(), now).unwrap();
            let stranger = ssl.root("stranger", "");
            check_chain(&served, &[stranger], &names(), now).unwrap_err();
            ssl.write("leaf.pem", leaf.to_pem());
            ssl.write("bridge.pem", bridge.to_pem());
            for root in [old, new] {
                ssl.write("root.pem", root.to_pem());
                ssl.run(
                    "verify -x509_strict -purpose sslserver -CAfile root.pem -untrusted bridge.pem leaf.pem",
                );
            }
        }
    }
}
