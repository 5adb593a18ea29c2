//! The kubelet's HTTPS API (upstream's port 10250): pods, logs, exec, attach, port-forward. Who may is decided by the
//! API server (TokenReview, SubjectAccessReview), so that one policy holds everywhere.

mod access;
mod exec;
mod figures;
mod files;
mod logs;
mod pods;
mod portforward;

use access::{Access, Caller};

use super::context::Agent;
use super::runtime::Streams;
use super::stats::{Rates, Snapshot};
use crate::client::Handler;
use crate::pki::server_config_of;
use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::http::status_response;
use crate::wire::listener::Listener;
use crate::wire::query::Query;
use anyhow::Context;
use async_trait::async_trait;
use axum::body::Body;
use futures::FutureExt;
use http::{Method, Request, Response};
use std::net::{Ipv4Addr, SocketAddr};
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

    /// Network namespace of a running pod.
    async fn network_namespace(&self, namespace: &str, pod: &str) -> Result<PathBuf>;

    /// What node and pods use now.
    async fn snapshot(&self) -> anyhow::Result<Snapshot>;

    /// What `/configz` shows.
    fn config(&self) -> serde_json::Value;

    /// Whether a container still runs (a followed log ends with it).
    async fn is_running(&self, id: &str) -> bool;
}

/// The API as one function for the listener.
pub struct Server {
    pods: Arc<dyn Pods>,
    access: Access,
    rates: Rates,
    group: Group,
}

impl Server {
    pub fn new(pods: Arc<dyn Pods>, access: Access, group: Group) -> Arc<Self> {
        Arc::new(Server { pods, access, rates: Rates::default(), group })
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
        self.access.check(Caller::of(&request)).await?;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match (parts.as_slice(), request.method()) {
            (["pods"], &Method::GET) => json(&self.pods.list()),
            (["stats", "summary"], &Method::GET) => figures::stats(&*self.pods, &self.rates).await,
            (["metrics"], &Method::GET) => figures::metrics(&*self.pods).await,
            (["metrics", "resource"], &Method::GET) => figures::resources(&*self.pods).await,
            (["configz"], &Method::GET) => json(&self.pods.config()),
            (["logs", rest @ ..], &Method::GET) => files::serve(&rest.join("/")).await,
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

/// Serve the API of this agent until `group` ends.
pub async fn start(agent: Arc<Agent>, group: &Group) -> anyhow::Result<()> {
    let config = &agent.config;
    let tls = server_config_of(config.serving.clone(), &config.client_ca)?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.kubelet_port));
    let listener = Listener::bind(address).await.context("the kubelet's port; choose another with --kubelet-port")?;
    let access = Access::new(agent.client.clone(), &config.node_name);
    let server = Server::new(Arc::new(pods::OfAgent(agent)), access, group.clone());
    let handler: Handler = Arc::new(move |request| Box::pin(server.clone().handle(request)));
    listener.serve(tls, handler, group);
    Ok(())
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
