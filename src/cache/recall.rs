//! Caches outlive the process: what one holds is kept, and fills it when the server does not answer at the start. The
//! first list from the server then tells the differences as changes.

use super::{Cache, Cached, Key};
use crate::kept::{PATIENCE, SETTLE, Vault, lines, pause_after};
use crate::task::Group;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// The name of a cache in the vault.
pub(super) fn name<K: Cached>(field_selector: &str) -> String {
    let plural = K::plural(&());
    let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '=') { c } else { '_' };
    match field_selector {
        "" => plural.into_owned(),
        selector => format!("{plural},{}", selector.chars().map(clean).collect::<String>()),
    }
}

/// Fill the cache if the server does not answer soon; once it does, keep the cache until the group ends.
pub(super) async fn keep<K: Cached>(cache: Cache<K>, vault: Arc<Vault>, name: String, group: Group) {
    tokio::select! {
        answered = tokio::time::timeout(PATIENCE, cache.live()) => if answered.is_err() {
            recall(&cache, vault.clone(), name.clone()).await;
        },
        () = group.cancelled() => return,
    }
    tokio::select! {
        () = cache.live() => {}
        () = group.cancelled() => return,
    }
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = async {
                cache.shared.touched.notified().await;
                tokio::time::sleep(pause.max(SETTLE)).await;
            } => {}
            () = group.cancelled() => {}
        }
        let (saved, vault, name) = (cache.clone(), vault.clone(), name.clone());
        let is_last = group.is_cancelled();
        match Group::blocking(move || save(&saved, &vault, &name)).await {
            Ok(Ok(bytes)) => pause = pause_after(bytes),
            Ok(Err(error)) => {
                warn!("{} are not kept for a start without the server: {error}", K::plural(&()));
                pause = pause_after(u64::MAX);
            }
            Err(error) => warn!("{error:#}"),
        }
        if is_last {
            return;
        }
    }
}

fn save<K: Cached>(cache: &Cache<K>, vault: &Vault, name: &str) -> std::io::Result<u64> {
    let objects = cache.list();
    vault.save(name, &lines::write(&K::kind(&()), objects.iter().map(AsRef::as_ref)))
}

async fn recall<K: Cached>(cache: &Cache<K>, vault: Arc<Vault>, name: String) {
    let load = move || vault.load(&name).map(|content| lines::read::<K>(&K::kind(&()), &content));
    let Ok(Some(objects)) = Group::blocking(load).await else { return };
    let count = objects.len();
    if cache.recall(objects) {
        info!("the server does not answer; starting with {count} {} as last known", K::plural(&()));
    }
}

impl<K: Cached> Cache<K> {
    /// Fill an empty cache. False: the server was faster.
    pub(super) fn recall(&self, objects: impl IntoIterator<Item = K>) -> bool {
        let mut state = self.shared.state.write();
        if self.is_live() {
            return false;
        }
        objects.into_iter().for_each(|object| state.set(Key::of(&object), Some(Arc::new(object))));
        drop(state);
        self.saw(1);
        true
    }
}
