//! Bootstrap tokens, `id.secret`: bearer tokens kept in Secrets `kube-system/bootstrap-token-<id>` of type
//! `bootstrap.kubernetes.io/token`, for machines that are about to join.
//!
//! The Secret is read for each request, so a token ends with its Secret, and tokens that nobody uses cost nothing.

use super::TokenAuthenticator;
use crate::object::{Object, ObjectExt};
use crate::server::admission::Reader;
use crate::server::request::UserInfo;
use crate::status::Result;
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::sync::Arc;
use tracing::warn;

pub const NAMESPACE: &str = "kube-system";
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
pub const SECRET_PREFIX: &str = "bootstrap-token-";
/// Every token's user is in this group; further groups begin with it and a colon.
pub const GROUP: &str = "system:bootstrappers";
/// The group that may ask for nodes' certificates (kubeadm's name).
pub const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
const USER_PREFIX: &str = "system:bootstrap:";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;
/// Longest name of a further group, after `system:bootstrappers:`.
const GROUP_BYTES: usize = 256;

pub struct BootstrapTokens {
    reader: Arc<dyn Reader>,
}

impl BootstrapTokens {
    pub fn new(reader: Arc<dyn Reader>) -> Arc<Self> {
        Arc::new(BootstrapTokens { reader })
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<(UserInfo, Vec<String>)>> {
        // Such tokens are for the API server alone.
        let Some((id, secret)) = split(token).filter(|_| audiences.is_empty()) else { return Ok(None) };
        let name = format!("{SECRET_PREFIX}{id}");
        let Some(stored) = self.reader.get("", "secrets", NAMESPACE, &name).await? else { return Ok(None) };
        match user(&stored, id, secret, crate::time::now_seconds()) {
            Ok(user) => Ok(Some((user, Vec::new()))),
            Err(why) => {
                warn!(token = id, why, "bootstrap token refused");
                Ok(None)
            }
        }
    }
}

/// Id and secret of a well-formed token.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let (id, secret) = token.split_once('.')?;
    (id.len() == ID_BYTES && secret.len() == SECRET_BYTES && is_plain(id) && is_plain(secret)).then_some((id, secret))
}

/// Who comes with this token, as its Secret says; Err says why nobody.
fn user(stored: &Object, id: &str, secret: &str, now_seconds: i64) -> Result<UserInfo, &'static str> {
    if stored.is_deleting() {
        return Err("it is being deleted");
    }
    if stored.str_at(&["type"]) != SECRET_TYPE {
        return Err("its Secret has another type");
    }
    if !equal(&data(stored, "token-secret"), secret) {
        return Err("the secret is wrong");
    }
    if data(stored, "token-id") != id {
        return Err("its Secret is for another token");
    }
    let expiration = data(stored, "expiration");
    if !expiration.is_empty() && crate::time::parse_seconds(&expiration).is_none_or(|end| end <= now_seconds) {
        return Err("it has expired");
    }
    if data(stored, "usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let groups = groups(&data(stored, "auth-extra-groups")).ok_or("one of its groups is not allowed")?;
    Ok(UserInfo { name: format!("{USER_PREFIX}{id}"), groups, ..Default::default() })
}

/// A text in a Secret's data, empty where there is none.
fn data(secret: &Object, key: &str) -> String {
    let bytes = BASE64_STANDARD.decode(secret.str_at(&["data", key])).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// In a time that does not tell where they differ.
fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

/// All groups of a token with these further ones, each once; None if one of them may not be.
fn groups(extra: &str) -> Option<Vec<String>> {
    let extra = extra.split(',').map(str::trim).filter(|g| !g.is_empty());
    let mut groups = std::collections::BTreeSet::from([GROUP.to_owned()]);
    for group in extra {
        groups.insert(is_allowed(group).then(|| group.to_owned())?);
    }
    Some(groups.into_iter().collect())
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
pub fn is_allowed(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= GROUP_BYTES
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn tokens_are_well_formed() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for bad in
            ["", "abcdef", "abcde.0123456789abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "a.b.c"]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn groups_stay_below_their_own() {
        for (group, allowed) in [
            ("system:bootstrappers:a", true),
            ("system:bootstrappers:kubeadm:default-node-token", true),
            ("system:bootstrappers:", false),
            ("system:bootstrappers", false),
            ("system:bootstrappers:a-", false),
            ("system:bootstrappers:A", false),
            ("system:masters", false),
            ("system:bootstrappersx:a", false),
        ] {
            assert_eq!(is_allowed(group), allowed, "{group}");
        }
        assert!(is_allowed(&format!("{GROUP}:{}", "a".repeat(256))));
        assert!(!is_allowed(&format!("{GROUP}:{}", "a".repeat(257))));
    }

    #[test]
    fn a_secret_says_who_comes() {
        let secret = |change: Value| {
            let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef",
                "usage-bootstrap-authentication": "true", "expiration": "2027-01-01T00:00:00Z",
                "auth-extra-groups": "system:bootstrappers:b, system:bootstrappers:a"});
            for (key, value) in change.as_object().unwrap() {
                data[key] = value.clone();
            }
            for value in data.as_object_mut().unwrap().values_mut() {
                *value = BASE64_STANDARD.encode(value.as_str().unwrap()).into();
            }
            json!({"type": SECRET_TYPE, "metadata": {"name": "bootstrap-token-abcdef"}, "data": data})
        };
        let now = crate::time::parse_seconds("2026-12-31T00:00:00Z").unwrap();
        let found = |change: Value| user(&secret(change), "abcdef", "0123456789abcdef", now).map(|u| u.groups);
        let groups = |names: &[&str]| Ok(names.iter().map(|n| (*n).to_owned()).collect());
        let all = ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b"];
        assert_eq!(found(json!({})), groups(&all));
        assert_eq!(found(json!({"auth-extra-groups": "", "expiration": ""})), groups(&all[..1]));
        for (change, why) in [
            (json!({"token-secret": "0123456789abcdee"}), "the secret is wrong"),
            (json!({"token-secret": ""}), "the secret is wrong"),
            (json!({"token-id": "fedcba"}), "its Secret is for another token"),
            (json!({"expiration": "2026-12-30T23:59:59Z"}), "it has expired"),
            (json!({"expiration": "soon"}), "it has expired"),
            (json!({"usage-bootstrap-authentication": "false"}), "it is not for authentication"),
            (json!({"auth-extra-groups": "system:masters"}), "one of its groups is not allowed"),
        ] {
            assert_eq!(found(change.clone()), Err(why), "{change}");
        }
        let mut other = secret(json!({}));
        other["type"] = "Opaque".into();
        assert!(user(&other, "abcdef", "0123456789abcdef", now).is_err());
    }
}
