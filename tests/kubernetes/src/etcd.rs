//! What a test does to etcd behind the API server's back, through its JSON gateway.

use anyhow::Context as _;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::ControlPlane;

impl ControlPlane {
    /// Forgets all of etcd's history, as the API server does every five minutes: whoever asks for an
    /// older version gets 410 Gone, unless the API server still has it in its watch cache.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn compact(&self) -> anyhow::Result<()> {
        let url = format!("http://{}", self.etcd_addr()).parse();
        let client = Client::try_from(Config::new(url.context("a URL")?))?;
        // "AA==" is the key of one zero byte.
        let now = post(&client, "/v3/kv/range", &json!({"key": "AA=="})).await?;
        let revision = &now["header"]["revision"];
        let body = json!({"revision": revision, "physical": true});
        post(&client, "/v3/kv/compaction", &body).await?;
        Ok(())
    }
}

async fn post(client: &Client, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = http::Request::post(path).body(body.to_string().into_bytes())?;
    client.request(request).await.context(path.to_owned())
}
