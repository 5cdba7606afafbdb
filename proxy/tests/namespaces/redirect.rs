//! REDIRECT in place of TPROXY.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use sealane_config::model::AppProtocol;
use sealane_proxy::intercept::{Interceptor, Method, original_destination};

use crate::world::{PORT, Proxy, World, ask, service_port, snapshot_of};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 1, 1));

fn world() -> Option<World> {
    let mut world = World::new()?;
    world.method = Method::Redirect;
    Some(world)
}

#[test]
fn proxy_i4_the_original_destination_of_a_redirected_connection_is_tracked() {
    let Some(world) = world() else { return };
    let pod = world.pod("client");
    let options = world.options();
    let mut interceptor = world.run(move || Interceptor::open(options).unwrap());
    let endpoint = SocketAddr::from((Ipv4Addr::new(10, 244, 9, 1), 80));
    let port = service_port(80, AppProtocol::Tcp, &[endpoint]);
    interceptor.apply(&snapshot_of([(VIP, port)])).unwrap();
    let listener = world.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
    let client = pod.connect((VIP, 80)).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    let local = accepted.local_addr().unwrap();
    assert_ne!(local.ip(), VIP);
    let dialled = original_destination(&accepted, local).unwrap();
    assert_eq!(dialled, (VIP, 80).into());
}

#[test]
fn proxy_s1_s4_s19_services_are_served_and_refused_by_redirection() {
    let Some(world) = world() else { return };
    let (client, server) = (world.pod("client"), world.pod("server"));
    server.serve_lines("server", 8000);
    let with = |endpoints: &[SocketAddr]| {
        snapshot_of([(VIP, service_port(80, AppProtocol::Tcp, endpoints))])
    };
    let endpoint = (server.ip, 8000).into();
    let mut proxy = Proxy::start(&world, with(&[endpoint]));
    let mut kept = client.connect((VIP, 80)).unwrap();
    let node_ip = world.node_ip();
    let expected = format!("server {node_ip} hello");
    assert_eq!(ask(&mut kept, "hello").unwrap(), expected);
    for (snapshot, expected) in [
        (with(&[]), Err(ErrorKind::ConnectionRefused)),
        (with(&[endpoint]), Ok(())),
        (snapshot_of([]), Err(ErrorKind::TimedOut)),
    ] {
        proxy.publish(snapshot);
        let connected = client.connect((VIP, 80));
        assert_eq!(connected.map(drop).map_err(|(kind, _)| kind), expected);
        assert!(ask(&mut kept, "still").unwrap().ends_with("still"));
    }
}
