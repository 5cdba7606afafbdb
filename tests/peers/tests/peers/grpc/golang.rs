//! The same with Google's own client, which shares nothing with ours but the standard.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sealane_proxy::testing::{Refusing, eventually};
use sealane_test_peers::go;
use tokio::process::Command;

use super::*;

/// The client; `None`, with a word about it, on a machine without Go.
async fn program() -> Option<PathBuf> {
    let build = tokio::task::spawn_blocking(|| go::build("grpc", "."));
    let program = build.await.unwrap().unwrap();
    if program.is_none() {
        let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
        let reason = "Go is not installed, which builds the client";
        assert!(!required, "required, but {reason}");
        eprintln!("skipped: {reason}");
    }
    program
}

/// What comes of these calls, a line for each.
async fn call(program: &Path, world: &World, calls: &[&str]) -> Vec<String> {
    let (addr, security) = match world.way {
        Way::GatewayTls => (world.front.https, "tls"),
        _ => (world.front.http, "plain"),
    };
    let mut command = Command::new(program);
    command
        .args([&addr.to_string(), HOST, security])
        .args(calls)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = output.expect("the client comes to an end").unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    told.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn ingress_t3_a_client_of_grpc_go_makes_all_kinds_of_calls() {
    let Some(program) = program().await else {
        return;
    };
    for way in [Way::GatewayTls, Way::Gateway] {
        let world = World::new(way, 2).await;
        let calls = [
            ("unary hello", "OK hello, [a value]"),
            ("unary", "OK , [a value]"),
            ("up", "OK 100 100000"),
            ("down 50 3000", "OK 50 messages, 150000 bytes"),
            ("both", "OK 20"),
            // An answer that is nothing but trailers, and trailers behind messages.
            (
                "unary fail 8",
                r#"ResourceExhausted "code 8: 100 % „wanted“" ["told to"] [00ff07]"#,
            ),
            (
                "down 5 10 9",
                r#"5 messages, 50 bytes, FailedPrecondition "code 9: 100 % „wanted“" ["told to"] [00ff07]"#,
            ),
            ("deadline", "DeadlineExceeded"),
            ("unary after all that", "OK after all that, [a value]"),
        ];
        let told = call(&program, &world, &calls.map(|(call, _)| call)).await;
        let expected = calls.map(|(call, outcome)| format!("{call}: {outcome}"));
        assert_eq!(told, expected, "{way:?}");
        let cancelled = || world.backends.iter().map(Backend::cancelled).sum::<usize>();
        eventually("the endpoint hears of the deadline", || cancelled() == 1).await;
    }
}

#[tokio::test]
async fn ingress_t3_a_client_of_grpc_go_is_told_in_its_own_terms_what_fails() {
    let Some(program) = program().await else {
        return;
    };
    for way in [Way::GatewayTls, Way::Gateway] {
        let mut world = World::new(way, 1).await;
        let calls = ["unary hello", "up", "down 1 1", "both"];
        // Nobody there, and nobody who listens.
        let nobody = Refusing::bind();
        for endpoints in [&[][..], &[nobody.addr]] {
            world.front.service(way.protocol(), endpoints);
            let told = call(&program, &world, &calls).await;
            for (call, told) in calls.iter().zip(&told) {
                assert!(told.starts_with(call), "{way:?} {endpoints:?}: {told}");
                assert!(
                    told.ends_with("Unavailable"),
                    "{way:?} {endpoints:?}: {told}"
                );
            }
            assert_eq!(told.len(), calls.len(), "{way:?} {endpoints:?}: {told:?}");
        }
        world.publish(&[0]);
        let told = call(&program, &world, &calls[..1]).await;
        assert_eq!(told, ["unary hello: OK hello, [a value]"], "{way:?}");
    }
}
