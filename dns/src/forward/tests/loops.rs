//! Upstreams that are this server, and the list as it changes.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::message::Question;

/// A server that shows its plan what comes in, as the chain does, and forwards the rest nowhere.
async fn itself(plan: Rc<Cell<Option<Arc<ForwardPlan>>>>) -> Upstream {
    Upstream::start(move |query, _| {
        let shown = plan.take();
        let asked = &query.queries[0];
        let question = Question::new(asked.name.to_string().parse().unwrap(), asked.query_type);
        if let Some(shown) = shown {
            let came_back = shown.came_back(&question);
            assert_eq!(came_back, question.record_type == RecordType::HINFO);
            plan.set(Some(shown));
        }
        vec![React::Reply(reply(query, ResponseCode::Refused))]
    })
    .await
}

fn plan(
    settings: ForwardSettings,
    own: &[SocketAddr],
) -> Result<Arc<ForwardPlan>, ForwardSetupError> {
    ForwardPlan::load(Arc::new(settings), own, Metrics::default())
}

#[tokio::test]
async fn dns_loop_an_upstream_that_leads_back_is_dropped() {
    local(async {
        let shown = Rc::default();
        let ourselves = itself(Rc::clone(&shown)).await;
        let other = Upstream::start(web).await;
        let metrics = Metrics::default();
        let settings = Arc::new(in_order(&[ourselves.addr, other.addr]));
        let plan = ForwardPlan::load(settings, &[], metrics.clone()).unwrap();
        shown.set(Some(Arc::clone(&plan)));
        let forward = Forward::new(Arc::clone(&plan), HostSockets::here());
        let stop = CancellationToken::new();
        let zone = Some(crate::Name::root());
        let watch = plan.watch(HostSockets::here(), zone, stop.clone());
        let dropped = async {
            while forward.upstreams().len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let both = timeout(Duration::from_secs(10), async {
            tokio::join!(watch, dropped)
        });
        both.await.expect("the loop is found").0.unwrap();
        let answer = forward.resolve(&key("web.test"), true, Via::Datagram).await;
        assert_eq!(shown_as(answer), WEB);
        assert!(
            metrics
                .render()
                .contains("sealane_dns_forward_loops_total 1\n")
        );
    })
    .await;
}

fn shown_as(answer: Result<Answer, ForwardError>) -> Vec<String> {
    shown(&answer.unwrap())
}

#[tokio::test]
async fn dns_loop_is_an_error_if_nobody_else_is_left() {
    local(async {
        let shown = Rc::default();
        let ourselves = itself(Rc::clone(&shown)).await;
        let plan = plan(in_order(&[ourselves.addr]), &[]).unwrap();
        shown.set(Some(Arc::clone(&plan)));
        let zone = Some("example.".parse().unwrap());
        let watch = plan.watch(HostSockets::here(), zone, CancellationToken::new());
        let result = timeout(Duration::from_secs(10), watch)
            .await
            .expect("in time");
        assert!(
            matches!(result, Err(ForwardSetupError::OnlyOurselves(_))),
            "{result:?}"
        );
    })
    .await;
}

#[test]
fn dns_loop_own_addresses_are_dropped_at_load() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    for (name, own, upstreams, left) in [
        (
            "somebody else",
            "127.0.0.1:53",
            &["10.0.0.2:53"][..],
            Some(1),
        ),
        (
            "one is itself",
            "10.0.0.1:53",
            &["10.0.0.1:53", "10.0.0.2:53"],
            Some(1),
        ),
        ("another port", "10.0.0.1:53", &["10.0.0.1:5353"], Some(1)),
        (
            "on every address",
            "0.0.0.0:53",
            &["127.0.0.53:53", "10.0.0.2:53"],
            Some(1),
        ),
        ("only itself", "0.0.0.0:53", &["127.0.0.1:53"], None),
    ] {
        let upstreams: Vec<SocketAddr> = upstreams.iter().map(|text| addr(text)).collect();
        let found = plan(in_order(&upstreams), &[addr(own)]);
        let found = found.ok().map(|plan| plan.targets().len());
        assert_eq!(found, left, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn dns_forward_resolv_conf_is_read_again_when_it_changes() {
    local(async {
        let dir = std::env::temp_dir().join(format!("sealane-forward-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("resolv.conf");
        let mut settings = in_order(&[]);
        settings.files = vec![file.clone()];
        let missing = plan(settings.clone(), &[]);
        assert!(matches!(missing, Err(ForwardSetupError::File { .. })));
        std::fs::write(&file, "nameserver 10.0.0.1\nnameserver 127.0.0.1\n").unwrap();
        let own = ["127.0.0.1:53".parse().unwrap()];
        let plan = plan(settings, &own).unwrap();
        let forward = Forward::new(Arc::clone(&plan), HostSockets::here());
        let listed = || {
            let upstreams = forward.upstreams();
            let listed = upstreams
                .iter()
                .map(|upstream| upstream.target.addr.to_string());
            listed.collect::<Vec<_>>()
        };
        assert_eq!(listed(), ["10.0.0.1:53"]);
        let stop = CancellationToken::new();
        let watch = plan.watch(HostSockets::here(), None, stop.clone());
        let change = async {
            for (text, expected) in [
                (
                    "nameserver 10.0.0.2\nnameserver 10.0.0.1\n",
                    &["10.0.0.2:53", "10.0.0.1:53"][..],
                ),
                ("# nobody\n", &["10.0.0.2:53", "10.0.0.1:53"]),
                ("nameserver 10.0.0.3\n", &["10.0.0.3:53"]),
            ] {
                std::fs::write(&file, text).unwrap();
                for _ in 0..10 {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    // The file is read by another thread, in real time.
                    let _ = tokio::task::spawn_blocking(std::thread::yield_now).await;
                    if listed() == expected {
                        break;
                    }
                }
                assert_eq!(listed(), expected, "{text}");
            }
            stop.cancel();
        };
        let (result, ()) = tokio::join!(watch, change);
        result.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    })
    .await;
}
