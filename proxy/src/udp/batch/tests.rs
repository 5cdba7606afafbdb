use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn socket(ip: impl Into<std::net::IpAddr>) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip.into(), 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[test]
fn datagrams_of_all_sizes_and_both_families_go_through() {
    let mut batch = Batch::new();
    // The families take turns, because each call writes into the headers.
    for round in 0..3 {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let ip: std::net::IpAddr = ip;
            let ((near, addr), (far, far_addr)) = (socket(ip), socket(ip));
            let (last, last_addr) = socket(ip);
            let sizes = [0, 1, 1472, 9000, 65_000];
            for size in sizes {
                far.send_to(&vec![size as u8 ^ round; size], addr).unwrap();
            }
            let count = batch.receive(&near, Kind::bound(addr)).unwrap();
            assert_eq!(count, sizes.len());
            for (index, size) in sizes.into_iter().enumerate() {
                assert_eq!(
                    batch.datagrams()[index],
                    Datagram {
                        from: far_addr,
                        dialled: None,
                        length: size
                    }
                );
                let byte = size as u8 ^ round;
                assert!(batch.content(index).iter().all(|b| *b == byte), "{size}");
            }
            assert_eq!(batch.bytes(1..4), 10_473);
            let (sent, error) = batch.send(&near, 0..count, Some(last_addr));
            assert_eq!((sent, error.map(|e| e.kind())), (count, None));
            let mut buffer = vec![0; LARGEST];
            for size in sizes {
                assert_eq!(last.recv(&mut buffer).unwrap(), size);
            }
            let error = batch.receive(&near, Kind::bound(addr)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.datagrams(), []);
        }
    }
}

#[test]
fn a_closed_port_is_told_by_the_connected_socket() {
    let (near, _) = socket(Ipv4Addr::LOCALHOST);
    let (far, addr) = socket(Ipv4Addr::LOCALHOST);
    near.connect(addr).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    let mut batch = Batch::new();
    for _ in 0..4 {
        far.send(b"x").unwrap();
    }
    assert_eq!(batch.receive(&near, Kind::V4).unwrap(), 4);
    drop(far);
    // The kernel tells with the next call what became of the last one.
    batch.send(&near, 0..4, None);
    let (sent, error) = batch.send(&near, 0..4, None);
    assert_eq!(sent, 0);
    assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionRefused);
}
