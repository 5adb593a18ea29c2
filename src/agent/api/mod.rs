//! The kubelet's HTTPS API (upstream's port 10250): pods, logs, exec, attach, port-forward. Who may is decided by the
//! API server (TokenReview, SubjectAccessReview), so that one policy holds everywhere.

mod access;
mod exec;
mod logs;
mod portforward;

pub use access::Access;

use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::http::status_response;
use crate::wire::query::Query;
use async_trait::async_trait;
use axum::body::Body;
use futures::FutureExt;
use http::{Method, Request, Response};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

/// One container as the streams need it.
#[derive(Clone, Debug)]
pub struct Container {
    /// CRI id.
    pub id: String,
    pub running: bool,
    /// Its log file (`…/<n>.log`).
    pub log: PathBuf,
}

/// What a stream asks of CRI.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// What this API needs from the agent.
#[async_trait]
pub trait Pods: Send + Sync {
    /// The pods of this node as a `v1.PodList`.
    fn list(&self) -> serde_json::Value;

    /// A container by name (empty: the pod's only or default one); `previous` the one before the last restart.
    /// NotFound and BadRequest as upstream words them.
    async fn container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<Container>;

    /// URL of CRI's streaming server for an exec.
    async fn exec_url(&self, id: &str, command: &[String], streams: Streams) -> Result<String>;

    async fn attach_url(&self, id: &str, streams: Streams) -> Result<String>;

    /// Network namespace of a running pod; None: the host's own.
    async fn network_namespace(&self, namespace: &str, pod: &str) -> Result<Option<PathBuf>>;

    /// Whether a container still runs (a followed log ends with it).
    async fn is_running(&self, id: &str) -> bool;

    /// `stats/summary` document.
    async fn stats(&self) -> Result<serde_json::Value>;
}

/// The API as one function for the listener.
pub struct Server {
    pods: Arc<dyn Pods>,
    access: Access,
    group: Group,
}

impl Server {
    pub fn new(pods: Arc<dyn Pods>, access: Access, group: Group) -> Arc<Self> {
        Arc::new(Server { pods, access, group })
    }

    /// Answer one request; errors and panics become `Status` answers.
    pub async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        match AssertUnwindSafe(self.serve(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => status_response(&status),
            Err(_) => status_response(&Status::internal("a panic; see the agent's log")),
        }
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if matches!(parts.as_slice(), ["healthz"]) {
            return Ok(Response::new(Body::from("ok")));
        }
        self.access.check(&request).await?;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match (parts.as_slice(), request.method()) {
            (["pods"], &Method::GET) => json(&self.pods.list()),
            (["stats", "summary"], &Method::GET) => json(&self.pods.stats().await?),
            (["containerLogs", namespace, pod, container], &Method::GET) => {
                let options = logs::Options::parse(&query)?;
                let found = self.pods.container(namespace, pod, container, options.previous).await?;
                logs::serve(self.pods.clone(), found, options, &self.group).await
            }
            (["exec", namespace, pod, container], _) => {
                let found = self.running(namespace, pod, container).await?;
                let streams = exec::streams(&query)?;
                let url = self.pods.exec_url(&found.id, &command(&query), streams).await?;
                exec::serve(request, url, streams, &self.group).await
            }
            (["attach", namespace, pod, container], _) => {
                let found = self.running(namespace, pod, container).await?;
                let streams = exec::streams(&query)?;
                let url = self.pods.attach_url(&found.id, streams).await?;
                exec::serve(request, url, streams, &self.group).await
            }
            (["portForward", namespace, pod], _) => {
                let target = self.pods.network_namespace(namespace, pod).await?;
                portforward::serve(request, target, &query, &self.group).await
            }
            _ => Err(Status::no_such_path()),
        }
    }

    async fn running(&self, namespace: &str, pod: &str, container: &str) -> Result<Container> {
        let found = self.pods.container(namespace, pod, container, false).await?;
        if found.running {
            return Ok(found);
        }
        Err(Status::bad_request(format!("container {container} of pod {namespace}/{pod} is not running")))
    }
}

fn json(value: &serde_json::Value) -> Result<Response<Body>> {
    let mut response = Response::new(Body::from(value.to_string()));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn command(query: &Query) -> Vec<String> {
    query.all("command").map(str::to_owned).collect()
}

/// `1` and `true` are true, as upstream's kubelet reads its parameters.
fn is(query: &Query, name: &str) -> bool {
    matches!(query.get(name), "1" | "true")
}
