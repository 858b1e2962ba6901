//! Whatever somebody puts into `coolify-ca.crt`: what comes of it, and what is said.

use std::{fs, path::Path};

use time::{Duration, OffsetDateTime};

use super::{Authority, CaStore, tests::RULES};
use crate::{
    model::{KeyType, Roots, San, Sans},
    pki::{self, Certificate, LeafRequest, tests::OpenSsl},
    shown::with_causes,
};

/// What comes of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It issues.
    Custom,
    /// It is trusted, and the former CA goes on issuing.
    TrustOnly,
    /// The former CA goes on; what clients need was added behind it.
    Refused,
    /// The former CA goes on; nothing can be added to the file.
    Untouched,
}

use End::{Custom, Refused, TrustOnly, Untouched};

struct Upload {
    what: &'static str,
    file: Vec<u8>,
    /// The name of a key of [`OpenSsl`]'s folder.
    key: Option<&'static str>,
    end: End,
    /// A part of what is said; empty: nothing has to be.
    said: &'static str,
}

fn upload(what: &'static str, file: impl Into<Vec<u8>>, end: End, said: &'static str) -> Upload {
    Upload { what, file: file.into(), key: None, end, said }
}

fn with_key(
    what: &'static str,
    file: impl Into<Vec<u8>>,
    key: &'static str,
    end: End,
    said: &'static str,
) -> Upload {
    Upload { key: Some(key), ..upload(what, file, end, said) }
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn uploads(ssl: &OpenSsl) -> Vec<Upload> {
    const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    let root = ssl.root("root", "-subj /DC=corp/DC=example/OU=a/OU=b/CN=root");
    let pem = root.to_pem();
    let other = ssl.root("other", "");
    let text = |name: &str| String::from_utf8(ssl.read(name)).unwrap();
    let plain = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    let rsa = ssl.root("rsa", "-newkey rsa:2048").to_pem();
    let p384 = ssl.root("p384", "-newkey ec -pkeyopt ec_paramgen_curve:P-384").to_pem();
    let p521 = ssl.root("p521", "-newkey ec -pkeyopt ec_paramgen_curve:P-521").to_pem();
    let ed25519 = ssl.root("ed25519", "-newkey ed25519").to_pem();
    let rsa1024 = ssl.root("rsa1024", "-newkey rsa:1024").to_pem();
    let sha1 = ssl.root("sha1", "-sha1").to_pem();
    let leaf = ssl.root("leaf", "-addext basicConstraints=critical,CA:FALSE").to_pem();
    let no_sign = ssl
        .root(
            "nosign",
            "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature",
        )
        .to_pem();
    let pathlen0 = ssl
        .root(
            "pathlen0",
            "-addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign",
        )
        .to_pem();
    let fenced = ssl
        .root("fenced", &format!("{plain} -addext nameConstraints=critical,permitted;DNS:corp.example"))
        .to_pem();
    let unknown = ssl.root("unknown", &format!("{plain} -addext 1.2.3.4=critical,DER:0500")).to_pem();
    let short = ssl.root("short", "-days 1").to_pem();
    let sub = ssl.signed("sub", "root", CA, "").to_pem();
    let subsub = { ssl.signed("subsub", "sub", CA, "").to_pem() };
    ssl.run("pkcs8 -topk8 -in root.key -passout pass:x -out encrypted.key");
    ssl.run("ec -in root.key -out sec1.key");
    ssl.run("rsa -in rsa.key -traditional -out pkcs1.key");
    ssl.run("crl2pkcs7 -nocrl -certfile root.crt -out root.p7b");
    ssl.run("crl2pkcs7 -nocrl -certfile root.crt -outform DER -out root.p7c");
    ssl.run("pkcs12 -export -inkey root.key -in root.crt -passout pass:x -out root.p12");
    ssl.run("x509 -in root.crt -trustout -addtrust serverAuth -out trusted.crt");
    ssl.run("req -new -key root.key -config empty.cnf -subj /CN=request -out request.csr");
    let key = text("root.key");
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(pem.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    vec![
        // Good ones.
        with_key("a root with its key", pem.clone(), "root.key", Custom, "custom CA in force"),
        with_key("its key in SEC 1", pem.clone(), "sec1.key", Custom, "custom CA in force"),
        with_key("an RSA root", rsa.clone(), "rsa.key", Custom, "custom CA in force"),
        with_key("its key in PKCS#1", rsa.clone(), "pkcs1.key", Custom, "custom CA in force"),
        with_key("a P-384 root", p384, "p384.key", Custom, "custom CA in force"),
        with_key(
            "text around it",
            format!("subject=root\n{pem}\ntrailing"),
            "root.key",
            Custom,
            "custom CA in force",
        ),
        with_key("CRLF", pem.replace('\n', "\r\n"), "root.key", Custom, "custom CA in force"),
        with_key("no line end", pem.trim_end().to_owned(), "root.key", Custom, "custom CA in force"),
        with_key(
            "a byte order mark",
            [&b"\xef\xbb\xbf"[..], pem.as_bytes()].concat(),
            "root.key",
            Custom,
            "custom CA in force",
        ),
        with_key("the root twice", format!("{pem}{pem}"), "root.key", Custom, "custom CA in force"),
        with_key(
            "another root beside it",
            format!("{}{pem}", other.to_pem()),
            "root.key",
            Custom,
            "custom CA in force",
        ),
        with_key(
            "an intermediate and its root",
            format!("{sub}{pem}"),
            "sub.key",
            Custom,
            "custom CA in force",
        ),
        with_key("the root before it", format!("{pem}{sub}"), "sub.key", Custom, "custom CA in force"),
        with_key(
            "two intermediates",
            format!("{subsub}{sub}{pem}"),
            "subsub.key",
            Custom,
            "custom CA in force",
        ),
        // Those that some clients refuse.
        with_key("P-521", p521.clone(), "p521.key", Custom, "P-521"),
        with_key("Ed25519", ed25519.clone(), "ed25519.key", Custom, "channel binding"),
        with_key("pathlen 0", pathlen0.clone(), "pathlen0.key", Custom, "path length of 0"),
        with_key("a self-signature by SHA-1", sha1.clone(), "sha1.key", Custom, "custom CA in force"),
        with_key("one that ends tomorrow", short, "short.key", Custom, "custom CA in force"),
        // Without a key.
        upload("a root alone", pem.clone(), TrustOnly, "without its key"),
        upload("two roots", format!("{pem}{}", other.to_pem()), TrustOnly, "without its key"),
        upload("Coolify's", p521, TrustOnly, "without its key"),
        upload("a root and an intermediate", format!("{sub}{pem}"), TrustOnly, "without its key"),
        with_key("the key of another", pem.clone(), "other.key", TrustOnly, "belongs to another certificate"),
        with_key("an encrypted key", pem.clone(), "encrypted.key", TrustOnly, "passphrase"),
        with_key("no key in the key file", pem.clone(), "root.crt", TrustOnly, "no PEM private key"),
        with_key("a fence around its names", fenced, "fenced.key", TrustOnly, "forbids a name"),
        // Of no use.
        upload("an intermediate alone", sub, Refused, "without its root"),
        upload("a leaf", leaf, Refused, "not a CA"),
        upload("no keyCertSign", no_sign, Refused, "lacks keyCertSign"),
        upload("RSA of 1024 bits", rsa1024, Refused, "RSA 1024"),
        upload("an unknown critical extension", unknown, Refused, "critical extension"),
        upload("a private key beside it", format!("{pem}{key}"), Refused, "private key"),
        upload("a private key alone", key, Refused, "private key"),
        upload("a request", text("request.csr"), Refused, "certificate request"),
        upload("PKCS#7 in PEM", text("root.p7b"), Refused, "openssl pkcs7"),
        upload("a TRUSTED CERTIFICATE", text("trusted.crt"), Refused, "openssl x509"),
        upload("text", "just text\n", Refused, "no BEGIN CERTIFICATE line"),
        upload("a megabyte of text", "x".repeat(1 << 19), Refused, "no BEGIN CERTIFICATE line"),
        // That nobody can read, or add to.
        upload("DER", root.der(), Untouched, "openssl x509 -inform DER"),
        upload("PKCS#12", ssl.read("root.p12"), Untouched, "openssl pkcs12"),
        upload("PKCS#7 in DER", ssl.read("root.p7c"), Untouched, "openssl pkcs7"),
        upload("UTF-16", utf16, Untouched, "UTF-16"),
        upload("half of one", &pem.as_bytes()[..300], Untouched, "cut off"),
        upload("no end line", pem.replace("-----END CERTIFICATE-----\n", ""), Untouched, "cut off"),
        upload("an end line alone", "-----END CERTIFICATE-----\n", Untouched, "without its begin line"),
        upload("two run into each other", format!("{}{pem}", pem.trim_end()), Untouched, "on one line"),
        upload("damaged base64", pem.replacen("MII", "M*I", 1), Untouched, "base64"),
        upload("zeros", vec![0; 4096], Untouched, "binary"),
        upload("more than a megabyte", vec![b'x'; (1 << 20) + 1], Untouched, "longer than 1 MiB"),
    ]
}

fn serves(authority: &Authority, bundle: &[u8], now: OffsetDateTime) {
    let sans = Sans::from([San::Dns("db".to_owned())]);
    let lifetime = Duration::hours(1);
    let request = LeafRequest { common_name: "db", sans: &sans, key_type: KeyType::P256, lifetime };
    let leaf = authority.issue(&request, now).unwrap();
    let served: Vec<Certificate> = std::iter::once(leaf.certificate).chain(leaf.chain).collect();
    pki::check_chain(&served, &pki::certificates_within(bundle), &sans, now).unwrap();
}

#[test]
fn each_upload_ends_as_it_should_and_says_why() {
    let ssl = OpenSsl::new();
    let all = uploads(&ssl);
    assert!(all.len() >= 40);
    let now = OffsetDateTime::from(fs::metadata(ssl.path("root.crt")).unwrap().modified().unwrap())
        + Duration::MINUTE;
    for Upload { what, file, key, end, said } in all {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
        let establish = || CaStore::establish(&roots, &RULES, now);
        let own = establish().unwrap();
        fs::write(roots.bundle(), &file).unwrap();
        if let Some(key) = key {
            fs::write(roots.custom_key(), ssl.read(Path::new(key))).unwrap();
        }
        let outcome = establish();
        let (found, text) = match &outcome {
            Ok(authority) => {
                let notices: Vec<_> = authority.notices.iter().map(ToString::to_string).collect();
                let bundle = fs::read(roots.bundle()).unwrap();
                assert!(bundle.starts_with(&file), "{what}");
                // Promise 2: before and after, it verifies against what is on the disk.
                serves(&own, &bundle, now);
                serves(authority, &bundle, now);
                let text = notices.join("\n");
                let found = match authority.issuing.certificate() == own.issuing.certificate() {
                    false => Custom,
                    true if text.contains("without its key") => TrustOnly,
                    true => Refused,
                };
                (found, text)
            }
            Err(error) => {
                assert_eq!(fs::read(roots.bundle()).unwrap(), file, "{what}");
                (Untouched, with_causes(error))
            }
        };
        assert_eq!(found, end, "{what}: {text}");
        assert!(text.contains(said), "{what}: {text}");
        assert!(!text.contains("PRIVATE KEY-----"), "{what}: {text}");
        // Whatever it was, one order brings back a bundle that is of use.
        if end != Custom && end != TrustOnly {
            let (restored, _) = CaStore::restore(&roots, &RULES, now).unwrap();
            let held = String::from_utf8_lossy(&fs::read(roots.bundle()).unwrap()).into_owned();
            assert_eq!(held, own.issuing.certificate().to_pem(), "{what}");
            assert_eq!(restored.issuing.certificate(), own.issuing.certificate(), "{what}");
        }
    }
}
