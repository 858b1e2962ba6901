//! What comes back signed, good and bad, made by the `openssl` program as whoever has the CA's key would.

use super::*;
use crate::{
    model::{KeyType, San},
    pki::{
        self,
        tests::{OpenSsl, real_now},
    },
};

const DAY: Duration = Duration::DAY;
const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";

fn names(names: &[&str]) -> Sans {
    names.iter().map(|name| San::Dns((*name).to_owned())).collect()
}

/// A request for `db` and `shop`, and a company that signs.
struct Company {
    ssl: OpenSsl,
    root: Certificate,
    sub: Certificate,
    key: Secret,
    names: Sans,
    now: OffsetDateTime,
}

impl Company {
    fn new() -> Self {
        let (ssl, names) = (OpenSsl::new(), names(&["db", "shop"]));
        let root = ssl.root("root", "-subj /DC=corp/DC=example/OU=a/OU=b/CN=root");
        let sub = ssl.signed("sub", "root", CA, "");
        let key = pki::new_key(KeyType::P256).unwrap();
        let company = Self { ssl, root, sub, key, names, now: real_now() };
        company.request("db", &company.key, &company.names);
        company
    }

    fn request(&self, name: &str, key: &Secret, names: &Sans) {
        self.ssl.write(&format!("{name}.csr"), pki::request_leaf("db", names, KeyType::P256, key).unwrap());
        self.ssl.write(&format!("{name}.ext"), pki::leaf_extensions(names, KeyType::P256));
    }

    /// What is signed of a request by a CA, with extensions of which parts are replaced.
    fn sign(&self, request: &str, ca: &str, days: u32, replaced: (&str, &str)) -> Certificate {
        let extensions = String::from_utf8(self.ssl.read(format!("{request}.ext"))).unwrap();
        assert!(extensions.contains(replaced.0));
        self.ssl.write("replaced.ext", extensions.replace(replaced.0, replaced.1));
        self.ssl.run(&format!("x509 -req -sha256 -days {days} -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -in {request}.csr -extfile replaced.ext -out out.crt"));
        self.ssl.certificate("out.crt")
    }

    fn signed(&self) -> Certificate {
        self.sign("db", "root", 90, ("", ""))
    }

    fn judge_at(&self, answer: impl AsRef<[u8]>, now: OffsetDateTime) -> Result<Vec<Certificate>, String> {
        let roots = std::slice::from_ref(&self.root);
        judge(answer.as_ref(), &self.key, roots, roots, &self.names, "db", now)
    }
}

#[test]
fn good_answers_are_put_in_line() {
    let company = Company::new();
    let (root, sub) = (company.root.to_pem(), company.sub.to_pem());
    let leaf = company.signed();
    let below = company.sign("db", "sub", 90, ("", ""));
    let more = company.sign("db", "root", 90, ("DNS:db", "DNS:*.corp.example,DNS:db"));
    let line = vec![below.clone(), company.sub.clone()];
    for (what, answer, chain) in [
        ("the leaf alone", leaf.to_pem(), vec![leaf.clone()]),
        ("with its root", leaf.to_pem() + &root, vec![leaf.clone()]),
        (
            "with text around it",
            format!("subject=db\r\n{}end", leaf.to_pem()).replace('\n', "\r\n"),
            vec![leaf],
        ),
        ("with an intermediate", below.to_pem() + &sub, line.clone()),
        ("in another order", root + &sub + &below.to_pem(), line.clone()),
        ("with more names", more.to_pem(), vec![more]),
    ] {
        assert_eq!(company.judge_at(answer, company.now), Ok(chain), "{what}");
    }
    // The intermediate is where the roots are.
    let bundle = [company.root.clone(), company.sub.clone()];
    let (roots, pem) = (&bundle[..1], below.to_pem());
    let found = judge(pem.as_bytes(), &company.key, roots, &bundle, &company.names, "db", company.now);
    assert_eq!(found, Ok(line));
}

#[test]
fn bad_answers_are_refused_with_what_was_found_and_what_is_needed() {
    let company = Company::new();
    let ssl = &company.ssl;
    let leaf = company.signed();
    let sign = |replaced| company.sign("db", "root", 90, replaced).to_pem();
    company.request("earlier", &pki::new_key(KeyType::P256).unwrap(), &company.names);
    ssl.root("stranger", "");
    let self_signed = {
        ssl.write("own.key", company.key.expose());
        ssl.run("req -x509 -new -config empty.cnf -key own.key -subj /CN=db -days 9 -addext subjectAltName=DNS:db,DNS:shop -out own.crt");
        ssl.certificate("own.crt")
    };
    for (what, answer, parts) in [
        ("nothing", String::new(), &["empty"][..]),
        ("text", "soon\n".to_owned(), &["no BEGIN CERTIFICATE"]),
        ("half of it", leaf.to_pem()[..300].to_owned(), &["cut off"]),
        ("the request", String::from_utf8(ssl.read("db.csr")).unwrap(), &["certificate request"]),
        (
            "a key beside it",
            leaf.to_pem() + &String::from_utf8(ssl.read("root.key")).unwrap(),
            &["private key"],
        ),
        (
            "of an earlier request",
            company.sign("earlier", "root", 90, ("", "")).to_pem(),
            &["another key", "CN=db", "CN=root"],
        ),
        ("the CA's own", company.root.to_pem(), &["another key"]),
        ("a name less", sign((",DNS:shop", "")), &["does not name shop", ".ext"]),
        ("no name", sign(("subjectAltName=DNS:db,DNS:shop", "")), &["does not name db, shop"]),
        ("for clients", sign(("serverAuth", "clientAuth")), &["without serverAuth", ".ext"]),
        ("for nothing", sign(("extendedKeyUsage=serverAuth\n", "")), &["without serverAuth"]),
        ("a CA", sign(("CA:FALSE", "CA:TRUE")), &["the leaf is a CA"]),
        ("no signing", sign(("digitalSignature", "keyAgreement")), &["digitalSignature"]),
        (
            "no AKI",
            sign(("authorityKeyIdentifier=keyid", "authorityKeyIdentifier=none")),
            &["authority key identifier"],
        ),
        (
            "a stranger's",
            company.sign("db", "stranger", 90, ("", "")).to_pem(),
            &["issuer CN=stranger", "coolify-ca.crt", "CN=root"],
        ),
        (
            "a stranger's with his root",
            company.sign("db", "stranger", 90, ("", "")).to_pem() + &ssl.certificate("stranger.crt").to_pem(),
            &["root CN=stranger", "allowed:", "CN=root"],
        ),
        ("by itself", self_signed.to_pem(), &["allowed:"]),
        (
            "without its intermediate",
            company.sign("db", "sub", 90, ("", "")).to_pem(),
            &["issuer CN=sub of CN=db", "all certificates up to a root"],
        ),
    ] {
        let refused = company.judge_at(answer, company.now).expect_err(what);
        for part in parts {
            assert!(refused.contains(part), "{what}: {refused}");
        }
        assert!(!refused.contains("PRIVATE KEY-----"), "{refused}");
    }
    let refused = company.judge_at(leaf.der(), company.now).unwrap_err();
    assert!(refused.contains("openssl x509 -inform DER"), "{refused}");
}

#[test]
fn an_answer_has_its_time() {
    let company = Company::new();
    let leaf = company.signed();
    for (days, good) in [(-1, false), (0, true), (60, true), (86, true), (88, false), (91, false)] {
        let now = company.now + days * DAY;
        assert_eq!(company.judge_at(leaf.to_pem(), now).is_ok(), good, "after {days} days");
    }
    let refused = company.judge_at(leaf.to_pem(), company.now + 88 * DAY).unwrap_err();
    assert!(refused.contains("needed: a longer life"), "{refused}");
}

#[test]
fn what_is_served_is_asked_for_again_and_then_gives_way_to_ours() {
    let company = Company::new();
    let chain = [company.signed()];
    let roots = std::slice::from_ref(&company.root);
    let at = |days: i32, names: &Sans| {
        let now = company.now + days * DAY;
        let held = held(&chain, roots, names, "db", now);
        let external = External { asked: true, held, ..External::default() };
        let problem = external.held.as_ref().unwrap().problem.clone();
        (external.standing(now).unwrap(), problem)
    };
    assert_eq!(at(0, &company.names), (Standing::Signed, None));
    assert_eq!(at(50, &company.names), (Standing::Signed, None));
    assert_eq!(at(61, &company.names), (Standing::Renewal, None));
    assert_eq!(at(86, &company.names), (Standing::Renewal, None));
    for days in [88, 89, 91] {
        let (standing, problem) = at(days, &company.names);
        assert_eq!(standing, Standing::Awaited, "after {days} days");
        assert!(problem.unwrap().contains("no other has come"));
    }
    let (standing, problem) = at(0, &names(&["db", "new"]));
    assert_eq!((standing, problem.as_deref()), (Standing::Awaited, Some("it does not name new")));
    // Nothing to do with it.
    assert_eq!(held(&chain, std::slice::from_ref(&company.sub), &company.names, "db", company.now), None);
    assert_eq!(External::default().standing(company.now), None);
}

#[test]
fn of_a_damaged_directory_a_good_chain_is_kept_with_its_key() {
    let company = Company::new();
    let (key, other) = (company.key.expose(), pki::new_key(KeyType::P256).unwrap());
    let below = company.sign("db", "sub", 90, ("", ""));
    let line = vec![below.clone(), company.sub.clone()];
    let (leaf, sub, root) = (below.to_pem(), company.sub.to_pem(), company.root.to_pem());
    let roots = std::slice::from_ref(&company.root);
    let kept_at = |files: &[Vec<u8>], names: &Sans, days: i32| {
        let files: Vec<_> = files.iter().cloned().map(Secret::new).collect();
        let found = kept(&files, roots, roots, names, "db", company.now + days * DAY);
        found.map(|(chain, key)| {
            assert_eq!(key_matches(&chain[0], key.expose()), Ok(true));
            chain
        })
    };
    let bytes = |parts: &[&[u8]]| parts.concat();
    let whole = bytes(&[leaf.as_bytes(), sub.as_bytes()]);
    let ca = bytes(&[root.as_bytes(), sub.as_bytes()]);
    let cut = &whole[..whole.len() - 100];
    for (what, files) in [
        ("as it was", vec![whole.clone(), key.to_vec(), ca.clone()]),
        ("in any order", vec![ca.clone(), key.to_vec(), whole.clone()]),
        ("in one file, as MongoDB has it", vec![bytes(&[&whole, key]), ca.clone()]),
        (
            "cut off behind the leaf, which the CA file makes good",
            vec![cut.to_vec(), key.to_vec(), ca.clone()],
        ),
        ("with another pair beside it", vec![other.expose().to_vec(), whole.clone(), key.to_vec()]),
    ] {
        assert_eq!(kept_at(&files, &company.names, 0), Some(line.clone()), "{what}");
    }
    let sound = [whole.clone(), key.to_vec(), ca.clone()];
    assert_eq!(kept_at(&sound, &company.names, 88), None, "it is about to end");
    assert_eq!(kept_at(&sound, &names(&["db", "new"]), 0), None, "it lacks a name");
    for (what, files) in [
        ("nothing", vec![]),
        ("no key", vec![whole.clone(), ca.clone()]),
        ("another key", vec![whole.clone(), other.expose().to_vec()]),
        ("half a key", vec![whole.clone(), key[..key.len() / 2].to_vec()]),
        ("no certificate", vec![key.to_vec(), ca.clone()]),
        ("half a leaf", vec![leaf.as_bytes()[..300].to_vec(), key.to_vec(), ca.clone()]),
        ("an intermediate that nobody has", vec![cut.to_vec(), key.to_vec()]),
    ] {
        assert_eq!(kept_at(&files, &company.names, 0), None, "{what}");
    }
}

/// It is the first end of all that a client verifies that counts.
#[test]
fn a_root_that_ends_first_sets_the_time() {
    let mut company = Company::new();
    company.root = company.ssl.root("brief", "-days 30");
    let chain = [company.sign("db", "brief", 90, ("", ""))];
    let roots = std::slice::from_ref(&company.root);
    let held = held(&chain, roots, &company.names, "db", company.now).unwrap();
    let days = |until: OffsetDateTime| (until - company.now).whole_days();
    assert!((17..=20).contains(&days(held.renew_at)), "{held:?}");
    assert!((26..=27).contains(&days(held.falls_back_at)), "{held:?}");
}
