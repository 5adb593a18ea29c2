//! Making and deleting pods for an owner, with the events users know.

use super::apply;
use super::writes::Writes;
use crate::cache::{Cached, Key};
use crate::events::{Normal, Recorder, Warning};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};

/// Why pods could not be made or deleted: the reason is also that of the event.
#[derive(Debug)]
pub struct Failed {
    pub reason: &'static str,
    pub message: String,
}

impl From<Failed> for anyhow::Error {
    fn from(failed: Failed) -> Self {
        anyhow::anyhow!("{}", failed.message)
    }
}

pub struct PodControl {
    client: Client,
    recorder: Recorder,
    /// Pods made, until the cache shows them.
    pub writes: Writes,
}

impl PodControl {
    pub fn new(context: &super::Context) -> Self {
        let (client, recorder) = (context.client.clone(), context.recorder.clone());
        PodControl { client, recorder, writes: Writes::default() }
    }

    /// Make pods in growing batches (1, 2, 4, …), so that what fails for all fails few times.
    pub async fn create_all<O: Cached>(&self, key: &Key, owner: &O, pods: &[Pod]) -> Result<(), Failed> {
        let (mut rest, mut batch) = (pods, 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let attempts = now.iter().map(|pod| self.create(key, owner, pod));
            futures::future::join_all(attempts).await.into_iter().collect::<Result<(), _>>()?;
            (rest, batch) = (later, batch * 2);
        }
        Ok(())
    }

    pub async fn create<O: Cached>(&self, key: &Key, owner: &O, pod: &Pod) -> Result<(), Failed> {
        let api: Api<Pod> = apply::api(&self.client, &key.namespace);
        match api.create(&PostParams::default(), pod).await {
            Ok(made) => {
                self.writes.record(key, &made);
                let message = format!("Created pod: {}", made.metadata.name.as_deref().unwrap_or(""));
                self.recorder.event(&owner.object_ref(&()), Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if apply::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = apply::message(&error);
                let told = format!("Error creating: {message}");
                self.recorder.event(&owner.object_ref(&()), Warning, "FailedCreate", told);
                Err(Failed { reason: "FailedCreate", message })
            }
        }
    }

    pub async fn delete_all<'a, O: Cached>(
        &self,
        key: &Key,
        owner: &O,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> Result<(), Failed> {
        let attempts = pods.into_iter().map(|pod| self.delete(key, owner, pod));
        futures::future::join_all(attempts).await.into_iter().collect()
    }

    pub async fn delete<O: Cached>(&self, key: &Key, owner: &O, pod: &Pod) -> Result<(), Failed> {
        let api: Api<Pod> = apply::api(&self.client, &key.namespace);
        let name = pod.metadata.name.as_deref().unwrap_or("");
        match apply::delete(&api, pod).await {
            Ok(()) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(&owner.object_ref(&()), Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // The name belongs to another pod by now: ours is gone.
            Err(error) if apply::is_conflict(&error) => Ok(()),
            Err(error) => {
                let message = apply::message(&error);
                let told = format!("Error deleting: {message}");
                self.recorder.event(&owner.object_ref(&()), Warning, "FailedDelete", told);
                Err(Failed { reason: "FailedDelete", message })
            }
        }
    }
}
