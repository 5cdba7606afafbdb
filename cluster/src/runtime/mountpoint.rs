//! Mount points that the host's file system does not have.
//!
//! A pod's volumes are mounted where its manifest says, `/etc/shop` or `/data`, and the programs run
//! on the host's own files, where such a directory is usually missing and cannot be made: we are not
//! root, and it would be left behind. So the closest directory that does exist is covered, in the
//! container's mount namespace only, by a small tmpfs that shows the same entries (each one bound or,
//! for a symbolic link, copied), and the missing part is made in there. Covering `/` means a new root
//! (`pivot_root(2)`), any other directory is covered by a mount that is moved onto it. What a program
//! creates in a covered directory itself goes with the container, as in an image's file system;
//! everything below its entries is the host's.
//!
//! The caller has a mount namespace of its own whose mounts are private, and runs on one thread.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_move, unmount,
};

/// A directory with more entries is not covered: each entry costs a mount.
const MAX_ENTRIES: usize = 2048;

/// Entries that cannot be looked at are not shown.
const HIDDEN: [io::ErrorKind; 2] = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A single file (`subPath`, `/etc/hosts`).
    File,
}

/// Why a mount point could not be made; the message names the path.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountPointError {
    /// `mountPath` is not absolute or holds `..`.
    #[error("mount path {} must be absolute and without \"..\"", .0.display())]
    BadPath(PathBuf),
    /// A file stands where a directory is mounted, or the reverse.
    #[error("mount path {} exists and is not a {expected}", path.display())]
    WrongKind {
        /// The mount path.
        path: PathBuf,
        /// What the volume is.
        expected: &'static str,
    },
    /// The directory to cover is too large.
    #[error("{} has more than {MAX_ENTRIES} entries, cannot add {} in it", directory.display(), path.display())]
    TooLarge {
        /// The closest directory that exists.
        directory: PathBuf,
        /// The mount path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Makes the mount points of one container.
#[derive(Debug)]
pub(super) struct MountPoints {
    staging: PathBuf,
    covers: Vec<u64>,
}

impl MountPoints {
    /// `staging` is an empty directory of the container that outlives it.
    pub(super) fn new(staging: impl Into<PathBuf>) -> Self {
        Self {
            staging: staging.into(),
            covers: Vec::new(),
        }
    }

    /// Sees to it that `target` exists and is of this kind.
    ///
    /// Nothing is written to the host's file system outside of the staging directory.
    pub(super) fn prepare(&mut self, target: &Path, kind: Kind) -> Result<(), MountPointError> {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !target.is_absolute() || !target.components().all(plain) {
            return Err(MountPointError::BadPath(target.into()));
        }
        match fs::metadata(target) {
            Ok(found) if found.is_dir() == (kind == Kind::Directory) => return Ok(()),
            Ok(_) => {
                return Err(MountPointError::WrongKind {
                    path: target.into(),
                    expected: match kind {
                        Kind::Directory => "directory",
                        Kind::File => "file",
                    },
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("look at", target)(error)),
        }
        let (base, missing) = closest(target)?;
        let device = fs::metadata(&base).map_err(at("look at", &base))?.dev();
        if !self.covers.contains(&device) {
            self.cover(&base, target)?;
        }
        create(&base.join(missing), kind)
    }

    /// Covers a directory by a tmpfs that shows the same entries.
    fn cover(&mut self, base: &Path, target: &Path) -> Result<(), MountPointError> {
        let cover = self.staging.join(self.covers.len().to_string());
        fs::create_dir_all(&cover).map_err(at("make", &cover))?;
        mount("tmpfs", &cover, "tmpfs", MountFlags::empty(), None)
            .map_err(|error| at("mount a tmpfs on", &cover)(error.into()))?;
        // Covering `/` binds the directory that holds the staging directory; without this the new
        // root would hold a copy of itself.
        propagate(&cover, MountPropagationFlags::UNBINDABLE)?;
        show(base, &cover, target)?;
        let mode = fs::metadata(base).map_err(at("look at", base))?.mode() & 0o7777;
        fs::set_permissions(&cover, Permissions::from_mode(mode | 0o700))
            .map_err(at("set the mode of", &cover))?;
        self.covers
            .push(fs::metadata(&cover).map_err(at("look at", &cover))?.dev());
        propagate(&cover, MountPropagationFlags::PRIVATE)?;
        if base == Path::new("/") {
            new_root(&cover).map_err(at("change the root to", &cover))
        } else {
            mount_move(&cover, base).map_err(|error| at("cover", base)(error.into()))
        }
    }
}

/// The closest directory that exists, links resolved, and the rest of the path.
fn closest(target: &Path) -> Result<(PathBuf, PathBuf), MountPointError> {
    for directory in target.ancestors().skip(1) {
        match fs::canonicalize(directory) {
            Ok(base) => {
                let missing = target.strip_prefix(directory).unwrap_or(target);
                return Ok((base, missing.into()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("look at", directory)(error)),
        }
    }
    Err(MountPointError::BadPath(target.into()))
}

fn show(base: &Path, cover: &Path, target: &Path) -> Result<(), MountPointError> {
    let entries = fs::read_dir(base).map_err(at("list", base))?;
    for (count, entry) in entries.enumerate() {
        if count >= MAX_ENTRIES {
            return Err(MountPointError::TooLarge {
                directory: base.into(),
                path: target.into(),
            });
        }
        let entry = entry.map_err(at("list", base))?;
        let (source, shown) = (entry.path(), cover.join(entry.file_name()));
        match fs::symlink_metadata(&source) {
            Ok(found) => show_entry(&source, &found, &shown).map_err(at("show", &source))?,
            // It went away since the listing, or is another user's FUSE mount.
            Err(error) if HIDDEN.contains(&error.kind()) => {}
            Err(error) => return Err(at("look at", &source)(error)),
        }
    }
    Ok(())
}

fn show_entry(source: &Path, found: &Metadata, shown: &Path) -> io::Result<()> {
    if found.is_symlink() {
        symlink(fs::read_link(source)?, shown)
    } else if found.is_dir() {
        fs::create_dir(shown)?;
        Ok(mount_bind_recursive(source, shown)?)
    } else {
        File::create(shown)?;
        Ok(mount_bind(source, shown)?)
    }
}

fn create(path: &Path, kind: Kind) -> Result<(), MountPointError> {
    match kind {
        Kind::Directory => fs::create_dir_all(path).map_err(at("make", path)),
        Kind::File => {
            let parent = path.parent().unwrap_or(path);
            fs::create_dir_all(parent).map_err(at("make", parent))?;
            File::create(path).map(drop).map_err(at("make", path))
        }
    }
}

/// `pivot_root(2)`, "pivot_root(".", ".")": the old root lies over the new one until it is detached.
fn new_root(cover: &Path) -> io::Result<()> {
    std::env::set_current_dir(cover)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

fn propagate(path: &Path, flags: MountPropagationFlags) -> Result<(), MountPointError> {
    mount_change(path, flags).map_err(|error| at("set the propagation of", path)(error.into()))
}

fn at(step: &'static str, path: &Path) -> impl Fn(io::Error) -> MountPointError {
    let path = path.to_owned();
    move |source| MountPointError::Io {
        step,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
