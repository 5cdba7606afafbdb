use tokio::io::AsyncWriteExt;

use super::*;

/// Version 2 with this command, family and what follows.
fn v2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(behind.len()).unwrap().to_be_bytes());
    bytes.extend(behind);
    bytes
}

const TCP4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];

fn tcp6() -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let mut bytes = ip("2001:db8::7").to_vec();
    bytes.extend(ip("2001:db8::1"));
    bytes.extend([0x30, 0x39, 0x01, 0xbb]);
    bytes
}

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// The header that a connection begins with, and what is left of it to read.
async fn read_from(bytes: &[u8]) -> Option<(Header, Vec<u8>)> {
    let (mut far, mut near) = tokio::io::duplex(1 << 17);
    far.write_all(bytes).await.unwrap();
    drop(far);
    let header = read(&mut near).await.ok()?;
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    Some((header, rest))
}

#[tokio::test]
async fn ingress_t7_headers_of_both_versions_are_read_and_nothing_behind_them() {
    let v4 = proxied("192.0.2.7:12345", "198.51.100.1:443");
    let v6 = proxied("[2001:db8::7]:12345", "[2001:db8::1]:443");
    let with_extensions = [&TCP4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let long = [&TCP4[..], &[0x55; 60_000]].concat();
    let cases: [(&str, Vec<u8>, Header); 12] = [
        (
            "1 TCP4",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".into(),
            v4,
        ),
        (
            "1 TCP6",
            b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n".into(),
            v6,
        ),
        ("1 UNKNOWN", b"PROXY UNKNOWN\r\n".into(), Header::Local),
        (
            "1 UNKNOWN with addresses",
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".into(),
            Header::Local,
        ),
        (
            "1 port 0",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n".into(),
            proxied("192.0.2.7:0", "198.51.100.1:65535"),
        ),
        ("2 TCP4", v2(0x21, 0x11, &TCP4), v4),
        ("2 TCP6", v2(0x21, 0x21, &tcp6()), v6),
        ("2 with extensions", v2(0x21, 0x11, &with_extensions), v4),
        ("2 with long extensions", v2(0x21, 0x11, &long), v4),
        ("2 LOCAL", v2(0x20, 0x00, &[]), Header::Local),
        (
            "2 LOCAL with addresses",
            v2(0x20, 0x11, &TCP4),
            Header::Local,
        ),
        ("2 UNSPEC", v2(0x21, 0x00, &[1, 2, 3]), Header::Local),
    ];
    for (name, mut bytes, expected) in cases {
        bytes.extend(b"GET / HTTP/1.1\r\n");
        let read = read_from(&bytes).await;
        assert_eq!(
            read,
            Some((expected, b"GET / HTTP/1.1\r\n".to_vec())),
            "{name}"
        );
    }
}

#[tokio::test]
async fn ingress_t7_anything_else_is_no_header() {
    let short4 = &TCP4[..11];
    let cases: [(&str, Vec<u8>); 25] = [
        ("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("lower case", b"proxy TCP4 192.0.2.7 1.1.1.1 1 2\r\n".into()),
        (
            "bare line feed",
            b"PROXY TCP4 192.0.2.7 1.1.1.1 1 2\n".into(),
        ),
        (
            "line feed inside",
            b"PROXY UNKNOWN a\nGET / HTTP/1.1\r\n".into(),
        ),
        ("carriage return inside", b"PROXY UNKNOWN a\rb\r\n".into()),
        ("no address", b"PROXY TCP4 1 2         \r\n".into()),
        (
            "two spaces",
            b"PROXY TCP4  192.0.2.7 1.1.1.1 1 2\r\n".into(),
        ),
        (
            "one word more",
            b"PROXY TCP4 192.0.2.7 1.1.1.1 1 2 3\r\n".into(),
        ),
        ("UDP", b"PROXY UDP4 192.0.2.7 1.1.1.1 1 2\r\n".into()),
        ("wrong family", b"PROXY TCP4 ::1 ::1 1 2\r\n".into()),
        (
            "the other wrong family",
            b"PROXY TCP6 192.0.2.7 1.1.1.1 1 2\r\n".into(),
        ),
        (
            "zeros in an address",
            b"PROXY TCP4 192.000.2.7 1.1.1.1 1 2\r\n".into(),
        ),
        (
            "zeros ahead of a port",
            b"PROXY TCP4 192.0.2.7 1.1.1.1 01 2\r\n".into(),
        ),
        (
            "sign ahead of a port",
            b"PROXY TCP4 192.0.2.7 1.1.1.1 +1 2\r\n".into(),
        ),
        (
            "port too high",
            b"PROXY TCP4 192.0.2.7 1.1.1.1 65536 2\r\n".into(),
        ),
        ("not text", b"PROXY TCP4 \xff\xff\xff\xff\xff\r\n".into()),
        (
            "too long",
            [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 92], b"\r\n"].concat(),
        ),
        ("ends early", b"PROXY TCP4 192.0.2.7".into()),
        ("ends in a signature", SIGNATURE[..8].into()),
        ("version 3", v2(0x31, 0x11, &TCP4)),
        ("unknown command", v2(0x22, 0x11, &TCP4)),
        ("datagrams", v2(0x21, 0x12, &TCP4)),
        ("UNIX", v2(0x21, 0x31, &[0; 216])),
        ("too short for its family", v2(0x21, 0x11, short4)),
        ("ends in its addresses", v2(0x21, 0x11, &TCP4)[..20].into()),
    ];
    for (name, bytes) in cases {
        assert_eq!(read_from(&bytes).await, None, "{name}");
    }
    let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 91], b"\r\n"].concat();
    assert_eq!(longest.len(), LONGEST_LINE);
    assert!(read_from(&longest).await.is_some());
}

#[test]
fn ingress_t7_whatever_comes_is_taken_for_a_header_refused_or_waited_for() {
    let headers = [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x21, 0x11, &TCP4),
        v2(0x21, 0x21, &tcp6()),
        v2(0x20, 0x00, &[1, 2, 3]),
    ];
    let mut outcomes = [0; 3];
    for header in headers {
        for place in 0..header.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = header.clone();
                bytes[place] = byte;
                for end in [place + 1, header.len()] {
                    let begun = &bytes[..end];
                    outcomes[match parse(begun) {
                        Ok(Progress::Done(..)) => 0,
                        Ok(Progress::Needs(more)) => {
                            assert!((1..=LONGEST_LINE - end).contains(&more), "{begun:?}");
                            1
                        }
                        Err(Malformed) => 2,
                    }] += 1;
                }
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 1000), "{outcomes:?}");
}
