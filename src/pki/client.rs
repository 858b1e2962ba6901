//! Certificates by which clients show who they are.
//!
//! The profile is the leaf's, but for extendedKeyUsage, which is clientAuth alone, and for the names: there are none. A
//! server's certificate is none of a client's and the other way round, so that what one container loses is of no use
//! to pose as the other kind.

use rcgen::{DnType, ExtendedKeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::{
    Ca, KeyType, Leaf, PkiError,
    issue::{COMMON_NAME, params},
};

/// A client's certificate to issue.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// The common name, whole: servers take it for the user.
    pub user: &'a str,
    /// O and OU of the subject. MongoDB takes a client whose O, OU and DC are all its own for a member of its cluster, and
    /// one without any it takes for no user.
    pub organization: Option<(&'a str, &'a str)>,
    pub key_type: KeyType,
    pub lifetime: Duration,
}

impl Ca {
    /// Issue a client's certificate with a new key.
    pub fn issue_client(&self, request: &ClientRequest<'_>, now: OffsetDateTime) -> Result<Leaf, PkiError> {
        let length = request.user.chars().count();
        if length == 0 || length > COMMON_NAME || request.user.contains(char::is_control) {
            return Err(PkiError::User(request.user.chars().take(80).collect()));
        }
        let mut params = params(request.lifetime, self.end(), now)?;
        let name = &mut params.distinguished_name;
        if let Some((organization, unit)) = request.organization {
            name.push(DnType::OrganizationName, organization);
            name.push(DnType::OrganizationalUnitName, unit);
        }
        name.push(DnType::CommonName, request.user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue_leaf(params, request.key_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{
        ChainProblem, check_chain, key_matches, test_now,
        tests::{OpenSsl, real_now},
    };

    fn request(user: &str) -> ClientRequest<'_> {
        ClientRequest { user, organization: None, key_type: KeyType::P256, lifetime: 90 * Duration::DAY }
    }

    fn ca(now: OffsetDateTime) -> Ca {
        Ca::generate("h", KeyType::P256, 3650 * Duration::DAY, now).unwrap()
    }

    #[test]
    fn openssl_takes_it_for_a_clients_and_for_no_servers() {
        let (ssl, now) = (OpenSsl::new(), real_now());
        let ca = ca(now);
        ssl.write("ca.crt", ca.certificate().to_pem());
        for key_type in KeyType::ALL {
            let leaf = ca.issue_client(&ClientRequest { key_type, ..request("app") }, now).unwrap();
            ssl.write("leaf.crt", leaf.certificate.to_pem());
            ssl.run("verify -x509_strict -purpose sslclient -CAfile ca.crt leaf.crt");
            assert!(!ssl.try_run("verify -x509_strict -purpose sslserver -CAfile ca.crt leaf.crt").0);
            assert_eq!(key_matches(&leaf.certificate, leaf.key.expose()), Ok(true));
            let roots = [ca.certificate().clone()];
            let found = check_chain(&[leaf.certificate], &roots, &crate::model::Sans::new(), now);
            assert_eq!(found, Err(ChainProblem::NotForServers { at: 0 }));
            let text = ssl.run("x509 -in leaf.crt -noout -text");
            for line in [
                "Basic Constraints: critical\n                CA:FALSE\n",
                "Extended Key Usage: \n                TLS Web Client Authentication\n",
                "X509v3 Subject Key Identifier",
                "X509v3 Authority Key Identifier",
            ] {
                assert!(text.contains(line), "{text}");
            }
            assert!(!text.contains("Subject Alternative Name"), "{text}");
        }
    }

    #[test]
    fn the_user_is_the_common_name_to_the_letter_and_an_organization_stands_before_it() {
        let now = test_now();
        let ca = ca(now);
        let leaf = ca.issue_client(&request("app"), now).unwrap().certificate;
        assert_eq!(leaf.subject_oneline().as_deref(), Some("/CN=app"));
        assert_eq!(leaf.not_after(), now + 90 * Duration::DAY);
        assert_eq!(leaf.aki(), ca.certificate().ski());
        let organization = Some(("dbssl", "clients"));
        let leaf = ca.issue_client(&ClientRequest { organization, ..request("app") }, now).unwrap();
        assert_eq!(leaf.certificate.subject_rfc2253().as_deref(), Some("CN=app,OU=clients,O=dbssl"));
        // A user's name that is cut would be another user.
        for bad in ["", &"x".repeat(65), "a\nb"] {
            assert!(matches!(ca.issue_client(&request(bad), now), Err(PkiError::User(_))), "{bad:?}");
        }
        assert!(ca.issue_client(&request(&"ö".repeat(64)), now).is_ok());
        let late = ClientRequest { lifetime: 10_000 * Duration::DAY, ..request("app") };
        assert_eq!(
            ca.issue_client(&late, now).unwrap().certificate.not_after(),
            ca.certificate().not_after()
        );
    }
}
