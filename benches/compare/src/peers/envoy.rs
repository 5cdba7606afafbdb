//! Envoy: least request, a virtual host for each host, circuit breakers out of the way.

use serde_json::{Value, json};

use super::{Running, cpus, endpoints, hosts};
use crate::case::{Case, Variant};
use crate::process::Program;
use crate::stage::{Stage, write};

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("envoy")?;
    let filter = if case.tcp_port().is_some() {
        json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp", "cluster": "backend",
            },
        })
    } else {
        http(variant)
    };
    let ends: Vec<Value> = endpoints(case, variant)
        .into_iter()
        .map(|end| {
            let ip = end.ip().to_string();
            json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": end.port()}}}})
        })
        .collect();
    let mut chain = json!({"filters": [filter]});
    if variant.tls {
        let [certificate, key, _] = &stage.identity()?.files;
        let alpn = if case == Case::Http2 {
            "h2"
        } else {
            "http/1.1"
        };
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "alpn_protocols": [alpn],
                    "tls_certificates": [{
                        "certificate_chain": {"filename": certificate},
                        "private_key": {"filename": key},
                    }],
                },
            },
        });
    }
    let most = 1_000_000;
    let configuration = json!({"static_resources": {
        "listeners": [{
            "name": "front",
            "address": {"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}},
            "filter_chains": [chain],
        }],
        "clusters": [{
            "name": "backend", "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [{
                "max_connections": most, "max_pending_requests": most, "max_requests": most,
            }]},
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": ends}]},
        }],
    }});
    let file = write(&dir, "envoy.json", &configuration.to_string())?;
    let workers = variant.workers.to_string();
    let arguments = [
        "--config-path".as_ref(),
        file.as_os_str(),
        "--concurrency".as_ref(),
        workers.as_ref(),
        "--use-dynamic-base-id".as_ref(),
        "--log-level".as_ref(),
        "error".as_ref(),
    ];
    let mut program = Program::start(&cpus(variant), &dir, &stage.envoy, arguments)?;
    program.listens(addr)?;
    Ok(Running::alone(addr, program))
}

fn http(variant: &Variant) -> Value {
    let hosts: Vec<Value> = hosts(variant)
        .map(|host| {
            json!({
                "name": host, "domains": [host],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}],
            })
        })
        .collect();
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http", "use_remote_address": true,
            "route_config": {"virtual_hosts": hosts},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    })
}
