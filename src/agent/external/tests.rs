//! What lies in a certificate directory and somebody else signed, in every state of the directory.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use time::Duration as Span;

use super::*;
use crate::{
    agent::{
        enforce::Inside,
        observe::{Missing, directory},
    },
    config::Certificates,
    decide::plan::{Life, Observed, Plaintext, Serving, Strangers},
    engine::{self, Demand},
    host::{castore::Rules, certdir::CertFile, files::FileContent},
    model::{
        ClientAuth, Desired, Engine, Healthcheck, KeyType, Mode, Owner, Redeploy, San, inspect::Inspect,
    },
    pki::{LeafRequest, tests::OpenSsl},
};

#[test]
fn a_trouble_that_lasts_is_said_once() {
    let (mut trouble, start) = (Trouble::default(), Instant::now());
    let mut at = |milliseconds, text: Option<&str>| {
        let soon = trouble.seen(text.map(str::to_owned), start + Duration::from_millis(milliseconds));
        (soon.is_some(), trouble.said)
    };
    assert_eq!(at(0, Some("cut off")), (true, false), "it may be being written");
    assert_eq!(at(900, Some("cut off")), (true, false));
    assert_eq!(at(950, Some("of another key")), (true, false), "something else");
    assert_eq!(at(1900, Some("of another key")), (true, false));
    assert_eq!(at(1950, Some("of another key")), (false, true));
    assert_eq!(at(9000, Some("of another key")), (false, true));
    assert_eq!(at(9100, None), (false, false));
    assert_eq!(at(9200, Some("of another key")), (true, false), "it came back");
}

/// A host whose `coolify-ca.crt` holds a company's root, and the Redis `db`, which serves a leaf of that company.
struct Host {
    _folder: tempfile::TempDir,
    ssl: OpenSsl,
    roots: Roots,
    authority: Authority,
    leaf: Certificate,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
        let ssl = OpenSsl::new();
        let company = ssl.root("company", "");
        let extensions = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=DNS:db\n";
        let leaf = ssl.signed("db", "company", extensions, "");
        fs::create_dir_all(&roots.data).unwrap();
        fs::write(roots.bundle(), company.to_pem()).unwrap();
        let authority = establish(&roots);
        assert_eq!(authority.uploaded.roots, [company]);
        Self { _folder: folder, ssl, roots, authority, leaf }
    }

    fn path(&self) -> PathBuf {
        self.roots.databases().join("db")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path().join("..data").join(name)
    }

    /// Puts these into the directory as its server wants them.
    fn put(&self, chain: &str, key: &Secret) {
        let ca: String = self.authority.roots.iter().map(Certificate::to_pem).collect();
        let file = |name, content, mode| CertFile { name, content, mode };
        let files = [
            file("server.crt", FileContent::Public(chain.as_bytes()), 0o644),
            file("server.key", FileContent::Secret(key), 0o600),
            file("coolify-ca.crt", FileContent::Public(ca.as_bytes()), 0o644),
        ];
        CertDir::open(self.path()).write(&files, user()).unwrap();
    }

    fn serve_the_company_s(&self) {
        self.put(&self.leaf.to_pem(), &self.ssl.secret("db.key"));
    }

    /// The database as it is looked at, its directory judged.
    fn look(&self, owner: Owner, client_auth: ClientAuth, names: &[&str]) -> Subject {
        let container = serde_json::json!({ "Id": "a".repeat(64), "Name": "/db" });
        let desired = Desired {
            mode: Mode::VerifyFull,
            engine: Some(Engine::Redis),
            names: Sans::new(),
            redeploy: Redeploy::Auto,
            healthcheck: Healthcheck::default(),
            client_auth,
        };
        let mut subject = Subject {
            inspect: Inspect::new(container).unwrap(),
            image: None,
            spec: engine::spec(Engine::Redis),
            inside: Inside {
                id: "a".repeat(64).parse().unwrap(),
                command: Vec::new(),
                environment: std::collections::BTreeMap::new(),
                user: owner,
            },
            port: 6380,
            certificates: self.path(),
            owner,
            plaintext_port: 6379,
            missing: Missing::default(),
            demand: Demand { mode: desired.mode, client_auth },
            shortfall: None,
            open_to_strangers: None,
            left_out: Vec::new(),
            observed: Observed {
                container: "db".to_owned(),
                names: names.iter().map(|name| San::Dns((*name).to_owned())).collect(),
                issuer: self.authority.issuing.certificate().clone(),
                upper: self.authority.chain(),
                external: External::default(),
                wiring: Wiring::Present,
                directory: Directory::Missing,
                life: Life::Ready,
                serving: Serving::NotLooked,
                plaintext: Plaintext::NotLooked,
                strangers: Strangers::NotLooked,
                desired,
            },
        };
        subject.observed.directory = directory(&subject);
        subject.observed.external = read(&self.roots, &self.authority, &subject);
        subject
    }

    /// What is put into a directory that is damaged, if it is not one of our CA. What is known of the certificate
    /// beforehand has to say the same.
    fn again(&self, subject: &Subject, what: &str) -> Option<Leaf> {
        let Directory::Damaged(why) = &subject.observed.directory else { panic!("{what}: not damaged") };
        let reason = IssueReason::Damaged(why.clone());
        let found = leaf(&self.roots, &self.authority, subject, &reason).unwrap();
        let external = &subject.observed.external;
        assert_eq!(external.held.is_some(), found.is_some(), "{what}: {why:?}");
        assert_eq!(external.is_wanted(clock::now()), found.is_none(), "{what}: {why:?}");
        found
    }
}

fn establish(roots: &Roots) -> Authority {
    let rules = Rules::new(&Certificates::default(), "host");
    CaStore::establish(roots, &rules, clock::now() + Span::MINUTE).unwrap()
}

fn user() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

fn set_mode(path: PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_a_company_signed_outlives_a_directory_that_is_damaged_around_it() {
    type Harm<'a> = &'a dyn Fn(&Host);
    let host = Host::new();
    let another = Owner { uid: user().uid + 1, gid: user().gid };
    let none = ClientAuth::None;
    let cases: [(&str, Owner, ClientAuth, Harm<'_>); 8] = [
        ("the image has another user now", another, none, &|_| {}),
        ("one more file is wanted", user(), ClientAuth::Required, &|_| {}),
        ("chmod of the key", user(), none, &|host| set_mode(host.at("server.key"), 0o640)),
        ("chmod of the folder", user(), none, &|host| set_mode(host.path(), 0o700)),
        ("chmod of the generation", user(), none, &|host| set_mode(host.at("."), 0o700)),
        ("a link is gone", user(), none, &|host| fs::remove_file(host.path().join("server.key")).unwrap()),
        ("the CA file is gone", user(), none, &|host| fs::remove_file(host.at("coolify-ca.crt")).unwrap()),
        ("the CA file is cut off", user(), none, &|host| {
            fs::write(host.at("coolify-ca.crt"), "-----BEGIN").unwrap();
        }),
    ];
    for (what, owner, client_auth, harm) in cases {
        host.serve_the_company_s();
        assert!(matches!(host.look(user(), none, &["db"]).observed.directory, Directory::Sound(_)));
        harm(&host);
        let found = host.again(&host.look(owner, client_auth, &["db"]), what).expect(what);
        assert_eq!((&found.certificate, &found.chain[..]), (&host.leaf, &[][..]), "{what}");
        assert_eq!(pki::key_matches(&host.leaf, found.key.expose()), Ok(true), "{what}");
    }
}

#[test]
fn what_cannot_be_served_again_gives_way_to_our_ca() {
    let host = Host::new();
    let (none, chain) = (ClientAuth::None, host.leaf.to_pem());
    let another = Owner { uid: user().uid + 1, gid: user().gid };

    host.serve_the_company_s();
    fs::remove_file(host.at("server.key")).unwrap();
    assert!(host.again(&host.look(user(), none, &["db"]), "the key is gone").is_none());
    host.put(&chain, &pki::new_key(KeyType::P256).unwrap());
    assert!(host.again(&host.look(user(), none, &["db"]), "the key is another's").is_none());
    host.put(&chain[..300], &host.ssl.secret("db.key"));
    assert!(host.again(&host.look(user(), none, &["db"]), "the leaf is cut off").is_none());
    host.serve_the_company_s();
    assert!(host.again(&host.look(another, none, &["db", "shop"]), "it lacks a name").is_none());

    // One of our own is issued anew, as ever.
    let names = Sans::from([San::Dns("db".to_owned())]);
    let request =
        LeafRequest { common_name: "db", sans: &names, key_type: KeyType::P256, lifetime: Span::DAY };
    let ours = host.authority.issue(&request, clock::now()).unwrap();
    host.put(&ours.certificate.to_pem(), &ours.key);
    assert!(host.again(&host.look(another, none, &["db"]), "it is ours").is_none());
}

#[test]
fn with_the_company_s_key_here_its_leaves_are_our_own() {
    let mut host = Host::new();
    host.serve_the_company_s();
    fs::write(host.roots.custom_key(), host.ssl.read("company.key")).unwrap();
    host.authority = establish(&host.roots);
    assert_eq!(host.authority.issuing.certificate(), &host.authority.uploaded.roots[0]);
    set_mode(host.at("server.key"), 0o640);
    let subject = host.look(user(), ClientAuth::None, &["db"]);
    let Directory::Damaged(why) = &subject.observed.directory else { panic!("not damaged") };
    let reason = IssueReason::Damaged(why.clone());
    assert!(leaf(&host.roots, &host.authority, &subject, &reason).unwrap().is_none());
}
