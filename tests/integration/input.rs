//! Bad input: one clear line, a non-zero exit, nothing half-started.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::cluster::Options;
use crate::support::has;

fn error_of(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `up` on a manifest that cannot be used.
fn refused(manifest: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, manifest).unwrap();
    let data = dir.path().join("data");
    let options = Options::default().args(&["-f", file.to_str().unwrap(), "--ephemeral"]);
    let output = options.run(&data);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!data.exists(), "nothing was started");
    let error = error_of(&output);
    error.replace(dir.path().to_str().unwrap(), "DIR")
}

#[test]
fn manifests_that_cannot_be_used_are_named_by_file_line_and_field() {
    for (name, manifest, expected) in [
        (
            "not YAML",
            "apiVersion: v1\nkind: [\n",
            &["DIR/bad.yaml:", "not valid YAML"][..],
        ),
        (
            "an unknown kind",
            "apiVersion: v1\nkind: Gizmo\nmetadata: {name: a}\n",
            &["DIR/bad.yaml:2: Gizmo a: unknown kind Gizmo in v1"],
        ),
        (
            "a kind in the wrong version",
            "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\n",
            &["DIR/bad.yaml:2: Deployment a:", "use apiVersion: apps/v1"],
        ),
        (
            "an unknown field",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {}\nfoo: 1\n",
            &["DIR/bad.yaml:5: ConfigMap a:", "unknown field \"foo\""],
        ),
        (
            "an invalid value",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80\n    protocol: ICMP\n",
            &["DIR/bad.yaml:7: Service a: spec.ports[0].protocol: Unsupported value: \"ICMP\""],
        ),
    ] {
        let error = refused(manifest);
        for text in expected {
            assert!(error.contains(text), "{name}: {error}");
        }
        assert_eq!(error.lines().count(), 1, "{name}: one line: {error}");
    }
}

#[test]
fn a_missing_file_and_bad_flags_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options::default().args(&["-f", "none.yaml", "--image", "nothing", "--workers", "0"]);
    let output = options.run(dir.path());
    let error = error_of(&output);
    for text in [
        "none.yaml: No such file",
        "--image: image rule \"nothing\"",
        "--workers 0",
    ] {
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flag in ["--http", "--https", "--api", "--dns", "--admin"] {
        let dir = tempfile::tempdir().unwrap();
        let output = up_on(dir.path(), &[flag, &addr]);
        let error = error_of(&output);
        let expected = format!("error: {addr} is taken by another program");
        assert!(
            error.starts_with(&expected) && error.contains(flag),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_mode_that_cannot_start_says_why_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, "{\"contexts\": []}").unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let gateway = ["gateway", "--http", free, "--https", free, "--admin", free];
    let dns = ["dns", "--dns", free, "--admin", free];
    for (name, args, code, expected) in [
        (
            "a taken port",
            vec![
                "gateway", "--http", &taken, "--https", free, "--admin", free,
            ],
            2,
            "is taken by another program: stop it, or give another address with --http",
        ),
        (
            "a taken admin port",
            vec!["dns", "--dns", free, "--admin", &taken],
            2,
            "with --admin",
        ),
        (
            "no workers",
            [&dns[..], &["--workers", "0"]].concat(),
            2,
            "--workers 0: give 1 to 64",
        ),
        (
            "a kubeconfig that is not there",
            [&dns[..], &["--kubeconfig", "/missing"]].concat(),
            2,
            "error: kubeconfig /missing: ",
        ),
        (
            "a context that is not there",
            [
                &gateway[..],
                &["--kubeconfig", kubeconfig, "--context", "prod"],
            ]
            .concat(),
            2,
            "prod",
        ),
        ("no cluster at all", dns.to_vec(), 3, "error: no cluster: "),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
        command.args(&args).env_clear().env("HOME", dir.path());
        let output = command.output().unwrap();
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(code), "{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
    }
    for (args, expected) in [
        (["gateway", "--lease", "sealane"], "NAMESPACE/NAME"),
        (
            ["gateway", "--default-ssl-certificate", "a/b/c"],
            "NAMESPACE/NAME",
        ),
        (["dns", "--upstream", "example"], "IP or IP:PORT"),
        (["dns", "--cluster-domain", "a..b"], "--cluster-domain"),
        (["node", "--service-cidr", "10.96.0.0"], "--service-cidr"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
        let output = command.args(args).env_remove("NODE_NAME").output().unwrap();
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_on_the_same_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Options::default().data_dir(dir.path()).start().await;
    let output = Options::default().run(dir.path());
    let error = error_of(&output);
    assert!(
        error.contains(&format!("(process {})", cluster.pid())),
        "{error}"
    );
    assert!(error.contains("--data-dir"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_user_namespaces_the_error_names_the_way_on() {
    if !has("unshare") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A user that is not mapped in its namespace may not make another one.
    let up = Options::default()
        .args(&["--api", "127.0.0.1:0"])
        .command(dir.path());
    let mut unmapped = Command::new("unshare");
    unmapped
        .arg("--user")
        .arg(up.get_program())
        .args(up.get_args());
    let output = unmapped.output().unwrap();
    let error = error_of(&output);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("user namespace"), "{error}");
    assert!(error.contains("--pod-network=loopback"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

fn up_on(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
    command.args(["up", "--ephemeral", "--data-dir"]).arg(dir);
    for (flag, default) in [
        ("--http", "127.0.0.1:0"),
        ("--https", "127.0.0.1:0"),
        ("--dns", "127.0.0.1:0"),
        ("--api", "127.0.0.1:0"),
        ("--admin", "127.0.0.1:0"),
    ] {
        if !args.contains(&flag) {
            command.args([flag, default]);
        }
    }
    command.args(args).output().unwrap()
}
