//! What an agent keeps for a start without the server, besides its caches and sources; each under its pod's uid.

use super::context::Agent;
use super::volumes::token::Token;
use crate::cache::Cache;
use crate::kept::{Book, Vault};
use crate::task::Group;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Renewed tokens are written after this time at the latest: flash is spared, and an older one does as well.
const TOKENS_LAZILY: Duration = Duration::from_secs(600);
const CLAIMS_LAZILY: Duration = Duration::from_secs(10);
/// How often what no pod needs any more is forgotten; long enough for every pod to have asked for what it needs.
const FORGET_EVERY: Duration = Duration::from_secs(900);

pub struct Kept {
    pub tokens: Book<Token>,
    pub claims: Book<PersistentVolumeClaim>,
    pub volumes: Book<PersistentVolume>,
}

impl Kept {
    pub fn new(vault: Option<Arc<Vault>>, group: &Group) -> Self {
        Kept {
            tokens: Book::open(vault.clone(), "tokens", TOKENS_LAZILY, group),
            claims: Book::open(vault.clone(), "persistentvolumeclaims", CLAIMS_LAZILY, group),
            volumes: Book::open(vault, "persistentvolumes", CLAIMS_LAZILY, group),
        }
    }
}

/// Forget what belongs to pods that are gone; only the server knows which are.
pub async fn forget(agent: Arc<Agent>, pods: Cache<Pod>) {
    pods.live().await;
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        let there: HashSet<String> = pods.list().iter().filter_map(|p| p.metadata.uid.clone()).collect();
        let needed = |key: &str| key.split('/').next().is_some_and(|uid| there.contains(uid));
        agent.sources.forget_unused();
        agent.kept.tokens.retain(needed);
        agent.kept.claims.retain(needed);
        agent.kept.volumes.retain(needed);
    }
}
