//! Writing what a plan decided. Caches hold trimmed objects, so a whole object is never sent from there: it is read
//! again, and the write holds only if it is still the version that the plan was made from.

use crate::cache::{Cached, Key};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde::Serialize;
use std::fmt::Debug;

/// A namespaced kind that can be written.
pub trait Writable: Cached + Serialize + kube::Resource<Scope = NamespaceResourceScope> {}
impl<K> Writable for K where K: Cached + Serialize + kube::Resource<Scope = NamespaceResourceScope> {}

pub fn api<K: Writable>(client: &Client, namespace: &str) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

/// The plan was made from an older version than the server has: try again when the cache has caught up.
#[derive(Debug, thiserror::Error)]
#[error("{0} has changed meanwhile")]
pub struct Stale(pub Key);

/// The object as the server has it, if it still is the version `planned_on`.
pub async fn unchanged<K: Cached + Debug>(api: &Api<K>, planned_on: &K) -> anyhow::Result<K> {
    let key = Key::of(planned_on);
    let fresh = api.get(&key.name).await?;
    let same = |a: &K, b: &K| a.meta().uid == b.meta().uid && a.meta().resource_version == b.meta().resource_version;
    if same(&fresh, planned_on) { Ok(fresh) } else { Err(Stale(key).into()) }
}

/// Write the status of the version `planned_on`, edited by `edit`.
pub async fn status<K: Cached + Serialize>(
    api: &Api<K>,
    planned_on: &K,
    edit: impl FnOnce(&mut K),
) -> anyhow::Result<K> {
    let mut fresh = unchanged(api, planned_on).await?;
    edit(&mut fresh);
    let name = Key::of(planned_on).name;
    Ok(api.replace_status(&name, &PostParams::default(), &fresh).await?)
}

/// Write the version `planned_on`, edited by `edit`.
pub async fn update<K: Cached + Serialize>(
    api: &Api<K>,
    planned_on: &K,
    edit: impl FnOnce(&mut K),
) -> anyhow::Result<K> {
    let mut fresh = unchanged(api, planned_on).await?;
    edit(&mut fresh);
    let name = Key::of(planned_on).name;
    Ok(api.replace(&name, &PostParams::default(), &fresh).await?)
}

/// Delete exactly this object; gone already is fine.
pub async fn delete<K: Cached>(api: &Api<K>, object: &K) -> kube::Result<()> {
    let uid = object.meta().uid.clone();
    let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    match api.delete(&Key::of(object).name, &params).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// The namespace is being deleted: nothing new can be made there, and nobody needs to hear of it.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
}

/// What the server said, as upstream's events print an error.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
