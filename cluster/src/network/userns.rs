//! Becoming root in a user namespace of our own, which is what makes network namespaces, veth pairs
//! and nftables available to an ordinary user.
//!
//! `unshare` succeeding proves little: with `kernel.apparmor_restrict_unprivileged_userns` Ubuntu
//! lets it succeed and then denies every capability inside. So a network namespace is made and
//! thrown away as a proof.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::NetworkError;

/// Puts the process into a new user namespace in which it is root, mapped to the user who started
/// it. The process keeps its network namespace. Does not ask whether the process is root already.
///
/// # Errors
/// [`NetworkError::UserNamespace`] with what forbids it and how to allow it. `EINVAL` means that
/// the process has more than one thread.
pub fn become_root_in_user_namespace() -> Result<(), NetworkError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| forbidden(errno.into()))?;
    // An unprivileged process may map its group only after giving up `setgroups`
    // (user_namespaces(7)).
    for (file, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, content).map_err(forbidden)?;
    }
    prove_capabilities()
}

/// Checks that this process may make network namespaces and change them.
///
/// # Errors
/// [`NetworkError::UserNamespace`] with what forbids it.
pub fn prove_capabilities() -> Result<(), NetworkError> {
    // On a thread of its own, so that the namespace goes away with it.
    let proof = std::thread::Builder::new()
        .name("namespace-proof".into())
        .spawn(|| unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
        .map_err(NetworkError::system("start a thread"))?;
    match proof.join() {
        Ok(result) => result.map_err(forbidden),
        Err(_panic) => Err(NetworkError::Closed),
    }
}

fn forbidden(source: io::Error) -> NetworkError {
    let reason = explain(|path| fs::read_to_string(path).ok());
    NetworkError::UserNamespace { reason, source }
}

/// What forbids user namespaces here, as far as the system's settings tell.
fn explain(read: impl Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).is_some_and(|content| content.trim() == value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "the sysctl kernel.unprivileged_userns_clone is 0; \
         allow it with: sudo sysctl kernel.unprivileged_userns_clone=1"
            .into()
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "the sysctl user.max_user_namespaces is 0; \
         allow it with: sudo sysctl user.max_user_namespaces=15000"
            .into()
    } else if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor takes the capabilities away (kernel.apparmor_restrict_unprivileged_userns is 1); \
         install an AppArmor profile for this program that has `userns,`, or allow it for all with: \
         sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            .into()
    } else {
        "no known sysctl forbids it (kernel.unprivileged_userns_clone, user.max_user_namespaces, \
         kernel.apparmor_restrict_unprivileged_userns); a seccomp filter, as in a container, \
         or a security module may"
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_the_setting_and_the_way_on() {
        for (path, value, expected) in [
            (
                "/proc/sys/kernel/unprivileged_userns_clone",
                "0\n",
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                "/proc/sys/user/max_user_namespaces",
                "0\n",
                "user.max_user_namespaces=15000",
            ),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "AppArmor profile",
            ),
            (
                "/proc/sys/user/max_user_namespaces",
                "15000\n",
                "seccomp filter",
            ),
        ] {
            let reason = explain(|asked| (asked == path).then(|| value.to_owned()));
            assert!(reason.contains(expected), "{path}: {reason}");
        }
        let error = forbidden(io::Error::from_raw_os_error(1)).to_string();
        assert!(error.contains("--pod-network=loopback"), "{error}");
    }
}
