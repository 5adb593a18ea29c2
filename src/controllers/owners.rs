//! Who owns what: the objects a controller has, those it may adopt and those it must let go (upstream's
//! `ControllerRefManager`).

use super::apply::Writable;
use super::labels::Selector;
use crate::cache::{Cache, Cached, Index, controller_uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::sync::Arc;

/// Objects by their controller's UID, and those without a controller by `orphan/<namespace>`.
fn by_owner<K: Cached>() -> Index<K> {
    Index {
        name: "owner-or-orphan",
        values: |object| match controller_uid(object) {
            Some(uid) => vec![uid.to_owned()],
            None => vec![format!("orphan/{}", object.meta().namespace.as_deref().unwrap_or(""))],
        },
    }
}

/// Objects whose controller is `uid`.
pub fn owned<K: Cached>(cache: &Cache<K>, uid: &str) -> Vec<Arc<K>> {
    cache.by(&by_owner(), uid)
}

/// Objects of a namespace that nobody controls.
pub fn orphans<K: Cached>(cache: &Cache<K>, namespace: &str) -> Vec<Arc<K>> {
    cache.by(&by_owner(), &format!("orphan/{namespace}"))
}

/// The controlling owner, if it is of this kind.
pub fn controller_of<K: Cached, O: Cached>(object: &K) -> Option<&OwnerReference> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    let ours = |o: &&OwnerReference| {
        let (group, _) = crate::object::split_api_version(&o.api_version);
        o.controller == Some(true) && o.kind == O::kind(&()) && group == O::group(&())
    };
    owners.iter().find(ours)
}

/// The reference that makes `owner` the controller of what carries it.
pub fn controller_ref<O: Cached>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What belongs to an owner after claiming.
#[derive(Debug)]
pub struct Claim<K> {
    pub mine: Vec<Arc<K>>,
    pub adopt: Vec<Arc<K>>,
    pub release: Vec<Arc<K>>,
}

/// Decide about everything that `owner` controls or could control.
pub fn claim<K: Cached>(owner: &ObjectMeta, selector: &Selector, owned: Vec<Arc<K>>, orphans: Vec<Arc<K>>) -> Claim<K> {
    let matches = |object: &K| selector.matches(object.meta().labels.as_ref());
    let deleting = owner.deletion_timestamp.is_some();
    let (mine, strangers) = owned.into_iter().partition::<Vec<_>, _>(|object| matches(object));
    let release = if deleting { Vec::new() } else { strangers };
    let free = |object: &K| object.meta().deletion_timestamp.is_none() && matches(object);
    let adopt = if deleting { Vec::new() } else { orphans.into_iter().filter(|o| free(o)).collect() };
    Claim { mine, adopt, release }
}

/// Do what [`claim`] decided; gives the objects that belong to `owner`.
pub async fn settle<O: Writable, K: Writable>(
    client: &Client,
    owner: &O,
    claim: Claim<K>,
) -> anyhow::Result<Vec<Arc<K>>> {
    let Claim { mut mine, adopt, release } = claim;
    let namespace = owner.meta().namespace.as_deref().unwrap_or("");
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    if !adopt.is_empty() {
        // The cached owner may be an old incarnation: ask before taking anything.
        let owners: Api<O> = Api::namespaced(client.clone(), namespace);
        let fresh = owners.get(owner.meta().name.as_deref().unwrap_or("")).await?;
        anyhow::ensure!(fresh.meta().uid == owner.meta().uid, "the owner was replaced by another of the same name");
        anyhow::ensure!(fresh.meta().deletion_timestamp.is_none(), "the owner is being deleted");
    }
    for object in adopt {
        let meta = object.meta();
        let change = json!({"metadata": {"uid": meta.uid, "ownerReferences": [controller_ref(owner)]}});
        patch(&api, meta, change).await?;
        mine.push(object);
    }
    for object in release {
        let meta = object.meta();
        let gone = json!([{"$patch": "delete", "uid": owner.meta().uid}]);
        patch(&api, meta, json!({"metadata": {"uid": meta.uid, "ownerReferences": gone}})).await?;
    }
    Ok(mine)
}

async fn patch<K: Writable>(api: &Api<K>, meta: &ObjectMeta, change: serde_json::Value) -> anyhow::Result<()> {
    let name = meta.name.as_deref().unwrap_or("");
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(change)).await {
        Err(error) if !super::apply::is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}
