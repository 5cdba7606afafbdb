//! `sealane explain`: every decision with its object and line, and that it says what the gateway and
//! the DNS server do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::cluster::{Cluster, Options};
use crate::support::http::{Answer, get, get_tls};
use crate::support::pem::{certificate, secret};
use crate::support::{has, output, root};

pub(crate) fn sealane(args: &[&str]) -> Output {
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

/// Explains and returns the exit code and the JSON.
pub(crate) fn explain(target: &str, source: &[&str]) -> (i32, Value) {
    let mut args = vec!["explain", target, "-o", "json"];
    args.extend(source);
    let output = sealane(&args);
    let value = serde_json::from_slice(&output.stdout);
    let value = value.unwrap_or_else(|error| panic!("{target}: {error}: {output:?}"));
    (output.status.code().unwrap(), value)
}

fn table(target: &str, source: &[&str]) -> String {
    let mut args = vec!["explain", target];
    args.extend(source);
    String::from_utf8(sealane(&args).stdout).unwrap()
}

/// `what` of the steps of a phase with this mark.
pub(crate) fn steps<'a>(explanation: &'a Value, phase: &str, mark: &str) -> Vec<&'a str> {
    let steps = explanation["steps"].as_array().unwrap().iter();
    steps
        .filter(|step| step["phase"] == phase && step["mark"] == mark)
        .map(|step| step["what"].as_str().unwrap())
        .collect()
}

#[test]
fn ecosystem_c9_the_shop_is_explained_with_objects_and_lines() {
    let shop = ["-f", "examples/shop"];
    for (target, lines) in [
        (
            "https://api.mycompany.com/api/x",
            &[
                "listener    √ HTTPS  the URL says https",
                "certificate √ a certificate  configured for api.mycompany.com",
                "              Secret default/api-tls  examples/shop/ingress.yaml:28",
                "host        √ api.mycompany.com  2 rules, TLS is configured",
                "rule        - Regex ^(?:/docs)  the expression does not match /api/x",
                "            √ Regex ^(?:/api)  the expression matches from the path's start",
                "              Ingress default/shop  spec.rules[0].http.paths[0]  examples/shop/ingress.yaml:18",
                "filter      √ /  what the backend gets, by rewrite-target",
                "backend     √ Service default/api:80  HTTP/1.1",
                "              Pod default/api-0  examples/shop/api.yaml:1",
                "√ goes to Service default/api:80, one of 3 endpoints: the cheaper of two drawn at random",
            ][..],
        ),
        (
            "http://other.example/api",
            &[
                "host        - other.example  no rule has this host",
                "            i known hosts  1 host has rules: api.mycompany.com",
                "∅ answered 404 Not Found: no rule takes this host and path (no_route)",
            ],
        ),
        (
            "default/api:http",
            &[
                "routes      i api.mycompany.com Regex ^(?:/api)  the gateway leads here",
                "√ default/api is served by 3 endpoints",
            ],
        ),
        (
            "payments",
            &[
                "record      √ payments.default.svc.cluster.local. 30 IN CNAME payments.example.com.  may be kept for 30 s",
            ],
        ),
        (
            "nobody.default",
            &["record      - NXDOMAIN  namespace default has no Service nobody"],
        ),
    ] {
        let text = table(target, &shop);
        let shown: Vec<&str> = text.lines().collect();
        for line in lines {
            assert!(
                shown.contains(line),
                "{target}: no line `{line}` in\n{text}"
            );
        }
        assert!(!text.contains('\u{1b}'), "no colour off a terminal");
    }
}

#[test]
fn the_documented_output_is_the_real_one() {
    let docs = std::fs::read_to_string(root().join("docs/explain.md")).unwrap();
    let url = "https://api.mycompany.com/api/x";
    let command = format!("$ sealane explain {url} -f examples/shop\n");
    let (_, shown) = docs.split_once(&command).unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    assert_eq!(shown, table(url, &["-f", "examples/shop"]));

    let (_, example) = docs.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let (_, explanation) = explain(url, &["-f", "examples/shop"]);
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&explanation), keys(&example));
    for field in ["version", "query", "source", "outcome", "status", "summary"] {
        assert_eq!(explanation[field], example[field], "{field}");
    }
    let steps = explanation["steps"].as_array().unwrap();
    assert!(steps.contains(&example["steps"][0]), "{explanation:#}");
}

#[test]
fn ingress_a10_who_takes_a_request_that_a_canary_may_take() {
    let service = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [{address}]}}]\nports: [{{port: 8080}}]\n---\n"
        )
    };
    let ingress = |name: &str, annotations: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
             metadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
             spec: {{ingressClassName: sealane, rules: [{{host: h.test, http: {{paths: \
             [{{path: /, pathType: Prefix, backend: {{service: {{name: {name}, \
             port: {{number: 80}}}}}}}}]}}}}]}}\n---\n"
        )
    };
    let nginx = "nginx.ingress.kubernetes.io";
    let canary = format!(
        "{nginx}/canary: 'true', {nginx}/canary-weight: '10', {nginx}/canary-by-header: X-C"
    );
    let dir = tempfile::tempdir().unwrap();
    let manifests = [
        service("old", "10.1.0.1"),
        service("new", "10.1.0.2"),
        ingress("old", ""),
        ingress("new", &canary),
    ];
    std::fs::write(dir.path().join("all.yaml"), manifests.concat()).unwrap();
    let from = ["-f", dir.path().to_str().unwrap()];
    for (more, lines) in [
        (
            &[][..],
            &[
                "backend     i the canary default/new  10 of 100 requests, at random",
                "√ goes to Service default/old:80, its one endpoint; 10 of 100 requests: goes to \
                 Service default/new:80, its one endpoint",
            ][..],
        ),
        (
            &["-H", "X-C: always"],
            &[
                "backend     √ the canary default/new  the field x-c asks for it",
                "√ goes to Service default/new:80, its one endpoint",
            ],
        ),
        (
            &["-H", "X-C: never"],
            &[
                "backend     - the canary default/new  the field x-c keeps it away",
                "√ goes to Service default/old:80, its one endpoint",
            ],
        ),
    ] {
        let text = table("http://h.test/", &[&from[..], more].concat());
        let shown: Vec<&str> = text.lines().collect();
        for line in lines {
            assert!(
                shown.contains(line),
                "{more:?}: no line `{line}` in\n{text}"
            );
        }
    }
}

/// The shop has a Secret with a password and one with a key; neither is anybody's business.
#[test]
fn nothing_of_a_secret_is_shown() {
    let shop = ["-f", "examples/shop"];
    let dir = tempfile::tempdir().unwrap();
    let bad =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: 'not-a-real-password!'}\n";
    std::fs::write(dir.path().join("a.yaml"), bad).unwrap();
    for args in [
        &[
            "explain",
            "https://api.mycompany.com/api",
            "-o",
            "json",
            "-f",
            "examples/shop",
        ][..],
        &["explain", "default/api", "-f", "examples/shop"],
        &["check", "-o", "json", "-f", "examples/shop"],
        &["check", "-f", dir.path().to_str().unwrap()],
    ] {
        let output = sealane(args);
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.is_empty(), "{args:?}");
        for secret in [
            "not-a-real-password",
            "PRIVATE KEY",
            "MIIBqzCCAV",
            "MIGHAgEA",
        ] {
            assert!(!shown.contains(secret), "{args:?}: {shown}");
        }
    }
    let text = table("https://api.mycompany.com/api", &shop);
    assert!(
        text.contains("Secret default/api-tls"),
        "its name is shown: {text}"
    );
}

/// Endpoints that cannot be used, each for a reason of its own.
const ENDPOINTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: mixed}
spec:
  ports: [{name: http, port: 80}, {name: admin, port: 81}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mixed-1, labels: {kubernetes.io/service-name: mixed}}
addressType: IPv4
ports: [{name: http, port: 8000}]
endpoints:
- {addresses: [192.0.2.1], conditions: {ready: true}, nodeName: n1, zone: z1, targetRef: {kind: Pod, name: good}}
- {addresses: [192.0.2.2], conditions: {ready: false}, targetRef: {kind: Pod, name: unready}}
- {addresses: [192.0.2.3], conditions: {ready: false, serving: true, terminating: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mixed-2, labels: {kubernetes.io/service-name: mixed}}
addressType: IPv4
ports: [{name: metrics, port: 9000}]
endpoints: [{addresses: [192.0.2.4], conditions: {ready: true}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mixed-3, labels: {kubernetes.io/service-name: mixed}}
addressType: IPv6
ports: [{name: http, port: 8000}]
endpoints: [{addresses: ['2001:db8::1'], conditions: {ready: true}}]
";

#[test]
fn every_endpoint_is_named_with_the_reason_why_it_is_not_chosen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.yaml"), ENDPOINTS).unwrap();
    let source = ["-f", dir.path().to_str().unwrap()];
    let (code, explanation) = explain("default/mixed:http", &source);
    assert_eq!(code, 0, "{explanation:#}");
    let endpoint = |address: &str| {
        let all = explanation["steps"].as_array().unwrap();
        let mut found = all.iter().filter(|step| step["phase"] == "endpoint");
        let step = found.find(|step| step["what"] == address);
        let step = step.unwrap_or_else(|| panic!("{address}: {explanation:#}"));
        let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
        (text("mark"), text("why"), step["object"]["name"].clone())
    };
    for (address, mark, why, pod) in [
        (
            "192.0.2.1:8000",
            "chosen",
            "ready, node n1, zone z1",
            Some("good"),
        ),
        ("192.0.2.2", "rejected", "it is not ready", Some("unready")),
        (
            "192.0.2.3",
            "rejected",
            "it is terminating, and takes traffic only if no ready one is left",
            None,
        ),
        ("192.0.2.4", "rejected", "it has no port named `http`", None),
        (
            "2001:db8::1",
            "rejected",
            "it is of the other address family",
            None,
        ),
    ] {
        let expected = (
            mark.to_owned(),
            why.to_owned(),
            pod.map_or(Value::Null, Value::from),
        );
        assert_eq!(endpoint(address), expected, "{address}");
    }
    let (code, explanation) = explain("default/mixed:81", &source);
    assert_eq!(code, 3, "{explanation:#}");
    assert_eq!(explanation["outcome"], "error");
    let (code, explanation) = explain("default/mixed:82", &source);
    assert_eq!(code, 5, "{explanation:#}");
}

/// Gateway API: half of what is asked for is served, and a filter that is not.
const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: sealane.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: ours, listeners: [{name: http, protocol: HTTP, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gw}]
  hostnames: [g.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /half}}]
    backendRefs: [{name: mixed, port: 80, weight: 3}, {name: nobody, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /all}}]
    backendRefs: [{name: mixed, port: 80}, {name: mixed, port: 81, weight: 0}]
  - matches: [{path: {type: PathPrefix, value: /filter}}]
    filters: [{type: RequestRedirect}]
    backendRefs: [{name: mixed, port: 80}]
---
";

#[test]
fn routes_of_gateway_api_are_checked_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.yaml");
    std::fs::write(&file, ROUTES.to_owned() + ENDPOINTS).unwrap();
    let dir = dir.path().to_str().unwrap();
    let source = ["-f", dir];
    let (code, half) = explain("http://g.example/half", &source);
    assert_eq!((code, &half["status"]), (3, &Value::from(503)), "{half:#}");
    let summary = half["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("1 of 4 requests are answered 503"),
        "{summary}"
    );
    assert_eq!(
        steps(&half, "backend", "chosen"),
        ["Service default/mixed:80"]
    );
    assert_eq!(
        steps(&half, "backend", "failed"),
        ["Service default/nobody"]
    );
    let (code, all) = explain("http://g.example/all", &source);
    assert_eq!(code, 0, "{all:#}");
    assert_eq!(
        steps(&all, "backend", "chosen"),
        ["Service default/mixed:80"]
    );
    let (code, filter) = explain("http://g.example/filter", &source);
    assert_eq!(code, 3, "{filter:#}");
    let chosen = filter["steps"].as_array().unwrap().iter();
    let mut chosen = chosen.filter(|step| step["phase"] == "rule" && step["mark"] == "chosen");
    let rule = chosen.next().unwrap();
    assert_eq!(rule["field"], "spec.rules[2].matches[0]");
    let line = usize::try_from(rule["line"].as_u64().unwrap()).unwrap();
    assert!(
        ROUTES.lines().nth(line - 1).unwrap().contains("/filter"),
        "{rule:#}"
    );

    let checked = sealane(&["check", "-f", dir, "-o", "json"]);
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let codes: Vec<&str> = findings
        .map(|found| found["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["SL0301", "SL0313"], "{report:#}");
}

#[test]
fn names_are_tried_through_the_search_path() {
    let shop = ["-f", "examples/shop"];
    let searched = |target: &str, more: &[&str]| {
        let mut source = shop.to_vec();
        source.extend(more);
        let (code, explanation) = explain(target, &source);
        let names = steps(&explanation, "search", "note");
        (
            code,
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let zone = "svc.cluster.local.";
    for (target, from, code, expected) in [
        ("api", "default", 0, vec![format!("api.default.{zone}")]),
        (
            "api.default",
            "shop",
            0,
            vec![
                format!("api.default.shop.{zone}"),
                format!("api.default.{zone}"),
            ],
        ),
        (
            "api.default.svc",
            "shop",
            0,
            vec![
                format!("api.default.svc.shop.{zone}"),
                format!("api.default.svc.{zone}"),
                "api.default.svc.cluster.local.".to_owned(),
            ],
        ),
        (
            "api.default.svc.cluster.local.",
            "shop",
            0,
            vec![format!("api.default.{zone}")],
        ),
        (
            "nobody.default.svc.cluster.local.",
            "shop",
            5,
            vec![format!("nobody.default.{zone}")],
        ),
    ] {
        let found = searched(target, &["--from-namespace", from]);
        assert_eq!(found, (code, expected), "{target}");
    }
}

/// Rules of every kind, to be asked and to be explained.
fn routes() -> String {
    let mut text = "\
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
      - name: web
        image: sealane/echo:1
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-pods}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
"
    .to_owned();
    let to = |service: &str| format!("{{service: {{name: {service}, port: {{number: 80}}}}}}");
    let path = |kind: &str, path: &str, service: &str| {
        format!(
            "      - {{path: '{path}', pathType: {kind}, backend: {}}}\n",
            to(service)
        )
    };
    let mut ingress = |name: &str, annotations: &str, spec: &str| {
        text.push_str(&format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec:\n  ingressClassName: sealane\n{spec}"
        ));
    };
    let rule = |host: &str, paths: &str| match host {
        "" => format!("  rules:\n  - http:\n      paths:\n{paths}"),
        host => format!("  rules:\n  - host: '{host}'\n    http:\n      paths:\n{paths}"),
    };
    let plain = [
        path("Exact", "/exact", "web"),
        path("Prefix", "/foo", "web"),
        path("Prefix", "/foo/empty", "empty"),
        path("Prefix", "/missing", "nobody"),
        path("Prefix", "/alias", "alias"),
    ];
    ingress("plain", "", &rule("a.example", &plain.concat()));
    ingress(
        "wild",
        "",
        &rule("*.w.example", &path("Prefix", "/", "web")),
    );
    ingress(
        "exact",
        "",
        &rule("x.w.example", &path("Exact", "/only", "web")),
    );
    ingress("any", "", &rule("", &path("Prefix", "/any", "web")));
    let regex = path("ImplementationSpecific", "/v[0-9]+/(.*)", "web");
    let annotation = "nginx.ingress.kubernetes.io/rewrite-target: /$1";
    ingress("regex", annotation, &rule("r.example", &regex));
    let tls = format!(
        "  tls: [{{hosts: [t.example], secretName: t}}]\n{}",
        rule("t.example", &path("Prefix", "/", "web"))
    );
    ingress("tls", "", &tls);
    let fallback = format!(
        "  defaultBackend: {}\n{}",
        to("web"),
        rule("d.example", &path("Exact", "/empty", "empty"))
    );
    ingress("fallback", "", &fallback);
    let refused = "nginx.ingress.kubernetes.io/auth-url: 'http://a/'";
    ingress(
        "refused",
        refused,
        &rule("c.example", &path("Prefix", "/", "web")),
    );
    text.push_str(&secret(
        "t",
        "kubernetes.io/tls",
        &certificate("t.example", 30),
    ));
    text
}

/// Requests: scheme, host and target.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("http", "a.example", "/exact"),
    ("http", "a.example", "/exact/"),
    ("http", "a.example", "/foo"),
    ("http", "a.example", "/foo/x?y=z"),
    ("http", "a.example", "/foobar"),
    ("http", "a.example", "/foo/empty/x"),
    ("http", "a.example", "/foo/x/../empty"),
    ("http", "a.example", "//foo//empty"),
    ("http", "a.example", "/foo;a=b/empty"),
    ("http", "a.example", "/%66oo"),
    ("http", "a.example", "/foo%2fempty"),
    ("http", "a.example", "/foo%00"),
    ("http", "a.example", "/foo/..%2f"),
    ("http", "a.example", "/missing"),
    ("http", "a.example", "/alias/x"),
    ("http", "A.Example.", "/foo"),
    ("http", "a.example:8080", "/foo"),
    ("http", "x.w.example", "/only"),
    ("http", "x.w.example", "/other"),
    ("http", "y.w.example", "/any"),
    ("http", "y.z.w.example", "/any"),
    ("http", "w.example", "/any"),
    ("http", "unknown.example", "/any/x"),
    ("http", "unknown.example", "/none"),
    ("http", "10.0.0.1", "/any"),
    ("http", "a_b", "/any"),
    ("http", "a..example", "/foo"),
    ("http", "r.example", "/v2/x/y"),
    ("http", "r.example", "/V2/x"),
    ("http", "r.example", "/vx/x"),
    ("http", "t.example", "/x?y"),
    ("https", "t.example", "/x?y"),
    ("http", "t.example", "/.well-known/acme-challenge/a"),
    ("https", "a.example", "/foo"),
    ("http", "d.example", "/empty"),
    ("http", "d.example", "/else"),
    ("http", "c.example", "/"),
];

/// Where the state is taken from: the cluster, and the running instance itself.
fn sources(cluster: &Cluster) -> [[String; 2]; 2] {
    let kubeconfig = cluster.summary["kubeconfig"].as_str().unwrap();
    let admin = cluster.summary["admin"].as_str().unwrap();
    let admin = admin.strip_prefix("http://").unwrap();
    [["--kubeconfig", kubeconfig], ["--admin", admin]].map(|pair| pair.map(str::to_owned))
}

async fn start(dir: &Path) -> Cluster {
    let file = dir.join("app.yaml");
    std::fs::write(&file, routes()).unwrap();
    let cluster = Options::default()
        .args(&["-f", file.to_str().unwrap()])
        .start()
        .await;
    cluster.assert_ready();
    cluster
}

/// Puts every request to the gateway and to `explain`, which has to know the status, the reason and
/// the pods that can answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_is_what_the_gateway_does() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let sources = sources(&cluster);
    let mut outcomes = BTreeSet::new();
    for (scheme, host, target) in REQUESTS {
        let url = format!("{scheme}://{host}{target}");
        let answer = match *scheme {
            "https" => {
                let tls = get_tls(cluster.https(), host, host, target, false).await;
                tls.unwrap().0
            }
            _ => get(cluster.http(), host, target).await.unwrap(),
        };
        for [option, value] in &sources {
            let (code, explanation) = explain(&url, &[option, value]);
            let outcome = explanation["outcome"].as_str().unwrap();
            outcomes.insert(outcome.to_owned());
            let expected = match outcome {
                "served" | "redirected" => 0,
                "not_found" => 5,
                _ => 3,
            };
            assert_eq!(code, expected, "{url}");
            agrees(&format!("{url} {option}"), &explanation, &answer);
        }
    }
    let all = ["error", "not_found", "redirected", "served"];
    assert!(
        outcomes.iter().eq(all),
        "every outcome was met: {outcomes:?}"
    );
}

/// The explanation has the status, the reason and the pod of the answer.
fn agrees(url: &str, explanation: &Value, answer: &Answer) {
    if explanation["outcome"] == "served" {
        assert_eq!(answer.status, 200, "{url}: {explanation:#}\n{answer:?}");
        let steps = explanation["steps"].as_array().unwrap().iter();
        let pods = steps.filter(|step| step["phase"] == "endpoint" && step["mark"] == "chosen");
        let pods: Vec<&str> = pods
            .map(|step| step["object"]["name"].as_str().unwrap())
            .collect();
        let pod = answer.pod();
        assert!(pods.contains(&pod.as_str()), "{url}: {pod} of {pods:?}");
    } else {
        let status = u64::from(answer.status.as_u16());
        assert_eq!(
            explanation["status"], status,
            "{url}: {explanation:#}\n{answer:?}"
        );
    }
    let summary = explanation["summary"].as_str().unwrap();
    if let Some(reason) = answer.headers.get("sealane-error") {
        let reason = format!("({})", reason.to_str().unwrap());
        assert!(summary.ends_with(&reason), "{url}: {reason}: {summary}");
    }
}

/// Puts names to the DNS server and to `explain`, which has to know every record.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_is_what_dns_answers() {
    if !has("dig") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let sources = sources(&cluster);
    let service = cluster.get(&["service", "web"]);
    let vip = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let mut octets: Vec<&str> = vip.split('.').collect();
    octets.reverse();
    let reverse = format!("{}.in-addr.arpa.", octets.join("."));
    let dns = cluster.dns();
    for (name, record_type) in [
        ("web.default.svc.cluster.local.", "A"),
        ("WEB.default.svc.cluster.local.", "A"),
        ("web.default.svc.cluster.local.", "AAAA"),
        ("_http._tcp.web.default.svc.cluster.local.", "SRV"),
        ("_http._tcp.web-pods.default.svc.cluster.local.", "SRV"),
        ("web-pods.default.svc.cluster.local.", "A"),
        ("alias.default.svc.cluster.local.", "A"),
        ("alias.default.svc.cluster.local.", "CNAME"),
        ("empty.default.svc.cluster.local.", "A"),
        ("nobody.default.svc.cluster.local.", "A"),
        ("web.nowhere.svc.cluster.local.", "A"),
        ("default.svc.cluster.local.", "A"),
        ("10-0-0-1.default.pod.cluster.local.", "A"),
        ("cluster.local.", "SOA"),
        ("dns-version.cluster.local.", "TXT"),
        (reverse.as_str(), "PTR"),
    ] {
        let mut dig = Command::new("dig");
        dig.arg(format!("@{}", dns.ip()))
            .args([
                "-p",
                &dns.port().to_string(),
                "+noall",
                "+answer",
                "+comments",
            ])
            .args(["-t", record_type, name]);
        let answer = output(&mut dig);
        let records = answer
            .lines()
            .filter(|line| !line.starts_with(';') && !line.is_empty());
        let mut records: Vec<String> = records
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        records.sort();
        for [option, value] in &sources {
            let (code, explanation) = explain(name, &[option, value, "-t", record_type]);
            let mut explained = steps(&explanation, "record", "chosen");
            explained.sort_unstable();
            // The serial is the time of the last change, which a fresh list cannot know.
            if record_type == "SOA" {
                assert_eq!((records.len(), explained.len()), (1, 1), "{name}");
            } else {
                assert_eq!(explained, records, "{name} {record_type}: {explanation:#}");
            }
            let missing = answer.contains("status: NXDOMAIN");
            let summary = explanation["summary"].as_str().unwrap();
            assert_eq!(
                summary.starts_with("NXDOMAIN"),
                missing,
                "{name}: {summary}"
            );
            assert_eq!(code, if records.is_empty() { 5 } else { 0 }, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_up_is_asked_unless_something_else_is_named() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("sealane");
    let mut cluster = Options::default()
        .args(&["-f", "examples/shop"])
        .data_dir(&data)
        .start()
        .await;
    let asked = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
        command
            .args(["explain", "http://api.mycompany.com/api"])
            .args(args);
        command
            .env("XDG_DATA_HOME", home.path())
            .env_remove("KUBECONFIG");
        command
            .env("HOME", home.path())
            .current_dir(root())
            .output()
            .unwrap()
    };
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let live = asked(&[]);
    assert!(live.status.success(), "{live:?}");
    assert!(
        text(&live).contains("from a running instance, snapshot "),
        "{live:?}"
    );
    let files = asked(&["-f", "examples/shop"]);
    assert!(text(&files).contains("from files; "), "{files:?}");
    // Ejection is something that only the instance itself knows; nothing is ejected here.
    assert!(text(&live).contains("ready, node sealane"), "{live:?}");

    cluster.signal("TERM");
    cluster.wait(std::time::Duration::from_secs(20));
    assert!(
        !data.join("admin").exists(),
        "the address goes with the instance"
    );
    let gone = asked(&[]);
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
    let dead = asked(&["--admin", "127.0.0.1:1"]);
    assert_eq!(dead.status.code(), Some(3), "{dead:?}");
    let error = String::from_utf8(dead.stderr).unwrap();
    assert!(
        error.contains("no running instance answers at 127.0.0.1:1"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}
