//! A resolver that knows a few names: what the servers under test forward to.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use crate::wire::{flag, kind, name_bytes, rcode};

/// Starts it on UDP and TCP of a free loopback port. It ends with the test process.
pub(crate) fn start() -> SocketAddr {
    let (listener, socket) = loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
            break (listener, socket);
        }
    };
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                // A client that is gone already.
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    addr
}

fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let answer = answer(&query)?;
        let length = u16::try_from(answer.len()).expect("a short answer");
        stream.write_all(&length.to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()?;
    }
}

/// Code and records (name, TTL, type, data) of an answer.
type Known = (u16, Vec<(&'static str, u32, u16, Vec<u8>)>);

/// What is known of a name.
fn lookup(name: &str, wanted: u16) -> Known {
    let www = "www.example.com";
    let address = |name, ttl| match wanted {
        kind::A => vec![(name, ttl, kind::A, vec![192, 0, 2, 80])],
        kind::AAAA => {
            let mut data = vec![0x20, 1, 0x0d, 0xb8];
            data.resize(16, 0);
            vec![(name, ttl, kind::AAAA, data)]
        }
        _ => Vec::new(),
    };
    match name {
        "www.example.com" if wanted == kind::TXT => {
            let text = b"\x0bhello world".to_vec();
            (rcode::NOERROR, vec![(www, 300, kind::TXT, text)])
        }
        "www.example.com" => (rcode::NOERROR, address(www, 300)),
        "quick.example.com" => (rcode::NOERROR, address("quick.example.com", 1)),
        "alias.example.com" => {
            let alias = ("alias.example.com", 600, kind::CNAME, name_bytes(www));
            let mut records = vec![alias];
            records.extend(address(www, 20));
            (rcode::NOERROR, records)
        }
        "empty.example.com" | "example.com" => (rcode::NOERROR, Vec::new()),
        "broken.example.com" => (rcode::SERVFAIL, Vec::new()),
        _ => (rcode::NXDOMAIN, Vec::new()),
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut name = String::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let wanted = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let (code, records) = lookup(&name, wanted);
    let negative = records.is_empty() && code != rcode::SERVFAIL;
    let has_opt = query[11] > 0;
    let asked = u16::from_be_bytes([query[2], query[3]]);
    let flags = flag::QR | asked & (flag::RD | flag::CD) | flag::RA | code;
    let counts = [
        1,
        u16::try_from(records.len()).expect("few"),
        u16::from(negative),
        u16::from(has_opt),
    ];
    let mut out = query[..2].to_vec();
    for word in [flags].into_iter().chain(counts) {
        out.extend(word.to_be_bytes());
    }
    out.extend(question);
    let mut record = |name: &str, ttl: u32, kind: u16, data: &[u8]| {
        out.extend(name_bytes(name));
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        out.extend(data);
    };
    for (name, ttl, kind, data) in records {
        record(name, ttl, kind, &data);
    }
    if negative {
        let mut soa = [
            name_bytes("ns.example.com"),
            name_bytes("hostmaster.example.com"),
        ]
        .concat();
        for number in [1u32, 7200, 900, 86400, 60] {
            soa.extend(number.to_be_bytes());
        }
        let zone = if name.ends_with("example.com") {
            "example.com"
        } else {
            ""
        };
        record(zone, 120, kind::SOA, &soa);
    }
    if has_opt {
        out.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    Some(out)
}
