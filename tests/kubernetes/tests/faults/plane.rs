//! Control planes for tests.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use sealane_test_kubernetes::{ControlPlane, Options, Unavailable};
use tokio::sync::oneshot;

/// API server and etcd only: what tests write is all there is.
fn options() -> Options {
    Options {
        controllers: false,
        ..Options::default()
    }
}

/// A control plane of the test's own; `None`, with the reason printed, where there cannot be one.
pub(crate) async fn own() -> Option<ControlPlane> {
    match ControlPlane::start(options()).await.expect("it starts") {
        Ok(plane) => Some(plane),
        Err(Unavailable(reason)) => {
            let required = std::env::var("SEALANE_TEST_REQUIRE");
            assert_ne!(required.as_deref(), Ok("all"), "{reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// A control plane that several tests use at once. It ends with the last of them.
pub(crate) struct Shared {
    plane: Arc<ControlPlane>,
    keeper: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// The shared control plane, started if no test uses it at the moment.
pub(crate) fn shared() -> Option<Arc<Shared>> {
    static CURRENT: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = current.upgrade() {
        return Some(shared);
    }
    // It lives on a runtime of its own, which outlives the test that started it.
    let (send, started) = mpsc::channel();
    let (end, ended) = oneshot::channel();
    let keeper = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let plane = own().await.map(Arc::new);
            // An error means that the test is gone already.
            let _ = send.send(plane.clone());
            let _ = ended.await;
        });
    });
    let plane = started.recv().expect("the control plane starts")?;
    let shared = Arc::new(Shared {
        plane,
        keeper: Some((end, keeper)),
    });
    *current = Arc::downgrade(&shared);
    Some(shared)
}

impl Shared {
    /// A client of the calling runtime that may do everything.
    pub(crate) async fn admin(&self) -> Client {
        client(self.plane.kubeconfig()).await
    }
}

impl std::ops::Deref for Shared {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.plane
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some((end, keeper)) = self.keeper.take() {
            // The processes end with the last owner of the plane, which is this.
            drop(end);
            let _ = keeper.join();
        }
    }
}

/// A client from a kubeconfig file, kube's own.
async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options);
    Client::try_from(config.await.expect("a configuration")).expect("a client")
}
