//! A file system that is small enough for a test to fill.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::sandbox::Sandbox;

/// A tmpfs of 2 MiB. Dropping it unmounts it.
pub(crate) struct Small(PathBuf);

impl Small {
    /// `None` where no file system can be mounted. The test then counts as skipped.
    pub(crate) fn new(sandbox: &Sandbox, at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=2m", "none"];
        let mounted = sandbox.command("mount").args(options).arg(at).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        if !is_mounted {
            super::sandbox::skip("no file system can be mounted here");
        }
        is_mounted.then(|| Self(at.to_owned()))
    }

    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
