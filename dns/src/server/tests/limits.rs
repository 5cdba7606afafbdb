//! How many queries a client may ask.

use super::connections::ask;
use super::*;
use crate::limit::{ClientLimit, ClientRates};
use crate::testing::World;

const NAME: &str = "svc1.testns.svc.cluster.local.";

fn limited(over: OverLimit, exempt: &[(&str, u8)]) -> DnsConfig {
    let config = DnsConfig::cluster(DnsSettings::default(), Vec::new());
    let mut block = (*config.blocks[0]).clone();
    let exempt = exempt.iter();
    block.plugins.client_limit = Some(Arc::new(ClientRates::new(ClientLimit {
        per_second: 1,
        burst: 2,
        over,
        exempt: exempt
            .map(|(net, prefix)| (net.parse().unwrap(), *prefix))
            .collect(),
    })));
    DnsConfig {
        blocks: vec![Arc::new(block)],
        ..config
    }
}

fn cluster() -> Snapshot {
    World::new().cluster_ip("svc1", &["10.0.0.1"], &[]).build()
}

#[tokio::test]
async fn dns_limit_datagrams_above_it_are_cut_off_and_connections_refused() {
    local(async {
        let server = Running::start(cluster(), limited(OverLimit::Truncate, &[])).await;
        for _ in 0..2 {
            assert_eq!(server.ask(NAME, "A").await.answers.len(), 1);
        }
        let cut = server.ask(NAME, "A").await;
        assert!(cut.metadata.truncation && cut.answers.is_empty(), "{cut}");
        let message = with_edns(query(NAME, "A"), 1232).to_vec().unwrap();
        let refused = ask(server.tcp, &message).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
        // Another client has its own share.
        let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        other.connect(server.udp).await.unwrap();
        other.send(&message).await.unwrap();
        let reply = Message::from_vec(&receive(&other).await).unwrap();
        assert_eq!(reply.answers.len(), 1);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_limit_datagrams_above_it_get_silence_where_that_is_wanted() {
    local(async {
        let config = limited(OverLimit::Drop, &[("127.0.0.2", 32)]);
        let server = Running::start(cluster(), config).await;
        let socket = client(server.udp).await;
        for id in 0..5 {
            let mut message = query(NAME, "A");
            message.metadata.id = id;
            socket.send(&message.to_vec().unwrap()).await.unwrap();
        }
        // This client has no limit, and asks last.
        let exempt = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        exempt.connect(server.udp).await.unwrap();
        for _ in 0..5 {
            exempt
                .send(&query(NAME, "A").to_vec().unwrap())
                .await
                .unwrap();
            let reply = Message::from_vec(&receive(&exempt).await).unwrap();
            assert_eq!(reply.answers.len(), 1);
        }
        let mut answered = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(length) = socket.try_recv(&mut buffer) {
            answered.push(Message::from_vec(&buffer[..length]).unwrap().metadata.id);
        }
        assert_eq!(answered, [0, 1]);
        server.stop().await;
    })
    .await;
}
