//! Reading one's own writes: a controller waits until its cache shows what it wrote for a key, so that a cache that
//! lags never makes it do things twice (upstream's "expectations", by revision instead of by counting).

use crate::cache::{Cache, Cached, Key, revision};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// How long a reconcile waits for its cache before it gives way to other keys.
const PATIENCE: Duration = Duration::from_secs(2);
/// When to look again after that.
pub const STALE_PAUSE: Duration = Duration::from_millis(500);

/// Revisions that must be visible before a key is reconciled. Bounded by the number of primary objects.
#[derive(Default)]
pub struct Writes {
    awaited: Mutex<HashMap<Key, u64>>,
}

impl Writes {
    /// `written` is the server's answer to a write made for `key`.
    pub fn record<K: kube::Resource>(&self, key: &Key, written: &K) {
        let revision = revision(written.meta().resource_version.as_deref());
        let mut awaited = self.awaited.lock();
        let held = awaited.entry(key.clone()).or_insert(0);
        *held = revision.max(*held);
    }

    /// Does `cache` show all writes recorded for `key`? Waits a little.
    pub async fn visible<K: Cached>(&self, key: &Key, cache: &Cache<K>) -> bool {
        let Some(revision) = self.awaited.lock().get(key).copied() else { return true };
        let visible = tokio::time::timeout(PATIENCE, cache.reached(revision)).await.is_ok();
        if visible {
            self.forget(key);
        }
        visible
    }

    pub fn forget(&self, key: &Key) {
        self.awaited.lock().remove(key);
    }
}
