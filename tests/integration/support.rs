//! A cluster for each test, clients for it, and waiting for a state with a deadline.

pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod mode;
pub(crate) mod pem;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest wait for any state of a cluster: generous, because these machines are shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a program is there. If not, the test says why it is skipped, or fails where everything is
/// required.
pub(crate) fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Says why a test is skipped; fails it where everything is required.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var("SEALANE_TEST_REQUIRE").as_deref() != Ok("all"),
        "required, but {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Asks until the answer is `Ok`, and fails with the last `Err` at the deadline.
pub(crate) async fn eventually<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if Instant::now() >= until => panic!("{what}: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A command's standard output; fails with everything that it printed if it failed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}
