//! Whose a node's name is: the first key that joins under it keeps it, so that no second machine takes the node over
//! (k3s does this with passwords).
//!
//! The record is a Secret `kube-system/NAME.node-key.kedge` with hashes of the node's public key and of the one before
//! it (a node that loses power during a renewal still has the old one). It holds as long as the Node exists; once the
//! Node was deleted, any key may come, and after [`FORGET_AFTER`] the record goes. A Node without a record (the server's
//! own, or one made by hand) belongs to nobody who joins.

use super::super::driver::{Controller, Requeue, Wakes};
use super::super::{Context, apply};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "kube-system";
const SUFFIX: &str = ".node-key.kedge";
const TYPE: &str = "kedge.io/node-key";
const CURRENT: &str = "key-sha256";
const PREVIOUS: &str = "previous-key-sha256";
/// Annotation: UID of the Node that was registered with the key.
const NODE_UID: &str = "kedge.io/node-uid";
/// A key that was approved has this long to register its Node before the name is free again, seconds.
const CLAIM_SECONDS: i64 = 600;
/// A record outlives its Node by this: a node that was deleted while it runs registers again within seconds.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What a key is to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It has the name already.
    Known,
    /// It may have it.
    Free,
    /// The name is another key's.
    Taken,
}

/// A stored record.
pub struct Record(Secret);

impl Record {
    fn value(&self, key: &str) -> &[u8] {
        self.0.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice()).unwrap_or_default()
    }

    fn holds(&self, key: &str) -> bool {
        self.value(CURRENT) == key.as_bytes() || self.value(PREVIOUS) == key.as_bytes()
    }

    fn node_uid(&self) -> Option<&str> {
        self.0.metadata.annotations.as_ref()?.get(NODE_UID).map(String::as_str)
    }

    fn age_seconds(&self, now_seconds: i64) -> i64 {
        self.0.metadata.creation_timestamp.as_ref().map_or(0, |t| now_seconds - t.0.as_second())
    }
}

/// What `key` is to a name with this record.
pub fn claim(record: Option<&Record>, node_exists: bool, key: &str, now_seconds: i64) -> Claim {
    let Some(record) = record else { return if node_exists { Claim::Taken } else { Claim::Free } };
    let settling = record.node_uid().is_none() && record.age_seconds(now_seconds) < CLAIM_SECONDS;
    match () {
        () if record.holds(key) => Claim::Known,
        () if node_exists || settling => Claim::Taken,
        () => Claim::Free,
    }
}

/// The record of a node and how to write it.
pub struct Records {
    secrets: Api<Secret>,
}

impl Records {
    pub fn new(client: &Client) -> Self {
        Records { secrets: Api::namespaced(client.clone(), NAMESPACE) }
    }

    pub async fn get(&self, node: &str) -> kube::Result<Option<Record>> {
        Ok(self.secrets.get_opt(&name(node)).await?.map(Record))
    }

    /// Give the name to a key that nobody known has had it with.
    pub async fn give(&self, node: &str, key: &str, over: Option<Record>) -> kube::Result<()> {
        if let Some(Record(old)) = over {
            let meta = &old.metadata;
            let preconditions =
                kube::api::Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
            let exactly = kube::api::DeleteParams::default().preconditions(preconditions);
            self.secrets.delete(&name(node), &exactly).await?;
        }
        let data = BTreeMap::from([(CURRENT.to_owned(), ByteString(key.into()))]);
        let metadata = ObjectMeta { name: Some(name(node)), ..Default::default() };
        let secret = Secret { metadata, type_: Some(TYPE.into()), data: Some(data), ..Default::default() };
        self.secrets.create(&PostParams::default(), &secret).await.map(drop)
    }

    /// The node itself goes on with another key.
    pub async fn renew(&self, node: &str, key: &str) -> kube::Result<()> {
        match self.get(node).await? {
            None => self.give(node, key, None).await,
            Some(record) if record.value(CURRENT) == key.as_bytes() => Ok(()),
            Some(Record(mut secret)) => {
                let data = secret.data.get_or_insert_default();
                let old = data.insert(CURRENT.to_owned(), ByteString(key.into())).unwrap_or_default();
                data.insert(PREVIOUS.to_owned(), old);
                self.secrets.replace(&name(node), &PostParams::default(), &secret).await.map(drop)
            }
        }
    }
}

fn name(node: &str) -> String {
    format!("{node}{SUFFIX}")
}

/// Keeps records in step with Nodes.
struct NodeKeys {
    client: Client,
    nodes: Cache<Node>,
    records: Cache<Secret>,
    /// Nodes with a record that are not there, since when. Bounded by the number of records.
    gone: Mutex<HashMap<String, Instant>>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(NodeKeys {
        client: context.client.clone(),
        nodes: context.caches.of(),
        records: context.caches.selected(&format!("type={TYPE}")),
        gone: Mutex::default(),
    })
}

#[async_trait]
impl Controller for NodeKeys {
    fn name(&self) -> &'static str {
        "node-key-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.nodes);
        wakes.on(&self.records, |change| {
            change.key.name.strip_suffix(SUFFIX).map(|node| Key::new("", node)).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(record) = self.records.get(NAMESPACE, &name(&key.name)) else {
            self.gone.lock().remove(&key.name);
            return Ok(Requeue::Done);
        };
        let record = Record(record.as_ref().clone());
        let api: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        if let Some(node) = self.nodes.at(key) {
            self.gone.lock().remove(&key.name);
            if record.node_uid() != node.metadata.uid.as_deref() {
                apply::update(&api, &record.0, |fresh| {
                    let annotations = fresh.metadata.annotations.get_or_insert_default();
                    annotations.insert(NODE_UID.to_owned(), node.metadata.uid.clone().unwrap_or_default());
                })
                .await?;
            }
            return Ok(Requeue::Done);
        }
        let since = *self.gone.lock().entry(key.name.clone()).or_insert_with(Instant::now);
        let left = FORGET_AFTER.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Ok(Requeue::After(left));
        }
        apply::delete(&api, &record.0).await?;
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(uid: Option<&str>) -> Record {
        let annotations = uid.map(|uid| json!({NODE_UID: uid}));
        Record(
            serde_json::from_value(json!({
                "metadata": {"name": "n", "annotations": annotations, "creationTimestamp": "2026-06-02T00:00:00Z"},
                "data": {CURRENT: "Mg==", PREVIOUS: "MQ=="}}))
            .unwrap(),
        )
    }

    #[test]
    fn a_name_is_its_first_keys_until_the_node_is_deleted() {
        use Claim::*;
        let born = crate::time::parse_seconds("2026-06-02T00:00:00Z").unwrap();
        let (soon, late) = (born + 10, born + CLAIM_SECONDS);
        // Record with this Node's UID, does the Node exist, key, when, what it is.
        for (uid, exists, key, now, want) in [
            (Some("u"), true, "2", soon, Known),
            (Some("u"), true, "1", soon, Known),
            (Some("u"), true, "3", late, Taken),
            (Some("u"), false, "3", soon, Free),
            (Some("u"), false, "2", soon, Known),
            (None, false, "3", soon, Taken),
            (None, false, "3", late, Free),
            (None, true, "3", late, Taken),
        ] {
            assert_eq!(claim(Some(&record(uid)), exists, key, now), want, "{uid:?} {exists} {key}");
        }
        assert_eq!(claim(None, false, "1", soon), Free);
        assert_eq!(claim(None, true, "1", soon), Taken, "the server's own node has no record");
    }
}
