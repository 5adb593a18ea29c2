//! The generic registry: every kind's verbs on the store, through one write pipeline (DESIGN section 4).

use crate::object::Object;
use crate::server::admission::Reader;
use crate::server::kinds::{Kind, TABLE};
use crate::status::{Result, Status};
use crate::store::{KeyRange, RangeRequest, Revision, Store};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

pub mod mirror;

/// All stored resources. Made before the [`crate::server::api::Api`], so that authorizers can read through it.
pub struct Registry {
    store: Arc<dyn Store>,
}

impl Registry {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Registry { store })
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The kind behind a path, or None.
    pub fn kind(&self, group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
        self.kinds().find(|k| k.group == group && k.version == version && k.plural == resource)
    }

    /// The kind of a resource in its first served version.
    pub fn kind_of(&self, group: &str, resource: &str) -> Option<&'static Kind> {
        self.kinds().find(|k| k.group == group && k.plural == resource)
    }

    /// Every served kind.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        TABLE.iter().copied()
    }
}

/// The store key of an object: `/registry/<storage>/[<namespace>/]<name>`.
pub fn key_of(kind: &Kind, namespace: &str, name: &str) -> Bytes {
    if kind.is_namespaced() {
        format!("/registry/{}/{namespace}/{name}", kind.storage).into()
    } else {
        format!("/registry/{}/{name}", kind.storage).into()
    }
}

/// The store range of a whole kind, or of one namespace of it (`namespace` empty: all).
pub fn range_of(kind: &Kind, namespace: &str) -> KeyRange {
    if kind.is_namespaced() && !namespace.is_empty() {
        KeyRange::prefix(format!("/registry/{}/{namespace}/", kind.storage))
    } else {
        KeyRange::prefix(format!("/registry/{}/", kind.storage))
    }
}

/// The object of a stored value, with the revision of its last write as `metadata.resourceVersion`.
pub fn parse(value: &[u8], revision: Revision) -> Result<Object> {
    use crate::object::ObjectExt;
    let mut object: Object = serde_json::from_slice(value).map_err(Status::internal)?;
    object.metadata_mut().insert("resourceVersion".to_owned(), revision.to_string().into());
    Ok(object)
}

#[async_trait]
impl Reader for Registry {
    async fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Result<Option<Object>> {
        let Some(kind) = self.kind_of(group, resource) else { return Ok(None) };
        let request = RangeRequest::of(KeyRange::key(key_of(kind, namespace, name)));
        let found = self.store.range(request).await.map_err(Status::internal)?;
        found.kvs.first().map(|kv| parse(&kv.value, kv.mod_revision)).transpose()
    }

    async fn list(&self, group: &str, resource: &str, namespace: &str) -> Result<Vec<Object>> {
        let Some(kind) = self.kind_of(group, resource) else { return Ok(Vec::new()) };
        let found = self.store.range(RangeRequest::of(range_of(kind, namespace))).await.map_err(Status::internal)?;
        found.kvs.iter().map(|kv| parse(&kv.value, kv.mod_revision)).collect()
    }
}
