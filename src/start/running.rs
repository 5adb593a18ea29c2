//! What must be done in order at the end.

use crate::agent::shutdown::{self, Pods};
use crate::store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::warn;

/// A server, an agent or a part that runs.
#[derive(Default)]
pub struct Running {
    /// None where there is no server.
    pub(super) store: Option<Arc<dyn Store>>,
    /// None where there is no node.
    pub(super) pods: Option<Pods>,
    pub(super) run_dir: PathBuf,
}

impl Running {
    /// Before anything stops: if the machine stops, pods end in order; if only this program does, they go on.
    pub async fn before_stop(&self) {
        if let Some(pods) = self.pods.as_ref().filter(|_| shutdown::machine_is_stopping(&self.run_dir)) {
            pods.end().await;
        }
    }

    /// Finish the store's writes and release its files.
    pub async fn close(&self) {
        let Some(store) = &self.store else { return };
        if let Err(error) = store.close().await {
            warn!(%error, "the store did not close in order");
        }
    }
}
