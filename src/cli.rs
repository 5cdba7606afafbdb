//! The command line.

use clap::{Parser, Subcommand};

use crate::check::CheckOptions;
use crate::dns::DnsOptions;
use crate::echo::EchoOptions;
use crate::explain::ExplainOptions;
use crate::gateway::GatewayOptions;
use crate::init::InitOptions;
use crate::migrate::MigrateOptions;
use crate::node::NodeOptions;
use crate::sidecar::SidecarOptions;
use crate::up::settings::UpOptions;

/// Kubernetes services, ingress and DNS in one program; `up` brings its own cluster
#[derive(Debug, Parser)]
#[command(name = "sealane", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 good, 1 failed, 2 wrong usage or input, 3 this machine or cluster is not able, or
errors were found, 4 warnings were found (with --strict), 5 not found";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster on this machine: Kubernetes API, pods as processes, Services, Ingress, DNS
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<UpOptions>),
    /// Find what is wrong with manifests or with the objects of a cluster
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckOptions),
    /// Say why a request, a connection or a name goes where it goes, decision by decision
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Box<ExplainOptions>),
    /// Say what becomes of another gateway's objects when Sealane takes its place
    Migrate(MigrateOptions),
    /// Serve a cluster's Services on the node that this runs on
    #[command(after_help = NODE_EXAMPLES)]
    Node(Box<NodeOptions>),
    /// Serve a cluster's Ingresses
    #[command(after_help = GATEWAY_EXAMPLES)]
    Gateway(Box<GatewayOptions>),
    /// Answer the names of a cluster's Services
    #[command(after_help = DNS_EXAMPLES)]
    Dns(Box<DnsOptions>),
    /// Serve a pod's connections, both ways, from within the pod
    #[command(after_help = SIDECAR_EXAMPLES)]
    Sidecar(Box<SidecarOptions>),
    /// Redirect a pod's connections to its sidecar, and prove that they are
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitOptions),
    /// The demo workload: an HTTP server that says who it is and what it saw
    #[command(after_help = ECHO_EXAMPLES)]
    Echo(EchoOptions),
}

const UP_EXAMPLES: &str = "\
Examples:
  sealane up -f examples/shop
      Runs the example and prints where to reach it.
  sealane up -f k8s/ --image 'myapp:*=python3 app.py'
      Runs your manifests; pods of image myapp (any tag) run `python3 app.py`.
  sealane up --ephemeral
      An empty cluster that forgets everything at the end.
  KUBECONFIG=~/.local/share/sealane/kubeconfig kubectl get pods
      Drives it from another terminal.

Pods are processes, not containers: `command:` in a pod runs as it stands, and an image without one
needs an --image rule (or an entry in --images FILE) that says which program it stands for.";

const CHECK_EXAMPLES: &str = "\
Examples:
  sealane check -f k8s/
      Manifests in a directory, without a cluster.
  sealane check -A
      All namespaces of the cluster of your kubeconfig.
  sealane check -f k8s/ --strict -o json
      For a pipeline.
  sealane check --corefile Corefile
      What of CoreDNS's configuration is not served as it is written.
  sealane explain SL0301
      What a code means.

Exit codes:
  0  nothing worse than a warning
  1  the check itself failed
  2  wrong usage
  3  errors were found, or the cluster does not answer or refuses
  4  warnings were found, with --strict
  5  a path, context or namespace does not exist";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sealane explain https://shop.example.com/cart -f k8s/
      Which certificate, rule, Service and endpoints take a request, and why no other.
  sealane explain http://10.0.0.7/ -H 'Host: shop.example.com' -X POST
      The same for a request with a field and a method of its own.
  sealane explain default/api:80
      Where connections to a Service go.
  sealane explain api --from-namespace shop -t AAAA
      What a pod in namespace shop gets for a name, search path and all.
  sealane explain SL0301
      The page of a code that `sealane check` printed.

The state comes from files (-f), a cluster (--kubeconfig, --context) or a running instance (--admin).
Without any of these: a running `sealane up`, or else the cluster of your kubeconfig.

Exit codes:
  0  it would be served, redirected or forwarded
  1  the explanation failed
  2  wrong usage
  3  it would be answered with an error, or the cluster or instance does not answer
  5  nothing takes it, or the Service, name or code does not exist";

pub(crate) const MIGRATE_EXAMPLES: &str = "\
Examples:
  sealane migrate ingress-nginx -A
      All Ingresses of ingress-nginx in the cluster of your kubeconfig. Nothing is changed, and no
      Secret is read.
  sealane migrate ingress-nginx -f k8s/
      Those in a directory, without a cluster.
  sealane migrate ingress-nginx -A --configmap ingress-nginx/ingress-nginx-controller
      What becomes of its settings, too.
  sealane migrate ingress-nginx -A -o json | jq -r '.ingresses[] | select(.verdict == \"refused\") | .name'
      For a pipeline.

Exit codes:
  0  everything would be served as before
  1  the report failed
  2  wrong usage
  3  something would be refused, a file cannot be read, or the cluster does not answer or refuses
  4  something would differ
  5  a path, context or namespace does not exist";

const NODE_EXAMPLES: &str = "\
Examples:
  sealane node --node-name \"$(hostname)\" --service-cidr 10.96.0.0/16 --pod-cidr 10.244.0.0/16
      Intercepts pods' connections to Services on this node. Takes CAP_NET_ADMIN.
  kubectl apply -f deploy/node.yaml
      On every node of a cluster, with the role that it needs.

Connections that start on the node itself, and UDP, are left to what else serves Services there.";

const GATEWAY_EXAMPLES: &str = "\
Examples:
  sealane gateway --kubeconfig ~/.kube/config --http 127.0.0.1:8080 --https 127.0.0.1:8443
      Serves the Ingresses of class `sealane` of that cluster on this machine.
  sealane gateway --publish-service sealane/gateway --default-ssl-certificate sealane/default
      In a pod: the Service's addresses become the Ingresses' status.
  kubectl apply -f deploy/gateway.yaml
      On a cluster, with the role that it needs.";

const DNS_EXAMPLES: &str = "\
Examples:
  sealane dns --kubeconfig ~/.kube/config --dns 127.0.0.1:1053
  dig @127.0.0.1 -p 1053 kubernetes.default.svc.cluster.local
  sealane dns -conf Corefile
      What a Corefile says, on its ports. The arguments of CoreDNS do the same.
  kubectl apply -f deploy/dns.yaml
      On a cluster, with the role that it needs.";

const SIDECAR_EXAMPLES: &str = "\
Examples:
  sealane sidecar --native --pod-ip \"$POD_IPS\" --probes 0.0.0.0:15021
      In a pod whose connections `sealane init` redirects, as an init container with restartPolicy
      Always, as user 65532.
  kubectl apply -f deploy/sidecar.yaml
      The role that it needs; the file has a pod to copy from.

A Service without endpoints: HTTP gets 503 at once, other connections are accepted and then reset.";

const INIT_EXAMPLES: &str = "\
Examples:
  sealane init --proxy-uid 65532
      In a pod's network namespace, as an init container with NET_ADMIN.
  sealane init --skip-inbound-ports 9100 --skip-outbound-cidrs 10.0.0.0/24 -o json
      Leaves a port and a network alone.
  sealane init --check
      Only says whether the rules are in force.
  sealane init --remove

deploy/sidecar.yaml shows it in a pod.";

const ECHO_EXAMPLES: &str = "\
Examples:
  sealane echo --port 8000 --udp 7000
  curl 'http://127.0.0.1:8000/hello?delay=200ms&status=503'
  curl -X PUT http://127.0.0.1:8000/readyz/off      # the readiness probe fails until /readyz/on";
