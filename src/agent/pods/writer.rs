//! A pod's status on its way to the API: one write at a time, the latest wins, failures are tried again.

use super::status_patch;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use std::time::Duration;

const RETRY: Duration = Duration::from_secs(1);
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

type Answer = Result<Pod, kube::Error>;

pub struct StatusWriter {
    api: Api<Pod>,
    name: String,
    uid: String,
    /// What the API has, as far as known, and its version.
    base: PodStatus,
    revision: u64,
    wanted: Option<PodStatus>,
    write: Option<BoxFuture<'static, Result<Answer, tokio::time::error::Elapsed>>>,
    pause: Option<BoxFuture<'static, ()>>,
    /// The last patch that the API took. The same again would do nothing: it has its own idea of some field.
    taken: Option<serde_json::Value>,
    writing: Option<serde_json::Value>,
    /// The object is gone: nothing can be written any more.
    gone: bool,
}

impl StatusWriter {
    pub fn new(client: Client, pod: &Pod) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        StatusWriter {
            api: Api::namespaced(client, namespace),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            base: pod.status.clone().unwrap_or_default(),
            revision: revision(pod),
            wanted: None,
            write: None,
            pause: None,
            taken: None,
            writing: None,
            gone: false,
        }
    }

    /// The status that the API has.
    pub fn base(&self) -> &PodStatus {
        &self.base
    }

    /// A version of the object from a watch; older ones than our own last write are of no use.
    pub fn saw(&mut self, pod: &Pod) {
        let revision = revision(pod);
        if revision >= self.revision {
            if revision > self.revision {
                self.taken = None;
            }
            self.revision = revision;
            self.base = pod.status.clone().unwrap_or_default();
        }
    }

    /// The status should be this.
    pub fn want(&mut self, status: PodStatus) {
        self.wanted = Some(status);
        self.begin();
    }

    /// Nothing waits to be written.
    pub fn is_settled(&self) -> bool {
        self.gone || (self.write.is_none() && self.pause.is_none() && self.patch().is_none())
    }

    fn patch(&self) -> Option<serde_json::Value> {
        let patch = status_patch::between(&self.base, self.wanted.as_ref()?, &self.uid)?;
        (self.taken.as_ref() != Some(&patch)).then_some(patch)
    }

    fn begin(&mut self) {
        if self.gone || self.write.is_some() || self.pause.is_some() {
            return;
        }
        let Some(patch) = self.patch() else { return };
        let (api, name) = (self.api.clone(), self.name.clone());
        self.writing = Some(patch.clone());
        let write = async move {
            let (parameters, patch) = (PatchParams::default(), Patch::Strategic(patch));
            let write = api.patch_status(&name, &parameters, &patch);
            tokio::time::timeout(WRITE_TIMEOUT, write).await
        };
        self.write = Some(write.boxed());
    }

    /// Move the write on; resolves when something has changed, never when there is nothing to do.
    pub async fn progress(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.await;
            self.pause = None;
            self.begin();
            return;
        }
        let Some(write) = &mut self.write else { return std::future::pending().await };
        let answer = write.await;
        self.write = None;
        match answer {
            Ok(Ok(pod)) => {
                self.saw(&pod);
                self.taken = self.writing.take();
            }
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => self.gone = true,
            // Another pod of the same name: ours is gone.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() && status.message.contains("uid") => {
                self.gone = true
            }
            Ok(Err(error)) => self.retry(&error.to_string()),
            Err(_) => self.retry("no answer in time"),
        }
        self.begin();
    }

    fn retry(&mut self, why: &str) {
        tracing::debug!(pod = self.name, "writing the status: {why}");
        self.pause = Some(tokio::time::sleep(RETRY).boxed());
    }
}

fn revision(pod: &Pod) -> u64 {
    crate::cache::revision(pod.metadata.resource_version.as_deref())
}
