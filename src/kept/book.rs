//! Single objects by key: what is watched or asked for one by one.

use super::{PATIENCE, SETTLE, Vault, lines, pause_after};
use crate::task::Group;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::warn;

/// What a book can hold.
pub trait Entry: Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Entry for T {}

/// Objects of one type by key, each as last seen. Without a vault it holds nothing. Cheap to clone.
pub struct Book<T> {
    shared: Option<Arc<Shared<T>>>,
}

impl<T> Clone for Book<T> {
    fn clone(&self) -> Self {
        Book { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    name: &'static str,
    vault: Arc<Vault>,
    entries: Mutex<BTreeMap<String, Arc<T>>>,
    /// An entry is new: soon.
    new: Notify,
    /// One has changed: when it suits.
    changed: Notify,
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    key: String,
    value: T,
}

impl<T: Entry> Book<T> {
    /// The book of a name, with what it held. It is written in the group's life: new entries soon, changed ones after
    /// `lazy` at the latest.
    pub fn open(vault: Option<Arc<Vault>>, name: &'static str, lazy: Duration, group: &Group) -> Self {
        let Some(vault) = vault else { return Book { shared: None } };
        let held = vault.load(name).unwrap_or_default();
        let entries = lines::read::<Line<T>>(name, &held).into_iter().map(|l| (l.key, Arc::new(l.value))).collect();
        let (new, changed) = (Notify::new(), Notify::new());
        let shared = Arc::new(Shared { name, vault, entries: Mutex::new(entries), new, changed });
        group.spawn_graceful("book", write(shared.clone(), lazy, group.clone()));
        Book { shared: Some(shared) }
    }

    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.shared.as_ref()?.entries.lock().get(key).cloned()
    }

    pub fn put(&self, key: &str, value: Arc<T>) {
        let Some(shared) = &self.shared else { return };
        match shared.entries.lock().insert(key.to_owned(), value) {
            None => shared.new.notify_one(),
            Some(_) => shared.changed.notify_one(),
        }
    }

    pub fn remove(&self, key: &str) {
        let Some(shared) = &self.shared else { return };
        if shared.entries.lock().remove(key).is_some() {
            shared.new.notify_one();
        }
    }

    /// The server's answer, kept; when it does not answer, what was kept.
    pub async fn ask(&self, key: &str, question: impl Future<Output = kube::Result<T>>) -> kube::Result<Arc<T>> {
        let kept = self.get(key);
        let answer = match &kept {
            None => question.await,
            Some(kept) => match tokio::time::timeout(PATIENCE, question).await {
                Ok(answer) => answer,
                Err(_) => return Ok(kept.clone()),
            },
        };
        match (answer, kept) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                self.put(key, value.clone());
                Ok(value)
            }
            (Err(kube::Error::Api(status)), _) => {
                if status.is_not_found() {
                    self.remove(key);
                }
                Err(kube::Error::Api(status))
            }
            (Err(_), Some(kept)) => Ok(kept),
            (Err(error), None) => Err(error),
        }
    }

    /// Forget what nobody needs any more.
    pub fn retain(&self, needed: impl Fn(&str) -> bool) {
        let Some(shared) = &self.shared else { return };
        let mut entries = shared.entries.lock();
        let before = entries.len();
        entries.retain(|key, _| needed(key));
        if entries.len() != before {
            shared.changed.notify_one();
        }
    }
}

/// Write what has changed, until the group ends, and then once more.
async fn write<T: Entry>(shared: Arc<Shared<T>>, lazy: Duration, group: Group) {
    let mut pause = SETTLE;
    loop {
        tokio::select! {
            () = shared.new.notified() => {}
            () = async {
                shared.changed.notified().await;
                tokio::time::sleep(lazy).await;
            } => {}
            () = group.cancelled() => {}
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = group.cancelled() => {}
        }
        let (writing, is_last) = (shared.clone(), group.is_cancelled());
        match Group::blocking(move || writing.save()).await {
            Ok(Ok(bytes)) => pause = pause_after(bytes).max(SETTLE),
            Ok(Err(error)) => warn!("{} are not kept for a start without the server: {error}", shared.name),
            Err(error) => warn!("{error:#}"),
        }
        if is_last {
            return;
        }
    }
}

impl<T: Entry> Shared<T> {
    fn save(&self) -> std::io::Result<u64> {
        let entries: Vec<_> =
            self.entries.lock().iter().map(|(key, value)| Line { key: key.clone(), value: value.clone() }).collect();
        self.vault.save(self.name, &lines::write("", &entries))
    }
}
