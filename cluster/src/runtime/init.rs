//! A container's first processes: this program, executed again.
//!
//! A process can only enter or make namespaces for itself, and a multi-threaded program cannot do
//! that between fork and exec with safe code. So the agent starts `sealane __init start`, which is
//! single-threaded: it enters the pod's network namespace, makes mount, UTS and PID namespaces, puts
//! the pod's own `/etc/resolv.conf` and `/etc/hosts` in place and starts `sealane __init reap` as
//! process 1 of the container, which starts the program, reaps orphans and passes signals on.
//! `sealane __init exec` joins the namespaces of a running container instead.
//!
//! Standard input of each is a socket to the agent ([`wire`]): what to run and the namespaces come in
//! over it, never on the command line, where Secrets would be readable by everybody; what became of
//! it goes out. When the socket closes, the agent is gone and the container ends; the parent-death
//! signal says the same once more.

mod child;
mod enter;
mod terminal;
pub(super) mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

/// First argument of the hidden subcommand.
const SUBCOMMAND: &str = "__init";

/// Exit code when the setup itself failed; the reason was sent over the socket.
const SETUP_FAILED: u8 = 125;

/// Runs a container's init if the arguments ask for one. To be called before the process has a
/// second thread.
pub fn main(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let _program = args.next();
    if args.next()? != SUBCOMMAND {
        return None;
    }
    // The agent's own process does without huge pages; what a container's programs use is theirs to
    // say, and the switch would be inherited.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    let stage = args.next().unwrap_or_default();
    let outcome = match stage.to_str() {
        Some("start") => enter::start(),
        Some("reap") => child::reap(),
        Some("exec") => enter::exec(),
        Some("terminal") => terminal::run(args),
        _ => Err(std::io::Error::other("not to be called by hand")),
    };
    Some(outcome.unwrap_or_else(|error| {
        wire::report_failure(&error);
        ExitCode::from(SETUP_FAILED)
    }))
}
