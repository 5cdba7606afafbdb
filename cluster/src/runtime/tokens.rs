//! Tokens of ServiceAccounts for pods, from the API server (TokenRequest, KEP-1205).
//!
//! A token is bound to its pod, so the API server stops accepting it when the pod is gone. It is
//! asked for anew when four fifths of its life are over, as the kubelet does; until then every look
//! at a volume gets the same one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// Life of a token where the pod does not say (the API's default).
const LIFE_SECONDS: i64 = 3600;

/// Who a token is for: the pod's uid and the audience.
type TokenKey = (String, Option<String>);

/// The tokens that were given out and are still good.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<TokenKey, Token>>);

struct Token {
    text: String,
    renew: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Tokens {
    /// The token for a pod's volume.
    ///
    /// # Errors
    /// The API server does not give one.
    pub(super) async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, kube::Error> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key = (uid, projection.audience.clone());
        if let Some(text) = self.good(&key) {
            return Ok(text);
        }
        let seconds = projection.expiration_seconds.unwrap_or(LIFE_SECONDS);
        let text = request(client, pod, projection, seconds).await?;
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        tokens.retain(|_, token| token.renew > now);
        let token = Token {
            text: text.clone(),
            renew: now + life * 4 / 5,
        };
        tokens.insert(key, token);
        Ok(text)
    }

    fn good(&self, key: &TokenKey) -> Option<String> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(key)?;
        (token.renew > Instant::now()).then(|| token.text.clone())
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
    seconds: i64,
) -> Result<String, kube::Error> {
    let meta = &pod.metadata;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: projection.audience.iter().cloned().collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
            expiration_seconds: Some(seconds),
        },
        ..TokenRequest::default()
    };
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref());
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = account.unwrap_or("default");
    let params = PostParams::default();
    let made = accounts.create_token_request(account, &params, &request);
    let made = Box::pin(made).await?;
    Ok(made.status.map(|status| status.token).unwrap_or_default())
}
