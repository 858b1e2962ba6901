//! Folders being watched, and the only file that names `notify`.
//!
//! Folders, never files: a watch on a file is dead after the first rename over it. What is said is only that
//! something may have changed; what, the reader finds out by content. A lost event is caught by whoever looks
//! slowly and regularly.

use std::{path::PathBuf, sync::Arc};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    _watcher: RecommendedWatcher,
    changed: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", folder.display())]
pub struct WatchError {
    folder: PathBuf,
    source: notify::Error,
}

impl Watch {
    /// Watches these folders, not what is below their own entries.
    pub fn folders(folders: &[PathBuf]) -> Result<Self, WatchError> {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let heard = move |event: notify::Result<Event>| {
            // Reading is no change. An error (an overflow among them) may hide one.
            if event.map_or(true, |event| !event.kind.is_access()) {
                tell.notify_one();
            }
        };
        let fail = |folder: &PathBuf| {
            let folder = folder.clone();
            move |source| WatchError { folder, source }
        };
        let nowhere = PathBuf::new();
        let mut watcher =
            notify::recommended_watcher(heard).map_err(fail(folders.first().unwrap_or(&nowhere)))?;
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(fail(folder))?;
        }
        Ok(Self { _watcher: watcher, changed })
    }

    /// Done once something may have changed since it was last done.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_rename_over_a_file_is_heard_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coolify-ca.crt");
        let watch = Watch::folders(&[folder.path().to_owned()]).unwrap();
        for content in ["one", "two"] {
            fs::write(folder.path().join("new"), content).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
            tokio::time::timeout(Duration::from_secs(10), async {
                while fs::read_to_string(&path).unwrap() != content {
                    watch.changed().await;
                }
                watch.changed().await;
            })
            .await
            .unwrap();
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let error = Watch::folders(&["/nowhere/at/all".into()]).unwrap_err();
        assert_eq!(error.to_string(), "cannot watch /nowhere/at/all");
    }
}
