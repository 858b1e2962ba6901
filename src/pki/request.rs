//! Certificate requests (PKCS#10, RFC 2986), for a CA whose key is elsewhere.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::{
    KeyType, PkiError, der,
    issue::{self, COMMON_NAME},
    key,
};
use crate::model::{San, Sans, Secret};

/// For a CA below the one that is to sign it. The subject is as of a CA that we make ourselves. `key_pem` is from
/// [`new_key`].
pub fn request_sub_ca(host_name: &str, key_pem: &Secret) -> Result<String, PkiError> {
    let (key, _) = key::read_key(key_pem.expose()).map_err(PkiError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, issue::ca_name(host_name, &issue::key_id(&key)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let csr = params.serialize_request(&*key).map_err(PkiError::Encode)?;
    Ok(pem(csr.der()))
}

/// A key for a request: PKCS#8, PEM.
pub fn new_key(key_type: KeyType) -> Result<Secret, PkiError> {
    let key = key::generate(key_type).map_err(|why| PkiError::Generate(key_type, why))?;
    Ok(key::pkcs8_pem(key.serialized_der()))
}

/// For a server's certificate, with all that it is to hold: a CA that copies what is asked for needs nothing else, and
/// one that does not is given [`leaf_extensions`].
pub fn request_leaf(
    common_name: &str,
    sans: &Sans,
    key_type: KeyType,
    key_pem: &Secret,
) -> Result<String, PkiError> {
    let (key, _) = key::read_key(key_pem.expose()).map_err(PkiError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name: String = common_name.chars().take(COMMON_NAME).collect();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = issue::alternative_names(sans)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = issue::leaf_usages(key_type);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let csr = params.serialize_request(&*key).map_err(PkiError::Encode)?;
    Ok(pem(csr.der()))
}

/// What a server's certificate has to hold, in the words of OpenSSL's configuration files.
pub fn leaf_extensions(sans: &Sans, key_type: KeyType) -> String {
    let names: Vec<_> = sans
        .iter()
        .map(|san| match san {
            San::Dns(name) => format!("DNS:{name}"),
            San::Ip(address) => format!("IP:{address}"),
        })
        .collect();
    let encipherment = if key::is_rsa(key_type) { ",keyEncipherment" } else { "" };
    format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature{encipherment}\nextendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName={}\n",
        names.join(",")
    )
}

fn pem(der: &[u8]) -> String {
    String::from_utf8_lossy(&der::to_pem("CERTIFICATE REQUEST", der)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{
        check_chain, key_matches,
        tests::{OpenSsl, real_now},
    };

    /// By `-extfile`, and by a CA that copies what the request asks for.
    #[test]
    fn what_openssl_makes_of_it_is_a_leaf_that_every_client_takes() {
        let ssl = OpenSsl::new();
        let root = ssl.root("root", "-subj /DC=corp/DC=example/OU=a/OU=b/CN=root");
        let sans: Sans = ["my_db", "my-db", "*.example.com"]
            .map(|name| San::Dns(name.to_owned()))
            .into_iter()
            .chain(["127.0.0.1", "::1"].map(|address| San::Ip(address.parse().unwrap())))
            .collect();
        for key_type in KeyType::ALL {
            let key = new_key(key_type).unwrap();
            ssl.write("db.csr", request_leaf(&"ö".repeat(70), &sans, key_type, &key).unwrap());
            ssl.write("db.ext", leaf_extensions(&sans, key_type));
            ssl.run("req -in db.csr -noout -verify");
            for extensions in ["-extfile db.ext", "-copy_extensions copyall"] {
                ssl.run(&format!("x509 -req -sha256 -days 9 -CA root.crt -CAkey root.key -CAcreateserial -in db.csr {extensions} -out db.crt"));
                let leaf = ssl.certificate("db.crt");
                assert_eq!(leaf.sans(), &sans, "{key_type} {extensions}");
                assert_eq!(key_matches(&leaf, key.expose()), Ok(true));
                ssl.run("verify -x509_strict -purpose sslserver -CAfile root.crt db.crt");
                check_chain(&[leaf], std::slice::from_ref(&root), &sans, real_now()).unwrap();
                let text = ssl.run("x509 -in db.crt -noout -text");
                assert_eq!(text.contains("Key Encipherment"), key::is_rsa(key_type), "{text}");
            }
        }
    }
}
