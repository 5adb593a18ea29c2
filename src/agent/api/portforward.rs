//! Port-forward: connections into a pod's network namespace.
//!
//! Three forms: SPDY with a pair of streams a connection, the same inside a WebSocket tunnel (KEP-4006; kubectl since
//! 1.31), and WebSocket channels with two numbers a port (`v4.channel.k8s.io`; kube-rs and older clients).

use crate::netproxy::netns;
use crate::status::{Result, Status};
use crate::task::Group;
use crate::wire::query::Query;
use crate::wire::spdy::{Incoming, Role, Session, Stream, header};
use crate::wire::websocket::{Channels, Tunnel};
use crate::wire::{upgrade, websocket};
use axum::body::Body;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const SPDY: &str = "portforward.k8s.io";
const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// Half pairs waiting for their other stream; when full, the oldest request is refused.
const MAX_HALF_PAIRS: usize = 256;
/// Bytes read from a pod at once.
const COPY_BYTES: usize = 16 * 1024;
/// Messages waiting for a channel client.
const CHANNEL_MESSAGES: usize = 16;
/// Ports in one channel connection.
const MAX_PORTS: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Serve a client; connections are dialled in `target`.
pub async fn serve(
    mut request: Request<Body>,
    target: PathBuf,
    query: &Query,
    group: &Group,
) -> Result<Response<Body>> {
    let target: Arc<PathBuf> = Arc::new(target);
    let tasks = group.clone();
    if upgrade::asks_for(&request, "websocket") {
        let protocol = websocket::negotiate(&request, &[TUNNEL, CHANNELS]).ok_or_else(|| {
            Status::bad_request(format!("unable to upgrade: none of {TUNNEL}, {CHANNELS} is offered"))
        })?;
        let response = websocket::accept(&request, protocol)
            .ok_or_else(|| Status::bad_request("unable to upgrade: no Sec-WebSocket-Key"))?;
        let ports = if protocol == CHANNELS { ports(query)? } else { Vec::new() };
        let upgraded = hyper::upgrade::on(&mut request);
        group.spawn("port-forward", async move {
            let Ok(upgraded) = upgraded.await else { return };
            let socket = websocket::server(TokioIo::new(upgraded)).await;
            if ports.is_empty() {
                let (session, incoming) = Session::start(Tunnel::new(socket), Role::Server, &tasks);
                pairs(session, incoming, target, &tasks).await;
            } else {
                channels(socket, ports, target, &tasks).await;
            }
        });
        return Ok(response);
    }
    if upgrade::asks_for(&request, "SPDY/3.1") {
        let upgraded = hyper::upgrade::on(&mut request);
        group.spawn("port-forward", async move {
            let Ok(upgraded) = upgraded.await else { return };
            let (session, incoming) = Session::start(TokioIo::new(upgraded), Role::Server, &tasks);
            pairs(session, incoming, target, &tasks).await;
        });
        return Ok(upgrade::switching("SPDY/3.1", &[(PROTOCOL_HEADER, SPDY.to_owned())]));
    }
    Err(Status::bad_request("Upgrade request required"))
}

fn ports(query: &Query) -> Result<Vec<u16>> {
    let all = query.all("port").chain(query.all("ports")).flat_map(|t| t.split(','));
    let parsed: Result<Vec<u16>> =
        all.map(|t| t.parse().map_err(|_| Status::bad_request(format!("invalid port {t:?}")))).collect();
    match parsed? {
        ports if ports.is_empty() => Err(Status::bad_request("query parameter \"port\" is required")),
        ports if ports.len() > MAX_PORTS => Err(Status::bad_request(format!("more than {MAX_PORTS} ports"))),
        ports => Ok(ports),
    }
}

/// SPDY: an error and a data stream with the same requestID make one connection.
async fn pairs(session: Session, mut incoming: Incoming, target: Arc<PathBuf>, group: &Group) {
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    while let Some(stream) = incoming.next().await {
        let id = header(&stream.headers, "requestID").to_owned();
        let Some(other) = waiting.remove(&id) else {
            if waiting.len() >= MAX_HALF_PAIRS {
                waiting.clear();
            }
            waiting.insert(id, stream);
            continue;
        };
        let is_data = header(&stream.headers, "streamType") == "data";
        let (data, error) = if is_data { (stream, other) } else { (other, stream) };
        let target = target.clone();
        group.spawn("port-forward-connection", async move {
            connection(data, error, &target).await;
        });
    }
    drop(session);
}

async fn connection(data: Stream, error: Stream, target: &Path) {
    let port = header(&data.headers, "port").to_owned();
    let outcome = match port.parse::<u16>() {
        Ok(number) => {
            dial(number, target).await.map_err(|e| format!("failed to connect to port {number} in the pod: {e}"))
        }
        Err(_) => Err(format!("invalid port {port:?}")),
    };
    match outcome {
        Ok(tcp) => {
            copy(tcp, data).await;
            let _ = error.writer.finish().await;
        }
        Err(text) => {
            let _ = error.writer.write(Bytes::from(text)).await;
            let _ = error.writer.finish().await;
            let _ = data.writer.finish().await;
        }
    }
}

async fn dial(port: u16, target: &Path) -> std::io::Result<TcpStream> {
    let path = target.to_owned();
    let stream = Group::blocking(move || netns::within(&path, || connect(port))).await;
    let stream = stream.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// A port on loopback: IPv4, then IPv6.
fn connect(port: u16) -> std::io::Result<std::net::TcpStream> {
    let dial = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    let v4 = dial((Ipv4Addr::LOCALHOST, port).into());
    v4.or_else(|error| dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error))
}

/// Both ways; each direction ends alone.
async fn copy(tcp: TcpStream, stream: Stream) {
    let (mut from_pod, mut to_pod) = tcp.into_split();
    let Stream { mut reader, writer, .. } = stream;
    let inbound = async {
        while let Some(data) = reader.next().await {
            if to_pod.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = to_pod.shutdown().await;
    };
    let outbound = async {
        let mut buffer = vec![0u8; COPY_BYTES];
        while let Ok(n) = from_pod.read(&mut buffer).await {
            if n == 0 || writer.write(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                break;
            }
        }
        let _ = writer.finish().await;
    };
    // A pod that has closed its side is not waiting for more from the client.
    tokio::select! {
        () = outbound => {}
        () = async { inbound.await; std::future::pending::<()>().await } => {}
    }
}

/// Channel form: port `i` has data on channel 2i and errors on 2i+1; the first message of each names the port.
async fn channels(socket: websocket::Socket, ports: Vec<u16>, target: Arc<PathBuf>, group: &Group) {
    let (mut sink, mut source) = socket.split();
    let (messages, mut outgoing) = mpsc::channel(CHANNEL_MESSAGES);
    let mut inputs: HashMap<u8, mpsc::Sender<Bytes>> = HashMap::new();
    for (i, port) in ports.into_iter().enumerate() {
        let number = (2 * i) as u8;
        let (input, receiver) = mpsc::channel(CHANNEL_MESSAGES);
        inputs.insert(number, input);
        let (messages, target) = (messages.clone(), target.clone());
        group.spawn("port-forward-connection", channel(number, port, receiver, messages, target));
    }
    drop(messages);
    let reading = async {
        while let Some((number, data)) = Channels::Binary.next(&mut source).await {
            if let Some(input) = inputs.get(&number) {
                let _ = input.send(data).await;
            }
        }
    };
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        websocket::close(&mut sink).await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

async fn channel(
    number: u8,
    port: u16,
    mut input: mpsc::Receiver<Bytes>,
    messages: mpsc::Sender<tokio_tungstenite::tungstenite::Message>,
    target: Arc<PathBuf>,
) {
    let say = |number: u8, data: Vec<u8>| {
        let messages = messages.clone();
        async move { messages.send(Channels::Binary.message(number, &data)).await.is_ok() }
    };
    let name = port.to_le_bytes().to_vec();
    if !say(number, name.clone()).await || !say(number + 1, name).await {
        return;
    }
    let tcp = match dial(port, &target).await {
        Ok(tcp) => tcp,
        Err(error) => {
            say(number + 1, format!("failed to connect to port {port} in the pod: {error}").into_bytes()).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = tcp.into_split();
    let outbound = async {
        let mut buffer = vec![0u8; COPY_BYTES];
        while let Ok(n) = from_pod.read(&mut buffer).await {
            if n == 0 || !say(number, buffer[..n].to_vec()).await {
                return;
            }
        }
    };
    let inbound = async {
        while let Some(data) = input.recv().await {
            if to_pod.write_all(&data).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = outbound => {}
        () = inbound => {}
    }
}
