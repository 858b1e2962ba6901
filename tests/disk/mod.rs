//! A disk that can be filled. To mount it needs root.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

/// A file system of its own size, for as long as the variable lives.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn mount(at: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output();
        let Output { status, stderr, .. } = mounted.unwrap();
        assert!(status.success(), "mount (needs root): {}", String::from_utf8_lossy(&stderr));
        Self(at)
    }

    /// Until nothing goes in any more.
    pub fn fill(&self) {
        let mut filler = fs::File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        while std::io::Write::write(&mut filler, &[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    pub fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What has not ended yet keeps it; the name goes.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
