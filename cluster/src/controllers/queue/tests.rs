use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once_and_never_runs_twice_at_a_time() {
    let queue = Queue::new();
    queue.add("a");
    queue.add("a");
    queue.add("b");
    assert_eq!(queue.next().await, "a");
    queue.add("a");
    assert_eq!(queue.next().await, "b");
    let next = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
    assert!(next.is_err(), "a is running, so it must wait");
    queue.done(&"a");
    assert_eq!(queue.next().await, "a");
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_and_the_shorter_one_wins() {
    let queue = Queue::new();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(3));
    queue.add_after("a", Duration::from_secs(7));
    assert_eq!(queue.next().await, "a");
    assert_eq!(start.elapsed().as_secs(), 3);
    queue.done(&"a");
    let more = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
    assert!(more.is_err(), "the longer delays are gone");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_up_to_thirty_seconds_until_forgotten() {
    let queue = Queue::new();
    let mut delays = Vec::new();
    for _ in 0..20 {
        delays.push(queue.retry("a", Retry::Failure));
        queue.next().await;
        queue.done(&"a");
    }
    assert!(
        delays[0] <= FIRST_BACKOFF && delays[0] >= FIRST_BACKOFF / 2,
        "{:?}",
        delays[0]
    );
    assert!(delays.iter().all(|delay| *delay <= LONGEST_BACKOFF));
    assert!(delays[19] >= LONGEST_BACKOFF / 2);
    queue.forget(&"a");
    assert!(queue.retry("a", Retry::Failure) <= FIRST_BACKOFF);
}

#[tokio::test(start_paused = true)]
async fn conflicts_do_not_lengthen_the_delay_after_a_failure() {
    let queue = Queue::new();
    for _ in 0..10 {
        queue.retry("a", Retry::Conflict);
        queue.next().await;
        queue.done(&"a");
    }
    assert!(queue.retry("a", Retry::Failure) <= FIRST_BACKOFF);
    queue.next().await;
    queue.done(&"a");
    let conflict = queue.retry("a", Retry::Conflict);
    assert!(
        conflict >= FIRST_CONFLICT_BACKOFF * (1 << 9),
        "the eleventh conflict: {conflict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn work_repeats_failures_and_honours_delays() {
    let queue: Arc<Queue<String>> = Queue::new();
    let runs = Mutex::new(Vec::new());
    let shutdown = CancellationToken::new();
    queue.add("x".to_owned());
    let start = Instant::now();
    work("test", &queue, &shutdown, |_| async {
        let count = {
            let mut runs = runs.lock().unwrap();
            runs.push(start.elapsed());
            runs.len()
        };
        match count {
            1 => Err(Error::Waiting {
                object: "x".to_owned(),
                what: "y".to_owned(),
            }),
            2 => Ok(Some(Duration::from_secs(5))),
            _ => {
                shutdown.cancel();
                Ok(None)
            }
        }
    })
    .await;
    let runs = runs.into_inner().unwrap();
    assert_eq!(runs.len(), 3);
    assert!(
        runs[1] >= FIRST_BACKOFF / 2 && runs[1] < Duration::from_secs(1),
        "{runs:?}"
    );
    assert!(runs[2] - runs[1] >= Duration::from_secs(5), "{runs:?}");
}
