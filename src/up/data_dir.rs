//! The data directory: one `sealane up` at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::exit::Failure;
use crate::explain::ADMIN_FILE;

/// A data directory that this process holds. The lock ends with the process, however it ends.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, readable for its owner only, and locks it.
    ///
    /// # Errors
    /// It cannot be made or written, or another process has it.
    pub(crate) fn lock(path: &Path) -> Result<Self, Failure> {
        let unusable = |error: std::io::Error| {
            Failure::Input(vec![format!(
                "cannot use data directory {}: {error}; give another one with --data-dir",
                path.display()
            )])
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            // The number is a courtesy: without it the message still says what to do.
            let _ = lock.read_to_string(&mut owner);
            return Err(Failure::Input(vec![format!(
                "another `sealane up` (process {}) uses {}; stop it, or give another --data-dir",
                owner.trim(),
                path.display()
            )]));
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Says where the admin listener is, for as long as the directory is held.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn announce(&self, admin: SocketAddr) -> std::io::Result<()> {
        std::fs::write(self.path.join(ADMIN_FILE), format!("{admin}\n"))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(self.path.join(ADMIN_FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::lock(&path).unwrap();
        let refused = DataDir::lock(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("(process {})", std::process::id())),
            "{refused}"
        );
        drop(held);
        DataDir::lock(&path).unwrap();
    }
}
