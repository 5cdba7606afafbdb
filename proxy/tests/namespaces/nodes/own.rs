//! Connections that start on the node itself.

use std::net::UdpSocket;
use std::time::Instant;

use super::*;
use crate::world::{TIMEOUT, eventually, read_line, snapshot_of};

/// The proxy accepts and then ends the connection. A reset can come before the client's system call
/// has told it that it was connected at all.
fn assert_leads_nowhere(client: &Pod, addr: impl Into<SocketAddr>) {
    let answer = connect(client, addr)
        .and_then(|mut stream| ask(&mut stream, "hello").map_err(|error| error.kind()));
    match answer {
        Ok(text) => assert_eq!(text, ""),
        Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(kind) => panic!("ended by {kind}"),
    }
}

#[test]
fn proxy_i5_the_nodes_own_connections_are_led_to_the_proxy_whose_own_are_not() {
    let Some(nodes) = Nodes::new() else { return };
    let there = nodes.two.pod(3);
    there.serve_lines("there", 8000);
    let endpoint: SocketAddr = (there.ip, 8000).into();
    let policy = TrafficPolicy::default();
    let mut proxy = nodes.one.proxy(service(&policy, &[endpoint], &[]));
    let host = &nodes.one.host;
    let (server, address) = seen(host, (VIP, 80)).unwrap();
    assert_eq!(server, "there");
    assert!(nodes.one.is_own(&address), "{address}");
    let mut kept = connect(host, (VIP, 80)).unwrap();
    assert!(ask(&mut kept, "1").unwrap().starts_with("there"));

    let refused = Err(ErrorKind::ConnectionRefused);
    let begun = Instant::now();
    assert_eq!(seen(host, (VIP, 81)), refused, "a port of nobody");
    proxy.publish(service(&policy, &[], &[]));
    assert_eq!(seen(host, (VIP, 80)), refused, "no endpoints");
    assert!(begun.elapsed() < TIMEOUT);
    assert!(ask(&mut kept, "2").unwrap().starts_with("there"), "S19");
    proxy.publish(snapshot_of([]));
    assert_eq!(
        seen(host, (VIP, 80)),
        Err(ErrorKind::TimedOut),
        "no Service"
    );
    assert!(ask(&mut kept, "3").unwrap().starts_with("there"), "S19");

    // An endpoint that is the Service itself leads nowhere, not round and round.
    proxy.publish(service(&policy, &[(VIP, 80).into()], &[]));
    assert_leads_nowhere(host, (VIP, 80));
}

#[test]
fn proxy_i5_an_endpoint_that_is_the_proxy_itself_is_answered_508() {
    let Some(nodes) = Nodes::new() else { return };
    let client = nodes.one.pod(2);
    let own_listener = [(nodes.one.host.ip, PORT).into()];
    let policy = TrafficPolicy::default();
    let snapshot = service_that_speaks(AppProtocol::Http, &policy, &own_listener, &[]);
    let _proxy = nodes.one.proxy(snapshot);
    let mut stream = connect(&client, (VIP, 80)).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: api\r\n\r\n";
    stream.write_all(request).unwrap();
    let status = read_line(&mut stream).unwrap();
    assert!(status.starts_with("HTTP/1.1 508"), "{status}");

    // The listener dialled directly is no way to anywhere.
    assert_leads_nowhere(&client, (nodes.one.host.ip, PORT));
}

#[test]
fn proxy_s1_datagrams_of_the_node_itself_reach_services() {
    let Some(nodes) = Nodes::new() else { return };
    let there = nodes.two.pod(3);
    let ip = there.ip;
    let socket = there.run(move || UdpSocket::bind((ip, 53)).unwrap());
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            socket.send_to(&datagram[..length], client).unwrap();
        }
    });
    let with = |endpoints: &[SocketAddr]| {
        let mut port = service_port(53, AppProtocol::Detect, endpoints);
        port.protocol = Protocol::Udp;
        snapshot_of([(VIP, port)])
    };
    let mut proxy = nodes.one.proxy(with(&[(ip, 53).into()]));
    let ask_service = || {
        nodes.one.host.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.connect((VIP, 53)).unwrap();
            let mut answer = [0; 64];
            let sent = socket.send(b"hello");
            // What is turned away on its way out is not even sent, but there is a reason to be had.
            let received = socket.recv(&mut answer);
            let length = received.map_err(|error| error.kind())?;
            sent.unwrap();
            Ok::<_, ErrorKind>(answer[..length].to_vec())
        })
    };
    assert_eq!(ask_service(), Ok(b"hello".to_vec()));
    proxy.publish(with(&[]));
    assert_eq!(ask_service(), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn proxy_s8_node_ports_follow_the_nodes_addresses() {
    let Some(nodes) = Nodes::new() else { return };
    let there = nodes.two.pod(3);
    there.serve_lines("there", 8000);
    let endpoint = [(there.ip, 8000).into()];
    let _proxy = nodes
        .one
        .proxy(service(&TrafficPolicy::default(), &endpoint, &[]));
    let late = v4(10, 100, 0, 50);
    let from_outside = || seen(&nodes.outside, (late, NODE_PORT)).is_ok();
    assert!(!from_outside());
    nodes.one.host.ip("addr add 10.100.0.50/24 dev eth0");
    eventually(from_outside, |served| *served);
    nodes.one.host.ip("addr del 10.100.0.50/24 dev eth0");
    eventually(from_outside, |served| !*served);
}
