//! Watches and logs over WebSocket, for clients that cannot read a streamed body (browsers): each watch event is one
//! message, log bytes are messages of any length (k8s.io/streaming `wsstream`, apiserver `HandleWS`).

use super::{Api, Incoming};
use crate::status::{Result, Status};
use crate::wire::{upgrade, websocket};
use axum::body::Body;
use base64::Engine;
use bytes::{Buf, Bytes};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, header};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::Message;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
/// Bytes before each protobuf event of a streamed watch: its length.
const LENGTH_BYTES: usize = 4;

/// How an answer's body becomes messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// One JSON event a line.
    Lines,
    /// One event after its length.
    Lengths,
    /// Bytes as they come.
    Bytes,
    /// Bytes as they come, in base64.
    Base64,
}

/// Answer a long-running request, over a WebSocket if it asks for one.
pub async fn route(api: &Arc<Api>, mut incoming: Incoming) -> Result<Response<Body>> {
    let log = incoming.info.subresource == "log";
    let readable = log || incoming.info.verb == "watch";
    if !readable || !upgrade::asks_for(&incoming.request, "websocket") {
        return api.route(incoming).await;
    }
    let group = api.group().ok_or_else(|| Status::unavailable("this server is not up yet"))?.clone();
    let protocol = protocol(&incoming.request, log)?;
    let accepted = websocket::accept(&incoming.request, &protocol)
        .ok_or_else(|| Status::bad_request("unable to upgrade: no Sec-WebSocket-Key"))?;
    let upgraded = hyper::upgrade::on(&mut incoming.request);
    plain(incoming.request.headers_mut());
    let answer = api.route(incoming).await?;
    if !answer.status().is_success() {
        return Ok(answer);
    }
    let framing = framing(answer.headers(), log, &protocol);
    group.spawn("websocket", async move {
        if let Ok(upgraded) = upgraded.await {
            let socket = websocket::server(TokioIo::new(upgraded)).await;
            let (sink, source) = socket.split();
            // The client going away ends it as well as the body's end.
            tokio::select! {
                () = send(answer.into_body(), framing, sink) => {}
                () = ignore(source) => {}
            }
        }
    });
    Ok(accepted)
}

/// The subprotocol to answer with. Logs have two; a watch has none and accepts any.
fn protocol(request: &Request<Body>, log: bool) -> Result<String> {
    if websocket::offers_none(request) {
        return Ok(String::new());
    }
    if log {
        let chosen = websocket::negotiate(request, &[BINARY, BASE64]);
        let none = || Status::bad_request(format!("unable to upgrade: none of {BINARY}, {BASE64} is offered"));
        return chosen.map(str::to_owned).ok_or_else(none);
    }
    let offered = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok());
    Ok(offered.and_then(|v| v.split(',').next()).unwrap_or_default().trim().to_owned())
}

/// Make the request an ordinary one.
fn plain(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION] {
        headers.remove(name);
    }
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    // The messages carry the body's bytes, so they must be the events themselves.
    headers.remove(header::ACCEPT_ENCODING);
}

fn framing(answer: &HeaderMap, log: bool, protocol: &str) -> Framing {
    let json = answer.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    match (log, json) {
        (true, _) if protocol == BASE64 => Framing::Base64,
        (true, _) => Framing::Bytes,
        (false, true) => Framing::Lines,
        (false, false) => Framing::Lengths,
    }
}

/// The body as messages, then the close.
async fn send(body: Body, framing: Framing, mut sink: SplitSink<websocket::Socket, Message>) {
    let mut chunks = body.into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        for message in messages(chunk, framing) {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    }
    websocket::close(&mut sink).await;
}

/// A chunk always ends where an event ends: the watch writes them so.
fn messages(mut chunk: Bytes, framing: Framing) -> Vec<Message> {
    match framing {
        Framing::Bytes => vec![Message::Binary(chunk)],
        Framing::Base64 => vec![Message::text(base64::engine::general_purpose::STANDARD.encode(chunk))],
        Framing::Lines => {
            let lines = chunk.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| Message::text(String::from_utf8_lossy(line).into_owned())).collect()
        }
        Framing::Lengths => {
            let mut out = Vec::new();
            while chunk.len() >= LENGTH_BYTES {
                let length = (chunk.get_u32() as usize).min(chunk.len());
                out.push(Message::Binary(chunk.split_to(length)));
            }
            out
        }
    }
}

/// Read until the client has gone; it has nothing to say.
async fn ignore(mut source: SplitStream<websocket::Socket>) {
    while let Some(Ok(message)) = StreamExt::next(&mut source).await {
        if message.is_close() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_messages() {
        let lines = messages(Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n"), Framing::Lines);
        assert_eq!(lines, [Message::text("{\"a\":1}"), Message::text("{\"b\":2}")]);
        let lengths = messages(Bytes::from_static(b"\0\0\0\x02ab\0\0\0\x01c"), Framing::Lengths);
        assert_eq!(lengths, [Message::binary(&b"ab"[..]), Message::binary(&b"c"[..])]);
        let cut = messages(Bytes::from_static(b"\0\0\0\x09ab"), Framing::Lengths);
        assert_eq!(cut, [Message::binary(&b"ab"[..])]);
    }
}
