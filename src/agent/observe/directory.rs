//! The certificate directory, judged: whole files, the right owner and modes, keys that belong to their certificates.
//!
//! Everything in it is read as its server will: one file that it cannot read keeps the database from starting.

use super::Subject;
use crate::{
    decide::plan::Directory,
    engine::{File, Holds},
    host::certdir::{CertDir, Held},
    model::Secret,
    pki::{Certificate, extendable, key_matches, read_pem},
};

pub fn directory(subject: &Subject) -> Directory {
    let files = subject.spec.files(subject.demand.client_auth);
    let wanted: Vec<_> = files.iter().map(|file| (file.name, file.mode)).collect();
    let held = match CertDir::open(subject.certificates.clone()).read(&wanted, subject.owner) {
        Held::Missing => return Directory::Missing,
        Held::Damaged(what) => return Directory::Damaged(what),
        Held::Sound { files } => files,
    };
    let holding = |holds: &[Holds]| {
        let file: &File = files.iter().find(|file| holds.contains(&file.holds))?;
        Some((file.name, held.get(file.name)?))
    };
    let server = (holding(&[Holds::Chain, Holds::ChainAndKey]), holding(&[Holds::Key, Holds::ChainAndKey]));
    let (Some(chain), Some(key)) = server else {
        return Directory::Damaged(vec!["a file is missing".to_owned()]);
    };
    let client = (
        holding(&[Holds::ClientChain, Holds::ClientChainAndKey]),
        holding(&[Holds::ClientKey, Holds::ClientChainAndKey]),
    );
    let judged = pair(chain, key).and_then(|chain| {
        if let (Some(chain), Some(key)) = client {
            pair(chain, key)?;
        }
        if let Some((name, ca)) = holding(&[Holds::Ca]) {
            read_pem(ca.expose()).map_err(|error| format!("{name} cannot be read: {error}"))?;
        }
        Ok(chain)
    });
    judged.map_or_else(|why| Directory::Damaged(vec![why]), Directory::Sound)
}

/// A chain and the key of its leaf, by the names of their files, which may be one.
fn pair(chain: (&str, &Secret), key: (&str, &Secret)) -> Result<Vec<Certificate>, String> {
    let ((chain_file, chain), (key_file, key)) = (chain, key);
    let read = if chain_file == key_file { extendable } else { read_pem };
    let chain = read(chain.expose()).map_err(|error| format!("{chain_file} cannot be read: {error}"))?;
    let leaf = chain.first().ok_or_else(|| format!("{chain_file} is empty"))?;
    match key_matches(leaf, key.expose()) {
        Ok(true) => Ok(chain),
        Ok(false) => Err(format!("the key in {key_file} belongs to another certificate than {chain_file}")),
        Err(error) => Err(format!("the key in {key_file} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::KeyType,
        pki::{Ca, LeafRequest},
    };

    #[test]
    fn a_chain_goes_with_its_own_key_only() {
        let now = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let day = time::Duration::DAY;
        let ca = Ca::generate("host", KeyType::P256, day * 400, now).unwrap();
        let sans = [crate::model::San::Dns("db".to_owned())].into();
        let request = LeafRequest { common_name: "db", sans: &sans, key_type: KeyType::P256, lifetime: day };
        let (leaf, other) = (ca.issue(&request, now).unwrap(), ca.issue(&request, now).unwrap());
        let chain = Secret::new(leaf.certificate.to_pem().into_bytes());
        let garbage = Secret::new(b"garbage".to_vec());
        let with = |chain, key| pair(("server.crt", chain), ("server.key", key)).map(|chain| chain.len());
        assert_eq!(with(&chain, &leaf.key), Ok(1));
        assert!(with(&chain, &other.key).unwrap_err().contains("another certificate"));
        assert!(with(&chain, &garbage).unwrap_err().starts_with("the key in server.key cannot be read"));
        assert!(with(&garbage, &leaf.key).unwrap_err().starts_with("server.crt cannot be read"));
        let both = Secret::new([chain.expose(), leaf.key.expose()].concat());
        assert_eq!(pair(("one.pem", &both), ("one.pem", &both)).map(|chain| chain.len()), Ok(1));
    }
}
