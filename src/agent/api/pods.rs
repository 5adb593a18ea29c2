//! The agent's pods as this API wants them.

use super::{Container, Pods, figures};
use crate::agent::context::Agent;
use crate::agent::runtime::{LookupError, Streams};
use crate::agent::stats::Snapshot;
use crate::status::{Result, Status};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

pub struct OfAgent(pub Arc<Agent>);

fn status(error: LookupError) -> Status {
    match &error {
        LookupError::NoPod { name, .. } => Status::not_found("", "pods", name),
        _ => Status::bad_request(error.to_string()),
    }
}

#[async_trait]
impl Pods for OfAgent {
    fn list(&self) -> Value {
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.0.pods()})
    }

    async fn container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<Container> {
        let view = self.0.pod(namespace, pod, None).map_err(status)?;
        let files = self.0.log_files(&view, container, previous).map_err(status)?;
        let log = files.last().cloned().unwrap_or_default();
        let found = view.containers.iter().find(|c| log.as_os_str() == c.log_path.as_str());
        let (id, running) = found.map(|c| (c.id.clone(), c.is_running())).unwrap_or_default();
        Ok(Container { id, running, log })
    }

    async fn exec_url(&self, id: &str, command: &[String], streams: Streams) -> Result<String> {
        self.0.exec_url(id, command.to_vec(), streams).await.map_err(Status::internal)
    }

    async fn attach_url(&self, id: &str, streams: Streams) -> Result<String> {
        self.0.attach_url(id, streams).await.map_err(Status::internal)
    }

    async fn network_namespace(&self, namespace: &str, pod: &str) -> Result<PathBuf> {
        let view = self.0.pod(namespace, pod, None).map_err(status)?;
        let found = self.0.network_namespace(&view).await;
        found.ok_or_else(|| Status::bad_request(format!("pod {pod} is not running")))
    }

    async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Snapshot::take(&self.0).await
    }

    fn config(&self) -> Value {
        figures::configz(&self.0.config)
    }

    async fn is_running(&self, id: &str) -> bool {
        self.0.views.all().iter().any(|v| v.containers.iter().any(|c| c.id == id && c.is_running()))
    }
}
