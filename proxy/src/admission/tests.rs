use std::net::Ipv4Addr;

use super::*;

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn connections(total: usize, per_source: usize) -> (Connections, CancellationToken) {
    let limits = Limits {
        total,
        per_source,
        trusted: Arc::new(["198.51.100.0/24".parse().unwrap()]),
    };
    (Connections::new(limits), CancellationToken::new())
}

#[tokio::test(start_paused = true)]
async fn reliability_b14_a_source_has_its_share_and_no_more() {
    let (all, stop) = connections(100, 3);
    let mut places: Vec<Place> = (0..3).map(|_| all.admit(ip(1), &stop).unwrap()).collect();
    assert_eq!(all.admit(ip(1), &stop).unwrap_err(), Refusal::Source);
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(all.admit(mapped, &stop).unwrap_err(), Refusal::Source);
    places.push(all.admit(ip(2), &stop).unwrap());
    for trusted in ["198.51.100.7", "127.0.0.1", "::1"] {
        let trusted = trusted.parse().unwrap();
        places.extend((0..5).map(|_| all.admit(trusted, &stop).unwrap()));
    }
    assert_eq!(all.open(), 19);
    assert_eq!(all.busiest_sources(1)[0].1, 5);
    places.remove(0);
    places.push(all.admit(ip(1), &stop).unwrap());
    assert_eq!(all.admit(ip(1), &stop).unwrap_err(), Refusal::Source);
    places.clear();
    assert_eq!((all.open(), all.busiest_sources(9)), (0, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn ingress_t14_a_trusted_proxy_stands_for_many_clients() {
    let (all, stop) = connections(5, 3);
    let mut places: Vec<Place> = (0..5)
        .map(|_| all.admit_proxy(ip(1), &stop).unwrap())
        .collect();
    assert_eq!(all.admit_proxy(ip(1), &stop).unwrap_err(), Refusal::Full);
    places.truncate(4);
    // Once it is not trusted any more, its connections count.
    assert_eq!(all.admit(ip(1), &stop).unwrap_err(), Refusal::Source);
    places.push(all.admit(ip(2), &stop).unwrap());
}

#[tokio::test(start_paused = true)]
async fn reliability_b14_the_longest_idle_make_room_when_it_is_full() {
    let (all, stop) = connections(100, 100);
    let mut places = Vec::new();
    for number in 0..100 {
        places.push(all.admit(ip(number), &stop).unwrap());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(
        all.admit(ip(200), &stop).unwrap_err(),
        Refusal::Full,
        "none is idle"
    );
    tokio::time::advance(Duration::from_secs(10)).await;
    places[0].used();
    let new = all.admit(ip(200), &stop).unwrap();
    let ended = |places: &[Place]| -> Vec<usize> {
        let all = places.iter().enumerate();
        all.filter(|(_, place)| place.end().is_cancelled())
            .map(|(number, _)| number)
            .collect()
    };
    assert_eq!(ended(&places), (1..=32).collect::<Vec<_>>());
    assert!(!new.end().is_cancelled());
    for _ in 0..3 {
        places.push(all.admit(ip(200), &stop).unwrap());
    }
    assert_eq!(ended(&places).len(), 99, "not the one that was used");
    assert_eq!(all.admit(ip(201), &stop).unwrap_err(), Refusal::Full);
    stop.cancel();
    assert!(places.iter().all(|place| place.end().is_cancelled()));
}
