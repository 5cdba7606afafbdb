#![no_main]
//! What clients send: the header check, the parser, the plugins that answer from memory, and the
//! encoder, over whatever transport. hickory has to be able to read every reply.

mod world;

use hickory_proto::op::{Message, ResponseCode};
use libfuzzer_sys::fuzz_target;
use sealane_dns::answer::encode::{self, Transport};
use sealane_dns::message::{HEADER, Rejected};

use world::World;

thread_local! {
    static WORLD: World = World::new();
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, message)) = data.split_first() else {
        return;
    };
    let transport = match choice % 4 {
        0 => Transport::Udp,
        1 => Transport::Tcp { idle: 100 },
        2 => Transport::Https,
        _ => Transport::Quic,
    };
    let reply = WORLD.with(|world| world.ask(message, transport));
    let is_query = message.len() >= HEADER && message[2] & 0x80 == 0;
    let Some(reply) = reply else {
        // Every query is answered; the configuration drops none.
        assert!(!is_query);
        return;
    };
    assert!(is_query && reply.len() >= HEADER);
    assert_eq!(reply[..2], message[..2], "the id");
    assert_eq!(reply[2] & 0x80, 0x80, "a reply");
    assert_eq!(reply[2] & 0x79, message[2] & 0x79, "opcode and RD");
    let parsed = sealane_dns::message::parse(message);
    if transport == Transport::Udp {
        let most = match &parsed {
            Ok(query) | Err(Rejected::Code(query, _)) if query.edns.is_some() => encode::UDP_LIMIT,
            _ => encode::UDP_PLAIN,
        };
        assert!(reply.len() <= most);
    }
    if parsed.is_ok() {
        let reply = Message::from_vec(&reply).expect("a reply that cannot be read");
        assert_ne!(reply.metadata.response_code, ResponseCode::FormErr);
    }
});
