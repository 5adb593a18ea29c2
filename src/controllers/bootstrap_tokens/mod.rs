//! Bootstrap tokens (Secrets of type `bootstrap.kubernetes.io/token` in kube-system): expired ones go, and those made for
//! it sign what a machine that knows nothing of the cluster but a token can check: `kube-public/cluster-info`.

mod clean;
mod sign;

pub use clean::new as cleaner;
pub use sign::new as signer;

use super::Context;
use crate::cache::Cache;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";

/// The cache of all tokens.
fn tokens(context: &Context) -> Cache<Secret> {
    context.caches.selected(&format!("type={TYPE}"))
}

/// A text in a Secret's data, empty where there is none.
fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice()).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Seconds until a token expires, not above zero if it has, None if it never does. An end that cannot be read has come.
fn seconds_left(secret: &Secret, now: Timestamp) -> Option<i64> {
    let end = Some(text(secret, "expiration")).filter(|e| !e.is_empty())?;
    Some(crate::time::parse_seconds(end).map_or(0, |end| end - now.as_second()))
}
