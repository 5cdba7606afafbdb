//! The embedded API server behind a link that can fail, and that remembers what went over it.

use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::client::Body;
use sealane_cluster::api::{ApiOptions, ApiServer, Store};
use serde_json::json;

/// How the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::report) enum Mode {
    #[default]
    Up,
    /// Requests fail at once.
    Down,
    /// Requests are never answered.
    Silent,
    /// Writes reach the server, and their answers get lost.
    Deaf,
    /// Somebody else changes the status of Ingress `shop/it` right before each write of ours.
    Overtaken,
    /// Requests other than GET get this status.
    WritesRefused(u16),
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    seen: Vec<(Method, String)>,
}

/// A link; clones are the same one.
#[derive(Clone)]
pub(in crate::report) struct Link {
    server: Client,
    state: Arc<Mutex<State>>,
}

pub(in crate::report) async fn server() -> ApiServer {
    let server = ApiServer::new(Store::ephemeral(), ApiOptions::default());
    server.bootstrap().await.unwrap();
    server
}

impl Link {
    pub(in crate::report) fn new(server: &ApiServer) -> Self {
        Self {
            server: server.client(),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(in crate::report) fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    /// How many requests with this method and this in their path were made so far.
    pub(in crate::report) fn count(&self, method: &Method, part: &str) -> usize {
        let state = self.state();
        let wanted = |(seen, path): &&(Method, String)| seen == method && path.contains(part);
        state.seen.iter().filter(wanted).count()
    }

    pub(in crate::report) fn client(&self) -> Client {
        let link = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| link.clone().pass(request));
        Client::new(service, "default")
    }

    async fn overtake(&self) {
        let ingresses: Api<Ingress> = Api::namespaced(self.server.clone(), "shop");
        // Another one each time, since writing the same changes nothing.
        let last = self.state().seen.len() % 250;
        let entries = json!([{"ip": format!("198.51.100.{last}")}]);
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entries}}}));
        let params = PatchParams::default();
        ingresses.patch_status("it", &params, &patch).await.unwrap();
    }

    async fn pass(self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let mode = {
            let mut state = self.state();
            let seen = (request.method().clone(), request.uri().path().to_owned());
            state.seen.push(seen);
            state.mode
        };
        let broken = || kube::Error::Service("the link is down".into());
        match mode {
            Mode::Up => self.server.send(request).await,
            Mode::Down => Err(broken()),
            Mode::Silent => std::future::pending().await,
            Mode::Deaf | Mode::Overtaken | Mode::WritesRefused(_)
                if request.method() == Method::GET =>
            {
                self.server.send(request).await
            }
            Mode::Overtaken => {
                self.overtake().await;
                self.server.send(request).await
            }
            Mode::Deaf => {
                self.server.send(request).await?;
                Err(broken())
            }
            Mode::WritesRefused(code) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "message": "no", "reason": "Test", "code": code});
                let body = Body::from(serde_json::to_vec(&status).unwrap());
                let mut response = Response::new(body);
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok(response)
            }
        }
    }
}
