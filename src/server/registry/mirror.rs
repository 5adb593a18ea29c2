//! A current copy of one kind in memory, for what is asked on every request (roles, namespaces, bound pods).

use super::{Registry, parse, range_of};
use crate::object::{Object, ObjectExt};
use crate::server::kinds::Kind;
use crate::store::{Error, EventKind, RangeRequest, Revision, WatchMessage};
use crate::task::Group;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long to wait before the store is listed again after an error.
const RELIST_DELAY: Duration = Duration::from_millis(500);

type Objects = BTreeMap<(String, String), Arc<Object>>;

/// All objects of one kind. Reads never wait; they lag the store by the time a task needs to wake up.
pub struct Mirror {
    objects: RwLock<Objects>,
    revision: AtomicU64,
    synced: watch::Sender<bool>,
}

impl Mirror {
    /// Start mirroring a kind; the task ends with `group`.
    pub fn start(registry: Arc<Registry>, kind: &'static Kind, group: &Group) -> Arc<Self> {
        let mirror = Arc::new(Mirror {
            objects: RwLock::default(),
            revision: AtomicU64::new(0),
            synced: watch::Sender::new(false),
        });
        let follower = mirror.clone();
        group.spawn("mirror", async move {
            loop {
                if let Err(error) = follower.follow(&registry, kind).await {
                    tracing::debug!(resource = kind.plural, %error, "mirror lists again");
                }
                tokio::time::sleep(RELIST_DELAY).await;
            }
        });
        mirror
    }

    /// Resolves once the first list is complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|done| *done).await;
    }

    /// Changes whenever an object changes: the key for caches of what was computed from this mirror.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.objects.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn list(&self) -> Vec<Arc<Object>> {
        self.objects.read().values().cloned().collect()
    }

    /// The objects of one namespace.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        let from = (namespace.to_owned(), String::new());
        objects.range(from..).take_while(|((ns, _), _)| ns == namespace).map(|(_, o)| o.clone()).collect()
    }

    async fn follow(&self, registry: &Registry, kind: &'static Kind) -> Result<(), Error> {
        let range = range_of(kind, "");
        let list = registry.store().range(RangeRequest::of(range.clone())).await?;
        let objects =
            list.kvs.iter().filter_map(|kv| Some(keyed(parse(kind, &kv.value, kv.mod_revision).ok()?))).collect();
        *self.objects.write() = objects;
        self.revision.store(list.revision.0, Ordering::Release);
        self.synced.send_replace(true);
        let mut events = registry.store().watch(range, Some(Revision(list.revision.0 + 1))).await?;
        loop {
            let WatchMessage::Events(batch) = events.next().await? else { continue };
            let mut objects = self.objects.write();
            for event in batch {
                let value = if event.kind == EventKind::Put { Some(&event.kv) } else { event.previous.as_ref() };
                let Some(object) = value.and_then(|kv| parse(kind, &kv.value, kv.mod_revision).ok()) else { continue };
                let (key, object) = keyed(object);
                match event.kind {
                    EventKind::Put => objects.insert(key, object),
                    EventKind::Delete => objects.remove(&key),
                };
                self.revision.store(event.kv.mod_revision.0, Ordering::Release);
            }
        }
    }
}

fn keyed(object: Object) -> ((String, String), Arc<Object>) {
    ((object.namespace().to_owned(), object.name().to_owned()), Arc::new(object))
}
