//! The end of a sidecar: it must not leave before its application (O6).
//!
//! The application may use the network until its last moment, and nobody tells an ordinary container
//! that another one has ended. But the kernel shows every socket of the pod's network namespace
//! (`/proc/net/tcp`): as long as one is open that is not ours, somebody is there.
//!
//! In order: connections to the pod are taken for the drain delay, in which the cluster learns that the
//! pod is leaving; those from the pod until its application is gone; what is in flight is finished;
//! all of it within the delay and the grace. A native sidecar gets SIGTERM when the application has
//! ended (KEP-753), so it only finishes.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::serve::workers::Workers;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// How long the application has to be without a socket to count as gone.
const QUIET: Duration = Duration::from_millis(300);

/// What is left of the time for what is in flight when the application never goes.
const LAST: Duration = Duration::from_secs(1);

/// Leaves with the application, or without it after `delay` and `grace`. `watching` is ended before
/// the last connections are: the one to the API server may be among those that we carry.
pub(crate) async fn leave(
    workers: Workers,
    waits_for_app: bool,
    (delay, grace): (Duration, Duration),
    watching: CancellationToken,
) {
    let begun = Instant::now();
    let deadline = begun + delay + grace;
    if waits_for_app {
        tracing::info!("draining: inbound for {delay:?} more, outbound until the pod is quiet");
        // Expired: the application goes on, but connections to it have an end.
        let _ = timeout_at(begun + delay, gone()).await;
        workers.stop_inbound();
        if timeout_at(deadline - LAST.min(grace), gone())
            .await
            .is_err()
        {
            tracing::warn!("the application still uses the network at the end of the grace");
        }
    }
    watching.cancel();
    workers
        .drain(deadline.saturating_duration_since(Instant::now()))
        .await;
}

/// Waits until the pod's namespace has no socket but ours, for a while.
async fn gone() {
    let mut quiet_since = None;
    loop {
        if others_have_sockets() {
            quiet_since = None;
        } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Whether somebody else has a TCP socket in this namespace. If the kernel does not say: no, because
/// waiting would be in vain.
fn others_have_sockets() -> bool {
    let own = own_sockets();
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .any(|table| table.lines().filter_map(inode).any(|it| !own.contains(&it)))
}

/// The inodes of the sockets that this process has open.
fn own_sockets() -> HashSet<u64> {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    open.filter_map(|entry| {
        let target = std::fs::read_link(entry.ok()?.path()).ok()?;
        let number = target.to_str()?.strip_prefix("socket:[")?;
        number.strip_suffix(']')?.parse().ok()
    })
    .collect()
}

/// The inode of a line of `/proc/net/tcp`. A socket that no process has any more, as after its close or
/// in TIME_WAIT, has none, and neither has the heading.
fn inode(line: &str) -> Option<u64> {
    let inode = line.split_ascii_whitespace().nth(9)?.parse().ok()?;
    (inode != 0).then_some(inode)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn proxy_o6_a_socket_counts_while_a_process_has_it() {
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let listens = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 48213 1 0000000000000000 100 0 0 10 0";
        let waits = "   1: 0100007F:1F40 0100007F:D2F0 06 00000000:00000000 03:000015F1 00000000     0        0 0 3 0000000000000000";
        for (line, expected) in [
            (heading, None),
            (listens, Some(48213)),
            (waits, None),
            ("", None),
        ] {
            assert_eq!(inode(line), expected, "{line}");
        }
    }

    #[test]
    fn proxy_o6_our_own_sockets_are_known_by_their_inode() {
        let before = own_sockets();
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let new: Vec<u64> = own_sockets().difference(&before).copied().collect();
        assert!(
            table.lines().filter_map(inode).any(|it| new.contains(&it)),
            "{new:?}"
        );
    }
}
