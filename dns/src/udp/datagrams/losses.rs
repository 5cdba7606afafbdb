//! Datagrams that the kernel dropped because a socket's buffer was full.
//!
//! That buffer is the queue of queries: it is bounded in bytes, and what does not fit costs nothing
//! here. The kernel counts it and tells the count in `/proc/net/udp` (proc(5)); asking for it with
//! each datagram (SO_RXQ_OVFL) would make every receive dearer.

use std::os::fd::AsFd;

use nix::sys::stat::fstat;

use super::Datagrams;

impl Datagrams {
    /// How many datagrams were dropped so far. `None` if the kernel does not say.
    pub(in crate::udp) fn dropped_by_kernel(&self) -> Option<u64> {
        let inode = fstat(self.socket.as_fd()).ok()?.st_ino;
        // A socket is listed in the namespace that it was made in, which may be its thread's alone.
        let path = match self.local.is_ipv4() {
            true => "/proc/thread-self/net/udp",
            false => "/proc/thread-self/net/udp6",
        };
        drops_of(&std::fs::read_to_string(path).ok()?, inode)
    }
}

/// The last column of the line whose tenth is the inode.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(9) == Some(&inode))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode ref pointer drops\n  \
                     477: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        \
                     0 12345 2 0000000000000000 0\n 1234: 0100007F:041D 00000000:0000 07 \
                     00000000:00000000 00:00000000 00000000     0        0 12346 2 0000000000000000 77\n";
        assert_eq!(drops_of(table, 12_346), Some(77));
        assert_eq!(drops_of(table, 12_345), Some(0));
        assert_eq!(drops_of(table, 1), None);
    }
}
