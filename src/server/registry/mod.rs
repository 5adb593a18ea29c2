//! The generic registry: every kind's verbs on the store, through one write pipeline (DESIGN section 4).
//!
//! [`Registry`] is what is shared: the store, the kinds, the encoded watch events. [`Call`] is one request on one kind;
//! its verbs are in a file each.

use crate::object::Object;
use crate::server::admission::Reader;
use crate::server::kinds::{Kind, TABLE};
use crate::server::patch::Typed;
use crate::server::{raw, schema, watch};
use crate::status::{Result, Status};
use crate::store::{self, KeyRange, RangeRequest, Revision, Store};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

mod call;
mod change;
mod create;
mod delete;
pub mod expiry;
mod list;
mod meta;
mod paging;
mod selection;

pub use call::{Answer, Call};
pub use change::{Change, Part};
pub use list::{Listed, Shape};
pub use paging::{PAGE_OBJECTS, Pager};
pub use selection::{Candidate, Selection, field_value};

/// All stored resources. Made before the [`crate::server::api::Api`], so that authorizers can read through it.
pub struct Registry {
    store: Arc<dyn Store>,
    index: ArcSwap<Index>,
    pub(in crate::server) frames: watch::Frames,
}

/// A served kind and what is looked up about it once.
#[derive(Clone, Copy)]
pub struct Served {
    pub kind: &'static Kind,
    /// None where the schema table does not know the kind (custom resources without one).
    pub typed: Option<Typed<'static>>,
}

type Index = HashMap<(&'static str, &'static str, &'static str), Served>;

impl Registry {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let index = TABLE.iter().map(|kind| ((kind.group, kind.version, kind.plural), served(kind))).collect();
        Arc::new(Registry { store, index: ArcSwap::from_pointee(index), frames: watch::Frames::default() })
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What is served under a path, or None.
    pub fn served(&self, group: &str, version: &str, resource: &str) -> Option<Served> {
        lookup(&self.index.load(), group, version, resource)
    }

    /// The kind behind a path, or None.
    pub fn kind(&self, group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
        self.served(group, version, resource).map(|s| s.kind)
    }

    /// The kind of a resource in the version it is stored in.
    pub fn kind_of(&self, group: &str, resource: &str) -> Option<&'static Kind> {
        let index = self.index.load();
        let mut kinds = index.values().map(|s| s.kind).filter(|k| k.group == group && k.plural == resource);
        let first = kinds.next()?;
        if first.conversion.is_none() { Some(first) } else { kinds.find(|k| k.conversion.is_none()).or(Some(first)) }
    }

    /// Every served kind.
    pub fn kinds(&self) -> Vec<&'static Kind> {
        self.index.load().values().map(|s| s.kind).collect()
    }
}

fn served(kind: &'static Kind) -> Served {
    let schema = schema::builtin();
    let typed = schema.of(kind.group, kind.version, kind.kind).map(|ty| Typed { schema, ty });
    Served { kind, typed }
}

/// The index's keys live for ever; a lookup borrows for as long as the request does.
fn lookup<'a>(
    index: &HashMap<(&'a str, &'a str, &'a str), Served>,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
) -> Option<Served> {
    index.get(&(group, version, resource)).copied()
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

/// The object of a stored value in the version that `kind` serves, with its revision as `metadata.resourceVersion`.
pub fn parse(kind: &Kind, value: &[u8], revision: Revision) -> Result<Object> {
    let mut object = raw::parse(value, revision)?;
    if let Some(conversion) = &kind.conversion {
        (conversion.from_stored)(&mut object);
    }
    Ok(object)
}

/// The stored form of an object of `kind`.
pub fn store_form(kind: &Kind, object: &Object) -> Result<Bytes> {
    let mut object = object.clone();
    if let Some(conversion) = &kind.conversion {
        (conversion.to_stored)(&mut object);
    }
    raw::store_form(&mut object)
}

/// What clients are told when the store fails.
pub fn store_error(error: store::Error) -> Status {
    match error {
        store::Error::Compacted(_) => Status::expired("The resourceVersion for the provided list is too old."),
        store::Error::Future(current) => too_large_revision(current),
        store::Error::NoSpace(_) => Status::internal(format!("etcdserver: mvcc: database space exceeded: {error}")),
        store::Error::Invalid(why) => Status::bad_request(why.to_string()),
        store::Error::Unreachable(_) => Status::unavailable(error.to_string()),
        store::Error::Closed => Status::unavailable("the server is shutting down"),
        other => Status::internal(other),
    }
}

/// A read that must not be older than a revision which does not exist yet.
pub fn too_large_revision(current: Revision) -> Status {
    Status::timeout(format!("Too large resource version: current: {current}"), 1).with_cause(
        "ResourceVersionTooLarge",
        "Too large resource version",
        "",
    )
}

#[async_trait]
impl Reader for Registry {
    async fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Result<Option<Object>> {
        let Some(kind) = self.kind_of(group, resource) else { return Ok(None) };
        let request = RangeRequest::of(KeyRange::key(key_of(kind, namespace, name)));
        let found = self.store.range(request).await.map_err(store_error)?;
        found.kvs.first().map(|kv| parse(kind, &kv.value, kv.mod_revision)).transpose()
    }

    async fn list(&self, group: &str, resource: &str, namespace: &str) -> Result<Vec<Object>> {
        let Some(kind) = self.kind_of(group, resource) else { return Ok(Vec::new()) };
        let found = self.store.range(RangeRequest::of(range_of(kind, namespace))).await.map_err(store_error)?;
        found.kvs.iter().map(|kv| parse(kind, &kv.value, kv.mod_revision)).collect()
    }
}
