//! WebSocket as Kubernetes uses it: the handshake with subprotocols (RFC 6455), channel messages
//! (`v4/v5.channel.k8s.io`, first byte the channel), and a byte stream inside binary messages (KEP-4006 tunnels).

use super::upgrade::{self, Io};
use axum::body::Body;
use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt, ready};
use http::{Request, Response, header};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Larger messages end the connection; kubectl's are at most 32 KiB.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

pub type Socket = WebSocketStream<Io>;

/// The first of `ours` (in our order of preference) that the client offers.
pub fn negotiate<'a, B>(request: &Request<B>, ours: &[&'a str]) -> Option<&'a str> {
    let offered: Vec<String> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().to_owned())
        .collect();
    ours.iter().find(|o| offered.iter().any(|p| p == *o)).copied()
}

/// Whether the client offers no subprotocol at all: it then gets the oldest form.
pub fn offers_none<B>(request: &Request<B>) -> bool {
    !request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL)
}

/// The 101 answer for a request, or None where its key is missing. RFC 6455 section 4.2.2. An empty protocol stands
/// for a client that offered none.
pub fn accept<B>(request: &Request<B>, protocol: &str) -> Option<Response<Body>> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?;
    let mut text = key.as_bytes().to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let mut more = vec![("sec-websocket-accept", accept)];
    if !protocol.is_empty() {
        more.push(("sec-websocket-protocol", protocol.to_owned()));
    }
    Some(upgrade::switching("websocket", &more))
}

/// The server's side of a socket after the handshake.
pub async fn server(io: Io) -> Socket {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// How channels travel: the number in the first byte of a binary message, or as a digit before base64 in a text message
/// (`base64.channel.k8s.io`, for clients that cannot send bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    Binary,
    Base64,
}

impl Channels {
    /// One channel message.
    pub fn message(self, number: u8, data: &[u8]) -> Message {
        match self {
            Channels::Binary => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.put_u8(number);
                message.extend_from_slice(data);
                Message::Binary(message.freeze())
            }
            Channels::Base64 => {
                let number = char::from(b'0'.saturating_add(number));
                Message::text(format!("{number}{}", base64::engine::general_purpose::STANDARD.encode(data)))
            }
        }
    }

    /// The next channel message as (channel, data); None at the end or after what is no channel message. Pings are
    /// answered by the library.
    pub async fn next<S>(self, socket: &mut S) -> Option<(u8, Bytes)>
    where
        S: Stream<Item = Result<Message, Error>> + Unpin,
    {
        loop {
            let data: Bytes = match socket.next().await? {
                Ok(Message::Binary(data)) => data,
                Ok(Message::Text(text)) => text.into(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => continue,
            };
            if let Some(number) = data.first() {
                return self.decode(*number, data.slice(1..));
            }
        }
    }

    fn decode(self, number: u8, data: Bytes) -> Option<(u8, Bytes)> {
        match self {
            Channels::Binary => Some((number, data)),
            Channels::Base64 => {
                let data = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
                Some((number.checked_sub(b'0')?, data.into()))
            }
        }
    }
}

/// Close in order.
pub async fn close<S>(socket: &mut S)
where
    S: Sink<Message, Error = Error> + Unpin,
{
    // Without a code clients report an abnormal end.
    let frame = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
    let _ = socket.send(Message::Close(Some(frame))).await;
    let _ = socket.close().await;
}

/// A byte stream whose bytes travel in binary messages; message boundaries mean nothing.
pub struct Tunnel {
    socket: Socket,
    left: Bytes,
}

impl Tunnel {
    pub fn new(socket: Socket) -> Self {
        Tunnel { socket, left: Bytes::new() }
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(data))) => self.left = data,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(as_io(error))),
            }
        }
        let n = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(as_io)?;
        let message = Message::Binary(Bytes::copy_from_slice(data));
        self.socket.start_send_unpin(message).map_err(as_io)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(as_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close_unpin(cx).map_err(as_io)
    }
}
