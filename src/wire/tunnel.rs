//! The server's way back to an agent, over the agent's own connection.
//!
//! An agent behind NAT can only call out. It already has one HTTP/2 connection to the server for its API traffic, and
//! everything here rides on that: no second connection, no second framing, no second flow control. Where several servers
//! share a store, it has one more connection to each of the others, for this alone.
//!
//! - The agent POSTs to [`PATH`]. The answer's body stays open; on it the server asks for streams, one JSON line each
//!   ([`Open`]).
//! - For each the agent dials the target and then POSTs to `PATH/<id>`: its body carries the target's bytes, the
//!   answer's body the bytes for the target. It costs one round trip, which dialing through any tunnel does.
//! - If it cannot or will not dial, it DELETEs `PATH/<id>` with a [`Refusal`].
//!
//! Every one of these requests is authenticated and authorized like any other (`system:node:<name>`). Each stream has
//! HTTP/2's window of its own, and the connection's window holds all of them full at once, so that a stalled stream
//! holds up nobody else. HTTP/2's pings find a dead link.

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

/// Where agents ask for a tunnel, and below it for each stream.
pub const PATH: &str = "/v1-kedge/tunnel";

/// Header of the answer to an agent that asks for a tunnel: the server's address among the endpoints of Service
/// `default/kubernetes`. An agent has a tunnel to each of these.
pub const SERVER: &str = "kedge-server";

/// Streams of one agent at once, opened by the server. When full, dialing waits and then fails.
pub const MAX_STREAMS: usize = 128;

/// HTTP/2 window of one stream: what a reader that has stalled can make us hold.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// HTTP/2 window of an agent's connection: all of its streams stalled at once, and room for the others.
pub const CONNECTION_WINDOW_BYTES: u32 = (MAX_STREAMS as u32 + 4) * STREAM_WINDOW_BYTES;
/// Streams of an agent's HTTP/2 connection at once: the tunnel's, its watches, its requests.
pub const MAX_HTTP_STREAMS: u32 = 512;

/// Pieces of one stream between its writer and HTTP/2; when full, the writer waits.
const QUEUE_PIECES: usize = 4;
/// Longest piece.
const PIECE_BYTES: usize = 16 << 10;

/// Where a stream ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// The agent's own kubelet API.
    Kubelet,
    /// An address on the agent's network.
    Tcp { host: IpAddr, port: u16 },
}

/// The server asks for a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Names the stream; only the server and this agent know it.
    pub id: String,
    pub target: Target,
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The address is none of this agent's.
    pub foreign: bool,
    pub message: String,
}

/// A byte stream made of the body of a request and the body of its answer.
pub struct BodyStream {
    read: Pin<Box<dyn AsyncRead + Send>>,
    write: PollSender<Piece>,
    ended: bool,
    slot: Option<OwnedSemaphorePermit>,
}

/// What is written, and its orderly end: a stream that just stops was cut.
type Piece = Option<Bytes>;

impl BodyStream {
    /// A stream that reads `body`, and the body that carries what is written to it.
    pub fn new(body: Body) -> (Self, Body) {
        let (write, pieces) = outgoing();
        (Self::of(body, write), pieces)
    }

    /// The writing half and its body, before there is anything to read.
    pub fn half() -> (Half, Body) {
        let (write, pieces) = outgoing();
        (Half(write), pieces)
    }

    fn of(body: Body, write: PollSender<Piece>) -> Self {
        let pieces = body.into_data_stream().map(|piece| piece.map_err(io::Error::other));
        BodyStream { read: Box::pin(StreamReader::new(pieces)), write, ended: false, slot: None }
    }

    /// The stream counts as one of its tunnel's for as long as it is open.
    pub fn holding(mut self, slot: OwnedSemaphorePermit) -> Self {
        self.slot = Some(slot);
        self
    }
}

/// A stream that can be written only: its reading half comes with the answer.
pub struct Half(PollSender<Piece>);

impl Half {
    /// Whole with the body to read.
    pub fn with(self, body: Body) -> BodyStream {
        BodyStream::of(body, self.0)
    }
}

fn outgoing() -> (PollSender<Piece>, Body) {
    let (sender, receiver) = mpsc::channel::<Piece>(QUEUE_PIECES);
    let pieces = futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(piece)) => Some((Ok(piece), Some(receiver))),
            Some(None) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None)),
        }
    });
    (PollSender::new(sender), Body::from_stream(pieces))
}

impl AsyncRead for BodyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.read.as_mut().poll_read(cx, buf)
    }
}

fn gone<E>(_: E) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncWrite for BodyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(gone(())));
        }
        ready!(self.write.poll_reserve(cx)).map_err(gone)?;
        let piece = &data[..data.len().min(PIECE_BYTES)];
        self.write.send_item(Some(Bytes::copy_from_slice(piece))).map_err(gone)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.write.poll_reserve(cx)).map_err(gone)?;
            self.write.send_item(None).map_err(gone)?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_ways_with_half_close() {
        let (half, there) = BodyStream::half();
        let (mut server, back) = BodyStream::new(there);
        let mut agent = half.with(back);
        agent.write_all(b"hello").await.unwrap();
        agent.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        // More than the queue holds: both sides at work.
        let data = vec![7; 100_000];
        let mut seen = Vec::new();
        let write = async {
            server.write_all(&data).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(write, agent.read_to_end(&mut seen));
        assert_eq!((read.unwrap(), seen.len()), (100_000, 100_000));
    }

    #[tokio::test]
    async fn a_cut_is_not_an_end() {
        let (stream, body) = BodyStream::new(Body::empty());
        drop(stream);
        assert!(body.collect().await.is_err());
        let (mut stream, body) = BodyStream::new(Body::empty());
        stream.write_all(b"x").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
    }

    #[test]
    fn messages() {
        let open = Open { id: "a".into(), target: Target::Tcp { host: [10, 0, 0, 1].into(), port: 80 } };
        let text = serde_json::to_string(&open).unwrap();
        assert_eq!(text, r#"{"id":"a","target":{"tcp":{"host":"10.0.0.1","port":80}}}"#);
        assert_eq!(serde_json::from_str::<Open>(&text).unwrap(), open);
        let kubelet = serde_json::from_str::<Open>(r#"{"id":"a","target":"kubelet"}"#).unwrap();
        assert_eq!(kubelet.target, Target::Kubelet);
    }
}
