//! The tunnel's paths: nodes make and answer them, administrators look.

use super::Tunnels;
use crate::server::api::Endpoint;
use crate::server::authz::node::node_of;
use crate::server::request::UserInfo;
use crate::status::{Result, Status};
use crate::wire::http::status_response;
use crate::wire::listener::Peer;
use crate::wire::tunnel::{BodyStream, PATH, Refusal, SERVER};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest refusal that is read.
const MAX_REFUSAL_BYTES: usize = 16 << 10;

/// What serves [`PATH`]. `own`: where this server is to be reached.
pub fn endpoint(tunnels: Arc<Tunnels>, own: SocketAddr) -> Endpoint {
    Arc::new(move |api, request| {
        let tunnels = tunnels.clone();
        Box::pin(async move {
            let served = serve(tunnels, own, api.stop_token(), request).await;
            served.unwrap_or_else(|status| status_response(&status))
        })
    })
}

async fn serve(
    tunnels: Arc<Tunnels>,
    own: SocketAddr,
    stop: CancellationToken,
    request: Request<Body>,
) -> Result<Response<Body>> {
    let rest = request.uri().path().strip_prefix(PATH).unwrap_or_default().trim_start_matches('/').to_owned();
    if rest.is_empty() && *request.method() == Method::GET {
        return json(&json!({"tunnels": tunnels.states()}));
    }
    let user = request.extensions().get::<Arc<UserInfo>>().cloned();
    let node = user.as_deref().and_then(node_of).filter(|node| !node.is_empty()).map(str::to_owned);
    let node = node.ok_or_else(|| Status::forbidden("", "nodes", "", "only nodes have tunnels"))?;
    let gone = || Status::not_found("", "streams", &rest);
    match (request.method(), rest.as_str()) {
        (&Method::POST, "") => {
            let peer = request.extensions().get::<Peer>().map(|p| p.0);
            tracing::info!(node, peer = peer.map(|p| p.to_string()), "an agent opened its tunnel");
            let (generation, asked) = tunnels.register(&node, peer);
            let mut response = Response::new(asks(Registration { tunnels, node, generation }, asked, stop));
            let own = HeaderValue::try_from(own.to_string()).map_err(Status::internal)?;
            response.headers_mut().insert(SERVER, own);
            Ok(response)
        }
        (&Method::POST, id) => {
            let answer = tunnels.claim(&node, id).ok_or_else(gone)?;
            let (stream, body) = BodyStream::new(request.into_body());
            answer.send(Ok(stream)).map_err(|_| gone())?;
            Ok(Response::new(body))
        }
        (&Method::DELETE, id) => {
            let answer = tunnels.claim(&node, id).ok_or_else(gone)?;
            let body = Limited::new(request.into_body(), MAX_REFUSAL_BYTES).collect().await;
            let body = body.map_err(|e| Status::bad_request(e.to_string()))?.to_bytes();
            let refusal: Refusal = serde_json::from_slice(&body).map_err(|e| Status::bad_request(e.to_string()))?;
            // Who gave up in the meantime needs no reason.
            let _ = answer.send(Err(refusal));
            json(&json!({}))
        }
        (method, _) => Err(Status::method_not_allowed("", "tunnels", method.as_str())),
    }
}

fn json(value: &serde_json::Value) -> Result<Response<Body>> {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The body on which the server asks for streams. It ends with the server; its registration ends with it.
fn asks(registration: Registration, asked: mpsc::Receiver<Bytes>, stop: CancellationToken) -> Body {
    let state = (registration, asked, stop);
    Body::from_stream(futures::stream::unfold(state, |(registration, mut asked, stop)| async move {
        let line = tokio::select! {
            () = stop.cancelled() => return None,
            line = asked.recv() => line?,
        };
        Some((Ok::<_, Infallible>(line), (registration, asked, stop)))
    }))
}

/// Dropped with the connection.
struct Registration {
    tunnels: Arc<Tunnels>,
    node: String,
    generation: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        tracing::info!(node = self.node, "a tunnel has ended");
        self.tunnels.unregister(&self.node, self.generation);
    }
}
