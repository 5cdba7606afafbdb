//! `sealane check`: each code once, from files and from a cluster, and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use sealane_test_kubernetes::free_port;
use serde_json::{Value, json};

use crate::support::cluster::Options;
use crate::support::pem::{certificate as pem, secret};
use crate::support::{eventually, output, root};

/// A Deployment, its Service and an Ingress: nothing is wrong with them.
const GOOD: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'sealane/echo:1', ports: [{name: http, containerPort: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
";

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

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn check(dir: &Path, args: &[&str]) -> Output {
    let mut all = vec!["check", "-f", dir.to_str().unwrap()];
    all.extend(args);
    sealane(&all)
}

/// An Ingress `it` of a class of ours, its spec and annotations in flow style.
fn ingress(annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: it\n  annotations: {annotations}\nspec:\n  ingressClassName: sealane\n{spec}"
    )
}

/// A rule for a host whose `/` goes to a backend.
fn rule(host: &str, backend: &str) -> String {
    format!(
        "  rules:\n  - host: {host}\n    http:\n      paths:\n      - {{path: /, pathType: Prefix, backend: {backend}}}\n"
    )
}

const WEB: &str = "{service: {name: web, port: {number: 80}}}";

/// A manifest, and what has to be found in it: code, severity, object, field, and a text of the line
/// that has to be named.
struct Case {
    code: &'static str,
    severity: &'static str,
    manifest: String,
    object: Option<&'static str>,
    field: Option<&'static str>,
    line_has: &'static str,
}

fn case(
    code: &'static str,
    severity: &'static str,
    manifest: impl Into<String>,
    object: &'static str,
    field: &'static str,
    line_has: &'static str,
) -> Case {
    Case {
        code,
        severity,
        manifest: manifest.into(),
        object: Some(object).filter(|text| !text.is_empty()),
        field: Some(field).filter(|text| !text.is_empty()),
        line_has,
    }
}

fn object_cases() -> Vec<Case> {
    vec![
        case(
            "SL0102",
            "error",
            "apiVersion: v1\nkind: [\n",
            "",
            "",
            "kind",
        ),
        case(
            "SL0103",
            "error",
            "kind: Service\nmetadata: {name: a}\n",
            "",
            "",
            "kind",
        ),
        case(
            "SL0104",
            "error",
            "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\n",
            "Deployment /a",
            "kind",
            "Deployment",
        ),
        case(
            "SL0105",
            "info",
            "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: a}\n",
            "Certificate /a",
            "kind",
            "Certificate",
        ),
        case(
            "SL0106",
            "error",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {}\nfoo: 1\n",
            "ConfigMap /a",
            "foo",
            "foo",
        ),
        case(
            "SL0107",
            "error",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80\n    protocol: ICMP\n",
            "Service /a",
            "spec.ports[0].protocol",
            "ICMP",
        ),
        case(
            "SL0108",
            "info",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n",
            "Namespace /shop",
            "",
            "",
        ),
        case(
            "SL0109",
            "error",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n",
            "ConfigMap /a",
            "metadata.name",
            "  name: a",
        ),
        case(
            "SL0110",
            "error",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: Bad_Name}\n",
            "ConfigMap Bad_Name/a",
            "",
            "apiVersion",
        ),
    ]
}

fn service_cases() -> Vec<Case> {
    let service = |name: &str, spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n{spec}")
    };
    let slice = |label: &str, address: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s\n  labels:\n    kubernetes.io/service-name: {label}\naddressType: IPv4\nendpoints:\n- addresses: [{address}]\nports: [{{port: 80}}]\n"
        )
    };
    let external =
        |name: &str| service(name, "  ports: [{port: 80}]\n  externalIPs: [192.0.2.7]\n") + "---\n";
    vec![
        case(
            "SL0201",
            "warning",
            GOOD.to_owned() + &service("a", "  selector: {app: wep}\n  ports: [{port: 80}]\n"),
            "Service default/a",
            "spec.selector",
            "selector: {app: wep}",
        ),
        case(
            "SL0202",
            "error",
            GOOD.to_owned()
                + &service(
                    "a",
                    "  selector: {app: web}\n  ports:\n  - port: 80\n    targetPort: web\n",
                ),
            "Service default/a",
            "spec.ports[0].targetPort",
            "targetPort: web",
        ),
        case(
            "SL0205",
            "warning",
            slice("nobody", "192.0.2.1"),
            "EndpointSlice default/s",
            "metadata.labels[kubernetes.io/service-name]",
            "service-name: nobody",
        ),
        case(
            "SL0206",
            "error",
            external("a") + &external("b"),
            "Service default/b",
            "spec.externalIPs",
            "externalIPs",
        ),
        case(
            "SL0207",
            "error",
            service("a", "  ports:\n  - port: 80\n    protocol: SCTP\n"),
            "Service default/a",
            "spec.ports[0].protocol",
            "SCTP",
        ),
        case(
            "SL0208",
            "error",
            GOOD.to_owned() + &slice("web", "224.0.1.1"),
            "EndpointSlice default/s",
            "endpoints[0].addresses",
            "224.0.1.1",
        ),
    ]
}

fn route_cases() -> Vec<Case> {
    let it = "Ingress default/it";
    let backend = "spec.rules[0].http.paths[0].backend";
    let good = |text: String| GOOD.to_owned() + &text;
    let of_class = |class: &str| {
        ingress("{}", &rule("a.example", WEB)).replace(
            "ingressClassName: sealane",
            &format!("ingressClassName: {class}"),
        )
    };
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: other}\nspec:\n  controller: CONTROLLER\n";
    let second = |text: String| text.replace("name: it", "name: second");
    vec![
        case(
            "SL0301",
            "error",
            good(ingress("{}", &rule("a.example", "{service: {name: wep, port: {number: 80}}}"))),
            it,
            backend,
            "wep",
        ),
        case(
            "SL0302",
            "error",
            good(ingress("{}", &rule("a.example", "{service: {name: web, port: {number: 81}}}"))),
            it,
            backend,
            "number: 81",
        ),
        case(
            "SL0303",
            "warning",
            GOOD.replace("replicas: 2", "replicas: 0") + &ingress("{}", &rule("a.example", WEB)),
            it,
            backend,
            "name: web",
        ),
        case(
            "SL0304",
            "error",
            good(ingress("{}", &rule("a.example", WEB)) + "---\n" + &second(ingress("{}", &rule("a.example", WEB)))),
            "Ingress default/second",
            "spec.rules[0].http.paths[0]",
            "path: /",
        ),
        case("SL0305", "warning", good(of_class("ngix")), it, "spec.ingressClassName", "ngix"),
        case(
            "SL0306",
            "info",
            good(of_class("other") + "---\n" + &class.replace("CONTROLLER", "example.com/other")),
            it,
            "spec.ingressClassName",
            "other",
        ),
        case(
            "SL0307",
            "warning",
            // The class that is the default one is given to Ingresses without a class.
            good(of_class("other").replace("  ingressClassName: other\n", "")
                + "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: sealane\n  annotations: {ingressclass.kubernetes.io/is-default-class: 'false'}\nspec: {controller: sealane.dev/ingress}\n"),
            it,
            "spec.ingressClassName",
            "rules:",
        ),
        case(
            "SL0308",
            "error",
            class.replace("CONTROLLER", "sealane.dev/ingress")
                + "  parameters: {apiGroup: example.com, kind: P, name: p}\n",
            "IngressClass /other",
            "spec.parameters",
            "parameters",
        ),
        case(
            "SL0309",
            "error",
            good("apiVersion: v1\nkind: Service\nmetadata: {name: out}\nspec: {type: ExternalName, externalName: example.com}\n---\n".to_owned()
                + &ingress("{}", &rule("a.example", "{service: {name: out, port: {number: 80}}}"))),
            it,
            backend,
            "name: out",
        ),
        case(
            "SL0311",
            "error",
            good(ingress("{nginx.ingress.kubernetes.io/use-regex: 'true'}", &rule("a.example", WEB))
                .replace("path: /,", "path: '/(x',").replace("Prefix", "ImplementationSpecific")),
            it,
            "spec.rules[0].http.paths[0].path",
            "/(x",
        ),
        case(
            "SL0312",
            "warning",
            ingress("{}", "  rules:\n  - host: a.example\n"),
            it,
            "spec.rules[0]",
            "host: a.example",
        ),
    ]
}

fn certificate_cases() -> Vec<Case> {
    let with_tls = |tls: &str| {
        GOOD.to_owned()
            + &ingress(
                "{}",
                &format!("  tls:\n  - {tls}\n{}", rule("a.example", WEB)),
            )
    };
    let named = "{hosts: [a.example], secretName: s}";
    let it = "Ingress default/it";
    let field = "spec.tls[0].secretName";
    let kind = "kubernetes.io/tls";
    let good = pem("a.example", 300);
    let mixed = (good.0.clone(), pem("a.example", 300).1);
    let with = |secret: String| with_tls(named) + &secret;
    vec![
        case(
            "SL0401",
            "warning",
            with_tls(named),
            it,
            field,
            "secretName",
        ),
        case(
            "SL0402",
            "error",
            with(secret("s", "Opaque", &good)),
            it,
            field,
            "secretName",
        ),
        case(
            "SL0403",
            "error",
            with(secret("s", kind, &mixed)),
            it,
            field,
            "secretName",
        ),
        case(
            "SL0404",
            "error",
            with(secret("s", kind, &pem("b.example", 300))),
            it,
            field,
            "secretName",
        ),
        case(
            "SL0405",
            "error",
            with(secret("s", kind, &pem("a.example", -3))),
            it,
            field,
            "secretName",
        ),
        case(
            "SL0406",
            "warning",
            with_tls("{hosts: [a.example]}"),
            it,
            "spec.tls[0]",
            "a.example",
        ),
        case(
            "SL0407",
            "warning",
            with(secret("s", kind, &pem("a.example", 5))),
            "Secret default/s",
            "",
            "apiVersion",
        ),
    ]
}

fn annotation_cases() -> Vec<Case> {
    let annotated = |name: &str, value: &str| {
        let annotations = format!("\n    nginx.ingress.kubernetes.io/{name}: {value}");
        GOOD.to_owned() + &ingress(&annotations, &rule("a.example", WEB))
    };
    let it = "Ingress default/it";
    vec![
        case(
            "SL0501",
            "error",
            annotated("ssl-redirect", "'yes'"),
            it,
            "metadata.annotations[nginx.ingress.kubernetes.io/ssl-redirect]",
            "ssl-redirect",
        ),
        case(
            "SL0502",
            "warning",
            annotated("proxy-buffering", "'on'"),
            it,
            "metadata.annotations",
            "proxy-buffering",
        ),
        case(
            "SL0503",
            "error",
            annotated("auth-url", "http://a/"),
            it,
            "metadata.annotations[nginx.ingress.kubernetes.io/auth-url]",
            "auth-url",
        ),
        case(
            "SL0504",
            "warning",
            GOOD.replace(
                "kind: Service\nmetadata: {name: web",
                "kind: Service\nmetadata: {annotations: {sealane.dev/timeout: 5s}, name: web",
            ),
            "Service default/web",
            "metadata.annotations[sealane.dev/timeout]",
            "sealane.dev/timeout",
        ),
    ]
}

#[test]
fn every_code_names_object_field_and_line() {
    let mut cases = object_cases();
    cases.extend(service_cases());
    cases.extend(route_cases());
    cases.extend(certificate_cases());
    cases.extend(annotation_cases());
    for case in cases {
        let id = case.code;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.yaml");
        std::fs::write(&file, &case.manifest).unwrap();
        let output = check(dir.path(), &["-o", "json"]);
        let report = json_of(&output);
        let findings = report["findings"].as_array().unwrap();
        let found: Vec<&Value> = findings.iter().filter(|f| f["code"] == id).collect();
        assert_eq!(found.len(), 1, "{id}: {report:#}");
        let found = found[0];
        assert_eq!(found["severity"], case.severity, "{id}");
        let object = found["object"].as_object().map(|object| {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            format!("{} {}/{}", text("kind"), text("namespace"), text("name"))
        });
        assert_eq!(object.as_deref(), case.object, "{id}: {found:#}");
        assert_eq!(found["field"].as_str(), case.field, "{id}: {found:#}");
        for field in ["title", "message", "advice"] {
            assert!(!found[field].as_str().unwrap().is_empty(), "{id}: {field}");
        }
        if !case.line_has.is_empty() {
            assert_eq!(found["file"], json!(file), "{id}");
            let line = usize::try_from(found["line"].as_u64().unwrap()).unwrap();
            let text = case.manifest.lines().nth(line - 1).unwrap_or_default();
            assert!(
                text.contains(case.line_has),
                "{id}: line {line} is `{text}`"
            );
        }
        let errors = report["summary"]["errors"].as_u64().unwrap();
        assert_eq!(
            code(&output),
            if errors > 0 { 3 } else { 0 },
            "{id}: {report:#}"
        );
        let worse = findings.iter().filter(|f| f["severity"] == "error").count() as u64;
        assert_eq!(errors, worse, "{id}");
    }
}

#[test]
fn files_without_problems_are_good_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let good = GOOD.to_owned() + &ingress("{}", &rule("a.example", WEB));
    std::fs::write(dir.path().join("app.yaml"), good).unwrap();
    for path in [dir.path(), Path::new("examples/shop")] {
        let output = check(path, &["--strict"]);
        assert_eq!(code(&output), 0, "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("√ routes  1 Ingress\n"), "{text}");
        assert!(
            text.contains("0 errors, 0 warnings in the files\nnext: "),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "no colour off a terminal");
        assert!(output.stderr.is_empty(), "{:?}", output.stderr);
    }
    let coloured = check(Path::new("examples/shop"), &["--color", "always"]);
    assert!(coloured.stdout.contains(&0x1b));
}

#[test]
fn ecosystem_c7_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("warn.yaml"),
        ingress("{}", "  rules:\n  - host: a.example\n"),
    )
    .unwrap();
    let path = dir.path().to_str().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    // Nobody listens there.
    let port = free_port();
    std::fs::write(
        &kubeconfig,
        format!("apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: a, user: {{}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n"),
    )
    .unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    for (name, args, expected, says) in [
        ("warnings", &["check", "-f", path][..], 0, ""),
        ("warnings count", &["check", "-f", path, "--strict"], 4, ""),
        ("usage", &["check", "--nonsense"], 2, "--nonsense"),
        (
            "usage",
            &["check", "-f", path, "--context", "a"],
            2,
            "cannot be used with",
        ),
        (
            "no path",
            &["check", "-f", "/none"],
            5,
            "/none: no such file",
        ),
        (
            "no kubeconfig",
            &["check", "--kubeconfig", "/none"],
            5,
            "/none: no such file",
        ),
        ("no cluster", &["check"], 3, "--kubeconfig FILE"),
        (
            "no context",
            &["check", "--kubeconfig", kubeconfig, "--context", "b"],
            5,
            "context b",
        ),
        (
            "not reachable",
            &["check", "--kubeconfig", kubeconfig],
            3,
            "cannot be reached",
        ),
        ("a code", &["explain", "sl0301"], 0, ""),
        ("no code", &["explain", "SL9999"], 5, "no code SL9999"),
        ("no question", &["explain", "ftp://a/"], 2, "not a URL"),
    ] {
        let output = sealane(args);
        assert_eq!(code(&output), expected, "{name}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(says), "{name}: {error}");
        if !says.is_empty() && expected != 2 {
            assert_eq!(error.lines().count(), 1, "{name}: {error}");
        }
    }
    for command in ["check", "explain"] {
        let help = sealane(&[command, "--help"]);
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("Exit codes:"), "{help}");
    }
}

#[test]
fn the_json_has_the_documented_form() {
    let docs = std::fs::read_to_string(root().join("docs/check.md")).unwrap();
    let (_, example) = docs.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bad = ingress(
        "{}",
        &rule("a.example", "{service: {name: apii, port: {number: 80}}}"),
    );
    std::fs::write(dir.path().join("ingress.yaml"), bad).unwrap();
    let report = json_of(&check(dir.path(), &["-o", "json"]));
    assert_eq!(keys(&report), keys(&example));
    assert_eq!(keys(&report["source"]), keys(&example["source"]));
    assert_eq!(keys(&report["summary"]), keys(&example["summary"]));
    let (found, shown) = (&report["findings"][0], &example["findings"][0]);
    assert_eq!(keys(found), keys(shown));
    for field in ["code", "severity", "title", "field", "message", "advice"] {
        assert_eq!(found[field], shown[field], "{field}");
    }
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

/// What only a cluster shows: Services without pods, and without ready ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_checked_by_its_kubeconfig() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Options::default().start().await;
    let file = dir.path().join("app.yaml");
    let empty = "apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {selector: {app: none}, ports: [{port: 80}]}\n---\n";
    let unready = "apiVersion: v1\nkind: Pod\nmetadata: {name: stuck, labels: {app: stuck}}\nspec: {containers: [{name: a, image: 'nobody/knows:1'}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: stuck}\nspec: {selector: {app: stuck}, ports: [{port: 80}]}\n---\n";
    let tls = format!(
        "  tls: [{{hosts: [a.example], secretName: nope}}]\n{}",
        rule("a.example", "{service: {name: none, port: {number: 80}}}")
    );
    std::fs::write(&file, format!("{empty}{unready}{}", ingress("{}", &tls))).unwrap();
    output(&mut cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]));
    let kubeconfig = cluster.summary["kubeconfig"].as_str().unwrap();
    eventually("findings", async || {
        let checked = sealane(&["check", "--kubeconfig", kubeconfig, "-o", "json"]);
        let report = json_of(&checked);
        let codes: Vec<&str> = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["code"].as_str().unwrap())
            .collect();
        // The pod gets its address when it has been scheduled.
        let stuck = ["SL0203", "SL0203", "SL0303", "SL0401"];
        let unready = ["SL0203", "SL0204", "SL0303", "SL0401"];
        if codes != stuck && codes != unready {
            return Err(format!("{report:#}"));
        }
        assert_eq!(code(&checked), 3, "a missing Secret is an error here");
        assert_eq!(report["source"]["namespace"], "default");
        Ok(())
    })
    .await;
    let missing = sealane(&["check", "--kubeconfig", kubeconfig, "-n", "nowhere"]);
    assert_eq!(code(&missing), 5, "{missing:?}");
    let other = sealane(&[
        "check",
        "--kubeconfig",
        kubeconfig,
        "-n",
        "kube-public",
        "--strict",
    ]);
    assert_eq!(code(&other), 0, "{other:?}");
    let all = sealane(&["check", "--kubeconfig", kubeconfig, "-A", "-o", "json"]);
    assert_eq!(json_of(&all)["source"]["namespace"], Value::Null);
}
