//! HTTP/1.1 upgrades: asking for one as a client, answering one as a server, and joining two byte streams.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection after its upgrade.
pub type Io = TokioIo<Upgraded>;

/// Whether a request asks for an upgrade to this protocol (`websocket`, `SPDY/3.1`; RFC 9110 section 7.8).
pub fn asks_for<B>(request: &Request<B>, protocol: &str) -> bool {
    let has = |name: HeaderName, token: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, protocol)
}

/// Whether a request asks for any upgrade.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    asks_for(request, "websocket") || asks_for(request, "SPDY/3.1")
}

/// The answer that accepts an upgrade.
pub fn switching(protocol: &str, more: &[(&'static str, String)]) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        headers.insert(header::UPGRADE, protocol);
    }
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    response
}

/// What came back when we asked for an upgrade.
pub enum Answer {
    /// The other side switched: its answer's headers, and the connection.
    Switched(HeaderMap, Box<Io>),
    /// It refused, or answered without an upgrade.
    Plain(Response<Incoming>),
}

/// Send one HTTP/1.1 request over a fresh connection. `drive` starts the task that drives the connection.
pub async fn request<IO>(io: IO, request: Request<Body>, group: &crate::task::Group) -> Result<Answer, hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    group.spawn("http-connection", async move {
        // Its errors reach the caller through the request or the stream.
        let _ = connection.with_upgrades().await;
    });
    let mut response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Plain(response));
    }
    let upgraded = hyper::upgrade::on(&mut response).await?;
    Ok(Answer::Switched(response.headers().clone(), Box::new(TokioIo::new(upgraded))))
}

/// Let a client that asked for an upgrade have it: answer with the other side's headers, then join the two.
pub fn relay<IO>(mut request: Request<Body>, headers: HeaderMap, io: IO, group: &crate::task::Group) -> Response<Body>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgraded = hyper::upgrade::on(&mut request);
    group.spawn("stream", async move {
        if let Ok(upgraded) = upgraded.await {
            // Either side going away is how such streams end.
            let _ = join(TokioIo::new(upgraded), io).await;
        }
    });
    let mut response = switching("", &[]);
    *response.headers_mut() = headers;
    response
}

/// Copy both ways until both sides have finished.
pub async fn join<A, B>(mut a: A, mut b: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional(&mut a, &mut b).await.map(drop)
}
