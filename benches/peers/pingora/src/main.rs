//! A reverse proxy on pingora: hosts in a map, round robin over endpoints, `X-Forwarded-For`.
//! Arguments: address, threads, number of hosts, endpoints.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

struct Hosts(HashMap<String, Arc<LoadBalancer<RoundRobin>>>);

#[async_trait]
impl ProxyHttp for Hosts {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let host = session.req_header().headers.get("host");
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let found = self.0.get(host).and_then(|backends| backends.select(b"", 16));
        let backend = found.ok_or_else(|| Error::new(ErrorType::HTTPStatus(404)))?;
        Ok(Box::new(HttpPeer::new(backend, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        let client = session.client_addr().and_then(|addr| addr.as_inet());
        let client = client.map_or_else(String::new, |addr| addr.ip().to_string());
        request.insert_header("X-Forwarded-For", client)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, threads, hosts, endpoints @ ..] = arguments.as_slice() else {
        panic!("ADDRESS THREADS HOSTS ENDPOINT…");
    };
    let backends = LoadBalancer::try_from_iter(endpoints).expect("addresses");
    let backends = Arc::new(backends);
    let hosts: usize = hosts.parse().expect("a number of hosts");
    let hosts = (0..hosts).map(|index| (format!("host-{index}.test"), Arc::clone(&backends)));
    let conf = ServerConf {
        threads: threads.parse().expect("a number of threads"),
        upstream_keepalive_pool_size: 256,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Hosts(hosts.collect()));
    proxy.add_tcp(listen);
    server.add_service(proxy);
    server.run_forever();
}
