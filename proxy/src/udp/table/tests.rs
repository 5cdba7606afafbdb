use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;

fn key(client: u16) -> FlowKey {
    let vip = SocketAddr::from(([10, 96, 0, 1], 53));
    let ip = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));
    FlowKey {
        client: ClientAddr((ip, client).into()),
        vip: VipAddr(vip),
    }
}

fn table(clients: impl IntoIterator<Item = u16>, now: Instant) -> FlowTable<u16> {
    let mut table = FlowTable::new();
    for client in clients {
        add(&mut table, client, now);
    }
    table
}

fn add(table: &mut FlowTable<u16>, client: u16, now: Instant) -> FlowId {
    let made: Result<_, ()> = table.insert(key(client), now, |_| Ok(client));
    made.unwrap()
}

fn expired(table: &mut FlowTable<u16>, now: Instant) -> Vec<u16> {
    std::iter::from_fn(|| table.pop_idle(now)).collect()
}

#[test]
fn proxy_s17_flows_end_after_30_s_unanswered_and_120_s_answered() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut table = table([1, 2, 3], start);
    let [_, two, three] = [1, 2, 3].map(|client| table.find(&key(client)).unwrap());
    table.answered(two, at(1));
    assert_eq!(expired(&mut table, at(29)), [0_u16; 0]);
    table.asked(three, at(29));
    assert_eq!(expired(&mut table, at(30)), [1], "nobody answered");
    assert_eq!(expired(&mut table, at(58)), [0_u16; 0]);
    assert_eq!(expired(&mut table, at(59)), [3], "asked again, no answer");
    assert_eq!(expired(&mut table, at(120)), [0_u16; 0]);
    // Either direction keeps an answered flow.
    table.asked(two, at(120));
    assert_eq!(expired(&mut table, at(239)), [0_u16; 0]);
    assert_eq!(expired(&mut table, at(240)), [2]);
    assert_eq!(table.len(), 0);
    assert_eq!(table.expendable(), None);
}

#[test]
fn unanswered_flows_make_room_first_and_the_longest_unused_before_others() {
    let start = Instant::now();
    let mut table = table([1, 2, 3, 4], start);
    let [one, _, three, _] = [1, 2, 3, 4].map(|client| table.find(&key(client)).unwrap());
    table.answered(one, start);
    table.answered(three, start);
    table.asked(one, start);
    table.asked(table.find(&key(2)).unwrap(), start);
    let mut gone = Vec::new();
    while let Some(id) = table.expendable() {
        gone.extend(table.remove(id));
    }
    assert_eq!(gone, [4, 2, 3, 1]);
}

#[test]
fn places_are_used_again_and_a_failed_insert_leaves_nothing() {
    let now = Instant::now();
    let mut table = table([1, 2], now);
    let one = table.find(&key(1)).unwrap();
    assert_eq!(table.remove(one), Some(1));
    assert_eq!(table.remove(one), None);
    let failed: Result<FlowId, &str> = table.insert(key(3), now, |_| Err("no"));
    assert_eq!(failed, Err("no"));
    assert_eq!(table.find(&key(3)), None);
    assert_eq!(add(&mut table, 4, now), one);
    assert_eq!(table.get(one), Some((&key(4), &4)));
    assert_eq!(table.len(), 2);
    assert_eq!(table.chosen(|_, client| *client == 2).len(), 1);
}

/// The lists against a model that is a plain vector ordered by use.
#[test]
fn any_order_of_uses_keeps_the_lists_right() {
    let start = Instant::now();
    let mut table = FlowTable::new();
    let mut model: Vec<(u16, bool)> = Vec::new();
    let mut state = 7_u64;
    for step in 0..20_000_u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let client = (state >> 33) as u16 % 40;
        let now = start + Duration::from_micros(step);
        let known = model.iter().position(|(c, _)| *c == client);
        match ((state >> 50) % 4, known) {
            (0, Some(at)) => {
                model.remove(at);
                let id = table.find(&key(client)).unwrap();
                assert_eq!(table.remove(id), Some(client));
            }
            (action, Some(at)) => {
                let (_, answered) = model.remove(at);
                let by_endpoint = action == 1;
                model.push((client, answered || by_endpoint));
                let id = table.find(&key(client)).unwrap();
                if by_endpoint {
                    table.answered(id, now);
                } else {
                    table.asked(id, now);
                }
            }
            (_, None) => {
                model.push((client, false));
                add(&mut table, client, now);
            }
        }
        let first = |answered| model.iter().find(|(_, a)| *a == answered);
        let expected = first(false).or(first(true)).map(|(client, _)| *client);
        let found = table.expendable().and_then(|id| table.get(id));
        assert_eq!(found.map(|(_, client)| *client), expected, "step {step}");
        assert_eq!(table.len(), model.len());
    }
}
