use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs on a thread in a mount namespace of its own; `None` (and a note) where that takes root.
fn in_mount_namespace<T: Send + 'static>(
    test: impl FnOnce(MountPoints) -> T + Send + 'static,
) -> Option<T> {
    let staging = tempfile::tempdir().unwrap();
    let path = staging.path().to_owned();
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("skipped: a mount namespace cannot be made: {error}");
            return None;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        Some(test(MountPoints::new(path)))
    });
    thread.join().unwrap()
}

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn cluster_b10_missing_mount_paths_are_made_in_the_container_only() {
    let targets = [
        ("below /etc", "/etc/sealane-test/config", Kind::Directory),
        ("a file below /etc", "/etc/sealane-test.conf", Kind::File),
        ("below the root", "/sealane-test/a/b", Kind::Directory),
        ("the root again", "/sealane-test/a/c", Kind::Directory),
        ("a file below the root", "/sealane-test-file", Kind::File),
        (
            "through a link",
            "/var/run/secrets/sealane-test",
            Kind::Directory,
        ),
    ];
    let done = in_mount_namespace(move |mut points| {
        let etc = fs::read_dir("/etc").unwrap().count();
        let root = fs::read_dir("/").unwrap().count();
        for (name, target, kind) in targets {
            points.prepare(Path::new(target), kind).expect(name);
            let is_dir = fs::metadata(target).expect(name).is_dir();
            assert_eq!(is_dir, kind == Kind::Directory, "{name}");
            points.prepare(Path::new(target), kind).expect(name);
        }
        assert_eq!(fs::read_dir("/etc").unwrap().count(), etc + 2);
        assert_eq!(fs::read_dir("/").unwrap().count(), root + 2);
        let seen = shell("cd /; cat /etc/passwd | wc -l; ls -d /sealane-test/a/*; exec true");
        assert!(
            seen.contains("/sealane-test/a/b\n/sealane-test/a/c"),
            "{seen}"
        );
    });
    if done.is_some() {
        for (name, target, _) in targets {
            assert!(!Path::new(target).exists(), "{name} is on the host");
        }
    }
}

#[test]
fn cluster_b10_a_covered_directory_stays_the_same_files() {
    let host = tempfile::tempdir().unwrap();
    let base = host.path().to_owned();
    fs::write(base.join("file"), "before").unwrap();
    fs::create_dir(base.join("dir")).unwrap();
    symlink("file", base.join("link")).unwrap();
    in_mount_namespace(move |mut points| {
        points.prepare(&base.join("new"), Kind::Directory).unwrap();
        fs::write(base.join("file"), "after").unwrap();
        fs::write(base.join("dir/made"), "inside").unwrap();
        assert_eq!(fs::read_to_string(base.join("link")).unwrap(), "after");
        fs::write(base.join("new/only-here"), "").unwrap();
    });
    if host.path().join("dir/made").exists() {
        assert_eq!(
            fs::read_to_string(host.path().join("file")).unwrap(),
            "after"
        );
        assert!(!host.path().join("new").exists());
    }
}

#[test]
fn cluster_b10_bad_mount_paths_are_refused() {
    let mut points = MountPoints::new("/nonexistent");
    for path in ["data", "/a/../b", ""] {
        let error = points
            .prepare(Path::new(path), Kind::Directory)
            .unwrap_err();
        assert!(
            matches!(error, MountPointError::BadPath(_)),
            "{path}: {error}"
        );
    }
    for (path, kind) in [("/etc/passwd", Kind::Directory), ("/etc", Kind::File)] {
        let error = points.prepare(Path::new(path), kind).unwrap_err();
        assert!(
            matches!(error, MountPointError::WrongKind { .. }),
            "{path}: {error}"
        );
    }
}
