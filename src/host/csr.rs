//! Requests for certificates of single databases that somebody else is to sign, and what came back.
//!
//! ```text
//! csr/NAME.csr         0644: what is to be signed
//! csr/NAME.ext         0644: with these extensions
//! requested/           0700
//!   NAME.key           0600: its key, and in the line before it what it is for
//! signed/NAME.crt      what came back: the certificate, and what stands between it and its root
//! ```
//!
//! # Guarantees
//!
//! - A request that lies there is one for the key that lies there: it goes before a new key comes, and comes after it.
//! - A key is kept until its certificate is in its directory, or until it is asked for no more.
//!
//! A request that is cut off anywhere is made whole by the next [`Paper::ask`].

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::{
    files::{self, FileContent, FileError, Found},
    stamp::{self, QUIET},
};
use crate::model::{ContainerName, Roots, Secret};

/// What the request for a CA is called: no database's can.
const RESERVED: &str = "dbssl-ca";

/// The files of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paper {
    pub request: PathBuf,
    pub extensions: PathBuf,
    pub answer: PathBuf,
    key: PathBuf,
}

/// A key whose certificate is awaited.
pub struct Pending {
    /// What [`Paper::ask`] was told.
    pub purpose: String,
    pub key: Secret,
    /// Whether both parts of the request lie there.
    pub is_whole: bool,
}

impl Paper {
    /// `None` for the one name that is taken.
    pub fn of(roots: &Roots, name: &ContainerName) -> Option<Self> {
        // A name may have dots in it: nothing of it is an extension.
        let file = |folder: PathBuf, end: &str| folder.join(format!("{name}.{end}"));
        (name.as_str() != RESERVED).then(|| Self {
            request: file(roots.requests_to_sign(), "csr"),
            extensions: file(roots.requests_to_sign(), "ext"),
            answer: file(roots.signed(), "crt"),
            key: file(roots.requested(), "key"),
        })
    }

    /// What has to be run where the CA's key is.
    pub fn command(&self) -> String {
        format!(
            "openssl x509 -req -sha256 -days 365 -CA CA.crt -CAkey CA.key -CAcreateserial -in {} -extfile {} -out {}",
            self.request.display(),
            self.extensions.display(),
            self.answer.display()
        )
    }

    /// The key that a certificate is awaited for.
    pub fn pending(&self) -> Result<Option<Pending>, FileError> {
        let Some(found) = files::read(&self.key)? else { return Ok(None) };
        let bytes = found.content.expose();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        Ok(Some(Pending {
            purpose: String::from_utf8_lossy(&bytes[..end]).into_owned(),
            key: Secret::new(bytes.get(end + 1..).unwrap_or_default().to_vec()),
            is_whole: self.request.exists() && self.extensions.exists(),
        }))
    }

    /// Puts a request there. `key`: a new one, or `None` if that which lies there stays. `purpose`: one line.
    pub fn ask(
        &self,
        roots: &Roots,
        purpose: &str,
        key: Option<&Secret>,
        request: &str,
        extensions: &str,
    ) -> Result<(), FileError> {
        for folder in [roots.requests_to_sign(), roots.signed()] {
            files::make_folder(&folder, 0o755)?;
        }
        files::make_folder(&roots.requested(), 0o700)?;
        if let Some(key) = key {
            files::remove_if_present(&self.request)?;
            let file = Secret::new([purpose.as_bytes(), b"\n", key.expose()].concat());
            files::replace(&self.key, FileContent::Secret(&file), 0o600, None)?;
        }
        files::replace(&self.extensions, FileContent::Public(extensions.as_bytes()), 0o644, None)?;
        files::replace(&self.request, FileContent::Public(request.as_bytes()), 0o644, None)
    }

    /// What came back, unless somebody may still be writing it.
    pub fn answer(&self, now: OffsetDateTime) -> Result<Option<Found>, FileError> {
        if stamp::of(&self.answer).is_some_and(|stamp| stamp::rest(stamp.changed, now, QUIET).is_some()) {
            return Ok(None);
        }
        files::read(&self.answer)
    }

    /// Whether what came back is older than the request that lies there: the answer to an earlier one.
    pub fn is_outdated(&self) -> bool {
        let at = |path: &Path| stamp::of(path).map(|stamp| stamp.changed);
        matches!((at(&self.answer), at(&self.key)), (Some(answer), Some(key)) if answer < key)
    }

    /// Nothing is awaited any more.
    pub fn withdraw(&self) -> Result<(), FileError> {
        // The key last: without it nobody would know that there is something to be withdrawn.
        [&self.request, &self.extensions, &self.key]
            .into_iter()
            .try_for_each(|path| files::remove_if_present(path))
    }

    /// The database is none of ours any more.
    pub fn forget(&self) -> Result<(), FileError> {
        self.withdraw()?;
        files::remove_if_present(&self.answer)
    }
}

/// Takes back the requests of all but these databases.
pub fn sweep(roots: &Roots, is_there: impl Fn(&ContainerName) -> bool) -> Result<(), FileError> {
    for name in named(&roots.requested(), ".key").filter(|name| !is_there(name)) {
        if let Some(paper) = Paper::of(roots, &name) {
            paper.forget()?;
        }
    }
    Ok(())
}

/// Whatever came back signed for a database, whether there is one of that name or not.
pub fn answers(roots: &Roots) -> Vec<(ContainerName, stamp::Stamp)> {
    let stamped = named(&roots.signed(), ".crt").filter_map(|name| {
        let stamp = stamp::of(&Paper::of(roots, &name)?.answer)?;
        Some((name, stamp))
    });
    stamped.collect()
}

/// Databases that a certificate is awaited for.
pub fn awaited(roots: &Roots) -> Vec<ContainerName> {
    let mut names: Vec<_> = named(&roots.requested(), ".key").collect();
    names.sort();
    names
}

fn named(folder: &Path, end: &'static str) -> impl Iterator<Item = ContainerName> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(move |entry| entry.file_name().to_str()?.strip_suffix(end)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    struct Desk {
        _folder: tempfile::TempDir,
        roots: Roots,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
            Self { _folder: folder, roots }
        }

        fn paper(&self, name: &str) -> Paper {
            Paper::of(&self.roots, &name.parse().unwrap()).unwrap()
        }

        fn files(&self) -> Vec<String> {
            let mut found: Vec<_> = ["csr", "requested", "signed"]
                .iter()
                .flat_map(|folder| fs::read_dir(self.roots.state.join(folder)).into_iter().flatten())
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            found
        }
    }

    fn ask(desk: &Desk, paper: &Paper, purpose: &str, key: Option<&str>) {
        let key = key.map(|key| Secret::new(key.as_bytes().to_vec()));
        paper.ask(&desk.roots, purpose, key.as_ref(), "request", "extensions").unwrap();
    }

    #[test]
    fn a_key_stays_with_its_purpose_until_it_is_withdrawn() {
        let desk = Desk::new();
        let paper = desk.paper("a.b");
        assert!(paper.pending().unwrap().is_none());
        ask(&desk, &paper, "for a and b", Some("the key\nof it\n"));
        assert_eq!(desk.files(), ["a.b.csr", "a.b.ext", "a.b.key"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&paper.key), mode(&desk.roots.requested())), (0o600, 0o700));
        // Somebody took the request away: the key stays.
        fs::remove_file(&paper.request).unwrap();
        assert!(!paper.pending().unwrap().unwrap().is_whole);
        ask(&desk, &paper, "for a and b", None);
        let pending = paper.pending().unwrap().unwrap();
        assert_eq!(
            (pending.purpose.as_str(), pending.key.expose()),
            ("for a and b", &b"the key\nof it\n"[..])
        );
        assert!(pending.is_whole);
        fs::write(&paper.answer, "").unwrap();
        paper.withdraw().unwrap();
        assert_eq!(desk.files(), ["a.b.crt"]);
        paper.forget().unwrap();
        assert!(desk.files().is_empty());
    }

    #[test]
    fn what_is_being_written_is_not_read_and_what_is_older_than_the_request_is_known() {
        let desk = Desk::new();
        let paper = desk.paper("db");
        fs::create_dir_all(desk.roots.signed()).unwrap();
        fs::write(&paper.answer, "half").unwrap();
        let changed = stamp::of(&paper.answer).unwrap().changed;
        let at = |nanoseconds| OffsetDateTime::from_unix_timestamp_nanos(changed + nanoseconds).unwrap();
        let quiet = i128::try_from(QUIET.as_nanos()).unwrap();
        assert!(paper.answer(at(quiet - 1)).unwrap().is_none());
        assert_eq!(paper.answer(at(quiet)).unwrap().unwrap().content.expose(), b"half");
        // A clock that was set back is no reason to wait.
        assert!(paper.answer(at(-1)).unwrap().is_some());
        assert!(!paper.is_outdated());
        ask(&desk, &paper, "p", Some("k"));
        assert!(paper.is_outdated() || changed == stamp::of(&paper.key).unwrap().changed);
    }

    #[test]
    fn requests_of_databases_that_are_gone_go_and_nothing_else() {
        let desk = Desk::new();
        for name in ["stays", "gone"] {
            ask(&desk, &desk.paper(name), "p", Some("k"));
            fs::write(desk.paper(name).answer, "").unwrap();
        }
        fs::write(desk.paper("never-asked").answer, "").unwrap();
        for file in ["dbssl-ca.csr", "dbssl-ca.ext"] {
            fs::write(desk.roots.requests_to_sign().join(file), "").unwrap();
        }
        fs::write(desk.roots.signed_ca(), "").unwrap();
        sweep(&desk.roots, |name| name.as_str() == "stays").unwrap();
        let left = ["dbssl-ca.crt", "dbssl-ca.csr", "dbssl-ca.ext", "never-asked.crt"];
        let stays = ["stays.crt", "stays.csr", "stays.ext", "stays.key"];
        assert_eq!(desk.files(), [&left[..], &stays[..]].concat());
        assert_eq!(awaited(&desk.roots), ["stays".parse().unwrap()]);
        let mut names: Vec<_> = answers(&desk.roots).into_iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["never-asked", "stays"]);
    }

    #[test]
    fn the_name_of_the_request_for_a_ca_is_no_databases() {
        let desk = Desk::new();
        assert_eq!(Paper::of(&desk.roots, &"dbssl-ca".parse().unwrap()), None);
        assert!(Paper::of(&desk.roots, &"dbssl-ca.csr".parse().unwrap()).is_some());
    }
}
