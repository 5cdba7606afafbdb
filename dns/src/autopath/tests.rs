use sealane_config::model::Pod;

use super::*;
use crate::testing::shown;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn pod(namespace: &str, host_network: bool) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: "web-0".into(),
        host_network,
    }
}

/// 10.0.0.1 is a pod of `shop`, .2 one of a node's pods, .3 two pods, fd00::1 a pod of `shop`.
fn pods() -> Pods {
    let mut pods = Pods::default();
    let mut add = |addr: &str, list: &[Pod]| pods.insert_mut(addr.parse().unwrap(), list.into());
    add("10.0.0.1", &[pod("shop", false)]);
    add("10.0.0.2", &[pod("shop", true)]);
    add("10.0.0.3", &[pod("shop", false), pod("store", false)]);
    add("fd00::1", &[pod("shop", false)]);
    pods
}

fn settings() -> AutopathSettings {
    AutopathSettings {
        zones: vec![name("cluster.local")],
        host_search: vec![name("lan.example"), name("example")],
    }
}

fn search(asked: &str, client: &str) -> Option<Search> {
    Search::new(&settings(), &pods(), &name(asked), client.parse().unwrap())
}

fn missing(text: &str) -> Answer {
    let mut answer = Answer::local(ResponseCode::NXDomain);
    answer.authority.push(Record {
        name: name(text),
        ttl: 30,
        data: RData::Ns(name("first")),
    });
    answer
}

#[test]
fn dns_q1_autopath_is_for_the_first_name_of_a_pods_own_path() {
    for (case, asked, client, expected) in [
        (
            "own",
            "www.example.com.shop.svc.cluster.local",
            "10.0.0.1",
            true,
        ),
        (
            "IPv6",
            "www.example.com.shop.svc.cluster.local",
            "fd00::1",
            true,
        ),
        (
            "mapped",
            "www.example.com.shop.svc.cluster.local",
            "::ffff:10.0.0.1",
            true,
        ),
        (
            "any case",
            "www.Example.com.Shop.SVC.cluster.LOCAL",
            "10.0.0.1",
            true,
        ),
        (
            "other namespace",
            "www.example.com.store.svc.cluster.local",
            "10.0.0.1",
            false,
        ),
        (
            "second of the path",
            "www.example.com.svc.cluster.local",
            "10.0.0.1",
            false,
        ),
        (
            "no name in front",
            "shop.svc.cluster.local",
            "10.0.0.1",
            false,
        ),
        ("other zone", "www.shop.svc.cluster.test", "10.0.0.1", false),
        (
            "host network",
            "www.example.com.shop.svc.cluster.local",
            "10.0.0.2",
            false,
        ),
        (
            "two pods",
            "www.example.com.shop.svc.cluster.local",
            "10.0.0.3",
            false,
        ),
        (
            "unknown",
            "www.example.com.shop.svc.cluster.local",
            "10.0.0.9",
            false,
        ),
    ] {
        assert_eq!(search(asked, client).is_some(), expected, "{case}");
    }
}

#[test]
fn dns_q1_autopath_tries_the_whole_path_and_then_gives_the_first_answer() {
    let mut search = search("Www.test.shop.svc.cluster.local", "10.0.0.1").unwrap();
    let mut tried = vec![search.name().to_string()];
    let last = loop {
        let which = missing(&format!("n{}", tried.len()));
        match search.next(which) {
            Some(answer) => break answer,
            None => tried.push(search.name().to_string()),
        }
    };
    let expected = [
        "Www.test.shop.svc.cluster.local.",
        "Www.test.svc.cluster.local.",
        "Www.test.cluster.local.",
        "Www.test.lan.example.",
        "Www.test.example.",
        "Www.test.",
    ];
    assert_eq!(tried, expected);
    assert_eq!(shown(&last), ["NXDOMAIN", "@n1. 30 IN NS first."]);
    assert_eq!(search.finish(last.clone()), last);
}

#[test]
fn dns_q1_autopath_answers_with_an_alias() {
    let mut search = search("www.test.shop.svc.cluster.local", "10.0.0.1").unwrap();
    let mut found = Answer::code(ResponseCode::NoError, None);
    let addr = [192, 0, 2, 1].into();
    found
        .answers
        .push(Record::address(name("www.test.lan.example"), 7, addr));
    assert_eq!(search.finish(found.clone()), found, "it was the first");
    for _ in 0..3 {
        assert!(search.next(missing("n")).is_none());
    }
    let answer = search.finish(found);
    let expected = [
        "NOERROR",
        "www.test.shop.svc.cluster.local. 7 IN CNAME www.test.lan.example.",
        "www.test.lan.example. 7 IN A 192.0.2.1",
    ];
    assert_eq!(shown(&answer), expected);
    assert!(answer.authoritative);
    let no_data = Answer {
        rcode: ResponseCode::NoError,
        ..missing("test")
    };
    let expected = [
        "NOERROR",
        "www.test.shop.svc.cluster.local. 30 IN CNAME www.test.lan.example.",
        "@test. 30 IN NS first.",
    ];
    assert_eq!(
        shown(&search.finish(no_data)),
        expected,
        "AAAA ends where A does"
    );
    let failed = Answer::code(ResponseCode::ServFail, None);
    assert_eq!(search.finish(failed.clone()), failed);
}

#[test]
fn dns_q1_autopath_leaves_out_names_that_are_too_long() {
    let label = "a".repeat(60);
    let mut search = search(
        &format!("{label}.{label}.{label}.shop.svc.cluster.local"),
        "10.0.0.1",
    )
    .unwrap();
    let mut tried = 1;
    while search.next(missing("n")).is_none() {
        tried += 1;
        assert!(search.name().wire().len() <= crate::name::MAX_NAME);
    }
    assert_eq!(tried, 6);
}
