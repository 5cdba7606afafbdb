//! `search_guard`.

use super::*;

fn guarded(script: &Script) -> Resolver<Script> {
    resolver(script, |settings| {
        settings.search_guard = vec!["lan.example".parse().unwrap()];
    })
}

#[tokio::test(start_paused = true)]
async fn dns_q3_search_guard_answers_below_a_name_that_does_not_exist() {
    local(async {
        let script = Script::new([(MS, denial(ResponseCode::NXDomain))]);
        let resolver = guarded(&script);
        let lines = ask(&resolver, "www.a.com.lan.example").await.unwrap();
        assert_eq!(lines[0], "NXDOMAIN");
        pass(10 * MS).await;
        let asked = ["com.lan.example. A", "www.a.com.lan.example. A"];
        let mut seen = script.asked.borrow().clone();
        seen.sort();
        assert_eq!(seen, asked, "once each");
        for n in 0..100 {
            let name = format!("host{n}.b.COM.lan.example");
            let lines = ask(&resolver, &name).await.unwrap();
            assert_eq!(
                lines,
                ["NXDOMAIN", "@test. 60 IN SOA test. test. 1 2 3 4 60"]
            );
        }
        assert_eq!(script.asked(), 2, "nothing was forwarded");
        pass(30 * SECOND).await;
        let lines = ask(&resolver, "c.com.lan.example").await.unwrap();
        assert!(lines[1].starts_with("@test. 30 IN SOA"), "{lines:?}");
        pass(31 * SECOND).await;
        ask(&resolver, "d.com.lan.example").await.unwrap();
        assert!(script.asked() > 2, "the proof has expired");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_q3_search_guard_leaves_what_may_exist() {
    local(async {
        for (case, probe) in [
            ("there is something", denial(ResponseCode::NoError)),
            ("an address", address(1)),
            ("unknown", Err(ForwardError::TimedOut)),
        ] {
            let script = Script::new([(MS, probe)]);
            let resolver = guarded(&script);
            for n in 0..5 {
                let name = format!("h{n}.rack.lan.example");
                let _ = ask(&resolver, &name).await;
                pass(2 * MS).await;
            }
            let of_names = script
                .asked
                .borrow()
                .iter()
                .filter(|asked| asked.starts_with('h'))
                .count();
            assert_eq!(of_names, 5, "{case}: every name was asked for");
        }
        let script = Script::new([(MS, denial(ResponseCode::NXDomain))]);
        let resolver = guarded(&script);
        for name in ["host.lan.example", "lan.example", "a.b.other.example"] {
            ask(&resolver, name).await.unwrap();
        }
        assert_eq!(script.asked(), 3, "no probes for these");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dns_q3_search_guard_does_not_ask_again_and_again_what_it_cannot_keep() {
    local(async {
        let script = Script::new([(MS, code(ResponseCode::NXDomain))]);
        let resolver = guarded(&script);
        for n in 0..10 {
            ask(&resolver, &format!("h{n}.com.lan.example"))
                .await
                .unwrap();
            pass(2 * MS).await;
        }
        assert_eq!(script.asked(), 11);
    })
    .await;
}
