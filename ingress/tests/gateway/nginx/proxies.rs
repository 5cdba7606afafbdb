//! A proxy in front that is believed.

use super::{Case, Common, Difference, compare};

#[tokio::test]
async fn ingress_t14_a_trusted_proxy_is_believed_as_by_nginx() {
    let get = |fields: &str| format!("GET /x HTTP/1.1\n{fields}");
    let fields = || {
        vec![
            get("X-Forwarded-For: 192.0.2.7"),
            get("X-Forwarded-For: 10.1.2.3, 192.0.2.7"),
            get("X-Forwarded-For: 192.0.2.7, 127.0.0.1"),
            get("X-Forwarded-For: 192.0.2.7, 10.1.2.3, 127.0.0.1"),
            get("X-Forwarded-For: 2001:db8::1"),
            get("X-Forwarded-For: nobody"),
            get("X-Forwarded-For: 192.0.2.7\nX-Forwarded-For: 10.1.2.3"),
            get("X-Forwarded-Proto: https\nX-Forwarded-Port: 444"),
            get("X-Forwarded-Host: outside.test"),
            get("X-Real-IP: 192.0.2.7"),
        ]
    };
    let cases = vec![
        Case {
            name: "told",
            requests: fields(),
            ..Case::default()
        },
        Case {
            name: "listed",
            annotations: &[("whitelist-source-range", "192.0.2.0/24")],
            server: "location / { allow 192.0.2.0/24; deny all; PROXY }",
            requests: fields(),
            ..Case::default()
        },
        Case {
            name: "redirected",
            server: "location / {
                if ($said_scheme = http) { return 308 https://$said_host$without_slash; } PROXY }",
            requests: vec![
                get("X-Forwarded-Proto: https"),
                get("X-Forwarded-Proto: http"),
                get("X-Forwarded-Host: outside.test"),
            ],
            certificate: true,
            ..Case::default()
        },
    ];
    let trusted = Common {
        trusted: true,
        ..Common::default()
    };
    let stays = "T11: Host is what was routed by; X-Forwarded-Host is passed on beside it";
    let of = |case, request, what, ours, nginx| Difference {
        case,
        request,
        what,
        nginx,
        ours,
        why: stays,
    };
    let asked = "GET /x HTTP/1.1\nX-Forwarded-Host";
    let differences = [
        of("told", asked, "host", "told.test", "outside.test"),
        of(
            "redirected",
            asked,
            "location",
            "https://redirected.test/x",
            "https://outside.test/x",
        ),
    ];
    compare(cases, trusted, &differences).await;
}
