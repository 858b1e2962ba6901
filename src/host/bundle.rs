//! The trust bundle, `coolify-ca.crt`: every root that a client needs, in one file.
//!
//! Applications mount this single file, and Docker pins a single-file mount to its inode: a file renamed over
//! it is never seen by them. And no application may read half of it: when a file was cut to nothing and
//! written anew, one concurrent read in six was torn.
//!
//! # Guarantees
//!
//! - The file keeps its inode. It is never renamed over by this module.
//! - What is added is added with `O_APPEND`, and what was there stays as it was, in front. What one write cannot add so
//!   that nobody reads half of it is hidden until it is there, and what has to go before it is written over or cut off
//!   (see `bundle/rewrite.rs`).
//! - A new file has all of its content when it gets its name, and takes no name that is in use.
//! - No link is followed: the folder may belong to another user than root.
//!
//! # Caveats
//!
//! Others write to this file too. Between the last look at it and our write it can change, for some microseconds;
//! whoever calls [`TrustBundle::ensure`] has to call it again when the file changed.

mod rewrite;

use std::{
    io,
    path::{Path, PathBuf},
};

use super::files::{self, FileError};
use crate::pki::{self, Certificate, ReadProblem};

/// Between two steps of a change in place: nobody takes that long to read so small a file.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The file `coolify-ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    path: PathBuf,
}

/// Why the bundle could not be read or added to.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(
        "{} is a folder, which Docker makes when a container mounts the file before it exists; remove that container and the folder",
        .0.display()
    )]
    Folder(PathBuf),
    #[error("add a CA to {}: it is left untouched, so move it away or replace it by PEM certificates", path.display())]
    Unfit {
        path: PathBuf,
        #[source]
        problem: ReadProblem,
    },
    #[error("create {}: it comes and goes", .0.display())]
    Unsteady(PathBuf),
    #[error("change {}: somebody else wrote it meanwhile", .0.display())]
    Overtaken(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

impl TrustBundle {
    /// Touches nothing.
    pub fn open(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes; `None` if there is no file.
    pub fn read(&self) -> Result<Option<Vec<u8>>, BundleError> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => return Err(BundleError::Folder(self.path.clone())),
            Err(why) if why.kind() == io::ErrorKind::NotADirectory => {
                return Err(FileError::new("read", &self.path, why).into());
            }
            _ => {}
        }
        Ok(files::read(&self.path)?.map(|found| found.content.expose().to_vec()))
    }

    /// Whether this very certificate is in the file, where readers find it.
    pub fn contains(&self, certificate: &Certificate) -> Result<bool, BundleError> {
        let bytes = self.read()?.unwrap_or_default();
        Ok(pki::extendable(&bytes).is_ok_and(|held| held.contains(certificate)))
    }

    /// Add those of `wanted` that are missing, behind all that is there; whether anything was added.
    /// Without a file one is made, 0644, and its folder, 0755.
    pub fn ensure(&self, wanted: &[Certificate]) -> Result<bool, BundleError> {
        if self.read()?.is_none() && self.create(&self.addition(&[], wanted)?)? {
            return Ok(true);
        }
        // It was there, or somebody else made it in between.
        let bytes = self.read()?.ok_or_else(|| BundleError::Unsteady(self.path.clone()))?;
        let addition = self.addition(&bytes, wanted)?;
        self.extend(&bytes, &[bytes.as_slice(), &addition].concat())?;
        Ok(!addition.is_empty())
    }

    /// What has to be added to `bytes` so that they hold all of `wanted`; empty if they do.
    ///
    /// # Errors
    /// If nothing can be added so that readers would find it.
    pub(crate) fn addition(&self, bytes: &[u8], wanted: &[Certificate]) -> Result<Vec<u8>, BundleError> {
        let held = pki::extendable(bytes)
            .map_err(|problem| BundleError::Unfit { path: self.path.clone(), problem })?;
        let missing: String =
            wanted.iter().filter(|one| !held.contains(one)).map(Certificate::to_pem).collect();
        let line_open = !missing.is_empty() && bytes.last().is_some_and(|last| *last != b'\n');
        Ok(if line_open { format!("\n{missing}") } else { missing }.into_bytes())
    }

    /// Make the file; `false` if there is one.
    pub(crate) fn create(&self, bytes: &[u8]) -> Result<bool, BundleError> {
        if let Some(folder) = self.path.parent() {
            files::make_folder(folder, 0o755)?;
        }
        Ok(files::publish(&self.path, bytes, 0o644)?)
    }

    /// Make the content, which was `from` when it was read, `to`. Readers find whole blocks meanwhile, and the inode
    /// stays. Cut off by a crash it leaves something else, which this can be told to take up again.
    ///
    /// # Errors
    /// [`BundleError::Overtaken`] if somebody else wrote it since, or while it is being changed: that is left as it is.
    pub(crate) fn rewrite(&self, from: &[u8], to: &[u8]) -> Result<(), BundleError> {
        if to.starts_with(from) {
            return self.extend(from, to);
        }
        self.unless_overtaken(rewrite::rewrite(&self.path, from, to, PAUSE)?)
    }

    /// Whether [`Self::rewrite`] from `from` to `to`, cut off by a crash, leaves `found`, which then is nobody's wish.
    pub(crate) fn is_on_the_way(found: &[u8], from: &[u8], to: &[u8]) -> bool {
        rewrite::passes(found, from, to)
    }

    /// Make the content `to`. When it was read it was `found`: a beginning of `to`, or one that [`Self::is_half_added`].
    ///
    /// # Errors
    /// As [`Self::rewrite`].
    pub(crate) fn extend(&self, found: &[u8], to: &[u8]) -> Result<(), BundleError> {
        self.unless_overtaken(found == to || rewrite::extend(&self.path, found, to)?)
    }

    /// Whether [`Self::extend`] to `to`, cut off by a crash, leaves `found`, which then is nobody's wish.
    pub(crate) fn is_half_added(found: &[u8], to: &[u8]) -> bool {
        rewrite::is_half_shown(found, to)
    }

    fn unless_overtaken(&self, done: bool) -> Result<(), BundleError> {
        if done { Ok(()) } else { Err(BundleError::Overtaken(self.path.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
        sync::atomic::{AtomicBool, Ordering},
    };

    use rustls_pki_types::{CertificateDer, pem::PemObject};
    use time::Duration;

    use super::*;
    use crate::pki::{Ca, KeyType};

    fn root() -> Certificate {
        Ca::generate("h", KeyType::P256, Duration::days(10), pki::test_now()).unwrap().certificate().clone()
    }

    fn fresh() -> (tempfile::TempDir, TrustBundle) {
        let folder = tempfile::tempdir().unwrap();
        let bundle = TrustBundle::open(folder.path().join("coolify/ssl/coolify-ca.crt"));
        (folder, bundle)
    }

    #[test]
    fn it_is_made_and_added_to_and_keeps_its_inode() {
        let (_folder, bundle) = fresh();
        let (a, b, c) = (root(), root(), root());
        assert_eq!(bundle.read().unwrap(), None);
        assert!(bundle.ensure(std::slice::from_ref(&a)).unwrap());
        let found = fs::metadata(bundle.path()).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o644);
        assert!(!bundle.ensure(std::slice::from_ref(&a)).unwrap());
        assert!(bundle.ensure(&[a.clone(), b.clone(), c.clone()]).unwrap());
        assert_eq!(pki::read_pem(&bundle.read().unwrap().unwrap()).unwrap(), [a, b, c.clone()]);
        assert_eq!(fs::metadata(bundle.path()).unwrap().ino(), found.ino());
        assert!(bundle.contains(&c).unwrap() && !bundle.contains(&root()).unwrap());
    }

    #[test]
    fn what_a_user_wrote_stays_in_front() {
        let (_folder, bundle) = fresh();
        let (theirs, ours) = (root(), root());
        bundle.create(b"").unwrap();
        for text in [
            String::new(),
            theirs.to_pem(),
            theirs.to_pem().trim_end().to_owned(),
            theirs.to_pem().replace('\n', "\r\n"),
            "only text".to_owned(),
        ] {
            fs::write(bundle.path(), &text).unwrap();
            assert!(bundle.ensure(std::slice::from_ref(&ours)).unwrap());
            let now = bundle.read().unwrap().unwrap();
            assert!(now.starts_with(text.as_bytes()));
            assert_eq!(pki::read_pem(&now).unwrap().last(), Some(&ours), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_added_to_is_left_alone() {
        let (_folder, bundle) = fresh();
        let (theirs, ours) = (root(), root());
        bundle.create(b"").unwrap();
        let pem = theirs.to_pem();
        for bytes in [
            theirs.der().to_vec(),
            pem.as_bytes()[..pem.len() / 2].to_vec(),
            format!("{}{pem}", pem.trim_end()).into_bytes(),
            pem.replacen("MII", "M*I", 1).into_bytes(),
            vec![0; 100],
        ] {
            fs::write(bundle.path(), &bytes).unwrap();
            assert!(matches!(bundle.ensure(std::slice::from_ref(&ours)), Err(BundleError::Unfit { .. })));
            assert_eq!(fs::read(bundle.path()).unwrap(), bytes);
        }
    }

    #[test]
    fn neither_a_link_nor_a_folder_is_taken_for_it() {
        let (folder, bundle) = fresh();
        let target = folder.path().join("target");
        fs::write(&target, "theirs").unwrap();
        fs::create_dir_all(bundle.path().parent().unwrap()).unwrap();
        symlink(&target, bundle.path()).unwrap();
        assert!(bundle.ensure(&[root()]).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
        fs::remove_file(bundle.path()).unwrap();
        symlink(folder.path().join("nowhere"), bundle.path()).unwrap();
        assert!(bundle.ensure(&[root()]).is_err());
        fs::remove_file(bundle.path()).unwrap();
        fs::create_dir(bundle.path()).unwrap();
        assert!(matches!(bundle.ensure(&[root()]), Err(BundleError::Folder(_))));
    }

    #[test]
    fn nobody_reads_half_of_it() {
        // The file becomes several pages long.
        let roots: Vec<_> = (0..20).map(|_| root()).collect();
        for _ in 0..10 {
            let (_folder, bundle) = fresh();
            bundle.ensure(&roots[..1]).unwrap();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let bytes = fs::read(bundle.path()).unwrap();
                        // As OpenSSL does, it passes over an end line without its begin line.
                        let seen: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
                        assert_eq!(seen.unwrap()[0].as_ref(), roots[0].der());
                    }
                });
                for count in 2..=roots.len() {
                    bundle.ensure(&roots[..count]).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            assert!(bundle.read().unwrap().unwrap().len() > 2 * 4096);
        }
    }
}
