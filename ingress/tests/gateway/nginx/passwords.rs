//! Passwords.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Case, Common, compare};
use crate::auth::USERS;

/// What ingress-nginx writes for `auth-type: basic`.
macro_rules! basic {
    ($also:literal) => {
        concat!(
            "location / {
                auth_basic 'Authentication Required';
                auth_basic_user_file users;
                proxy_set_header Authorization ''; ",
            $also,
            " PROXY }"
        )
    };
}

const BASIC: [(&str, &str); 2] = [("auth-type", "basic"), ("auth-secret", "users")];

/// Requests with each of these in `Authorization`.
fn with(credentials: &[&str]) -> Vec<String> {
    let get = |credentials: &&str| format!("GET /x HTTP/1.1\nAuthorization: {credentials}");
    credentials.iter().map(get).collect()
}

fn encoded(scheme: &str, credentials: &str) -> String {
    format!("{scheme} {}", STANDARD.encode(credentials))
}

#[tokio::test]
async fn ingress_a9_passwords_let_in_whom_nginx_lets_in() {
    let good = encoded("Basic", "alice:opensesame");
    let credentials = [
        good.as_str(),
        &encoded("basic", "alice:opensesame"),
        &encoded("BASIC", "bob:opensesame"),
        &encoded("Basic", "carol:pass:word"),
        &encoded("Basic", "carol:pass"),
        &encoded("Basic", "dave:opensesame"),
        &encoded("Basic", "erin:opensesame"),
        &encoded("Basic", "frank:opensesame"),
        &encoded("Basic", "alice:wrong"),
        &encoded("Basic", "bob:wrong"),
        &encoded("Basic", "dave:wrong"),
        &encoded("Basic", "erin:wrong"),
        &encoded("Basic", "frank:wrong"),
        &encoded("Basic", "Alice:opensesame"),
        &encoded("Basic", "nobody:opensesame"),
        &encoded("Basic", "alice:"),
        &encoded("Basic", "alice"),
        &encoded("Basic", ":opensesame"),
        &encoded("Basic", ""),
        "Basic",
        "Basic not/base64!",
        "Bearer YWxpY2U6b3BlbnNlc2FtZQ==",
        "",
    ];
    let nobody = "GET /x HTTP/1.1".to_owned();
    let preflight =
        "OPTIONS /x HTTP/1.1\nOrigin: https://a.test\nAccess-Control-Request-Method: PUT";
    let script = "GET /x HTTP/1.1\nOrigin: https://a.test";
    let cases = vec![
        Case {
            name: "asked",
            annotations: &BASIC,
            server: basic!(""),
            requests: [with(&credentials), vec![nobody.clone(), preflight.to_owned()]].concat(),
            ..Case::default()
        },
        Case {
            name: "realm",
            annotations: &[BASIC[0], BASIC[1], ("auth-realm", "Back office - staff")],
            server: "location / {
                auth_basic 'Back office - staff';
                auth_basic_user_file users;
                proxy_set_header Authorization ''; PROXY }",
            requests: [with(&[&good]), vec![nobody.clone()]].concat(),
            ..Case::default()
        },
        // Preflights have no passwords.
        Case {
            name: "scripts",
            annotations: &[BASIC[0], BASIC[1], ("enable-cors", "true")],
            server: "location / {
                auth_basic 'Authentication Required';
                auth_basic_user_file users;
                proxy_set_header Authorization '';
                set $cors true;
                if ($request_method = OPTIONS) { set $cors ${cors}options; }
                add_header Access-Control-Allow-Origin * always;
                add_header Access-Control-Allow-Credentials true always;
                add_header Access-Control-Allow-Methods 'GET, PUT, POST, DELETE, PATCH, OPTIONS' always;
                add_header Access-Control-Allow-Headers 'DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization' always;
                add_header Access-Control-Max-Age 1728000 always;
                if ($cors = trueoptions) { return 204; }
                PROXY }",
            requests: [
                with(&[&good]),
                vec![preflight.to_owned(), script.to_owned(), nobody.clone()],
            ]
            .concat(),
            ..Case::default()
        },
        // Who may not come in is not asked.
        Case {
            name: "denied",
            annotations: &[BASIC[0], BASIC[1], ("denylist-source-range", "127.0.0.0/8")],
            server: basic!("deny 127.0.0.0/8;"),
            requests: [with(&[&good]), vec![nobody.clone()]].concat(),
            ..Case::default()
        },
        Case {
            name: "either",
            annotations: &[
                BASIC[0],
                BASIC[1],
                ("whitelist-source-range", "192.0.2.0/24"),
                ("satisfy", "any"),
            ],
            server: basic!("satisfy any; allow 192.0.2.0/24; deny all;"),
            requests: [with(&[&good, "Basic x"]), vec![nobody.clone()]].concat(),
            ..Case::default()
        },
        // A client that asks too often is told so before it is asked.
        Case {
            name: "often",
            annotations: &[
                BASIC[0],
                BASIC[1],
                ("limit-rpm", "1"),
                ("limit-burst-multiplier", "1"),
            ],
            http: "limit_req_zone $binary_remote_addr zone=often:1m rate=1r/m;",
            server: basic!("limit_req zone=often burst=1 nodelay; limit_req_status 503;"),
            requests: vec![nobody; 4],
            ..Case::default()
        },
    ];
    let users = Common {
        users: &[("users", USERS)],
        ..Common::default()
    };
    compare(cases, users, &[]).await;
}
