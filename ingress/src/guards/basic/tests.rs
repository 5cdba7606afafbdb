use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use base64::engine::general_purpose::STANDARD;
use sealane_config::model::Users;

use super::*;

/// `opensesame`.
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi";

fn users() -> BasicAuth {
    let hash = || PasswordHash::Bcrypt(5, BCRYPT.into());
    let users: Users = [("alice".into(), hash()), ("bob".into(), hash())]
        .into_iter()
        .collect();
    BasicAuth {
        realm: "r".into(),
        users: Arc::new(users),
    }
}

fn as_user(user: &str, password: &str) -> HeaderMap {
    let field = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    HeaderMap::from_iter([(AUTHORIZATION, field.parse().unwrap())])
}

async fn outcome(passwords: &Passwords, headers: &HeaderMap) -> Result<(), ErrorKind> {
    let checked = passwords.check(&users(), headers).await;
    checked.map_err(|error| error.kind())
}

/// Whether it is done at once.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn ingress_a9_credentials_are_read_as_written_in_rfc_7617() {
    for (field, expected) in [
        (
            "Basic YWxpY2U6b3BlbjpzZXNhbWU=",
            Some(("alice", "open:sesame")),
        ),
        (
            "basic YWxpY2U6b3BlbjpzZXNhbWU",
            Some(("alice", "open:sesame")),
        ),
        ("BASIC  YWxpY2U6", Some(("alice", ""))),
        ("Basic OnB3", Some(("", "pw"))),
        ("Basic YWxpY2U=", None),
        ("Basic !!!", None),
        ("Basic", None),
        ("Bearer YWxpY2U6b3BlbjpzZXNhbWU=", None),
        ("", None),
    ] {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, field.parse().unwrap())]);
        let read = credentials(&headers);
        let expected = expected.map(|(user, pw)| (user.to_owned(), pw.as_bytes().to_vec()));
        assert_eq!(read, expected, "{field}");
    }
    let challenge = challenge(r#"Back "office" \ all"#).unwrap();
    assert_eq!(challenge, r#"Basic realm="Back \"office\" \\ all""#);
}

#[tokio::test(start_paused = true)]
async fn ingress_a9_a_right_password_is_remembered_and_a_flood_of_wrong_ones_is_bounded() {
    let passwords = Passwords::default();
    let shared = &*passwords.0;
    let alice = as_user("alice", "opensesame");
    assert_eq!(outcome(&passwords, &alice).await, Ok(()));
    // All comparisons that may run do, so that whatever needs one has to wait.
    let running = shared.running.available_permits();
    let all = u32::try_from(running).unwrap();
    let busy = Arc::clone(&shared.running)
        .acquire_many_owned(all)
        .await
        .unwrap();
    assert_eq!(
        now(outcome(&passwords, &alice)),
        Some(Ok(())),
        "it is known"
    );
    // A stored password that is the same is not compared again, whoever's it is.
    assert_eq!(
        now(outcome(&passwords, &as_user("bob", "opensesame"))),
        Some(Ok(()))
    );
    let nobody = as_user("nobody", "opensesame");
    let unknown = Err(ErrorKind::Unauthorized);
    assert_eq!(
        now(outcome(&passwords, &nobody)),
        Some(unknown),
        "the decoy lets nobody in"
    );

    let wrong: Vec<HeaderMap> = (0..WAITING)
        .map(|n| as_user(["alice", "nobody"][n % 2], &format!("wrong{n}")))
        .collect();
    let mut waiting: Vec<_> = wrong
        .iter()
        .map(|headers| Box::pin(outcome(&passwords, headers)))
        .collect();
    for future in &mut waiting {
        // Who does not exist takes a comparison like who does.
        assert_eq!(now(future.as_mut()), None);
    }
    let late = as_user("alice", "late");
    assert_eq!(
        now(outcome(&passwords, &late)),
        Some(Err(ErrorKind::Overloaded))
    );
    assert_eq!(
        now(outcome(&passwords, &alice)),
        Some(Ok(())),
        "and still is"
    );
    let long = as_user("alice", &"x".repeat(LONGEST + 1));
    assert_eq!(
        now(outcome(&passwords, &long)),
        Some(Err(ErrorKind::Unauthorized))
    );
    drop(waiting.pop());
    assert_eq!(now(outcome(&passwords, &late)), None, "a place is free");
    tokio::time::advance(MEMORY).await;
    assert_eq!(
        now(outcome(&passwords, &alice)),
        None,
        "it has to be shown again"
    );
    drop(busy);
    for future in waiting {
        assert_eq!(future.await, Err(ErrorKind::Unauthorized));
    }
    assert_eq!(outcome(&passwords, &alice).await, Ok(()));
    assert_eq!(shared.waiting.available_permits(), WAITING);
    assert_eq!(shared.running.available_permits(), running);
}

#[tokio::test]
async fn ingress_a9_nobody_comes_in_without_a_password() {
    let passwords = Passwords::default();
    for headers in [
        HeaderMap::new(),
        as_user("alice", ""),
        as_user("alice", "opensesame "),
        as_user("Alice", "opensesame"),
        as_user("", ""),
        as_user("", "opensesame"),
    ] {
        let outcome = outcome(&passwords, &headers).await;
        assert_eq!(outcome, Err(ErrorKind::Unauthorized), "{headers:?}");
    }
    let shown = format!("{passwords:?}");
    assert_eq!(shown, "Passwords");
}
