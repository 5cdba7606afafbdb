//! Builds the real control plane and CoreDNS, unless they were built before: about seven minutes on
//! two CPUs. Tests do so themselves, but others beside them have deadlines.

use sealane_test_kubernetes::{Program, Unavailable, coredns, path};

fn main() {
    for built in [path(Program::KubeApiserver), coredns()] {
        match built {
            Ok(program) => eprintln!("{}", program.display()),
            Err(Unavailable(reason)) => eprintln!("skipped: {reason}"),
        }
    }
}
