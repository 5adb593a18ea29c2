//! The kube client: one type for everyone, over one of two transports (DESIGN section 2).
//!
//! In the server's process, requests go to the API server as function calls with an identity ([`local`]); elsewhere
//! over HTTPS ([`https`]). Callers cannot tell the difference.

mod elsewhere;
mod https;
mod line;

pub use line::Line;

pub use https::{
    Speaks, Target, TokenSource, Trust, cluster_of, connect, etcd_tls, followed, protocols, tls, unverified_config,
    with_token,
};

use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::convert::Infallible;
use std::sync::Arc;

/// The API server as a function; `server::api::Api` gives one to each in-process component, with its identity bound.
pub type Handler = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A client whose requests are calls of `handler`. Needs a running tokio runtime.
pub fn local(handler: Handler) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = handler(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    kube::Client::new(service, "default")
}

/// A client of the API server that a kubeconfig file names (client certificates or tokens, our CA). Needs a running
/// tokio runtime.
pub fn https(kubeconfig: &std::path::Path) -> anyhow::Result<kube::Client> {
    https::client(kubeconfig)
}

/// The line beneath such a client, for kedge's own server. Needs a running tokio runtime.
pub fn line(kubeconfig: &std::path::Path) -> anyhow::Result<Line> {
    https::line(kubeconfig)
}
