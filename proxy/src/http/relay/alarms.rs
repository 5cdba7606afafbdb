//! Waking tasks after a while that most of them do not wait for.
//!
//! A timer of the runtime's is made, put in its place and taken out of it again, which is a good part
//! of what a short exchange costs. Here all wait equally long, so that they stand in line as they come,
//! and one timer serves all. Nobody leaves the line before its time: to wake a task that has ended, or
//! is busy with something else, does no harm.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::sleep;

use crate::clock;

/// How long all wait, nanoseconds.
const WAIT: u64 = 20_000_000;

/// One worker's.
#[derive(Default)]
pub(crate) struct Alarms(Rc<Line>);

/// Who waits, and until when. As long as there is somebody there is a task that wakes them.
type Line = RefCell<VecDeque<(u64, Waker)>>;

impl Alarms {
    /// Wakes a task a while later. Returns when: [`clock::now`] is not before that then.
    pub(super) fn set(&self, waker: Waker) -> u64 {
        let at = clock::now().saturating_add(WAIT);
        let mut line = self.0.borrow_mut();
        if line.is_empty() {
            tokio::task::spawn_local(ring(Rc::clone(&self.0)));
        }
        line.push_back((at, waker));
        at
    }
}

async fn ring(line: Rc<Line>) {
    loop {
        let next = line.borrow().front().map(|(at, _)| *at);
        let Some(next) = next else {
            return;
        };
        sleep(Duration::from_nanos(next.saturating_sub(clock::now()))).await;
        let now = clock::now();
        while let Some(waker) = pop_due(&line, now) {
            waker.wake();
        }
    }
}

fn pop_due(line: &Line, now: u64) -> Option<Waker> {
    let next = line.borrow_mut().pop_front_if(|(at, _)| *at <= now);
    next.map(|(_, waker)| waker)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn proxy_pf7_alarms_wake_everybody_in_time_and_end() {
        let alarms = Rc::new(Alarms::default());
        let wait = |after| {
            let alarms = Rc::clone(&alarms);
            async move {
                sleep(Duration::from_millis(after)).await;
                let set = Instant::now();
                let mut until = None;
                poll_fn(|cx| {
                    let until = *until.get_or_insert_with(|| alarms.set(cx.waker().clone()));
                    if clock::now() < until {
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
                set.elapsed()
            }
        };
        let local = LocalSet::new();
        let waits = [0, 0, 7, 19, 25, 500].map(|after| local.spawn_local(wait(after)));
        let waited = local.run_until(async {
            let mut waited = Vec::new();
            for wait in waits {
                waited.push(wait.await.unwrap());
            }
            // The task that wakes them has nobody left.
            tokio::task::yield_now().await;
            waited
        });
        let wait = Duration::from_nanos(WAIT);
        for (index, waited) in waited.await.into_iter().enumerate() {
            let late = waited.checked_sub(wait).expect("too early");
            assert!(late <= Duration::from_millis(2), "{index}: {late:?}");
        }
        assert!(alarms.0.borrow().is_empty());
        assert_eq!(Rc::strong_count(&alarms.0), 1);
    }
}
