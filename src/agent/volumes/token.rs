//! Service-account tokens for pods: asked for once, kept in memory, renewed long before they end (KEP-1205).

use crate::agent::context::Agent;
use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use std::collections::HashMap;
use tokio::sync::Mutex;

/// What tokens of one pod differ in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Empty: the API server's own.
    pub audience: String,
    pub seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: String,
    renew: Timestamp,
    ends: Timestamp,
}

/// Tokens of one pod.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<HashMap<Key, Token>>,
}

/// A token is replaced after this share of its life, or this time if that is sooner (upstream's numbers).
const RENEW_PERCENT: i64 = 80;
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(24);

impl Tokens {
    /// The token, renewed if it is due. One that still lives goes on serving while the server is away.
    pub async fn get(&self, agent: &Agent, pod: &Pod, key: &Key) -> anyhow::Result<String> {
        let mut held = self.held.lock().await;
        let now = crate::time::now();
        if let Some(token) = held.get(key).filter(|t| t.renew > now) {
            return Ok(token.text.clone());
        }
        match request(agent, pod, key, now).await {
            Ok(token) => {
                held.insert(key.clone(), token.clone());
                Ok(token.text)
            }
            Err(error) => match held.get(key) {
                Some(token) if token.ends > now => Ok(token.text.clone()),
                _ => Err(error),
            },
        }
    }

    /// When the first of them is due.
    pub async fn renew_at(&self) -> Option<Timestamp> {
        self.held.lock().await.values().map(|t| t.renew).min()
    }
}

async fn request(agent: &Agent, pod: &Pod, key: &Key, now: Timestamp) -> anyhow::Result<Token> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
    let audiences: Vec<&str> = Some(key.audience.as_str()).filter(|a| !a.is_empty()).into_iter().collect();
    let body = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {
            "audiences": audiences, "expirationSeconds": key.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
        },
    });
    let accounts: Api<ServiceAccount> = Api::namespaced(agent.client.clone(), namespace);
    let answer: TokenRequest = accounts
        .create_subresource("token", account, &PostParams::default(), &body)
        .await
        .with_context(|| format!("failed to fetch token for service account {namespace}/{account}"))?;
    let status = answer.status.context("the answer to a TokenRequest has no status")?;
    let ends = status.expiration_timestamp.context("the answer to a TokenRequest has no end")?.0;
    let text = status.token.context("the answer to a TokenRequest has no token")?;
    let life = ends.duration_since(now);
    let renew = now + (life * RENEW_PERCENT as i32 / 100).min(RENEW_AFTER);
    Ok(Token { text, renew, ends })
}
