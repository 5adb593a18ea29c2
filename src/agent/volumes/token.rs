//! Service-account tokens for pods: asked for once, kept, renewed long before they end (KEP-1205).

use crate::agent::context::Agent;
use crate::kept::PATIENCE;
use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// What tokens of one pod differ in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Empty: the API server's own.
    pub audience: String,
    pub seconds: i64,
}

/// A token; times are Unix seconds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    text: String,
    renew: i64,
    ends: i64,
}

/// Tokens of one pod.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<HashMap<Key, Token>>,
}

/// A token is replaced after this share of its life, or this time if that is sooner (upstream's numbers).
const RENEW_PERCENT: i64 = 80;
const RENEW_AFTER_SECONDS: i64 = 24 * 3600;
/// Between tries to renew one while the server is away.
const RETRY_SECONDS: i64 = 30;

impl Tokens {
    /// The token, renewed if it is due. While the server is away the last one goes on serving, also after its end (who
    /// would check it is the server), and after a restart of the host.
    pub async fn get(&self, agent: &Agent, pod: &Pod, key: &Key) -> anyhow::Result<String> {
        let mut held = self.held.lock().await;
        let now = crate::time::now_seconds();
        if let Some(token) = held.get(key).filter(|t| t.renew > now) {
            return Ok(token.text.clone());
        }
        let name = format!("{}/{}/{}", pod.metadata.uid.as_deref().unwrap_or_default(), key.seconds, key.audience);
        let last = held.get(key).cloned().or_else(|| agent.kept.tokens.get(&name).map(|t| Token::clone(&t)));
        let patience = if last.is_some() { PATIENCE } else { Duration::MAX };
        let (away, error) = match tokio::time::timeout(patience, request(agent, pod, key, now)).await {
            Ok(Ok(token)) => {
                agent.kept.tokens.put(&name, Arc::new(token.clone()));
                held.insert(key.clone(), token.clone());
                return Ok(token.text);
            }
            Ok(Err(error)) => {
                (!error.chain().any(|e| matches!(e.downcast_ref::<kube::Error>(), Some(kube::Error::Api(_)))), error)
            }
            Err(_) => (true, anyhow::anyhow!("the server does not answer")),
        };
        match last.filter(|t| away || t.ends > now) {
            Some(token) => {
                held.insert(key.clone(), Token { renew: now + RETRY_SECONDS, ..token.clone() });
                Ok(token.text)
            }
            None => Err(error),
        }
    }

    /// When the first of them is due.
    pub async fn renew_at(&self) -> Option<Timestamp> {
        let first = self.held.lock().await.values().map(|t| t.renew).min()?;
        Timestamp::from_second(first).ok()
    }
}

async fn request(agent: &Agent, pod: &Pod, key: &Key, now: i64) -> anyhow::Result<Token> {
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
    let ends = status.expiration_timestamp.context("the answer to a TokenRequest has no end")?.0.as_second();
    let text = status.token.context("the answer to a TokenRequest has no token")?;
    let renew = now + ((ends - now) * RENEW_PERCENT / 100).min(RENEW_AFTER_SECONDS);
    Ok(Token { text, renew, ends })
}
