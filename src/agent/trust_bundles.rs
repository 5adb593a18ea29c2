//! ClusterTrustBundles for projected volumes (KEP-3257): all of them are watched from the first volume that wants one on,
//! because a volume may select them by signer and labels.

use crate::cache::{Cache, Caches};
use crate::selector::LabelSelector;
use crate::task::Group;
use anyhow::{Context, bail};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a volume waits for the first list; then it fails and is tried again.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

pub struct TrustBundles {
    caches: Arc<Caches>,
    group: Group,
    started: OnceLock<Cache<ClusterTrustBundle>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    changes: AtomicU64,
    /// Pods to wake when any of them changes.
    wakes: Mutex<Vec<Weak<Notify>>>,
}

impl TrustBundles {
    pub fn new(caches: Arc<Caches>, group: Group) -> Self {
        TrustBundles { caches, group, started: OnceLock::new(), state: Arc::default() }
    }

    /// Rises with every change of any of them.
    pub fn changes(&self) -> u64 {
        self.state.changes.load(Ordering::Relaxed)
    }

    /// Wake this pod when any of them changes.
    pub fn wake(&self, wake: &Arc<Notify>) {
        let mut wakes = self.state.wakes.lock();
        wakes.retain(|w| w.strong_count() > 0);
        wakes.push(Arc::downgrade(wake));
    }

    /// The trust anchors that a projection selects, each once, as PEM. Without any and not optional: an error.
    pub async fn anchors(&self, wanted: &ClusterTrustBundleProjection) -> anyhow::Result<String> {
        let cache = self.started.get_or_init(|| self.start());
        let synced = tokio::time::timeout(FIRST_ANSWER, cache.synced()).await;
        synced.ok().context("ClusterTrustBundle informer has not yet synced")?;
        let found = selected(&cache.list(), wanted)?;
        if found.is_empty() && wanted.optional != Some(true) {
            match &wanted.name {
                Some(name) => bail!("clustertrustbundle.certificates.k8s.io \"{name}\" not found"),
                None => bail!("combination of signerName and labelSelector matched zero ClusterTrustBundles"),
            }
        }
        Ok(normalized(&found))
    }

    fn start(&self) -> Cache<ClusterTrustBundle> {
        let cache = self.caches.of::<ClusterTrustBundle>();
        let mut changes = cache.subscribe();
        let state = Arc::downgrade(&self.state);
        self.group.spawn("trust bundles", async move {
            while changes.next().await.is_some() {
                let Some(state) = state.upgrade() else { return };
                state.changes.fetch_add(1, Ordering::Relaxed);
                state.wakes.lock().retain(|wake| wake.upgrade().map(|wake| wake.notify_one()).is_some());
            }
        });
        cache
    }
}

/// By name, or by signer and labels; a missing selector selects nothing, an empty one everything.
fn selected(
    all: &[Arc<ClusterTrustBundle>],
    wanted: &ClusterTrustBundleProjection,
) -> anyhow::Result<Vec<Arc<ClusterTrustBundle>>> {
    if let Some(name) = &wanted.name {
        return Ok(all.iter().filter(|b| b.metadata.name.as_ref() == Some(name)).cloned().collect());
    }
    let selector = match &wanted.label_selector {
        None => LabelSelector::nothing(),
        Some(given) => {
            let tree = serde_json::to_value(given).context("label selector")?;
            LabelSelector::from_object(Some(&tree)).map_err(|e| anyhow::anyhow!("while parsing label selector: {e}"))?
        }
    };
    let fits = |b: &&Arc<ClusterTrustBundle>| {
        b.spec.signer_name == wanted.signer_name && selector.matches_map(b.metadata.labels.as_ref())
    };
    Ok(all.iter().filter(fits).cloned().collect())
}

/// Every certificate once, in a stable order, without what stands between the blocks.
fn normalized(bundles: &[Arc<ClusterTrustBundle>]) -> String {
    let blocks = bundles.iter().flat_map(|b| CertificateDer::pem_slice_iter(b.spec.trust_bundle.as_bytes()));
    let anchors: BTreeSet<Vec<u8>> = blocks.filter_map(Result::ok).map(|der| der.to_vec()).collect();
    anchors.iter().map(|der| crate::pki::pem("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bundle(name: &str, signer: Option<&str>, alive: &str, pem: &str) -> Arc<ClusterTrustBundle> {
        let object = json!({"metadata": {"name": name, "labels": {"alive": alive}},
            "spec": {"signerName": signer, "trustBundle": pem}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn block(text: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    fn wanted(projection: serde_json::Value) -> ClusterTrustBundleProjection {
        serde_json::from_value(projection).unwrap()
    }

    #[test]
    fn anchors_are_selected_and_appear_once() {
        let all = [
            bundle("a", Some("s/1"), "true", &format!("words\n{}{}", block("QUFB"), block("QkJC"))),
            bundle("b", Some("s/1"), "false", &block("QUFB")),
            bundle("c", None, "true", &block("Q0ND")),
        ];
        let text = |projection| normalized(&selected(&all, &wanted(projection)).unwrap());
        assert_eq!(text(json!({"path": "p", "name": "c"})), block("Q0ND"));
        assert_eq!(
            text(json!({"path": "p", "signerName": "s/1", "labelSelector": {}})),
            block("QUFB") + &block("QkJC")
        );
        let dead = json!({"path": "p", "signerName": "s/1", "labelSelector": {"matchLabels": {"alive": "false"}}});
        assert_eq!(text(dead), block("QUFB"));
        assert_eq!(text(json!({"path": "p", "signerName": "s/1"})), "");
    }
}
