//! Exec and attach: the client's WebSocket (`v4`/`v5.channel.k8s.io` and the oldest forms) or SPDY connection to CRI's
//! streaming server.
//!
//! CRI's server speaks SPDY with v4.channel.k8s.io at most (containerd 1.6). A SPDY client is joined with it byte for
//! byte; WebSocket channels are translated, v5's half-close of stdin included.

use super::is;
use crate::agent::runtime::Streams;
use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::query::Query;
use crate::wire::spdy::{Reader, Role, Session, Stream, Writer};
use crate::wire::websocket::Channels;
use crate::wire::{upgrade, websocket};
use axum::body::Body;
use bytes::Bytes;
use futures::stream::{SplitSink, StreamExt};
use futures::{FutureExt, SinkExt};
use http::{HeaderMap, Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte names the channel that the client has finished.
const CLOSE: u8 = 255;

/// What a WebSocket client may ask for, in our order of preference. A client that asks for nothing gets the first version
/// (k8s.io/streaming `wsstream`).
const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "v5.channel.k8s.io", channels: Channels::Binary, errors: Errors::Status },
    Protocol { name: "v4.channel.k8s.io", channels: Channels::Binary, errors: Errors::Status },
    Protocol { name: "v4.base64.channel.k8s.io", channels: Channels::Base64, errors: Errors::Status },
    Protocol { name: "base64.channel.k8s.io", channels: Channels::Base64, errors: Errors::Text },
    FIRST,
];
const FIRST: Protocol = Protocol { name: "channel.k8s.io", channels: Channels::Binary, errors: Errors::Text };
const SPDY_PROTOCOL: &str = "v4.channel.k8s.io";
const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// Messages waiting for the client's socket; when full, the container's output waits.
const OUTPUT_MESSAGES: usize = 8;
/// Of the runtime's last `Status`; the rest is not read.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// A subprotocol of exec and attach.
#[derive(Clone, Copy)]
struct Protocol {
    name: &'static str,
    channels: Channels,
    errors: Errors,
}

/// What the error channel carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// A `Status` at the end, success included.
    Status,
    /// A sentence, only after a failure.
    Text,
}

/// The wanted streams: the kubelet's own parameter names.
pub fn streams(query: &Query) -> Result<Streams> {
    let tty = is(query, "tty");
    let streams = Streams {
        stdin: is(query, "input") || is(query, "stdin"),
        stdout: is(query, "output") || is(query, "stdout"),
        // A terminal has one output.
        stderr: (is(query, "error") || is(query, "stderr")) && !tty,
        tty,
    };
    if !streams.stdin && !streams.stdout && !streams.stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(streams)
}

/// Connect the client with CRI's `url`.
pub async fn serve(mut request: Request<Body>, url: String, streams: Streams, group: &Group) -> Result<Response<Body>> {
    if upgrade::asks_for(&request, "websocket") {
        let (protocol, name) = protocol(&request)?;
        let response = websocket::accept(&request, name)
            .ok_or_else(|| Status::bad_request("unable to upgrade: no Sec-WebSocket-Key"))?;
        let (runtime, _) = dial(&url, SPDY_PROTOCOL, group).await?;
        let upgraded = hyper::upgrade::on(&mut request);
        let tasks = group.clone();
        group.spawn("exec", async move {
            let Ok(upgraded) = upgraded.await else { return };
            let socket = websocket::server(TokioIo::new(upgraded)).await;
            if let Err(error) = translate(socket, protocol, runtime, streams, &tasks).await {
                tracing::debug!(%error, "exec stream ended");
            }
        });
        return Ok(response);
    }
    if upgrade::asks_for(&request, "SPDY/3.1") {
        let offered = offered(request.headers());
        let (runtime, headers) = dial(&url, &offered, group).await?;
        let chosen = headers.get(PROTOCOL_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let upgraded = hyper::upgrade::on(&mut request);
        group.spawn("exec", async move {
            let Ok(upgraded) = upgraded.await else { return };
            let _ = upgrade::join(TokioIo::new(upgraded), runtime).await;
        });
        return Ok(upgrade::switching("SPDY/3.1", &[(PROTOCOL_HEADER, chosen)]));
    }
    Err(Status::bad_request("Upgrade request required"))
}

/// The WebSocket subprotocol for a client, and the name to answer with.
fn protocol(request: &Request<Body>) -> Result<(Protocol, &'static str)> {
    if websocket::offers_none(request) {
        return Ok((FIRST, ""));
    }
    let names: Vec<&str> = PROTOCOLS.iter().map(|p| p.name).collect();
    let found = websocket::negotiate(request, &names).and_then(|name| PROTOCOLS.iter().find(|p| p.name == name));
    let none = || Status::bad_request(format!("unable to upgrade: none of {} is offered", names.join(", ")));
    found.map(|p| (*p, p.name)).ok_or_else(none)
}

/// The stream protocols that a SPDY client offers, without what CRI does not know (v5 needs WebSocket's close).
fn offered(headers: &HeaderMap) -> String {
    let values = headers.get_all(PROTOCOL_HEADER).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let known: Vec<&str> = values.map(str::trim).filter(|p| *p != "v5.channel.k8s.io").collect();
    if known.is_empty() { SPDY_PROTOCOL.to_owned() } else { known.join(",") }
}

/// A SPDY connection to CRI's streaming server.
async fn dial(url: &str, protocols: &str, group: &Group) -> Result<(Box<upgrade::Io>, HeaderMap)> {
    let uri: Uri = url.parse().map_err(|e| Status::internal(format!("the runtime's stream address {url:?}: {e}")))?;
    let authority =
        uri.authority().ok_or_else(|| Status::internal(format!("the runtime's stream address {url:?} has no host")))?;
    let tcp = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await;
    let tcp =
        tcp.map_err(|e| Status::internal(format!("cannot reach the runtime's stream server at {authority}: {e}")))?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1");
    for protocol in protocols.split(',') {
        request = request.header(PROTOCOL_HEADER, protocol);
    }
    let request = request.body(Body::empty()).map_err(Status::internal)?;
    match upgrade::request(tcp, request, group).await.map_err(Status::internal)? {
        upgrade::Answer::Switched(headers, io) => Ok((io, headers)),
        upgrade::Answer::Plain(response) => {
            Err(Status::internal(format!("the runtime's stream server answered {}", response.status())))
        }
    }
}

/// Channels of a WebSocket to streams of a SPDY session and back, until the container's side has ended.
async fn translate(
    socket: websocket::Socket,
    protocol: Protocol,
    runtime: Box<upgrade::Io>,
    wanted: Streams,
    group: &Group,
) -> std::io::Result<()> {
    let (session, _incoming) = Session::start(*runtime, Role::Client, group);
    // The error stream first: upstream's servers wait for the whole set.
    let error = session.open(&[("streamType", "error")]).await?;
    let stdin = optional(&session, "stdin", wanted.stdin).await?;
    let stdout = optional(&session, "stdout", wanted.stdout).await?;
    let stderr = optional(&session, "stderr", wanted.stderr).await?;
    let resize = optional(&session, "resize", wanted.tty).await?;

    let (sink, source) = socket.split();
    let (messages, outgoing) = mpsc::channel(OUTPUT_MESSAGES);
    let channels = protocol.channels;
    let input = feed(source, channels, stdin, resize);
    let output = async {
        futures::join!(
            report(protocol, error, &messages),
            drain(channels, STDOUT, stdout, &messages),
            drain(channels, STDERR, stderr, &messages),
        );
        drop(messages);
    };
    let writing = write(sink, outgoing);
    // The client going away ends all; the client's stdin ending ends nothing.
    let gone = input.fuse();
    futures::pin_mut!(gone);
    let mut finished = std::pin::pin!(async { futures::join!(output, writing) });
    tokio::select! {
        _ = &mut finished => {}
        () = gone => {}
    }
    Ok(())
}

async fn optional(session: &Session, kind: &str, wanted: bool) -> std::io::Result<Option<Stream>> {
    if !wanted {
        return Ok(None);
    }
    session.open(&[("streamType", kind)]).await.map(Some)
}

/// One stream of the runtime to one channel.
async fn drain(channels: Channels, number: u8, stream: Option<Stream>, messages: &mpsc::Sender<Message>) {
    let Some(Stream { mut reader, writer, .. }) = stream else { return };
    let _ = writer.finish().await;
    while let Some(data) = Reader::next(&mut reader).await {
        if messages.send(channels.message(number, &data)).await.is_err() {
            return;
        }
    }
}

/// The runtime's error stream, a `Status` at the end, as the protocol wants it.
async fn report(protocol: Protocol, mut stream: Stream, messages: &mpsc::Sender<Message>) {
    if protocol.errors == Errors::Status {
        return drain(protocol.channels, ERROR, Some(stream), messages).await;
    }
    let _ = stream.writer.finish().await;
    let mut status = Vec::new();
    while let Some(data) = Reader::next(&mut stream.reader).await {
        let room = MAX_STATUS_BYTES.saturating_sub(status.len());
        status.extend_from_slice(&data[..data.len().min(room)]);
    }
    if let Some(text) = failure(&status) {
        let _ = messages.send(protocol.channels.message(ERROR, text.as_bytes())).await;
    }
}

/// The sentence in a `Status` that is no success.
fn failure(status: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    (status["status"] == "Failure").then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

async fn write(mut sink: SplitSink<websocket::Socket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    websocket::close(&mut sink).await;
}

/// The client's channels to the runtime; returns when the client is gone.
async fn feed(
    mut source: impl futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
    channels: Channels,
    stdin: Option<Stream>,
    resize: Option<Stream>,
) {
    // The readers stay: dropping them is harmless, dropping the writers resets the streams.
    let mut stdin: Option<Writer> = stdin.map(|s| s.writer);
    let resize: Option<Writer> = resize.map(|s| s.writer);
    while let Some((channel, data)) = channels.next(&mut source).await {
        match channel {
            STDIN => send(&stdin, data).await,
            RESIZE => send(&resize, data).await,
            CLOSE if data.first() == Some(&STDIN) => {
                if let Some(writer) = stdin.take() {
                    let _ = writer.finish().await;
                }
            }
            _ => {}
        }
    }
}

/// A failed write means that the runtime's side has ended, which the output tells the client.
async fn send(writer: &Option<Writer>, data: Bytes) {
    if let Some(writer) = writer
        && !data.is_empty()
    {
        let _ = writer.write(data).await;
    }
}
