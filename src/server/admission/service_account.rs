//! ServiceAccount: every pod has an account that exists, its token mounted, and the account's pull secrets.

use super::{Operation, Plugin, Reader, Request, array_mut, forbidden, items};
use crate::object::{Object, ObjectExt};
use crate::server::authz::graph::Target;
use crate::server::authz::references::{MIRROR, referenced};
use crate::status::Result;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::time::Duration;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Life of mounted tokens in seconds; the odd number tells them apart (see `authn::service_account`).
const TOKEN_SECONDS: u32 = 3607;
/// The account `default` of a new namespace is made by a controller: how often, and how long between, to look for it.
const DEFAULT_ATTEMPTS: u32 = 10;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

pub struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("", "pods") || is_mirror(request) {
            return Ok(());
        }
        let namespace = request.info.namespace.clone();
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        if pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            pod.set_at(&["spec", "serviceAccountName"], "default".into());
        }
        let name = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
        // The deprecated twin field always says the same.
        pod.set_at(&["spec", "serviceAccount"], name.clone().into());
        let Some(account) = find(reader, &namespace, &name).await? else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(forbidden(request, why));
        };
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        if wants_token(&account, pod) {
            mount_token(pod);
        }
        let secrets = account.get("imagePullSecrets").filter(|s| s.as_array().is_some_and(|l| !l.is_empty()));
        if let Some(secrets) = secrets
            && items(pod, &["spec", "imagePullSecrets"]).next().is_none()
        {
            pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, _reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("", "pods") || !is_mirror(request) {
            return Ok(());
        }
        let Some(pod) = request.object.as_deref() else { return Ok(()) };
        if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            return Err(forbidden(request, "a mirror pod may not reference service accounts"));
        }
        if referenced(pod, Target::Secret) {
            return Err(forbidden(request, "a mirror pod may not reference secrets"));
        }
        let sources = items(pod, &["spec", "volumes"]).flat_map(|v| items(v, &["projected", "sources"]));
        if sources.into_iter().any(|s| s.get("serviceAccountToken").is_some()) {
            return Err(forbidden(request, "a mirror pod may not use ServiceAccountToken volume projections"));
        }
        Ok(())
    }
}

fn is_mirror(request: &Request<'_>) -> bool {
    request.object.as_deref().and_then(ObjectExt::annotations).is_some_and(|a| a.contains_key(MIRROR))
}

async fn find(reader: &dyn Reader, namespace: &str, name: &str) -> Result<Option<Object>> {
    let attempts = if name == "default" { DEFAULT_ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let account = reader.get("", "serviceaccounts", namespace, name).await?;
        if account.is_some() {
            return Ok(account);
        }
        if attempt < attempts {
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }
    Ok(None)
}

/// The pod decides before the account; nobody's word means yes.
fn wants_token(account: &Object, pod: &Object) -> bool {
    let pod_says = pod.at(&["spec", "automountServiceAccountToken"]).and_then(Value::as_bool);
    let account_says = account.get("automountServiceAccountToken").and_then(Value::as_bool);
    pod_says.or(account_says).unwrap_or(true)
}

/// Mount the token in every container that mounts nothing else there.
fn mount_token(pod: &mut Object) {
    let existing = items(pod, &["spec", "volumes"]).map(|v| v.str_at(&["name"])).find(|n| n.starts_with(VOLUME_PREFIX));
    let is_new = existing.is_none();
    let volume = existing.map_or_else(|| format!("{VOLUME_PREFIX}{}", suffix()), str::to_owned);
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            if items(container, &["volumeMounts"]).any(|m| m.str_at(&["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
            array_mut(container, &["volumeMounts"]).push(mount);
            mounted = true;
        }
    }
    if mounted && is_new {
        array_mut(pod, &["spec", "volumes"]).push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}})
}

/// Five characters of upstream's alphabet for generated names.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(ALPHABET[usize::from(rand::random::<u8>()) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_mounted_where_nothing_else_is() {
        let mut pod = json!({"spec": {"initContainers": [{"name": "i"}], "containers": [
            {"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod);
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert_eq!(volume.len(), VOLUME_PREFIX.len() + 5);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][0]["name"], volume.as_str());
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume.as_str());
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let again = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, again);
    }

    #[test]
    fn who_decides_about_the_mount() {
        let say = |v: Option<bool>| v.map_or(json!({}), |v| json!({"automountServiceAccountToken": v}));
        let cases = [
            (None, None, true),
            (Some(false), None, false),
            (Some(false), Some(true), true),
            (Some(true), Some(false), false),
        ];
        for (account, pod, want) in cases {
            assert_eq!(wants_token(&say(account), &json!({"spec": say(pod)})), want, "{account:?} {pod:?}");
        }
    }
}
