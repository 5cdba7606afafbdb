//! Whether a test can run here, and waiting for a state with a deadline.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Once;
use std::time::{Duration, Instant};

use sealane_test_kubernetes::{ControlPlane, Options, Program, Unavailable, coredns, path};

/// Longest wait for any state: generous, because these machines are shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Says why a test is skipped; fails it where everything is required.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var("SEALANE_TEST_REQUIRE").as_deref() != Ok("all"),
        "required, but {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Whether a program is there; if not, says why the test is skipped.
pub(crate) fn program(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    if !found {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Builds the programs that ours is compared with, once; the tests of this process wait meanwhile.
/// That takes the whole machine for minutes, and what runs beside it has deadlines. A machine that
/// cannot build them says so where they are needed.
pub(crate) fn build_programs() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let _ = (path(Program::KubeApiserver), coredns());
    });
}

/// A real control plane, if this machine can have one.
pub(crate) async fn control_plane(options: Options) -> Option<ControlPlane> {
    build_programs();
    match ControlPlane::start(options).await {
        Ok(Ok(plane)) => Some(plane),
        Ok(Err(Unavailable(reason))) => {
            skip(&reason);
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// Asks until the answer is `Ok`, and fails with the last `Err` at the deadline. Blocks its thread.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if Instant::now() >= end => panic!("{what}: {last}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// The address by which this machine is reached from elsewhere, if it has one.
pub(crate) fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent; this only looks at the routes.
    let documentation = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    socket.connect(documentation).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % limit
    }
}
