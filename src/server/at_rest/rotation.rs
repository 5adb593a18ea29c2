//! Rewriting of Secrets that are not encrypted, or not with the newest key: after an upgrade, and after a rotation.

use super::keys::Keys;
use super::{SECRETS, Sealed};
use crate::store::{Compare, Error, KeyRange, KeyValue, Op, Put, RangeRequest, Store, Txn};
use crate::task::Group;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// Secrets read at once.
const PAGE_SECRETS: usize = 100;
/// Pause between pages: nothing waits for this.
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(10);

/// How far encryption has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Names of the keys, the newest first.
    pub keys: Vec<String>,
    pub secrets: usize,
    /// Those encrypted with the newest key.
    pub current: usize,
}

/// Rewrite what has to be, at the start and after each rotation, until the group ends.
pub fn start(group: &Group, sealed: Arc<Sealed>) {
    group.spawn("secrets-encryption", async move {
        loop {
            match sealed.rewrite().await {
                Ok(0) => sealed.wake.notified().await,
                Ok(rewritten) => info!(rewritten, "Secrets are encrypted with the newest key"),
                Err(Error::Closed) => return,
                Err(error) => {
                    warn!(%error, "Secrets could not be encrypted with the newest key; trying again later");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    });
}

impl Sealed {
    /// Make a new key the one that encrypts. It is on disk before it is used. Secrets follow in the background.
    pub fn rotate(&self) -> anyhow::Result<()> {
        let keys = self.keys.load().with_new()?;
        self.replace(keys)
    }

    /// Use other keys from now on. They are on disk before. If another one encrypts now, Secrets follow in the background.
    pub(super) fn replace(&self, keys: Keys) -> anyhow::Result<()> {
        keys.save(&self.file)?;
        let (names, before) = (super::owned(&keys), self.keys.load_full());
        self.keys.store(Arc::new(keys));
        if before.names().first().copied() != names.first().map(String::as_str) {
            info!(key = names.first(), "a new key encrypts Secrets");
            self.wake.notify_one();
        }
        self.names.send_replace(names);
        Ok(())
    }

    pub async fn status(&self) -> Result<Status, Error> {
        let (mut secrets, mut current) = (0, 0);
        let mut pages = Pages::of(&self.inner);
        while let Some(kvs) = pages.next().await? {
            let keys = self.keys.load();
            secrets += kvs.len();
            current += kvs.iter().filter(|kv| keys.is_current(&kv.value)).count();
        }
        let keys = self.keys.load().names().into_iter().map(str::to_owned).collect();
        Ok(Status { keys, secrets, current })
    }

    /// Encrypt what is not encrypted with the newest key. Gives how many Secrets were rewritten; those that change
    /// meanwhile are encrypted by that change.
    pub(super) async fn rewrite(&self) -> Result<usize, Error> {
        let mut rewritten = 0;
        let mut pages = Pages::of(&self.inner);
        while let Some(kvs) = pages.next().await? {
            for kv in kvs {
                let keys = self.keys.load_full();
                if keys.is_current(&kv.value) {
                    continue;
                }
                let Ok(value) = keys.open(&kv.key, &kv.value) else {
                    warn!(key = %kv.key.escape_ascii(), "no key opens this Secret; it stays as it is");
                    continue;
                };
                let txn = Txn {
                    compare: vec![Compare::unchanged(kv.key.clone(), kv.mod_revision)],
                    success: vec![Op::Put(Put { key: kv.key, value: Some(value), lease: None })],
                    failure: vec![],
                };
                rewritten += usize::from(self.txn(txn).await?.succeeded);
            }
        }
        Ok(rewritten)
    }
}

/// All Secrets as they are stored, page by page.
struct Pages {
    store: Arc<dyn Store>,
    /// What is left; None at the end.
    range: Option<KeyRange>,
}

impl Pages {
    fn of(store: &Arc<dyn Store>) -> Self {
        Pages { store: store.clone(), range: Some(KeyRange::prefix(SECRETS)) }
    }

    async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        let Some(range) = self.range.take() else { return Ok(None) };
        if range.start.len() > SECRETS.len() {
            tokio::time::sleep(PAGE_PAUSE).await;
        }
        let page = self.store.range(RangeRequest { limit: PAGE_SECRETS, ..RangeRequest::of(range.clone()) }).await?;
        if let Some(last) = page.kvs.last().filter(|_| page.more) {
            self.range = Some(KeyRange { start: [&last.key[..], &[0]].concat().into(), ..range });
        }
        Ok(Some(page.kvs))
    }
}
