//! The pod network as an ordinary user has it. Making a user namespace needs a process with one
//! thread and cannot be undone, so this has a `main` of its own and runs each case in a process of
//! its own; run by root, the case becomes `nobody` first.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use sealane_cluster::network::userns::become_root_in_user_namespace;
use sealane_cluster::network::{ClusterNetwork, ClusterNetworkOptions, NetworkError, PodNetwork};

type Case = fn() -> Result<(), Box<dyn Error>>;

const CASES: [(&str, Case); 3] = [
    (
        "missing_capabilities_are_explained",
        missing_capabilities_are_explained,
    ),
    (
        "pods_reach_each_other_without_root",
        pods_reach_each_other_without_root,
    ),
    (
        "a_forbidden_namespace_is_explained",
        a_forbidden_namespace_is_explained,
    ),
];

fn main() -> ExitCode {
    if let Some(wanted) = env::var_os("ROOTLESS_CASE") {
        let case = CASES.iter().find(|(name, _)| *name == wanted);
        let (_, run) = case.expect("the parent passes the name of a case");
        return match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}: {error:?}");
                ExitCode::FAILURE
            }
        };
    }
    let this = env::current_exe().expect("a running program has a path");
    let mut result = ExitCode::SUCCESS;
    for (name, _) in CASES {
        let status = Command::new(&this).env("ROOTLESS_CASE", name).status();
        let passed = status.is_ok_and(|status| status.success());
        eprintln!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            result = ExitCode::FAILURE;
        }
    }
    result
}

/// Changing the user makes `/proc/self` root's, until the process says that it may be looked at.
fn give_up_root() -> Result<(), Box<dyn Error>> {
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        nix::sys::prctl::set_dumpable(true)?;
    }
    Ok(())
}

fn pods_reach_each_other_without_root() -> Result<(), Box<dyn Error>> {
    give_up_root()?;
    become_root_in_user_namespace()?;
    let network = PodNetwork::Namespaces(ClusterNetwork::create(options())?);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let server = runtime.block_on(network.attach("server", None))?;
    let client = runtime.block_on(network.attach("client", None))?;
    let (server_ip, client_ip): (IpAddr, IpAddr) = (server.ip, client.ip);

    let netns = server.netns.ok_or("no namespace")?;
    let listener = std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        TcpListener::bind((server_ip, 80))
    });
    let listener = listener.join().expect("no panic")?;
    let netns = client.netns.ok_or("no namespace")?;
    let fetched = std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        let mut text = String::new();
        TcpStream::connect((server_ip, 80))?.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let (mut stream, peer) = listener.accept()?;
    assert_eq!(peer.ip(), client_ip);
    stream.write_all(b"hello")?;
    drop(stream);
    assert_eq!(fetched.join().expect("no panic")?, "hello");
    Ok(())
}

fn options() -> ClusterNetworkOptions {
    ClusterNetworkOptions {
        pod_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
        service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
        node_ip: Ipv4Addr::new(10, 244, 0, 1),
        local_addresses: Vec::new(),
    }
}

fn missing_capabilities_are_explained() -> Result<(), Box<dyn Error>> {
    give_up_root()?;
    match ClusterNetwork::create(options()) {
        Err(error @ NetworkError::NotPermitted(_)) => {
            let text = error.to_string();
            assert!(text.contains("--pod-network=loopback"), "{text}");
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn a_forbidden_namespace_is_explained() -> Result<(), Box<dyn Error>> {
    give_up_root()?;
    become_root_in_user_namespace()?;
    // The limit holds for namespaces within this one.
    fs::write("/proc/sys/user/max_user_namespaces", "0")?;
    match become_root_in_user_namespace() {
        Err(error @ NetworkError::UserNamespace { .. }) => {
            let text = error.to_string();
            assert!(text.contains("user.max_user_namespaces"), "{text}");
            assert!(text.contains("--pod-network=loopback"), "{text}");
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}
