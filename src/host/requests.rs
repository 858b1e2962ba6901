//! What `dbssl apply` asks of the running agent: one empty file for each container, gone when it is done.

use std::{fs, io, path::PathBuf};

use crate::model::{ContainerName, Roots};

/// The folder to watch; made if it is not there.
pub fn folder(roots: &Roots) -> io::Result<PathBuf> {
    let folder = roots.state.join("requests");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Asks the agent to work on the container.
pub fn place(roots: &Roots, name: &ContainerName) -> io::Result<()> {
    fs::write(folder(roots)?.join(name.as_str()), [])
}

/// Whether the agent has not done it yet.
pub fn is_pending(roots: &Roots, name: &ContainerName) -> bool {
    roots.state.join("requests").join(name.as_str()).exists()
}

/// All that is asked for. What is no container's name is not ours.
pub fn all(roots: &Roots) -> Vec<ContainerName> {
    let entries = fs::read_dir(roots.state.join("requests"));
    entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The agent has done it.
pub fn done(roots: &Roots, name: &ContainerName) {
    // Not being there is what is wanted.
    let _ = fs::remove_file(roots.state.join("requests").join(name.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_pending_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), state: folder.path().join("state") };
        let name: ContainerName = "db".parse().unwrap();
        assert_eq!(all(&roots), []);
        place(&roots, &name).unwrap();
        assert!(is_pending(&roots, &name));
        assert_eq!(all(&roots), std::slice::from_ref(&name));
        done(&roots, &name);
        assert!(!is_pending(&roots, &name));
        done(&roots, &name);
    }
}
