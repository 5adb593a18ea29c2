//! Aggregated ClusterRoles: their rules are those of all roles that a label selector picks (upstream's
//! clusterrole-aggregation controller).

use super::follow::{Key, Sink, follow};
use super::rbac::GROUP;
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;
use crate::server::admission::Reader;
use crate::server::registry::Registry;
use crate::store::KeyValue;
use crate::task::Group;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The rules an aggregated ClusterRole must have, or None where it has them already or is not aggregated.
pub fn rules_for(role: &Object, all: &[Object]) -> Option<Value> {
    let selectors = role.at(&["aggregationRule", "clusterRoleSelectors"]).and_then(Value::as_array)?;
    let mut picked: Vec<&Object> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_object(Some(selector)) else { continue };
        let matches = |r: &&Object| r.name() != role.name() && selector.matches_labels(r.labels());
        picked.extend(all.iter().filter(matches));
    }
    picked.sort_by_key(|r| r.name());
    let mut rules: Vec<&Value> = Vec::new();
    for rule in picked.iter().filter_map(|r| r.get("rules").and_then(Value::as_array)).flatten() {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let has = role.get("rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let same = has.len() == rules.len() && has.iter().eq(rules.iter().copied());
    (!same).then(|| rules.into_iter().cloned().collect::<Vec<_>>().into())
}

/// The service account that writes aggregated roles.
pub const CONTROLLER: &str = "clusterrole-aggregation-controller";
/// Changes come in bursts (a chart's roles): wait this long for more before looking.
const SETTLE: Duration = Duration::from_millis(100);

/// Keep aggregated roles current until `group` ends.
pub fn start(registry: &Arc<Registry>, client: kube::Client, group: &Group) {
    let Some(kind) = registry.kind_of(GROUP, "clusterroles") else { return };
    let woken = Arc::new(Notify::new());
    follow(registry, kind, Arc::new(Wake(woken.clone())), group);
    let registry = registry.clone();
    group.spawn("role aggregation", async move {
        loop {
            woken.notified().await;
            tokio::time::sleep(SETTLE).await;
            if let Err(error) = pass(&*registry, &client).await {
                tracing::warn!(%error, "aggregating cluster roles; trying again");
                tokio::time::sleep(SETTLE * 10).await;
                woken.notify_one();
            }
        }
    });
}

/// Look at every role once.
async fn pass(reader: &dyn Reader, client: &kube::Client) -> anyhow::Result<()> {
    let roles = reader.list(GROUP, "clusterroles", "").await?;
    for role in &roles {
        let Some(rules) = rules_for(role, &roles) else { continue };
        let patch = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
                           "metadata": {"name": role.name()}, "rules": rules});
        let path = format!("/apis/{GROUP}/v1/clusterroles/{}?fieldManager={CONTROLLER}&force=true", role.name());
        let request = http::Request::patch(path)
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(&patch)?)?;
        client.request::<Value>(request).await?;
    }
    Ok(())
}

/// Every change of any role is a reason to look at all of them.
struct Wake(Arc<Notify>);

impl Sink for Wake {
    fn put(&self, _key: &Key, _kv: &KeyValue) {
        self.0.notify_one();
    }

    fn delete(&self, _key: &Key) {
        self.0.notify_one();
    }

    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }
}
