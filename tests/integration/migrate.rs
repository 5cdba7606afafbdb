//! `sealane migrate ingress-nginx`: what it says of files and of a cluster, and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::cluster::Options;
use crate::support::{output, root};

fn sealane(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sealane"))
        .args(args)
        .current_dir(root())
        .env_remove("RUST_LOG")
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .env_remove("XDG_DATA_HOME")
        .output()
        .unwrap()
}

fn migrate(dir: &Path, args: &[&str]) -> Output {
    let mut all = vec!["migrate", "ingress-nginx", "-f", dir.to_str().unwrap()];
    all.extend(args);
    sealane(&all)
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// An Ingress of class `nginx` for `HOST`, each path a type and a text.
fn ingress(name: &str, host: &str, annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), json!(value)))
        .collect();
    let paths: Vec<Value> = paths
        .iter()
        .map(|(kind, path)| {
            json!({"pathType": kind, "path": path,
                "backend": {"service": {"name": "web", "port": {"number": 80}}}})
        })
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": paths}}]},
    })
}

/// A directory with these objects, and a Service for them.
fn directory(objects: &[Value]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"ports": [{"port": 80}]},
    });
    for (index, object) in objects.iter().chain([&service]).enumerate() {
        let file = dir.path().join(format!("{index:02}.json"));
        std::fs::write(file, serde_json::to_string_pretty(object).unwrap()).unwrap();
    }
    dir
}

const ALL: &[(&str, &str)] = &[("Prefix", "/")];

#[test]
fn ingress_u11_each_ingress_is_served_as_before_differs_or_is_refused() {
    let snippet = "more_set_headers \"X-One: 1\";\nlocation /admin { deny all; }\nfoo on;";
    let mut foreign = ingress("foreign", "f.test", &[("server-snippet", "x")], ALL);
    foreign["spec"]["ingressClassName"] = json!("sealane");
    let mut legacy = ingress("legacy", "l.test", &[("use-regex", "yes")], ALL);
    legacy["spec"]
        .as_object_mut()
        .unwrap()
        .remove("ingressClassName");
    legacy["metadata"]["annotations"]["kubernetes.io/ingress.class"] = json!("nginx");
    let dir = directory(&[
        ingress("plain", "p.test", &[("ssl-redirect", "false")], ALL),
        ingress("inward", "i.test", &[("proxy-buffering", "on")], ALL),
        ingress("vhost", "s.test", &[("upstream-vhost", "$host")], ALL),
        ingress("unknown", "u.test", &[("made-up", "1")], ALL),
        ingress(
            "snippet",
            "x.test",
            &[("configuration-snippet", snippet)],
            ALL,
        ),
        legacy,
        foreign,
    ]);
    let output = migrate(dir.path(), &["-o", "json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report = report(&output);
    let said: Vec<(&str, &str)> = report["ingresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ingress| (text(&ingress["name"]), text(&ingress["verdict"])))
        .collect();
    assert_eq!(
        said,
        [
            ("inward", "as-before"),
            ("legacy", "differs"),
            ("plain", "as-before"),
            ("snippet", "refused"),
            ("unknown", "differs"),
            ("vhost", "differs"),
        ]
    );
    let summary = json!({"asBefore": 2, "differs": 3, "refused": 1, "others": 1, "unreadable": 0});
    assert_eq!(report["summary"], summary);
    let note = &of(&report, "snippet")["notes"][0];
    assert_eq!(
        note["field"],
        "metadata.annotations[nginx.ingress.kubernetes.io/configuration-snippet]"
    );
    assert_eq!(
        note["instead"],
        json!([
            "more_set_headers: custom-headers",
            "location: no replacement yet",
            "deny: denylist-source-range",
            "foo: no replacement yet",
        ])
    );
    let file = Path::new(text(&note["file"]));
    let lines = std::fs::read_to_string(file).unwrap();
    let line = usize::try_from(note["line"].as_u64().unwrap()).unwrap();
    assert!(
        lines
            .lines()
            .nth(line - 1)
            .unwrap()
            .contains("configuration-snippet")
    );

    let table = migrate(dir.path(), &["--color", "never"]);
    let table = String::from_utf8(table.stdout).unwrap();
    for says in [
        "× Ingress default/snippet  refused",
        "‼ Ingress default/vhost  differs",
        "√ Ingress default/plain  as before",
        "→ more_set_headers: custom-headers",
        "6 Ingresses of ingress-nginx: 2 as before, 3 differ, 1 refused; 1 of other controllers",
    ] {
        assert!(table.contains(says), "{says}: {table}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["ingresses"].as_array().unwrap();
    all.iter().find(|ingress| ingress["name"] == name).unwrap()
}

/// The messages of an Ingress' notes, by field.
fn messages(report: &Value, name: &str) -> Vec<(String, String)> {
    let notes = of(report, name)["notes"].as_array().unwrap();
    let message = |note: &Value| {
        (
            text(&note["field"]).to_owned(),
            text(&note["message"]).to_owned(),
        )
    };
    notes.iter().map(message).collect()
}

#[test]
fn ingress_u11_what_several_ingresses_of_a_host_come_to_is_said() {
    let dir = directory(&[
        ingress(
            "regex",
            "r.test",
            &[("use-regex", "true")],
            &[("ImplementationSpecific", "/a.*")],
        ),
        ingress("exact", "r.test", &[], &[("Exact", "/x")]),
        ingress("twin", "r.test", &[], &[("Exact", "/x")]),
        ingress(
            "aliased",
            "a.test",
            &[("server-alias", "r.test")],
            &[("Prefix", "/")],
        ),
    ]);
    let output = migrate(dir.path(), &["-o", "json"]);
    let report = report(&output);
    for (name, field, says) in [
        ("regex", "spec.rules", "regular expressions"),
        ("exact", "spec.rules[0]", "because default/regex"),
        ("twin", "spec.rules[0].http.paths[0]", "default/exact"),
    ] {
        let messages = messages(&report, name);
        assert!(
            messages
                .iter()
                .any(|(at, text)| at == field && text.contains(says)),
            "{name}: {messages:?}"
        );
    }
    let aliased = messages(&report, "aliased");
    let message = "r.test has rules of its own, which it is served by";
    assert!(
        aliased.iter().any(|(_, text)| text == message),
        "{aliased:?}"
    );
    assert_eq!(of(&report, "aliased")["verdict"], "as-before");
}

#[test]
fn ingress_a21_the_settings_of_ingress_nginx_are_reported_too() {
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "controller", "namespace": "default"},
        "data": {
            "http-redirect-code": "301",
            "worker-processes": "4",
            "use-gzip": "true",
            "made-up": "1",
            "http-snippet": "deny all;",
        },
    });
    let dir = directory(&[settings, ingress("plain", "p.test", &[], ALL)]);
    let named = ["-o", "json", "--configmap", "default/controller"];
    let output = migrate(dir.path(), &named);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report = report(&output);
    let notes = report["configMap"]["notes"].as_array().unwrap();
    let said: Vec<(&str, &str)> = notes
        .iter()
        .map(|note| (text(&note["field"]), text(&note["verdict"])))
        .collect();
    assert_eq!(
        said,
        [
            ("data[http-snippet]", "refused"),
            ("data[made-up]", "differs"),
            ("data[use-gzip]", "differs"),
            ("data[worker-processes]", "as-before"),
        ]
    );
}

#[test]
fn ingress_u11_the_exit_code_says_how_bad_it_is() {
    let plain = directory(&[ingress("plain", "p.test", &[], ALL)]);
    let differs = directory(&[ingress("it", "p.test", &[("made-up", "1")], ALL)]);
    let refused = directory(&[ingress("it", "p.test", &[("server-snippet", "x")], ALL)]);
    let unreadable = tempfile::tempdir().unwrap();
    std::fs::write(unreadable.path().join("a.yaml"), "kind: [").unwrap();
    for (name, dir, args, expected) in [
        ("as before", plain.path(), &[][..], 0),
        ("differs", differs.path(), &[], 4),
        ("refused", refused.path(), &[], 3),
        ("not a file", unreadable.path(), &[], 3),
        ("nothing there", Path::new("/none"), &[], 5),
        ("usage", plain.path(), &["--nonsense"], 2),
    ] {
        let output = migrate(dir, args);
        assert_eq!(output.status.code(), Some(expected), "{name}: {output:?}");
    }
    let help = sealane(&["migrate", "ingress-nginx", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    for says in ["Examples:", "Exit codes:", "--configmap"] {
        assert!(help.contains(says), "{says}: {help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_u11_a_cluster_is_looked_at_by_its_kubeconfig() {
    let cluster = Options::default().start().await;
    let class = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "old"},
        "spec": {"controller": "k8s.io/ingress-nginx"},
    });
    let mut old = ingress("old", "o.test", &[("made-up", "1")], ALL);
    old["spec"]["ingressClassName"] = json!("old");
    let mut ours = ingress("ours", "p.test", &[], ALL);
    ours["spec"]["ingressClassName"] = json!("sealane");
    let dir = directory(&[class, old, ours]);
    let path = dir.path().to_str().unwrap();
    output(&mut cluster.kubectl(&["apply", "-f", path]));
    let kubeconfig = cluster.summary["kubeconfig"].as_str().unwrap();
    let args = [
        "migrate",
        "ingress-nginx",
        "-A",
        "-o",
        "json",
        "--kubeconfig",
        kubeconfig,
    ];
    let output = sealane(&args);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let report = report(&output);
    assert_eq!(of(&report, "old")["verdict"], "differs");
    assert_eq!(report["summary"]["others"], 1, "{report:#}");
}
