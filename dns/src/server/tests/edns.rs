//! What old and new clients may put into a query (RFC 6891, 7873, 8906).

use super::*;
use crate::answer::encode::UDP_LIMIT;
use crate::message::HEADER;
use crate::testing::World;

/// Flags of a header.
const RD: u16 = 0x0100;
const TC: u16 = 0x0200;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;
/// The one that is reserved.
const Z: u16 = 0x0040;
/// Flag of an OPT record.
const DO: u16 = 0x8000;

const SERVICE: &str = "svc1.testns.svc.cluster.local.";
const LARGE: &str = "hdls1.testns.svc.cluster.local.";

/// An OPT record: version, flags, options.
type Opt<'a> = (u8, u16, &'a [u8]);

fn cluster() -> Snapshot {
    let endpoints: Vec<String> = (0..200).map(|n| format!("172.0.0.{n}")).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &[])
        .headless("hdls1", &[], &endpoints)
        .build()
}

fn raw(flags: u16, name: &str, record_type: u16, size: u16, opt: Option<Opt<'_>>) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [0x4242, flags, 1, 0, 0, u16::from(opt.is_some())] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    let name: Name = name.parse().unwrap();
    message.extend_from_slice(name.wire());
    message.extend_from_slice(&record_type.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    if let Some((version, flags, options)) = opt {
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&size.to_be_bytes());
        message.extend_from_slice(&[0, version]);
        message.extend_from_slice(&flags.to_be_bytes());
        message.extend_from_slice(&(options.len() as u16).to_be_bytes());
        message.extend_from_slice(options);
    }
    message
}

/// What is in a reply, apart from records.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// Upper bits included.
    rcode: u16,
    flags: u16,
    /// Size, version, flags, options.
    opt: Option<(u16, u8, u16, Vec<u8>)>,
}

impl Said {
    fn of(reply: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([reply[at], reply[at + 1]]);
        let flags = word(2);
        // Ours is the last record, and the only one of the root.
        let start = |opt: &[u8]| opt.starts_with(&[0, 0, 41]);
        let at = (HEADER..reply.len()).rev().find(|&at| {
            let rest = &reply[at..];
            let length = rest.get(9..11).map(|length| [length[0], length[1]]);
            let length = length.map(|length| usize::from(u16::from_be_bytes(length)));
            start(rest) && length.is_some_and(|length| rest.len() == 11 + length)
        });
        let at = at.filter(|_| word(10) > 0);
        Self {
            rcode: flags & 15 | at.map_or(0, |at| u16::from(reply[at + 5]) << 4),
            flags: flags & !0x800f,
            opt: at.map(|at| {
                (
                    word(at + 3),
                    reply[at + 6],
                    word(at + 7),
                    reply[at + 11..].to_vec(),
                )
            }),
        }
    }
}

async fn ask(server: &Running, message: &[u8]) -> Vec<u8> {
    let socket = client(server.udp).await;
    socket.send(message).await.unwrap();
    receive(&socket).await
}

/// The probes of RFC 8906 section 8 at a name with an address.
#[tokio::test]
async fn reliability_b32_rfc_8906_probes() {
    const AA: u16 = 0x0400;
    const BADVERS: u16 = 16;
    const NOTIMP: u16 = 4;
    let option_100: &[u8] = &[0, 100, 0, 0];
    // NSID, EXPIRE, COOKIE of a client, client subnet.
    let options: &[u8] = &[
        0, 3, 0, 0, 0, 9, 0, 0, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 8, 0, 4, 0, 1, 0, 0,
    ];
    let plain = |flags| raw(flags, SERVICE, 1, 0, None);
    let edns = |opt| raw(0, SERVICE, 1, 4096, Some(opt));
    let our = |flags| Some((UDP_LIMIT as u16, 0, flags, Vec::new()));
    let cases = [
        ("8.1.1 plain", plain(0), 0, AA, None),
        (
            "8.1.2 unknown type",
            raw(0, SERVICE, 1000, 0, None),
            0,
            AA,
            None,
        ),
        ("8.1.3.1 CD", plain(CD), 0, AA | CD, None),
        ("8.1.3.2 AD", plain(AD), 0, AA, None),
        ("8.1.3.3 reserved bit", plain(Z), 0, AA, None),
        ("8.1.3.4 RD", plain(RD), 0, AA | RD, None),
        (
            "8.1.4 unknown opcode",
            plain(15 << 11),
            NOTIMP,
            15 << 11,
            None,
        ),
        ("8.2.1 EDNS", edns((0, 0, &[])), 0, AA, our(0)),
        ("8.2.2 version 1", edns((1, 0, &[])), BADVERS, 0, our(0)),
        (
            "8.2.3 unknown option",
            edns((0, 0, option_100)),
            0,
            AA,
            our(0),
        ),
        ("8.2.4 unknown flag", edns((0, 0x0040, &[])), 0, AA, our(0)),
        (
            "8.2.5 version 1, unknown flag",
            edns((1, 0x0040, &[])),
            BADVERS,
            0,
            our(0),
        ),
        (
            "8.2.6 version 1, option",
            edns((1, 0, option_100)),
            BADVERS,
            0,
            our(0),
        ),
        (
            "8.2.7 truncated",
            raw(0, LARGE, 1, 512, Some((0, DO, &[]))),
            0,
            AA | TC,
            our(DO),
        ),
        ("8.2.8 DO", edns((0, DO, &[])), 0, AA, our(DO)),
        (
            "8.2.9 version 1, DO",
            edns((1, DO, &[])),
            BADVERS,
            0,
            our(DO),
        ),
    ];
    local(async {
        let server = Running::start(cluster(), DnsSettings::default()).await;
        for (probe, message, rcode, flags, opt) in cases {
            let said = Said::of(&ask(&server, &message).await);
            assert_eq!(said, Said { rcode, flags, opt }, "{probe}");
        }
        let all = Said::of(&ask(&server, &edns((0, 0, options))).await);
        let (.., answered) = all.opt.unwrap();
        // Of all of them only the cookie is known here.
        assert_eq!(
            (all.rcode, &answered[..4]),
            (0, &[0, 10, 0, 24][..]),
            "8.2.10"
        );
        assert_eq!(answered.len(), 28);
        let over_tcp = connections::ask(server.tcp, &plain(0)).await;
        assert_eq!(over_tcp.answers.len(), 1, "8.1.5 TCP");
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_edns_cookies_get_a_server_cookie() {
    local(async {
        let server = Running::start(cluster(), DnsSettings::default()).await;
        let with = |cookie: &[u8]| {
            let option = [&[0, 10, 0, cookie.len() as u8][..], cookie].concat();
            raw(0, SERVICE, 1, 1232, Some((0, 0, &option)))
        };
        let own = [1, 2, 3, 4, 5, 6, 7, 8];
        // A server cookie that comes back may be of any server's form.
        for returned in [0, 8, 16, 32] {
            let sent = [&own[..], &vec![9; returned]].concat();
            let reply = ask(&server, &with(&sent)).await;
            let (.., options) = Said::of(&reply).opt.unwrap();
            let expected = [&[0, 10, 0, 24][..], &own, &[1, 0, 0, 0]].concat();
            assert_eq!(options[..16], expected, "{returned}");
            assert_eq!(options.len(), 28);
            assert_ne!(options[20..], [9; 8], "not what the client says");
        }
        for wrong in [0, 7, 9, 15, 41] {
            let reply = ask(&server, &with(&vec![1; wrong])).await;
            assert_eq!((reply.len(), reply[3] & 15), (HEADER, 1), "{wrong} bytes");
        }
        server.stop().await;
    })
    .await;
}

/// The settings of a block with these plugins changed.
fn with_plugins(change: impl Fn(&mut crate::config::Plugins)) -> DnsConfig {
    let mut config = DnsConfig::from(DnsSettings::default());
    let block = Arc::make_mut(&mut config.blocks[0]);
    change(&mut block.plugins);
    config
}

#[tokio::test]
async fn dns_edns_nsid_is_told_if_there_is_one_and_somebody_asks() {
    local(async {
        let asking = raw(0, SERVICE, 1, 1232, Some((0, 0, &[0, 3, 0, 0])));
        let not_asking = raw(0, SERVICE, 1, 1232, Some((0, 0, &[])));
        let named = with_plugins(|plugins| plugins.nsid = Some("dns-7".to_owned()));
        let nameless = DnsConfig::from(DnsSettings::default());
        for (config, message, expected) in [
            (&named, &asking, &b"\x00\x03\x00\x05dns-7"[..]),
            (&named, &not_asking, b""),
            (&nameless, &asking, b""),
        ] {
            let server = Running::start(cluster(), config.clone()).await;
            let (.., options) = Said::of(&ask(&server, message).await).opt.unwrap();
            assert_eq!(options, expected);
            server.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn dns_edns_bufsize_limits_replies_and_is_announced() {
    local(async {
        for (bufsize, asked, limit) in [
            (None, 4096, 1232),
            (Some(700), 4096, 700),
            (Some(1232), 600, 600),
            (Some(4096), 2000, 2000),
        ] {
            let config = with_plugins(|plugins| plugins.bufsize = bufsize);
            let server = Running::start(cluster(), config).await;
            let reply = ask(&server, &raw(0, LARGE, 1, asked, Some((0, 0, &[])))).await;
            let length = reply.len();
            assert!(
                length <= limit && length > limit - 16,
                "{bufsize:?}: {length}"
            );
            let (size, ..) = Said::of(&reply).opt.unwrap();
            assert_eq!(size, bufsize.unwrap_or(1232));
            server.stop().await;
        }
    })
    .await;
}
