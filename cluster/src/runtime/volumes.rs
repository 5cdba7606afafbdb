//! Volumes as directories (B10): `emptyDir`, ConfigMaps, Secrets, the downward API, projections.
//!
//! Files from the API are written as kubelets do: a directory with the time in its name, a link
//! `..data` to it that is swapped in one step, and a link a top-level name into `..data`. So a
//! program never sees half of a change.

mod payload;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::context::Context;

/// The link to the current files.
const DATA: &str = "..data";

/// A file's contents and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    contents: Vec<u8>,
    mode: u32,
}

/// Files by their path within the volume.
type Payload = BTreeMap<String, File>;

/// Why a volume cannot be made; tried again until it can. The messages are the events' ones.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    /// What it is made of is missing.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    Source {
        /// The volume.
        volume: String,
        /// What is missing.
        reason: String,
    },
    /// The API did not answer.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// The files cannot be written.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {error}")]
    Io {
        /// The volume.
        volume: String,
        /// Why.
        error: io::Error,
    },
}

/// Makes or updates all volumes of a pod.
///
/// # Errors
/// What a volume is made of is missing, or the files cannot be written.
pub(super) async fn make(ctx: &Context, pod: &Pod, ip: Option<IpAddr>) -> Result<(), VolumeError> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        if volume.host_path.is_some() {
            continue;
        }
        let directory = ctx.volume_dir(pod).join(&volume.name);
        let failed = |error| VolumeError::Io {
            volume: volume.name.clone(),
            error,
        };
        let payload = Box::pin(payload::of(ctx, pod, volume, ip)).await?;
        std::fs::create_dir_all(&directory).map_err(failed)?;
        if let Some(payload) = payload {
            write(&directory, &payload).map_err(failed)?;
        }
    }
    Ok(())
}

/// Puts the files in place, all in one step; does nothing if they are there already.
fn write(directory: &Path, payload: &Payload) -> io::Result<()> {
    let data = directory.join(DATA);
    let old = std::fs::read_link(&data).ok();
    if old.is_some() && *payload == read(&data)? {
        return Ok(());
    }
    let name = format!("..{}", Timestamp::now().as_nanosecond());
    let fresh = directory.join(&name);
    std::fs::create_dir_all(&fresh)?;
    for (path, file) in payload {
        let path = inside(&fresh, path)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.contents)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
    }
    let swap = directory.join("..data_tmp");
    let _ = std::fs::remove_file(&swap);
    symlink(&name, &swap)?;
    std::fs::rename(&swap, &data)?;
    link_names(directory, payload)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(directory.join(old))?;
    }
    Ok(())
}

/// Top-level names as links into the current files; those that are gone go.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.keys().map(|path| first(path)).collect();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            std::fs::remove_file(directory.join(name))?;
        }
    }
    for name in wanted {
        let link = directory.join(&name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}

/// The files that are there.
fn read(directory: &Path) -> io::Result<Payload> {
    let mut payload = Payload::new();
    let mut pending = vec![String::new()];
    while let Some(prefix) = pending.pop() {
        for entry in std::fs::read_dir(directory.join(&prefix))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            if entry.file_type()?.is_dir() {
                pending.push(path);
                continue;
            }
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            let contents = std::fs::read(entry.path())?;
            payload.insert(path, File { contents, mode });
        }
    }
    Ok(payload)
}

/// A path that stays inside: the API's validation says so, the file system has to be sure.
fn inside(directory: &Path, path: &str) -> io::Result<std::path::PathBuf> {
    let path = Path::new(path);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain {
        return Err(io::Error::other(format!(
            "{} leaves the volume",
            path.display()
        )));
    }
    Ok(directory.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File {
            contents: text.into(),
            mode: 0o640,
        };
        let files = files.iter();
        files
            .map(|(path, text)| ((*path).to_owned(), file(text)))
            .collect()
    }

    #[test]
    fn cluster_b10_files_change_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(text("a").as_deref(), Some("1"));
        assert_eq!(text("sub/b").as_deref(), Some("2"));
        assert!(
            dir.path()
                .join("a")
                .symlink_metadata()
                .unwrap()
                .is_symlink()
        );
        let mode = std::fs::metadata(dir.path().join("a"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o640);

        let before = std::fs::read_link(dir.path().join(DATA)).unwrap();
        write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).unwrap(), before);

        write(dir.path(), &payload(&[("a", "new")])).unwrap();
        assert_eq!(text("a").as_deref(), Some("new"));
        assert_eq!(text("sub/b"), None);
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn cluster_b10_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x"] {
            assert!(
                write(dir.path(), &payload(&[(path, "")])).is_err(),
                "{path}"
            );
        }
    }
}
