//! Signs the kubeconfig in ConfigMap `kube-public/cluster-info` with every bootstrap token made for signing, so that who
//! has such a token can tell a true one: `jws-kubeconfig-<id>` holds a JWS (RFC 7515) with the payload left out, HS256
//! with the token's secret as key, as `kubeadm join` checks it.

use super::super::Context;
use super::super::driver::{Controller, Requeue, Wakes};
use super::{NAMESPACE, PREFIX, seconds_left, text, tokens};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::hmac;
use std::collections::BTreeMap;
use std::sync::Arc;

const PUBLIC: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

struct Sign {
    client: Client,
    tokens: Cache<Secret>,
    info: Cache<ConfigMap>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Sign {
        client: context.client.clone(),
        tokens: tokens(context),
        info: context.caches.selected("metadata.name=cluster-info"),
    })
}

#[async_trait]
impl Controller for Sign {
    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        // One ConfigMap, whatever changed.
        wakes.primary(&self.info);
        wakes.on(&self.tokens, |_| vec![Key::new(PUBLIC, NAME)]);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let info = self.info.at(key).filter(|_| key.namespace == PUBLIC);
        let Some(held) = info.as_ref().and_then(|i| i.data.as_ref()) else { return Ok(Requeue::Done) };
        let tokens = self.tokens.list_in(NAMESPACE);
        if signed(held, &tokens, crate::time::now()) == *held {
            return Ok(Requeue::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), PUBLIC);
        let mut fresh = api.get(NAME).await?;
        let data = fresh.data.take().unwrap_or_default();
        fresh.data = Some(signed(&data, &tokens, crate::time::now()));
        api.replace(NAME, &PostParams::default(), &fresh).await?;
        Ok(Requeue::Done)
    }
}

/// The data with a signature of every token that signs, and none else.
fn signed(data: &BTreeMap<String, String>, tokens: &[Arc<Secret>], now: Timestamp) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = data
        .iter()
        .filter(|(key, _)| !key.starts_with(SIGNATURE_PREFIX))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let Some(kubeconfig) = data.get(KUBECONFIG) else { return out };
    for (id, secret) in tokens.iter().filter_map(|token| signing(token, now)) {
        out.insert(format!("{SIGNATURE_PREFIX}{id}"), detached_jws(kubeconfig, id, secret));
    }
    out
}

/// Id and secret of a token that signs.
fn signing(token: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, secret) = (text(token, "token-id"), text(token, "token-secret"));
    let is_named = token.metadata.name.as_deref()?.strip_prefix(PREFIX) == Some(id);
    let may = text(token, "usage-bootstrap-signing") == "true" && seconds_left(token, now).is_none_or(|left| left > 0);
    (is_named && may && !id.is_empty() && !secret.is_empty()).then_some((id, secret))
}

/// `header..signature` over `header.payload`. Readers compare it as text, so the header is exactly this.
fn detached_jws(payload: &str, id: &str, secret: &str) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let message = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("{header}..{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    /// The pair that upstream's own test of this signature uses.
    #[test]
    fn signatures_are_kubeadms() {
        assert_eq!(
            detached_jws(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }

    #[test]
    fn only_tokens_made_for_it_sign() {
        let token = |id: &str, change: &[(&str, &str)]| {
            let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
            let basis = [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
            for (key, value) in basis.iter().chain(change) {
                data.insert((*key).to_owned(), ByteString((*value).into()));
            }
            let mut secret = Secret { data: Some(data), ..Default::default() };
            secret.metadata.name = Some(format!("{PREFIX}{id}"));
            Arc::new(secret)
        };
        let tokens = [
            token("aaaaaa", &[]),
            token("bbbbbb", &[("usage-bootstrap-signing", "false")]),
            token("cccccc", &[("expiration", "2026-06-01T00:00:00Z")]),
            token("dddddd", &[("token-id", "other")]),
            token("eeeeee", &[("token-secret", "")]),
        ];
        let now = "2026-06-02T00:00:00Z".parse().unwrap();
        let data = BTreeMap::from([
            (KUBECONFIG.to_owned(), "a: b".to_owned()),
            ("jws-kubeconfig-gone".to_owned(), "x".to_owned()),
            ("mine".to_owned(), "stays".to_owned()),
        ]);
        let after = signed(&data, &tokens, now);
        assert_eq!(
            after.keys().map(String::as_str).collect::<Vec<_>>(),
            ["jws-kubeconfig-aaaaaa", "kubeconfig", "mine"]
        );
        assert_eq!(signed(&after, &tokens, now), after);
    }
}
