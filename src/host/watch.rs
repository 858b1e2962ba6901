//! Folders being watched, and the only file that names `notify`.
//!
//! Folders, never files: a watch on a file is dead after the first rename over it. What is said is only that
//! something may have changed; what, the reader finds out by content. A lost event is caught by whoever looks
//! slowly and regularly.
//!
//! A folder need not be there, and may go and come back. So that this is heard, its parent is watched too, or the
//! nearest folder above it that there is; [`Watch::refresh`] brings the watches to where they have to be.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::debug;

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    folders: Vec<PathBuf>,
    /// By device and inode, as a path that is watched may lead to another folder by now.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    changed: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}: {source}", folder.display())]
pub struct WatchError {
    folder: PathBuf,
    source: notify::Error,
}

impl Watch {
    /// Watches these folders, not what is below their own entries.
    pub fn folders(folders: Vec<PathBuf>) -> Result<Self, WatchError> {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let heard = move |event: notify::Result<Event>| {
            // Reading is no change. An error (an overflow among them) may hide one.
            if event.map_or(true, |event| !event.kind.is_access()) {
                tell.notify_one();
            }
        };
        let folder = folders.first().cloned().unwrap_or_default();
        let watcher = notify::recommended_watcher(heard).map_err(|source| WatchError { folder, source })?;
        let mut watch = Self { watcher, folders, watched: BTreeMap::new(), changed };
        watch.follow()?;
        Ok(watch)
    }

    /// Watches what is there now, where it was not or was something else. What cannot be watched is seen by whoever
    /// looks regularly.
    pub fn refresh(&mut self) {
        if let Err(error) = self.follow() {
            debug!(%error, "a folder is not watched");
        }
    }

    /// Done once something may have changed since it was last done.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn follow(&mut self) -> Result<(), WatchError> {
        let wanted: BTreeMap<_, _> = self.folders.iter().flat_map(|folder| present(folder)).collect();
        if wanted == self.watched {
            return Ok(());
        }
        let gone: Vec<_> = self.watched.iter().filter(|(path, id)| wanted.get(*path) != Some(id)).collect();
        for path in gone.into_iter().map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            // The kernel may have forgotten it with the folder.
            let _ = self.watcher.unwatch(&path);
            self.watched.remove(&path);
        }
        for (folder, id) in wanted {
            if !self.watched.contains_key(&folder) {
                let watched = self.watcher.watch(&folder, RecursiveMode::NonRecursive);
                watched.map_err(|source| WatchError { folder: folder.clone(), source })?;
                self.watched.insert(folder, id);
                // What happened before the watch was there is looked for as well.
                self.changed.notify_one();
            }
        }
        Ok(())
    }
}

/// The folder if it is there, and the nearest one above it.
fn present(folder: &Path) -> Vec<(PathBuf, (u64, u64))> {
    let id = |path: &Path| {
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
        Some((path.to_owned(), (found.dev(), found.ino())))
    };
    let above = folder.ancestors().skip(1).find_map(id);
    id(folder).into_iter().chain(above).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    /// Waits until `done` says so, woken by nothing but the watch.
    async fn heard(watch: &mut Watch, done: impl Fn() -> bool) {
        let all = async {
            while !done() {
                watch.changed().await;
                watch.refresh();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("a change was not heard");
    }

    /// Until nothing comes any more.
    async fn drain(watch: &Watch) {
        while tokio::time::timeout(Duration::from_millis(200), watch.changed()).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_rename_over_a_file_is_heard_each_time() {
        let root = tempfile::tempdir().unwrap();
        // The folder above is watched too, and is nobody else's here.
        let folder = root.path().join("ssl");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("coolify-ca.crt");
        let mut watch = Watch::folders(vec![folder.clone()]).unwrap();
        for content in ["one", "two"] {
            drain(&watch).await;
            fs::write(folder.join("new"), content).unwrap();
            fs::rename(folder.join("new"), &path).unwrap();
            watch.changed().await;
            heard(&mut watch, || fs::read_to_string(&path).unwrap() == content).await;
        }
    }

    #[tokio::test]
    async fn a_folder_may_come_late_and_go_and_come_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("coolify/ssl");
        let path = folder.join("coolify-ca.crt");
        let mut watch = Watch::folders(vec![folder.clone()]).unwrap();
        for _ in 0..3 {
            drain(&watch).await;
            fs::create_dir_all(&folder).unwrap();
            heard(&mut watch, || folder.exists()).await;
            // The watch on the new folder is there before this is written, or it is found by looking.
            watch.refresh();
            drain(&watch).await;
            fs::write(&path, "content").unwrap();
            tokio::time::timeout(Duration::from_secs(10), watch.changed())
                .await
                .expect("the file was not heard");
            drain(&watch).await;
            fs::remove_dir_all(root.path().join("coolify")).unwrap();
            tokio::time::timeout(Duration::from_secs(10), watch.changed())
                .await
                .expect("the end was not heard");
            watch.refresh();
        }
    }

    #[tokio::test]
    async fn where_nothing_changes_nothing_is_heard() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("ssl")).unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        let watch = Watch::folders(vec![root.path().join("ssl")]).unwrap();
        drain(&watch).await;
        fs::write(root.path().join("other/file"), "").unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(500), watch.changed()).await;
        assert!(heard.is_err());
    }
}
