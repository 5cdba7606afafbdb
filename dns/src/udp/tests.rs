use std::cell::RefCell;

use tokio::task::LocalSet;

use super::*;

/// Tells that it was dropped.
struct Told(usize, Rc<RefCell<Vec<usize>>>);

impl Drop for Told {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

#[tokio::test]
async fn dns_overload_gives_up_the_oldest_query_that_waits() {
    let test = async {
        let ended = Rc::new(RefCell::new(Vec::new()));
        let mut waiting = Waiting::default();
        let mut given_up = 0;
        for number in 0..MAX_WAITING + 3 {
            let told = Told(number, Rc::clone(&ended));
            given_up += waiting.spawn(async move {
                std::future::pending::<()>().await;
                drop(told);
            });
        }
        while ended.borrow().len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!((given_up, &*ended.borrow()), (3, &vec![0, 1, 2]));
        assert_eq!(waiting.tasks.len(), MAX_WAITING);
        // Those that have ended by themselves are not kept in mind for ever.
        let mut waiting = Waiting::default();
        for _ in 0..10 * MAX_WAITING {
            assert_eq!(waiting.spawn(async {}), 0);
            tokio::task::yield_now().await;
        }
        assert!(waiting.handles.len() <= 2 * MAX_WAITING);
    };
    LocalSet::new().run_until(test).await;
}
