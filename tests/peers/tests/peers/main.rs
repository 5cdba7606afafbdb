//! Real peers and real faults against the gateway and the node proxy.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

mod blackbox;
mod clients;
mod faults;
mod grpc;
mod h2spec;
mod testssl;

/// Whether a program is there. If not, the test says why it is skipped, or fails where everything is
/// required.
fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join(program).is_file());
    let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
    assert!(
        found || !required,
        "required, but {program} is not installed"
    );
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}
