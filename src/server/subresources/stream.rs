//! Streams: logs, exec, attach, port-forward, proxy. Requests arrive here authorized.

use crate::server::api::Incoming;
use crate::server::registry::Call;
use crate::status::{Result, Status};
use axum::body::Body;
use http::Response;

/// Connect a client with a pod, Service or node.
pub async fn connect(call: Call, incoming: Incoming) -> Result<Response<Body>> {
    let _ = call.load(&incoming.info.name).await?;
    Err(Status::unavailable(format!("{} is not available on this server", incoming.info.subresource)))
}
