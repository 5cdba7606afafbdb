//! `acl`: who may ask for what. The first rule for the zone, type and client decides; with none the
//! query is let through.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;

use crate::answer::{Answer, ExtendedError};
use crate::config::{AclAction, AclRule};
use crate::message::Question;

/// What is done with a query.
pub(crate) fn decide(rules: &[AclRule], question: &Question, client: IpAddr) -> AclAction {
    let client = client.to_canonical();
    let matching = rules.iter().find(|rule| {
        let is_type = rule.types.is_empty() || rule.types.contains(&question.record_type);
        let is_zone = rule.zones.iter().any(|zone| question.name.is_within(zone));
        let mut clients = rule.clients.iter();
        let is_client = rule.clients.is_empty()
            || clients.any(|&(addr, prefix)| is_in(client, addr.to_canonical(), prefix));
        is_type && is_zone && is_client
    });
    matching.map_or(AclAction::Allow, |rule| rule.action)
}

/// The reply to a query that is not let through; none for silence.
pub(crate) fn reply(action: AclAction) -> Option<Answer> {
    let (rcode, code, text) = match action {
        AclAction::Block => (ResponseCode::Refused, 15, "blocked"),
        AclAction::Filter => (ResponseCode::NoError, 17, "filtered"),
        AclAction::Allow | AclAction::Drop => return None,
    };
    let error = ExtendedError {
        code,
        text: text.into(),
    };
    Some(Answer::code(rcode, Some(error)))
}

/// The address is in the network.
fn is_in(addr: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (addr, network, width) = match (addr, network) {
        (IpAddr::V4(addr), IpAddr::V4(network)) => {
            (addr.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(addr), IpAddr::V6(network)) => (addr.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let free = width - u32::from(prefix).min(width);
    let network_of = |bits: u128| bits.checked_shr(free).unwrap_or(0);
    network_of(addr) == network_of(network)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;

    fn rule(zone: &str, action: AclAction, types: &[RecordType], clients: &[&str]) -> AclRule {
        let network = |text: &&str| {
            let (addr, prefix) = text.split_once('/').unwrap();
            (addr.parse().unwrap(), prefix.parse().unwrap())
        };
        AclRule {
            zones: vec![zone.parse().unwrap()],
            action,
            types: types.to_vec(),
            clients: clients.iter().map(network).collect(),
        }
    }

    #[test]
    fn dns_acl_the_first_rule_for_zone_type_and_client_decides() {
        use AclAction::{Allow, Block, Drop, Filter};
        let rules = [
            rule("a.test", Allow, &[], &["192.168.1.0/24"]),
            rule("a.test", Block, &[], &["192.168.0.0/16", "fd00::/8"]),
            rule("b.test", Filter, &[RecordType::A], &[]),
            rule(".", Drop, &[RecordType::AAAA], &["10.0.0.0/9", "0.0.0.0/0"]),
        ];
        for (name, record_type, client, expected) in [
            ("x.a.test", RecordType::A, "192.168.1.7", Allow),
            ("a.test", RecordType::A, "192.168.2.7", Block),
            ("a.test", RecordType::A, "::ffff:192.168.2.7", Block),
            ("a.test", RecordType::A, "fd12::1", Block),
            ("a.test", RecordType::A, "fe80::1", Allow),
            ("b.test", RecordType::A, "fe80::1", Filter),
            ("b.test", RecordType::TXT, "192.168.2.7", Allow),
            ("B.TEST", RecordType::A, "10.0.0.1", Filter),
            ("c.test", RecordType::AAAA, "10.200.0.1", Drop),
            ("c.test", RecordType::AAAA, "fd00::1", Allow),
        ] {
            let question = Question::new(name.parse().unwrap(), record_type);
            let decided = decide(&rules, &question, client.parse().unwrap());
            assert_eq!(decided, expected, "{name} {record_type} {client}");
        }
    }

    #[test]
    fn dns_acl_replies_say_why() {
        let code = |action| reply(action).map(|it| (it.rcode, it.error.unwrap().code));
        assert_eq!(code(AclAction::Block), Some((ResponseCode::Refused, 15)));
        assert_eq!(code(AclAction::Filter), Some((ResponseCode::NoError, 17)));
        assert_eq!(code(AclAction::Drop), None);
    }
}
