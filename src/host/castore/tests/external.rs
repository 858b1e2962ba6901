//! Roots whose keys are elsewhere, and what they signed.

use super::*;
use crate::{host::certdir::CertFile, model::Owner};

/// Puts these certificates into the directory of the database `db`.
fn serve(host: &Host, chain: &[Certificate]) {
    let pem: String = chain.iter().map(Certificate::to_pem).collect();
    let file = CertFile { name: "server.crt", content: FileContent::Public(pem.as_bytes()), mode: 0o644 };
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let directory = crate::host::certdir::CertDir::open(host.roots.databases().join("db"));
    directory.write(&[file], owner).unwrap();
    directory.prune().unwrap();
}

fn leaf_of(ssl: &OpenSsl, ca: &str) -> Vec<Certificate> {
    let extensions = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=DNS:db\n";
    vec![ssl.signed(&format!("leaf-of-{ca}"), ca, extensions, "")]
}

#[test]
fn the_root_of_what_is_served_stays_in_the_bundle_until_nothing_of_it_is() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    let own = issue(&host.establish(), host.now);
    let (company, other) = (custom(&ssl, "company"), custom(&ssl, "other"));
    let chain = leaf_of(&ssl, "company");
    assert!(matches!(CaStore::lean_on(&host.roots, &chain), Err(CaStoreError::NotPublished(_))));

    host.put(company.to_pem());
    let authority = host.establish();
    let roots = [company.clone()];
    assert_eq!((&authority.uploaded.roots[..], &authority.uploaded.keyless[..]), (&roots[..], &roots[..]));
    assert!(authority.uploaded.signed(&chain) && !authority.uploaded.signed(&own));
    assert_eq!(authority.verifiers(&chain), roots);
    assert_eq!(authority.verifiers(&own), authority.reached);
    CaStore::lean_on(&host.roots, &chain).unwrap();
    serve(&host, &chain);

    // Of no use: nothing changes, and what is served verifies.
    for useless in ["just text\n".to_owned(), chain[0].to_pem()] {
        host.put(&useless);
        let refused = host.establish();
        assert_eq!(refused.uploaded, authority.uploaded);
        verifies(&chain, &pki::certificates_within(&host.bundle()), host.now);
    }
    let recorded = CaStore::recorded(&host.roots, &RULES, host.now).unwrap().unwrap();
    assert!(recorded.serves_as(&authority), "nor is anything else known by the record alone");

    // Another root in its place.
    host.put(other.to_pem());
    let after = host.establish();
    assert!(host.bundle().starts_with(other.to_pem().as_bytes()));
    verifies(&chain, &pki::certificates_within(&host.bundle()), host.now);
    assert_eq!(
        (after.uploaded.roots.clone(), after.uploaded.keyless.clone()),
        (vec![other.clone()], vec![other])
    );
    assert!(!after.uploaded.signed(&chain) && !after.serves_as(&authority));
    let subjects: Vec<_> = after
        .notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::TrustOnly { subject, .. } => Some(subject.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(subjects.len(), 1, "only what a user put there is spoken of: {subjects:?}");
    assert!(subjects[0].contains("CN=other"), "{subjects:?}");
    let issuing = after.issuing.id();
    let may_retire = || CaStore::may_retire(&host.roots, RULES.overlap, issuing, host.now).unwrap();
    assert!(!may_retire());
    CaStore::retire(&host.roots, &RULES, host.now).unwrap();
    assert!(pki::certificates_within(&host.bundle()).contains(&company), "it is still served");

    serve(&host, &own);
    assert!(may_retire());
    CaStore::retire(&host.roots, &RULES, host.now).unwrap();
    assert!(!pki::certificates_within(&host.bundle()).contains(&company));
    assert!(!may_retire());
    assert_eq!(host.establish().uploaded, after.uploaded);
}

#[test]
fn with_a_ca_below_it_nobody_else_is_asked_and_what_was_signed_goes_on() {
    let ssl = OpenSsl::new();
    let host = Host::new();
    host.establish();
    let company = custom(&ssl, "company");
    let chain = leaf_of(&ssl, "company");
    host.put(company.to_pem());
    assert_eq!(host.establish().uploaded.keyless.len(), 1);
    let paths = [("csr/dbssl-ca.csr", "sub.csr"), ("csr/dbssl-ca.ext", "sub.ext")];
    for (from, to) in paths {
        ssl.write(to, fs::read(host.roots.state.join(from)).unwrap());
    }
    ssl.run("x509 -req -days 900 -CA company.crt -CAkey company.key -CAcreateserial -in sub.csr -extfile sub.ext -out sub.crt");
    fs::write(host.roots.signed_ca(), ssl.read("sub.crt")).unwrap();
    let authority = host.establish();
    assert_eq!(authority.issuing.certificate(), &ssl.certificate("sub.crt"));
    assert_eq!(authority.uploaded.keyless, []);
    assert_eq!(authority.uploaded.roots, std::slice::from_ref(&company));
    assert!(authority.uploaded.signed(&chain), "what the company signed is not ours");
    assert!(!authority.uploaded.signed(&issue(&authority, host.now)), "what the CA below it issued is");
    assert_eq!(authority.verifiers(&chain), [company]);
}
