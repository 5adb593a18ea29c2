//! Keeps an index of one kind current from the store: list, then watch, list again after a gap.
//!
//! Authorization and token checks run on every request, so they read indexes in memory that hold only what they need,
//! not whole objects. An index lags the store by the time a task needs to wake up.

use crate::server::kinds::Kind;
use crate::server::registry::{Registry, range_of};
use crate::store::{Error, EventKind, KeyRange, KeyValue, RangeRequest, Revision, WatchMessage};
use crate::task::Group;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Objects read at once while listing: bounds the memory of a list of everything.
const PAGE: usize = 500;
/// How long to wait before listing again after an error.
const RELIST_DELAY: Duration = Duration::from_millis(500);

/// namespace (empty for cluster scope) and name.
pub type Key = (String, String);

/// What is kept current. Calls come from one task, in the order of revisions.
pub trait Sink: Send + Sync + 'static {
    /// An object was made or changed, or listed.
    fn put(&self, key: &Key, kv: &KeyValue);

    fn delete(&self, key: &Key);

    /// Every key that the index holds: those a list does not show are deleted.
    fn keys(&self) -> Vec<Key>;
}

/// Tells when an index has seen its first complete list.
#[derive(Clone)]
pub struct Followed(watch::Receiver<bool>);

impl Followed {
    /// Resolves after the first complete list, or when the server stops.
    pub async fn synced(&self) {
        let _ = self.0.clone().wait_for(|done| *done).await;
    }
}

/// Follow a kind until `group` ends.
pub fn follow(registry: &Arc<Registry>, kind: &'static Kind, sink: Arc<dyn Sink>, group: &Group) -> Followed {
    let (sender, receiver) = watch::channel(false);
    let registry = registry.clone();
    group.spawn("index", async move {
        loop {
            if let Err(error) = run(&registry, kind, &*sink, &sender).await {
                tracing::debug!(resource = kind.plural, %error, "index lists again");
            }
            tokio::time::sleep(RELIST_DELAY).await;
        }
    });
    Followed(receiver)
}

async fn run(registry: &Registry, kind: &Kind, sink: &dyn Sink, synced: &watch::Sender<bool>) -> Result<(), Error> {
    let range = range_of(kind, "");
    let revision = list(registry, &range, sink).await?;
    synced.send_replace(true);
    let mut events = registry.store().watch(range.clone(), Some(Revision(revision.0 + 1))).await?;
    loop {
        let WatchMessage::Events(batch) = events.next().await? else { continue };
        for event in batch {
            let Some(key) = split(&range, &event.kv.key) else { continue };
            match event.kind {
                EventKind::Put => sink.put(&key, &event.kv),
                EventKind::Delete => sink.delete(&key),
            }
        }
    }
}

/// Feed every object at one revision, and take away what is no longer there.
async fn list(registry: &Registry, range: &KeyRange, sink: &dyn Sink) -> Result<Revision, Error> {
    let mut stale: HashSet<Key> = sink.keys().into_iter().collect();
    let mut page = RangeRequest { limit: PAGE, ..RangeRequest::of(range.clone()) };
    loop {
        let found = registry.store().range(page.clone()).await?;
        let revision = *page.revision.get_or_insert(found.revision);
        for kv in &found.kvs {
            let Some(key) = split(range, &kv.key) else { continue };
            stale.remove(&key);
            sink.put(&key, kv);
        }
        match found.kvs.last() {
            Some(last) if found.more => page.range.start = [&last.key[..], &[0]].concat().into(),
            _ => {
                stale.iter().for_each(|key| sink.delete(key));
                return Ok(revision);
            }
        }
    }
}

/// Namespace and name of a store key below a kind's prefix.
fn split(range: &KeyRange, key: &[u8]) -> Option<Key> {
    let prefix = range.start.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    let rest = std::str::from_utf8(key.get(prefix..)?).ok()?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    Some((namespace.to_owned(), name.to_owned()))
}
